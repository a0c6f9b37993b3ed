//! The route of a job's timeline: a page of it as JSON, or all of it, as it grows, as server-sent events.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use shared::id::{JobId, Seq};
use shared::view::EventView;
use utoipa::ToSchema;

use super::accept::{self, Form};
use super::jobs::{PAGE_DEFAULT, PAGE_MAX, job_id};
use super::problem::Problem;
use super::query::{NUMBER_MAX, Query};
use super::stream::{self, Feed, Page, Range};
use super::{Api, sse};
use crate::service::{Error, Service, Watch};

/// A page of a job's timeline.
#[derive(Serialize, ToSchema)]
pub struct Timeline {
    events: Vec<EventView>,
}

/// Shows a job's timeline. As server-sent events it goes on until the job has ended, with `event: end` as the last one.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/events", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path),
        ("after" = Option<u64>, Query, description = "The number of the event after which to begin"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000; of a page 100 when left out", minimum = 1, maximum = 1000),
        ("Last-Event-ID" = Option<u64>, Header, description = "In place of `after`, for a stream"),
    ),
    responses(
        (status = 200, description = "The events", content((Timeline = "application/json"), (String = "text/event-stream"))),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn show(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let query = Query::read(request.query_string(), &["after", "limit"]);
    let after = query.number("after", 0..=NUMBER_MAX);
    let limit = query.small_number("limit", 1..=PAGE_MAX);
    query.finish()?;
    let id = job_id(&request)?;
    api.ask(api.service.job(id)).await?;
    if accept::wanted(request.headers(), &[Form::Json, Form::Events]) == Form::Events {
        let after = stream::last_event_id(request.headers())?.or(after).unwrap_or(0);
        let feed = EventFeed { watch: api.service.watch(id), service: api.service.clone(), id };
        return stream::respond(&api, &request, feed, Range { after, limit, follow: true });
    }
    let events = api.service.events(id, Seq(after.unwrap_or(0)), limit.unwrap_or(PAGE_DEFAULT));
    let events = api.ask(events).await?;
    Ok(HttpResponse::Ok().json(Timeline { events: events.iter().map(EventView::from).collect() }))
}

/// A timeline as server-sent events.
struct EventFeed {
    service: Service,
    id: JobId,
    watch: Watch,
}

impl Feed for EventFeed {
    async fn page(&mut self, after: u64, limit: u32) -> Result<Page, Error> {
        // The job is read first: what had ended then has no event that the second read doesn't see.
        let job = self.service.job(self.id).await?;
        let events = self.service.events(self.id, Seq(after), limit).await?;
        let text = events.iter().map(|event| sse::message(event.seq.0, &EventView::from(event))).collect();
        let end = job.is_terminal().then(|| sse::end(&serde_json::json!({"state": job.state.name()})));
        let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
        Ok(Page { text, count, last: events.last().map_or(after, |event| event.seq.0), end })
    }

    async fn changed(&mut self) {
        self.watch.changed().await;
    }

    fn broken_off(&self, _why: &str) -> String {
        sse::BROKEN_OFF.to_owned()
    }

    fn keep_alive(&self) -> Option<&'static str> {
        Some(sse::KEEP_ALIVE)
    }

    fn media_type(&self) -> &'static str {
        sse::MEDIA_TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::{Actor, Attempt};
    use shared::job::{Canceled, Event, EventKind};
    use shared::time::Time;

    fn event(kind: EventKind) -> Event {
        let job = "01934f5e-0000-7000-8000-000000000007".parse().unwrap();
        let (at, actor) = (Time::from_micros(1_000_000), Actor::Client("dev".to_owned()));
        Event { job, seq: Seq(4), at, attempt: Attempt(1), actor, kind }
    }

    #[test]
    fn an_event_is_shown_with_its_kind_and_without_its_job() {
        let shown =
            serde_json::to_string(&EventView::from(&event(EventKind::StepStarted { step: 2, name: None }))).unwrap();
        let expected = r#"{"seq":4,"at":"1970-01-01T00:00:01.000000Z","kind":"step_started","attempt":1,"actor":"client:dev","name":null,"step":2}"#;
        assert_eq!(shown, expected);
    }

    #[test]
    fn a_canceled_event_has_its_own_time_and_that_of_the_wish() {
        let canceled = Canceled { by: Actor::Coordinator, at: Time::from_micros(0), why: None, confirmed: true };
        let event = event(EventKind::Canceled { canceled, offer: None });
        let shown = serde_json::to_string(&EventView::from(&event)).unwrap();
        assert!(shown.starts_with(r#"{"seq":4,"at":"1970-01-01T00:00:01.000000Z","kind":"canceled","#), "{shown}");
        let canceled = &serde_json::from_str::<serde_json::Value>(&shown).unwrap()["canceled"];
        assert_eq!((&canceled["by"], &canceled["at"]), (&"coordinator".into(), &"1970-01-01T00:00:00.000000Z".into()));
        let written = serde_json::to_string(&event).unwrap();
        assert_eq!(serde_json::from_str::<Event>(&written).unwrap(), event);
    }
}
