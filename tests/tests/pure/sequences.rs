//! Long random histories of one job: hundreds of commands, sensible and wild, while time moves on or stands still.
//!
//! Each history leaves some acts out (a cancel, say), or most would end within a few commands.

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::Config;
use serde_json::json;

use shared::id::Attempt;
use shared::job::{AttemptEnd, Command, Event, EventKind, Failure, Job, ScheduledFor, Transition};
use shared::spec::JobSpec;
use shared::time::{Period, Time};

use super::acts::{Act, just_before};
use super::builders::{
    checked_out, claim_of, decline, end, exit, failed, lost, park, plain, prepared, step_started, submitted, word_of,
};
use super::promises;

const COMMANDS_MAX: usize = 400;

/// How far the clock goes before a command.
#[derive(Debug, Clone, Copy)]
enum Clock {
    Still,
    By(Period),
    ToJustBeforeDue,
    ToDue,
}

/// What a job is told: something that makes sense where it stands, or something about any attempt, by anybody.
#[derive(Debug, Clone)]
enum Told {
    Act(Act),
    Wild(Wild),
}

#[derive(Debug, Clone, Copy)]
struct Wild {
    kind: usize,
    attempt: u32,
    by: u128,
    report: u32,
}

proptest! {
    #![proptest_config(Config { cases: 400, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_long_history_keeps_every_promise(history in histories()) {
        let (spec, steps) = history;
        let Transition { mut job, mut events } = submitted(spec);
        let (mut now, mut versions) = (job.created_at, 1);
        for (clock, told) in steps {
            now = moved(now, clock, &job);
            let command = match told {
                Told::Act(act) => act.command(&job, now),
                Told::Wild(wild) => wild.command(now),
            };
            if let Ok(transition) = promises::kept(&job, &command, now) {
                versions += u64::from(!transition.is_empty());
                events.extend(transition.events);
                job = transition.job;
            }
        }
        prop_assert_eq!(job.version.0, versions, "a version for each transition");
        told_in_order(&job, &events);
    }
}

/// A specification and what its job is told, after how much time.
fn histories() -> impl Strategy<Value = (JobSpec, Vec<(Clock, Told)>)> {
    let diet = prop::sample::subsequence(Act::all(), 4..Act::all().len());
    let steps = diet.prop_flat_map(|acts| {
        let told = prop_oneof![4 => select(acts).prop_map(Told::Act), 1 => wild().prop_map(Told::Wild)];
        prop::collection::vec((clock(), told), 1..COMMANDS_MAX)
    });
    (specs(), steps)
}

fn specs() -> impl Strategy<Value = JobSpec> {
    let on =
        prop::sample::subsequence(vec!["worker_lost", "checkout_failed", "step_failed", "timed_out", "exit:1"], 0..=5);
    (on, prop_oneof![1..4_u32, Just(100)], any::<bool>(), any::<bool>()).prop_map(|(on, attempts, prepares, later)| {
        let mut more = json!({"retry": {"max_attempts": attempts, "on": on, "backoff": {"first": "3s", "max": "20s"}}});
        if later {
            more["run_at"] = super::builders::at(30).to_string().into();
        }
        if prepares { prepared(&more) } else { plain(&more) }
    })
}

fn clock() -> impl Strategy<Value = Clock> {
    prop_oneof![
        6 => Just(Clock::Still),
        3 => (0..15_000_u64).prop_map(|millis| Clock::By(Period::from_millis(millis))),
        1 => Just(Clock::ToJustBeforeDue),
        1 => Just(Clock::ToDue),
    ]
}

fn wild() -> impl Strategy<Value = Wild> {
    (0..9_usize, 0..6_u32, 1..4_u128, 0..5_u32).prop_map(|(kind, attempt, by, report)| Wild {
        kind,
        attempt,
        by,
        report,
    })
}

impl Wild {
    fn command(self, now: Time) -> Command {
        let attempt = Attempt(self.attempt);
        let word = match self.kind {
            0 => return Command::Claim(claim_of(attempt, self.by, now)),
            1 => return lost(attempt),
            2 => decline(),
            3 => park(),
            4 => step_started(self.report),
            5 => checked_out(self.report),
            6 => end(AttemptEnd::Succeeded),
            7 => failed(exit(1)),
            _ => end(AttemptEnd::Stopped),
        };
        word_of(self.by, attempt, word)
    }
}

fn moved(now: Time, clock: Clock, job: &Job) -> Time {
    let wake_at = job.state.wake_at().unwrap_or(now);
    match clock {
        Clock::Still => now,
        Clock::By(period) => now.plus(period),
        Clock::ToJustBeforeDue => now.max(just_before(wake_at)),
        Clock::ToDue => now.max(wake_at),
    }
}

/// What the whole timeline must look like, apart from what each transition promises.
fn told_in_order(job: &Job, events: &[Event]) {
    let seqs: Vec<u64> = events.iter().map(|event| event.seq.0).collect();
    assert_eq!(seqs, (1..=job.seq.0).collect::<Vec<u64>>(), "every event has the next number");
    assert!(events.is_sorted_by_key(|event| event.at), "time stands still or moves on");

    let (mut live, mut granted, mut tries, mut cancelled, mut over) = (false, 0, 0, false, 0);
    for event in events {
        let kind = &event.kind;
        assert!(over == 0 || matches!(kind, EventKind::LateReport { .. }), "after the end came {event:?}");
        match kind {
            EventKind::Assigned { .. } => {
                assert!(!live && !cancelled, "granted while another attempt is live, or after a cancel: {event:?}");
                (live, granted) = (true, granted + 1);
            }
            EventKind::Declined { .. }
            | EventKind::Blocked { .. }
            | EventKind::Scheduled { why: ScheduledFor::KeyUnavailable, .. } => {
                assert!(live, "no attempt to give back: {event:?}");
                live = false;
            }
            EventKind::Retried { .. } => {
                assert!(live && !cancelled, "no attempt that failed, or a cancel before: {event:?}");
                (live, tries) = (false, tries + 1);
            }
            EventKind::Failed { failure, .. } => {
                let waited = matches!(failure, Failure::Expired | Failure::DeployKeyMissing { .. });
                assert_eq!(live, !waited, "a job fails by its attempt or by its waiting: {event:?}");
                (over, tries) = (over + 1, tries + u32::from(live));
            }
            EventKind::Succeeded {} | EventKind::Canceled { .. } => over += 1,
            EventKind::CancelRequested { .. } => cancelled = true,
            EventKind::Started {} | EventKind::StepStarted { .. } | EventKind::StepFinished { .. } => {
                assert!(live, "something starts without an attempt: {event:?}");
            }
            EventKind::Submitted { .. }
            | EventKind::Scheduled { why: ScheduledFor::RunAt | ScheduledFor::Backoff, .. }
            | EventKind::Queued { .. }
            | EventKind::KeyTry { .. }
            | EventKind::CheckedOut { .. }
            | EventKind::Canceling { .. }
            | EventKind::WorkerLost { .. }
            | EventKind::LateReport { .. } => {}
        }
    }
    assert_eq!((over == 1, job.attempt.0, job.tries), (job.is_terminal(), granted, tries), "one end, and true counts");
}
