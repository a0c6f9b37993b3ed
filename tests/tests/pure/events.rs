//! Everything that is stored or sent of a job has a JSON form that reads back as the same thing.

use std::collections::BTreeSet;
use std::fmt::Debug;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use shared::id::{Actor, Instance, Seq};
use shared::job::{
    AttemptEnd, Canceled, Event, EventKind, Exit, Failure, KeyAnswer, Limit, Offer, OutcomeView, Progress,
    ScheduledFor, State, StateName, StopOrder,
};
use shared::log::LogSummary;
use shared::spec::Priority;
use shared::time::Period;
use shared::view::JobView;

use super::builders::{at, client, job_id, submitted, worker};
use super::situations;

#[test]
fn every_event_reads_back_as_it_was_written() {
    let mut names = BTreeSet::new();
    for kind in kinds() {
        names.insert(kind.name());
        let job = submitted(super::builders::plain(&json!({}))).job;
        let event = Event { job: job.id, seq: Seq(7), at: at(5), attempt: job.attempt, actor: client(), kind };
        let text = reads_back(&event);
        assert_eq!(text["kind"], event.kind.name());
        assert_eq!(text["at"], "2026-01-01T00:00:05.000000Z");
    }
    let contract = "submitted scheduled blocked queued assigned key_try checked_out started step_started step_finished \
                    cancel_requested canceling declined worker_lost late_report retried succeeded failed canceled";
    assert_eq!(names, contract.split_whitespace().collect(), "these are the contract's kinds");
}

#[test]
fn an_event_tells_a_failure_in_the_words_of_the_outcome() {
    let failure = Failure::StepFailed { step: 2, exit: Exit::Signal(9), message: None };
    let event = serde_json::to_value(EventKind::Failed { failure, stop: None, offer: None }).expect("JSON");
    assert_eq!(event, json!({"kind": "failed", "reason": "step_failed", "step": 2, "signal": 9}));
}

#[test]
fn every_state_reads_back_as_it_was_written() {
    for (_, job) in situations::ALL {
        let state: State = job().state;
        assert_eq!(reads_back(&state)["state"], state.name().as_str());
    }
    for failure in failures() {
        reads_back(&State::Failed { failure });
    }
    for name in StateName::ALL {
        assert_eq!(name.to_string().parse(), Ok(name));
        assert_eq!(reads_back(&name), name.as_str());
    }
    assert!("done".parse::<StateName>().is_err_and(|error| error.contains("scheduled, blocked, queued")));
}

#[test]
fn every_view_of_a_job_reads_back_as_it_was_written() {
    for (_, job) in situations::ALL {
        reads_back(&JobView::from(&job()));
    }
}

#[test]
fn an_outcome_says_what_the_contract_promises() {
    let view = |failure: &Failure| serde_json::to_value(OutcomeView::from(failure)).expect("JSON");
    let table = [
        (
            Failure::StepFailed { step: 1, exit: Exit::ExitCode(7), message: None },
            json!({"reason": "step_failed", "step": 1, "exit_code": 7}),
        ),
        (Failure::TimedOut { limit: Limit::Job }, json!({"reason": "timed_out", "limit": "timeout"})),
        (
            Failure::TimedOut { limit: Limit::Step(3) },
            json!({"reason": "timed_out", "step": 3, "limit": "steps[3].timeout"}),
        ),
        (Failure::Expired, json!({"reason": "expired", "limit": "queue_timeout"})),
        (Failure::WorkerLost { message: "m".into() }, json!({"reason": "worker_lost", "message": "m"})),
        (Failure::Internal { message: "m".into() }, json!({"reason": "internal", "message": "m"})),
        (
            Failure::CheckoutFailed { transient: true, message: "m".into() },
            json!({"reason": "checkout_failed", "message": "m"}),
        ),
        (Failure::DeployKeyMissing { message: "m".into() }, json!({"reason": "deploy_key_missing", "message": "m"})),
        (Failure::DeployKeyDenied { message: "m".into() }, json!({"reason": "deploy_key_denied", "message": "m"})),
    ];
    for (failure, outcome) in table {
        assert_eq!(view(&failure), outcome);
    }
    let canceled = Canceled { by: client(), at: at(5), why: Some("w".into()), confirmed: false };
    let outcome = json!({"by": "client:ann", "at": "2026-01-01T00:00:05.000000Z", "why": "w", "confirmed": false});
    assert_eq!(serde_json::to_value(OutcomeView::from(&canceled)).expect("JSON"), outcome);
}

