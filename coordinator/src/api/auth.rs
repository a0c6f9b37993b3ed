//! Who asks: the token of a request, the name and the role that go with it, and where the request comes from.
//!
//! Programs send their token as a bearer token, the page's browser in a cookie. A browser sends that with whatever another
//! page makes it ask for, so that a request with a cookie must say for itself that it comes from our own page where it would
//! change something.

use std::net::IpAddr;

use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use shared::clock;
use shared::id::Actor;
use shared::role::Role;
use shared::secret::Secret;

use super::problem::Problem;
use crate::attempts::{Attempts, TooMany};
use crate::caller::Caller;
use crate::service::Service;
use crate::store::{Token, TokenKind};

/// The cookie that holds the token, in base64: a token may have characters that a cookie may not.
pub const COOKIE_NAME: &str = "windlass_token";
/// The header by which one coordinator tells another where a request that it passes on came from.
pub const PASSED_FROM: HeaderName = HeaderName::from_static("windlass-passed-from");

/// The tokens that count: those of the store, and perhaps one more. They are known by their digests.
#[derive(Clone)]
pub struct Tokens {
    fixed: Option<Fixed>,
    stored: Option<Service>,
    attempts: std::sync::Arc<Attempts<IpAddr>>,
}

/// A token that isn't in the store, with its owner's name. It is an administrator's.
#[derive(Debug, Clone)]
struct Fixed {
    owner: String,
    digest: [u8; 32],
}

/// Whose request it is, and what that one may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What its holder is called in timelines.
    pub name: String,
    pub role: Role,
}

/// What somebody was let in with, for answers that go on: it may cease to count meanwhile.
#[derive(Clone)]
pub struct Pass {
    digest: [u8; 32],
    /// None where nothing can take it away.
    stored: Option<Service>,
}

impl Pass {
    /// Whether it counts still: known from memory.
    pub fn counts(&self) -> bool {
        self.stored.as_ref().is_none_or(|service| service.known_token(&self.digest).is_some())
    }

    /// One that counts for ever.
    #[cfg(test)]
    pub fn for_ever() -> Self {
        Self { digest: [0; 32], stored: None }
    }
}

impl Tokens {
    /// The tokens of the store.
    pub fn stored() -> Self {
        Self { fixed: None, stored: None, attempts: std::sync::Arc::default() }
    }

    /// One more token than those, whose holder is called `owner` in timelines.
    pub fn one(owner: &str, token: &Secret) -> Self {
        let fixed = Fixed { owner: owner.to_owned(), digest: digest(token.reveal()) };
        Self { fixed: Some(fixed), ..Self::stored() }
    }

    /// The same, with the store that `service` knows.
    pub(super) fn with(self, service: Service) -> Self {
        Self { stored: Some(service), ..self }
    }

    /// The store's service, where there is one.
    pub(super) fn service(&self) -> Option<&Service> {
        self.stored.as_ref()
    }

    /// What the holder of that token is let in with.
    pub fn pass(&self, token: &str) -> Pass {
        let digest = digest(token);
        let fixed = self.fixed.as_ref().is_some_and(|fixed| same(&digest, &fixed.digest));
        Pass { digest, stored: self.stored.clone().filter(|_| !fixed) }
    }

    /// Whose token this is. `from` is where it comes from: an address that has failed too often isn't looked up any more.
    pub async fn identify(&self, token: &str, from: Option<IpAddr>) -> Result<Identity, Problem> {
        let digest = digest(token);
        if let Some(fixed) = self.fixed.as_ref().filter(|fixed| same(&digest, &fixed.digest)) {
            return Ok(Identity { name: fixed.owner.clone(), role: Role::Admin });
        }
        let Some(service) = &self.stored else { return Err(unknown()) };
        // The store's tokens are looked up by their digest: what the time that this takes could tell of a digest tells
        // nothing of a token.
        if let Some(token) = service.known_token(&digest) {
            return identity(token);
        }
        let from = from.map(network);
        let limited = |address| self.attempts.take(address, clock::instant());
        from.map_or(Ok(()), limited).map_err(|TooMany(wait)| {
            Problem::busy("too many requests with a token that isn't known have come from this address", wait)
        })?;
        let known = service.token(&digest).await?.ok_or_else(unknown)?;
        if let Some(address) = from {
            self.attempts.give_back(&address);
        }
        identity(known)
    }
}

