//! What the log on a job's page asks for besides the API's own route: where a log ends, and all of it as a file.

use actix_web::http::header::{CONTENT_DISPOSITION, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use shared::id::Attempt;

use crate::api::jobs::job_id;
use crate::api::problem::Problem;
use crate::api::query::Query;
use crate::api::{Api, logs};

/// All that is there of a job's log, to be saved.
pub async fn download(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let attempt = attempt(&request)?;
    let id = job_id(&request)?;
    api.ask(api.service.job(id)).await?;
    let mut response = logs::download(&api, &request, id, attempt)?;
    let name = HeaderValue::from_str(&format!("attachment; filename=\"{id}.txt\"")).map_err(|_| Problem::internal())?;
    response.headers_mut().insert(CONTENT_DISPOSITION, name);
    Ok(response)
}

/// The number of the last line that is there of an attempt's log.
pub async fn end(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let attempt = attempt(&request)?.unwrap_or(Attempt(1));
    let id = job_id(&request)?;
    api.ask(api.service.job(id)).await?;
    let last = api.ask(api.service.last_line(id, attempt)).await?;
    Ok(HttpResponse::Ok().json(json!({"last": last})))
}

fn attempt(request: &HttpRequest) -> Result<Option<Attempt>, Problem> {
    let query = Query::read(request.query_string(), &["attempt"]);
    let attempt = query.small_number("attempt", 1..=u32::MAX).map(Attempt);
    query.finish().map(|()| attempt)
}
