//! `windlass job show`: a job for people, with its timeline.

use std::fmt::Write;

use serde::Deserialize;
use serde_json::Value;

use shared::clock;
use shared::id::{JobId, Seq};
use shared::job::Event;
use shared::time::Time;
use shared::view::JobView;

use super::{JOBS, event, list, print_document, read};
use crate::args::api::Output;
use crate::client::{Client, with_query};
use crate::exit::Error;
use crate::terminal::{escaped, print};
use crate::timeline::{self, Timeline, duration};

/// The most events of one page.
const PAGE_MAX: usize = 1000;

#[derive(Deserialize)]
struct Page {
    events: Vec<Value>,
}

/// Prints the job.
pub fn show(client: &Client, id: JobId, output: Output) -> Result<u8, Error> {
    let answer = client.get(&format!("{JOBS}/{id}"))?;
    if output == Output::Json {
        print_document(&answer)?;
        return Ok(0);
    }
    let job: JobView = read(&answer)?;
    print(&text(&job, &events(client, id)?, clock::now()))?;
    Ok(0)
}

fn events(client: &Client, id: JobId) -> Result<Vec<Event>, Error> {
    let mut events: Vec<Event> = Vec::new();
    loop {
        let after = events.last().map_or(Seq::default(), |event| event.seq);
        let parameters = [("after", after.to_string()), ("limit", PAGE_MAX.to_string())];
        let page: Page = read(&client.get(&with_query(&format!("{JOBS}/{id}/events"), &parameters))?)?;
        let last = page.events.len() < PAGE_MAX;
        for shown in page.events {
            events.push(event(id, shown)?);
        }
        if last {
            return Ok(events);
        }
    }
}

fn text(job: &JobView, events: &[Event], now: Time) -> String {
    let labels: Vec<String> = job.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attempt = match &job.worker {
        Some(worker) => format!("{} on worker {worker}", job.attempt),
        None => job.attempt.to_string(),
    };
    let fields = [
        ("id", Some(job.id.to_string())),
        ("state", Some(job.state.to_string())),
        ("outcome", job.outcome.as_ref().map(ToString::to_string)),
        ("what", Some(list::what(job))),
        ("commit", job.commit.clone()),
        ("priority", Some(job.priority.name().to_owned())),
        ("tags", Some(job.tags.join(", ")).filter(|tags| !tags.is_empty())),
        ("labels", Some(labels.join(", ")).filter(|labels| !labels.is_empty())),
        ("attempt", Some(attempt)),
        ("created", Some(job.created_at.to_string())),
        ("finished", job.finished_at.map(|at| at.to_string())),
        ("retry of", job.retry_of.map(|id| id.to_string())),
    ];
    let mut out = String::new();
    for (name, value) in fields {
        if let Some(value) = value {
            // Writing to a String doesn't fail.
            let _ = writeln!(out, "{name:<10}{}", escaped(&value));
        }
    }
    out.push('\n');
    for event in events {
        let _ = writeln!(out, "{:>9}  {}", duration(event.at.since(job.created_at)), escaped(&timeline::words(event)));
    }
    let _ = writeln!(out, "\n{}", Timeline::of(events).until(now).line());
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use shared::clock;
    use shared::id::{Actor, Attempt, Seq};
    use shared::job::{Event, EventKind, Exit, Failure};
    use shared::time::Period;
    use shared::view::JobView;

    use super::text;

    #[test]
    fn a_job_is_shown_with_what_it_did_and_when() {
        let id = "01934f5e-0000-7000-8000-000000000000";
        let job = json!({
            "id": id, "state": "failed", "attempt": 1, "priority": "normal", "tags": ["linux"], "labels": {"team": "co\u{1b}re"},
            "spec": {"steps": [{"run": "make\n"}], "timeout": "1h", "grace": "10s", "queue_timeout": "24h"},
            "commit": null, "worker": null, "created_at": "2026-01-01T00:00:00.000000Z", "queued_at": null, "started_at": null,
            "finished_at": "2026-01-01T00:00:02.000000Z", "outcome": {"reason": "step_failed", "step": 0, "exit_code": 2}, "retry_of": null,
        });
        let job: JobView = serde_json::from_value(job).unwrap();
        let end = Failure::StepFailed { step: 0, exit: Exit::ExitCode(2), message: None };
        let kinds =
            [EventKind::Submitted { retry_of: None }, EventKind::Failed { failure: end, stop: None, offer: None }];
        let actor = Actor::Client("dev".into());
        let event = |(second, kind)| {
            let at = job.created_at.plus(Period::from_secs(second));
            Event { job: job.id, seq: Seq(second), at, attempt: Attempt(1), actor: actor.clone(), kind }
        };
        let events: Vec<Event> = [0, 2].into_iter().zip(kinds).map(event).collect();
        let expected = format!(
            "id        {id}\nstate     failed\noutcome   step 0 ended with exit code 2\nwhat      make\npriority  normal\n\
             tags      linux\nlabels    team=co\\u{{1b}}re\nattempt   1\ncreated   2026-01-01T00:00:00.000000Z\n\
             finished  2026-01-01T00:00:02.000000Z\n\n      0ms  submitted by client:dev\n     2.0s  failed: step 0 ended with exit code 2\n\n\
             waited 2.0s, prepared 0ms, ran 0ms, total 2.0s\n"
        );
        assert_eq!(text(&job, &events, clock::now()), expected);
    }
}
