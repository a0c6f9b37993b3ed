//! Who asks: the bearer token of a request and the name that goes with it.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};
use sha2::{Digest, Sha256};
use shared::id::Actor;
use shared::secret::Secret;

use super::problem::Problem;
use crate::service::Service;
use crate::store::{Token, TokenKind};

/// The tokens that count: those of the store, and perhaps one more. They are known by their digests.
#[derive(Clone)]
pub struct Tokens {
    fixed: Option<Fixed>,
    stored: Option<Service>,
}

/// A token that isn't in the store, with its owner's name.
#[derive(Debug, Clone)]
struct Fixed {
    owner: String,
    digest: [u8; 32],
}

impl Tokens {
    /// The tokens of the store.
    pub fn stored() -> Self {
        Self { fixed: None, stored: None }
    }

    /// One more token than those, whose holder is called `owner` in timelines.
    pub fn one(owner: &str, token: &Secret) -> Self {
        Self { fixed: Some(Fixed { owner: owner.to_owned(), digest: digest(token.reveal()) }), stored: None }
    }

    /// The same, with the store that `service` knows.
    pub(super) fn with(self, service: Service) -> Self {
        Self { stored: Some(service), ..self }
    }

    /// Whose request it is.
    pub(super) async fn actor(&self, headers: &HeaderMap) -> Result<Actor, Problem> {
        let token = given(headers)?;
        let digest = digest(token);
        if let Some(fixed) = self.fixed.as_ref().filter(|fixed| same(&digest, &fixed.digest)) {
            return Ok(Actor::Client(fixed.owner.clone()));
        }
        // The store's tokens are looked up by their digest: what the time that this takes could tell of a digest tells
        // nothing of a token.
        let known = match &self.stored {
            Some(service) => service.token(&digest).await?,
            None => None,
        };
        match known {
            Some(Token { kind: TokenKind::Admin, name, .. }) => Ok(Actor::Client(name)),
            Some(Token { kind: TokenKind::Join, .. }) => {
                Err(Problem::forbidden("is a join token: workers enrol with it, and it opens nothing else"))
            }
            None => Err(unknown()),
        }
    }
}

/// The token that a request has brought along.
pub fn given(headers: &HeaderMap) -> Result<&str, Problem> {
    let mut given = headers.get_all(AUTHORIZATION);
    let (Some(value), None) = (given.next(), given.next()) else {
        let detail = "must be given once, as `Bearer` and the token";
        return Err(Problem::unauthorized(detail, r#"Bearer realm="windlass""#));
    };
    value.to_str().ok().and_then(bearer).filter(|token| !token.is_empty()).ok_or_else(unknown)
}

fn unknown() -> Problem {
    let challenge = r#"Bearer realm="windlass", error="invalid_token""#;
    Problem::unauthorized("is no `Bearer` token that is known here", challenge)
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
    use futures_util::FutureExt;

    fn actor_of(values: &[&'static str]) -> Result<Actor, Problem> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_static(value));
        }
        let tokens = Tokens::one("dev", &Secret::new("s3cret".to_owned()));
        // Nothing of it waits for a store here.
        tokens.actor(&headers).now_or_never().unwrap()
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
        assert!(tokens.actor(&headers).now_or_never().unwrap().is_err());
    }
}
