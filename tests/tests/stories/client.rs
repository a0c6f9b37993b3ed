//! `windlass job`: the client on the command line, what it prints and what it ends with.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::dev::{DEADLINE, Dev};
use tests::process::send;
use tests::wait::eventually;
use tests::windlass::{Finished, Running, windlass};

/// Runs `windlass job` for that server to its end.
fn job(dev: &Dev, arguments: &[&str]) -> Finished {
    Running::start(dev.client_command(arguments)).finish()
}

/// Runs it with `--output json`, which must succeed and print one document.
fn document(dev: &Dev, arguments: &[&str]) -> Value {
    let ended = job(dev, &[&["--output", "json"], arguments].concat());
    assert_eq!(ended.code, Some(0), "{arguments:?}: {}", ended.said());
    serde_json::from_str(&ended.out()).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", ended.out()))
}

/// Runs it and returns the one line that it prints.
fn line(dev: &Dev, arguments: &[&str]) -> String {
    let ended = job(dev, arguments);
    assert_eq!((ended.code, ended.out().lines().count()), (Some(0), 1), "{arguments:?}: {}", ended.said());
    ended.out().trim_end().to_owned()
}

#[test]
fn a_job_is_submitted_watched_and_shown() {
    let dev = Dev::start();
    let id = line(
        &dev,
        &[
            "submit",
            "--label",
            "team=core",
            "--name",
            "greet",
            "--env",
            "WHOM=world",
            "--",
            "sh",
            "-c",
            "echo hello $WHOM",
        ],
    );
    let watched = job(&dev, &["watch", &id]);
    assert_eq!(watched.code, Some(0), "{}", watched.said());
    for words in ["submitted by client:dev", "queued", "step 0 (greet) started", "succeeded", "\nwaited "] {
        assert!(watched.out().contains(words), "{words}: {}", watched.out());
    }
    let shown = job(&dev, &["show", &id]);
    assert_eq!(shown.code, Some(0));
    for words in [id.as_str(), "succeeded", "greet", "team=core", "step 0 (greet) ended: exit code 0"] {
        assert!(shown.out().contains(words), "{words}: {}", shown.out());
    }
    let logs = job(&dev, &["logs", &id]);
    assert_eq!((logs.code, logs.out().as_str()), (Some(0), "hello world\n"), "{}", logs.said());
    let listed = job(&dev, &["list", "--label", "team=core"]);
    assert!(listed.out().contains(&id) && listed.out().starts_with("ID"), "{}", listed.out());
    assert!(!job(&dev, &["list", "--state", "failed"]).out().contains(&id));
}

#[test]
fn with_json_every_command_prints_what_the_api_answers() {
    let dev = Dev::start();
    let submitted = document(&dev, &["submit", "--", "echo", "hello"]);
    let id = submitted["id"].as_str().expect("an id").to_owned();
    let watched = document(&dev, &["watch", &id]);
    assert_eq!(watched["events"].as_array().map(Vec::len), Some(dev.events(&id).len()));
    assert_eq!(document(&dev, &["show", &id]), dev.job(&id));
    assert_eq!(document(&dev, &["logs", &id])["lines"][0]["text"], "hello");
    assert_eq!(document(&dev, &["list"])["jobs"][0]["id"], json!(id));
    assert_eq!(document(&dev, &["cancel", &id]), json!({"id": id, "state": "succeeded"}));
    let again = document(&dev, &["retry", &id]);
    assert_eq!(again["retry_of"], json!(id));
    assert_eq!(document(&dev, &["cancel", "--label", "none"]), json!({"matched": 0}));
    // A log that is followed is a document a line.
    let followed = job(&dev, &["logs", "-f", &id, "--output", "json"]);
    let lines: Vec<Value> = followed.out().lines().map(|l| serde_json::from_str(l).expect("a document")).collect();
    assert_eq!(lines[0]["text"], "hello");
}

#[test]
fn a_file_or_standard_input_holds_jobs_too() {
    let dev = Dev::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("jobs.json");
    let jobs = json!({"jobs": [{"steps": [{"run": "exit 0"}]}, {"steps": [{"run": "exit 1"}]}]});
    std::fs::write(&file, jobs.to_string()).expect("a file");
    let ended = job(&dev, &["submit", "--wait", file.to_str().expect("UTF-8")]);
    assert_eq!((ended.code, ended.out().lines().count()), (Some(1), 2), "{}", ended.said());
    assert!(ended.said().contains(" succeeded\n") && ended.said().contains(" failed\n"), "{}", ended.said());
}

