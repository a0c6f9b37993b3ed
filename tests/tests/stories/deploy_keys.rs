//! Deploy keys end to end: registered late or never, changed, refused, with a real sshd that a key alone opens.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tests::dev::{DEADLINE, Dev};
use tests::host::{Host, put};
use tests::sshd::KeyPair;
use tests::wait::{eventually, pass};
use tests::windlass::{Place, Running, windlass};

/// A wait that no test sits out: whoever passes it was woken.
const NEVER: &str = "10m";
/// What the jobs run.
const BUILD: &str = "cat README";

/// The tries to fetch the key so far: number, answer, and the wait before the next one.
fn tries(dev: &Dev, job: &str) -> Vec<(u64, String, Option<String>)> {
    let tries = dev.events(job).into_iter().filter(|event| event["kind"] == "key_try");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    tries
        .map(|event| {
            let number = event["number"].as_u64().expect("a number");
            (number, text(&event["answer"]).expect("an answer"), text(&event["next_in"]))
        })
        .collect()
}

fn until_tries(dev: &Dev, job: &str, count: usize) {
    eventually(DEADLINE, &format!("{count} tries to fetch the key"), || (tries(dev, job).len() >= count).then_some(()));
}

fn kinds(dev: &Dev, job: &str) -> Vec<String> {
    dev.events(job).iter().map(|event| event["kind"].as_str().expect("a kind").to_owned()).collect()
}

/// That the one slot is free: another job gets it and ends.
fn another_job_runs(dev: &Dev) {
    let other = dev.submit(&json!({"steps": [{"run": "true"}]}));
    assert_eq!(dev.ended(&other)["state"], "succeeded");
}

#[test]
fn a_job_whose_key_is_registered_three_seconds_later_goes_on_at_once() {
    let (host, dev) = (Host::new(), Dev::start());
    let job = dev.submit(&host.job(BUILD, &json!({"retry": {"first": NEVER, "max": NEVER, "deadline": "1h"}})));
    until_tries(&dev, &job, 1);
    pass(Duration::from_secs(3), "nobody registers the key");
    assert_eq!(dev.job(&job)["state"], "assigned");
    host.register(&dev.client);
    let ended = dev.ended(&job);
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert_eq!((&ended["attempt"], &ended["commit"]), (&json!(1), &json!(host.repo.head())));
    let tries = tries(&dev, &job);
    assert_eq!((tries[0].0, tries[0].1.as_str()), (1, "not_registered"));
    assert!(tries[0].2.is_some(), "the next delay is told: {tries:?}");
    let (.., last) = (tries.len(), tries.last().expect("a try"));
    assert_eq!((last.1.as_str(), &last.2), ("sealed", &None), "{tries:?}");
    assert!(dev.text(&job).contains("what a job builds"), "{}", dev.text(&job));
}

#[test]
fn a_job_whose_key_never_comes_is_parked_without_a_worker_and_then_fails() {
    let (host, dev) = (Host::new(), Dev::start_with(&["--slots", "1"]));
    let job = dev.submit(&host.job(BUILD, &json!({"wait": "3s", "retry": {"tries": 3, "first": "50ms"}})));
    let parked = dev.until(&job, "blocked");
    assert_eq!(parked["attempt"], 1);
    another_job_runs(&dev);
    let ended = dev.ended(&job);
    assert_eq!((&ended["state"], &ended["outcome"]["reason"]), (&json!("failed"), &json!("deploy_key_missing")));
    assert!(ended["outcome"]["message"].as_str().expect("a message").contains("app"), "{ended}");
    let tries = tries(&dev, &job);
    assert_eq!(tries.iter().map(|(number, ..)| *number).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(tries.iter().all(|(_, answer, _)| answer == "not_registered"));
    assert_eq!(tries.iter().map(|(.., next)| next.is_some()).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(kinds(&dev, &job).iter().filter(|kind| *kind == "retried").count(), 0, "no try of the job is used up");
}

#[test]
fn a_job_that_is_to_fail_without_its_key_does_so_after_its_tries() {
    let (host, dev) = (Host::new(), Dev::start());
    let job = dev.submit(&host.job(BUILD, &json!({"on_missing": "fail", "retry": {"tries": 2, "first": "50ms"}})));
    let ended = dev.ended(&job);
    assert_eq!((&ended["state"], &ended["outcome"]["reason"]), (&json!("failed"), &json!("deploy_key_missing")));
    assert_eq!(tries(&dev, &job).len(), 2);
    assert!(!kinds(&dev, &job).contains(&"blocked".to_owned()));
}

#[test]
fn a_parked_job_goes_on_when_its_key_is_registered() {
    let (host, dev) = (Host::new(), Dev::start());
    let job = dev.submit(&host.job(BUILD, &json!({"retry": {"tries": 1}})));
    dev.until(&job, "blocked");
    host.register(&dev.client);
    let ended = dev.ended(&job);
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("succeeded"), &json!(2)), "{ended}");
    let kinds = kinds(&dev, &job).join(" ");
    assert!(kinds.contains("assigned key_try blocked queued assigned key_try checked_out started"), "{kinds}");
}

#[test]
fn a_parked_job_survives_a_crash_and_hears_of_a_key_afterwards() {
    let (host, mut dev) = (Host::new(), Dev::start());
    let job = dev.submit(&host.job(BUILD, &json!({"retry": {"tries": 1}})));
    dev.until(&job, "blocked");
    dev.kill();
    dev.restart();
    assert_eq!(dev.job(&job)["state"], "blocked");
    host.register(&dev.client);
    assert_eq!(dev.ended(&job)["state"], "succeeded");
}

