//! What holds for every single transition: the promises of `apply`, the counting of attempts and tries, and that each
//! message follows from the event that needs it. The table, the walk and the random sequences all ask here.

use std::ops::Not;

use shared::job::{Command, Event, Failure, Job, Message, Offer, Rejection, State, StateName, StopOrder, Transition};
use shared::time::{Period, Time};

use super::builders::at;

/// What `apply` made of a command.
type Outcome = Result<Transition, Rejection>;

/// Applies `command`, holds the outcome against every promise and returns it.
///
/// # Panics
/// With the promise's number where one is broken.
pub fn kept(before: &Job, command: &Command, now: Time) -> Outcome {
    let outcome = before.apply(command.clone(), now);
    let hold = |kept: bool, promise: &str| {
        assert!(kept, "{promise}\n{command:?}\nat {now}\nto {before:#?}\nmakes {outcome:#?}");
    };
    hold(!is_stale(before, command) || outcome.is_err(), "3: a word about another attempt changes nothing");
    if let Ok(transition) = &outcome {
        let Transition { job: after, events } = transition;
        let names: Vec<&str> = events.iter().map(|event| event.kind.name()).collect();
        hold(keeps_what_is_terminal(before, after, &names), "1: a terminal job keeps all but a late word");
        hold(obeys_a_cancel(before, command, after), "2: a job cancelled before its claim is at its end");
        hold(repeat_is_nothing(after, command, now), "4: a repeat changes nothing");
        hold(is_numbered_without_gap(before, transition, now), "5: numbers grow by one, without a gap");
        hold(leaves_its_state_in_time(after, now), "6: a timer that moves it on, unless it is terminal");
        hold(is_never_retried_after_a_cancel(before, after), "7: a cancelled job is never retried");
        hold(counts_attempts(before, after, &names), "an attempt for each grant, a try for each that failed");
        hold(takes_reports_in_order(before, after, &names), "a report is taken once, and after the one before it");
        hold(messages(events) == needed(before, after, &names, now), "the messages that its state needs");
    }
    outcome
}

/// Promise 1.
fn keeps_what_is_terminal(before: &Job, after: &Job, names: &[&str]) -> bool {
    if !before.is_terminal() {
        return true;
    }
    let noted = matches!((names, before.last_attempt_told()), ([], _) | (["late_report"], false));
    let changed = Job { version: after.version, seq: after.seq, told: after.told.clone(), ..before.clone() };
    noted && changed == *after
}

/// Promise 2: without a live attempt a cancel is the end, so promise 1 keeps the job from ever starting.
fn obeys_a_cancel(before: &Job, command: &Command, after: &Job) -> bool {
    let live = before.state.hold().is_some();
    match command {
        Command::Cancel(_) if live => after.state.name() == StateName::Canceling,
        Command::Cancel(_) => after.is_terminal(),
        Command::Wake
        | Command::Claim(_)
        | Command::Worker(_)
        | Command::WorkerLost { .. }
        | Command::KeyRegistered { .. } => true,
    }
}

/// Promise 3: whether it speaks of another attempt, or for another worker.
fn is_stale(before: &Job, command: &Command) -> bool {
    match command {
        Command::Worker(said) => said.attempt != before.attempt || Some(said.worker) != before.worker,
        Command::WorkerLost { attempt, .. } => *attempt != before.attempt || before.state.hold().is_none(),
        Command::Claim(claim) => match before.state.hold() {
            Some(hold) => (hold.claim, hold.worker) != (claim.claim, claim.worker) || claim.attempt != before.attempt,
            None => claim.attempt != before.attempt.next(),
        },
        Command::Wake | Command::Cancel(_) | Command::KeyRegistered { .. } => false,
    }
}

/// Promise 4.
fn repeat_is_nothing(after: &Job, command: &Command, now: Time) -> bool {
    after.apply(command.clone(), now).is_ok_and(|again| !again.is_empty()).not()
}

/// Promise 5.
fn is_numbered_without_gap(before: &Job, transition: &Transition, now: Time) -> bool {
    let Transition { job: after, events } = transition;
    if events.is_empty() {
        return *after == *before;
    }
    let mut seq = before.seq;
    let in_order = events.iter().all(|event| {
        seq = seq.next();
        (event.job, event.seq, event.at) == (before.id, seq, now)
    });
    in_order && after.seq == seq && after.version == before.version.next()
}

