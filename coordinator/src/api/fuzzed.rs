//! What the API decodes, one call for each place that bytes come from: for the tests that feed it rubbish, and in no
//! release.

use actix_web::http::Method;
use actix_web::http::header::{
    ACCEPT, AUTHORIZATION, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, ORIGIN,
};
use bytes::Bytes;
use shared::id::Actor;

use super::accept::{self, Form};
use super::body::{self, Body};
use super::problem::Problem;
use super::query::Query;
use super::{auth, cancel, cursor, deploy_keys, filter, jobs, logs, mass_cancel, stream, tokens};

/// The bodies that differ in how they are read.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Submission,
    Cancel,
    CancelByFilter,
    CancelByIds,
    JoinToken,
    DeployKey,
    /// One that must hold nothing.
    Nothing,
}

/// Reads a body as its route does, and makes the answer where it is refused; whether it wasn't.
pub fn body(kind: Kind, bytes: &[u8]) -> bool {
    read(kind, &Body::of(Bytes::copy_from_slice(bytes))).map_err(|problem| drop(problem.response())).is_ok()
}

fn read(kind: Kind, body: &Body) -> Result<(), Problem> {
    match kind {
        Kind::Submission => jobs::submissions(&body.require()?, None).map(drop),
        Kind::Cancel => cancel::wanted(body.value()?, Actor::Coordinator).map(drop),
        Kind::CancelByFilter => mass_cancel::filtered(body.require()?).map(drop),
        Kind::CancelByIds => mass_cancel::listed(body.require()?).map(drop),
        Kind::JoinToken => tokens::join_wanted(body.value()?).and_then(|_| tokens::wanted(body.value()?)).map(drop),
        Kind::DeployKey => deploy_keys::new_key(body.require()?).map(drop),
        Kind::Nothing => body::fields(body.value()?, |_| Some(())),
    }
}

/// Reads a query as each route does that has parameters.
pub fn query(raw: &str) -> bool {
    let listed = Query::read(raw, &["state", "tag", "repository", "label", "cursor", "limit"]);
    let filter = filter::read(&listed);
    let cursor = listed.text("cursor", 512).map(|text| (cursor::decode(text, &filter), cursor::name_after(text)));
    let limit = listed.small_number("limit", 1..=jobs::PAGE_MAX);
    let done = listed.finish().map_err(|problem| drop(problem.response())).is_ok();
    let log = logs::Wanted::read(raw).map_err(|problem| drop(problem.response())).is_ok();
    drop((filter, cursor, limit));
    done || log
}

/// Reads a value in every header that is read; whether it could stand in one.
pub fn header(value: &[u8]) -> bool {
    let Ok(value) = HeaderValue::from_bytes(value) else { return false };
    let names = ["last-event-id", "idempotency-key"].map(HeaderName::from_static);
    let mut headers = HeaderMap::new();
    for name in [ACCEPT, AUTHORIZATION, COOKIE, ORIGIN, HOST, IF_MATCH, IF_NONE_MATCH].into_iter().chain(names) {
        headers.append(name, value.clone());
    }
    let _ = accept::wanted(&headers, &[Form::Json, Form::Text, Form::Events]);
    drop(auth::given(&headers).map_err(|problem| problem.response()));
    headers.remove(AUTHORIZATION);
    drop(auth::given(&headers).map_err(|problem| problem.response()));
    drop(auth::check_origin(&Method::POST, &headers).map_err(|problem| problem.response()));
    drop(stream::last_event_id(&headers).map_err(|problem| problem.response()));
    drop(jobs::idempotency_key(&headers).map_err(|problem| problem.response()));
    drop(deploy_keys::condition(&headers).map_err(|problem| problem.response()));
    true
}

/// Reads what another coordinator answers to a cancel by filter.
pub fn left(answer: &[u8]) -> bool {
    mass_cancel::left(answer).is_some()
}