fn identity(token: Token) -> Result<Identity, Problem> {
    match token {
        Token { kind: TokenKind::Role(role), name, .. } => Ok(Identity { name, role }),
        Token { kind: TokenKind::Join, .. } => {
            Err(Problem::forbidden("is a join token: workers enrol with it, and it opens nothing else"))
        }
    }
}

/// The token that a request has brought along, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Given {
    Bearer(String),
    Cookie(String),
}

impl Given {
    pub fn token(&self) -> &str {
        match self {
            Self::Bearer(token) | Self::Cookie(token) => token,
        }
    }
}

/// The token of these headers: a bearer token, or else the page's cookie.
pub fn given(headers: &HeaderMap) -> Result<Given, Problem> {
    let mut bearers = headers.get_all(AUTHORIZATION);
    match (bearers.next(), bearers.next()) {
        (Some(value), None) => {
            let token = value.to_str().ok().and_then(bearer).filter(|token| !token.is_empty());
            token.map(|token| Given::Bearer(token.to_owned())).ok_or_else(unknown)
        }
        (None, _) => cookie(headers).map(Given::Cookie).ok_or_else(missing),
        (Some(_), Some(_)) => Err(missing()),
    }
}

/// The value that the cookie has for that token.
pub fn cookie_value(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(token)
}

/// The token in the page's cookie, where there is one of that name alone.
fn cookie(headers: &HeaderMap) -> Option<String> {
    let all = headers.get_all(COOKIE).filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut ours = all.filter_map(|pair| pair.trim().strip_prefix(COOKIE_NAME)?.strip_prefix('='));
    let (Some(value), None) = (ours.next(), ours.next()) else { return None };
    let token = URL_SAFE_NO_PAD.decode(value).ok()?;
    String::from_utf8(token).ok().filter(|token| !token.is_empty())
}

/// Refuses what another page may have made a browser send: a request that has the cookie, isn't a mere question, and
/// doesn't say that it is our own page's.
pub fn check_origin(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if *method == Method::GET || *method == Method::HEAD {
        return Ok(());
    }
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let origin = text(ORIGIN).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    match (origin, text(HOST)) {
        (Some(origin), Some(host)) if origin.eq_ignore_ascii_case(host) => Ok(()),
        _ => Err(Problem::forbidden_for("Origin", "must be this page's own where a request has its cookie")),
    }
}

/// What stands for an address: all of a network of IPv6 that one customer has, for it holds more addresses than anybody could
/// remember.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
            Some(v4) => IpAddr::V4(v4),
            None => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        },
    }
}

/// Who gives the command of a request, for the audit.
pub fn caller(identity: &Identity, request: &ServiceRequest) -> Caller {
    Caller { actor: Actor::Client(identity.name.clone()), origin: origin(request.peer_addr(), request.headers()) }
}

/// Where a request comes from: the address at the other end, and what that one says if it passes a request on.
fn origin(peer: Option<std::net::SocketAddr>, headers: &HeaderMap) -> Option<String> {
    let peer = peer?.ip();
    let from = headers.get(PASSED_FROM).and_then(|value| value.to_str().ok()?.trim().parse::<IpAddr>().ok());
    Some(from.map_or_else(|| peer.to_string(), |from| format!("{from} via {peer}")))
}

