//! Jobs that are parked for want of a deploy key: no wake-up is lost, whichever of the ways to one fails.

use coordinator::fault::{Fault, arm_with};
use shared::bus::{Bus, Hint};
use shared::clock;
use shared::id::JobId;
use shared::job::{Cancel, State, StateName};
use shared::log::LogSummary;
use shared::time::{Period, Time};
use shared::wire::{Answer, ReportKind};
use tempfile::TempDir;
use tests::played::{DEADLINE, Hand, Played, Turn, client};
use tests::wait;

use crate::keys::{needs, register, store};

/// Everything at a point of the program gets lost, until this is dropped.
struct Lost(&'static str);

impl Lost {
    fn all(point: &'static str) -> Self {
        arm_with(point, Fault::Lose, u32::MAX);
        Self(point)
    }
}

impl Drop for Lost {
    fn drop(&mut self) {
        arm_with(self.0, Fault::Lose, 0);
    }
}

/// A coordinator in a fresh directory and a worker's hand, as long as what else is returned is kept.
async fn scene(turn: Turn) -> (Played, Hand, (TempDir, Turn)) {
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let hand = Hand::arrive(&played).await;
    (played, hand, (dir, turn))
}

/// Parks a job that waits for `app`, with that wait limit; returns its id, and until when it waits.
async fn parked(played: &Played, hand: &Hand, wait: Period) -> (JobId, Time) {
    let id = played.submit(needs("app")).await;
    park(hand, id, wait).await;
    let State::Blocked { until, .. } = played.service.job(id).await.unwrap().state else { panic!("it isn't parked") };
    (id, until)
}

async fn park(hand: &Hand, id: JobId, wait: Period) {
    let grant = hand.must_get(id).await;
    let park = ReportKind::Park { key: "app".to_owned(), wait, log: LogSummary::default() };
    assert_eq!(hand.say(id, grant.attempt, park).await, Answer::Taken);
}

async fn passes(time: Time) {
    wait::until(DEADLINE, "the wait limit passes", || (clock::now() > time).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_registered_between_the_last_try_and_the_parking_lets_the_job_go_on() {
    let (played, hand, _kept) = scene(Turn::alone().await).await;
    // Nobody else finds it.
    let _lost = Lost::all("key_watch.look");
    let id = played.submit(needs("app")).await;
    register(&played, "app").await;
    park(&hand, id, Period::from_secs(60)).await;
    let kinds = ["submitted", "queued", "assigned", "blocked", "queued"];
    assert_eq!(played.kinds(id).await, kinds, "when the parking is answered, it goes on already");
    let job = played.service.job(id).await.unwrap();
    assert_eq!((job.state.name(), job.tries), (StateName::Queued, 0), "no try is used up");
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_lets_every_parked_job_go_on_at_once() {
    let (played, hand, _kept) = scene(Turn::alone().await).await;
    let _unasked = Lost::all("key_watch.look_unasked");
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(parked(&played, &hand, Period::from_secs(600)).await.0);
    }
    register(&played, "app").await;
    for id in ids {
        played.until(id, "it goes on", |job| job.state.name() == StateName::Queued).await;
        assert_eq!(played.kinds(id).await, ["submitted", "queued", "assigned", "blocked", "queued"]);
    }
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hint_of_another_replica_lets_a_parked_job_go_on_at_once() {
    let (played, hand, _kept) = scene(Turn::alone().await).await;
    let _unasked = Lost::all("key_watch.look_unasked");
    let key = register(&played, "other").await;
    let (id, _) = parked(&played, &hand, Period::from_secs(600)).await;
    store(&played, &coordinator::store::DeployKey { name: "app".to_owned(), ..key }, None).await;
    played.bus.hint(Hint::Keys);
    played.until(id, "it goes on", |job| job.state.name() == StateName::Queued).await;
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_another_replica_registered_is_found_without_a_hint() {
    let (played, hand, _kept) = scene(Turn::shared().await).await;
    let key = register(&played, "other").await;
    let (id, _) = parked(&played, &hand, Period::from_secs(600)).await;
    store(&played, &coordinator::store::DeployKey { name: "app".to_owned(), ..key }, None).await;
    played.until(id, "it goes on", |job| job.state.name() == StateName::Queued).await;
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_job_goes_on_after_a_restart_when_its_key_came_meanwhile() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let played = Played::start(&path).await;
    let hand = Hand::arrive(&played).await;
    let (id, _) = parked(&played, &hand, Period::from_secs(600)).await;
    let lost = Lost::all("key_watch.look");
    register(&played, "app").await;
    played.coordinator.stop().await;
    drop(lost);
    let played = Played::start(&path).await;
    played.until(id, "it goes on", |job| job.state.name() == StateName::Queued).await;
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wait_limit_looks_once_more_before_it_fails_a_job() {
    let (played, hand, _kept) = scene(Turn::alone().await).await;
    let _lost = Lost::all("key_watch.look");
    let (id, until) = parked(&played, &hand, Period::from_millis(300)).await;
    register(&played, "app").await;
    passes(until).await;
    let job = played.until(id, "its wait is over", |job| job.state.name() != StateName::Blocked).await;
    assert_eq!(job.state.name(), StateName::Queued, "{:?}", job.state);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_key_never_comes_fails_as_missing_at_its_wait_limit() {
    let (played, hand, _kept) = scene(Turn::shared().await).await;
    let (id, until) = parked(&played, &hand, Period::from_millis(300)).await;
    let job = played.until(id, "it fails", shared::job::Job::is_terminal).await;
    assert_eq!(job.state.outcome().unwrap().reason.as_deref(), Some("deploy_key_missing"));
    assert!(job.finished_at.unwrap() >= until);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_fails_never_fails_the_job() {
    let (played, hand, _kept) = scene(Turn::alone().await).await;
    let _lost = Lost::all("supervisor.look_for_key");
    let (id, until) = parked(&played, &hand, Period::from_millis(300)).await;
    passes(until).await;
    // A heartbeat for an attempt that isn't known wakes the job, and waits for what it makes of that.
    hand.beat(id, shared::id::Attempt(1)).await;
    assert_eq!(
        played.service.job(id).await.unwrap().state.name(),
        StateName::Blocked,
        "nobody can say that it is missing"
    );
    register(&played, "app").await;
    played.until(id, "it goes on", |job| job.state.name() == StateName::Queued).await;
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parked_job_is_canceled_at_once_and_stays_so_when_its_key_comes() {
    let (played, hand, _kept) = scene(Turn::shared().await).await;
    let (id, _) = parked(&played, &hand, Period::from_secs(600)).await;
    let cancel = Cancel { by: client(), why: None, force: false, grace: None };
    assert_eq!(played.service.cancel(id, cancel).await.unwrap().state, StateName::Canceled);
    register(&played, "app").await;
    let other = played.submit(needs("app")).await;
    park(&hand, other, Period::from_secs(600)).await;
    played.until(other, "another job goes on", |job| job.state.name() == StateName::Queued).await;
    assert_eq!(played.service.job(id).await.unwrap().state.name(), StateName::Canceled);
    played.coordinator.stop().await;
}
