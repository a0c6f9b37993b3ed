//! Tries: counted rightly, no more than allowed, and used up before a job fails for what it is to be retried after.

use serde_json::Value;

use super::Rule;
use super::finding::Finding;
use super::index::{Index, Job};
use crate::chaos::history::Event;

pub const RULES: [Rule; 4] = [
    Rule { name: "no job has more tries than it may have", look: bounded },
    Rule { name: "a job's tries are those that its timeline tells", look: counted },
    Rule { name: "a failed step is tried again only where that was asked for", look: asked },
    Rule { name: "whatever is to be tried again is, while there are tries left", look: used_up },
];

/// The events by which attempts have failed, with the reason.
pub fn failures<'a>(job: &Job<'a>) -> impl Iterator<Item = (&'a Event, &'a str)> {
    let failed = job.events.iter().filter(|event| matches!(event.kind.as_str(), "retried" | "failed"));
    failed.map(|event| (*event, event.data.get("reason").and_then(Value::as_str).unwrap_or_default()))
}

fn bounded(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let (Some(asked), Some(row)) = (job.asked, job.row()) else { continue };
        finding.unless(row.tries <= asked.max_attempts, || {
            format!("{}: {} tries, {} allowed", job.name(), row.tries, asked.max_attempts)
        });
    }
}

/// A job that fails uses up a last try, unless it does so while no attempt is under way.
fn counted(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let Some(row) = job.row() else { continue };
        let ends = job.attempts.iter().filter_map(|attempt| attempt.end);
        let tries = ends.filter(|end| matches!(end.event.kind.as_str(), "retried" | "failed")).count();
        let lost =
            job.events.windows(2).filter(|pair| pair[0].kind == "worker_lost" && pair[1].kind != "canceled").count();
        let expired = failures(job).filter(|(event, reason)| event.kind == "failed" && *reason == "expired");
        let live =
            expired.filter(|(event, _)| job.attempts.iter().any(|a| a.end.is_some_and(|end| end.event == *event)));
        let told = (tries + lost).saturating_sub(live.count());
        finding.unless(row.tries as usize == told, || {
            format!("{}: {} tries in its row, {told} in its timeline", job.name(), row.tries)
        });
    }
}

fn asked(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| job.asked.is_some_and(|asked| !asked.retries_failures)) {
        let retried = failures(job).filter(|(event, reason)| event.kind == "retried" && *reason == "step_failed");
        for (event, _) in retried {
            finding.add(|| format!("{}: event {}, {}", job.name(), event.seq, event.data));
        }
    }
}

fn used_up(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let (Some(asked), Some(row)) = (job.asked, job.row()) else { continue };
        for (event, reason) in failures(job).filter(|(event, _)| event.kind == "failed") {
            let covered = reason == "worker_lost" || (reason == "step_failed" && asked.retries_failures);
            finding.unless(!covered || row.tries >= asked.max_attempts, || {
                let (tries, most) = (row.tries, asked.max_attempts);
                format!("{}: event {}, {reason}, after {tries} of {most} tries", job.name(), event.seq)
            });
        }
    }
}