#[test]
fn a_cancel_ends_the_wait_for_a_key_and_a_parked_job_at_once() {
    let (host, dev) = (Host::new(), Dev::start_with(&["--slots", "1"]));
    let waiting = dev.submit(&host.job(BUILD, &json!({"retry": {"first": NEVER, "max": NEVER, "deadline": "1h"}})));
    until_tries(&dev, &waiting, 1);
    assert_eq!(dev.cancel(&waiting, &json!({"reason": "not needed"})).0, 202);
    let ended = dev.ended(&waiting);
    assert_eq!((&ended["state"], &ended["outcome"]["confirmed"]), (&json!("canceled"), &json!(true)));
    another_job_runs(&dev);

    let parked = dev.submit(&host.job(BUILD, &json!({"retry": {"tries": 1}})));
    dev.until(&parked, "blocked");
    assert_eq!(dev.cancel(&parked, &json!({})), (202, "canceled".to_owned()));
    let outcome = &dev.job(&parked)["outcome"];
    assert_eq!(outcome["confirmed"], true, "its worker has let it go: {outcome}");
    host.register(&dev.client);
    another_job_runs(&dev);
    assert_eq!(dev.job(&parked)["state"], "canceled", "a key that comes later changes nothing");
}

#[test]
fn a_host_whose_key_has_changed_is_refused_by_name_and_not_tried_again() {
    let (mut host, dev) = (Host::new(), Dev::start());
    host.register(&dev.client);
    host.sshd.change_host_key();
    let job = dev.submit(&host.job(BUILD, &json!({})));
    let ended = dev.ended(&job);
    assert_eq!((&ended["outcome"]["reason"], &ended["attempt"]), (&json!("checkout_failed"), &json!(1)), "{ended}");
    let message = ended["outcome"]["message"].as_str().expect("a message");
    assert!(message.contains("127.0.0.1") && message.contains("host key"), "{message}");
}

#[test]
fn a_key_that_the_host_does_not_know_is_denied_at_once() {
    let (host, dev) = (Host::new(), Dev::start());
    let other = KeyPair::new();
    let registered = put(&dev.client, &json!({"private_key": other.private, "known_hosts": host.sshd.known_hosts()}));
    assert_eq!(registered.status, 201, "{}", registered.text);
    let job = dev.submit(&host.job(BUILD, &json!({})));
    let ended = dev.ended(&job);
    assert_eq!((&ended["outcome"]["reason"], &ended["attempt"]), (&json!("deploy_key_denied"), &json!(1)), "{ended}");
    // With the right one in its place the next job goes on.
    assert_eq!(put(&dev.client, &json!({"private_key": host.key.private})).status, 200);
    let job = dev.submit(&host.job(BUILD, &json!({})));
    assert_eq!(dev.ended(&job)["state"], "succeeded");
}

#[test]
fn a_key_is_added_and_used_from_the_command_line() {
    let (host, dev, place) = (Host::new(), Dev::start(), Place::new());
    let (key, hosts) = (place.path("deploy_key"), place.path("hosts"));
    std::fs::write(&key, &host.key.private).expect("a file");
    std::fs::write(&hosts, host.sshd.known_hosts()).expect("a file");
    let add = |name: &str, pair: &[&str]| {
        let mut command: Command = windlass();
        command.args(["key", "add", name, "--known-hosts"]).arg(&hosts).args(pair);
        Running::start({
            command.env("WINDLASS_DATA_DIR", dev.data_dir()).env("HOME", place.path("."));
            command
        })
        .finish()
    };
    let added = add("app", &["--file", key.to_str().expect("UTF-8")]);
    assert_eq!(added.code, Some(0), "{}", added.said());
    let again = add("app", &["--generate"]);
    assert_ne!(again.code, Some(0), "a key that is there isn't replaced by adding");
    assert!(again.said().contains("rotate"), "{}", again.said());
    let made = add("fresh", &["--generate"]);
    assert!(made.out().starts_with("ssh-ed25519 "), "the public half to register: {}", made.out());
    assert!(!made.out().contains("PRIVATE") && !made.said().contains("PRIVATE"));
    let job = dev.submit(&host.job(BUILD, &json!({})));
    assert_eq!(dev.ended(&job)["state"], "succeeded");
}

#[test]
fn run_of_a_ref_that_is_not_there_ends_with_125_and_names_it() {
    let (host, place) = (Host::new(), Place::new());
    let text = |path: &std::path::Path| path.to_str().expect("UTF-8").to_owned();
    let (key, hosts) = (text(&place.path("deploy_key")), text(&place.path("hosts")));
    std::fs::write(&key, &host.key.private).expect("a file");
    std::fs::write(&hosts, host.sshd.known_hosts()).expect("a file");
    let with = ["--repo", &host.url(), "--ref", "no-such-branch", "--deploy-key", &key, "--known-hosts", &hosts];
    let finished = place.run(&[&with[..], &["--", "cat", "README"]].concat());
    assert_eq!(finished.code, Some(125), "{}", finished.said());
    assert!(finished.said().contains("no-such-branch"), "{}", finished.said());
    assert_eq!(place.left(), Vec::<std::path::PathBuf>::new());
}
