//! Claims and what can become of them: late, repeated, stopped, without a disk.

use serde_json::json;
use shared::bus::Bus;
use shared::id::{Attempt, JobId, Shard};
use shared::job::{AttemptEnd, Offer};
use shared::spec::Priority;
use shared::time::Period;
use tests::scripted::{SHARD, Staged, until};

use crate::HOST;

fn spooled(staged: &Staged) -> usize {
    tests::spooled::names(&staged.dir.path().join("data")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_comes_too_late_is_declined_by_name_and_never_runs() {
    let staged = Staged::start(HOST, |_| {}).await;
    let gate = staged.script.gate.clone();
    let closed = gate.acquire_many(tests::scripted::GATE).await.unwrap();
    let note = staged.note("ran");
    let job = staged.script.offer(json!({"steps": [{"run": format!("touch {}", note.display())}]})).await;
    // The claim is said again until its deadline, and then comes the decline.
    staged.script.until_waiting(4).await;
    drop(closed);
    let declined = staged.script.until("the decline", |seen| seen.declines.first().cloned()).await;
    assert_eq!(declined, (job, "the worker heard no answer to its claim".to_owned()));
    // The offer comes back; by then the script grants it in time.
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_whose_claim_came_too_late_is_given_back() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().late_claims = 1;
    let job = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.seen().claims, [job, job]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_names_a_recipient_only_where_the_job_has_secrets() {
    let staged = Staged::start(HOST, |_| {}).await;
    let counted = || {
        let seen = staged.script.seen();
        (seen.claims.len(), seen.keyed)
    };
    let plain = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert_eq!(staged.script.end(plain).await.end, AttemptEnd::Succeeded);
    assert_eq!(counted(), (1, 0));
    let run = "test \"$TOKEN\" = hunter2-hunter2";
    let secret = staged.script.offer(json!({"steps": [{"run": run}], "secrets": {"TOKEN": "hunter2-hunter2"}})).await;
    assert_eq!(staged.script.end(secret).await.end, AttemptEnd::Succeeded);
    assert_eq!(counted(), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_for_what_never_ran_is_confirmed_once_it_can_not_start_any_more() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.until("a hello", |seen| seen.hellos.first().map(|_| ())).await;
    let job = JobId::mint(Shard::new(SHARD).unwrap(), shared::clock::now(), shared::clock::random());
    let order = staged.script.stop_order(job, Period::ZERO);
    for _ in 0..3 {
        staged.script.order(order.clone()).await;
    }
    let declined = staged.script.until("the confirmation", |seen| seen.declines.first().cloned()).await;
    assert_eq!(declined, (job, "it was told to stop before it had started".to_owned()));
    // Its offer is dropped unclaimed.
    let offer = Offer { job, attempt: Attempt(1), tags: Vec::new(), priority: Priority::Normal, has_secrets: false };
    staged.script.bus.offer(&offer).await.unwrap();
    let next = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    staged.script.end(next).await;
    let seen = staged.script.seen();
    assert_eq!((seen.claims.as_slice(), seen.declines.len()), ([next].as_slice(), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_of_what_runs_already_touches_nothing() {
    let staged = Staged::start(HOST, |_| {}).await;
    let job = staged.script.offer(json!({"steps": [{"run": "sleep 1000"}]})).await;
    staged.script.started(job, 0).await;
    let offer = Offer { job, attempt: Attempt(1), tags: Vec::new(), priority: Priority::Normal, has_secrets: false };
    staged.script.bus.offer(&offer).await.unwrap();
    let next = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    staged.script.end(next).await;
    until("one entry in the spool", || spooled(&staged) == 1).await;
    assert_eq!(staged.script.seen().claims, [job, next]);
    assert!(staged.script.seen().declines.is_empty());
    staged.script.stop(job, Period::ZERO).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_spool_can_not_be_written_nothing_is_claimed() {
    let staged = Staged::start(HOST, |config| config.slots = 1).await;
    staged.script.until("a hello", |seen| seen.hellos.first().map(|_| ())).await;
    let spool = staged.dir.path().join("data/worker/spool");
    // A file in the directory's place: nobody can write into that, not even the superuser.
    std::fs::remove_dir_all(&spool).unwrap();
    std::fs::write(&spool, "").unwrap();
    let first = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    let declined = staged.script.until("the decline", |seen| seen.declines.first().cloned()).await;
    assert_eq!(declined, (first, "the worker's spool can't be written".to_owned()));
    let second = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    let hellos = staged.script.seen().hellos.len();
    staged.script.until("time to pass", |seen| (seen.hellos.len() > hellos).then_some(())).await;
    assert_eq!(staged.script.seen().claims, [first]);
    std::fs::remove_file(&spool).unwrap();
    std::fs::create_dir(&spool).unwrap();
    assert_eq!(staged.script.end(second).await.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.seen().declines.len(), 1);
}
