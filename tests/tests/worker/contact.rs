//! A worker and its coordinators: offers, claims, orders, lost messages.

use serde_json::json;
use shared::id::{Attempt, Instance};
use shared::job::{AttemptEnd, StopOrder};
use shared::time::Period;
use tests::played::DEADLINE;
use tests::scripted::{GATE, Seen, Staged};

use crate::HOST;

#[tokio::test(flavor = "multi_thread")]
async fn no_more_is_claimed_than_there_are_slots() {
    let staged = Staged::start(HOST, |config| config.slots = 1).await;
    let first = staged.script.offer(json!({"steps": [{"run": "sleep 1000"}]})).await;
    staged.script.started(first, 0).await;
    let second = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    staged.script.until("a heartbeat", |seen| seen.beats.last().map(|_| ())).await;
    assert_eq!(staged.script.seen().claims, [first]);
    staged.script.stop(first, Period::ZERO).await;
    assert_eq!(staged.script.end(second).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_with_new_tags_is_taken_within_a_moment() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.until("a hello", |seen| (seen.hellos.len() > 3).then_some(())).await;
    staged.script.seen().tag_sets.push(vec!["new".to_owned()]);
    let job = staged.script.offer(json!({"steps": [{"run": "true"}], "tags": ["new"]})).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_comes_before_the_grant_keeps_the_attempt_from_starting() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().stop_before_grant = true;
    let note = staged.note("ran");
    let job = staged.script.offer(json!({"steps": [{"run": format!("touch {}", note.display())}]})).await;
    let declined = staged.script.until("the decline", |seen| seen.declines.first().cloned()).await;
    assert_eq!(declined, (job, "it was told to stop before it had started".to_owned()));
    staged.worker.stop().await;
    assert!(!note.exists() && staged.script.seen().progress.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_whose_answer_was_lost_is_said_again() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().lose_claims = 1;
    let job = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.seen().claims, [job, job]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_the_answer_to_a_heartbeat_is_obeyed() {
    let staged = Staged::start(HOST, |_| {}).await;
    let job = staged.script.offer(json!({"steps": [{"run": "sleep 1000"}]})).await;
    staged.script.started(job, 0).await;
    let order = staged.script.stop_order(job, Period::ZERO);
    staged.script.seen().stop = vec![order];
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    let beats = &staged.script.seen().beats;
    assert!(beats.iter().all(|beat| beat.attempts == [(job, Attempt(1))]), "{beats:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_end_nobody_answers_is_named_on() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("go");
    let run = format!("while [ ! -e {} ]; do sleep 0.01; done", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    staged.script.started(job, 0).await;
    let gate = staged.script.gate.clone();
    let closed = gate.acquire_many(GATE).await.unwrap();
    let waiting = staged.script.seen().waiting;
    std::fs::write(note, "").unwrap();
    staged.script.until_waiting(waiting + 1).await;
    let beats = staged.script.seen().beats.len();
    let named = [(job, Attempt(1))];
    let is_named = |seen: &Seen| seen.beats[beats..].iter().any(|beat| beat.attempts == named).then_some(());
    staged.script.until("a heartbeat that names it", is_named).await;
    drop(closed);
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_for_an_earlier_start_of_the_worker_is_not_obeyed() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("go");
    let run = format!("while [ ! -e {} ]; do sleep 0.01; done", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    staged.script.started(job, 0).await;
    let order = staged.script.stop_order(job, Period::ZERO);
    let earlier = StopOrder { instance: Instance(uuid::Uuid::from_u128(1)), ..order };
    staged.script.order(earlier).await;
    std::fs::write(note, "").unwrap();
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_revoked_ends_what_it_runs_and_itself() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pid");
    let run = format!("echo $$ > {}; exec sleep 1000", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}], "grace": "0s"})).await;
    staged.script.started(job, 0).await;
    let pid = tests::scripted::pids(&note, 1).await[0];
    staged.script.seen().revoked = true;

    let ended = tokio::time::timeout(DEADLINE, staged.worker.drained()).await.expect("it hears of it");
    assert!(ended.as_ref().is_err_and(|error| error.to_string().contains("was revoked")), "{ended:?}");
    staged.worker.stop().await;
    tests::scripted::until("the end of its process", || !tests::scripted::runs(pid)).await;
}