#[test]
fn the_code_says_how_it_went() {
    let dev = Dev::start();
    let unknown = "01934f5e-0000-7000-8000-000000000000";
    let failing = line(&dev, &["submit", "--", "false"]);
    let cases: [(&[&str], i32); 9] = [
        (&["submit", "--wait", "--", "true"], 0),
        (&["submit", "--wait", "--", "false"], 1),
        (&["watch", &failing], 1),
        (&["show", unknown], 1),
        (&["logs", unknown], 1),
        (&["cancel", unknown], 1),
        (&["show", "not-an-id"], 2),
        (&["submit"], 2),
        (&["submit", "--tag", "a b", "--", "true"], 1),
    ];
    for (arguments, code) in cases {
        let ended = job(&dev, arguments);
        assert_eq!(ended.code, Some(code), "{arguments:?}: {}", ended.said());
        assert!(code == 0 || !(ended.said() + &ended.out()).is_empty(), "{arguments:?}");
    }
}

#[test]
fn without_a_server_or_with_a_wrong_token_the_last_line_says_what_is_wrong() {
    let dev = Dev::start();
    let wrong = Running::start({
        let mut command = dev.client_command(&["list"]);
        command.env("WINDLASS_TOKEN", "wrong");
        command
    })
    .finish();
    let empty = TempDir::new().expect("a temporary directory");
    let mut command = windlass();
    command.args(["job", "list", "--url", "http://127.0.0.1:9"]).env("WINDLASS_TOKEN", "any").env("HOME", empty.path());
    let nobody = Running::start(command).finish();
    for (ended, words) in [(wrong, "token"), (nobody, "http://127.0.0.1:9")] {
        let said = ended.said();
        assert_eq!((ended.code, ended.out().as_str()), (Some(1), ""), "{said}");
        assert!(said.lines().last().is_some_and(|last| last.contains(words)), "{said}");
    }
}

#[test]
fn a_running_jobs_log_is_followed_to_its_end() {
    let dev = Dev::start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let go = dir.path().join("go");
    let script = format!("echo first; while [ ! -e {} ]; do sleep 0.05; done; seq 2 5000; printf last", go.display());
    let id = line(&dev, &["submit", "--", "sh", "-c", &script]);
    let following = Running::start(dev.client_command(&["logs", "-f", &id]));
    eventually(DEADLINE, "the first line", || (following.stdout() == "first\n").then_some(()));
    assert_eq!(dev.job(&id)["state"], "running");
    std::fs::write(&go, "").expect("a file");
    let followed = following.finish();
    let between = (2..=5000).map(|n| format!("{n}\n")).collect::<Vec<_>>().concat();
    assert_eq!(followed.code, Some(0), "{}", followed.said());
    assert!(followed.out() == format!("first\n{between}last\n"), "{} bytes", followed.out().len());
    assert_eq!(dev.job(&id)["state"], "succeeded");
    assert_eq!(job(&dev, &["logs", &id]).out(), followed.out());
}

#[test]
fn a_log_is_followed_across_a_restart_of_dev() {
    let mut dev = Dev::start();
    let id = line(
        &dev,
        &["submit", "--", "sh", "-c", "echo attempt $WINDLASS_ATTEMPT; [ $WINDLASS_ATTEMPT = 2 ] || sleep 1000"],
    );
    dev.until(&id, "running");
    eventually(DEADLINE, "a line of log", || dev.text(&id).contains("attempt 1").then_some(()));
    dev.restart();
    let followed = job(&dev, &["logs", "-f", &id]);
    let steps: Vec<String> = followed.out().lines().filter(|l| l.starts_with("attempt")).map(str::to_owned).collect();
    assert_eq!(
        (followed.code, steps),
        (Some(0), vec!["attempt 1".to_owned(), "attempt 2".to_owned()]),
        "{}",
        followed.said()
    );
    assert_eq!(job(&dev, &["logs", &id, "--attempt", "2"]).out(), "attempt 2\n");
}

