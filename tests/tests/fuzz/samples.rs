//! Valid inputs: real values of every kind, as their own encoders write them.

use serde::Serialize;
use serde_json::{Value, json};
use shared::id::{Actor, Attempt, ClaimId, CommitId, Epoch, Fence, Instance, JobId, RequestId, Seq, Shard, WorkerId};
use shared::job::{
    AttemptEnd, Canceled, Event, EventKind, Exit, Failure, KeyAnswer, Limit, Offer, Progress, ScheduledFor, StopOrder,
};
use shared::log::{Chunk, LogSummary, Segment, Stream};
use shared::seal::OneTimeKey;
use shared::spec::{JobSpec, Priority, parse_single};
use shared::time::{Period, Time};
use shared::wire::{Grant, Report, ReportKind, Word};
use uuid::Uuid;

/// The shard of every job here.
pub const SHARD: u16 = 77;

pub fn shard() -> Shard {
    Shard::new(SHARD).expect("a shard")
}

pub fn job() -> JobId {
    JobId::mint(shard(), at(0), [7; 10])
}

pub fn worker() -> WorkerId {
    WorkerId(Uuid::from_u128(1))
}

pub fn instance() -> Instance {
    Instance(Uuid::from_u128(2))
}

pub fn request() -> RequestId {
    RequestId(Uuid::from_u128(3))
}

pub fn at(second: i64) -> Time {
    Time::from_micros(1_767_225_600_000_000 + second * 1_000_000)
}

pub fn recipient() -> String {
    OneTimeKey::generate().recipient()
}

pub fn json_of(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("it has a JSON form")
}

/// Each as its JSON.
pub fn all<T: Serialize>(values: &[T]) -> Vec<Vec<u8>> {
    values.iter().map(json_of).collect()
}

/// Submissions, from the least to everything that one can say.
pub fn submissions() -> Vec<Value> {
    let full = json!({
        "repository": {"url": "ssh://git@git.example.org/app.git", "ref": "main", "history": "full", "submodules": true,
            "deploy_key": {"name": "app", "on_missing": "fail", "wait": "10m", "in_steps": true,
                "retry": {"tries": 5, "backoff": "fibonacci", "first": "1s", "max": "30s", "deadline": "2m"}}},
        "steps": [{"name": "build", "run": "make\n", "timeout": "10m"}, {"exec": ["make", "test", ""]}],
        "tags": ["linux", "x86_64"], "priority": "urgent", "env": {"A": "1", "B_C": ""}, "secrets": {"TOKEN": "hunter2"},
        "timeout": "1h30m", "grace": "0s", "queue_timeout": "1d", "run_at": "2026-12-01T08:00:00.5+01:00",
        "retry": {"max_attempts": 3, "on": ["worker_lost", "exit:75"], "backoff": {"first": "1s", "max": "60s"}},
        "on_lost_contact": "stop", "labels": {"team": "core", "é": "\u{1f600}"},
    });
    let path = json!({"repository": {"url": "/srv/app.git"}, "steps": [{"run": "true"}]});
    let keyed = json!({"steps": [{"run": "true"}], "idempotency_key": "once"});
    let batch = json!({"jobs": [full, keyed, path]});
    vec![json!({"steps": [{"run": "true"}]}), path, full, batch]
}

/// Specifications as the store and a grant hold them.
pub fn specs() -> Vec<JobSpec> {
    let single = submissions().into_iter().filter(|body| body.get("jobs").is_none());
    single.map(|body| parse_single(&body, None).expect("it is right").spec).collect()
}

pub fn failures() -> Vec<Failure> {
    let message = "it went wrong".to_owned();
    vec![
        Failure::StepFailed { step: 1, exit: Exit::ExitCode(7), message: Some(message.clone()) },
        Failure::StepFailed { step: 0, exit: Exit::Signal(9), message: None },
        Failure::DeployKeyMissing { message: message.clone() },
        Failure::DeployKeyDenied { message: message.clone() },
        Failure::CheckoutFailed { transient: true, message: message.clone() },
        Failure::TimedOut { limit: Limit::Job },
        Failure::TimedOut { limit: Limit::Step(3) },
        Failure::WorkerLost { message: message.clone() },
        Failure::Expired,
        Failure::Internal { message },
    ]
}

pub fn ends() -> Vec<AttemptEnd> {
    let failed = failures().into_iter().map(|failure| AttemptEnd::Failed { failure });
    [AttemptEnd::Succeeded, AttemptEnd::Stopped].into_iter().chain(failed).collect()
}

pub fn commit() -> CommitId {
    CommitId::try_from("a".repeat(40)).expect("a commit")
}

pub fn progress() -> Vec<Progress> {
    let (why, next_in) = (Some("nobody knows".to_owned()), Some(Period::from_millis(1250)));
    vec![
        Progress::KeyTry { number: 1, answer: KeyAnswer::Unavailable, why, next_in },
        Progress::CheckedOut { commit: commit() },
        Progress::StepStarted { step: 0 },
        Progress::StepFinished { step: 0, exit: Exit::ExitCode(0) },
    ]
}

