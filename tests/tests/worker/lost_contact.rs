//! Jobs that must not outlive their lease when their worker is cut off.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use shared::clock;
use shared::job::{AttemptEnd, Failure};
use shared::wire::LEASE;
use tests::process;
use tests::scripted::{Staged, pids, runs, until};

use crate::HOST;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_to_stop_is_gone_before_its_lease_ends() {
    let staged = Staged::start(HOST, |_| {}).await;
    let (note, other) = (staged.note("pids"), staged.note("others"));
    let claimed = clock::instant();
    let run = format!("(trap '' TERM; setsid sleep 1000) & echo $$ > {}; sleep 1000", note.display());
    let stops = staged.script.offer(json!({"steps": [{"run": run}], "on_lost_contact": "stop", "grace": "1h"})).await;
    let run = format!("echo $$ > {}; sleep 1000", other.display());
    let goes_on = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let (pid, other) = (pids(&note, 1).await[0], pids(&other, 1).await[0]);

    // One heartbeat is answered; from there on nothing is heard.
    let sent = staged.script.until("a heartbeat", |seen| named(seen, stops).then(clock::instant)).await;
    staged.script.seen().lose_beats = u32::MAX;
    until("the end of the job", || !runs(pid)).await;
    let after = sent.elapsed();
    // The heartbeat was sent a moment before it was seen.
    assert!(after <= LEASE.saturating_sub(Duration::from_secs(1)), "it was killed after {after:?}");
    let least = LEASE.saturating_sub(Duration::from_secs(3));
    assert!(claimed.elapsed() >= least, "it was killed after {:?} in all", claimed.elapsed());
    let end = staged.script.end(stops).await.end;
    assert!(matches!(end, AttemptEnd::Failed { failure: Failure::WorkerLost { .. } }), "{end:?}");
    assert!(runs(other), "only what asked for it is stopped");
    staged.script.stop(goes_on, shared::time::Period::ZERO).await;
    staged.script.end(goes_on).await;
}

fn named(seen: &tests::scripted::Seen, job: shared::id::JobId) -> bool {
    seen.beats.iter().any(|beat| beat.attempts.iter().any(|(named, _)| *named == job))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_outlives_every_deadline_while_its_heartbeats_are_answered() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!("echo $$ > {}; sleep 1000", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}], "on_lost_contact": "stop"})).await;
    let begun = clock::instant();
    let pid = pids(&note, 1).await[0];
    let past = LEASE + Duration::from_secs(2);
    staged.script.until("heartbeats", |seen| (begun.elapsed() > past && seen.beats.len() >= 3).then_some(())).await;
    assert!(runs(pid));
    staged.script.stop(job, shared::time::Period::ZERO).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_stands_still_does_not_keep_its_jobs_from_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pids");
    let run = format!("echo $$ > {0}; (setsid sh -c 'echo $$ >> {0}; exec sleep 1000') & sleep 1000", note.display());
    let spec = json!({"steps": [{"run": run}], "on_lost_contact": "stop"});
    let began = clock::instant();
    let host = Command::new(HOST).arg(dir.path()).arg(spec.to_string()).stdout(Stdio::piped()).spawn().unwrap();
    let mut worker = process::Owned(host);
    let left = pids(&note, 2).await;
    process::send(worker.pid(), Signal::SIGSTOP);
    let stopped = clock::instant();
    until("the end of the job", || !left.iter().any(|pid| runs(*pid))).await;
    assert!(stopped.elapsed() < LEASE, "it was there for {:?} after its worker stood still", stopped.elapsed());
    assert!(began.elapsed() > Duration::from_secs(10), "it was killed after {:?}", began.elapsed());
    process::send(worker.pid(), Signal::SIGCONT);
    assert!(waits(&mut worker.0).contains("ends"), "its end is told when its worker goes on");
}

fn waits(child: &mut Child) -> String {
    let mut said = String::new();
    std::io::Read::read_to_string(child.stdout.as_mut().unwrap(), &mut said).unwrap();
    said
}
