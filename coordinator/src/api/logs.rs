//! The route of a job's log: a page of it as JSON, all of it as plain text, or all of it, as it grows, as plain text or
//! as server-sent events.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use serde_json::json;
use shared::id::{Attempt, JobId};
use shared::log::Line;
use utoipa::ToSchema;

use super::accept::{self, Form};
use super::jobs::{PAGE_DEFAULT, PAGE_MAX, job_id};
use super::problem::Problem;
use super::query::{NUMBER_MAX, Query};
use super::stream::{self, Feed, Page, Range};
use super::{Api, sse};
use crate::service::{Error, LogState, Service, Watch};

/// A page of a job's log.
#[derive(Serialize, ToSchema)]
pub struct LogPage {
    lines: Vec<Line>,
    /// What `after` is for the next page.
    next: u64,
    /// What is missing, where the log is over and something of it was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap: Option<String>,
}

/// What is asked for.
pub struct Wanted {
    attempt: Option<Attempt>,
    after: Option<u64>,
    limit: Option<u32>,
    follow: bool,
}

/// Shows a job's log. A stream goes on until the log is complete; as server-sent events it has `event: end` as its last
/// one, and `event: gap` before that where something was lost.
#[utoipa::path(
    get, path = "/api/v1/jobs/{id}/logs", tag = "jobs",
    params(
        ("id" = uuid::Uuid, Path),
        ("attempt" = Option<u32>, Query, description = "One attempt alone", minimum = 1),
        ("after" = Option<u64>, Query, description = "The number of the line after which to begin"),
        ("limit" = Option<u32>, Query, description = "1 to 1,000; of a page 100 when left out", minimum = 1, maximum = 1000),
        ("follow" = Option<bool>, Query, description = "Go on until the log is complete"),
        ("Last-Event-ID" = Option<u64>, Header, description = "In place of `after`, for a stream"),
    ),
    responses(
        (status = 200, description = "The lines",
         content((LogPage = "application/json"), (String = "text/plain"), (String = "text/event-stream"))),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn show(request: HttpRequest, api: web::Data<Api>) -> Result<HttpResponse, Problem> {
    let wanted = Wanted::read(request.query_string())?;
    let id = job_id(&request)?;
    api.ask(api.service.job(id)).await?;
    let form = match accept::wanted(request.headers(), &[Form::Json, Form::Text, Form::Events]) {
        Form::Json if !wanted.follow => return page(&api.service, id, &wanted).await,
        Form::Json | Form::Events => Live::Events,
        Form::Text => Live::Text,
    };
    let (from, follow) = match form {
        Live::Events => (stream::last_event_id(request.headers())?, true),
        Live::Text => (None, wanted.follow),
    };
    let range = Range { after: from.or(wanted.after).unwrap_or(0), limit: wanted.limit, follow };
    let watch = api.service.watch(id);
    let service = api.service.clone();
    stream::respond(&api, &request, LineFeed { service, id, attempt: wanted.attempt, form, watch }, range)
}

/// All of a job's log that is there, or of one attempt, as plain text.
pub fn download(
    api: &Api,
    request: &HttpRequest,
    id: JobId,
    attempt: Option<Attempt>,
) -> Result<HttpResponse, Problem> {
    let feed = LineFeed { service: api.service.clone(), id, attempt, form: Live::Text, watch: api.service.watch(id) };
    stream::respond(api, request, feed, Range { after: 0, limit: None, follow: false })
}

async fn page(service: &Service, id: JobId, wanted: &Wanted) -> Result<HttpResponse, Problem> {
    let (after, limit) = (wanted.after.unwrap_or(0), wanted.limit.unwrap_or(PAGE_DEFAULT));
    // The state is read first: of a log that was over then, the second read sees every line.
    let state = service.log_state(id).await?;
    let lines = service.lines(id, wanted.attempt, after, limit).await?;
    let next = lines.last().map_or(after, |line| line.n);
    let gap = match state {
        LogState::Gap(why) if lines.len() < limit as usize => Some(why),
        LogState::Gap(_) | LogState::Growing | LogState::Complete => None,
    };
    Ok(HttpResponse::Ok().json(LogPage { lines, next, gap }))
}

impl Wanted {
    /// What a query asks for.
    pub fn read(raw: &str) -> Result<Self, Problem> {
        let query = Query::read(raw, &["attempt", "after", "limit", "follow"]);
        let wanted = Self {
            attempt: query.small_number("attempt", 1..=u32::MAX).map(Attempt),
            after: query.number("after", 0..=NUMBER_MAX),
            limit: query.small_number("limit", 1..=PAGE_MAX),
            follow: query.boolean("follow").unwrap_or(false),
        };
        query.finish().map(|()| wanted)
    }
}

/// The forms of a log that is streamed.
#[derive(Debug, Clone, Copy)]
enum Live {
    /// Server-sent events.
    Events,
    /// Plain text.
    Text,
}

impl Live {
    /// The lines after number `after`, and the last words where the log is over.
    fn page(self, lines: &[Line], after: u64, state: LogState) -> Page {
        let text = match self {
            Self::Text => plain(lines),
            Self::Events => lines.iter().map(|line| sse::message(line.n, line)).collect(),
        };
        let end = match (self, state) {
            (_, LogState::Growing) => None,
            (Self::Text, LogState::Complete) => Some(String::new()),
            (Self::Text, LogState::Gap(why)) => Some(mark(&format!("a part of the log is missing: {why}"))),
            (Self::Events, LogState::Complete) => Some(sse::end(&json!({"complete": true}))),
            (Self::Events, LogState::Gap(why)) => Some(sse::gap(&why) + &sse::end(&json!({"complete": false}))),
        };
        let count = u32::try_from(lines.len()).unwrap_or(u32::MAX);
        Page { text, count, last: lines.last().map_or(after, |line| line.n), end }
    }
}

/// A log that is streamed.
struct LineFeed {
    service: Service,
    id: JobId,
    attempt: Option<Attempt>,
    form: Live,
    watch: Watch,
}

impl Feed for LineFeed {
    async fn page(&mut self, after: u64, limit: u32) -> Result<Page, Error> {
        // As for a page: the state first.
        let state = self.service.log_state(self.id).await?;
        let lines = self.service.lines(self.id, self.attempt, after, limit).await?;
        Ok(self.form.page(&lines, after, state))
    }

    async fn changed(&mut self) {
        self.watch.changed().await;
    }

    fn broken_off(&self, why: &str) -> String {
        match self.form {
            Live::Text => mark(&format!("the log is cut off here: {why}")),
            Live::Events => sse::BROKEN_OFF.to_owned(),
        }
    }

    fn keep_alive(&self) -> Option<&'static str> {
        match self.form {
            Live::Text => None,
            Live::Events => Some(sse::KEEP_ALIVE),
        }
    }

    fn media_type(&self) -> &'static str {
        match self.form {
            Live::Text => "text/plain; charset=utf-8",
            Live::Events => sse::MEDIA_TYPE,
        }
    }
}

