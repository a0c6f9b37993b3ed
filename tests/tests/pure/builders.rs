//! What the pure tests are given: specifications, workers, times and commands in short words.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use shared::id::{Actor, Attempt, ClaimId, Instance, JobId, Shard, WorkerId};
use shared::job::{
    AttemptEnd, Cancel, Claim, Command, Exit, Failure, Job, KeyAnswer, Progress, Transition, WorkerMessage, WorkerWord,
    submit,
};
use shared::log::LogSummary;
use shared::spec::{JobSpec, parse_single};
use shared::time::{Period, Time};

/// The worker that gets every attempt unless a test says otherwise.
pub const HOLDER: u128 = 1;
/// Another worker, which holds nothing.
pub const OTHER: u128 = 2;

/// `secs` seconds after the moment at which the tests' jobs are submitted, 2026-01-01T00:00:00Z.
pub fn at(secs: u64) -> Time {
    Time::from_micros(1_767_225_600_000_000).plus(Period::from_secs(secs))
}

pub fn worker(number: u128) -> WorkerId {
    WorkerId(Uuid::from_u128(number))
}

/// The claim of that worker for that attempt: the same id whenever it is asked for.
pub fn claim_id(by: u128, attempt: Attempt) -> ClaimId {
    ClaimId(Uuid::from_u128(by << 32 | u128::from(attempt.0)))
}

/// A specification from JSON, which has to be right.
pub fn spec(body: &Value) -> JobSpec {
    match parse_single(body, None) {
        Ok(submission) => submission.spec,
        Err(errors) => panic!("{body} is refused: {errors:?}"),
    }
}

/// One step and nothing to prepare, with the fields of `more` beside it.
pub fn plain(more: &Value) -> JobSpec {
    spec(&merged(json!({"steps": [{"name": "test", "run": "make test"}]}), more))
}

/// A repository to check out before the step, with the fields of `more` beside it.
pub fn prepared(more: &Value) -> JobSpec {
    plain(&merged(json!({"repository": {"url": "/srv/app.git", "ref": "main", "deploy_key": "app"}}), more))
}

/// `base` with the fields of `more`, which win.
pub fn merged(mut base: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().expect("an object") {
        base[name] = value.clone();
    }
    base
}

pub fn client() -> Actor {
    Actor::Client("ann".to_owned())
}

/// The id of the tests' jobs.
pub fn job_id() -> JobId {
    JobId::mint(Shard::new(7).expect("a shard"), at(0), [5; 10])
}

/// The submission of a job at [`at`]`(0)`.
pub fn submitted(spec: JobSpec) -> Transition {
    submit(job_id(), Arc::new(spec), false, None, client(), at(0))
}

/// What `command` makes of `job`, which must accept it.
pub fn after(job: &Job, command: Command, now: Time) -> Job {
    match job.apply(command, now) {
        Ok(transition) => transition.job,
        Err(rejection) => panic!("refused in {:?}: {rejection}", job.state),
    }
}

/// The claim of the attempt that the job's next grant would get.
pub fn claim(job: &Job, by: u128, now: Time) -> Claim {
    claim_of(job.attempt.next(), by, now)
}

/// A claim of that attempt whose worker waits for ten seconds.
pub fn claim_of(attempt: Attempt, by: u128, now: Time) -> Claim {
    Claim {
        claim: claim_id(by, attempt),
        attempt,
        worker: worker(by),
        instance: Instance(Uuid::from_u128(by << 64)),
        has_recipient: true,
        expires: now.plus(Period::from_secs(10)),
    }
}

/// A word of the holder about the job's current attempt.
pub fn says(job: &Job, word: WorkerWord) -> Command {
    word_of(HOLDER, job.attempt, word)
}

/// A word of any worker about any attempt.
pub fn word_of(by: u128, attempt: Attempt, word: WorkerWord) -> Command {
    Command::Worker(WorkerMessage { worker: worker(by), attempt, word })
}

/// Report `number`: the first step was started.
pub fn step_started(number: u32) -> WorkerWord {
    WorkerWord::Progress { number, progress: Progress::StepStarted { step: 0 } }
}

/// Report `number`: the commit stands in the work tree.
pub fn checked_out(number: u32) -> WorkerWord {
    let commit = "a".repeat(40).try_into().expect("a commit");
    WorkerWord::Progress { number, progress: Progress::CheckedOut { commit } }
}

pub fn end(end: AttemptEnd) -> WorkerWord {
    WorkerWord::End { end, log: LogSummary::default() }
}

pub fn failed(failure: Failure) -> WorkerWord {
    end(AttemptEnd::Failed { failure })
}

/// The first step ended with that code.
pub fn exit(code: u8) -> Failure {
    Failure::StepFailed { step: 0, exit: Exit::ExitCode(code), message: None }
}

pub fn checkout_failed(transient: bool) -> Failure {
    Failure::CheckoutFailed { transient, message: "cloning".to_owned() }
}

/// The deploy key isn't there; wait ten minutes for it.
pub fn park() -> WorkerWord {
    WorkerWord::Park { key: "app".to_owned(), wait: Period::from_secs(600), log: LogSummary::default() }
}

/// Nobody could say whether the deploy key is there.
pub fn give_back() -> WorkerWord {
    WorkerWord::GiveBack { log: LogSummary::default() }
}

/// Report `number`: a try to fetch the deploy key came to `answer`.
pub fn key_try(number: u32, answer: KeyAnswer) -> WorkerWord {
    WorkerWord::Progress { number, progress: Progress::KeyTry { number, answer, why: None, next_in: None } }
}

pub fn decline() -> WorkerWord {
    WorkerWord::Decline { claim: None, why: "the grant came late".to_owned() }
}

/// A cancel by the client, with the specification's grace.
pub fn cancel() -> Cancel {
    Cancel { by: client(), why: Some("not wanted any more".to_owned()), force: false, grace: None }
}

pub fn cancel_with_grace(secs: u64) -> Cancel {
    Cancel { grace: Some(Period::from_secs(secs)), ..cancel() }
}

pub fn lost(attempt: Attempt) -> Command {
    Command::WorkerLost { attempt, message: "its lease ran out".to_owned() }
}
