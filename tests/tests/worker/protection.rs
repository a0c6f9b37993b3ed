//! That jobs don't harm their worker: whom the kernel picks first, and what a killed keeper leaves.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::json;
use shared::job::{AttemptEnd, Failure};
use shared::log::Stream;
use tests::process;
use tests::scripted::{Staged, pids, runs, until};

use crate::HOST;

#[tokio::test(flavor = "multi_thread")]
async fn a_job_goes_before_its_worker_and_its_keeper() {
    let staged = Staged::start(HOST, |_| {}).await;
    let run = "cat /proc/self/oom_score_adj /proc/$PPID/oom_score_adj; nice; (nice)";
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    let text = staged.script.text(job, Stream::Stdout);
    let numbers: Vec<i32> = text.lines().map(|line| line.parse().unwrap()).collect();
    let [score, keepers, nice, childs] = numbers[..] else { panic!("{text}") };
    let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap().trim().parse().unwrap();
    assert!(score >= 500 && score > keepers, "{text}");
    assert!((5..=19).contains(&nice) && childs == nice, "{text}");
    let lowers = "echo -901 > /proc/self/oom_score_adj";
    if Command::new("sh").args(["-c", lowers]).stderr(Stdio::null()).status().unwrap().success() {
        assert_eq!((own, keepers), (-900, -900));
    } else {
        eprintln!("nobody here may lower a score: that of the worker is not shown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_hides_from_a_sweep_is_found_by_its_adoption_when_its_keeper_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let note = dir.path().join("pids");
    // No environment, no session, no cgroup of the attempt's, and forked anew all the time, so that some are orphans and
    // some are children of orphans.
    let hidden = format!(
        "c=$(grep \" - cgroup2 \" /proc/self/mountinfo | head -n 1 | cut -d \" \" -f 5); \
         [ -z \"$c\" ] || echo $$ > \"$c/cgroup.procs\" || :; echo $$ >> {0}; sleep 1001 & echo $! >> {0}; wait",
        note.display()
    );
    let run = format!(
        "k=$PPID; setsid env -i PATH=\"$PATH\" sh -c '{hidden}' & while [ \"$(wc -l < {0} 2>/dev/null || echo 0)\" -lt 2 ]; \
         do sleep 0.01; done; kill -9 $k; sleep 1000",
        note.display()
    );
    let spec = json!({"steps": [{"run": run}]}).to_string();
    let host = Command::new(HOST).arg(dir.path()).arg(spec).stdout(Stdio::piped()).spawn().unwrap();
    let mut worker = process::Owned(host);
    let left = pids(&note, 2).await;
    // Its end is told, and by then nothing is left.
    let mut said = String::new();
    std::io::Read::read_to_string(worker.0.stdout.as_mut().unwrap(), &mut said).unwrap();
    assert!(said.starts_with("ends"), "{said}");
    let found: Vec<_> = left.iter().filter(|pid| runs(**pid)).collect();
    left.iter().filter(|pid| runs(**pid)).for_each(|pid| process::send(*pid, Signal::SIGKILL));
    assert!(found.is_empty(), "{found:?} of {left:?} still ran");
    until("no zombie", || left.iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_keeper_can_not_be_started_leaves_no_cgroup() {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let Some(mount) = mounts.lines().find(|line| line.contains(" - cgroup2 ")).and_then(|line| line.split(' ').nth(4))
    else {
        eprintln!("there is no cgroup v2 here: not shown");
        return;
    };
    let staged = Staged::start("/no/such/keeper", |_| {}).await;
    let job = staged.script.offer(json!({"steps": [{"run": "true"}]})).await;
    let end = staged.script.end(job).await.end;
    assert!(matches!(&end, AttemptEnd::Failed { failure: Failure::Internal { .. } }), "{end:?}");
    let name = format!("windlass-{job}-1");
    let found = Command::new("find").args([mount, "-name", &name]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}