#[test]
fn jobs_are_canceled_by_id_and_by_filter() {
    let dev = Dev::start_with(&["--slots", "1"]);
    let running = line(&dev, &["submit", "--", "sleep", "1000"]);
    dev.until(&running, "running");
    let queued: Vec<String> =
        (0..3).map(|_| line(&dev, &["submit", "--label", "batch=7", "--", "sleep", "1000"])).collect();
    let canceled = line(&dev, &["cancel", "--label", "batch=7", "--reason", "not needed"]);
    assert_eq!(canceled, "3 matched");
    for id in &queued {
        let outcome = dev.until(id, "canceled")["outcome"].clone();
        assert_eq!((&outcome["why"], &outcome["confirmed"]), (&json!("not needed"), &json!(true)));
        assert!(dev.events(id).iter().all(|event| event["kind"] != "assigned"), "it never started");
    }
    let answered = job(&dev, &["cancel", &running, "--grace", "0s"]);
    assert!(answered.code == Some(0) && answered.out().contains("canceling"), "{}", answered.out());
    assert_eq!(dev.until(&running, "canceled")["outcome"]["confirmed"], true);
    assert_eq!(job(&dev, &["watch", &running]).code, Some(1));
}

#[test]
fn workers_and_tokens_are_managed_from_the_command_line() {
    let dev = Dev::start_with(&["--slots", "3", "--tag", "linux"]);
    let windlass = |arguments: &[&str]| {
        let mut command = windlass();
        command.args(arguments).env("WINDLASS_DATA_DIR", dev.data_dir()).env("HOME", dev.data_dir());
        Running::start(command).finish()
    };
    let worker = eventually(DEADLINE, "the worker has said hello", || {
        let listed = windlass(&["workers", "list", "--output", "json"]);
        let workers: Value = serde_json::from_str(&listed.out()).expect("a document");
        Some(workers["workers"][0].clone()).filter(|worker| worker["state"] == "active")
    });
    assert_eq!((&worker["slots"], &worker["tags"]), (&json!(3), &json!(["linux"])), "{worker}");
    let id = worker["id"].as_str().expect("an id");
    let table = windlass(&["workers", "list"]).out();
    assert!(table.starts_with("ID ") && table.contains(id) && table.contains("0 of 3"), "{table}");

    let paused = windlass(&["workers", "pause", id]);
    assert!(paused.code == Some(0) && paused.out().contains("paused"), "{} {}", paused.out(), paused.said());
    let waits = line(&dev, &["submit", "--", "true"]);
    let resumed: Value =
        serde_json::from_str(&windlass(&["workers", "resume", id, "--output", "json"]).out()).expect("a document");
    assert_eq!((&resumed["id"], &resumed["mode"]), (&json!(id), &json!("active")));
    dev.until(&waits, "succeeded");
    let unknown = windlass(&["workers", "drain", "01934f5e-0000-7000-8000-000000000000"]);
    assert!(unknown.code == Some(1) && unknown.said().contains("there is no such worker"), "{}", unknown.said());

    let made = windlass(&["token", "join", "--name", "ci", "--expires", "1h"]);
    assert_eq!((made.code, made.out().lines().count()), (Some(0), 1), "{}", made.said());
    assert!(made.out().starts_with("wlj_") && made.said().contains("workers can enrol with it until"));
    let made: Value =
        serde_json::from_str(&windlass(&["token", "join", "--output", "json"]).out()).expect("a document");
    assert!(made["token"].as_str().is_some_and(|token| token.starts_with("wlj_")), "{made}");
}

#[test]
fn whoever_stops_reading_ends_the_client_quietly() {
    let dev = Dev::start();
    let id = line(&dev, &["submit", "--", "seq", "100000"]);
    dev.until(&id, "succeeded");
    let following = Running::start({
        let mut shell = std::process::Command::new("sh");
        let client = format!("{} job logs {id} | head -n 1", tests::windlass::path().display());
        shell.args(["-c", &client]).env("WINDLASS_DATA_DIR", dev.data_dir());
        shell
    });
    let ended = following.finish();
    assert_eq!((ended.out().as_str(), ended.said().as_str()), ("1\n", ""));
}

#[test]
fn a_client_that_watches_can_be_interrupted_without_harm() {
    let dev = Dev::start();
    let id = line(&dev, &["submit", "--", "sleep", "1000"]);
    let watching = Running::start(dev.client_command(&["watch", &id]));
    eventually(Duration::from_mins(1), "it watches", || watching.stdout().contains("started").then_some(()));
    send(watching.pid(), Signal::SIGINT);
    watching.finish();
    assert_eq!(dev.job(&id)["state"], "running");
}
