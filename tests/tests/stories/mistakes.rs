//! What people get wrong, or meet on a machine that isn't as it should be: told in one line that names it.

use std::fs::File;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::json;
use tests::dev::{DEADLINE, Dev};
use tests::process::{Mark, send};
use tests::repo::Repo;
use tests::wait::eventually;
use tests::windlass::{Finished, Place, Running, windlass};

/// Settings of a command.
type Variables = &'static [(&'static str, &'static str)];

fn ended(command: Command) -> Finished {
    Running::start(command).finish()
}

fn with(arguments: &[&str]) -> Command {
    let mut command = windlass();
    command.args(arguments).env("HOME", "/nonexistent");
    command
}

#[test]
fn a_mistake_is_told_in_one_line_that_names_what_it_came_by() {
    let cases: [(&[&str], Variables, i32, &str); 9] = [
        (&["job", "list", "--url", "foo"], &[], 2, "--url: foo is not a URL"),
        (&["job", "list"], &[("WINDLASS_URL", "foo")], 2, "WINDLASS_URL: foo is not a URL"),
        (&["job", "list"], &[("WINDLASS_TOKEN", "two words")], 2, "WINDLASS_TOKEN: holds no token"),
        (&["run", "--timeout", "x", "--", "true"], &[], 125, "windlass run --help"),
        (&["coordinator"], &[], 2, "WINDLASS_DATABASE_URL: is not set"),
        (&["coordinator"], &[("WINDLASS_DATABASE_URL", "sqlite:///x")], 2, "windlass dev"),
        (&["coordinator"], &[("WINDLASS_DATABASE_URL", "postgres://h/d")], 2, "WINDLASS_MASTER_KEYS: is not set"),
        (
            &["dev"],
            &[("WINDLASS_DATABASE_URL", "postgres://h/d"), ("WINDLASS_DATA_DIR", "/nonexistent/d")],
            2,
            "windlass coordinator",
        ),
        (&["migrate"], &[], 2, "WINDLASS_DATABASE_URL: is not set"),
    ];
    for (arguments, variables, code, words) in cases {
        let mut command = with(arguments);
        command.envs(variables.iter().copied());
        let ended = ended(command);
        let said = ended.said();
        assert_eq!((ended.code, said.lines().count()), (Some(code), 1), "{arguments:?}: {said}");
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
}

#[test]
fn a_worker_without_an_identity_and_a_join_token_says_how_to_get_one() {
    let place = Place::new();
    let mut command = with(&["worker"]);
    command.env("WINDLASS_DATA_DIR", place.path("data")).env("WINDLASS_NATS_URL", "nats://127.0.0.1:9");
    let ended = ended(command);
    assert_eq!(ended.code, Some(2));
    assert!(ended.said().contains("WINDLASS_JOIN_TOKEN: is not set") && ended.said().contains("windlass token join"));
}

#[test]
fn a_password_in_a_url_is_repeated_nowhere() {
    let place = Place::new();
    for url in ["https://user:hunter2@host/app.git", "user:hunter2@host:app.git"] {
        let ran = place.run(&["--repo", url, "--", "true"]);
        assert_eq!(ran.code, Some(125));
        assert!(!ran.said().contains("hunter2") && ran.said().contains("must hold no password"), "{}", ran.said());
        let submitted = ended(with(&["job", "submit", "--repo", url, "--", "true"]));
        assert!(submitted.code == Some(2) && !submitted.said().contains("hunter2"), "{}", submitted.said());
    }
}

#[test]
fn a_directory_within_a_repository_is_answered_with_the_repositorys_top() {
    let (place, repo) = (Place::new(), Repo::new());
    repo.commit(&[("src/main.txt", "")]);
    let inside = format!("{}/src", repo.url());
    let ran = place.run(&["--repo", &inside, "--", "true"]);
    assert_eq!(ran.code, Some(125));
    assert!(ran.said().contains(&format!("name that one, {}", repo.url())), "{}", ran.said());
}

#[test]
fn what_cannot_be_written_is_no_success() {
    for arguments in [&["--help"][..], &["run", "--help"], &["--version"], &["completions", "bash"]] {
        let mut command = with(arguments);
        command.stdout(File::create("/dev/full").expect("a full device"));
        let ended = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&ended.stderr);
        assert_ne!(ended.status.code(), Some(0), "{arguments:?}");
        assert!(said.contains("writing standard output"), "{arguments:?}: {said}");
    }
}

#[test]
fn what_a_killed_run_has_left_is_removed_by_the_next() {
    let (place, mark) = (Place::new(), Mark::fresh());
    let (name, value) = mark.entry();
    let entry = format!("{name}={value}");
    let running = Running::start(place.command(&["--env", &entry, "--", "sleep", "1000"]));
    eventually(DEADLINE, "the job runs", || (!mark.is_gone()).then_some(()));
    let left = place.left();
    assert_eq!(left.len(), 1);
    // One that still runs keeps its directory.
    assert_eq!(place.run(&["--", "true"]).code, Some(0));
    assert_eq!(place.left(), left);
    send(running.pid(), Signal::SIGKILL);
    running.finish();
    mark.until_gone(DEADLINE);
    assert!(left[0].join("master.key").exists());
    assert_eq!(place.run(&["--", "true"]).code, Some(0));
    assert!(place.left().is_empty(), "{:?}", place.left());
}

#[test]
fn two_sigterms_in_a_row_are_one_wish() {
    let mut dev = Dev::start();
    let id = dev.submit(&json!({"steps": [{"run": "trap 'sleep 1; exit 0' TERM; while :; do sleep 0.1; done"}]}));
    dev.until(&id, "running");
    // As timeout(1) does it: the program, and then its group.
    send(dev.pid(), Signal::SIGTERM);
    eventually(DEADLINE, "it stops", || dev.log().contains("a second signal stops at once").then_some(()));
    let status = dev.stop();
    assert_eq!(status.code(), Some(0), "{}", dev.log());
    assert!(dev.log().contains("stopped") && !dev.log().contains("stopping at once"), "{}", dev.log());
}

#[test]
fn a_full_disk_does_not_keep_run_from_its_timeout() {
    // Blocks of 512 bytes that each of its files may have, as on a disk that is full: with the first the end of the job can
    // still be stored, with the second nothing can once the job runs.
    for blocks in [2000, 900] {
        let place = Place::new();
        let script = format!(
            "trap '' XFSZ; ulimit -f {blocks}; \
             exec {} run --timeout 1s --grace 0s -- sh -c 'while :; do echo filling the log; done'",
            tests::windlass::path().display()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]).env("HOME", place.path("tmp")).env("TMPDIR", place.path("tmp"));
        let ended = ended(command);
        assert_eq!(ended.code, Some(124), "{blocks}: {}", ended.said());
        assert!(ended.said().contains("its timeout passed"), "{blocks}: {}", ended.said());
        assert!(place.left().is_empty(), "{blocks}: {:?}", place.left());
    }
}