/// The lines as they were written: a piece without its newline goes on in the next.
fn plain(lines: &[Line]) -> String {
    let pieces = lines.iter().flat_map(|line| [line.text.as_str(), if line.partial { "" } else { "\n" }]);
    pieces.collect()
}

/// A line of ours in a log as plain text; it begins anew even after a piece without its newline.
fn mark(text: &str) -> String {
    format!("\n[windlass] {text}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::log::Stream;
    use shared::time::Time;

    fn line(n: u64, text: &str, partial: bool) -> Line {
        let at = Time::from_micros(0);
        Line { n, at, attempt: Attempt(1), step: Some(0), stream: Stream::Stdout, text: text.to_owned(), partial }
    }

    #[test]
    fn plain_text_is_what_the_job_wrote() {
        let page =
            Live::Text.page(&[line(1, "a", true), line(2, "b", false), line(3, "", false)], 0, LogState::Growing);
        assert_eq!(page, Page { text: "ab\n\n".to_owned(), count: 3, last: 3, end: None });
    }

    #[test]
    fn a_message_carries_one_line_under_its_number() {
        let page = Live::Events.page(&[line(7, "a\nb", false)], 0, LogState::Growing);
        let (id, data) = page.text.strip_suffix("\n\n").unwrap().split_once('\n').unwrap();
        assert_eq!(id, "id: 7");
        let data: serde_json::Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(data["n"], 7);
        assert_eq!(data["text"], "a\nb");
    }

    #[test]
    fn a_gap_is_shown_in_both_forms() {
        let gap = || LogState::Gap("chunk 3 of attempt 1 never came".to_owned());
        let text = Live::Text.page(&[], 5, gap());
        assert!(text.end.unwrap().contains("missing: chunk 3"));
        let events = Live::Events.page(&[], 5, gap()).end.unwrap();
        assert!(events.starts_with("event: gap\ndata: {\"detail\":\"chunk 3"), "{events}");
        assert!(events.ends_with("event: end\ndata: {\"complete\":false}\n\n"), "{events}");
    }

    #[test]
    fn a_log_that_is_over_ends_its_streams() {
        assert_eq!(Live::Text.page(&[], 5, LogState::Complete).end.as_deref(), Some(""));
        let end = Live::Events.page(&[], 5, LogState::Complete).end.unwrap();
        assert_eq!(end, "event: end\ndata: {\"complete\":true}\n\n");
        assert_eq!(Live::Events.page(&[], 5, LogState::Growing).end, None);
    }
}
