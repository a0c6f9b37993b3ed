//! What a worker that isn't heard, or hasn't heard, is in the explanation of its job.

use serde_json::{Value, json};
use shared::id::Attempt;
use tests::played::{DEADLINE, Hand};
use tests::wait::eventually;

use crate::{JOB, Server};

fn reason(server: &Server, id: &str, kind: &str) -> Option<Value> {
    let answer = server.get(&format!("/api/v1/jobs/{id}/explain"));
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json["reasons"].as_array().expect("reasons").iter().find(|reason| reason["kind"] == kind).cloned()
}

#[test]
fn a_worker_is_silent_before_its_lease_ends_and_told_once_its_heartbeat_is_answered() {
    let server = Server::start();
    let id = server.submitted(JOB);
    let job = id.parse().expect("an id");
    let hand = server.runtime.block_on(Hand::arrive(&server.played));
    server.runtime.block_on(hand.must_get(job));
    let running = reason(&server, &id, "running").expect("it runs");
    assert_eq!((&running["worker"]["name"], &running["attempt"]), (&json!("hand"), &json!(1)));
    assert_eq!(reason(&server, &id, "worker_silent"), None, "it was heard just now");

    let silent = eventually(DEADLINE, "its worker is silent", || reason(&server, &id, "worker_silent"));
    assert_eq!(silent["worker"]["id"], hand.id.to_string());
    assert!(silent["since"].as_str() < silent["lease_ends"].as_str(), "{silent}");

    server.runtime.block_on(hand.beat(job, Attempt(1)));
    assert_eq!(reason(&server, &id, "worker_silent"), None, "it was heard again");
    let canceled = server.post(&format!("/api/v1/jobs/{id}/cancel"), "{}");
    assert_eq!((canceled.status, &canceled.json["state"]), (202, &json!("canceling")));
    let canceling = reason(&server, &id, "canceling").expect("it is canceled");
    assert_eq!((&canceling["told"], &canceling["told_at"]), (&json!("not_yet"), &Value::Null));
    server.runtime.block_on(hand.beat(job, Attempt(1)));
    let canceling = reason(&server, &id, "canceling").expect("it is canceled");
    assert_eq!(canceling["told"], "yes");
    assert!(canceling["since"].as_str() <= canceling["told_at"].as_str(), "{canceling}");
}
