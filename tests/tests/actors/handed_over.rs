//! What becomes of a job whose supervisor has handed something over and is gone before that is committed.
//!
//! The fault points are the process's own, so each of these tests runs alone.

use std::time::Duration;

use coordinator::fault::{self, Fault};
use coordinator::service::Error;
use shared::id::Attempt;
use shared::job::{Cancel, Rejection, StateName};
use shared::spec::parse_single;
use shared::wire::{Answer, ReportKind};
use tests::played::{DEADLINE, Hand, Played, Turn, client, one_step};
use tests::wait;
use tokio::time::timeout;

/// How long something is watched not to happen.
const A_WHILE: Duration = Duration::from_millis(1500);

fn cancel() -> Cancel {
    Cancel { by: client(), why: None, force: false, grace: None }
}

fn decline() -> ReportKind {
    ReportKind::Decline { claim: None, why: "not wanted".to_owned() }
}

/// Whatever comes to the point waits there from now on.
fn hold(point: &'static str) {
    fault::arm_with(point, Fault::Hold, u32::MAX);
}

/// It goes on.
fn let_on(point: &'static str) {
    fault::arm(point, 0);
}

async fn until_passed(point: &str) {
    wait::until(DEADLINE, point, || (fault::passes(point) > 0).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_supervisor_that_died_answers_by_what_that_one_has_handed_over() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;

    hold("committer.commit");
    fault::arm("committer.handed", 1);
    assert_eq!(hand.claim(id).await, Answer::TryAgain, "the supervisor has died over it");
    until_passed("committer.commit").await;
    assert_eq!(played.service.job(id).await.unwrap().state.name(), StateName::Queued, "its claim is on its way");

    // By the row from before the claim it would be refused: nobody holds the attempt.
    let mut declined = Box::pin(hand.say(id, Attempt(1), decline()));
    let early = timeout(A_WHILE, &mut declined).await;
    assert!(early.is_err(), "it was answered by what isn't so any more: {early:?}");
    let_on("committer.commit");
    assert_eq!(timeout(DEADLINE, declined).await.expect("no silence"), Answer::Taken);
    let kinds = played.kinds(id).await;
    assert_eq!(kinds, ["submitted", "queued", "assigned", "started", "declined", "queued"]);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_supervisor_died_before_its_grant_was_committed_has_a_lease() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;

    fault::arm("committer.handed", 1);
    assert_eq!(hand.claim(id).await, Answer::TryAgain);
    // The worker died before it asked again, and nobody else says anything to the job.
    played.until(id, "the grant is committed", |job| job.attempt == Attempt(1)).await;
    let reborn = hand.reborn(&played);
    reborn.hello().await;
    let job = played.until(id, "the attempt that nobody runs has ended", |job| job.tries == 1).await;
    assert_eq!(job.attempt, Attempt(1));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_behind_a_commit_whose_answer_is_lost_is_not_done_and_told_so() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let (lost, id) = (played.submit(one_step()).await, played.submit(one_step()).await);
    let grant = hand.must_get(id).await;

    hold("committer.commit");
    let (service, other) = (played.service.clone(), played.service.clone());
    let first = tokio::spawn(async move { service.cancel(lost, cancel()).await });
    until_passed("committer.commit").await;
    fault::arm_with("committer.hear", Fault::Count, u32::MAX);
    let behind = tokio::spawn(async move { other.cancel(id, cancel()).await });
    until_passed("committer.hear").await;
    fault::arm("committer.committed", 1);
    let_on("committer.commit");
    assert!(matches!(first.await.unwrap(), Err(Error::Unavailable { .. })));
    assert!(matches!(behind.await.unwrap(), Err(Error::Unavailable { .. })));

    while played.service.ready().await.is_err() {}
    // Who holds the job now has read it without that.
    assert_eq!(hand.say(id, grant.attempt, crate::jobs::succeeded()).await, Answer::Taken);
    assert_eq!(played.service.job(id).await.unwrap().state.name(), StateName::Succeeded);
    assert!(!played.kinds(id).await.contains(&"cancel_requested"));
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_by_a_row_of_which_a_commit_has_lost_its_answer() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let (hand, other) = (Hand::arrive(&played).await, Hand::arrive(&played).await);
    let id = played.submit(one_step()).await;

    fault::arm_with("shards.recover", Fault::Lose, u32::MAX);
    fault::arm("committer.committed", 1);
    assert_eq!(hand.claim(id).await, Answer::TryAgain);
    let unsettled = timeout(DEADLINE, other.claim_attempt(id, Attempt(1))).await.expect("no silence");
    assert_eq!(unsettled, Answer::TryAgain, "the lost statement may still land");

    fault::arm("shards.recover", 0);
    played.until(id, "the grant was committed", |job| job.attempt == Attempt(1)).await;
    while played.service.ready().await.is_err() {}
    assert_eq!(other.claim_attempt(id, Attempt(1)).await, Answer::Refused { why: Rejection::NotQueued });
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_was_let_go_hands_nothing_over() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let first = Played::start(&dir.path().join("db")).await;
    let id = first.submit(one_step()).await;
    first.coordinator.stop().await;
    // It hasn't the job at hand, as the first one had.
    let played = Played::start(&dir.path().join("db")).await;

    hold("supervisor.read");
    let service = played.service.clone();
    let slow = tokio::spawn(async move { service.cancel(id, cancel()).await });
    until_passed("supervisor.read").await;
    // All shards are taken over anew, and another supervisor may hold the job from then on.
    fault::arm("committer.committed", 1);
    let submission = parse_single(&one_step(), None).unwrap();
    played.service.submit(&client(), vec![submission]).await.expect_err("the answer is lost");
    while played.service.ready().await.is_err() {}
    let_on("supervisor.read");
    assert_eq!(slow.await.unwrap(), Err(Error::Elsewhere));
    assert_eq!(played.kinds(id).await, ["submitted", "queued"]);
    played.service.cancel(id, cancel()).await.expect("whoever holds it now takes it");
    played.coordinator.stop().await;
}
