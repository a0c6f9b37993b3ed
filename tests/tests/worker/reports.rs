//! Reports on their way: in batches, in order, said again, and only under the epoch that counts.

use std::time::Duration;

use serde_json::json;
use shared::clock;
use shared::id::Epoch;
use shared::job::AttemptEnd;
use shared::time::Period;
use tests::scripted::{GATE, OTHER_SHARD, SHARD, Seen, Staged};

use crate::HOST;

/// Whether the progress of every job came complete and in order.
fn in_order(seen: &Seen) -> bool {
    let jobs: std::collections::BTreeSet<_> = seen.progress.iter().map(|(job, ..)| *job).collect();
    jobs.iter().all(|job| {
        let mut numbers: Vec<u32> = seen.progress.iter().filter(|(of, ..)| of == job).map(|(_, n, _)| *n).collect();
        let ascending = numbers.is_sorted();
        numbers.dedup();
        ascending && numbers.iter().zip(1..).all(|(number, expected)| *number == expected)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_for_a_shard_goes_in_one_message() {
    const JOBS: u32 = 24;
    let staged = Staged::start(HOST, |config| config.slots = JOBS).await;
    let go = staged.note("go");
    let waits = format!("while [ ! -e {} ]; do sleep 0.1; done", go.display());
    let spec = json!({"steps": [{"run": waits}, {"run": "true"}]});
    staged.script.until("a hello", |seen| seen.hellos.first().map(|_| ())).await;
    let mut jobs = Vec::new();
    for _ in 0..JOBS {
        jobs.push(staged.script.offer(spec.clone()).await);
    }
    for job in &jobs {
        staged.script.started(*job, 0).await;
    }
    // A few messages are on their way; the rest has gathered behind them once all jobs have come to their ends.
    let closed = staged.script.gate.clone();
    let closed = closed.acquire_many(GATE).await.unwrap();
    std::fs::write(go, "").unwrap();
    let data_dir = staged.dir.path().join("data");
    let ended = || tests::spooled::spooled(&data_dir).iter().filter(|entry| entry.outcome.is_some()).count();
    tests::scripted::until("the outcomes of all jobs", || ended() == JOBS as usize).await;
    drop(closed);
    for job in jobs {
        assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    }
    let seen = staged.script.seen();
    let largest = seen.batches.iter().max().copied().unwrap();
    assert!(largest > 10, "no message held more than {largest} reports: {:?}", seen.batches);
    assert!(in_order(&seen) && seen.early == 0, "{:?}", seen.progress);
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_are_to_be_said_again_keep_their_order() {
    let staged = Staged::start(HOST, |_| {}).await;
    let steps: Vec<_> = (0..20).map(|_| json!({"run": "true"})).collect();
    for tries in [1, 3, 5] {
        let job = staged.script.offer(json!({ "steps": steps })).await;
        staged.script.started(job, 0).await;
        staged.script.seen().try_again = tries;
        assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    }
    assert!(in_order(&staged.script.seen()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_owner_says_that_is_not_one_any_more_is_not_heeded() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().epoch = Epoch(5);
    let note = staged.note("go");
    let run = format!("while [ ! -e {} ]; do sleep 0.01; done", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    staged.script.started(job, 0).await;

    // Neither an order nor the answer to a heartbeat ends the job, and no acknowledgement counts.
    let order = staged.script.stop_order(job, Period::ZERO);
    staged.script.seen().epoch = Epoch(4);
    staged.script.send(order.clone()).await.expect_err("an order that isn't heeded isn't confirmed");
    staged.script.seen().stop = vec![order];
    let beats = staged.script.seen().beats.len();
    staged.script.until("a heartbeat", |seen| (seen.beats.len() > beats + 1).then_some(())).await;
    staged.script.seen().stop.clear();
    std::fs::write(note, "").unwrap();
    let told = |seen: &Seen| seen.progress.iter().filter(|(of, number, _)| (*of, *number) == (job, 2)).count();
    staged.script.until("the step's end, told again", |seen| (told(seen) >= 3).then_some(())).await;
    assert_eq!(spooled(&staged), 1);

    staged.script.seen().epoch = Epoch(6);
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    tests::scripted::until("an empty spool", || spooled(&staged) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heartbeats_of_all_shards_go_at_the_same_time() {
    let staged = Staged::start(HOST, |_| {}).await;
    let spec = json!({"steps": [{"run": "sleep 1000"}]});
    let here = staged.script.offer_in(SHARD, spec.clone()).await;
    let there = staged.script.offer_in(OTHER_SHARD, spec).await;
    staged.script.started(here, 0).await;
    staged.script.started(there, 0).await;
    // One answer is lost: the other shard's owner hears of its attempt meanwhile all the same.
    let beats = staged.script.seen().beats.len();
    staged.script.seen().lose_beats = 1;
    staged.script.until("a heartbeat", |seen| (seen.beats.len() > beats).then_some(())).await;
    let first = clock::instant();
    staged.script.until("the other's", |seen| (seen.beats.len() > beats + 1).then_some(())).await;
    assert!(first.elapsed() < Duration::from_secs(2), "it came {:?} later", first.elapsed());
    let named: Vec<_> = staged.script.seen().beats[beats..].iter().map(|beat| beat.attempts[0].0).collect();
    assert!(named[..2].contains(&here) && named[..2].contains(&there), "{named:?}");
    for job in [here, there] {
        staged.script.stop(job, Period::ZERO).await;
        assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_that_finds_no_coordinator_keeps_its_outcomes_until_one_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let deaf = tests::scripted::Script::start().await;
    deaf.seen().lose_ends = u32::MAX;
    let first = deaf.worker(HOST, dir.path(), |_| {}).await;
    let job = deaf.offer(json!({"steps": [{"run": "exit 0"}]})).await;
    deaf.until("an end", |seen| seen.order.contains(&"end").then_some(())).await;
    drop(first);

    let script = tests::scripted::Script::start().await;
    script.seen().lose_ends = 3;
    let second = script.worker(HOST, dir.path(), |_| {}).await;
    assert_eq!(script.end(job).await.end, AttemptEnd::Succeeded);
    script.until("a hello", |seen| seen.hellos.first().map(|_| ())).await;
    assert_eq!(script.seen().order[..5], ["end", "end", "end", "end", "hello"]);
    second.stop().await;
}

fn spooled(staged: &Staged) -> usize {
    tests::spooled::names(&staged.dir.path().join("data")).len()
}
