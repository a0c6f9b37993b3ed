//! What stands around every route: the token, the headers of every answer, the panic that becomes a problem, and the
//! request's body that outlives its answer. Around each route by itself stands what its rule says: [`authorize`].

use std::any::Any;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderMap, HeaderName, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage, web};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, stream};

use super::auth::{self, Given, Identity, Tokens};
use super::problem::Problem;
use super::rules::{self, Audited, Needs};
use crate::caller::Caller;
use crate::web as page;

/// How many characters of a path's part the audit keeps: more than any id or name has.
const SUBJECT_CHARS_MAX: usize = 255;

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
    if !rules::is_open(request.path()) {
        let tokens = tokens.clone();
        if let Err(problem) = authenticate(&mut request, &tokens).await {
            let response = page::instead(request.request(), &problem).unwrap_or_else(|| problem.response());
            return Ok(holding(request.into_response(response), payload));
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

/// Notes with the request whose it is.
async fn authenticate(request: &mut ServiceRequest, tokens: &Tokens) -> Result<(), Problem> {
    let given = auth::given(request.headers())?;
    let identity = tokens.identify(given.token(), request.peer_addr().map(|peer| peer.ip())).await?;
    if let Given::Cookie(token) = &given {
        auth::check_origin(request.method(), request.headers())?;
        // Whoever passes the request on passes the token on as any program would.
        let bearer = auth::as_bearer(token).ok_or_else(Problem::internal)?;
        request.headers_mut().insert(AUTHORIZATION, bearer);
    }
    let caller = auth::caller(&identity, request);
    let mut extensions = request.extensions_mut();
    extensions.insert(caller.actor.clone());
    extensions.insert(caller);
    extensions.insert(tokens.pass(given.token()));
    extensions.insert(identity);
    Ok(())
}

/// Lets a request through to the route at `path`, one of `methods`, where its rule allows it to whoever asks; a command is in
/// the audit before it is answered.
pub async fn authorize(
    path: &'static str,
    methods: &'static str,
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let Some(rule) = rules::rule(request.method(), path) else {
        // The route's own answer to other methods does nothing; a method without a rule must not do anything.
        let has_it = methods.split(", ").any(|method| method == request.method().as_str());
        return if has_it { Err(Problem::internal().into()) } else { next.call(request).await };
    };
    let Needs::Role(least) = rule.needs else { return next.call(request).await };
    let tokens = request.app_data::<web::Data<Tokens>>().ok_or_else(Problem::internal)?.clone();
    let (identity, caller) = {
        let extensions = request.extensions();
        let (identity, caller) = (extensions.get::<Identity>().cloned(), extensions.get::<Caller>().cloned());
        (identity.ok_or_else(Problem::internal)?, caller.ok_or_else(Problem::internal)?)
    };
    let subject = subject(&request);
    let service = tokens.service();
    let note = |action: &str, outcome: &str| match service {
        Some(service) => service.note(&caller, action, &subject, outcome).map(Some),
        None => Ok(None),
    };
    if identity.role < least {
        if let Audited::Asked(action) | Audited::Done(action) = rule.audited {
            // It is refused all the same where that can't be written down.
            let noted = match note(action, &format!("refused: it needs the role {least}")) {
                Ok(Some(noted)) => noted.await,
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = noted {
                tracing::warn!(%error, action, "a refused command isn't in the audit");
            }
        }
        let problem = Problem::forbidden_to(identity.role, least);
        return Ok(request.error_response(problem));
    }
    match rule.audited {
        Audited::No | Audited::Done(_) => next.call(request).await,
        Audited::Asked(action) => {
            // Without a place for its line the command isn't given at all.
            let Some(noted) = note(action, "asked").map_err(Problem::from)? else { return next.call(request).await };
            let (answer, noted) = tokio::join!(next.call(request), noted);
            noted.map_err(|_| Problem::unaudited())?;
            answer
        }
    }
}

/// What a request's path is about, as the audit keeps it: an id in its one spelling, for that is what people look for, or as
/// much of a name as there may be. What is no id isn't kept: it may be a token that was pasted in its place.
fn subject(request: &ServiceRequest) -> String {
    let part = |name| request.match_info().get(name);
    match (part("id"), part("name")) {
        (Some(id), _) => uuid::Uuid::try_parse(id).map(|id| id.hyphenated().to_string()).unwrap_or_default(),
        (None, Some(name)) => name.chars().filter(|c| !c.is_control()).take(SUBJECT_CHARS_MAX).collect(),
        (None, None) => String::new(),
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
