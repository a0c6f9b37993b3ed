//! The routes of tokens: make one with which workers enrol.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use shared::spec::NAME_BYTES_MAX;
use shared::time::{Period, Time};
use utoipa::ToSchema;

use super::problem::Problem;
use super::query::Query;
use super::{Api, body};

/// How long a join token counts unless told otherwise: 30 days.
const JOIN_EXPIRES: Period = Period::from_secs(30 * 24 * 60 * 60);
/// What a join token is called unless told otherwise.
const JOIN_NAME: &str = "join";

/// A token that was made. Its text is in this answer alone.
#[derive(Serialize, ToSchema)]
pub struct JoinToken {
    token: String,
    /// From then on no worker can enrol with it.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
}

/// Makes a token with which workers enrol.
#[utoipa::path(
    post, path = "/api/v1/tokens/join", tag = "workers", request_body = Option<super::openapi::NewJoinToken>,
    responses(
        (status = 201, description = "The token; only its digest is kept", body = JoinToken),
        (status = 409, description = "There are too many tokens", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn join(request: HttpRequest, payload: web::Payload, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let body = body::read(&request, payload, &api).await?;
    let (name, expires) = wanted(body.value()?)?;
    let made = api.ask(api.service.join_token(&name, Some(expires)));
    let made = made.await.map_err(|error| Problem::about("token", error))?;
    let answer = JoinToken { token: made.text.reveal().to_owned(), expires_at: made.expires_at };
    Ok(HttpResponse::Created().json(answer))
}

/// The name and the age of the token that a body asks for.
pub fn wanted(body: Option<Value>) -> Result<(String, Period), Problem> {
    body::fields(body, |fields| {
        let name = fields.get("name").and_then(|node| node.text(NAME_BYTES_MAX)).unwrap_or(JOIN_NAME);
        let expires = fields.get("expires").map_or(Some(JOIN_EXPIRES), |node| {
            let expires: Period = node.parsed()?;
            if expires == Period::ZERO {
                node.refuse("must be longer than nothing");
            }
            Some(expires)
        });
        Some((name.to_owned(), expires.unwrap_or(JOIN_EXPIRES)))
    })
}
