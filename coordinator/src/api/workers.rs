//! The routes of workers: list them, and say what is wanted of one.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::id::WorkerId;
use shared::time::Time;
use shared::view::WorkerView;
use shared::wire::WorkerMode;
use utoipa::ToSchema;

use super::problem::Problem;
use super::query::Query;
use super::{Api, body};
use crate::caller::Caller;
use crate::store::Worker;

/// Every worker, in the order of their ids.
#[derive(Serialize, ToSchema)]
pub struct Workers {
    workers: Vec<WorkerView>,
}

/// Lists the workers.
#[utoipa::path(
    get, path = "/api/v1/workers", tag = "workers",
    responses(
        (status = 200, description = "Every worker", body = Workers),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let workers = api.ask(api.service.workers()).await?;
    let now = api.service.holdings().now();
    Ok(HttpResponse::Ok().json(Workers { workers: workers.iter().map(|worker| view(worker, now)).collect() }))
}

/// Lets a worker finish what runs and take nothing new, until it is resumed.
#[utoipa::path(
    post, path = "/api/v1/workers/{id}/pause", tag = "workers", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 202, description = "It is committed, and the worker is told", body = WorkerView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn pause(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    set(&request, payload, &api, &by, WorkerMode::Paused).await
}

/// Lets a worker take jobs again.
#[utoipa::path(
    post, path = "/api/v1/workers/{id}/resume", tag = "workers", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 202, description = "It is committed, and the worker is told", body = WorkerView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn resume(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    set(&request, payload, &api, &by, WorkerMode::Active).await
}

/// Lets a worker finish what runs, take nothing new, and end. Its next start takes jobs again.
#[utoipa::path(
    post, path = "/api/v1/workers/{id}/drain", tag = "workers", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 202, description = "It is committed, and the worker is told", body = WorkerView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn drain(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    set(&request, payload, &api, &by, WorkerMode::Draining).await
}

/// Revokes a worker for good: nothing that it says is heard any more, and it is told to end what it runs.
#[utoipa::path(
    post, path = "/api/v1/workers/{id}/revoke", tag = "workers", params(("id" = uuid::Uuid, Path)),
    responses(
        (status = 202, description = "It is committed, and the worker is told", body = WorkerView),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn revoke(
    request: HttpRequest,
    payload: web::Payload,
    api: web::Data<Api>,
    by: web::ReqData<Caller>,
) -> Result<HttpResponse, Problem> {
    let id = named(&request, payload, &api).await?;
    let worker = api.ask(api.service.revoke_worker(&by, id)).await;
    let worker = worker.map_err(|error| Problem::about("worker", error))?;
    Ok(HttpResponse::Accepted().json(view(&worker, api.service.holdings().now())))
}

/// The worker that a command without anything in its body is about.
async fn named(request: &HttpRequest, payload: web::Payload, api: &Api) -> Result<WorkerId, Problem> {
    Query::read(request.query_string(), &[]).finish()?;
    let text = request.match_info().get("id").unwrap_or("");
    let id: WorkerId = text.parse().map_err(|error| Problem::malformed("id", error))?;
    body::fields(body::read(request, payload, api).await?.value()?, |_| Some(()))?;
    Ok(id)
}

async fn set(
    request: &HttpRequest,
    payload: web::Payload,
    api: &Api,
    by: &Caller,
    mode: WorkerMode,
) -> Result<HttpResponse, Problem> {
    let id = named(request, payload, api).await?;
    let worker = api.service.set_mode(by, id, mode);
    let worker = api.ask(worker).await.map_err(|error| Problem::about("worker", error))?;
    Ok(HttpResponse::Accepted().json(view(&worker, api.service.holdings().now())))
}

/// The worker as it is at `now`, by the database's clock.
fn view(worker: &Worker, now: Time) -> WorkerView {
    let seen = worker.seen.as_ref();
    WorkerView {
        id: worker.id,
        name: worker.name.clone(),
        mode: worker.mode,
        state: worker.state(now),
        tags: seen.map(|seen| seen.tags.clone()).unwrap_or_default(),
        slots: seen.map_or(0, |seen| seen.slots),
        running: seen.map_or(0, |seen| seen.running),
        instance: seen.map(|seen| seen.instance),
        enrolled_at: worker.enrolled_at,
        revoked_at: worker.revoked_at,
        seen_at: seen.map(|seen| seen.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Seen;
    use shared::clock;
    use shared::id::Instance;
    use shared::proof::ProofKey;
    use shared::view::WorkerState;

    fn worker(mode: WorkerMode, draining: bool) -> Worker {
        let seen = Seen {
            at: Time::from_micros(0),
            instance: Instance(clock::random_uuid()),
            start: 1,
            tags: vec!["linux".to_owned()],
            slots: 4,
            running: 2,
            draining,
        };
        Worker {
            id: WorkerId(clock::random_uuid()),
            name: "host".to_owned(),
            key: ProofKey::from_bytes([0; 32]),
            mode,
            enrolled_at: Time::from_micros(0),
            revoked_at: None,
            seen: Some(seen),
        }
    }

    #[test]
    fn a_workers_state_is_what_it_was_told_or_does_while_it_is_heard() {
        let state = |worker: &Worker, second: i64| view(worker, Time::from_micros(second * 1_000_000)).state;
        for (mode, draining, expected) in [
            (WorkerMode::Active, false, WorkerState::Active),
            (WorkerMode::Active, true, WorkerState::Draining),
            (WorkerMode::Paused, false, WorkerState::Paused),
            (WorkerMode::Draining, false, WorkerState::Draining),
        ] {
            let worker = worker(mode, draining);
            assert_eq!((state(&worker, 0), state(&worker, 14)), (expected, expected));
            assert_eq!(state(&worker, 15), WorkerState::Silent);
        }
        let new = Worker { seen: None, ..worker(WorkerMode::Active, false) };
        assert_eq!(state(&new, 1000), WorkerState::New);
        let revoked = Worker { revoked_at: Some(Time::from_micros(0)), ..worker(WorkerMode::Active, false) };
        assert_eq!(state(&revoked, 0), WorkerState::Revoked);
    }
}
