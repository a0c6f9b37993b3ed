//! The route that stops a job.

use std::cell::Cell;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use shared::id::{Actor, JobId};
use shared::job::{Cancel, StateName};
use shared::spec::reader::Object;
use utoipa::ToSchema;

use super::passing::{Goal, Repeat, here_or_there};
use super::problem::Problem;
use super::query::Query;
use super::{Api, body, jobs};

/// The most bytes of a reason: 4 KiB, as it is kept in the job's row and in its timeline.
pub const REASON_BYTES_MAX: usize = 4 * 1024;

/// The state of a job right after its cancel.
#[derive(Serialize, ToSchema)]
pub struct Canceled {
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    state: StateName,
}

/// Stops a job. Repeated, it changes nothing, except that it may shorten the grace.
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/cancel", tag = "jobs", params(("id" = uuid::Uuid, Path)),
    request_body = Option<super::openapi::CancelOne>,
    responses(
        (status = 202, description = "The cancel is committed", body = Canceled),
        (status = 200, description = "The job had already ended", body = Canceled),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn one(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let id = jobs::job_id(&request)?;
    let body = body::read(&request, payload, &api).await?;
    let cancel = wanted(body.value()?, by.into_inner())?;
    let here = async || {
        let canceled = api.ask(api.service.cancel(id, cancel.clone())).await?;
        let mut response = if canceled.was_terminal { HttpResponse::Ok() } else { HttpResponse::Accepted() };
        Ok(response.json(Canceled { id, state: canceled.state }))
    };
    let owner = Goal::Owner(id.shard());
    here_or_there(&api, &request, body.bytes(), owner, &Cell::new(Repeat::Harmless), here).await
}

/// What a body asks for in the name of `by`.
pub fn wanted(body: Option<Value>, by: Actor) -> Result<Cancel, Problem> {
    body::fields(body, |fields| {
        let why = reason(fields);
        let force = fields.get("force").and_then(|node| node.boolean()).unwrap_or(false);
        let grace = fields.get("grace").and_then(|node| node.parsed());
        Some(Cancel { by, why, force, grace })
    })
}

/// Why jobs are to be stopped.
pub fn reason(fields: &Object) -> Option<String> {
    fields.get("reason").and_then(|node| node.text(REASON_BYTES_MAX)).map(str::to_owned)
}
