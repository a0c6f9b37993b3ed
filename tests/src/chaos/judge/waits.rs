//! What is waited for is waited for long enough: a lease lasts its whole time, and so does the wait for a worker's word that
//! it has stopped.

use std::time::Duration;

use serde_json::Value;
use shared::job::STOP_MARGIN;
use shared::time::Period;
use shared::wire::LEASE;

use super::Rule;
use super::contact;
use super::finding::Finding;
use super::index::{CLOCKS_APART, Index, Job, after, before};
use crate::chaos::history::{Event, May};

pub const RULES: [Rule; 2] = [
    Rule { name: "no worker is given up before its lease ends", look: leases },
    Rule { name: "no cancel is given up before its grace ends", look: graces },
];

/// How long before a grant a worker's old process may have ended, of which a new one tells.
const RESTART: Duration = Duration::from_secs(30);

/// How long it took at most from one event to another, where that can be said.
fn took(index: &Index<'_>, job: &Job<'_>, from: &Event, to: &Event) -> Option<Duration> {
    Some(index.latest(job, to)? - index.earliest(job, from)?)
}

/// A worker that was started anew tells that what it ran before is over.
fn leases(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for attempt in &job.attempts {
            let lost = attempt.end.map(|end| end.event).filter(|event| event.kind == "worker_lost");
            let (Some(lost), Some(worker)) = (lost, attempt.worker()) else { continue };
            let Some(took) = took(index, job, attempt.granted, lost).filter(|took| *took + CLOCKS_APART < LEASE) else {
                continue;
            };
            let at = index.latest(job, lost).unwrap_or_default();
            let (from, to) = (before(at, took + RESTART), after(at, CLOCKS_APART));
            finding.unless(contact::was_ended(index, worker, from, to), || {
                let (number, around) = (attempt.number, index.around(from, to));
                format!("{}: attempt {number} of worker {} after {took:?}{around}", job.name(), worker.0)
            });
        }
    }
}

/// A job's own time may end before the grace does.
fn graces(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| job.asked.is_none_or(|asked| !asked.may.contains(&May::TimeOut))) {
        let pairs = job.events.windows(2);
        let given_up = pairs.filter(|pair| pair[1].kind == "canceled" && pair[0].kind != "worker_lost").find(|pair| {
            let confirmed = pair[1].data.get("canceled").and_then(|canceled| canceled.get("confirmed"));
            confirmed.and_then(Value::as_bool) == Some(false)
        });
        let canceling = job.events.iter().rfind(|event| event.kind == "canceling");
        let (Some([_, canceled]), Some(canceling)) = (given_up, canceling) else { continue };
        let grace = canceling.data.get("stop").and_then(|stop| stop.get("grace")).and_then(Value::as_str);
        let Some(grace) = grace.and_then(|grace| grace.parse::<Period>().ok()) else { continue };
        let (wanted, took) = (grace.plus(STOP_MARGIN).duration(), took(index, job, canceling, canceled));
        finding.unless(took.is_none_or(|took| took + CLOCKS_APART >= wanted), || {
            format!("{}: event {} after {took:?}, with a grace of {grace}", job.name(), canceled.seq)
        });
    }
}
