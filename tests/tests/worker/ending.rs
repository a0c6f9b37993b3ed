//! How attempts end: told to stop, out of time, or by themselves; and that nothing outlives them.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use shared::clock;
use shared::job::{AttemptEnd, Exit, Failure, Limit, Progress};
use shared::log::Stream;
use shared::time::Period;
use tests::scripted::{Staged, pids, runs, until};

use crate::HOST;

/// A script that leaves a process in a session of its own, without its parents and deaf to polite signals, and its number in
/// the file `pids`.
fn escape(pids: &Path) -> String {
    let pids = pids.display();
    format!("(setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {pids}; while :; do sleep 1000; done' &)")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_session_and_forked_twice_ends_with_the_steps() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!("{}; while [ ! -s {} ]; do :; done", escape(&note), note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let escaped = pids(&note, 1).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert!(!runs(escaped[0]), "the end was told while process {} still ran", escaped[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_left_the_session_and_forked_twice_ends_with_a_stop() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!("{}; sleep 1000", escape(&note));
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let escaped = pids(&note, 1).await;
    staged.script.stop(job, Period::from_millis(50)).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    assert!(!runs(escaped[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_forks_without_end_is_ended_too() {
    let staged = Staged::start(HOST, |_| {}).await;
    let (note, hop) = (staged.note("pids"), staged.note("hop"));
    // A process that is always a new one: whoever is seen has a successor already.
    std::fs::write(&hop, "#!/bin/sh\n\"$0\" &\n").unwrap();
    std::fs::set_permissions(&hop, Permissions::from_mode(0o700)).unwrap();
    let (hop, pids_file) = (hop.display(), note.display());
    let run = format!("{hop} & {hop} & {hop} & echo $$ > {pids_file}; sleep 1000");
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    pids(&note, 1).await;
    staged.script.stop(job, Period::ZERO).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    let mark = format!("WINDLASS_JOB_ID={job}");
    let left = std::fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter(|entry| {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|said| said == mark.as_bytes())
    });
    assert_eq!(left.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_asks_first_and_kills_when_the_grace_is_over() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("polite");
    let run = format!("trap 'echo asked; exit 5' TERM; echo $$ > {}; sleep 1000 & wait", note.display());
    let polite = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    pids(&note, 1).await;
    staged.script.stop(polite, Period::from_secs(20)).await;
    assert_eq!(staged.script.end(polite).await.end, AttemptEnd::Stopped);
    assert_eq!(staged.script.text(polite, Stream::Stdout), "asked\n");

    let note = staged.note("pids");
    let run = format!("trap 'echo asked' TERM; echo $$ > {}; while :; do sleep 0.01 || :; done", note.display());
    let stubborn = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let stubborn_pids = pids(&note, 1).await;
    let asked = clock::instant();
    staged.script.stop(stubborn, Period::from_millis(400)).await;
    assert_eq!(staged.script.end(stubborn).await.end, AttemptEnd::Stopped);
    assert!(asked.elapsed() >= Duration::from_millis(400), "it was killed before its grace was over");
    assert!(!runs(stubborn_pids[0]));
    assert_eq!(staged.script.text(stubborn, Stream::Stdout), "asked\n");
    let finished = Progress::StepFinished { step: 0, exit: Exit::Signal(9) };
    assert!(staged.script.seen().progress.iter().any(|(job, _, progress)| *job == stubborn && *progress == finished));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_stop_can_only_shorten_the_grace() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.01 || :; done", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    pids(&note, 1).await;
    let asked = clock::instant();
    staged.script.stop(job, Period::from_secs(1000)).await;
    staged.script.stop(job, Period::from_millis(300)).await;
    staged.script.stop(job, Period::from_secs(1000)).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    assert!(asked.elapsed() >= Duration::from_millis(300));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grace_a_job_that_writes_at_full_speed_is_gone_in_a_moment() {
    let staged = Staged::start(HOST, |_| {}).await;
    staged.script.seen().forget_text = true;
    let mut fastest = Duration::MAX;
    // A machine that is busy with other things may be slow once, but not every time.
    for round in 0..5 {
        let note = staged.note(&format!("pids-{round}"));
        let run = format!("echo $$ > {}; exec yes", note.display());
        let chunks = staged.script.seen().chunks.len();
        let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
        let writer = pids(&note, 1).await[0];
        staged.script.until("much output", |seen| (seen.chunks.len() > chunks + 50).then_some(())).await;
        let asked = clock::instant();
        staged.script.stop(job, Period::ZERO).await;
        until("the process's end", || !runs(writer)).await;
        fastest = fastest.min(asked.elapsed());
        assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
        if fastest < Duration::from_millis(100) {
            return;
        }
    }
    panic!("it took {fastest:?} at best");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_that_are_stopped_together_all_end_as_stopped() {
    const TOGETHER: u32 = 40;
    let staged = Staged::start(HOST, |config| config.slots = TOGETHER).await;
    let note = staged.note("pids");
    let run = format!("echo $$ >> {}; exec sleep 1000", note.display());
    let mut jobs = Vec::new();
    for _ in 0..TOGETHER {
        jobs.push(staged.script.offer(json!({"steps": [{"run": run}]})).await);
    }
    let left = pids(&note, TOGETHER as usize).await;
    // Each order is answered, also where several are obeyed at once.
    join_all(jobs.iter().map(|job| staged.script.stop(*job, Period::ZERO))).await;
    for job in jobs {
        assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    }
    assert!(!left.into_iter().any(runs));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grace_a_job_is_gone_before_its_keeper_gets_to_it() {
    let own = Path::new("/sys/fs/cgroup").join("unified");
    let own = if own.exists() { own } else { Path::new("/sys/fs/cgroup").to_owned() };
    let ice = own.join(format!("windlass-test-{}", std::process::id()));
    if std::fs::create_dir(&ice).is_err() || !ice.join("cgroup.freeze").exists() {
        eprintln!("nobody here may make a cgroup: not shown");
        return;
    }
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!("echo $PPID >> {0}; echo $$ >> {0}; exec sleep 1000", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let [keeper, process] = pids(&note, 2).await[..] else { panic!("two numbers") };
    // No signal but the last makes it go on, so that it takes no order. The worker itself helps only after seconds.
    std::fs::write(ice.join("cgroup.procs"), keeper.to_string()).unwrap();
    std::fs::write(ice.join("cgroup.freeze"), "1").unwrap();
    let frozen = || std::fs::read_to_string(ice.join("cgroup.events")).unwrap().contains("frozen 1");
    until("a keeper that is frozen", frozen).await;
    let asked = clock::instant();
    staged.script.stop(job, Period::ZERO).await;
    until("the process's end", || !runs(process)).await;
    let took = asked.elapsed();
    std::fs::write(ice.join("cgroup.freeze"), "0").unwrap();
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    until("the keeper's end", || std::fs::remove_dir(&ice).is_ok()).await;
    assert!(took < Duration::from_secs(4), "only the worker's late help has ended it, after {took:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_takes_too_long_is_ended() {
    let staged = Staged::start(HOST, |_| {}).await;
    let steps = json!([{"run": "true", "timeout": "5s"}, {"run": "sleep 1000", "timeout": "200ms"}]);
    let job = staged.script.offer(json!({ "steps": steps })).await;
    let failure = Failure::TimedOut { limit: Limit::Step(1) };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_too_long_is_asked_and_then_killed() {
    let staged = Staged::start(HOST, |_| {}).await;
    let run = "trap 'echo asked' TERM; while :; do sleep 0.01 || :; done";
    let job = staged.script.offer(json!({"steps": [{"run": run}], "timeout": "300ms", "grace": "200ms"})).await;
    let failure = Failure::TimedOut { limit: Limit::Job };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
    assert_eq!(staged.script.text(job, Stream::Stdout), "asked\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_or_stops_its_keeper_leaves_nothing_behind() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    // A grandchild isn't killed with the keeper by the kernel: it has to be found.
    let run = format!(
        "k=$PPID; setsid sh -c 'echo $$ > {}; exec sleep 1000' & while [ ! -s {0} ]; do :; done; kill -9 $k; sleep 1000",
        note.display()
    );
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let left = pids(&note, 1).await[0];
    let failure = Failure::Internal { message: "the attempt's keeper was killed".to_owned() };
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Failed { failure });
    assert!(!runs(left));

    let note = staged.note("stopper");
    let run = format!("kill -STOP $PPID; echo $$ > {}; sleep 1000", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let left = pids(&note, 1).await[0];
    staged.script.stop(job, Period::ZERO).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    assert!(!runs(left));
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_die_of_real_time_signals_hide_nobody() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!(
        "setsid sh -c 'echo $$ > {}; while :; do sh -c \"kill -34 \\$\\$\"; done' & while [ ! -s {0} ]; do :; done",
        note.display()
    );
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    let left = pids(&note, 1).await[0];
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    assert!(!runs(left));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_stops_its_keeper_again_and_again_is_ended_all_the_same() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    // The next step's order is larger than a socket holds, so that it can't be written to a keeper that doesn't read.
    let stopper = format!(
        "k=$PPID; p=$$; (while [ -d /proc/$p ]; do :; done; while kill -STOP $k; do :; done) >/dev/null 2>&1 & \
         echo $! > {}",
        note.display()
    );
    let large: serde_json::Map<_, _> = (0..7).map(|n| (format!("LARGE_{n}"), json!("x".repeat(32_000)))).collect();
    let job = staged.script.offer(json!({"steps": [{"run": stopper}, {"run": "sleep 1000"}], "env": large})).await;
    let left = pids(&note, 1).await[0];
    staged.script.stop(job, Period::ZERO).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    assert!(!runs(left));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_shut_down_stops_its_attempts_and_tells() {
    let staged = Staged::start(HOST, |_| {}).await;
    let note = staged.note("pids");
    let run = format!("echo $$ > {}; sleep 1000", note.display());
    let job = staged.script.offer(json!({"steps": [{"run": run}], "grace": "1s"})).await;
    let left = pids(&note, 1).await[0];
    staged.worker.stop().await;
    assert!(!runs(left));
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Stopped);
    staged.worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_whose_work_panics_is_told_as_internal_and_the_worker_goes_on() {
    for point in ["step", "runner"] {
        let staged = Staged::start(HOST, |config| {
            config.faults = Some(if point == "step" { |p| assert_ne!(p, "step") } else { |p| assert_ne!(p, "runner") });
        })
        .await;
        let note = staged.note("pids");
        let run = format!("echo $$ > {}; sleep 1000", note.display());
        let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
        if point == "runner" {
            let left = pids(&note, 1).await[0];
            staged.script.stop(job, Period::from_secs(100)).await;
            until("the process's end", || !runs(left)).await;
        }
        let end = staged.script.end(job).await.end;
        assert!(matches!(&end, AttemptEnd::Failed { failure: Failure::Internal { .. } }), "{end:?}");
        let job =
            staged.script.offer(json!({"repository": {"url": "/no/such/place"}, "steps": [{"run": "true"}]})).await;
        let end = staged.script.end(job).await.end;
        assert!(matches!(&end, AttemptEnd::Failed { failure: Failure::CheckoutFailed { .. } }), "{end:?}");
    }
}
