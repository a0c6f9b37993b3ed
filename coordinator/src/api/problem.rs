//! What the API answers where it doesn't do what was asked: problem details (RFC 9457) that name every rejected field.
//!
//! Whoever refuses something makes its [`Problem`] here, so that status, headers and form are decided in one place.

use std::fmt::{self, Display};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use actix_web::{HttpResponse, ResponseError};
use serde::Serialize;
use shared::role::Role;
use shared::spec::reader::FieldError;
use utoipa::ToSchema;

use super::guard::protect;
use crate::service;

/// The header by which a coordinator tells another that the request isn't its own, and that nothing was done.
pub const NOT_OURS: HeaderName = HeaderName::from_static("windlass-not-ours");
/// What a caller is told to wait where a shard's owner can't be reached.
const OWNER_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Tag sets make room when jobs end: a caller need not ask more often.
const TAG_SETS_RETRY_AFTER: Duration = Duration::from_secs(10);

/// A refusal or a failure, as its reader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    status: u16,
    detail: String,
    /// Everything that was rejected: a field's path, the name of a parameter or a header, or `body`, `id`, `cursor`,
    /// `path`, `method`.
    errors: Vec<FieldError>,
    #[serde(skip)]
    header: Option<Header>,
}

/// What a problem's header says besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Header {
    Allow(&'static str),
    Challenge(&'static str),
    RetryAfterSeconds(u64),
    /// Another coordinator can do it.
    NotOurs,
}

impl Header {
    fn pair(self) -> (HeaderName, HeaderValue) {
        match self {
            Self::NotOurs => (NOT_OURS, HeaderValue::from_static("1")),
            Self::Allow(methods) => (ALLOW, HeaderValue::from_static(methods)),
            Self::Challenge(challenge) => (WWW_AUTHENTICATE, HeaderValue::from_static(challenge)),
            Self::RetryAfterSeconds(seconds) => (RETRY_AFTER, HeaderValue::from(seconds)),
        }
    }
}

impl Problem {
    /// The request is malformed there.
    pub fn malformed(field: &str, detail: impl Display) -> Self {
        Self::of(StatusCode::BAD_REQUEST, field, detail)
    }

    /// The request is malformed in all these places.
    pub fn malformed_fields(errors: Vec<FieldError>) -> Self {
        Self::listing(StatusCode::BAD_REQUEST, errors)
    }

    /// The body is well-formed, but these fields of it can't be accepted.
    pub fn refused_fields(errors: Vec<FieldError>) -> Self {
        Self::listing(StatusCode::UNPROCESSABLE_ENTITY, errors)
    }

    /// This one can't be accepted.
    pub fn refused(field: &str, detail: impl Display) -> Self {
        Self::of(StatusCode::UNPROCESSABLE_ENTITY, field, detail)
    }

    /// The bearer token is missing, or is none that counts.
    pub fn unauthorized(detail: &str, challenge: &'static str) -> Self {
        let problem = Self::of(StatusCode::UNAUTHORIZED, "Authorization", detail);
        Self { header: Some(Header::Challenge(challenge)), ..problem }
    }

    /// The bearer token is one, but not for this.
    pub fn forbidden(detail: &str) -> Self {
        Self::of(StatusCode::FORBIDDEN, "Authorization", detail)
    }

    /// The token's role doesn't allow it.
    pub fn forbidden_to(role: Role, least: Role) -> Self {
        Self::forbidden(&format!("is a {role}'s token, and this needs the role {least} or one that may more"))
    }

    /// The request may not be made as it was, because of this header.
    pub fn forbidden_for(header: &str, detail: &str) -> Self {
        Self::of(StatusCode::FORBIDDEN, header, detail)
    }

    /// The command couldn't be written into the audit: whether it was done is unknown.
    pub fn unaudited() -> Self {
        let detail = "the audit can't be written at the moment: whether it was done is unknown";
        Self::unavailable(detail, OWNER_RETRY_AFTER)
    }

    /// What the request's header `field` asks for doesn't hold; nothing was done.
    pub fn failed_condition(field: &str, detail: &str) -> Self {
        Self::of(StatusCode::PRECONDITION_FAILED, field, detail)
    }

    /// What `field` names isn't there.
    pub fn not_found(field: &str, detail: &str) -> Self {
        Self::of(StatusCode::NOT_FOUND, field, detail)
    }

    /// What is there doesn't allow it.
    pub fn conflict(field: &str, detail: &str) -> Self {
        Self::of(StatusCode::CONFLICT, field, detail)
    }

    /// There is no such route.
    pub fn no_route() -> Self {
        Self::of(StatusCode::NOT_FOUND, "path", "there is nothing at this path")
    }

    /// The path has other methods alone.
    pub fn no_method(allowed: &'static str) -> Self {
        let problem = Self::of(StatusCode::METHOD_NOT_ALLOWED, "method", format_args!("must be one of {allowed}"));
        Self { header: Some(Header::Allow(allowed)), ..problem }
    }

    /// The body didn't come in time.
    pub fn slow_body(within: Duration) -> Self {
        let detail = format_args!("did not arrive within {} seconds", within.as_secs());
        Self::of(StatusCode::REQUEST_TIMEOUT, "body", detail)
    }

    /// The body is over `max` bytes.
    pub fn large_body(max: usize) -> Self {
        Self::of(StatusCode::PAYLOAD_TOO_LARGE, "body", format_args!("must have at most {max} bytes"))
    }

    /// The body isn't JSON by its own account.
    pub fn not_json() -> Self {
        let detail = "a body must come as application/json";
        Self::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Content-Type", detail)
    }

    /// A bound is reached: the caller may come again after `retry_after`.
    pub fn busy(detail: &str, retry_after: Duration) -> Self {
        Self::plain(StatusCode::TOO_MANY_REQUESTS, detail).after(retry_after)
    }

    /// Those tags would make one tag set more than there may be at a time.
    pub fn too_many_tag_sets(field: &str) -> Self {
        let detail = "open jobs use too many different tag sets";
        Self::of(StatusCode::TOO_MANY_REQUESTS, field, detail).after(TAG_SETS_RETRY_AFTER)
    }

    /// What `error` means where the request is about a worker or a token: `what`.
    pub fn about(what: &str, error: service::Error) -> Self {
        match error {
            service::Error::NotFound => Self::of(StatusCode::NOT_FOUND, "id", format_args!("there is no such {what}")),
            service::Error::Conflict(why) => Self::plain(StatusCode::CONFLICT, why),
            other => other.into(),
        }
    }

    /// A cancel by filter that couldn't be finished.
    pub fn half_done(taken: u64, left: u64) -> Self {
        let detail = format_args!(
            "{taken} of the jobs found so far are being stopped; {left} could not be reached: repeat it to stop the rest"
        );
        Self::unavailable(detail, OWNER_RETRY_AFTER)
    }

    /// It was passed on, and no answer came: whether it was done is unknown.
    pub fn unknown_fate() -> Self {
        let detail = "another coordinator was asked and didn't answer: whether it was done is unknown";
        Self::unavailable(detail, OWNER_RETRY_AFTER)
    }

    /// It can't be done right now; the caller may come again after `retry_after`.
    pub fn unavailable(detail: impl Display, retry_after: Duration) -> Self {
        Self::plain(StatusCode::SERVICE_UNAVAILABLE, detail).after(retry_after)
    }

    /// A defect of ours.
    pub fn internal() -> Self {
        Self::plain(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here; the log says more")
    }

    /// The same, told to somebody who can't do anything about it but come again.
    pub fn given_up(self) -> Self {
        if self.is_not_ours() { self.after(OWNER_RETRY_AFTER) } else { self }
    }

    /// Whether the same may go well later.
    pub fn may_pass(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE.as_u16()
    }

    /// Whether another coordinator could do it, and nothing was done here.
    pub fn is_not_ours(&self) -> bool {
        self.header == Some(Header::NotOurs)
    }

    /// The same problem as an answer.
    pub fn response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.status_code());
        if let Some(header) = self.header {
            response.insert_header(header.pair());
        }
        if self.is_not_ours() {
            response.insert_header(Header::RetryAfterSeconds(OWNER_RETRY_AFTER.as_secs()).pair());
        }
        let mut response = response.json(self);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        protect(headers);
        response
    }

    fn plain(status: StatusCode, detail: impl Display) -> Self {
        Self {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.to_string(),
            errors: Vec::new(),
            header: None,
        }
    }

    fn of(status: StatusCode, field: &str, detail: impl Display) -> Self {
        Self::listing(status, vec![FieldError::new(field, detail.to_string())])
    }

    /// The detail repeats the first mistake, for those who show nothing else.
    fn listing(status: StatusCode, errors: Vec<FieldError>) -> Self {
        let detail = match errors.as_slice() {
            [] => "the request can't be accepted".to_owned(),
            [only] => format!("{}: {}", only.field, only.detail),
            [first, rest @ ..] => format!("{}: {} (and {} more)", first.field, first.detail, rest.len()),
        };
        Self { errors, ..Self::plain(status, detail) }
    }

    fn after(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        Self { header: Some(Header::RetryAfterSeconds(seconds.max(1))), ..self }
    }
}

