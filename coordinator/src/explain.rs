//! Says why a job isn't running, or what it does, from what is known of it. It reads no clock and asks nobody:
//! [`crate::facts`] gathers what it goes by.
//!
//! What it says of a job's place and of workers is how they were when they were last heard: a worker says so every five seconds.

use std::time::Duration;

use shared::id::WorkerId;
use shared::job::{Event, EventKind, Failure, Hold, Job, OutcomeView, State};
use shared::time::{Period, Time};
use shared::view::WorkerState;
use shared::view::explanation::{
    EndedAttempt, Explanation, KeyTry, Preparation, Reason, Told, WorkerLoad, WorkerName, Workers,
};

use crate::leases::LEASE;
use crate::store::{Ahead, Worker};

mod words;

/// The most workers that a reason names.
pub const NAMED_MAX: usize = 20;
/// How long without a word a worker that holds an attempt counts as silent: half of its lease, in which two heartbeats come.
const SILENT_AFTER: Duration = Duration::from_millis(7500);

/// What is known of a job. What its state needs nothing of may be empty.
#[derive(Debug, Clone)]
pub struct Facts {
    pub job: Job,
    /// Its last events, in order.
    pub events: Vec<Event>,
    /// Every worker, for a job that is queued or has a live attempt.
    pub workers: Vec<Worker>,
    /// What is offered before a queued job.
    pub ahead: Option<Ahead>,
    /// Whether the deploy key that a blocked job waits for is there.
    pub registered: bool,
    pub owner: Owner,
}

/// What the owner of the job's shard knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It has one, which holds this to be the live attempt's lease, if there is one.
    Knows(Option<Lease>),
    /// It has one, and nothing of what that knows matters.
    NotAsked,
    /// It has none, or none that answers.
    Away,
}

/// A live attempt's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// When its worker was last heard, or could first have been.
    pub heard: Time,
    /// When its worker was first known to have heard of its cancel.
    pub told: Option<Time>,
}

/// Explains a job as it is at `now`, by the database's clock.
pub fn explain(facts: &Facts, now: Time) -> Explanation {
    let job = &facts.job;
    let mut reasons = match &job.state {
        State::Scheduled { until } => vec![scheduled(facts, *until)],
        State::Blocked { key, until } => vec![Reason::WaitsForKey {
            key: key.clone(),
            registered: facts.registered,
            until: *until,
            last_try: last_key_try(facts).map(|(tried, _)| tried),
        }],
        State::Queued { expires } => queued(facts, *expires, now),
        State::Assigned(hold) => preparing(facts, hold, now),
        State::Running(hold) => silent(facts, hold, now).into_iter().chain([running(facts, hold)]).collect(),
        State::Canceling { hold, cancel } => {
            let (told, told_at) = told(facts.owner);
            let canceling = Reason::Canceling {
                worker: named(facts, hold.worker),
                by: cancel.by.to_string(),
                since: cancel.at,
                why: cancel.why.clone(),
                told,
                told_at,
                kills_at: cancel.grace_ends,
                gives_up_at: cancel.gives_up().min(hold.deadline),
            };
            [canceling].into_iter().chain(silent(facts, hold, now)).collect()
        }
        State::Succeeded | State::Failed { .. } | State::Canceled { .. } => {
            let (outcome, finished_at) = (job.state.outcome(), job.finished_at);
            vec![Reason::Ended { outcome, attempt: job.attempt.0, finished_at }]
        }
    };
    if facts.owner == Owner::Away && !job.is_terminal() {
        reasons.insert(0, Reason::NoOwner {});
    }
    let summary = words::summary(job.state.name(), &reasons, now);
    Explanation { id: job.id, state: job.state.name(), at: now, summary, reasons }
}

fn scheduled(facts: &Facts, until: Time) -> Reason {
    let why = facts.events.iter().rev().find_map(|event| match event.kind {
        EventKind::Scheduled { why, .. } => Some(why),
        _ => None,
    });
    let last = facts.events.iter().rev().find_map(|event| {
        let outcome = match &event.kind {
            EventKind::Retried { failure, .. } => OutcomeView::from(failure),
            EventKind::WorkerLost { message, .. } => {
                OutcomeView::from(&Failure::WorkerLost { message: message.clone() })
            }
            _ => return None,
        };
        Some(EndedAttempt { attempt: event.attempt.0, at: event.at, outcome })
    });
    Reason::Scheduled { until, why, last: last.filter(|last| last.attempt == facts.job.attempt.0) }
}

