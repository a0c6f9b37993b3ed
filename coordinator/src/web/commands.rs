//! The forms that command something: they do what the API's routes do, and lead back to a page.

use std::cell::Cell;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;
use shared::id::{Actor, WorkerId};
use shared::wire::WorkerMode;

use super::see_other;
use crate::api::passing::{Goal, Repeat, here_or_there};
use crate::api::problem::Problem;
use crate::api::query::Query;
use crate::api::{Api, body, cancel as api_cancel, jobs};
use crate::caller::Caller;

/// A checkbox's value.
const CHECKED_BYTES_MAX: usize = 8;

/// Cancels a job.
pub async fn cancel(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    let id = jobs::job_id(&request)?;
    let body = body::read_form(&request, payload, &api).await?;
    let text = String::from_utf8_lossy(body.bytes());
    let fields = Query::read(filled(&text).as_str(), &["reason", "force"]);
    let force = fields.text("force", CHECKED_BYTES_MAX).is_some();
    let reason = fields.text("reason", api_cancel::REASON_BYTES_MAX).map(str::to_owned);
    fields.finish()?;
    let wanted = match reason {
        Some(reason) => json!({"reason": reason, "force": force}),
        None => json!({"force": force}),
    };
    let cancel = api_cancel::wanted(Some(wanted), by.into_inner())?;
    let here = async || {
        api.ask(api.service.cancel(id, cancel.clone())).await?;
        Ok(see_other(&format!("/jobs/{id}")))
    };
    let owner = Goal::Owner(id.shard());
    here_or_there(&api, &request, body.bytes(), owner, &Cell::new(Repeat::Harmless), here).await
}

/// Runs a job again, and leads to the new one.
pub async fn retry(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Actor>,
) -> Result<HttpResponse, Problem> {
    let id = jobs::job_id(&request)?;
    let body = body::read_form(&request, payload, &api).await?;
    let here = async || {
        let job = api.ask(api.service.retry(id, &by)).await?;
        Ok(see_other(&format!("/jobs/{}", job.id)))
    };
    here_or_there(&api, &request, body.bytes(), Goal::Anyone, &Cell::new(Repeat::Doubles), here).await
}

pub async fn pause(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    set(&request, payload, &api, &by, WorkerMode::Paused).await
}

pub async fn resume(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    set(&request, payload, &api, &by, WorkerMode::Active).await
}

pub async fn drain(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    set(&request, payload, &api, &by, WorkerMode::Draining).await
}

async fn set(
    request: &HttpRequest,
    payload: web::Payload,
    api: &Api,
    by: &Caller,
    mode: WorkerMode,
) -> Result<HttpResponse, Problem> {
    body::read_form(request, payload, api).await?;
    let text = request.match_info().get("id").unwrap_or("");
    let id: WorkerId = text.parse().map_err(|error| Problem::malformed("id", error))?;
    let set = api.ask(api.service.set_mode(by, id, mode)).await;
    set.map_err(|error| Problem::about("worker", error))?;
    Ok(see_other("/workers"))
}

/// A form's fields without those that were left empty, which browsers send all the same.
pub fn filled(raw: &str) -> String {
    let pairs = raw.split('&').filter(|pair| pair.split_once('=').is_none_or(|(_, value)| !value.is_empty()));
    pairs.collect::<Vec<_>>().join("&")
}

#[cfg(test)]
mod tests {
    use super::filled;

    #[test]
    fn an_empty_field_is_as_good_as_none() {
        assert_eq!(filled("state=&tag=linux&label="), "tag=linux");
        assert_eq!(filled("state="), "");
        assert_eq!(filled("odd&a=b"), "odd&a=b");
    }
}
