//! Why jobs end as they do: for what was asked of them, and for nothing that Windlass did to them.

use std::time::Duration;

use serde_json::Value;

use super::Rule;
use super::attempts::{Attempt, End};
use super::contact;
use super::finding::Finding;
use super::index::{Index, Job, after, before};
use super::tries::failures;
use crate::chaos::history::{At, Event, Kind, May, Target};

pub const RULES: [Rule; 8] = [
    Rule { name: "a job that succeeded has done every step", look: succeeded },
    Rule { name: "a step fails only as it was asked to", look: step_failed },
    Rule { name: "a job times out only where it may", look: timed_out },
    Rule { name: "a job expires only where it may", look: expired },
    Rule { name: "a job lacks its deploy key only where it may", look: key_missing },
    Rule { name: "no worker is lost without a trouble", look: worker_lost },
    Rule { name: "nothing but a full disk fails a checkout or the worker itself", look: internal },
    Rule { name: "a job fails for no reason but those that were asked for", look: known },
];

/// A claim that was under way when its worker died may be granted after that, until its deadline.
const CLAIM: Duration = Duration::from_secs(15);
/// The longest time from a trouble to the loss of a worker: its lease begins anew at each trouble of the coordinators.
const LOSS: Duration = Duration::from_mins(2);
/// How long before the loss of a worker the trouble that it was lost by may have been: a lease, and the time for which the
/// store may have been away then.
const SILENCE: Duration = Duration::from_secs(15 + 25);
/// How long after a trouble something may still come of it.
const MARGIN: Duration = Duration::from_secs(2);

fn succeeded(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let (Some(asked), Some(row)) = (job.asked, job.row()) else { continue };
        if row.state != "succeeded" {
            continue;
        }
        if asked.exits.iter().any(|exit| *exit != 0) {
            finding.add(|| format!("{}: its steps were to exit with {:?}", job.name(), asked.exits));
            continue;
        }
        let steps = 0..u32::try_from(asked.exits.len()).unwrap_or(u32::MAX);
        let missing =
            steps.clone().find(|step| !(job.steps.began(row.attempt, *step) && job.steps.ended(row.attempt, *step)));
        if let Some(step) = missing {
            finding
                .add(|| format!("{}: step {step} of {} wasn't done in attempt {}", job.name(), steps.end, row.attempt));
        }
    }
}

fn step_failed(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for (event, _) in failures(job).filter(|(_, reason)| *reason == "step_failed") {
            if let Err(why) = failed_as_asked(job, event) {
                finding.add(|| format!("{}: event {}, {}: {why}", job.name(), event.seq, event.data));
            }
        }
    }
}

fn failed_as_asked(job: &Job<'_>, event: &Event) -> Result<(), String> {
    let Some(asked) = job.asked else { return Ok(()) };
    let number = |name: &str| event.data.get(name).and_then(Value::as_i64);
    let step = number("step").and_then(|step| u32::try_from(step).ok()).ok_or("it names no step")?;
    let place = usize::try_from(step).unwrap_or(usize::MAX);
    let exit = asked.exits.get(place).ok_or("there is no such step")?;
    if !job.steps.began(event.attempt, step) {
        return Err(format!("step {step} never began in attempt {}", event.attempt));
    }
    if let Some(before) = (0..step).find(|before| !job.steps.ended(event.attempt, *before)) {
        return Err(format!("step {before} never ended in attempt {}", event.attempt));
    }
    match (number("exit_code"), number("signal")) {
        (Some(code), None) if code == i64::from(*exit) && code != 0 => {
            let ended = job.steps.ended(event.attempt, step);
            if ended { Ok(()) } else { Err(format!("step {step} never came to its end")) }
        }
        (Some(_), None) => Err(format!("it was to exit with {exit}")),
        // As a shell says it.
        (None, Some(signal)) if asked.may.contains(&May::DieOfSignal) && 128 + signal == i64::from(*exit) => Ok(()),
        (None, Some(_)) => Err(format!("it was to exit with {exit}, or to die of what a shell says so")),
        _ => Err("it says not how the step ended".to_owned()),
    }
}

