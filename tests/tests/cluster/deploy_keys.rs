//! Deploy keys in a cluster: registered at any replica, asked for while the store is away, moved to another master key, and
//! never in the clear anywhere but in a worker's memory.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use serde_json::json;
use shared::clock;
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::host::Host;
use tests::nats::dealt_with;
use tests::process::{carrying, command_lines};
use tests::sshd::KeyPair;
use tests::wait::{eventually, pass};
use tests::windlass::{Running, contains, files};

/// A wait that no test sits out.
const NEVER: &str = "10m";
/// How long the store is away: longer than the coordinators' leases and several tries.
const OUTAGE: Duration = Duration::from_secs(8);

/// The numbers of the tries to fetch the key, by their answer.
fn tries(cluster: &Cluster, job: &str) -> BTreeMap<String, Vec<u64>> {
    let mut tries: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for event in cluster.events(job).iter().filter(|event| event["kind"] == "key_try") {
        let (answer, number) = (event["answer"].as_str().expect("an answer"), event["number"].as_u64());
        tries.entry(answer.to_owned()).or_default().push(number.expect("a number"));
    }
    tries
}

fn until_tried(cluster: &Cluster, job: &str, answer: &str) {
    eventually(LOAD_WITHIN, &format!("a try comes to {answer}"), || {
        tries(cluster, job).contains_key(answer).then_some(())
    });
}

#[test]
fn a_key_that_is_registered_at_one_replica_reaches_the_jobs_of_another() {
    let cluster = Cluster::start(2, 1);
    let host = Host::new();
    let waits = cluster.submit(&host.job("true", &json!({"retry": {"first": NEVER, "max": NEVER, "deadline": "1h"}})));
    until_tried(&cluster, &waits, "not_registered");
    let parked = cluster.submit(&host.job("true", &json!({"retry": {"tries": 1}})));
    cluster.until(&parked, "blocked");
    let elsewhere = cluster.other(&waits);
    host.register(&cluster.coordinators[elsewhere].client);
    for job in [&waits, &parked] {
        let ended = cluster.ended(job, LOAD_WITHIN);
        assert_eq!(ended["state"], "succeeded", "{ended}");
    }
}

#[test]
fn the_store_is_gone_during_a_fetch_and_that_uses_up_no_try() {
    let mut cluster = Cluster::start(2, 1);
    let host = Host::new();
    // Two tries, the second only after the outage: time without answers must use up neither.
    let retry = json!({"tries": 3, "backoff": "constant", "first": "4s", "max": "4s", "deadline": "1m"});
    let job = cluster.submit(&host.job("true", &json!({"on_missing": "fail", "retry": retry})));
    until_tried(&cluster, &job, "not_registered");
    cluster.postgres.stop();
    pass(OUTAGE, "an outage");
    cluster.postgres.start_again();
    cluster.until_spread();
    until_tried(&cluster, &job, "unavailable");
    let register = || (host.put(cluster.client()).status < 300).then_some(());
    eventually(LOAD_WITHIN, "the key is registered", register);
    let ended = cluster.ended(&job, LOAD_WITHIN);
    let tries = tries(&cluster, &job);
    assert_eq!((&ended["state"], &ended["attempt"]), (&json!("succeeded"), &json!(1)), "{ended} {tries:?}");
    let unavailable = &tries["unavailable"];
    assert_eq!(*unavailable, (1..=unavailable.len() as u64).collect::<Vec<_>>(), "a count of their own");
    let answered = tries["not_registered"].len() as u64;
    assert_eq!(tries["not_registered"], (1..=answered).collect::<Vec<_>>());
    assert_eq!(tries["sealed"], [answered + 1]);
}

/// Everything that is said over NATS from now on.
struct Tapped(Arc<Mutex<Vec<Vec<u8>>>>);

