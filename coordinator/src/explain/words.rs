//! An explanation for people: its reasons as sentences.

use std::time::Duration;

use shared::job::{ScheduledFor, StateName};
use shared::time::{Period, Time};
use shared::view::explanation::{EndedAttempt, KeyTry, Preparation, Reason, Told, WorkerName, Workers};

/// What the reasons say together.
pub(super) fn summary(state: StateName, reasons: &[Reason], now: Time) -> String {
    let sentences: Vec<String> = reasons.iter().map(|reason| sentence(state, reason, now)).collect();
    sentences.join(" ")
}

fn sentence(state: StateName, reason: &Reason, now: Time) -> String {
    match reason {
        Reason::Scheduled { until, why, last } => scheduled(*until, *why, last.as_ref(), now),
        Reason::WaitsForKey { key, registered, until, last_try } => {
            waits_for_key(key, *registered, *until, last_try.as_ref(), now)
        }
        Reason::NoWorkerHasTags { tags, missing, workers } => no_worker(tags, missing, *workers),
        Reason::WorkersFree(workers) => {
            format!("It is about to be taken: {} its tags and a free slot.", counted(workers, "has", "have"))
        }
        Reason::WorkersBusy(workers) => {
            let have = counted(workers, "has", "have");
            format!("{have} its tags, with all {} slots busy.", workers.slots)
        }
        Reason::WorkersPaused(workers) => {
            format!("{} its tags and {} paused.", counted(workers, "has", "have"), verb(workers, "is", "are"))
        }
        Reason::WorkersDraining(workers) => {
            let take = verb(workers, "takes", "take");
            format!("{} its tags and {take} nothing new before the end.", counted(workers, "has", "have"))
        }
        Reason::WorkersSilent(workers) => {
            let last = workers.workers.first().and_then(|worker| worker.seen_at);
            let last = last.map_or_else(String::new, |at| format!(", last heard {} ago", length(now.since(at))));
            format!("{} its tags and {} silent{last}.", counted(workers, "has", "have"), verb(workers, "is", "are"))
        }
        Reason::Queued { position, at_least, .. } => {
            let bound = if *at_least { "at least " } else { "" };
            format!("It is {bound}number {position} in the queue for its tags.")
        }
        Reason::Preparing { worker, attempt, part, since, .. } => {
            let what = match part {
                Preparation::DeployKey => "prepares it",
                Preparation::Checkout => "checks its repository out",
                Preparation::CheckedOut => "is about to start it",
            };
            format!("{} {what}, in attempt {attempt}{}.", name(worker), passed(*since, now))
        }
        Reason::FetchingKey { key, last_try, next_try_at } => {
            let next = next_try_at.map(|at| format!(" The next try is {}.", coming(at, now))).unwrap_or_default();
            format!("It waits for the deploy key {key}.{}{next}", last_try.as_ref().map(tried).unwrap_or_default())
        }
        Reason::Running { worker, step, name: called, steps, since, .. } => {
            let what = match (step, called) {
                (Some(step), Some(called)) => format!("step {step} ({called}) of {steps}"),
                (Some(step), None) => format!("step {step} of {steps}"),
                (None, _) => "it and is between two steps".to_owned(),
            };
            format!("{} runs {what}{}.", name(worker), passed(*since, now))
        }
        Reason::WorkerSilent { worker, since, lease_ends } => {
            let since = since.map_or_else(String::new, |since| format!(" for {}", length(now.since(since))));
            let ends = lease_ends.map(|at| format!(": its lease ends {}", coming(at, now))).unwrap_or_default();
            format!("{} was not heard{since}{ends}.", name(worker))
        }
        Reason::Canceling { .. } => canceling(reason, now),
        Reason::NoOwner {} => {
            "No coordinator that owns it answers: nothing about it moves before one takes it over.".to_owned()
        }
        Reason::Ended { outcome, attempt, finished_at } => {
            let when = finished_at.map_or_else(String::new, |at| format!(" at {at}"));
            let attempt =
                if *attempt == 0 { " before any attempt".to_owned() } else { format!(" in attempt {attempt}") };
            let how = outcome.as_ref().map_or_else(String::new, |outcome| format!(": {outcome}"));
            format!("It ended as {state}{when},{attempt}{how}.")
        }
    }
}