/// Finds the failures for `reason` of jobs that may not fail so.
fn unless_may(index: &Index<'_>, finding: &mut Finding, reason: &str, may: May) {
    for job in index.jobs.iter().filter(|job| job.asked.is_some_and(|asked| !asked.may.contains(&may))) {
        for (event, _) in failures(job).filter(|(_, said)| *said == reason) {
            finding.add(|| {
                let at = index.latest(job, event);
                let at = at
                    .map_or_else(String::new, |at| format!(" at {}{}", index.time(at), around(index, job, event, at)));
                format!("{}: event {}, {}{at}", job.name(), event.seq, event.data)
            });
        }
    }
}

fn timed_out(index: &Index<'_>, finding: &mut Finding) {
    unless_may(index, finding, "timed_out", May::TimeOut);
}

fn expired(index: &Index<'_>, finding: &mut Finding) {
    unless_may(index, finding, "expired", May::Expire);
}

fn key_missing(index: &Index<'_>, finding: &mut Finding) {
    unless_may(index, finding, "deploy_key_missing", May::LackItsKey);
}

/// The time from an attempt's grant to its end.
fn lasted(index: &Index<'_>, job: &Job<'_>, event: &Event, ended: At) -> (At, At) {
    let granted = job.attempt(event.attempt).and_then(|attempt| index.earliest(job, attempt.granted));
    (granted.unwrap_or(ended), ended)
}

fn around(index: &Index<'_>, job: &Job<'_>, event: &Event, ended: At) -> String {
    let (granted, ended) = lasted(index, job, event, ended);
    index.around(before(granted, MARGIN), after(ended, MARGIN))
}

/// A worker that is lost was killed, stopped or not heard. One that was shut down, or that has ended a job which is to stop
/// without contact, says so in the same words.
fn worker_lost(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for attempt in &job.attempts {
            let Some(End { event, by_worker }) = attempt.end else { continue };
            let reason = event.data.get("reason").and_then(Value::as_str);
            if event.kind != "worker_lost" && reason != Some("worker_lost") {
                continue;
            }
            let (Some(worker), Some(at)) = (attempt.worker(), index.latest(job, event)) else { continue };
            let (granted, lost) = lasted(index, job, event, at);
            let (from, to) = (before(granted, CLAIM).max(before(lost, LOSS)), after(lost, MARGIN));
            let stopped = by_worker && job.asked.is_some_and(|asked| asked.stops_without_contact);
            // A new process tells at once, and whenever it can, that what ran in the one before it is over.
            let excused = contact::was_ended(index, worker, from, to)
                || contact::was_unheard(index, worker, from.max(before(lost, SILENCE)), to)
                // It looks at whether its heartbeats are answered, which takes the whole way there and back.
                || (stopped && contact::was_unanswered(index, worker, from, to));
            finding.unless(excused, || {
                let (number, at, around) = (attempt.number, index.time(at), index.around(from, to));
                format!("{}: attempt {number} of worker {}, at {at}, {}{around}", job.name(), worker.0, event.data)
            });
        }
    }
}

/// A worker whose disk takes nothing more can neither check out nor run anything, and says so in these words.
fn internal(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for (event, _) in failures(job).filter(|(_, reason)| matches!(*reason, "internal" | "checkout_failed")) {
            let worker = job.attempt(event.attempt).and_then(Attempt::worker);
            let number = worker.and_then(|worker| index.workers.get(worker));
            let ended = index.latest(job, event).unwrap_or_default();
            let (from, to) = lasted(index, job, event, ended);
            let (from, to) = (before(from, MARGIN), after(to, MARGIN));
            let full = index.history.troubles.iter().any(|trouble| {
                let its = number.is_some_and(|number| trouble.target == Target::Worker(*number));
                its && trouble.kind == Kind::FullDisk && trouble.from <= to && from <= trouble.to
            });
            finding.unless(full, || {
                format!("{}: event {}, {}{}", job.name(), event.seq, event.data, index.around(from, to))
            });
        }
    }
}

fn known(index: &Index<'_>, finding: &mut Finding) {
    let judged =
        ["step_failed", "timed_out", "expired", "deploy_key_missing", "worker_lost", "internal", "checkout_failed"];
    for job in &index.jobs {
        for (event, reason) in failures(job).filter(|(_, reason)| !judged.contains(reason)) {
            finding.add(|| format!("{}: event {}, {reason:?}, {}", job.name(), event.seq, event.data));
        }
    }
}
