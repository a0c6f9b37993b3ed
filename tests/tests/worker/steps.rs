//! Steps: how they are started, what they find, how their ends are told.

use std::collections::BTreeMap;

use serde_json::json;
use shared::job::{AttemptEnd, Exit, Failure, Progress};
use shared::log::Stream;
use tests::scripted::Staged;

use crate::HOST;

async fn failure(spec: serde_json::Value) -> Failure {
    let staged = Staged::start(HOST, |_| {}).await;
    let job = staged.script.offer(spec).await;
    match staged.script.end(job).await.end {
        AttemptEnd::Failed { failure } => failure,
        end => panic!("the attempt ended with {end:?}"),
    }
}

fn step_failed(exit: Exit, message: Option<&str>) -> Failure {
    Failure::StepFailed { step: 0, exit, message: message.map(str::to_owned) }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exit_code_and_a_signal_are_told_as_they_were() {
    assert_eq!(failure(json!({"steps": [{"run": "exit 7"}]})).await, step_failed(Exit::ExitCode(7), None));
    assert_eq!(failure(json!({"steps": [{"run": "kill -SEGV $$"}]})).await, step_failed(Exit::Signal(11), None));
    let real_time = failure(json!({"steps": [{"run": "kill -34 $$"}]})).await;
    assert_eq!(real_time, step_failed(Exit::Signal(34), None), "a real-time signal has a number and no name");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_started_ends_as_a_shell_would_say_it() {
    let not_found = failure(json!({"steps": [{"exec": ["no-such-program"]}]})).await;
    assert_eq!(not_found, step_failed(Exit::ExitCode(127), Some("no-such-program: not found")));
    let not_executable = failure(json!({"steps": [{"exec": ["/etc/passwd"]}]})).await;
    assert_eq!(not_executable, step_failed(Exit::ExitCode(126), Some("/etc/passwd: Permission denied")));
    assert!(matches!(
        failure(json!({"steps": [{"exec": ["/"]}]})).await,
        Failure::StepFailed { exit: Exit::ExitCode(126), .. }
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_run_one_after_the_other_until_one_fails() {
    let staged = Staged::start(HOST, |_| {}).await;
    let steps = json!([{"run": "echo one > file"}, {"run": "cat file; exit 3"}, {"run": "echo never"}]);
    let job = staged.script.offer(json!({ "steps": steps })).await;
    let end = staged.script.end(job).await;
    let failed = Failure::StepFailed { step: 1, exit: Exit::ExitCode(3), message: None };
    assert_eq!(end.end, AttemptEnd::Failed { failure: failed });
    assert_eq!(staged.script.text(job, Stream::Stdout), "one\n");
    let told: Vec<_> = staged.script.seen().progress.iter().map(|(_, number, what)| (*number, what.clone())).collect();
    assert_eq!(
        told,
        [
            (1, Progress::StepStarted { step: 0 }),
            (2, Progress::StepFinished { step: 0, exit: Exit::ExitCode(0) }),
            (3, Progress::StepStarted { step: 1 }),
            (4, Progress::StepFinished { step: 1, exit: Exit::ExitCode(3) }),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_steps_environment_is_exactly_what_it_was_given() {
    let staged = Staged::start(HOST, |_| {}).await;
    let spec = json!({
        "steps": [{"run": "true"}, {"exec": ["/usr/bin/env", "-0"]}],
        "env": {"GREETING": "hello\nworld", "LANG": "de_DE.UTF-8"},
        "secrets": {"TOKEN": "wxyz"},
    });
    let job = staged.script.offer(spec).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    let text = staged.script.text(job, Stream::Stdout);
    let found: BTreeMap<&str, &str> = text.split_terminator('\0').map(|entry| entry.split_once('=').unwrap()).collect();
    let root = staged.dir.path().join("data").join("work").join(format!("{job}-1"));
    let (home, tmp) = (root.join("home"), root.join("tmp"));
    let (id, path) = (job.to_string(), std::env::var("PATH").unwrap());
    let expected = BTreeMap::from([
        ("PATH", path.as_str()),
        ("HOME", home.to_str().unwrap()),
        ("TMPDIR", tmp.to_str().unwrap()),
        ("LANG", "de_DE.UTF-8"),
        ("CI", "true"),
        ("GREETING", "hello\nworld"),
        // In the log it is masked.
        ("TOKEN", "***"),
        ("WINDLASS_JOB_ID", id.as_str()),
        ("WINDLASS_ATTEMPT", "1"),
        ("WINDLASS_FENCE", "1"),
        ("WINDLASS_STEP", "1"),
    ]);
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_environment_lies_below_the_jobs_own() {
    let staged = Staged::start(HOST, |config| {
        let base = [("HOME", "/callers"), ("CI", "no"), ("OTHER", "x"), ("WINDLASS_COMMIT", "forged"), ("MINE", "1")];
        config.base_env = base.map(|(name, value)| (name.into(), value.into())).into();
    })
    .await;
    let run = "echo $HOME $CI $OTHER ${WINDLASS_COMMIT-none} $MINE";
    let job = staged.script.offer(json!({"steps": [{"run": run}], "env": {"MINE": "2"}})).await;
    staged.script.end(job).await;
    assert_eq!(staged.script.text(job, Stream::Stdout), "/callers true x none 2\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_starts_with_nothing_open_blocked_or_ignored() {
    let staged = Staged::start(HOST, |_| {}).await;
    let run = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l; readlink /proc/self/fd/0";
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    staged.script.end(job).await;
    let none = "0000000000000000";
    // `ls` has its three, and the directory that it reads.
    let expected = format!("SigBlk:\t{none}\nSigIgn:\t{none}\n4\n/dev/null\n");
    assert_eq!(staged.script.text(job, Stream::Stdout), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_on_disk_afterwards() {
    let staged = Staged::start(HOST, |_| {}).await;
    let run = "mkdir -p $HOME/a/b; touch $HOME/a/b/c $TMPDIR/d e; chmod 500 $HOME/a/b; chmod 0 $HOME/a";
    let job = staged.script.offer(json!({"steps": [{"run": run}]})).await;
    assert_eq!(staged.script.end(job).await.end, AttemptEnd::Succeeded);
    staged.worker.stop().await;
    let data = staged.dir.path().join("data");
    assert_eq!(std::fs::read_dir(data.join("work")).unwrap().count(), 0);
    assert_eq!(tests::spooled::names(&data), [""; 0]);
}