/// Promise 6: the timer of a job without a way out would be a year away at most, and firing it moves the job on.
fn leaves_its_state_in_time(after: &Job, now: Time) -> bool {
    let Some(wake_at) = after.state.wake_at() else { return after.is_terminal() };
    let latest = after.spec.run_at.unwrap_or(at(0)).max(now).plus(Period::MAX);
    let woken = after.apply(Command::Wake, wake_at);
    !after.is_terminal() && wake_at <= latest && woken.is_ok_and(|woken| !woken.is_empty())
}

/// Promise 7.
fn is_never_retried_after_a_cancel(before: &Job, after: &Job) -> bool {
    before.state.name() != StateName::Canceling
        || matches!(after.state.name(), StateName::Canceling | StateName::Canceled)
}

/// Only an attempt that failed is a try: one that was declined, parked or given back isn't.
fn counts_attempts(before: &Job, after: &Job, names: &[&str]) -> bool {
    let granted = u32::from(names.contains(&"assigned"));
    let expired = matches!(after.state, State::Failed { failure: Failure::Expired });
    let failed = names.contains(&"retried") || (before.state.hold().is_some() && names.contains(&"failed") && !expired);
    after.attempt.0 == before.attempt.0 + granted
        && after.tries == before.tries + u32::from(failed)
        && after.tries <= after.spec.retry.max_attempts
}

/// While an attempt lives, the number of its last report grows by one with each that is taken.
fn takes_reports_in_order(before: &Job, after: &Job, names: &[&str]) -> bool {
    let (Some(first), Some(next)) = (before.state.hold(), after.state.hold()) else { return true };
    let taken = ["key_try", "checked_out", "step_started", "step_finished"].iter().any(|kind| names.contains(kind));
    next.reports == first.reports + u32::from(taken)
}

/// What must be sent because of a transition, besides the events themselves.
#[derive(Debug, Default, PartialEq)]
struct Needed {
    offers: Vec<Offer>,
    withdrawn: Vec<Offer>,
    stops: Vec<StopOrder>,
}

/// What the states ask for: an offer for each time that it is queued, a withdrawal when a queued job ends, a stop for
/// each attempt that is cancelled, is lost, or ends without its worker's word. (A stop that a worker doesn't heed is
/// repeated by the replies to its heartbeats, not by an event.)
fn needed(before: &Job, after: &Job, names: &[&str], now: Time) -> Needed {
    let mut needed = Needed::default();
    if names.contains(&"queued") {
        needed.offers.push(after.offer());
    }
    if before.state.name() == StateName::Queued && after.is_terminal() {
        needed.withdrawn.push(before.offer());
    }
    let grace = match (&before.state, &after.state) {
        (_, State::Canceling { cancel, .. }) if names.contains(&"canceling") => {
            let millis = cancel.grace_ends.since(now).as_millis();
            Some(Period::from_millis(u64::try_from(millis).expect("a grace")))
        }
        _ if names.contains(&"worker_lost") => Some(Period::ZERO),
        (State::Assigned(_) | State::Running(_), state) if state.hold().is_none() => {
            (!after.last_attempt_told()).then_some(Period::ZERO)
        }
        _ => None,
    };
    if let (Some(hold), Some(grace)) = (before.state.hold(), grace) {
        let (worker, instance) = (hold.worker, hold.instance);
        needed.stops.push(StopOrder { job: before.id, attempt: before.attempt, worker, instance, grace });
    }
    needed
}

/// What `outgoing` makes of the events, each of which the subscribers hear of first.
fn messages(events: &[Event]) -> Needed {
    let mut made = Needed::default();
    for event in events {
        let messages = event.outgoing();
        assert_eq!(messages.first(), Some(&Message::Event(event.clone())), "the subscribers hear of every event");
        for message in messages.into_iter().skip(1) {
            match message {
                Message::Event(twice) => panic!("told twice: {twice:?}"),
                Message::Offer(offer) => made.offers.push(offer),
                Message::Withdraw(offer) => made.withdrawn.push(offer),
                Message::Stop(stop) => made.stops.push(stop),
            }
        }
    }
    made
}
