//! `windlass dev` as something that is started, stopped and left alone: its directory, its files, its signals.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use shared::clock;
use tests::dev::{DEADLINE, Dev};
use tests::process::{Mark, escape, noted};
use tests::windlass::{Running, files, windlass};

/// Ten times what an end with jobs that obey may take.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it is there").permissions().mode() & 0o777
}

#[test]
fn what_dev_keeps_is_for_its_owner_alone() {
    let dev = Dev::start();
    let dir = dev.data_dir();
    let id = dev.submit(&json!({"steps": [{"run": "sleep 1000"}], "secrets": {"TOKEN": "hunter2hunter2"}}));
    dev.until(&id, "running");
    assert_eq!(mode(&dir), 0o700);
    for name in ["token", "master.key", "windlass.db", "windlass.db-wal", "lock"] {
        assert_eq!(mode(&dir.join(name)), 0o600, "{name}");
    }
    for path in files(&dir) {
        let open: Vec<_> = path.ancestors().take_while(|dir| dir.starts_with(dev.data_dir())).map(mode).collect();
        assert!(open.contains(&0o700), "{} is open to others", path.display());
    }
}

#[test]
fn a_second_dev_on_the_same_directory_is_refused_by_name() {
    let dev = Dev::start();
    let dir = dev.data_dir();
    for command in ["dev", "run"] {
        let mut second = windlass();
        second.args([command, "--data-dir"]).arg(&dir).env("HOME", &dir);
        match command {
            "run" => second.args(["--", "true"]),
            _ => second.args(["--listen", "127.0.0.1:0"]),
        };
        let refused = Running::start(second).finish();
        let said = refused.said();
        assert_eq!(refused.code, Some(if command == "run" { 125 } else { 1 }), "{said}");
        let by_name = format!("{} is in use by another windlass (pid {})", dir.display(), dev.pid());
        assert!(said.contains(&by_name) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(dev.client.get("/api/v1/jobs").status, 200);
}

#[test]
fn sigterm_stops_dev_and_what_ran_runs_again_at_the_next_start() {
    let (mut dev, mark) = (Dev::start(), Mark::fresh());
    let dir = tempfile::tempdir().expect("a temporary directory");
    let note = dir.path().join("escaped");
    let (name, value) = mark.entry();
    let script = format!("[ $WINDLASS_ATTEMPT = 1 ] || exit 0; {}; sleep 1000", escape(&note));
    let env = json!({name: value});
    let ran = dev.submit(&json!({"steps": [{"run": script}], "env": env, "grace": "1s"}));
    let waits = dev.submit(&json!({"steps": [{"run": "true"}], "run_at": "2126-01-01T00:00:00Z"}));
    noted(&note);

    let begun = clock::instant();
    let status = dev.stop();
    assert_eq!(status.code(), Some(0), "{}", dev.log());
    assert!(begun.elapsed() < STOPPED_WITHIN, "it took {} ms", begun.elapsed().as_millis());
    assert!(mark.is_gone());
    assert!(!dev.data_dir().join("url").exists());

    dev.restart();
    let job = dev.ended(&ran);
    assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(2)), "{job}");
    let told = dev.events(&ran).into_iter().find(|event| event["kind"] == "retried").expect("the timeline tells of it");
    assert_eq!((&told["attempt"], &told["reason"]), (&json!(1), &json!("worker_lost")), "{told}");
    assert_eq!(dev.job(&waits)["state"], "scheduled");
}

#[test]
fn an_idle_dev_stops_at_once_and_its_token_stays() {
    let mut dev = Dev::start();
    let token = || fs::read_to_string(dev.data_dir().join("token")).expect("a token");
    let first = token();
    let begun = clock::instant();
    assert_eq!(dev.stop().code(), Some(0));
    println!("stopped after {} ms", begun.elapsed().as_millis());
    assert!(begun.elapsed() < DEADLINE);
    dev.restart();
    assert_eq!(fs::read_to_string(dev.data_dir().join("token")).expect("a token"), first);
}

#[test]
fn an_address_that_is_taken_is_named() {
    let dev = Dev::start();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("its address").to_string();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut second = windlass();
    second.args(["dev", "--listen", &address, "--data-dir"]).arg(dir.path().join("data")).env("HOME", dir.path());
    let refused = Running::start(second).finish();
    assert_eq!(refused.code, Some(1));
    assert!(refused.said().contains(&address) && refused.said().lines().count() == 1, "{}", refused.said());
    drop(dev);
}
