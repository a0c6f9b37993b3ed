//! What a worker does about offers: pauses, drains, and the death of its agent.

use std::time::Duration;

use serde_json::json;
use shared::bus::{Address, Bus};
use shared::job::AttemptEnd;
use shared::wire::{self, Control, WorkerMode};
use tests::scripted::{Script, Staged};
use tokio::time::timeout;

use crate::HOST;

const DEADLINE: Duration = Duration::from_secs(50);

/// Has the worker say hello and do as the answer says: its next hello comes after that.
async fn say_hello(script: &Script) {
    let worker = script.until("a hello", |seen| seen.hellos.first().map(|hello| hello.worker)).await;
    for _ in 0..2 {
        let heard = script.seen().hellos.len();
        let body = wire::encode(&Control::SayHello {});
        script.bus.request(&Address::Control(worker), body, DEADLINE).await.unwrap();
        script.until("the hello", |seen| (seen.hellos.len() > heard).then_some(())).await;
    }
}

/// A job that ends when the file `note` is there.
fn waits_for(note: &std::path::Path) -> serde_json::Value {
    json!({"steps": [{"run": format!("while [ ! -e {} ]; do sleep 0.01; done", note.display())}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_worker_takes_nothing_until_it_is_resumed() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().mode = WorkerMode::Paused;
    say_hello(&staged.script).await;
    let job = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    for _ in 0..3 {
        say_hello(&staged.script).await;
    }
    assert!(staged.script.seen().claims.is_empty());
    staged.script.seen().mode = WorkerMode::Active;
    say_hello(&staged.script).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_takes_nothing_new_and_is_over_when_what_runs_is_told() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("go");
    let running = staged.script.offer(waits_for(&note)).await;
    staged.script.started(running, 0).await;
    staged.worker.drain();
    let hello =
        staged.script.until("word of it", |seen| seen.hellos.iter().find(|hello| hello.draining).cloned()).await;
    assert_eq!(hello.running, 1);
    let left = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert!(timeout(Duration::from_millis(1500), staged.worker.drained()).await.is_err(), "something still runs");
    std::fs::write(note, "").unwrap();
    timeout(DEADLINE, staged.worker.drained()).await.unwrap().unwrap();
    assert_eq!(staged.script.end(running).await.end, AttemptEnd::Succeeded);
    assert_eq!(staged.script.seen().claims, [running]);
    staged.worker.stop().await;

    // Another worker gets what it left.
    let dir = tempfile::tempdir().unwrap();
    let other = staged.script.worker(HOST, dir.path(), |_| {}).await;
    assert_eq!(staged.script.end(left).await.end, AttemptEnd::Succeeded);
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_that_people_order_is_seen_by_the_process() {
    let staged = Staged::start(HOST, |_| {}).await;
    say_hello(&staged.script).await;
    staged.script.seen().mode = WorkerMode::Draining;
    say_hello(&staged.script).await;
    timeout(DEADLINE, staged.worker.drained()).await.unwrap().unwrap();
    staged.script.seen().mode = WorkerMode::Active;
    say_hello(&staged.script).await;
    staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    for _ in 0..3 {
        say_hello(&staged.script).await;
    }
    assert!(staged.script.seen().claims.is_empty(), "a drain is for good");
    assert!(staged.script.seen().hellos.last().unwrap().draining);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_agent_died_takes_nothing_more_and_says_so() {
    let staged = Staged::start(HOST, |config| {
        config.slots = 1;
        config.faults = Some(|point| assert_ne!(point, "agent"));
    })
    .await;
    let job = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    let died = timeout(DEADLINE, staged.worker.drained()).await.unwrap();
    assert!(matches!(died, Err(worker::Error::AgentDied)));
    staged
        .script
        .until("the decline", |seen| seen.declines.iter().find(|(declined, _)| *declined == job).cloned())
        .await;
    staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    let hellos = staged.script.seen().hellos.len();
    staged.script.until("time to pass", |seen| (seen.hellos.len() > hellos + 1).then_some(())).await;
    assert_eq!(staged.script.seen().claims, [job]);
    staged.worker.stop().await;
}