fn scheduled(until: Time, why: Option<ScheduledFor>, last: Option<&EndedAttempt>, now: Time) -> String {
    let why = match why {
        Some(ScheduledFor::RunAt) => ", its run_at",
        Some(ScheduledFor::Backoff) => " for its next attempt",
        Some(ScheduledFor::KeyUnavailable) => ", since nobody could say whether its deploy key is there",
        None => "",
    };
    let last = last
        .map(|last| format!(" Attempt {} ended {} ago: {}.", last.attempt, length(now.since(last.at)), last.outcome));
    format!("It is scheduled {}{why}.{}", coming(until, now), last.unwrap_or_default())
}

fn waits_for_key(key: &str, registered: bool, until: Time, last: Option<&KeyTry>, now: Time) -> String {
    if registered {
        return format!("Its deploy key {key} is registered: it is about to go on.");
    }
    let last = last.map(tried).unwrap_or_default();
    format!("It waits for somebody to register the deploy key {key}; its wait limit ends {}.{last}", coming(until, now))
}

fn no_worker(tags: &[String], missing: &[String], workers: u32) -> String {
    match (workers, missing, tags) {
        (0, _, _) => "No worker is there.".to_owned(),
        (_, [], _) => format!("No worker has all of its tags together: {}.", tags.join(", ")),
        (_, [tag], _) => format!("No worker has the tag {tag}."),
        (_, missing, _) => format!("No worker has any of the tags {}.", missing.join(", ")),
    }
}

fn canceling(reason: &Reason, now: Time) -> String {
    let Reason::Canceling { worker, by, since, why, told, kills_at, gives_up_at, .. } = reason else {
        return String::new();
    };
    let why = why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    let heard = match told {
        Told::Yes => "has heard of it and has yet to confirm that nothing runs",
        Told::NotYet => "has not heard of it yet",
        Told::Unknown => "has not confirmed that nothing runs",
    };
    let kill =
        if *kills_at > now { format!("It is killed {}", coming(*kills_at, now)) } else { "It is killed".to_owned() };
    format!(
        "It was canceled {} ago by {by}{why}. {} {heard}. {kill}, and counts as canceled without that word {}.",
        length(now.since(*since)),
        name(worker),
        coming(*gives_up_at, now),
    )
}

fn tried(last: &KeyTry) -> String {
    let why = last.why.as_ref().map_or_else(String::new, |why| format!(" ({why})"));
    format!(" Try {} came to {}{why}.", last.number, last.answer)
}

fn counted(workers: &Workers, one: &str, many: &str) -> String {
    match (workers.count, workers.workers.first()) {
        (1, Some(only)) => format!("Worker {} {one}", only.name),
        (count, _) => format!("{count} workers {many}"),
    }
}

fn verb<'a>(workers: &Workers, one: &'a str, many: &'a str) -> &'a str {
    if workers.count == 1 { one } else { many }
}

fn name(worker: &WorkerName) -> String {
    match &worker.name {
        Some(name) => format!("Worker {name}"),
        None => format!("Worker {}", worker.id),
    }
}

/// A point in time that lies ahead, or should.
fn coming(at: Time, now: Time) -> String {
    if at > now { format!("at {at} (in {})", length(at.since(now))) } else { format!("at {at}") }
}

fn passed(since: Option<Time>, now: Time) -> String {
    since.map_or_else(String::new, |since| format!(", for {}", length(now.since(since))))
}

/// To the second, where it is one or more.
fn length(length: Duration) -> String {
    match length.as_secs() {
        0 => Period::from_millis(u64::from(length.subsec_millis())).to_string(),
        secs => Period::from_secs(secs).to_string(),
    }
}
