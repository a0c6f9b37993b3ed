//! Why a job isn't running, asked of a replica that doesn't own it.

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::wait::eventually;

/// The reason of that kind, as the coordinator of that index says it, if it does.
fn reason(cluster: &Cluster, coordinator: usize, id: &str, kind: &str) -> Option<Value> {
    let answer = cluster.coordinators[coordinator].client.get(&format!("/api/v1/jobs/{id}/explain"));
    assert_eq!(answer.status, 200, "explaining job {id}: {}", answer.text);
    answer.json["reasons"].as_array().expect("reasons").iter().find(|reason| reason["kind"] == kind).cloned()
}

#[test]
fn every_replica_knows_the_lease_of_a_silent_worker_and_what_a_queued_job_waits_for() {
    let cluster = Cluster::start(2, 1);
    let queued = cluster.submit(&json!({"steps": [{"run": "true"}], "tags": ["gpu"]}));
    let running = cluster.submit(&json!({"steps": [{"run": "sleep 1000"}]}));
    cluster.until(&running, "running");
    let (owner, other) = (cluster.owner(&running), cluster.other(&running));
    for coordinator in [owner, other] {
        let missing = reason(&cluster, coordinator, &queued, "no_worker_has_tags").expect("no worker has the tag");
        assert_eq!(missing["missing"], json!(["gpu"]));
        assert!(reason(&cluster, coordinator, &running, "running").is_some());
    }
    cluster.workers[0].signal(Signal::SIGSTOP);
    let silent = eventually(LOAD_WITHIN, "the other replica says that the worker is silent", || {
        reason(&cluster, other, &running, "worker_silent")
    });
    assert_eq!(silent["worker"]["id"], cluster.workers[0].id());
    // Only the owner knows when the lease ends.
    assert!(silent["since"].as_str() < silent["lease_ends"].as_str(), "{silent}");
    cluster.workers[0].signal(Signal::SIGCONT);
}

#[test]
fn what_is_known_without_the_owner_is_said_when_it_does_not_answer() {
    let cluster = Cluster::start(2, 1);
    let id = cluster.submit(&json!({"steps": [{"run": "sleep 1000"}]}));
    cluster.until(&id, "running");
    let (owner, other) = (cluster.owner(&id), cluster.other(&id));
    cluster.coordinators[owner].server.signal(Signal::SIGSTOP);
    let away = eventually(LOAD_WITHIN, "nobody owns the job", || reason(&cluster, other, &id, "no_owner"));
    assert_eq!(away, json!({"kind": "no_owner"}));
    eventually(LOAD_WITHIN, "the other replica has taken it over", || {
        (reason(&cluster, other, &id, "no_owner").is_none() && reason(&cluster, other, &id, "running").is_some())
            .then_some(())
    });
    cluster.coordinators[owner].server.signal(Signal::SIGCONT);
}