/// What the last attempt's last try to fetch the deploy key came to, and when the next one is.
fn last_key_try(facts: &Facts) -> Option<(KeyTry, Option<Time>)> {
    let of_attempt = facts.events.iter().rev().filter(|event| event.attempt == facts.job.attempt);
    of_attempt.into_iter().find_map(|event| {
        let EventKind::KeyTry { number, answer, why, next_in } = &event.kind else { return None };
        let tried = KeyTry { number: *number, answer: answer.to_string(), why: why.clone(), at: event.at };
        Some((tried, next_in.map(|wait| event.at.plus(wait))))
    })
}

fn queued(facts: &Facts, expires: Time, now: Time) -> Vec<Reason> {
    let (job, tags) = (&facts.job, &facts.job.spec.tags);
    let place = Reason::Queued {
        tags: tags.clone(),
        priority: job.spec.priority,
        position: facts.ahead.map_or(0, |ahead| ahead.count).saturating_add(1),
        at_least: facts.ahead.is_none_or(|ahead| ahead.at_least),
        since: job.queued_at,
        expires,
    };
    let mut reasons = with_tags(facts, now);
    if reasons.is_empty() {
        reasons.push(no_worker(facts, now));
    }
    reasons.push(place);
    reasons
}

/// How the workers are that have all of the job's tags, those first that could take it.
fn with_tags(facts: &Facts, now: Time) -> Vec<Reason> {
    let fit =
        |worker: &&Worker| tags_of(worker).is_some_and(|has| facts.job.spec.tags.iter().all(|tag| has.contains(tag)));
    let fitting: Vec<&Worker> = facts.workers.iter().filter(fit).collect();
    let like = |state: WorkerState| fitting.iter().copied().filter(move |worker| worker.state(now) == state);
    let has_room = |worker: &&Worker| worker.seen.as_ref().is_some_and(|seen| seen.running < seen.slots);
    let (free, busy): (Vec<&Worker>, Vec<&Worker>) = like(WorkerState::Active).partition(has_room);
    let groups = [
        (Reason::WorkersFree as fn(Workers) -> Reason, free),
        (Reason::WorkersBusy, busy),
        (Reason::WorkersPaused, like(WorkerState::Paused).collect()),
        (Reason::WorkersDraining, like(WorkerState::Draining).collect()),
        (Reason::WorkersSilent, like(WorkerState::Silent).collect()),
    ];
    let groups = groups.into_iter().filter(|(_, workers)| !workers.is_empty());
    groups.map(|(reason, workers)| reason(together(workers))).collect()
}

fn no_worker(facts: &Facts, now: Time) -> Reason {
    let heard = |worker: &&Worker| match worker.state(now) {
        WorkerState::Active | WorkerState::Paused | WorkerState::Draining => true,
        WorkerState::New | WorkerState::Silent | WorkerState::Revoked => false,
    };
    let heard: Vec<&Worker> = facts.workers.iter().filter(heard).collect();
    let has = |tag: &String| heard.iter().any(|worker| tags_of(worker).is_some_and(|tags| tags.contains(tag)));
    let tags = facts.job.spec.tags.clone();
    let missing = tags.iter().filter(|tag| !has(tag)).cloned().collect();
    Reason::NoWorkerHasTags { tags, missing, workers: u32::try_from(heard.len()).unwrap_or(u32::MAX) }
}

fn tags_of(worker: &Worker) -> Option<&Vec<String>> {
    worker.seen.as_ref().map(|seen| &seen.tags)
}

fn together(mut workers: Vec<&Worker>) -> Workers {
    workers.sort_by_key(|worker| std::cmp::Reverse(worker.seen.as_ref().map(|seen| seen.at)));
    let load = |worker: &&Worker| {
        let seen = worker.seen.as_ref();
        WorkerLoad {
            id: worker.id,
            name: worker.name.clone(),
            slots: seen.map_or(0, |seen| seen.slots),
            running: seen.map_or(0, |seen| seen.running),
            seen_at: seen.map(|seen| seen.at),
        }
    };
    let sum =
        |of: fn(&WorkerLoad) -> u32| workers.iter().map(load).fold(0, |sum: u32, one| sum.saturating_add(of(&one)));
    Workers {
        count: u32::try_from(workers.len()).unwrap_or(u32::MAX),
        slots: sum(|load| load.slots),
        running: sum(|load| load.running),
        workers: workers.iter().take(NAMED_MAX).map(load).collect(),
    }
}

