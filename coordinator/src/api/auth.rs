//! Who asks: the bearer token of a request and the name that goes with it.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use shared::id::Actor;
use shared::secret::Secret;

use super::problem::Problem;

/// The tokens that count, each with its owner's name. They are kept as digests.
#[derive(Debug, Clone)]
pub struct Tokens {
    owner: String,
    digest: [u8; 32],
}

impl Tokens {
    /// One token, whose holder is called `owner` in timelines.
    pub fn one(owner: &str, token: &Secret) -> Self {
        Self { owner: owner.to_owned(), digest: digest(token.reveal()) }
    }

    /// Whose request it is.
    pub(super) fn actor(&self, headers: &HeaderMap) -> Result<Actor, Problem> {
        let mut given = headers.get_all(AUTHORIZATION);
        let (Some(value), None) = (given.next(), given.next()) else {
            let detail = "must be given once, as `Bearer` and the token";
            return Err(Problem::unauthorized(detail, r#"Bearer realm="windlass""#));
        };
        let token = value.to_str().ok().and_then(bearer).unwrap_or("");
        if !token.is_empty() && same(&digest(token), &self.digest) {
            return Ok(Actor::Client(self.owner.clone()));
        }
        let challenge = r#"Bearer realm="windlass", error="invalid_token""#;
        Err(Problem::unauthorized("is no `Bearer` token that is known here", challenge))
    }
}

/// The token in an `Authorization` header of the scheme `Bearer`, whose name may be in any case.
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Compares every byte, so that the time taken says nothing of where two digests differ.
fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    left.iter().zip(right).fold(0, |difference, (l, r)| difference | (l ^ r)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn actor_of(values: &[&'static str]) -> Result<Actor, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        Tokens::one("dev", &Secret::new("s3cret".to_owned())).actor(&headers)
    }

    #[test]
    fn the_holder_of_the_token_is_known_by_name() {
        assert_eq!(actor_of(&["Bearer s3cret"]).unwrap(), Actor::Client("dev".to_owned()));
        assert_eq!(actor_of(&["bearer  s3cret"]).unwrap(), Actor::Client("dev".to_owned()));
    }

    #[test]
    fn anything_else_is_unauthorized_and_challenged() {
        let wrong: [&[&str]; 9] = [
            &[],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer s3cre"],
            &["Bearer s3cret2"],
            &["Basic s3cret"],
            &["s3cret"],
            &["Bearer s3cret", "Bearer s3cret"],
        ];
        for values in wrong {
            let response = actor_of(values).unwrap_err().response();
            assert_eq!(response.status(), 401, "{values:?}");
            assert!(response.headers().contains_key("www-authenticate"), "{values:?}");
        }
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        let tokens = Tokens::one("dev", &Secret::new(String::new()));
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer "));
        assert!(tokens.actor(&headers).is_err());
    }
}
