//! Signing in with a token, which the browser then keeps in a cookie that no script can read and no other site can send,
//! and signing out.

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, ORIGIN, RETRY_AFTER, SET_COOKIE};
use actix_web::{HttpRequest, HttpResponse, web};
use maud::html;

use super::layout::{Page, Place};
use super::{see_other, words};
use crate::api::auth::{COOKIE_NAME, Tokens, check_origin, cookie_value, given};
use crate::api::problem::Problem;
use crate::api::query::Query;
use crate::api::{Api, body};

/// The most bytes of a token that is looked at.
const TOKEN_BYTES_MAX: usize = 1024;
/// The most bytes of a path to go to afterwards.
const NEXT_BYTES_MAX: usize = 4 * 1024;

/// Where one signs in to be sent to `next` afterwards.
pub fn address(next: &str) -> String {
    if next == "/" { "/sign-in".to_owned() } else { format!("/sign-in?next={}", words::encoded(next)) }
}

/// Shows the form.
pub async fn ask(request: HttpRequest) -> HttpResponse {
    let query = Query::read(request.query_string(), &["next"]);
    form(StatusCode::OK, next(query.text("next", NEXT_BYTES_MAX)), None)
}

/// Takes the form: a token that counts becomes the cookie.
pub async fn enter(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    tokens: web::Data<Tokens>,
) -> Result<HttpResponse, Problem> {
    let body = body::read_form(&request, payload, &api).await?;
    check_origin(request.method(), request.headers())?;
    let text = String::from_utf8_lossy(body.bytes()).into_owned();
    body.wipe();
    let fields = Query::read(&text, &["token", "next"]);
    let next = next(fields.text("next", NEXT_BYTES_MAX));
    let Some(token) = fields.text("token", TOKEN_BYTES_MAX).map(str::trim).filter(|token| !token.is_empty()) else {
        return Ok(form(StatusCode::UNAUTHORIZED, next, Some("Enter a token.")));
    };
    let peer = request.peer_addr().map(|peer| peer.ip());
    if let Err(problem) = tokens.identify(token, peer).await {
        let plain = problem.response();
        let said = match plain.status() {
            StatusCode::UNAUTHORIZED => "This token is not known here. It may have expired or been revoked.",
            StatusCode::FORBIDDEN => "This is a join token: workers enrol with it, and it opens nothing else.",
            StatusCode::TOO_MANY_REQUESTS => "Too many tries have failed. Wait a moment and try again.",
            _ => return Err(problem),
        };
        let mut response = form(plain.status(), next, Some(said));
        if let Some(wait) = plain.headers().get(RETRY_AFTER) {
            response.headers_mut().insert(RETRY_AFTER, wait.clone());
        }
        return Ok(response);
    }
    let mut response = see_other(next);
    let cookie = cookie(&cookie_value(token), request.headers()).parse().map_err(|_| Problem::internal())?;
    response.headers_mut().insert(SET_COOKIE, cookie);
    Ok(response)
}

/// Forgets the cookie.
pub async fn leave(request: HttpRequest, payload: web::Payload, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    body::read_form(&request, payload, &api).await?;
    if given(request.headers()).is_ok() {
        check_origin(request.method(), request.headers())?;
    }
    let mut response = see_other("/sign-in");
    let gone = cookie("", request.headers()) + "; Max-Age=0";
    response.headers_mut().insert(SET_COOKIE, gone.parse().map_err(|_| Problem::internal())?);
    Ok(response)
}

/// The cookie, for as long as the browser runs. Whether the page came over TLS the browser itself says with its form, also
/// where a proxy before us took the TLS off.
fn cookie(value: &str, headers: &HeaderMap) -> String {
    let origin = headers.get(ORIGIN).and_then(|origin| origin.to_str().ok());
    let secure = if origin.is_some_and(|origin| origin.starts_with("https://")) { "; Secure" } else { "" };
    format!("{COOKIE_NAME}={value}; Path=/; HttpOnly; SameSite=Strict{secure}")
}

/// The path to go to: one of this page, whatever the link said.
fn next(asked: Option<&str>) -> &str {
    asked.filter(|path| is_local(path)).unwrap_or("/")
}

/// Whether it is a path of this very site. Browsers read `//` and `/\` as the beginning of another's, and pass over control
/// characters.
fn is_local(path: &str) -> bool {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    plain && path.starts_with('/') && !path.starts_with("//")
}

fn form(status: StatusCode, next: &str, error: Option<&str>) -> HttpResponse {
    let content = html! {
        div.sign-in {
            h1 { "Sign in" }
            form method="post" action="/sign-in" {
                input type="hidden" name="next" value=(next);
                label for="token" { "Token" }
                input #token type="password" name="token" required autofocus autocomplete="current-password"
                    spellcheck="false" aria-describedby=(if error.is_some() { "error hint" } else { "hint" })
                    aria-invalid=[error.map(|_| "true")];
                @if let Some(error) = error { p #error .error role="alert" { (error) } }
                button.primary type="submit" { "Sign in" }
                p #hint .hint {
                    "An administrator makes tokens with " code { "windlass token create" } ". " code { "windlass dev" }
                    " writes its own to " code { "token" } " in its data directory."
                }
            }
        }
    };
    let page =
        Page { title: "Sign in", place: Place::Elsewhere, identity: None, scripts: &[], refresh_ms: None, content };
    page.respond(status)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    #[test]
    fn one_is_sent_to_paths_of_this_page_alone() {
        for path in ["/", "/jobs/1?x=%20#L5", "/?state=running&tag=a:b//c"] {
            assert_eq!(next(Some(path)), path);
        }
        let others = [
            "",
            "jobs",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "\\/evil",
            "/\t/evil.example",
            "javascript:alert(1)",
            " /jobs",
            "/jobs\r\nSet-Cookie: a=b",
            "/ä",
        ];
        for path in others {
            assert_eq!(next(Some(path)), "/", "{path}");
        }
        assert_eq!(next(None), "/");
    }

    #[test]
    fn the_way_to_the_sign_in_says_where_one_wanted_to_go() {
        assert_eq!(address("/"), "/sign-in");
        assert_eq!(address("/?tag=a&x=b"), "/sign-in?next=%2F%3Ftag%3Da%26x%3Db");
    }

    #[test]
    fn the_cookie_is_for_the_browser_alone_and_for_no_other_site() {
        let mut headers = HeaderMap::new();
        assert_eq!(cookie("x", &headers), "windlass_token=x; Path=/; HttpOnly; SameSite=Strict");
        headers.insert(ORIGIN, HeaderValue::from_static("https://windlass.example"));
        assert_eq!(cookie("x", &headers), "windlass_token=x; Path=/; HttpOnly; SameSite=Strict; Secure");
        headers.insert(ORIGIN, HeaderValue::from_static("http://windlass.example"));
        assert!(!cookie("x", &headers).contains("Secure"));
    }
}
