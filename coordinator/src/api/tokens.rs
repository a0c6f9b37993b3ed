//! The routes of tokens: made, listed, revoked. A token's text is in the answer to whoever makes it, and nowhere else.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use shared::id::TokenId;
use shared::role::Role;
use shared::spec::NAME_BYTES_MAX;
use shared::spec::reader::Object;
use shared::time::{Period, Time};
use utoipa::ToSchema;

use super::problem::Problem;
use super::query::Query;
use super::{Api, body};
use crate::caller::Caller;
use crate::store::{Token, TokenKind};

/// How long a join token counts unless told otherwise: 30 days.
const JOIN_EXPIRES: Period = Period::from_secs(30 * 24 * 60 * 60);
/// What a join token is called unless told otherwise.
const JOIN_NAME: &str = "join";
/// How long any other token counts unless told otherwise: 90 days.
const EXPIRES: Period = Period::from_secs(90 * 24 * 60 * 60);

/// A token that was made. Its text is in this answer alone.
#[derive(Serialize, ToSchema)]
pub struct NewToken {
    #[schema(value_type = String, format = Uuid)]
    id: TokenId,
    token: String,
    /// From then on it counts no more.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
}

/// Every token that counts.
#[derive(Serialize, ToSchema)]
pub struct Tokens {
    tokens: Vec<TokenView>,
}

/// A token, without its text.
#[derive(Serialize, ToSchema)]
pub struct TokenView {
    #[schema(value_type = String, format = Uuid)]
    id: TokenId,
    /// What its holder is called in timelines and the audit.
    name: String,
    /// `viewer`, `submitter`, `operator`, `admin`; or `join`, with which workers enrol.
    #[schema(example = "submitter")]
    kind: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// From then on it counts no more; none for the first administrator's.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
}

/// Makes a token for somebody who speaks to the API.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "access", request_body = super::openapi::NewApiToken,
    responses(
        (status = 201, description = "The token; only its digest is kept", body = NewToken),
        (status = 409, description = "There are too many tokens", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn create(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let body = body::read(&request, payload, &api).await?;
    let (role, name, expires) = wanted(Some(body.require()?))?;
    make(&api, &by, TokenKind::Role(role), &name, expires).await
}

/// Makes a token with which workers enrol.
#[utoipa::path(
    post, path = "/api/v1/tokens/join", tag = "workers", request_body = Option<super::openapi::NewJoinToken>,
    responses(
        (status = 201, description = "The token; only its digest is kept", body = NewToken),
        (status = 409, description = "There are too many tokens", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn join(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let body = body::read(&request, payload, &api).await?;
    let (name, expires) = join_wanted(body.value()?)?;
    make(&api, &by, TokenKind::Join, &name, expires).await
}

/// Lists the tokens that count, those with which workers enrol included.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "access",
    responses(
        (status = 200, description = "Every token", body = Tokens),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let tokens = api.ask(api.service.tokens()).await?;
    Ok(HttpResponse::Ok().json(Tokens { tokens: tokens.into_iter().map(view).collect() }))
}

/// Revokes a token. Workers that have enrolled with it go on.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", tag = "access", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 204, description = "It counts no more"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn revoke(
    request: HttpRequest,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let text = request.match_info().get("id").unwrap_or("");
    let id: TokenId = text.parse().map_err(|error| Problem::malformed("id", error))?;
    api.ask(api.service.revoke_token(&by, id)).await.map_err(|error| Problem::about("token", error))?;
    Ok(HttpResponse::NoContent().finish())
}

async fn make(api: &Api, by: &Caller, kind: TokenKind, name: &str, expires: Period) -> Result<HttpResponse, Problem> {
    let made = api.ask(api.service.make_token(by, kind, name, expires)).await;
    let made = made.map_err(|error| Problem::about("token", error))?;
    let answer =
        NewToken { id: made.token.id, token: made.text.reveal().to_owned(), expires_at: made.token.expires_at };
    Ok(HttpResponse::Created().json(answer))
}

/// The role, the name and the age of the token that a body asks for.
pub fn wanted(body: Option<Value>) -> Result<(Role, String, Period), Problem> {
    body::fields(body, |fields| {
        let role = fields.require("role").and_then(|node| node.parsed::<Role>());
        let name = fields.require("name").and_then(|node| node.text(NAME_BYTES_MAX));
        let expires = expires(fields, EXPIRES);
        Some((role?, name?.to_owned(), expires?))
    })
}

/// The name and the age of the join token that a body asks for.
pub fn join_wanted(body: Option<Value>) -> Result<(String, Period), Problem> {
    body::fields(body, |fields| {
        let name = fields.get("name").map_or(Some(JOIN_NAME), |node| node.text(NAME_BYTES_MAX));
        let expires = expires(fields, JOIN_EXPIRES);
        Some((name?.to_owned(), expires?))
    })
}

fn expires(fields: &Object, default: Period) -> Option<Period> {
    fields.get("expires").map_or(Some(default), |node| {
        let expires: Period = node.parsed()?;
        if expires == Period::ZERO {
            node.refuse("must be longer than nothing");
        }
        Some(expires)
    })
}

fn view(token: Token) -> TokenView {
    let Token { id, kind, name, created_at, expires_at, .. } = token;
    TokenView { id, name, kind: kind.name(), created_at, expires_at }
}
