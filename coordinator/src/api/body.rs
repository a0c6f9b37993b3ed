//! Reads a request's body: JSON alone, at most 8 MiB, within a time, and not too many large ones at once.

use std::time::Duration;

use actix_web::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use actix_web::{HttpMessage, HttpRequest, web};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::Value;
use shared::spec::document::{self, Fault};
use shared::spec::reader::{Errors, Node, Object};
use tokio::sync::{Semaphore, SemaphorePermit};
use zeroize::Zeroize;

use super::Api;
use super::problem::Problem;

/// The most bytes of a body: 8 MiB, as the contract says.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The most bytes of a form's body: a reason for a cancel, each of its bytes encoded in three, fits.
const FORM_BYTES_MAX: usize = 16 * 1024;
/// How a form says what it is.
const FORM: &str = "application/x-www-form-urlencoded";
/// The most KiB of all bodies that are being read at a time: four of the largest.
pub const BODIES_KIB_MAX: usize = 4 * BODY_BYTES_MAX / 1024;
/// How long a body may take to arrive: the largest comes in time at 280 KiB a second.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);
/// When to come back after the bodies under way took all the space.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A body that was read whole, as it came.
#[derive(Debug, Clone)]
pub struct Body(Bytes);

impl Body {
    /// A body that came as these bytes.
    #[cfg(feature = "faults")]
    pub fn of(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// The bytes, to be passed on.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Forgets it: it held a secret.
    pub fn wipe(self) {
        // It is nobody else's by now, unless it is passed on.
        if let Ok(mut bytes) = self.0.try_into_mut() {
            bytes.zeroize();
        }
    }

    /// Its JSON, none where it is empty.
    pub fn value(&self) -> Result<Option<Value>, Problem> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let text = std::str::from_utf8(&self.0).map_err(|error| {
            Problem::malformed("body", format_args!("is not UTF-8 from byte {} on", error.valid_up_to()))
        })?;
        document::read(text).map(Some).map_err(|fault| match fault {
            Fault::Containers | Fault::Syntax(_) => Problem::malformed("body", fault),
            Fault::Doubled(errors) => Problem::malformed_fields(errors),
        })
    }

    /// The JSON of a body that must be there.
    pub fn require(&self) -> Result<Value, Problem> {
        self.value()?.ok_or_else(|| Problem::malformed("body", "is empty: it must be JSON"))
    }
}

/// Reads a body. What says how long it is gets its room at once, so that it is refused before it is sent; what doesn't gets
/// it as it comes.
pub async fn read(request: &HttpRequest, payload: web::Payload, api: &Api) -> Result<Body, Problem> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let length = length.map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
    let mut room = Room { all: &api.bodies, bytes_max: BODY_BYTES_MAX, taken: None };
    room.grow(length)?;
    let reading = collect(payload, is_json(request), &mut room);
    let bytes = tokio::time::timeout(BODY_TIME_MAX, reading).await.map_err(|_| Problem::slow_body(BODY_TIME_MAX))??;
    Ok(Body(bytes.into()))
}

/// Reads a form's body, which is short.
pub async fn read_form(request: &HttpRequest, payload: web::Payload, api: &Api) -> Result<Body, Problem> {
    if request.headers().get_all(CONTENT_TYPE).count() != 1 || !request.content_type().eq_ignore_ascii_case(FORM) {
        return Err(Problem::not_a_form());
    }
    let mut room = Room { all: &api.bodies, bytes_max: FORM_BYTES_MAX, taken: None };
    let reading = collect(payload, true, &mut room);
    let bytes = tokio::time::timeout(BODY_TIME_MAX, reading).await.map_err(|_| Problem::slow_body(BODY_TIME_MAX))??;
    Ok(Body(bytes.into()))
}

/// What a body that is being read has of the room for all of them.
struct Room<'a> {
    all: &'a Semaphore,
    /// The most bytes of this one.
    bytes_max: usize,
    /// A permit for each KiB.
    taken: Option<SemaphorePermit<'a>>,
}

impl Room<'_> {
    fn bytes(&self) -> usize {
        self.taken.as_ref().map_or(0, |taken| taken.num_permits() * 1024)
    }

    /// Makes it enough for `bytes` in all.
    fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        if bytes > self.bytes_max {
            return Err(Problem::large_body(self.bytes_max));
        }
        let kib = u32::try_from(bytes.saturating_sub(self.bytes()).div_ceil(1024)).unwrap_or(u32::MAX);
        let more = self.all.try_acquire_many(kib);
        let more = more.map_err(|_| Problem::busy("too many large requests are under way", RETRY_AFTER))?;
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        Ok(())
    }
}

/// Reads an optional body's fields; `read` asks for each by name, and the others are refused.
pub fn fields<T>(body: Option<Value>, read: impl FnOnce(&Object) -> Option<T>) -> Result<T, Problem> {
    let body = body.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
    let errors = Errors::default();
    let value = Node::root(&body, "body", &errors).object("").and_then(|object| {
        let value = read(&object);
        object.finish();
        value
    });
    errors.finish(value).map_err(Problem::refused_fields)
}

async fn collect(mut payload: web::Payload, is_json: bool, room: &mut Room<'_>) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| Problem::malformed("body", format_args!("can't be read: {error}")))?;
        if !is_json && !chunk.is_empty() {
            return Err(Problem::not_json());
        }
        let length = bytes.len() + chunk.len();
        if length > room.bytes() {
            // Twice as much, for it has to move each time; what it takes is what it has room for.
            room.grow(length.max((2 * bytes.len()).min(room.bytes_max)))?;
            bytes.reserve_exact(room.bytes() - bytes.len());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Whether the request says, once, that its body is JSON. A browser asks before it sends that for another page.
fn is_json(request: &HttpRequest) -> bool {
    let once = request.headers().get_all(CONTENT_TYPE).count() == 1;
    once && request.content_type().eq_ignore_ascii_case("application/json")
}
