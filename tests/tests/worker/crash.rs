//! What becomes of attempts when their worker dies, and what its next start does about them.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use shared::id::{Epoch, Instance, JobId, Shard};
use shared::job::{AttemptEnd, StopOrder};
use shared::log::LogSummary;
use shared::time::Period;
use tests::process;
use tests::scripted::{SHARD, Script, Staged, pids, runs, until};
use uuid::Uuid;

use crate::HOST;

/// A worker in a process of its own.
fn worker(dir: &Path, spec: &Value) -> Child {
    Command::new(HOST).arg(dir).arg(spec.to_string()).stdout(Stdio::null()).spawn().unwrap()
}

fn spooled(dir: &Path) -> usize {
    tests::spooled::names(&dir.join("data")).len()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_job_outlives_a_worker_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pids");
    let escape = format!("(setsid sh -c 'echo $$ >> {0}; exec sleep 1000' &)", note.display());
    let run = format!("{escape}; {escape}; echo $$ >> {}; sleep 1000", note.display());
    let spec = json!({"steps": [{"run": run}]});
    let mut worker = worker(dir.path(), &spec);
    let left = pids(&note, 3).await;
    assert!(left.iter().all(|pid| runs(*pid)));
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("the end of all processes", || !left.iter().any(|pid| runs(*pid))).await;

    // The next start forgets the attempt when its hello is answered: the coordinator ends it by that.
    assert_eq!(spooled(dir.path()), 1);
    let script = Script::start().await;
    let again = script.worker(HOST, dir.path(), |_| {}).await;
    until("an empty spool", || spooled(dir.path()) == 0).await;
    assert_eq!(std::fs::read_dir(dir.path().join("data/work")).unwrap().count(), 0);
    assert_eq!(script.seen().order.first(), Some(&"hello"));
    assert!(script.seen().ends.is_empty());
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_ends_what_outlived_the_worker_and_its_keeper() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pids");
    let run = format!("echo $PPID >> {0}; setsid sh -c 'echo $$ >> {0}; exec sleep 1000' & wait", note.display());
    let mut worker = worker(dir.path(), &json!({"steps": [{"run": run}]}));
    let [keeper, left] = pids(&note, 2).await[..] else { panic!("two numbers") };
    // The worker stands still meanwhile: it would end what a lost keeper has left.
    process::send(i32::try_from(worker.id()).unwrap(), Signal::SIGSTOP);
    process::send(keeper, Signal::SIGKILL);
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("the keeper's end", || !runs(keeper)).await;
    assert!(runs(left), "the story needs a process that outlives its keeper");
    let script = Script::start().await;
    let again = script.worker(HOST, dir.path(), |_| {}).await;
    assert!(!runs(left), "the worker was up before the sweep was done");
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_keeper_that_was_stopped_ends_its_job_when_the_worker_dies() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pids");
    let run = format!("kill -STOP $PPID; echo $PPID >> {0}; echo $$ >> {0}; exec sleep 1000", note.display());
    let mut worker = worker(dir.path(), &json!({"steps": [{"run": run}]}));
    let left = pids(&note, 2).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    until("the end of the job and its keeper", || !left.iter().any(|pid| runs(*pid))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_whose_acknowledgement_was_lost_is_told_again() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().lose_ends = 1;
    let job = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    until("an empty spool", || spooled(staged.dir.path()) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_was_never_acknowledged_is_told_by_the_next_start_before_its_hello() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = Script::start().await;
    deaf.seen().lose_ends = u32::MAX;
    let first = deaf.worker(HOST, dir.path(), |_| {}).await;
    let job = deaf.offer(json!({"steps": [{"run": "exit 0"}]})).await;
    deaf.until("an end", |seen| seen.order.contains(&"end").then_some(())).await;
    drop(first);

    let script = Script::start().await;
    let second = script.worker(HOST, dir.path(), |_| {}).await;
    assert_eq!(script.end(job).await.end, AttemptEnd::Succeeded);
    let hello = script.until("a hello", |seen| seen.hellos.first().cloned()).await;
    assert_eq!(script.seen().order[..2], ["end", "hello"]);
    assert_eq!(script.seen().ends[0].instance, hello.instance);
    assert_eq!(deaf.seen().hellos[0].worker, hello.worker);
    assert_ne!(deaf.seen().hellos[0].instance, hello.instance);
    until("an empty spool", || spooled(dir.path()) == 0).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_an_older_version_has_left_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let spool = dir.path().join("data/worker/spool");
    let job = JobId::mint(Shard::new(SHARD).unwrap(), shared::clock::now(), shared::clock::random());
    let outcome = json!({"end": {"end": "succeeded"}, "log": LogSummary::default()});
    let entry = json!({"job": job, "attempt": 1, "epoch": 0, "cgroup": null, "outcome": outcome});
    std::fs::create_dir_all(&spool).unwrap();
    std::fs::write(spool.join(format!("{job}-1.json")), entry.to_string()).unwrap();
    let script = Script::start().await;
    let worker = script.worker(HOST, dir.path(), |_| {}).await;
    assert_eq!(script.end(job).await.end, AttemptEnd::Succeeded);
    until("an empty spool", || spooled(dir.path()) == 0).await;
    worker.stop().await;
}

/// The epochs that are in the spool.
fn spooled_epochs(dir: &Path) -> Vec<u64> {
    tests::spooled::spooled(&dir.join("data")).into_iter().map(|entry| entry.epoch.0).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_not_one_any_more_is_not_heeded_by_the_next_start_either() {
    let dir = tempfile::tempdir().unwrap();
    let go = dir.path().join("go");
    let deaf = Script::start().await;
    deaf.seen().epoch = Epoch(5);
    deaf.seen().lose_ends = u32::MAX;
    let first = deaf.worker(HOST, dir.path(), |_| {}).await;
    let run = format!("while [ ! -e {} ]; do sleep 0.01; done", go.display());
    let job = deaf.offer(json!({"steps": [{"run": run}]})).await;
    deaf.started(job, 0).await;
    assert_eq!(spooled_epochs(dir.path()), [5]);
    deaf.seen().epoch = Epoch(6);
    // Not an order for this start, but it is heard.
    deaf.order(StopOrder { instance: Instance(Uuid::nil()), ..deaf.stop_order(job, Period::ZERO) }).await;
    std::fs::write(go, "").unwrap();
    deaf.until("an end", |seen| seen.order.contains(&"end").then_some(())).await;
    drop(first);

    // It answers the outcome, again and again: nothing that it says makes the worker forget it, or go on.
    assert_eq!(spooled_epochs(dir.path()), [6]);
    let script = Script::start().await;
    script.seen().epoch = Epoch(5);
    let second = script.worker(HOST, dir.path(), |_| {}).await;
    script.until("the end, told again and again", |seen| (seen.ends.len() >= 3).then_some(())).await;
    assert!(script.seen().ends.iter().all(|end| end.job == job && end.end == AttemptEnd::Succeeded));
    assert!(script.seen().hellos.is_empty(), "it has said hello with an outcome untold");
    assert_eq!(spooled_epochs(dir.path()), [6]);

    script.seen().epoch = Epoch(6);
    script.until("a hello", |seen| seen.hellos.first().map(|_| ())).await;
    until("an empty spool", || spooled(dir.path()) == 0).await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_enrols_anew_heeds_whoever_it_enrolled_with() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = Script::start().await;
    deaf.seen().epoch = Epoch(5);
    deaf.seen().lose_ends = u32::MAX;
    let first = deaf.worker(HOST, dir.path(), |_| {}).await;
    deaf.offer(json!({"steps": [{"run": "true"}]})).await;
    deaf.until("an end", |seen| seen.order.contains(&"end").then_some(())).await;
    drop(first);

    // Another installation, whose epochs have only begun.
    worker::forget(&dir.path().join("data")).unwrap();
    let script = Script::start().await;
    script.seen().lose_ends = u32::MAX;
    let second = script.worker(HOST, dir.path(), |_| {}).await;
    script.until("an end", |seen| seen.order.contains(&"end").then_some(())).await;
    assert_eq!(script.seen().enrols.len(), 1);
    // Nor does the next start bring back what it had heard of the old one.
    drop(second);
    script.seen().lose_ends = 0;
    let third = script.worker(HOST, dir.path(), |_| {}).await;
    script.until("a hello", |seen| seen.hellos.first().map(|_| ())).await;
    assert_eq!(script.seen().enrols.len(), 1);
    until("an empty spool", || spooled(dir.path()) == 0).await;
    third.stop().await;
}