/// Its JSON, after it was read back.
fn reads_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> Value {
    let text = serde_json::to_string(value).expect("it has a JSON form");
    match serde_json::from_str::<T>(&text) {
        Ok(read) => assert_eq!(read, *value, "{text}"),
        Err(error) => panic!("{text}: {error}"),
    }
    serde_json::from_str(&text).expect("JSON")
}

fn failures() -> Vec<Failure> {
    let message = || "m".to_owned();
    vec![
        Failure::StepFailed { step: 1, exit: Exit::ExitCode(7), message: Some(message()) },
        Failure::StepFailed { step: 1, exit: Exit::Signal(9), message: None },
        Failure::DeployKeyMissing { message: message() },
        Failure::DeployKeyDenied { message: message() },
        Failure::CheckoutFailed { transient: true, message: message() },
        Failure::TimedOut { limit: Limit::Job },
        Failure::TimedOut { limit: Limit::Step(1) },
        Failure::WorkerLost { message: message() },
        Failure::Expired,
        Failure::Internal { message: message() },
    ]
}

fn ends() -> Vec<AttemptEnd> {
    let failed = failures().into_iter().map(|failure| AttemptEnd::Failed { failure });
    [AttemptEnd::Succeeded, AttemptEnd::Stopped].into_iter().chain(failed).collect()
}

/// Every kind of event, with and without what may be left out.
pub fn kinds() -> Vec<EventKind> {
    let job = job_id();
    let instance = Instance(uuid::Uuid::from_u128(3));
    let attempt = shared::id::Attempt(1);
    let offer = Offer { job, attempt, tags: vec!["linux".to_owned()], priority: Priority::High, has_secrets: false };
    let stop = StopOrder { job, attempt, worker: worker(1), instance, grace: Period::from_secs(10) };
    let canceled = Canceled { by: Actor::Worker(worker(1)), at: at(4), why: None, confirmed: true };
    let commit: shared::id::CommitId = "0123456789".repeat(4).try_into().expect("a commit");
    let progress = Progress::CheckedOut { commit: commit.clone() };
    reads_back(&progress);
    let mut kinds = vec![
        EventKind::Submitted { retry_of: None },
        EventKind::Submitted { retry_of: Some(job) },
        EventKind::Scheduled { until: at(9), why: ScheduledFor::RunAt },
        EventKind::Scheduled { until: at(9), why: ScheduledFor::Backoff },
        EventKind::Blocked { key: "app".to_owned(), until: at(9) },
        EventKind::Queued { offer: offer.clone(), expires: at(9) },
        EventKind::Assigned { worker: worker(1), instance },
        EventKind::KeyTry {
            number: 1,
            answer: KeyAnswer::NotRegistered,
            why: None,
            next_in: Some(Period::from_secs(2)),
        },
        EventKind::KeyTry { number: 5, answer: KeyAnswer::NotRegistered, why: None, next_in: None },
        EventKind::CheckedOut { commit },
        EventKind::Started {},
        EventKind::StepStarted { step: 0, name: None },
        EventKind::StepFinished { step: 0, name: Some("test".to_owned()), exit: Exit::Signal(9) },
        EventKind::StepFinished { step: 0, name: None, exit: Exit::ExitCode(0) },
        EventKind::CancelRequested { why: Some("w".to_owned()), force: false, grace: Some(Period::ZERO) },
        EventKind::CancelRequested { why: None, force: true, grace: None },
        EventKind::Canceling { stop: stop.clone() },
        EventKind::Declined { why: "late".to_owned() },
        EventKind::WorkerLost { message: "m".to_owned(), stop: stop.clone() },
        EventKind::Succeeded {},
        EventKind::Canceled { canceled: canceled.clone(), offer: None },
        EventKind::Canceled { canceled, offer: Some(offer.clone()) },
    ];
    kinds.extend(ends().into_iter().map(|end| EventKind::LateReport { end, log: LogSummary::default() }));
    for failure in failures() {
        let (stop, offer) = (Some(stop.clone()), Some(offer.clone()));
        kinds.push(EventKind::Retried { failure: failure.clone(), delay: Period::ZERO, stop: None });
        kinds.push(EventKind::Retried { failure: failure.clone(), delay: Period::from_secs(1), stop: stop.clone() });
        kinds.push(EventKind::Failed { failure: failure.clone(), stop: None, offer: None });
        kinds.push(EventKind::Failed { failure, stop, offer });
    }
    kinds
}
