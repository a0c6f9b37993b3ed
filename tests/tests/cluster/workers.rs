//! Workers that enrol, die, come back, rest and leave.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;
use shared::clock;
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::server::Server;
use tests::wait::{eventually, pass};
use tests::windlass::windlass;

use crate::load::noting;

/// Ten times a worker's lease.
const LOST_WITHIN: Duration = Duration::from_secs(150);

/// Waits until the first attempt of the job that notes under this key has begun.
fn begun(cluster: &Cluster, key: &str) {
    let notes = cluster.notes().join(format!("{key}.notes"));
    eventually(LOAD_WITHIN, "its first attempt begins", || notes.exists().then_some(()));
}

#[test]
fn a_job_whose_worker_dies_is_run_again_by_another_once_the_lease_has_ended() {
    let mut cluster = Cluster::start(2, 1);
    let (key, job) = noting(&cluster.notes(), "[ $WINDLASS_ATTEMPT = 2 ] || sleep 1000");
    let id = cluster.submit(&job);
    begun(&cluster, &key);
    cluster.add_worker(&[]);
    cluster.workers[0].kill();
    let dead = clock::instant();
    let ended = cluster.ended(&id, LOST_WITHIN);
    println!("the job had ended {} ms after its worker's death", dead.elapsed().as_millis());
    assert_eq!((ended["state"].as_str(), ended["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{ended}");
    assert_eq!(ended["worker"], cluster.workers[1].id());
    let notes = std::fs::read_to_string(cluster.notes().join(format!("{key}.notes"))).expect("notes");
    assert_eq!(notes, "begin 1\nbegin 2\nend 2\n");
}

#[test]
fn a_worker_that_is_started_again_within_its_lease_tells_at_once_what_it_lost() {
    let mut cluster = Cluster::start(2, 1);
    let (key, job) = noting(&cluster.notes(), "[ $WINDLASS_ATTEMPT = 2 ] || sleep 1000");
    let id = cluster.submit(&job);
    begun(&cluster, &key);
    cluster.workers[0].kill();
    let dead = clock::instant();
    cluster.workers[0].restart();
    let ended = cluster.ended(&id, LOST_WITHIN);
    let took = dead.elapsed();
    println!("the job had ended {} ms after its worker's death", took.as_millis());
    assert_eq!((ended["state"].as_str(), ended["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{ended}");
    let lost =
        cluster.events(&id).into_iter().find(|event| event["kind"] == "worker_lost" || event["kind"] == "retried");
    assert!(lost.is_some_and(|event| event.to_string().contains("anew")), "{:?}", cluster.events(&id));
}

/// The owner of its jobs may know of its restart only from before: that mustn't be held against what it takes then.
#[test]
fn a_worker_that_is_started_again_keeps_what_it_takes_at_once() {
    let mut cluster = Cluster::start(2, 1);
    for round in 1..=4 {
        cluster.workers[0].kill();
        let jobs: Vec<String> = (0..2).map(|_| cluster.submit(&json!({"steps": [{"run": "sleep 2"}]}))).collect();
        cluster.workers[0].restart();
        for id in &jobs {
            let ended = cluster.ended(id, LOST_WITHIN);
            let told = (ended["state"].as_str(), ended["attempt"].as_u64());
            assert_eq!(told, (Some("succeeded"), Some(1)), "round {round}: {:?}", cluster.kinds(id));
        }
    }
}

#[test]
fn what_a_fenced_attempt_still_says_is_refused() {
    let mut cluster = Cluster::start(2, 1);
    let work = "if [ $WINDLASS_ATTEMPT = 1 ]; then i=0; while [ $i -lt 1000 ]; do echo old $i; sleep 0.1; i=$((i+1)); done; \
         else echo new; sleep 30; fi";
    let id = cluster.submit(&json!({"steps": [{"run": work}, {"run": "true"}], "grace": "0s"}));
    cluster.until(&id, "running");
    eventually(LOAD_WITHIN, "it writes", || cluster.text(&id).contains("old 3").then_some(()));
    // The worker stands still past its lease; its attempt's processes don't.
    cluster.workers[0].signal(Signal::SIGSTOP);
    cluster.add_worker(&[]);
    eventually(LOST_WITHIN, "another attempt runs", || {
        (cluster.job(&id)["attempt"] == 2 && cluster.text(&id).contains("new")).then_some(())
    });
    let before = cluster.events(&id).len();
    let lines = cluster.text(&id).lines().filter(|line| line.contains("old")).count();
    cluster.workers[0].signal(Signal::SIGCONT);
    // It hears that its attempt isn't current, ends it, and tells: nothing of that counts.
    cluster.workers[0].server.said("attempt ends");
    let ended = cluster.ended(&id, LOST_WITHIN);
    assert_eq!((ended["state"].as_str(), ended["attempt"].as_u64()), (Some("succeeded"), Some(2)), "{ended}");
    let late: Vec<_> = cluster.events(&id).split_off(before);
    assert!(late.iter().all(|event| event["attempt"] == 2), "{late:?}");
    let after = cluster.text(&id).lines().filter(|line| line.contains("old")).count();
    println!("{lines} lines of the old attempt before it stood still, {after} in the end");
}

#[test]
fn a_worker_needs_a_join_token_that_counts_and_keeps_its_identity() {
    let mut cluster = Cluster::start(1, 1);
    let id = cluster.workers[0].id();
    let token = cluster.client().post("/api/v1/tokens/join", &json!({"expires": "1s"})).json["token"].clone();
    let mut command = windlass();
    let place = tempfile::tempdir().expect("a directory");
    command.arg("worker").env("WINDLASS_DATA_DIR", place.path()).env("HOME", place.path());
    command.env("WINDLASS_NATS_URL", cluster.nats.url()).env("WINDLASS_JOIN_TOKEN", "wlj_nobody");
    let mut stranger = Server::start("the stranger", command);
    stranger.said("join token");
    assert!(!stranger.ended(LOAD_WITHIN).success());
    assert!(token.as_str().is_some_and(|token| !stranger.log().contains(token)));

    cluster.workers[0].kill();
    cluster.workers[0].restart();
    let job = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    assert_eq!(cluster.until(&job, "succeeded")["worker"], id, "it is the same worker");
    let stored = cluster.postgres.rows("SELECT encode(digest, 'hex') FROM tokens");
    assert!(stored.iter().flatten().all(|digest| digest.len() == 64), "tokens are kept as digests");
}

#[test]
fn of_a_worker_and_its_copy_the_one_that_started_last_goes_on_and_the_other_ends() {
    let mut cluster = Cluster::start(1, 1);
    let id = cluster.submit(&json!({"steps": [{"run": "sleep 8"}]}));
    cluster.until(&id, "running");
    let copy = cluster.copy_of_worker(0);
    cluster.workers[0].server.said("drain");
    assert_eq!(cluster.workers[0].ended(LOAD_WITHIN).code(), Some(0));
    let job = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    cluster.until(&job, "succeeded");
    assert!(cluster.workers[copy].server.runs());
}

#[test]
fn a_worker_that_is_told_to_end_finishes_what_runs_and_takes_nothing_new() {
    let mut cluster = Cluster::start(1, 1);
    let id = cluster.submit(&json!({"steps": [{"run": "sleep 3"}]}));
    cluster.until(&id, "running");
    cluster.workers[0].signal(Signal::SIGTERM);
    cluster.workers[0].server.said("drain");
    let waits = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    assert_eq!(cluster.workers[0].ended(LOAD_WITHIN).code(), Some(0));
    let ended = cluster.job(&id);
    assert_eq!((ended["state"].as_str(), ended["attempt"].as_u64()), (Some("succeeded"), Some(1)), "{ended}");
    assert_eq!(cluster.job(&waits)["state"], "queued");
    cluster.workers[0].restart();
    cluster.until(&waits, "succeeded");
}

#[test]
fn a_second_signal_cancels_what_a_draining_worker_runs() {
    let mut cluster = Cluster::start(1, 1);
    let retry = json!({"max_attempts": 1});
    let id = cluster.submit(&json!({"steps": [{"run": "sleep 1000"}], "grace": "1s", "retry": retry}));
    cluster.until(&id, "running");
    cluster.workers[0].signal(Signal::SIGTERM);
    cluster.workers[0].server.said("drain");
    // Two signals within half a second count as one.
    pass(Duration::from_secs(1), "a second signal of its own");
    cluster.workers[0].signal(Signal::SIGTERM);
    cluster.workers[0].ended(LOAD_WITHIN);
    let ended = cluster.ended(&id, LOAD_WITHIN);
    assert_ne!(ended["state"], "succeeded", "{ended}");
}

#[test]
fn a_paused_worker_takes_nothing_until_it_is_resumed_and_a_drained_one_ends() {
    let mut cluster = Cluster::start(2, 1);
    let worker = cluster.workers[0].id();
    let order = |what: &str| {
        let answer = cluster.client().post(&format!("/api/v1/workers/{worker}/{what}"), &json!({}));
        assert!(matches!(answer.status, 200 | 202), "{what}: {}", answer.text);
        answer.json["state"].as_str().expect("a state").to_owned()
    };
    assert_eq!(order("pause"), "paused");
    // A job that runs already goes on; this one comes later.
    let id = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    pass(Duration::from_secs(3), "nothing is taken");
    assert_eq!(cluster.job(&id)["state"], "queued", "{:?}", cluster.kinds(&id));
    cluster.workers[0].kill();
    cluster.workers[0].restart();
    pass(Duration::from_secs(3), "nothing is taken");
    assert_eq!(cluster.job(&id)["state"], "queued", "a restart resumes nothing");
    let order = |what: &str| {
        let answer = cluster.client().post(&format!("/api/v1/workers/{worker}/{what}"), &json!({}));
        assert!(matches!(answer.status, 200 | 202), "{what}: {}", answer.text);
    };
    order("resume");
    cluster.until(&id, "succeeded");
    order("drain");
    assert_eq!(cluster.workers[0].ended(LOAD_WITHIN).code(), Some(0));
    cluster.workers[0].restart();
    let again = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    cluster.until(&again, "succeeded");
}

#[test]
fn a_job_goes_only_to_a_worker_that_has_all_its_tags_and_the_urgent_one_first() {
    let mut cluster = Cluster::start(2, 0);
    cluster.add_worker_with(&["--slots", "1", "--tag", "linux"], &[]);
    let wants =
        |tags: &[&str], priority: &str| json!({"steps": [{"run": "sleep 0.2"}], "tags": tags, "priority": priority});
    let neither = cluster.submit(&wants(&["linux", "gpu"], "urgent"));
    let busy = cluster.submit(&json!({"steps": [{"run": "sleep 2"}], "tags": ["linux"]}));
    cluster.until(&busy, "running");
    let low = cluster.submit(&wants(&["linux"], "low"));
    let normal = cluster.submit(&wants(&["linux"], "normal"));
    let urgent = cluster.submit(&wants(&[], "urgent"));
    let order = [&urgent, &normal, &low].map(|id| cluster.until(id, "succeeded"));
    let started: Vec<_> = order.iter().map(|job| job["started_at"].as_str().expect("a time")).collect();
    assert!(started.is_sorted(), "{started:?}");
    assert_eq!(cluster.job(&neither)["state"], "queued");
    cluster.add_worker_with(&["--slots", "1", "--tag", "gpu", "--tag", "linux"], &[]);
    assert_eq!(cluster.until(&neither, "succeeded")["worker"], cluster.workers[1].id());
}

#[test]
fn a_worker_that_is_revoked_is_refused_everywhere_and_its_job_runs_elsewhere() {
    let mut cluster = Cluster::start(2, 1);
    let (key, job) = noting(&cluster.notes(), "[ $WINDLASS_ATTEMPT = 2 ] || sleep 1000");
    let id = cluster.submit(&job);
    begun(&cluster, &key);
    let worker = cluster.workers[0].id();
    cluster.add_worker(&[]);
    let revoked = cluster.client().post(&format!("/api/v1/workers/{worker}/revoke"), &json!({}));
    assert_eq!((revoked.status, revoked.json["state"].as_str()), (202, Some("revoked")), "{}", revoked.text);
    let since = clock::instant();

    let status = cluster.workers[0].ended(LOST_WITHIN);
    println!("the revoked worker had ended {} ms later", since.elapsed().as_millis());
    assert!(!status.success(), "{status}");
    let log = cluster.workers[0].server.log();
    assert!(log.contains("this worker was revoked"), "{log}");
    let ended = cluster.ended(&id, LOST_WITHIN);
    println!("its job had ended elsewhere {} ms later", since.elapsed().as_millis());
    assert_eq!(
        (ended["state"].as_str(), ended["worker"].as_str()),
        (Some("succeeded"), Some(&*cluster.workers[1].id()))
    );
    // Another start with the same identity is no other worker.
    cluster.workers[0].restart();
    assert!(!cluster.workers[0].ended(LOST_WITHIN).success());
    for coordinator in &cluster.coordinators {
        let workers = coordinator.client.get("/api/v1/workers").json;
        let shown: Vec<_> =
            workers["workers"].as_array().unwrap().iter().map(|worker| worker["state"].clone()).collect();
        assert!(shown.contains(&json!("revoked")), "{shown:?}");
    }
}

#[test]
fn a_token_that_is_revoked_at_one_coordinator_is_refused_by_the_others() {
    let cluster = Cluster::start(2, 0);
    let made = cluster.client().post("/api/v1/tokens", &json!({"role": "viewer", "name": "ann"})).json;
    let (token, id) = (made["token"].as_str().unwrap(), made["id"].as_str().unwrap());
    let [here, there] = [0, 1].map(|index| cluster.coordinators[index].client.with_token(token));
    assert_eq!((here.get("/api/v1/jobs").status, there.get("/api/v1/jobs").status), (200, 200));
    let path = format!("/api/v1/tokens/{id}");
    assert_eq!(cluster.coordinators[0].client.send("DELETE", &path, &[], b"").status, 204);
    let since = clock::instant();
    assert_eq!(here.get("/api/v1/jobs").status, 401, "at once");
    eventually(Duration::from_secs(10), "the other one refuses it", || {
        (there.get("/api/v1/jobs").status == 401).then_some(())
    });
    println!("the other one refused it {} ms later", since.elapsed().as_millis());
}

#[test]
fn a_worker_that_rests_hears_that_it_was_revoked_and_not_that_it_may_go() {
    let mut cluster = Cluster::start(2, 2);
    for (index, coordinator) in [0, 1].into_iter().zip([1, 0]) {
        let worker = cluster.workers[index].id();
        let client = &cluster.coordinators[coordinator].client;
        assert_eq!(client.post(&format!("/api/v1/workers/{worker}/revoke"), &json!({})).status, 202);
        let status = cluster.workers[index].ended(LOST_WITHIN);
        let log = cluster.workers[index].server.log();
        assert!(!status.success() && log.contains("this worker was revoked"), "{status}: {log}");
    }
}
