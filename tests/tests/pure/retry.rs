//! Which failures are followed by another attempt, and how long the wait is.

use serde_json::{Value, json};

use shared::id::{JobId, Shard};
use shared::job::{Command, EventKind, Exit, Failure, Job, Limit};
use shared::time::Period;

use super::builders::{HOLDER, after, at, checkout_failed, claim, exit, failed, lost, plain, says, submitted};

#[test]
fn the_first_retry_after_a_lost_worker_comes_at_once() {
    let job = running(&json!({}), 0);
    assert_eq!(delay_after(&job, Failing::Lost), Some(Period::ZERO));
    assert_eq!(after(&job, lost(job.attempt), at(5)).state.name().as_str(), "queued");
}

#[test]
fn a_later_retry_after_a_lost_worker_waits_from_the_first_backoff_on() {
    for (tries, full) in [(1, 1_000), (2, 2_000), (3, 4_000)] {
        let job = running(&json!({"max_attempts": 100}), tries);
        assert_within_half(delay_after(&job, Failing::Lost), full);
    }
}

#[test]
fn the_wait_doubles_up_to_its_cap() {
    let retry = json!({"max_attempts": 100, "backoff": {"first": "1s", "max": "1m"}});
    let fulls = [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000, 60_000];
    for (tries, full) in (0..).zip(fulls) {
        assert_within_half(delay_after(&running(&retry, tries), Failing::As(checkout_failed(true))), full);
    }
    assert_within_half(delay_after(&running(&retry, 98), Failing::As(checkout_failed(true))), 60_000);
}

#[test]
fn a_cap_below_the_first_wait_holds_from_the_first_retry_on() {
    let job = running(&json!({"backoff": {"first": "1m", "max": "2s"}}), 0);
    assert_within_half(delay_after(&job, Failing::As(checkout_failed(true))), 2_000);
}

#[test]
fn the_wait_of_a_job_is_always_the_same_and_that_of_many_jobs_spread() {
    let wait = |number: u16| {
        let mut job = running(&json!({"backoff": {"first": "1000s", "max": "1h"}}), 0);
        let [high, low] = number.to_be_bytes();
        job.id = JobId::mint(Shard::new(7).expect("a shard"), at(0), [0, 0, 0, 0, 0, 0, 0, high, low, 0]);
        delay_after(&job, Failing::As(checkout_failed(true))).expect("a retry").millis()
    };
    let waits: Vec<u64> = (0..1000).map(wait).collect();
    assert_eq!(waits, (0..1000).map(wait).collect::<Vec<u64>>());
    assert!(waits.iter().all(|wait| (500_000..=1_000_000).contains(wait)), "from half of it to all of it");
    let in_tenths = |tenth: u64| waits.iter().filter(|wait| (**wait - 500_000) / 50_000 == tenth).count();
    let tenths: Vec<usize> = (0..10).map(in_tenths).collect();
    assert!(tenths.iter().all(|count| (50..=150).contains(count)), "unevenly spread: {tenths:?}");
}

#[test]
fn the_wait_of_a_job_differs_from_attempt_to_attempt() {
    let retry = json!({"max_attempts": 100, "backoff": {"first": "1h", "max": "1h"}});
    let mut job = running(&retry, 0);
    let first = delay_after(&job, Failing::As(checkout_failed(true)));
    job.attempt = job.attempt.next();
    assert_ne!(delay_after(&job, Failing::As(checkout_failed(true))), first);
}

#[test]
fn a_failure_is_retried_where_the_policy_names_it() {
    let signal = || Failure::StepFailed { step: 0, exit: Exit::Signal(9), message: None };
    let timed_out = |limit| Failure::TimedOut { limit };
    let message = String::new;
    // What failed, by which word of `on` it is retried; none where it never is.
    let table = [
        (Failure::WorkerLost { message: message() }, vec!["worker_lost"]),
        (checkout_failed(true), vec!["checkout_failed"]),
        (checkout_failed(false), vec![]),
        (exit(1), vec!["step_failed", "exit:1"]),
        (exit(75), vec!["step_failed", "exit:75"]),
        (signal(), vec!["step_failed"]),
        (timed_out(Limit::Job), vec!["timed_out"]),
        (timed_out(Limit::Step(0)), vec!["timed_out"]),
        (Failure::DeployKeyMissing { message: message() }, vec![]),
        (Failure::DeployKeyDenied { message: message() }, vec![]),
        (Failure::Internal { message: message() }, vec![]),
        (Failure::Expired, vec![]),
    ];
    for (failure, words) in table {
        for on in ["worker_lost", "checkout_failed", "step_failed", "timed_out", "exit:1", "exit:75", "exit:9"] {
            let job = running(&json!({"on": [on]}), 0);
            let retried = delay_after(&job, Failing::As(failure.clone())).is_some();
            assert_eq!(retried, words.contains(&on), "{failure:?} with {on}");
        }
        let never = running(&json!({"on": []}), 0);
        assert_eq!(delay_after(&never, Failing::As(failure)), None);
    }
}

#[test]
fn without_a_policy_a_lost_worker_and_a_transient_checkout_are_retried_twice() {
    for (tries, retried) in [(0, true), (1, true), (2, false)] {
        let job = running(&json!({}), tries);
        assert_eq!(delay_after(&job, Failing::Lost).is_some(), retried, "after {tries} tries");
        assert_eq!(delay_after(&job, Failing::As(checkout_failed(true))).is_some(), retried, "after {tries} tries");
        assert_eq!(delay_after(&job, Failing::As(exit(1))), None);
    }
}

#[test]
fn the_first_run_counts_among_the_attempts() {
    for (attempts, tries, retried) in [(1, 0, false), (2, 0, true), (2, 1, false), (100, 98, true), (100, 99, false)] {
        let job = running(&json!({"max_attempts": attempts}), tries);
        assert_eq!(delay_after(&job, Failing::Lost).is_some(), retried, "try {} of {attempts}", tries + 1);
    }
}

#[test]
fn a_job_that_runs_out_of_time_is_retried_by_the_coordinator_too() {
    let job = running(&json!({"on": ["timed_out"]}), 0);
    let deadline = job.state.wake_at().expect("a deadline");
    assert_eq!(after(&job, Command::Wake, deadline).state.name().as_str(), "scheduled");
}

/// How an attempt fails.
enum Failing {
    Lost,
    As(Failure),
}

/// A running job with that policy, after `tries` attempts that failed.
fn running(retry: &Value, tries: u32) -> Job {
    let job = submitted(plain(&json!({"retry": retry}))).job;
    let job = after(&job, Command::Claim(claim(&job, HOLDER, at(1))), at(1));
    Job { tries, ..job }
}

/// The wait before the next attempt; none where the job ends.
fn delay_after(job: &Job, failing: Failing) -> Option<Period> {
    let command = match failing {
        Failing::Lost => lost(job.attempt),
        Failing::As(failure) => says(job, failed(failure)),
    };
    let events = job.apply(command, at(5)).expect("the holder is heard").events;
    events.into_iter().find_map(|event| match event.kind {
        EventKind::Retried { delay, .. } => Some(delay),
        _ => None,
    })
}

fn assert_within_half(delay: Option<Period>, full: u64) {
    let delay = delay.expect("a retry").millis();
    assert!((full / 2..=full).contains(&delay), "{delay} ms isn't within {} and {full}", full / 2);
}