/// A report of every kind.
pub fn reports() -> Vec<Report> {
    let log = LogSummary::default;
    let claim = ClaimId(Uuid::from_u128(4));
    let mut kinds = vec![
        ReportKind::Claim { claim, wait: Period::from_secs(5), recipient: Some(recipient()) },
        ReportKind::Claim { claim, wait: Period::from_secs(5), recipient: None },
        ReportKind::Decline { claim: Some(claim), why: "too late".to_owned() },
        ReportKind::Park { key: "app".to_owned(), wait: Period::from_secs(600), log: log() },
        ReportKind::GiveBack { log: log() },
    ];
    kinds.extend((1..).zip(progress()).map(|(number, progress)| ReportKind::Progress { number, progress }));
    kinds.extend(ends().into_iter().map(|end| ReportKind::End { end, log: log() }));
    kinds.into_iter().map(|what| Report { job: job(), attempt: Attempt(1), what }).collect()
}

pub fn stop() -> StopOrder {
    let grace = Period::from_secs(10);
    StopOrder { job: job(), attempt: Attempt(1), worker: worker(), instance: instance(), grace }
}

pub fn offer() -> Offer {
    let tags = vec!["linux".to_owned(), "x86_64".to_owned()];
    Offer { job: job(), attempt: Attempt(1), tags, priority: Priority::High, has_secrets: true }
}

/// An event of every kind.
pub fn events() -> Vec<Event> {
    let why = || Some("not wanted".to_owned());
    let by = Actor::Client("ci".to_owned());
    let canceled = Canceled { by: by.clone(), at: at(5), why: why(), confirmed: false };
    let (failure, end) = (failures().remove(0), ends().pop().expect("an end"));
    let name = Some("build".to_owned());
    let next_in = Some(Period::from_secs(2));
    let kinds = vec![
        EventKind::Submitted { retry_of: Some(job()) },
        EventKind::Scheduled { until: at(9), why: ScheduledFor::Backoff },
        EventKind::Blocked { key: "app".to_owned(), until: at(9) },
        EventKind::Queued { offer: offer(), expires: at(9) },
        EventKind::Assigned { worker: worker(), instance: instance() },
        EventKind::KeyTry { number: 1, answer: KeyAnswer::NotRegistered, why: why(), next_in },
        EventKind::CheckedOut { commit: commit() },
        EventKind::Started {},
        EventKind::StepStarted { step: 0, name: name.clone() },
        EventKind::StepFinished { step: 0, name, exit: Exit::Signal(15) },
        EventKind::CancelRequested { why: why(), force: true, grace: Some(Period::ZERO) },
        EventKind::Canceling { stop: stop() },
        EventKind::Declined { why: "too late".to_owned() },
        EventKind::WorkerLost { message: "its lease ran out".to_owned(), stop: stop() },
        EventKind::LateReport { end, log: LogSummary::default() },
        EventKind::Retried { failure: failure.clone(), delay: Period::from_secs(1), stop: Some(stop()) },
        EventKind::Succeeded {},
        EventKind::Failed { failure, stop: Some(stop()), offer: Some(offer()) },
        EventKind::Canceled { canceled, offer: Some(offer()) },
    ];
    let actors = [by, Actor::Coordinator, Actor::Worker(worker())];
    let event = |(kind, seq, actor): (EventKind, u64, &Actor)| Event {
        job: job(),
        seq: Seq(seq),
        at: at(1),
        attempt: Attempt(1),
        actor: actor.clone(),
        kind,
    };
    let numbered = kinds.into_iter().zip(1..).zip(actors.iter().cycle());
    numbered.map(|((kind, seq), actor)| event((kind, seq, actor))).collect()
}

pub fn chunk() -> Chunk {
    let segment = |step, stream, text: &str| Segment { at: at(1), step, stream, text: text.to_owned() };
    let segments = vec![
        segment(Some(0), Stream::Stdout, "one\ntwo\n"),
        segment(None, Stream::Windlass, "checked out\n"),
        segment(Some(1), Stream::Stderr, "half a line \u{fffd}\u{1b}[0m"),
    ];
    Chunk { job: job(), attempt: Attempt(1), number: 1, first_line: 1, segments }
}

pub fn grants() -> Vec<Grant> {
    let grant = |spec| Grant {
        job: job(),
        attempt: Attempt(1),
        fence: Fence(9),
        spec,
        commit: Some(commit()),
        secrets: Some(super::secrets::sealed().0),
    };
    specs().into_iter().map(grant).collect()
}

pub fn word<T>(said: T) -> Word<T> {
    Word { shard: shard(), epoch: Epoch(3), owner: None, said }
}