/// The same request with the token as a bearer token, however it was given: for whoever passes it on.
pub fn as_bearer(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn missing() -> Problem {
    let detail = "must be given once, as `Bearer` and the token";
    Problem::unauthorized(detail, r#"Bearer realm="windlass""#)
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

    fn headers(all: &[(HeaderName, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(name.clone(), HeaderValue::from_static(value));
        }
        headers
    }

    fn identity_of(all: &[(HeaderName, &'static str)]) -> Result<Identity, Problem> {
        let tokens = Tokens::one("dev", &Secret::new("s3cret".to_owned()));
        let given = given(&headers(all))?;
        // Nothing of it waits for a store here.
        tokens.identify(given.token(), None).now_or_never().unwrap()
    }

    #[test]
    fn the_holder_of_the_token_is_known_by_name() {
        let dev = Identity { name: "dev".to_owned(), role: Role::Admin };
        assert_eq!(identity_of(&[(AUTHORIZATION, "Bearer s3cret")]), Ok(dev.clone()));
        assert_eq!(identity_of(&[(AUTHORIZATION, "bearer  s3cret")]), Ok(dev.clone()));
        assert_eq!(cookie_value("s3cret"), "czNjcmV0");
        for cookie in ["windlass_token=czNjcmV0", "a=b; windlass_token=czNjcmV0;c=d"] {
            assert_eq!(identity_of(&[(COOKIE, cookie)]), Ok(dev.clone()), "{cookie}");
        }
    }

    #[test]
    fn anything_else_is_unauthorized_and_challenged() {
        let wrong: [&[(HeaderName, &'static str)]; 14] = [
            &[],
            &[(AUTHORIZATION, "")],
            &[(AUTHORIZATION, "Bearer")],
            &[(AUTHORIZATION, "Bearer ")],
            &[(AUTHORIZATION, "Bearer s3cre")],
            &[(AUTHORIZATION, "Bearer s3cret2")],
            &[(AUTHORIZATION, "Basic s3cret")],
            &[(AUTHORIZATION, "s3cret")],
            &[(AUTHORIZATION, "Bearer s3cret"), (AUTHORIZATION, "Bearer s3cret")],
            &[(COOKIE, "windlass_token=")],
            &[(COOKIE, "windlass_token=s3cret")],
            &[(COOKIE, "windlass_token=czNjcmV0; windlass_token=czNjcmV0")],
            &[(COOKIE, "xwindlass_token=czNjcmV0")],
            // Whoever gives a bearer token is known by that alone.
            &[(COOKIE, "windlass_token=czNjcmV0"), (AUTHORIZATION, "Bearer other")],
        ];
        for all in wrong {
            let response = identity_of(all).unwrap_err().response();
            assert_eq!(response.status(), 401, "{all:?}");
            assert!(response.headers().contains_key("www-authenticate"), "{all:?}");
        }
    }

    #[test]
    fn an_empty_token_lets_nobody_in() {
        let tokens = Tokens::one("dev", &Secret::new(String::new()));
        assert!(given(&headers(&[(AUTHORIZATION, "Bearer ")])).is_err());
        assert!(given(&headers(&[(COOKIE, "windlass_token=")])).is_err());
        assert!(tokens.identify("x", None).now_or_never().unwrap().is_err());
    }

    #[test]
    fn what_changes_something_with_a_cookie_must_come_from_our_own_page() {
        let host = (HOST, "windlass.example:7070");
        for origin in ["https://windlass.example:7070", "http://WINDLASS.example:7070"] {
            assert_eq!(check_origin(&Method::POST, &headers(&[host.clone(), (ORIGIN, origin)])), Ok(()));
        }
        let others: [&[(HeaderName, &'static str)]; 6] = [
            &[],
            &[(HOST, "windlass.example:7070")],
            &[(HOST, "windlass.example:7070"), (ORIGIN, "null")],
            &[(HOST, "windlass.example:7070"), (ORIGIN, "https://windlass.example")],
            &[(HOST, "windlass.example:7070"), (ORIGIN, "https://evil.example")],
            &[(ORIGIN, "https://windlass.example:7070")],
        ];
        for all in others {
            for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
                assert_eq!(check_origin(&method, &headers(all)).unwrap_err().response().status(), 403, "{all:?}");
            }
            assert_eq!(check_origin(&Method::GET, &headers(all)), Ok(()));
        }
    }

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:ffff::1"), of("2001:db8:1:2::"));
        assert_ne!(of("2001:db8:1:3::1"), of("2001:db8:1:2::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.2"), of("192.0.2.1"));
    }

    #[test]
    fn the_audit_hears_who_has_passed_a_request_on_and_for_whom() {
        let peer = Some("10.0.0.2:999".parse().unwrap());
        assert_eq!(origin(peer, &headers(&[])).as_deref(), Some("10.0.0.2"));
        let passed = headers(&[(PASSED_FROM, "192.0.2.7")]);
        assert_eq!(origin(peer, &passed).as_deref(), Some("192.0.2.7 via 10.0.0.2"));
        // Whatever else stands there, the address at the other end is kept.
        for other in ["x", "", "192.0.2.7 via 10.0.0.9", "192.0.2.7, 192.0.2.8", "192.0.2.7 x"] {
            assert_eq!(origin(peer, &headers(&[(PASSED_FROM, other)])).as_deref(), Some("10.0.0.2"), "{other}");
        }
        let mut long = HeaderMap::new();
        long.insert(
            PASSED_FROM,
            HeaderValue::from_str(&format!("192.0.2.7 via 10.0.0.9{}", " ".repeat(4000))).unwrap(),
        );
        assert_eq!(origin(peer, &long).as_deref(), Some("10.0.0.2"));
    }
}
