//! What goes on side by side while a great many jobs wait: lost offers are made again, and jobs are canceled by a filter.

use std::net::TcpListener;

use coordinator::api::{Tokens, serve};
use coordinator::fault::{self, Fault};
use serde_json::json;
use shared::bus::Bus;
use shared::job::Cancel;
use shared::secret::Secret;
use shared::spec::{Priority, parse_single};
use shared::wire::Lane;
use tests::http::Client;
use tests::played::{DEADLINE, Played, Turn, client, one_step};
use tests::wait::until;

/// How many jobs are submitted at once.
const BATCH: usize = 1000;

/// Submits so many batches of jobs.
async fn submit_batches(played: &Played, count: usize) {
    for _ in 0..count {
        let submissions = vec![parse_single(&one_step(), None).unwrap(); BATCH];
        played.service.submit(&client(), submissions).await.expect("the jobs are accepted");
    }
}

/// Waits until the store was asked for that so often.
async fn until_asked(played: &Played, verb: &str, count: u64) {
    until(DEADLINE, &format!("{verb} was asked for {count} times"), || (played.asked(verb) >= count).then_some(()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_offers_of_shards_that_are_taken_over_do_not_wait_for_another_round() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    let (lost, waits) = (played.submit(one_step()).await, played.submit(one_step()).await);
    played.coordinator.stop().await;

    fault::arm_with("offers.group", Fault::Hold, u32::MAX);
    let played = Played::start(&dir.path().join("db")).await;
    until(DEADLINE, "a round stands still", || (fault::passes("offers.group") > 0).then_some(())).await;
    let before = played.asked("offers");
    // A lost answer makes the coordinator take its shards over from itself.
    fault::arm("committer.committed", 1);
    let cancel = Cancel { by: client(), why: None, force: false, grace: None };
    played.service.cancel(lost, cancel).await.expect_err("the answer is lost");
    until_asked(&played, "offers", before + 1).await;

    fault::arm("offers.group", 0);
    let lane = [Lane { tags: Vec::new(), priority: Priority::Normal }];
    while played.bus.take(&lane, 1, DEADLINE).await.unwrap().first().expect("an offer").offer.job != waits {}
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_offers_is_read_while_the_one_before_it_is_made_again() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    submit_batches(&played, 5).await;
    played.coordinator.stop().await;

    fault::arm_with("offers.group", Fault::Hold, u32::MAX);
    let played = Played::start(&dir.path().join("db")).await;
    until_asked(&played, "offers", 2).await;

    fault::arm("offers.group", 0);
    played.coordinator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_by_filter_goes_on_while_a_page_of_it_is_being_committed() {
    let _turn = Turn::alone().await;
    let dir = tempfile::tempdir().unwrap();
    let played = Played::start(&dir.path().join("db")).await;
    submit_batches(&played, 2).await;
    let tokens = Tokens::one("dev", &Secret::new("a-token-of-the-tests".to_owned()));
    let api = serve(TcpListener::bind("127.0.0.1:0").unwrap(), played.service.clone(), tokens).unwrap();
    let http = Client::new(&format!("http://{}", api.address()), "a-token-of-the-tests");

    fault::arm_with("committer.commit", Fault::Hold, u32::MAX);
    let body = json!({"filter": {"state": "queued"}});
    let canceled = tokio::task::spawn_blocking(move || http.post("/api/v1/jobs/cancel", &body));
    until_asked(&played, "open_jobs", 2).await;
    fault::arm("committer.commit", 0);

    let canceled = canceled.await.unwrap();
    assert_eq!((canceled.status, canceled.json), (202, json!({"matched": 2 * BATCH})));
    assert_eq!(played.service.open_jobs(&coordinator::store::Filter::default(), None).await.unwrap(), []);
    api.stop().await;
    played.coordinator.stop().await;
}
