//! The routes of jobs: submit, list, show, run again.

use std::cell::Cell;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, LOCATION};
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::Value;
use shared::id::{Actor, JobId};
use shared::spec::reader::text_fault;
use shared::spec::{NAME_BYTES_MAX, Submission, parse_batch, parse_single};
use shared::view::JobView;
use utoipa::ToSchema;

use super::passing::{Goal, Repeat, here_or_there};
use super::problem::Problem;
use super::query::Query;
use super::{Api, body, cursor, filter};
use crate::service::{self, Accepted};

/// The most jobs, events or lines of one answer.
pub const PAGE_MAX: u32 = 1000;
/// How many it is where nothing is asked for.
pub const PAGE_DEFAULT: u32 = 100;
/// The most bytes of a cursor that is looked at: ours have 66.
pub const CURSOR_BYTES_MAX: usize = 128;

const IDEMPOTENCY_KEY: &str = "Idempotency-Key";

/// Jobs that were submitted together, in their order.
#[derive(Serialize, ToSchema)]
pub struct Jobs {
    jobs: Vec<JobView>,
}

/// A page of a list, the newest job first.
#[derive(Serialize, ToSchema)]
pub struct JobPage {
    jobs: Vec<JobView>,
    /// What `cursor` is for the next page; null on the last one.
    next_cursor: Option<String>,
}

/// Submits one job, or many with `{"jobs": […]}`, all or none.
#[utoipa::path(
    post, path = "/api/v1/jobs", tag = "jobs",
    params(("Idempotency-Key" = Option<String>, Header, description = "For a single job: a repeated submission under the same key returns the first job, for 24 h")),
    request_body = super::openapi::Submissions,
    responses(
        (status = 201, description = "The job, or the jobs of a batch", body = super::openapi::Submitted),
        (status = 200, description = "The same, where every key was seen before", body = super::openapi::Submitted),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn submit(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let key = idempotency_key(request.headers())?;
    let body = body::read(&request, payload, &api).await?;
    let repeat = Cell::new(Repeat::Doubles);
    let here = async || {
        let value = body.require()?;
        let submissions = submissions(&value, key.clone())?;
        let is_batch = value.get("jobs").is_some();
        drop(value);
        if submissions.iter().all(|submission| submission.idempotency_key.is_some()) {
            repeat.set(Repeat::Harmless);
        }
        let accepted = api.ask(api.service.submit(&by, submissions)).await;
        if is_batch { Ok(many_accepted(&accepted?)) } else { one_accepted(accepted) }
    };
    here_or_there(&api, &request, body.bytes(), Goal::Anyone, &repeat, here).await
}

/// The job of a body, or its batch of jobs.
pub fn submissions(body: &Value, key: Option<String>) -> Result<Vec<Submission>, Problem> {
    if body.get("jobs").is_some() {
        return batch(body, key.is_some());
    }
    parse_single(body, key).map(|submission| vec![submission]).map_err(Problem::refused_fields)
}

fn batch(body: &Value, has_key: bool) -> Result<Vec<Submission>, Problem> {
    if has_key {
        let detail = "can't stand beside a batch: give each job its own idempotency_key";
        return Err(Problem::malformed(IDEMPOTENCY_KEY, detail));
    }
    parse_batch(body).map_err(Problem::refused_fields)
}

fn one_accepted(accepted: Result<Vec<Accepted>, service::Error>) -> Result<HttpResponse, Problem> {
    let accepted = accepted.map_err(|error| match error {
        service::Error::KeyReused(_) => Problem::refused(IDEMPOTENCY_KEY, error),
        service::Error::TooManyTagSets(_) => Problem::too_many_tag_sets("tags"),
        other => other.into(),
    })?;
    let accepted = accepted.first().ok_or_else(Problem::internal)?;
    Ok(created(&accepted.job, if accepted.existing { StatusCode::OK } else { StatusCode::CREATED }))
}

fn many_accepted(accepted: &[Accepted]) -> HttpResponse {
    let seen = accepted.iter().all(|accepted| accepted.existing);
    let jobs = accepted.iter().map(|accepted| JobView::from(&accepted.job)).collect();
    HttpResponse::build(if seen { StatusCode::OK } else { StatusCode::CREATED }).json(Jobs { jobs })
}

/// Lists jobs, the newest first.
#[utoipa::path(
    get, path = "/api/v1/jobs", tag = "jobs",
    params(
        ("state" = Option<shared::job::StateName>, Query),
        ("tag" = Option<String>, Query, description = "A tag that the job has"),
        ("repository" = Option<String>, Query, description = "The repository's URL as it was submitted"),
        ("label" = Option<String>, Query, description = "A label's key, or its key and value as `key=value`"),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same filter"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000; 100 when left out", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "A page", body = JobPage),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let [state, tag, repository, label] = filter::CONDITIONS;
    let query = Query::read(request.query_string(), &[state, tag, repository, label, "cursor", "limit"]);
    let filter = filter::read(&query);
    let limit = query.small_number("limit", 1..=PAGE_MAX).unwrap_or(PAGE_DEFAULT);
    let before = query.text("cursor", CURSOR_BYTES_MAX).and_then(|text| {
        let before = cursor::decode(text, &filter);
        if before.is_none() {
            query.refuse("cursor", "is no cursor of this list with this filter");
        }
        before
    });
    query.finish()?;
    // One more than asked for tells whether a page follows.
    let mut jobs = api.ask(api.service.jobs(&filter, before, limit + 1)).await?;
    let more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let next_cursor = jobs.last().filter(|_| more).map(|job| cursor::encode(&filter, job.id));
    Ok(HttpResponse::Ok().json(JobPage { jobs: jobs.iter().map(JobView::from).collect(), next_cursor }))
}

/// Shows one job.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}", tag = "jobs", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 200, description = "The job", body = JobView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn show(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let job = api.ask(api.service.job(job_id(&request)?)).await?;
    Ok(HttpResponse::Ok().json(JobView::from(&job)))
}

/// Runs a job that has ended again, as a new job that names the old one.
#[utoipa::path(
    post, path = "/api/v1/jobs/{id}/retry", tag = "jobs", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 201, description = "The new job", body = JobView),
        (status = 409, description = "The job has not ended", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn retry(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let id = job_id(&request)?;
    let body = body::read(&request, payload, &api).await?;
    body::fields(body.value()?, |_| Some(()))?;
    let here = async || Ok(created(&api.ask(api.service.retry(id, &by)).await?, StatusCode::CREATED));
    here_or_there(&api, &request, body.bytes(), Goal::Anyone, &Cell::new(Repeat::Doubles), here).await
}

/// The id in a route's path.
pub fn job_id(request: &HttpRequest) -> Result<JobId, Problem> {
    let text = request.match_info().get("id").unwrap_or("");
    text.parse().map_err(|error| Problem::malformed("id", error))
}

fn created(job: &shared::job::Job, status: StatusCode) -> HttpResponse {
    let location = format!("/api/v1/jobs/{}", job.id);
    HttpResponse::build(status).insert_header((LOCATION, location)).json(JobView::from(job))
}

/// The key under which a submission may be repeated.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refuse = |detail: &str| Problem::malformed(IDEMPOTENCY_KEY, detail);
    let mut given = headers.get_all(IDEMPOTENCY_KEY);
    let Some(value) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(refuse("must be given once"));
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| refuse("is not UTF-8"))?;
    match text_fault(text, NAME_BYTES_MAX) {
        Some(fault) => Err(refuse(&fault)),
        None if text.is_empty() => Err(refuse("must not be empty")),
        None => Ok(Some(text.to_owned())),
    }
}