impl From<service::Error> for Problem {
    fn from(error: service::Error) -> Self {
        use service::Error as E;
        let detail = error.to_string();
        match error {
            E::NotFound => Self::of(StatusCode::NOT_FOUND, "id", detail),
            E::Conflict(_) => Self::of(StatusCode::CONFLICT, "id", detail),
            E::KeyReused(index) => Self::refused(&format!("jobs[{index}].idempotency_key"), detail),
            E::TooManyTagSets(index) => Self::too_many_tag_sets(&format!("jobs[{index}].tags")),
            E::Busy { retry_after } => Self::busy(&detail, retry_after),
            // Whoever can, passes the request on; this is what is left when nobody could be reached.
            E::Elsewhere => {
                let problem = Self::plain(StatusCode::SERVICE_UNAVAILABLE, "the job's coordinator can't be reached");
                Self { header: Some(Header::NotOurs), ..problem }
            }
            E::Unavailable { retry_after } => Self::plain(StatusCode::SERVICE_UNAVAILABLE, detail).after(retry_after),
            E::Internal => Self::internal(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        self.response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_in_whole_seconds_and_never_as_none() {
        for (millis, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2")] {
            let error = service::Error::Unavailable { retry_after: Duration::from_millis(millis) };
            let response = Problem::from(error).response();
            assert_eq!(response.status(), 503);
            assert_eq!(response.headers().get(RETRY_AFTER).unwrap(), seconds);
        }
        let busy = Problem::from(service::Error::Busy { retry_after: Duration::from_secs(3) }).response();
        assert_eq!(busy.status(), 429);
        assert_eq!(busy.headers().get(RETRY_AFTER).unwrap(), "3");
    }

    #[test]
    fn a_problem_has_every_field_of_the_contract() {
        let problem = Problem::refused_fields(vec![
            FieldError::new("steps[0].run", "must not be empty"),
            FieldError::new("tags", "must be an array"),
        ]);
        let json = serde_json::to_value(&problem).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "type": "about:blank", "title": "Unprocessable Entity", "status": 422,
                "detail": "steps[0].run: must not be empty (and 1 more)",
                "errors": [{"field": "steps[0].run", "detail": "must not be empty"},
                           {"field": "tags", "detail": "must be an array"}],
            })
        );
        assert_eq!(problem.response().headers().get("content-type").unwrap(), "application/problem+json");
    }

    #[test]
    fn each_error_of_the_service_has_its_status() {
        let status = |error: service::Error| Problem::from(error).status;
        assert_eq!(status(service::Error::NotFound), 404);
        assert_eq!(status(service::Error::Conflict("it is running".into())), 409);
        assert_eq!(status(service::Error::KeyReused(0)), 422);
        assert_eq!(status(service::Error::TooManyTagSets(0)), 429);
        assert_eq!(status(service::Error::Internal), 500);
    }
}