impl Tapped {
    fn of(url: String) -> Self {
        let all = Arc::new(Mutex::new(Vec::new()));
        let (heard, (ready, begun)) = (Arc::clone(&all), std::sync::mpsc::sync_channel(1));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let client = async_nats::connect(url).await.expect("a connection");
                let mut messages = client.subscribe(">").await.expect("a subscription");
                dealt_with(&client).await;
                ready.send(()).expect("somebody waits");
                while let Some(message) = messages.next().await {
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(message.payload.to_vec());
                }
            });
        });
        begun.recv().expect("the tap listens");
        Self(all)
    }

    fn messages(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Where anything of the private key is to be found: files, the database, messages, arguments and environments.
fn leaks(cluster: &Cluster, tapped: &Tapped, key: &KeyPair) -> Vec<String> {
    let traces = key.traces();
    let holds = |bytes: &[u8]| traces.iter().any(|trace| contains(bytes, trace));
    let mut found = Vec::new();
    for path in files(cluster.place()).into_iter().chain(files(&cluster.nats.store())) {
        // What is gone by then can't be searched, nor can a socket.
        if holds(&fs::read(&path).unwrap_or_default()) {
            found.push(path.display().to_string());
        }
    }
    if holds(&cluster.postgres.dump()) {
        found.push("the database".to_owned());
    }
    let said = tapped.messages().iter().filter(|message| holds(message)).count();
    if said > 0 {
        found.push(format!("{said} messages"));
    }
    for (pid, arguments) in command_lines() {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        if holds(&arguments) || holds(&environment) {
            found.push(format!("process {pid}: {}", String::from_utf8_lossy(&arguments)));
        }
    }
    for server in cluster.coordinators.iter().map(|c| &c.server).chain(cluster.workers.iter().map(|w| &w.server)) {
        if holds(server.log().as_bytes()) {
            found.push("a log".to_owned());
        }
    }
    found
}

#[test]
fn no_file_no_message_and_no_process_ever_shows_a_private_key() {
    let mut cluster = Cluster::start(2, 0);
    let tapped = Tapped::of(cluster.nats.url());
    let host = Host::new();
    host.register(cluster.client());
    let tmp = cluster.place().join("tmp");
    fs::create_dir(&tmp).expect("a directory");
    let tmp = tmp.to_str().expect("UTF-8").to_owned();
    cluster.add_worker(&[("TMPDIR", &tmp)]);
    let clean = |cluster: &Cluster, when: &str| {
        assert_eq!(leaks(cluster, &tapped, &host.key), Vec::<String>::new(), "{when}");
    };

    let done = cluster.submit(&host.job("[ -z \"$SSH_AUTH_SOCK\" ] && cat README", &json!({})));
    assert_eq!(cluster.ended(&done, LOAD_WITHIN)["state"], "succeeded", "{}", cluster.text(&done));
    clean(&cluster, "after a success");
    let failed = cluster.submit(&host.job("exit 1", &json!({})));
    assert_eq!(cluster.ended(&failed, LOAD_WITHIN)["outcome"]["reason"], "step_failed");
    clean(&cluster, "after a failure");

    // While a step has the agent, nobody has the key.
    let notes = cluster.notes();
    let note = notes.join("agent");
    let script = format!("ssh-add -L > {0}.part && mv {0}.part {0}; sleep 1000", note.display());
    let canceled = cluster.submit(&host.job(&script, &json!({"in_steps": true})));
    let listed = eventually(LOAD_WITHIN, "the step has asked its agent", || fs::read_to_string(&note).ok());
    let blob = host.key.public.split(' ').nth(1).expect("a key");
    assert!(listed.contains(blob), "the agent offers the key: {listed}");
    clean(&cluster, "while a step has the agent");
    cluster.client().post(&format!("/api/v1/jobs/{canceled}/cancel"), &json!({}));
    assert_eq!(cluster.ended(&canceled, LOAD_WITHIN)["state"], "canceled");
    clean(&cluster, "after a cancel");

    // Killed in the middle of a fetch, and while a step has the agent.
    fs::remove_file(&note).expect("a note");
    let held = cluster.submit(&host.job(&script, &json!({"in_steps": true})));
    eventually(LOAD_WITHIN, "the step has asked its agent", || fs::read_to_string(&note).ok());
    let large: String = (0..1000).map(|_| STANDARD.encode(clock::random::<1024>())).collect();
    host.repo.commit(&[("large", &large)]);
    host.sshd.hold_up();
    let fetching = cluster.submit(&host.job("true", &json!({})));
    until_tried(&cluster, &fetching, "sealed");
    eventually(LOAD_WITHIN, "a fetch is under way", || {
        let git = |arguments: &[u8]| contains(arguments, b"fetch") && contains(arguments, b"git");
        command_lines().iter().any(|(_, arguments)| git(arguments)).then_some(())
    });
    clean(&cluster, "during a fetch");
    cluster.workers[0].kill();
    for job in [&held, &fetching] {
        eventually(LOAD_WITHIN, "nothing of the job runs", || {
            carrying("WINDLASS_JOB_ID", job).is_empty().then_some(())
        });
    }
    clean(&cluster, "after the worker was killed");
    host.sshd.let_go();
    assert!(tapped.messages().len() > 20, "the tap hears what is said");
}

#[test]
fn master_keys_are_exchanged_one_replica_at_a_time_and_every_key_still_opens() {
    let mut cluster = Cluster::start(2, 1);
    let host = Host::new();
    host.register(cluster.client());
    let secret = json!({"steps": [{"run": "[ $TOKEN = hunter2 ]"}], "secrets": {"TOKEN": "hunter2"},
        "run_at": clock::now().plus(shared::time::Period::from_secs(3600)).to_string()});
    let old = cluster.master_keys().to_owned();
    let new = format!("next:{}", STANDARD.encode(clock::random::<32>()));
    let waiting = cluster.submit(&secret);
    for keys in [format!("{old},{new}"), format!("{new},{old}")] {
        for index in 0..2 {
            cluster.coordinators[index].server.stop();
            cluster.restart_coordinator(index, &[("WINDLASS_MASTER_KEYS", &keys)]);
            cluster.until_spread();
        }
    }
    let moved = cluster.client().post("/api/v1/vault/rekey", &json!({}));
    assert_eq!(moved.status, 200, "{}", moved.text);
    assert_eq!(moved.json["resealed"], 2, "the deploy key and the job's secrets: {}", moved.text);
    for index in 0..2 {
        cluster.coordinators[index].server.stop();
        cluster.restart_coordinator(index, &[("WINDLASS_MASTER_KEYS", &new)]);
        cluster.until_spread();
    }
    let job = cluster.submit(&host.job("cat README", &json!({})));
    assert_eq!(cluster.ended(&job, LOAD_WITHIN)["state"], "succeeded");
    cluster.client().post(&format!("/api/v1/jobs/{waiting}/cancel"), &json!({}));
    let again = cluster.client().post(&format!("/api/v1/jobs/{waiting}/retry"), &json!({}));
    let again = again.json["id"].as_str().expect("a job").to_owned();
    assert_eq!(cluster.ended(&again, LOAD_WITHIN)["state"], "succeeded", "its secrets open");

    // Whoever has the old one alone doesn't get in.
    let mut command = cluster.coordinator_command();
    command.env("WINDLASS_MASTER_KEYS", &old);
    let finished = Running::start(command).finish();
    assert_ne!(finished.code, Some(0));
    assert!(finished.said().contains("next"), "the key that is missing is named: {}", finished.said());
}
