//! Whether this process is alive, and whether it can do its work.

use std::time::Duration;

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::Api;
use super::problem::Problem;
use crate::service::Error;

/// How long the store may take to answer: a probe that waits longer has given up.
const READY_TIME_MAX: Duration = Duration::from_secs(2);

/// Says that the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "about", security(()), responses((status = 200, description = "It is", body = Object)))]
pub async fn alive() -> HttpResponse {
    HttpResponse::Ok().json(json!({"status": "alive"}))
}

/// Says whether jobs are taken.
#[utoipa::path(
    get, path = "/readyz", tag = "about", security(()),
    responses(
        (status = 200, description = "They are", body = Object),
        (status = 503, description = "Not at the moment", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn ready(api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let ready = tokio::time::timeout(READY_TIME_MAX, api.service.ready()).await;
    ready.unwrap_or(Err(Error::Unavailable { retry_after: READY_TIME_MAX }))?;
    Ok(HttpResponse::Ok().json(json!({"status": "ready"})))
}
