//! The routes of workers and tokens, and which tokens open the API.

use serde_json::{Value, json};
use shared::clock;
use shared::time::Time;
use tests::played::Hand;

use crate::{Server, refused};

const UNKNOWN: &str = "01934f5e-0000-7000-8000-000000000000";

fn time(value: &Value) -> Time {
    value.as_str().expect("a text").parse().expect("a time")
}

#[test]
fn a_join_token_is_told_once_and_lets_workers_enrol_and_opens_nothing_else() {
    let server = Server::start();
    let made = server.post("/api/v1/tokens/join", r#"{"name": "ci-hosts", "expires": "1h"}"#);
    assert_eq!(made.status, 201, "{}", made.text);
    let token = made.json["token"].as_str().unwrap();
    let random = token.strip_prefix("wlj_").expect("its prefix");
    let alphabet = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    assert!(random.len() == 43 && random.chars().all(alphabet), "{token}");
    let left = time(&made.json["expires_at"]).since(clock::now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left} s");
    let unasked = server.client.send("POST", "/api/v1/tokens/join", &[], b"");
    let left = time(&unasked.json["expires_at"]).since(clock::now()).as_secs();
    assert!((2_591_900..=2_592_000).contains(&left), "{left} s");
    assert_ne!(unasked.json["token"], made.json["token"]);

    let holder = server.client.with_token(token);
    for path in ["/api/v1/jobs", "/api/v1/workers", "/api/openapi.json"] {
        assert_eq!(refused(&holder.get(path), 403), ["Authorization"], "{path}");
    }
    for (body, fields) in [
        (r#"{"expires": "0s"}"#, &["expires"]),
        (r#"{"expires": "soon"}"#, &["expires"]),
        (r#"{"name": ""}"#, &["name"]),
        (r#"{"kind": "admin"}"#, &["kind"]),
    ] {
        assert_eq!(refused(&server.post("/api/v1/tokens/join", body), 422), fields, "{body}");
    }
}

#[test]
fn an_admin_token_of_the_store_opens_the_api_at_once_in_its_own_name() {
    let server = Server::start();
    let ann = server.client.with_token("token-of-ann");
    assert_eq!(refused(&ann.get("/api/v1/jobs"), 401), ["Authorization"]);
    let token = shared::secret::Secret::new("token-of-ann".to_owned());
    for _ in 0..2 {
        // The same one again is no mistake.
        server.runtime.block_on(server.played.service.admit("ann", &token)).unwrap();
    }
    let job = ann.post("/api/v1/jobs", &json!({"steps": [{"run": "ls"}]}));
    assert_eq!(job.status, 201, "{}", job.text);
    let id = job.json["id"].as_str().unwrap();
    let events = ann.get(&format!("/api/v1/jobs/{id}/events")).json;
    assert_eq!(events["events"][0]["actor"], "client:ann");
}

#[test]
fn workers_are_listed_and_told_what_is_wanted_of_them() {
    let server = Server::start();
    assert_eq!(server.get("/api/v1/workers").json, json!({"workers": []}));
    let hand = server.runtime.block_on(Hand::arrive(&server.played));
    let listed = server.get("/api/v1/workers").json["workers"][0].clone();
    assert_eq!(
        listed,
        json!({
            "id": hand.id.to_string(), "name": "hand", "mode": "active", "state": "active", "tags": [], "slots": 8,
            "running": 0, "instance": hand.instance.to_string(), "enrolled_at": listed["enrolled_at"],
            "seen_at": listed["seen_at"],
        })
    );
    let path = format!("/api/v1/workers/{}", hand.id);
    for (what, mode) in [("pause", "paused"), ("drain", "draining"), ("resume", "active"), ("pause", "paused")] {
        let answer = server.post(&format!("{path}/{what}"), "{}");
        assert_eq!((answer.status, answer.json["mode"].as_str()), (202, Some(mode)), "{what}: {}", answer.text);
        assert_eq!(answer.json["state"], mode, "{what}");
        assert_eq!(server.get("/api/v1/workers").json["workers"][0]["mode"], mode);
    }
    for what in ["pause", "resume", "drain"] {
        assert_eq!(refused(&server.post(&format!("/api/v1/workers/{UNKNOWN}/{what}"), ""), 404), ["id"], "{what}");
        assert_eq!(refused(&server.post(&format!("/api/v1/workers/me/{what}"), ""), 400), ["id"], "{what}");
        assert_eq!(refused(&server.post(&format!("{path}/{what}"), r#"{"x": 1}"#), 422), ["x"], "{what}");
        assert_eq!(refused(&server.get(&format!("{path}/{what}")), 405), ["method"], "{what}");
    }
}
