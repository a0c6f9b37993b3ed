//! The routes of deploy keys: put, shown, listed, removed, and everything moved on to another master key.
//!
//! A private half comes in here and never goes out: it leaves the request's body for a [`Secret`] before anything else is
//! read of it, and no answer, error or log line repeats any of it.

use actix_web::http::header::{HeaderMap, HeaderName, IF_MATCH, IF_NONE_MATCH, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use shared::secret::Secret;
use shared::spec::reader::FieldError;
use shared::view::{DeployKeyView, ListedDeployKey};
use utoipa::ToSchema;

use super::problem::Problem;
use super::query::Query;
use super::{Api, body, cursor};
use crate::caller::Caller;
use crate::keys::{self, KNOWN_HOSTS_BYTES_MAX, Must, NewKey, NewPair};
use crate::store::DeployKey;

use super::jobs::{PAGE_DEFAULT, PAGE_MAX};

/// The most bytes of a cursor that is looked at: that of the longest name has 342.
const CURSOR_BYTES_MAX: usize = 512;
/// The field that is taken out of the body before the others are read.
const PRIVATE_KEY: &str = "private_key";

/// A page of deploy keys, in the order of their names.
#[derive(Serialize, ToSchema)]
pub struct DeployKeyPage {
    deploy_keys: Vec<ListedDeployKey>,
    /// What `cursor` is for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// What became of stored secrets.
#[derive(Serialize, ToSchema)]
pub struct Rekeyed {
    /// How many were moved on to the first master key.
    resealed: u64,
    /// Whether that were all; otherwise it goes on with the next call.
    complete: bool,
}

/// Puts a deploy key: its next version. What is left out stays as it is.
#[utoipa::path(
    put, path = "/api/v1/deploy-keys/{name}", tag = "deploy keys",
    params(
        ("name" = String, Path),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only where there is none of that name (otherwise 412)"),
        ("If-Match" = Option<String>, Header, description = "`*`: only where there is one of that name (otherwise 412)"),
    ),
    request_body = super::openapi::NewDeployKey,
    responses(
        (status = 201, description = "The key, which is new", body = DeployKeyView),
        (status = 200, description = "The key, which was there before", body = DeployKeyView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn put(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    if let Some(fault) = keys::reserved(name(&request)) {
        return Err(Problem::malformed("name", fault));
    }
    let must = condition(request.headers())?;
    let body = body::read(&request, payload, &api).await?;
    let value = body.require();
    body.wipe();
    let new = new_key(value?)?;
    let put = api.service.put_key(&by, name(&request), &new, must);
    let put = api.ask_for(put).await.map_err(|error| problem(error, must))?;
    if !put.new {
        return Ok(HttpResponse::Ok().json(view(&put.key)));
    }
    let location = format!("/api/v1/deploy-keys/{}", put.key.name);
    Ok(HttpResponse::Created().insert_header((LOCATION, location)).json(view(&put.key)))
}

/// Shows one deploy key.
#[utoipa::path(
    get, path = "/api/v1/deploy-keys/{name}", tag = "deploy keys", params(("name" = String, Path)),
    responses(
        (status = 200, description = "The key", body = DeployKeyView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn show(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let key = api.ask_for(api.service.deploy_key(name(&request))).await;
    Ok(HttpResponse::Ok().json(view(&key.map_err(|error| problem(error, Must::default()))?)))
}

/// Lists deploy keys in the order of their names.
#[utoipa::path(
    get, path = "/api/v1/deploy-keys", tag = "deploy keys",
    params(
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000; 100 when left out", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page", body = DeployKeyPage),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::read(request.query_string(), &["cursor", "limit"]);
    let limit = query.small_number("limit", 1..=PAGE_MAX).unwrap_or(PAGE_DEFAULT);
    let after = query.text("cursor", CURSOR_BYTES_MAX).and_then(|text| {
        let after = cursor::name_after(text);
        if after.is_none() {
            query.refuse("cursor", "is no cursor of this list");
        }
        after
    });
    query.finish()?;
    // One more than asked for tells whether a page follows.
    let keys = api.ask_for(api.service.deploy_keys(after.as_deref(), limit + 1)).await;
    let mut keys = keys.map_err(|error| problem(error, Must::default()))?;
    let more = keys.len() > limit as usize;
    keys.truncate(limit as usize);
    let next_cursor = keys.last().filter(|_| more).map(|key| cursor::after_name(&key.name));
    Ok(HttpResponse::Ok().json(DeployKeyPage { deploy_keys: keys.into_iter().map(listed).collect(), next_cursor }))
}

/// Removes a deploy key.
#[utoipa::path(
    delete, path = "/api/v1/deploy-keys/{name}", tag = "deploy keys", params(("name" = String, Path)),
    responses(
        (status = 204, description = "It is removed"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn remove(
    request: HttpRequest,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let removed = api.ask_for(api.service.remove_key(&by, name(&request))).await;
    removed.map_err(|error| problem(error, Must::default()))?;
    Ok(HttpResponse::NoContent().finish())
}

/// Moves stored secrets and deploy keys on to the first master key, as many as can be in a few seconds.
#[utoipa::path(
    post, path = "/api/v1/vault/rekey", tag = "deploy keys",
    responses(
        (status = 200, description = "How many were moved, and whether that were all", body = Rekeyed),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn rekey(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    body::fields(body::read(&request, payload, &api).await?.value()?, |_| Some(()))?;
    let moved = api.ask_for(api.service.rekey(&by)).await.map_err(|error| problem(error, Must::default()))?;
    Ok(HttpResponse::Ok().json(Rekeyed { resealed: moved.values, complete: moved.complete }))
}

/// The name in a route's path.
fn name(request: &HttpRequest) -> &str {
    request.match_info().get("name").unwrap_or("")
}

/// What the request's headers say must hold.
pub fn condition(headers: &HeaderMap) -> Result<Must, Problem> {
    let given = |header: HeaderName| {
        let mut values = headers.get_all(&header);
        match (values.next(), values.next()) {
            (None, _) => Ok(false),
            (Some(value), None) if value.as_bytes() == b"*" => Ok(true),
            _ => Err(Problem::malformed(header_name(&header), "must be given once, as *")),
        }
    };
    match (given(IF_NONE_MATCH)?, given(IF_MATCH)?) {
        (false, false) => Ok(Must::BeAsItMay),
        (true, false) => Ok(Must::BeNew),
        (false, true) => Ok(Must::Exist),
        (true, true) => Err(Problem::malformed("If-Match", "can't stand beside If-None-Match")),
    }
}

fn header_name(header: &HeaderName) -> &'static str {
    if *header == IF_MATCH { "If-Match" } else { "If-None-Match" }
}

/// What the body asks for. The private half is moved out of it first, and is in none of the mistakes.
pub fn new_key(mut body: Value) -> Result<NewKey, Problem> {
    let private_key = match body.get_mut(PRIVATE_KEY) {
        Some(Value::String(text)) => Some(Secret::new(std::mem::take(text))),
        _ => None,
    };
    let given = private_key.is_some();
    let (generate, known_hosts) = body::fields(Some(body), |fields| {
        let generate = fields.get("generate").map_or(Some(false), |node| node.boolean());
        if let Some(node) = fields.get(PRIVATE_KEY) {
            if !given {
                node.refuse("must be a string");
            } else if generate == Some(true) {
                node.refuse("can't stand beside `generate: true`");
            }
        }
        // What it must be beyond that is the service's to say.
        let text = |node: shared::spec::reader::Node| Some(Some(node.text(KNOWN_HOSTS_BYTES_MAX)?.to_owned()));
        Some((generate?, fields.get("known_hosts").map_or(Some(None), text)?))
    })?;
    let pair = match private_key {
        Some(text) => Some(NewPair::Given(text)),
        None => generate.then_some(NewPair::Generated),
    };
    Ok(NewKey { pair, known_hosts })
}

/// What `error` means to whoever asked under that condition.
fn problem(error: keys::Error, must: Must) -> Problem {
    use keys::Error as E;
    let detail = error.to_string();
    match error {
        E::Refused(fields) if is_about_the_path(&fields) => Problem::malformed_fields(fields),
        E::Refused(fields) => Problem::refused_fields(fields),
        E::Exists => Problem::failed_condition("If-None-Match", &detail),
        E::Missing if must == Must::Exist => Problem::failed_condition("If-Match", &detail),
        E::Missing => Problem::not_found("name", &detail),
        E::TooMany => Problem::conflict("name", &detail),
        E::Sealed { .. } => {
            tracing::error!(detail, "a stored secret can't be opened");
            Problem::conflict("name", &detail)
        }
        E::MasterKey(keys::master::Error::Store(error)) => Problem::about("deploy key", error.into()),
        E::MasterKey(_) => Problem::conflict("name", &detail),
        E::Service(error) => Problem::about("deploy key", error),
    }
}

fn is_about_the_path(fields: &[FieldError]) -> bool {
    fields.iter().all(|error| error.field == "name")
}

fn view(key: &DeployKey) -> DeployKeyView {
    let DeployKey { name, version, algorithm, fingerprint, public_key, known_hosts, created_at, changed_at, .. } =
        key.clone();
    DeployKeyView { name, version, algorithm, fingerprint, public_key, known_hosts, created_at, changed_at }
}

fn listed(key: DeployKey) -> ListedDeployKey {
    let DeployKey { name, version, algorithm, fingerprint, public_key, created_at, changed_at, .. } = key;
    ListedDeployKey { name, version, algorithm, fingerprint, public_key, created_at, changed_at }
}
