//! A cancel in every state, through a replica that doesn't own the job's shard.

use std::time::Duration;

use serde_json::{Value, json};
use tests::cluster::{Cluster, LOAD_WITHIN};
use tests::http::Answer;
use tests::process::Mark;
use tests::wait::eventually;

/// Ten times what the end of a tree may take.
const GONE_WITHIN: Duration = Duration::from_secs(30);

/// Cancels a job through a coordinator that isn't its owner.
fn cancel_elsewhere(cluster: &Cluster, id: &str, how: &Value) -> Answer {
    let other = cluster.other(id);
    cluster.coordinators[other].client.post(&format!("/api/v1/jobs/{id}/cancel"), how)
}

#[test]
fn a_cancel_through_a_replica_that_does_not_own_the_job_works_in_every_state() {
    let mut cluster = Cluster::start(2, 0);
    let scheduled = cluster.submit(&json!({"steps": [{"run": "true"}], "run_at": "2099-01-01T00:00:00Z"}));
    let queued = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    for (id, state) in [(&scheduled, "scheduled"), (&queued, "queued")] {
        assert_eq!(cluster.job(id)["state"], state);
        let answer = cancel_elsewhere(&cluster, id, &json!({"reason": "not wanted"}));
        assert_eq!((answer.status, answer.json["state"].as_str()), (202, Some("canceled")), "{}", answer.text);
    }
    cluster.add_worker(&[]);
    let mark = Mark::fresh();
    let (name, value) = mark.entry();
    let stubborn = "trap '' TERM; echo trapped; while :; do sleep 1; done";
    let running = cluster.submit(&json!({"steps": [{"run": stubborn}], "env": {name: value}, "grace": "1h"}));
    cluster.until(&running, "running");
    eventually(LOAD_WITHIN, "it doesn't hear SIGTERM", || cluster.text(&running).contains("trapped").then_some(()));
    let answer = cancel_elsewhere(&cluster, &running, &json!({"reason": "enough"}));
    assert_eq!((answer.status, answer.json["state"].as_str()), (202, Some("canceling")), "{}", answer.text);
    let answer = cancel_elsewhere(&cluster, &running, &json!({"force": true}));
    assert_eq!(answer.status, 202, "{}", answer.text);
    mark.until_gone(GONE_WITHIN);
    let ended = cluster.ended(&running, LOAD_WITHIN);
    assert_eq!((ended["state"].as_str(), ended["outcome"]["confirmed"].as_bool()), (Some("canceled"), Some(true)));
    assert_eq!(
        (ended["outcome"]["why"].as_str(), ended["outcome"]["by"].as_str()),
        (Some("enough"), Some("client:admin"))
    );
    let done = cluster.submit(&json!({"steps": [{"run": "true"}]}));
    cluster.until(&done, "succeeded");
    let answer = cancel_elsewhere(&cluster, &done, &json!({}));
    assert_eq!((answer.status, answer.json["state"].as_str()), (200, Some("succeeded")), "{}", answer.text);
    cluster.judged(&[scheduled, queued, running, done], LOAD_WITHIN);
}

#[test]
fn a_cancel_whose_worker_is_gone_ends_unconfirmed_after_its_grace() {
    let mut cluster = Cluster::start(2, 1);
    let id = cluster.submit(&json!({"steps": [{"run": "sleep 1000"}], "grace": "1s"}));
    cluster.until(&id, "running");
    cluster.workers[0].kill();
    let answer = cancel_elsewhere(&cluster, &id, &json!({}));
    assert_eq!((answer.status, answer.json["state"].as_str()), (202, Some("canceling")), "{}", answer.text);
    let ended = cluster.ended(&id, LOAD_WITHIN);
    assert_eq!((ended["state"].as_str(), ended["outcome"]["confirmed"].as_bool()), (Some("canceled"), Some(false)));
    assert!(!cluster.kinds(&id).contains(&"retried".to_owned()), "a canceled job is never retried");
}

#[test]
fn a_cancel_while_nats_is_gone_is_committed_and_reaches_the_worker_when_it_is_back() {
    let mut cluster = Cluster::start(2, 1);
    let mark = Mark::fresh();
    let (name, value) = mark.entry();
    let id = cluster.submit(&json!({"steps": [{"run": "sleep 1000"}], "env": {name: value}, "grace": "1m"}));
    cluster.until(&id, "running");
    cluster.nats.stop();
    let answer = cancel_elsewhere(&cluster, &id, &json!({"grace": "30s"}));
    assert_eq!((answer.status, answer.json["state"].as_str()), (202, Some("canceling")), "{}", answer.text);
    cluster.nats.start_again();
    mark.until_gone(LOAD_WITHIN);
    let ended = cluster.ended(&id, LOAD_WITHIN);
    assert_eq!((ended["state"].as_str(), ended["outcome"]["confirmed"].as_bool()), (Some("canceled"), Some(true)));
}

#[test]
fn a_cancel_by_filter_reaches_the_jobs_of_every_owner() {
    let cluster = Cluster::start(3, 0);
    let ids: Vec<String> = (0..60)
        .map(|n| {
            let team = if n % 2 == 0 { "core" } else { "web" };
            cluster.submit(&json!({"steps": [{"run": "true"}], "labels": {"team": team}}))
        })
        .collect();
    let body = json!({"filter": {"label": "team=core"}, "reason": "a freeze"});
    let answer = cluster.coordinators[1].client.post("/api/v1/jobs/cancel", &body);
    assert_eq!((answer.status, answer.json["matched"].as_u64()), (202, Some(30)), "{}", answer.text);
    for (n, id) in ids.iter().enumerate() {
        let job = cluster.job(id);
        let (state, why) = if n % 2 == 0 { ("canceled", Some("a freeze")) } else { ("queued", None) };
        assert_eq!((job["state"].as_str(), job["outcome"]["why"].as_str()), (Some(state), why), "{job}");
    }
}
