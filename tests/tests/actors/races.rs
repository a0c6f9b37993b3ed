//! Things that happen to one job at the same time.

use serde_json::json;
use shared::id::Attempt;
use shared::job::{AttemptEnd, Cancel, EventKind, StateName};
use shared::log::LogSummary;
use shared::spec::parse_single;
use shared::wire::{Answer, ReportKind};
use tests::played::{Hand, Played, Turn, client, one_step};

fn succeeded() -> ReportKind {
    ReportKind::End { end: AttemptEnd::Succeeded, log: LogSummary::default() }
}

fn cancel() -> Cancel {
    Cancel { by: client(), why: Some("raced".to_owned()), force: false, grace: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_races_of_complete_against_cancel_have_one_outcome_each() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let (mut completed, mut canceled) = (0, 0);
    for round in 0..200 {
        let id = played.submit(one_step()).await;
        let grant = hand.must_get(id).await;
        // Both are sent at once; which goes first alternates, so that either may win.
        let complete = hand.say(id, grant.attempt, succeeded());
        let stop = played.service.cancel(id, cancel());
        let (reported, answered) = if round % 2 == 0 {
            tokio::join!(complete, stop)
        } else {
            let (stop, complete) = tokio::join!(stop, complete);
            (complete, stop)
        };
        let answered = answered.expect("the cancel is answered");
        assert_eq!(reported, Answer::Taken, "the worker's word is taken in either case");

        let job = played.service.job(id).await.unwrap();
        let ends: Vec<StateName> = played.timeline(id).await.iter().filter_map(|e| terminal(&e.kind)).collect();
        assert_eq!(ends, [job.state.name()], "one terminal event, the same as in the row");
        if job.state.name() == StateName::Succeeded {
            completed += 1;
            assert!(answered.was_terminal && answered.state == StateName::Succeeded, "{answered:?}");
        } else {
            canceled += 1;
            assert_eq!(job.state.name(), StateName::Canceled);
            assert!(!answered.was_terminal && answered.state != StateName::Succeeded, "{answered:?}");
        }
    }
    println!("completed: {completed}, canceled: {canceled}");
    assert!(completed > 0 && canceled > 0, "both sides must win some of the races");
    played.coordinator.stop().await;
}

fn terminal(kind: &EventKind) -> Option<StateName> {
    match kind {
        EventKind::Succeeded {} => Some(StateName::Succeeded),
        EventKind::Failed { .. } => Some(StateName::Failed),
        EventKind::Canceled { .. } => Some(StateName::Canceled),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_races_a_claim_and_the_job_runs_or_never_starts() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let (mut ran, mut never) = (0, 0);
    for round in 0..100 {
        let id = played.submit(one_step()).await;
        let claim = hand.claim_attempt(id, Attempt(1));
        let stop = played.service.cancel(id, cancel());
        let claimed = if round % 2 == 0 { tokio::join!(claim, stop).0 } else { tokio::join!(stop, claim).1 };
        let kinds = played.kinds(id).await;
        if matches!(claimed, Answer::Granted(_)) || kinds.contains(&"assigned") {
            ran += 1;
            assert!(kinds.contains(&"canceling"), "{kinds:?}");
        } else {
            never += 1;
            assert_eq!(kinds, ["submitted", "queued", "cancel_requested", "canceled"]);
        }
    }
    println!("claimed first: {ran}, canceled first: {never}");
    assert!(ran > 0 && never > 0, "both sides must win some of the races");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_idempotency_key_at_once_makes_one_job() {
    let _turn = Turn::shared().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let submit = || {
        let submission = parse_single(&one_step(), Some("once".to_owned())).unwrap();
        let service = played.service.clone();
        async move { service.submit(&client(), vec![submission]).await.unwrap().remove(0) }
    };
    let accepted = futures_util::future::join_all((0..50).map(|_| submit())).await;
    let first = accepted[0].job.id;
    assert!(accepted.iter().all(|accepted| accepted.job.id == first));
    assert_eq!(accepted.iter().filter(|accepted| !accepted.existing).count(), 1);

    let other = parse_single(&json!({"steps": [{"run": "false"}]}), Some("once".to_owned())).unwrap();
    let refused = played.service.submit(&client(), vec![other]).await;
    assert_eq!(refused, Err(coordinator::service::Error::KeyReused(0)));
    played.coordinator.stop().await;
}
