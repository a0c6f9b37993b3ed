//! The route that says why a job isn't running.

use std::cell::Cell;

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use shared::view::explanation::Explanation;

use super::passing::{Goal, Repeat, here_or_there, is_passed_on};
use super::problem::Problem;
use super::query::Query;
use super::{Api, jobs};
use crate::facts::Elsewhere;

/// Says why a job isn't running, or what it does. Nothing is changed by it.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/explain", tag = "jobs", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 200, description = "The explanation", body = Explanation),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn show(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let id = jobs::job_id(&request)?;
    let ask = async |elsewhere| Ok(HttpResponse::Ok().json(api.ask(api.service.explain(id, elsewhere)).await?));
    let here = async || ask(Elsewhere::Refuse).await;
    let owner = Goal::Owner(id.shard());
    match here_or_there(&api, &request, &Bytes::new(), owner, &Cell::new(Repeat::Harmless), here).await {
        // That its owner doesn't answer is part of the explanation.
        Err(problem) if problem.may_pass() && !is_passed_on(&request) => ask(Elsewhere::DoWithout).await,
        done => done,
    }
}
