//! The routes that stop jobs: one by its id, or all that a filter lets through.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use shared::id::{Actor, JobId};
use shared::job::{Cancel, StateName};
use shared::spec::reader::Object;
use utoipa::ToSchema;

use super::problem::Problem;
use super::query::Query;
use super::{Api, body, filter, jobs};

/// The most bytes of a reason: 4 KiB, as it is kept in the job's row and in its timeline.
const REASON_BYTES_MAX: usize = 4 * 1024;

/// The state of a job right after its cancel.
#[derive(Serialize, ToSchema)]
pub struct Canceled {
    #[schema(value_type = String, format = Uuid)]
    id: JobId,
    state: StateName,
}

/// How many jobs a cancel was for.
#[derive(Serialize, ToSchema)]
pub struct Matched {
    matched: u64,
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
    let cancel = body::fields(body, |fields| {
        let why = reason(fields);
        let force = fields.get("force").and_then(|node| node.boolean()).unwrap_or(false);
        let grace = fields.get("grace").and_then(|node| node.parsed());
        Some(Cancel { by: by.into_inner(), why, force, grace })
    })?;
    let canceled = api.service.cancel(id, cancel).await?;
    let mut response = if canceled.was_terminal { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    Ok(response.json(Canceled { id, state: canceled.state }))
}

/// Stops every job that the filter lets through and that has not ended.
#[utoipa::path(
    post, path = "/api/v1/jobs/cancel", tag = "jobs", request_body = super::openapi::CancelMany,
    responses(
        (status = 202, description = "How many jobs matched", body = Matched),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn many(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let body = body::require(&request, payload, &api).await?;
    let (filter, why) = body::fields(Some(body), |fields| {
        let why = reason(fields);
        let node = fields.require("filter")?;
        let conditions = node.nested()?;
        let filter = filter::read(&conditions);
        conditions.finish();
        if node.value.as_object().is_some_and(|given| given.values().all(Value::is_null)) {
            node.refuse("must have a condition: nothing cancels every job at once");
        }
        Some((filter, why))
    })?;
    let matched = api.service.cancel_matching(filter, by.into_inner(), why).await?;
    Ok(HttpResponse::Accepted().json(Matched { matched }))
}

fn reason(fields: &Object) -> Option<String> {
    fields.get("reason").and_then(|node| node.text(REASON_BYTES_MAX)).map(str::to_owned)
}

impl filter::Source for Object<'_> {
    fn condition<T>(&self, name: &'static str, bytes_max: usize, read: fn(&str) -> Result<T, String>) -> Option<T> {
        let node = self.get(name)?;
        let value = read(node.text(bytes_max)?);
        value.inspect_err(|fault| node.refuse(fault)).ok()
    }
}
