//! The route of the audit: who has done what, and from where.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::id::JobId;
use shared::time::Time;
use utoipa::ToSchema;

use super::Api;
use super::problem::Problem;
use super::query::Query;
use crate::store::AuditLine;

/// The lines of one answer, where no limit is asked for, and at most.
const LINES_DEFAULT: u32 = 100;
const LINES_MAX: u32 = 1000;
/// The most bytes of a subject.
const SUBJECT_BYTES_MAX: usize = 1024;

/// Lines of the audit, the newest first.
#[derive(Serialize, ToSchema)]
pub struct Audit {
    lines: Vec<AuditLineView>,
}

/// Who did what, and what came of it.
#[derive(Serialize, ToSchema)]
pub struct AuditLineView {
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// Like `client:ann`, `worker:…` or `coordinator`.
    actor: String,
    /// The address that it came from, and through which coordinator; none for what didn't come over HTTP.
    origin: Option<String>,
    #[schema(example = "job.cancel")]
    action: String,
    /// What it is about: the id of a job, a worker or a token, or a deploy key's name; perhaps nothing.
    subject: String,
    /// `asked`, where what came of it is in the job's events.
    #[schema(example = "asked")]
    outcome: String,
    #[schema(value_type = Option<String>, format = Uuid)]
    job: Option<JobId>,
    attempt: Option<u32>,
}

/// Shows what was done, the newest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "access",
    params(
        ("subject" = Option<String>, Query, description = "Only what is about this"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000; 100 when left out", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "The lines", body = Audit),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::read(request.query_string(), &["subject", "limit"]);
    let limit = query.small_number("limit", 1..=LINES_MAX).unwrap_or(LINES_DEFAULT);
    let subject = query.text("subject", SUBJECT_BYTES_MAX).map(str::to_owned);
    query.finish()?;
    let lines = api.ask(api.service.audited(subject.as_deref(), limit)).await?;
    Ok(HttpResponse::Ok().json(Audit { lines: lines.into_iter().map(view).collect() }))
}

fn view(line: AuditLine) -> AuditLineView {
    let AuditLine { at, actor, origin, action, subject, outcome, job, attempt, .. } = line;
    let (actor, attempt) = (actor.to_string(), attempt.map(|attempt| attempt.0));
    AuditLineView { at, actor, origin, action, subject, outcome, job, attempt }
}
