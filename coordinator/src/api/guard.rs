//! What stands around every route: the token, the headers of every answer, the panic that becomes a problem, and the
//! request's body that outlives its answer.

use std::any::Any;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, stream};

use super::auth::Tokens;
use super::problem::Problem;

/// The paths that answer without a token.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// A browser must not guess types, keep answers, or run what a log happens to contain.
const HEADERS: [(HeaderName, HeaderValue); 4] = [
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'")),
];

/// Lets a request with a token through to its route and answers for what goes wrong there.
pub async fn guard(mut request: ServiceRequest, next: Next<BoxBody>) -> Result<ServiceResponse<BoxBody>, Error> {
    let payload = share_payload(&mut request);
    let tokens = request.app_data::<web::Data<Tokens>>().ok_or_else(Problem::internal)?;
    if !OPEN_PATHS.contains(&request.path()) {
        match tokens.actor(request.headers()).await {
            Ok(actor) => drop(request.extensions_mut().insert(actor)),
            Err(problem) => return Ok(holding(request.into_response(problem.response()), payload)),
        }
    }
    let name = format!("{} {}", request.method(), request.path());
    match AssertUnwindSafe(next.call(request)).catch_unwind().await {
        Ok(Ok(mut response)) => {
            protect(response.headers_mut());
            Ok(holding(response, payload))
        }
        Ok(Err(error)) => Err(error),
        Err(panic) => {
            tracing::error!(request = name, panic = message(&*panic), "a request's handler panicked");
            Err(Problem::internal().into())
        }
    }
}

/// Adds the headers that every answer has, unless its route has set its own.
pub fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        if !headers.contains_key(&name) {
            headers.insert(name, value);
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("")
}

type SharedPayload = Rc<RefCell<Payload>>;

/// Keeps a hand on the request's body while the route reads it.
fn share_payload(request: &mut ServiceRequest) -> Option<SharedPayload> {
    let payload = match request.take_payload() {
        Payload::None => return None,
        payload => Rc::new(RefCell::new(payload)),
    };
    let reader = Rc::clone(&payload);
    let chunks = stream::poll_fn(move |cx| Pin::new(&mut *reader.borrow_mut()).poll_next(cx));
    request.set_payload(Payload::Stream { payload: Box::pin(chunks) });
    Some(payload)
}

fn holding(response: ServiceResponse<BoxBody>, payload: Option<SharedPayload>) -> ServiceResponse<BoxBody> {
    match payload {
        Some(payload) => response.map_body(|_, body| BoxBody::new(Holding { body, _payload: payload })),
        None => response,
    }
}

/// An answer's body that holds on to the request's. actix-http reads a chunked request to its end, however long that
/// is, once nobody holds its payload; while somebody does, it answers, waits a moment for the client to notice, and
/// closes the connection.
struct Holding {
    body: BoxBody,
    _payload: SharedPayload,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::middleware::from_fn;
    use actix_web::test::{TestRequest, init_service, try_call_service};
    use actix_web::{App, HttpResponse};
    use shared::id::Actor;
    use shared::secret::Secret;

    async fn panics() -> HttpResponse {
        panic!("the worst has happened");
    }

    async fn whoami(by: web::ReqData<Actor>) -> String {
        by.to_string()
    }

    /// Sends a request through the guard: its status, its headers and its body.
    async fn answer(path: &str, token: Option<&str>) -> (u16, HeaderMap, Bytes) {
        let tokens = web::Data::new(Tokens::one("dev", &Secret::new("s3cret".to_owned())));
        let app = App::new().app_data(tokens).wrap(from_fn(guard));
        let app = app.route("/panic", web::get().to(panics)).route("/me", web::get().to(whoami));
        let app = init_service(app.route("/healthz", web::get().to(HttpResponse::Ok))).await;
        let mut request = TestRequest::get().uri(path);
        if let Some(token) = token {
            request = request.insert_header(("Authorization", format!("Bearer {token}")));
        }
        let response = match try_call_service(&app, request.to_request()).await {
            Ok(response) => response.into_parts().1.map_into_boxed_body(),
            Err(error) => error.error_response(),
        };
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        (status, headers, actix_web::body::to_bytes(response.into_body()).await.unwrap())
    }

    #[actix_web::test]
    async fn a_panic_becomes_a_problem() {
        let (status, headers, body) = answer("/panic", Some("s3cret")).await;
        assert_eq!(status, 500);
        assert_eq!(headers.get("content-type").unwrap(), "application/problem+json");
        assert!(!String::from_utf8_lossy(&body).contains("worst"));
    }

    #[actix_web::test]
    async fn the_holder_of_the_token_reaches_the_route_by_name() {
        let (status, headers, body) = answer("/me", Some("s3cret")).await;
        assert_eq!((status, &*body), (200, &b"client:dev"[..]));
        for (name, value) in HEADERS {
            assert_eq!(headers.get(name), Some(&value));
        }
    }

    #[actix_web::test]
    async fn without_the_token_only_the_probes_answer() {
        assert_eq!(answer("/healthz", None).await.0, 200);
        for path in ["/me", "/panic", "/nothing", "/healthz/", "//healthz"] {
            let (status, headers, _) = answer(path, None).await;
            assert_eq!(status, 401, "{path}");
            assert!(headers.contains_key("www-authenticate"), "{path}");
            assert_eq!(answer(path, Some("other")).await.0, 401, "{path}");
        }
    }
}