fn preparing(facts: &Facts, hold: &Hold, now: Time) -> Vec<Reason> {
    let of_attempt = || facts.events.iter().rev().filter(|event| event.attempt == facts.job.attempt);
    let checked_out = of_attempt().any(|event| matches!(event.kind, EventKind::CheckedOut { .. }));
    let tried = last_key_try(facts);
    let has_key = tried.as_ref().is_some_and(|(tried, _)| tried.answer == shared::job::KeyAnswer::Sealed.name());
    let key = facts.job.spec.deploy_key().filter(|_| !has_key && !checked_out);
    let part = match (&key, checked_out) {
        (Some(_), _) => Preparation::DeployKey,
        (None, false) => Preparation::Checkout,
        (None, true) => Preparation::CheckedOut,
    };
    let preparing = Reason::Preparing {
        worker: named(facts, hold.worker),
        attempt: facts.job.attempt.0,
        part,
        since: granted_at(facts),
        deadline: hold.deadline,
    };
    let fetching = key.map(|key| {
        let (last_try, next_try_at) = tried.map_or((None, None), |(tried, next)| (Some(tried), next));
        Reason::FetchingKey { key: key.name.clone(), last_try, next_try_at }
    });
    silent(facts, hold, now).into_iter().chain(fetching).chain([preparing]).collect()
}

fn running(facts: &Facts, hold: &Hold) -> Reason {
    let of_attempt = facts.events.iter().rev().filter(|event| event.attempt == facts.job.attempt);
    let mut steps = of_attempt.filter_map(|event| match &event.kind {
        EventKind::StepStarted { step, name } => Some(Some((*step, name.clone(), event.at))),
        EventKind::StepFinished { .. } => Some(None),
        _ => None,
    });
    let step = steps.next().flatten();
    Reason::Running {
        worker: named(facts, hold.worker),
        attempt: facts.job.attempt.0,
        step: step.as_ref().map(|(step, _, _)| *step),
        name: step.as_ref().and_then(|(_, name, _)| name.clone()),
        steps: u32::try_from(facts.job.spec.steps.len()).unwrap_or(u32::MAX),
        since: step.map(|(_, _, at)| at).or(facts.job.started_at),
        deadline: hold.deadline,
    }
}

/// When the current attempt was granted, as far as its event is among those that were read.
fn granted_at(facts: &Facts) -> Option<Time> {
    let granted =
        |event: &&Event| event.attempt == facts.job.attempt && matches!(event.kind, EventKind::Assigned { .. });
    facts.events.iter().rev().find(granted).map(|event| event.at)
}

/// That the worker isn't heard: by the lease where somebody holds one, by its hellos otherwise.
fn silent(facts: &Facts, hold: &Hold, now: Time) -> Option<Reason> {
    let worker = named(facts, hold.worker);
    if let Owner::Knows(Some(lease)) = facts.owner {
        let ends = lease.heard.plus(Period::from_millis(u64::try_from(LEASE.as_millis()).unwrap_or(u64::MAX)));
        let silent = now.since(lease.heard) >= SILENT_AFTER;
        return silent.then_some(Reason::WorkerSilent { worker, since: Some(lease.heard), lease_ends: Some(ends) });
    }
    let known = facts.workers.iter().find(|known| known.id == hold.worker)?;
    let silent = known.state(now) == WorkerState::Silent;
    let since = known.seen.as_ref().map(|seen| seen.at);
    silent.then_some(Reason::WorkerSilent { worker, since, lease_ends: None })
}

fn told(owner: Owner) -> (Told, Option<Time>) {
    match owner {
        Owner::Knows(lease) => match lease.and_then(|lease| lease.told) {
            Some(at) => (Told::Yes, Some(at)),
            None => (Told::NotYet, None),
        },
        Owner::NotAsked | Owner::Away => (Told::Unknown, None),
    }
}

fn named(facts: &Facts, id: WorkerId) -> WorkerName {
    let known = facts.workers.iter().find(|worker| worker.id == id);
    WorkerName { id, name: known.map(|worker| worker.name.clone()) }
}
