//! A job in each situation that the table speaks of: every state, and where one state behaves in two ways, both.

use serde_json::json;

use shared::job::{AttemptEnd, Command, Job};
use shared::time::Time;

use super::builders::{
    HOLDER, after, at, cancel, checked_out, checkout_failed, claim, end, exit, failed, give_back, lost, park, plain,
    prepared, says, step_started, submitted,
};

/// Makes a job.
type Build = fn() -> Job;

/// Every situation with its name in the table.
pub const ALL: [(&str, Build); 26] = [
    ("scheduled", scheduled),
    ("backoff", backoff),
    ("blocked", blocked),
    ("given_back", given_back),
    ("given_back_last", given_back_for_the_last_time),
    ("queued", queued),
    ("queued_plain", queued_plain),
    ("requeued", requeued),
    ("assigned", assigned),
    ("assigned_given_back", assigned_after_it_was_given_back),
    ("assigned_reported", assigned_and_reported),
    ("running", running),
    ("running_reported", running_and_reported),
    ("running_last", running_for_the_last_time),
    ("running_forgiven", running_with_every_retry),
    ("canceling", canceling),
    ("canceling_reported", canceling_and_reported),
    ("succeeded", succeeded),
    ("failed", step_failed),
    ("failed_untold", worker_lost_for_good),
    ("expired", expired),
    ("key_missing", key_missing),
    ("canceled", canceled_by_the_worker),
    ("canceled_untold", canceled_unconfirmed),
    ("canceled_unclaimed", canceled_before_its_claim),
    ("canceled_requeued", canceled_while_waiting_for_a_retry),
];

/// The moment at which a situation has come about; nothing is due before `at(60)`.
pub fn now() -> Time {
    at(10)
}

/// Waits for its `run_at`.
fn scheduled() -> Job {
    submitted(prepared(&json!({"run_at": at(100).to_string()}))).job
}

/// Waits for the retry of a checkout that failed for a while.
fn backoff() -> Job {
    let backoff = json!({"retry": {"backoff": {"first": "10m", "max": "1h"}}});
    let job = grant(&submitted(prepared(&backoff)).job);
    after(&job, says(&job, failed(checkout_failed(true))), at(2))
}

/// Its first attempt was parked until a deploy key comes.
fn blocked() -> Job {
    let job = assigned();
    after(&job, says(&job, park()), at(2))
}

/// Nobody could say whether its deploy key is there, and it is offered again later.
fn given_back() -> Job {
    let job = grant(&submitted(prepared(&json!({"retry": {"backoff": {"first": "10m", "max": "1h"}}}))).job);
    after(&job, says(&job, give_back()), at(2))
}

/// The same, and when it could be offered again, it will have waited for as long as it may.
fn given_back_for_the_last_time() -> Job {
    let spec = json!({"queue_timeout": "2m", "retry": {"backoff": {"first": "10m", "max": "1h"}}});
    let job = grant(&submitted(prepared(&spec)).job);
    after(&job, says(&job, give_back()), at(2))
}

/// Given back, granted again, and by now it has waited for its key for as long as it may.
fn assigned_after_it_was_given_back() -> Job {
    let job = grant(&submitted(prepared(&json!({"queue_timeout": "5s"}))).job);
    let job = after(&job, says(&job, give_back()), at(2));
    let job = after(&job, Command::Wake, job.state.wake_at().expect("a scheduled job has a timer"));
    after(&job, Command::Claim(claim(&job, HOLDER, at(4))), at(4))
}

fn queued() -> Job {
    submitted(prepared(&json!({}))).job
}

/// Queued, with nothing to prepare.
fn queued_plain() -> Job {
    submitted(plain(&json!({}))).job
}

/// Queued again at once, after its first worker was lost.
fn requeued() -> Job {
    let job = assigned();
    after(&job, lost(job.attempt), at(2))
}

fn assigned() -> Job {
    grant(&queued())
}

/// Its commit is checked out, no step was started.
fn assigned_and_reported() -> Job {
    let job = assigned();
    after(&job, says(&job, checked_out(1)), at(2))
}

/// Granted with nothing to prepare; no report has come.
fn running() -> Job {
    grant(&queued_plain())
}

/// Its one attempt runs.
fn running_for_the_last_time() -> Job {
    grant(&submitted(plain(&json!({"retry": {"max_attempts": 1}}))).job)
}

/// Runs, and whatever fails is tried again.
fn running_with_every_retry() -> Job {
    let on = ["worker_lost", "checkout_failed", "step_failed", "timed_out"];
    grant(&submitted(plain(&json!({"retry": {"on": on}}))).job)
}

/// Its first step runs.
fn running_and_reported() -> Job {
    let job = assigned();
    after(&job, says(&job, step_started(1)), at(2))
}

/// Cancelled before its worker has reported anything; the grace ends at `at(13)`.
fn canceling() -> Job {
    after(&running(), Command::Cancel(cancel()), at(3))
}

/// Cancelled while its first step ran; the grace ends at `at(13)`.
fn canceling_and_reported() -> Job {
    after(&running_and_reported(), Command::Cancel(cancel()), at(3))
}

fn succeeded() -> Job {
    let job = running_and_reported();
    after(&job, says(&job, end(AttemptEnd::Succeeded)), at(3))
}

fn step_failed() -> Job {
    let job = running_and_reported();
    after(&job, says(&job, failed(exit(1))), at(3))
}

/// Its last attempt's worker was lost and has told nothing.
fn worker_lost_for_good() -> Job {
    let job = running_for_the_last_time();
    after(&job, lost(job.attempt), at(3))
}

/// Queued for too long, never claimed.
fn expired() -> Job {
    let job = submitted(plain(&json!({"queue_timeout": "5s"}))).job;
    after(&job, Command::Wake, at(5))
}

/// Parked until a key came that never did.
fn key_missing() -> Job {
    let job = blocked();
    let until = job.state.wake_at().expect("a blocked job has a timer");
    after(&job, Command::Wake, until)
}

/// Cancelled while it ran; the worker has said that nothing of it is left.
fn canceled_by_the_worker() -> Job {
    let job = canceling();
    after(&job, says(&job, end(AttemptEnd::Stopped)), at(4))
}

/// Cancelled while it ran; the worker was lost meanwhile.
fn canceled_unconfirmed() -> Job {
    let job = canceling();
    after(&job, lost(job.attempt), at(4))
}

fn canceled_before_its_claim() -> Job {
    after(&queued(), Command::Cancel(cancel()), at(3))
}

/// Cancelled between two attempts, the first of which may still run.
fn canceled_while_waiting_for_a_retry() -> Job {
    after(&requeued(), Command::Cancel(cancel()), at(3))
}

fn grant(job: &Job) -> Job {
    after(job, Command::Claim(claim(job, HOLDER, at(1))), at(1))
}
