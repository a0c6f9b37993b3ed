//! What happens when a part dies over its work, or an answer is lost.
//!
//! The fault points are the process's own, so each of these tests runs alone.

use std::time::Duration;

use coordinator::fault::{self, Fault};
use coordinator::service::Error;
use shared::bus::{Address, Bus};
use shared::job::{Cancel, StateName};
use shared::spec::parse_single;
use shared::wire::{self, Answer, Heartbeat};
use sqlx::{Connection, SqliteConnection};
use tests::played::{DEADLINE, Hand, Played, Turn, client, one_step};

fn cancel() -> Cancel {
    Cancel { by: client(), why: None, force: false, grace: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_panics_is_started_afresh_and_its_caller_gets_an_error() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let id = played.submit(one_step()).await;
    let other = played.submit(one_step()).await;

    fault::arm("supervisor.take", 1);
    let dead = tokio::time::timeout(DEADLINE, played.service.cancel(id, cancel())).await.expect("no silence");
    assert_eq!(dead, Err(Error::Internal));
    assert_eq!(played.service.job(id).await.unwrap().state.name(), StateName::Queued, "nothing was half done");

    let again = played.service.cancel(id, cancel()).await.expect("the job goes on");
    assert_eq!(again.state, StateName::Canceled);
    assert_eq!(played.kinds(id).await, ["submitted", "queued", "cancel_requested", "canceled"]);
    assert!(played.service.cancel(other, cancel()).await.is_ok(), "others on the arbiter live on");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_dies_with_a_live_attempt_takes_its_end() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;
    let grant = hand.must_get(id).await;

    fault::arm("supervisor.take", 1);
    assert_eq!(hand.say(id, grant.attempt, crate::jobs::succeeded()).await, Answer::TryAgain);
    assert!(hand.beat(id, grant.attempt).await.stop.is_empty(), "its lease goes on");
    assert_eq!(hand.say(id, grant.attempt, crate::jobs::succeeded()).await, Answer::Taken);
    assert_eq!(played.service.job(id).await.unwrap().state.name(), StateName::Succeeded);
    assert_eq!(hand.beat(id, grant.attempt).await.stop.len(), 1, "its lease is over");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_told_as_unknown_and_found_done() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let id = played.submit(one_step()).await;

    fault::arm("committer.committed", 1);
    let lost = played.service.cancel(id, cancel()).await;
    assert!(matches!(lost, Err(Error::Unavailable { .. })), "{lost:?}");
    let again = played.service.cancel(id, cancel()).await.expect("a repeat is answered");
    assert!(again.was_terminal, "the first one was done: {again:?}");
    assert_eq!(played.kinds(id).await, ["submitted", "queued", "cancel_requested", "canceled"]);
    played.submit(one_step()).await;
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_events_of_a_commit_whose_answer_is_lost_are_published() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let id = played.submit(one_step()).await;
    let mut events = played.bus.events().await.unwrap();

    fault::arm("committer.committed", 1);
    played.service.cancel(id, cancel()).await.expect_err("the answer is lost");
    loop {
        let event = tokio::time::timeout(DEADLINE, events.recv()).await.expect("it is published").unwrap();
        if event.subject == id && event.data.kind == "canceled" {
            break;
        }
    }
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_whose_answer_is_lost_has_a_lease() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;

    fault::arm("committer.committed", 1);
    assert_eq!(hand.claim(id).await, Answer::TryAgain);
    // This one is committed once the recovery is over. The worker died before it asked again, and is started anew.
    played.submit(one_step()).await;
    let reborn = hand.reborn(&played);
    reborn.hello().await;
    let job = played.until(id, "the attempt that nobody runs has ended", |job| job.tries == 1).await;
    assert_eq!(job.attempt.0, 1);
    let grant = reborn.must_get(id).await;
    assert_eq!(reborn.say(id, grant.attempt, crate::jobs::succeeded()).await, Answer::Taken);
    assert_eq!(reborn.beat(id, grant.attempt).await.stop.len(), 1, "the last lease is over");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timer_whose_commit_lost_its_answer_rings_in_time() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let spec = serde_json::json!({"steps": [{"run": "true"}], "queue_timeout": "500ms"});
    let submission = parse_single(&spec, Some("once".to_owned())).unwrap();

    fault::arm("committer.committed", 1);
    played.service.submit(&client(), vec![submission.clone()]).await.expect_err("the answer is lost");
    let accepted = played.service.submit(&client(), vec![submission]).await.unwrap().remove(0);
    assert!(accepted.existing);
    let expired = played.until(accepted.job.id, "the queued job expires", shared::job::Job::is_terminal);
    // Well before the timekeeper's next ordinary look at the store.
    tokio::time::timeout(Duration::from_secs(10), expired).await.expect("it rings in time");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_for_a_recovery_that_fails_is_told() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let (lost, waits) = (played.submit(one_step()).await, played.submit(one_step()).await);

    fault::arm_with("shards.recover", Fault::Lose, u32::MAX);
    fault::arm("committer.committed", 1);
    played.service.cancel(lost, cancel()).await.expect_err("the answer is lost");
    let told = tokio::time::timeout(DEADLINE, played.service.cancel(waits, cancel())).await.expect("no silence");
    assert!(matches!(told, Err(Error::Unavailable { .. })), "{told:?}");
    assert!(played.service.ready().await.is_err(), "it takes no jobs, and says so");

    fault::arm("shards.recover", 0);
    let job = played.until(lost, "the lost cancel was done", shared::job::Job::is_terminal).await;
    assert_eq!(job.state.name(), StateName::Canceled);
    while played.service.cancel(waits, cancel()).await.is_err() {}
    played.service.ready().await.expect("it takes jobs again");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_whose_lease_has_lapsed_says_nothing_and_takes_nothing_until_it_runs_again() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    let id = played.submit(one_step()).await;
    let grant = hand.must_get(id).await;

    fault::arm_with("shards.lease", Fault::Lose, u32::MAX);
    let lapsed = async {
        while played.service.holdings().is_alive() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, lapsed).await.expect("the lease lapses");
    assert!(played.service.ready().await.is_err());
    assert_eq!(played.service.cancel(id, cancel()).await, Err(Error::Elsewhere));
    let to = Address::Heartbeat(id.shard(), hand.id);
    let beat = Heartbeat { worker: hand.id, instance: hand.instance, attempts: vec![(id, grant.attempt)] };
    let beat = hand.key.prove(&to, &wire::encode(&beat));
    assert!(played.bus.request(&to, beat, Duration::from_secs(2)).await.is_err(), "not even a refusal");

    fault::arm("shards.lease", 0);
    let runs = async {
        while !played.service.holdings().is_alive() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, runs).await.expect("the lease runs again");
    assert!(hand.beat(id, grant.attempt).await.stop.is_empty(), "its lease wasn't lost");
    assert_eq!(hand.say(id, grant.attempt, crate::jobs::succeeded()).await, Answer::Taken);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_without_one_of_its_actors_is_not_ready() {
    let _turn = Turn::alone().await;
    for actor in ["committer.hear", "publisher.hear", "timekeeper.hear", "registry.hear"] {
        let dir = tempfile::tempdir().unwrap();
        let played = Played::start(&dir.path().join("db")).await;
        let id = played.submit(one_step()).await;
        played.service.ready().await.expect("all of them live");
        fault::arm(actor, 1);
        // These two reach all of them.
        let (by, submission) = (client(), parse_single(&one_step(), None).unwrap());
        let submitted = played.service.submit(&by, vec![submission]);
        let _ = tokio::time::timeout(DEADLINE, submitted).await.expect("no silence");
        let _ = tokio::time::timeout(DEADLINE, played.service.cancel(id, cancel())).await.expect("no silence");
        // The caller learns of the death a moment before the address is closed.
        let told = async { while played.service.ready().await.is_ok() {} };
        tokio::time::timeout(DEADLINE, told).await.unwrap_or_else(|_| panic!("{actor} died and it is still ready"));
        let ready = played.service.ready().await;
        assert!(matches!(ready, Err(Error::Unavailable { .. })), "{actor}: {ready:?}");
        played.coordinator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_fails_between_commit_and_publication_publishes_from_the_store() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let mut events = played.bus.events().await.unwrap();

    fault::arm("publisher.publish", 1);
    let id = played.submit(one_step()).await;
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let event = tokio::time::timeout(DEADLINE, events.recv()).await.expect("it is published").unwrap();
        assert_eq!(event.subject, id);
        kinds.push(event.data.kind);
    }
    assert_eq!(kinds, ["submitted", "queued"]);
    let hand = Hand::arrive(&played).await;
    hand.must_get(id).await;
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_that_starts_again_offers_what_was_queued_and_ends_what_its_worker_left() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let played = Played::start(&path).await;
    let hand = Hand::arrive(&played).await;
    let running = played.submit(one_step()).await;
    hand.must_get(running).await;
    let queued = played.submit(one_step()).await;
    played.coordinator.stop().await;

    let played = Played::start(&path).await;
    let reborn = hand.reborn(&played);
    reborn.must_get(queued).await;
    reborn.hello().await;
    let job = played.until(running, "the lost attempt is queued again", |job| job.tries == 1).await;
    assert_eq!(job.state.name(), StateName::Queued, "the first retry after a lost worker comes at once");
    assert_eq!(reborn.must_get(running).await.attempt.0, 2);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_was_queued_by_a_clock_that_was_ahead_is_offered_again_at_once() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let played = Played::start(&path).await;
    let queued = played.submit(one_step()).await;
    played.coordinator.stop().await;
    let mut session = SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.unwrap();
    let moved =
        sqlx::query("UPDATE jobs SET queued_at = queued_at + 3600 * 1000000").execute(&mut session).await.unwrap();
    assert_eq!(moved.rows_affected(), 1);
    session.close().await.unwrap();

    let played = Played::start(&path).await;
    Hand::arrive(&played).await.must_get(queued).await;
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_leaves_nothing_unpublished_and_refuses_what_comes_late() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let id = played.submit(one_step()).await;
    let service = played.service.clone();
    tokio::time::timeout(Duration::from_secs(30), played.coordinator.stop()).await.expect("it stops");
    let late = service.cancel(id, cancel()).await;
    assert!(matches!(late, Err(Error::Unavailable { .. })), "{late:?}");
}
