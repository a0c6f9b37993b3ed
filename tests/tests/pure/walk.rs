//! A walk over every job that can be reached from a few submissions: breadth first, with every act at every moment that
//! makes a difference, until nothing new turns up.
//!
//! Two jobs count as the same when they differ only in what no decision looks at: the numbers of events and versions, and
//! times apart from how far away they are. Attempts are bounded, for a job that is declined or parked may get any number.

use std::collections::{BTreeSet, HashSet, VecDeque};

use serde_json::json;

use shared::id::Attempt;
use shared::job::{Command, Job, State, StateName};
use shared::spec::JobSpec;
use shared::time::{Period, Time};

use super::acts::{Act, just_before};
use super::builders::{at, plain, prepared, submitted};
use super::promises;

/// No job is followed beyond this attempt: one more than its tries allow, so that one was declined, parked or lost.
const ATTEMPTS_MAX: u32 = 3;
/// No job is followed beyond this many reports of one attempt.
const REPORTS_MAX: u32 = 2;
/// A job that nobody cares for has ended after that many wakes: scheduled, queued, and at most one more.
const WAKES_MAX: usize = 3;

/// What a walk has seen.
#[derive(Default)]
struct Seen {
    jobs: usize,
    states: BTreeSet<StateName>,
    events: BTreeSet<&'static str>,
}

#[test]
fn every_reachable_job_keeps_every_promise() {
    let mut seen = Seen::default();
    let everything = ["worker_lost", "checkout_failed", "step_failed", "timed_out"];
    let retry = json!({"max_attempts": 2, "on": everything, "backoff": {"first": "10s", "max": "10s"}});
    walk(prepared(&json!({"retry": retry})), &mut seen);
    walk(plain(&json!({"retry": retry, "grace": "0s"})), &mut seen);
    walk(prepared(&json!({"retry": {"max_attempts": 1}, "run_at": at(50).to_string()})), &mut seen);
    walk(plain(&json!({"timeout": "1s", "queue_timeout": "1s"})), &mut seen);

    assert_eq!(seen.states, BTreeSet::from(StateName::ALL), "the walk misses a state");
    let events = [
        "assigned",
        "blocked",
        "cancel_requested",
        "canceled",
        "canceling",
        "checked_out",
        "declined",
        "failed",
        "key_try",
        "late_report",
        "queued",
        "retried",
        "scheduled",
        "started",
        "step_started",
        "succeeded",
        "worker_lost",
    ];
    assert_eq!(seen.events, BTreeSet::from(events), "the walk misses a kind of event");
    println!("{} jobs were reached", seen.jobs);
    assert!(seen.jobs > 500, "only {} jobs were reached", seen.jobs);
}

/// Follows every act at every moment from the submission of `spec`.
fn walk(spec: JobSpec, seen: &mut Seen) {
    let acts = Act::all();
    let first = (submitted(spec).job, at(0));
    let mut known = HashSet::from([normal(&first.0, first.1)]);
    let mut open = VecDeque::from([first]);
    while let Some((job, now)) = open.pop_front() {
        seen.jobs += 1;
        seen.states.insert(job.state.name());
        ends_by_itself(&job, now);
        let mut reached = later(&job, now);
        for act in &acts {
            if let Ok(transition) = promises::kept(&job, &act.command(&job, now), now) {
                seen.events.extend(transition.events.iter().map(|event| event.kind.name()));
                reached.push((transition.job, now));
            }
        }
        for (job, now) in reached {
            let reports = job.state.hold().map_or(0, |hold| hold.reports);
            let bounded = job.attempt <= Attempt(ATTEMPTS_MAX) && reports <= REPORTS_MAX;
            if bounded && known.insert(normal(&job, now)) {
                open.push_back((job, now));
            }
        }
    }
}

/// The same job when time has passed: shortly before it is due, and when it is.
fn later(job: &Job, now: Time) -> Vec<(Job, Time)> {
    let times = job.state.wake_at().into_iter().flat_map(|wake_at| [just_before(wake_at), wake_at]);
    times.filter(|time| *time > now).map(|time| (job.clone(), time)).collect()
}

/// Nobody speaks to the job any more but its own timer: soon it has ended.
fn ends_by_itself(job: &Job, now: Time) {
    let (mut woken, mut now, mut wakes) = (job.clone(), now, 0);
    while let Some(wake_at) = woken.state.wake_at() {
        assert!(wakes < WAKES_MAX, "after {wakes} wakes it hasn't ended: {job:#?}");
        wakes += 1;
        now = now.max(wake_at);
        woken = promises::kept(&woken, &Command::Wake, now).expect("a wake is never refused").job;
    }
    assert!(woken.is_terminal(), "without a timer, but not at its end: {woken:#?}");
}

/// What decisions look at, with the times as seen from `now`: what is past doesn't matter by how much.
fn normal(job: &Job, now: Time) -> String {
    let from_now =
        |time: Time| at(0).plus(Period::from_millis(u64::try_from(time.since(now).as_millis()).unwrap_or(0)));
    let mut state = job.state.clone();
    match &mut state {
        State::Scheduled { until } | State::Blocked { until, .. } | State::Queued { expires: until } => {
            *until = from_now(*until);
        }
        State::Assigned(hold) | State::Running(hold) => hold.deadline = from_now(hold.deadline),
        State::Canceling { hold, cancel } => {
            hold.deadline = from_now(hold.deadline);
            // The grace's end is compared as such, and with the margin after it.
            (cancel.at, cancel.grace_ends) = (from_now(cancel.gives_up()), from_now(cancel.grace_ends));
        }
        State::Canceled { canceled } => canceled.at = at(0),
        State::Succeeded | State::Failed { .. } => {}
    }
    format!("{state:?} {} {} {} {:?}", job.attempt, job.tries, job.last_attempt_told(), job.commit)
}
