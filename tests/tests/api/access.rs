//! The routes of workers and tokens, and which tokens open the API.

use serde_json::{Value, json};
use shared::bus::{Address, Bus};
use shared::clock;
use shared::time::Time;
use sqlx::{Connection, SqliteConnection};
use std::time::Duration;
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
fn who_tries_join_tokens_is_not_answered_any_more_and_who_has_one_is() {
    let server = Server::start();
    let played = &server.played;
    let answered = |n: usize| {
        let token = shared::secret::Secret::new(format!("guess-{n}"));
        let recipient = shared::seal::OneTimeKey::generate().recipient();
        let enrol = shared::wire::encode(&shared::wire::Enrol { token, name: "host".to_owned(), recipient });
        let reply = played.bus.request(&Address::Enrol, enrol, Duration::from_secs(if n < 20 { 10 } else { 1 }));
        server.runtime.block_on(reply).is_ok()
    };
    let answers: Vec<bool> = (0..30).map(answered).collect();
    let count = answers.iter().filter(|answered| **answered).count();
    assert!(answers[..20].iter().all(|answered| *answered) && count < 30, "{answers:?}");
    server.runtime.block_on(Hand::arrive(played));
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

#[test]
fn a_token_is_made_for_a_role_shown_once_listed_and_revoked() {
    let server = Server::start();
    let made = server.post("/api/v1/tokens", r#"{"role": "operator", "name": "ann", "expires": "1h"}"#);
    assert_eq!(made.status, 201, "{}", made.text);
    let (token, id) = (made.json["token"].as_str().unwrap(), made.json["id"].as_str().unwrap());
    assert!(token.starts_with("wlt_") && token.len() == 47, "{token}");
    let ann = server.client.with_token(token);
    assert_eq!(ann.post("/api/v1/jobs/cancel", &json!({"filter": {"tag": "x"}})).status, 202);
    assert_eq!(refused(&ann.get("/api/v1/tokens"), 403), ["Authorization"]);

    let listed = server.get("/api/v1/tokens");
    let ours = listed.json["tokens"].as_array().unwrap().iter().find(|listed| listed["id"] == id).unwrap();
    assert_eq!((&ours["name"], &ours["kind"]), (&json!("ann"), &json!("operator")));
    let left = time(&ours["expires_at"]).since(clock::now()).as_secs();
    assert!((3500..=3600).contains(&left), "{left} s");
    assert!(!listed.text.contains(&token[4..]), "its text is told once");

    let revoked = server.client.send("DELETE", &format!("/api/v1/tokens/{id}"), &[], b"");
    assert_eq!(revoked.status, 204, "{}", revoked.text);
    assert_eq!(refused(&ann.get("/api/v1/jobs"), 401), ["Authorization"]);
    let again = server.client.send("DELETE", &format!("/api/v1/tokens/{id}"), &[], b"");
    assert_eq!(refused(&again, 404), ["id"]);
    assert!(!server.get("/api/v1/tokens").text.contains(id));

    for (body, fields) in [
        ("{}", &["role", "name"][..]),
        (r#"{"role": "root", "name": ""}"#, &["role", "name"]),
        (r#"{"role": "viewer", "name": "x", "expires": "0s"}"#, &["expires"]),
        (r#"{"role": "viewer", "name": "x", "expires": "366d"}"#, &["expires"]),
        (r#"{"role": "viewer", "name": "x", "digest": ""}"#, &["digest"]),
    ] {
        assert_eq!(refused(&server.post("/api/v1/tokens", body), 422), fields, "{body}");
    }
    let unasked = server.post("/api/v1/tokens", r#"{"role": "viewer", "name": "x"}"#);
    let left = time(&unasked.json["expires_at"]).since(clock::now()).as_secs();
    assert!((7_775_900..=7_776_000).contains(&left), "90 days unless told otherwise, not {left} s");
}

#[test]
fn a_token_that_has_expired_opens_nothing() {
    let server = Server::start();
    let made = server.post("/api/v1/tokens", r#"{"role": "viewer", "name": "brief", "expires": "1s"}"#);
    let brief = server.client.with_token(made.json["token"].as_str().unwrap());
    let ends = time(&made.json["expires_at"]);
    let (status, asked) = (brief.get("/api/v1/jobs").status, clock::now());
    assert!(status == 200 || ends < asked, "{status}");
    let status = tests::wait::eventually(std::time::Duration::from_secs(10), "it has expired", || {
        let status = brief.get("/api/v1/jobs").status;
        (status != 200).then_some(status)
    });
    // The server goes by the database's clock, which it knows to within a moment.
    let late = clock::now().plus(shared::time::Period::from_secs(1));
    assert!(status == 401 && late >= ends, "{status}");
}

#[test]
fn the_first_admins_token_stays_revoked_when_it_is_given_again() {
    let server = Server::start();
    let token = shared::secret::Secret::new("the-first-token".to_owned());
    let again = || server.runtime.block_on(server.played.service.admit("admin", &token)).unwrap();
    again();
    let admin = server.client.with_token("the-first-token");
    let id = admin.get("/api/v1/tokens").json["tokens"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(admin.send("DELETE", &format!("/api/v1/tokens/{id}"), &[], b"").status, 204, "even its own");
    again();
    assert_eq!(admin.get("/api/v1/jobs").status, 401);
}

#[test]
fn every_command_is_in_the_audit_with_who_gave_it_and_from_where() {
    let server = Server::start();
    let made = server.post("/api/v1/tokens", r#"{"role": "operator", "name": "ann"}"#).json;
    let ann = server.client.with_token(made["token"].as_str().unwrap());
    let worker = server.runtime.block_on(Hand::arrive(&server.played)).id.to_string();
    let job = ann.post("/api/v1/jobs", &json!({"steps": [{"run": "ls"}], "secrets": {"A": "hunter2"}}));
    let job = job.json["id"].as_str().unwrap().to_owned();
    let passed = [crate::JSON, ("windlass-passed-from", "192.0.2.7")];
    ann.send("POST", &format!("/api/v1/jobs/{job}/cancel"), &passed, b"{}");
    ann.post(&format!("/api/v1/jobs/{job}/retry"), &json!({}));
    ann.post("/api/v1/jobs/cancel", &json!({"filter": {"tag": "x"}}));
    ann.post(&format!("/api/v1/workers/{worker}/pause"), &json!({}));
    ann.post(&format!("/api/v1/workers/{worker}/revoke"), &json!({}));
    ann.post("/api/v1/vault/rekey", &json!({}));
    ann.get("/api/v1/jobs");

    let audit = server.get("/api/v1/audit");
    assert!(!audit.text.contains("hunter2"));
    let lines = audit.json["lines"].as_array().unwrap();
    let lines = lines.iter().rev().filter(|line| line["actor"] == "client:ann");
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or("-").to_owned();
    let told: Vec<_> =
        lines.map(|line| ["action", "subject", "outcome", "origin"].map(|field| text(line, field))).collect();
    let here = "127.0.0.1";
    let expected = [
        ["job.submit", "", "asked", here],
        ["job.cancel", &job, "asked", "192.0.2.7 via 127.0.0.1"],
        ["job.retry", &job, "asked", here],
        ["job.cancel_by_filter", "", "asked", here],
        ["worker.pause", &worker, "paused", here],
        ["worker.revoke", &worker, "revoked", here],
        ["vault.rekey", "", "refused: it needs the role admin", here],
    ];
    assert_eq!(told, expected.map(|line| line.map(str::to_owned)));

    let of_job = server.get(&format!("/api/v1/audit?subject={job}&limit=1")).json;
    assert_eq!((&of_job["lines"][0]["action"], of_job["lines"].as_array().unwrap().len()), (&json!("job.retry"), 1));
    // An id in another spelling is the same id, and what is none isn't kept.
    ann.post(&format!("/api/v1/jobs/{}/retry", job.to_uppercase()), &json!({}));
    ann.send("DELETE", "/api/v1/tokens/wlt_pasted", &[], b"");
    let of_job = server.get(&format!("/api/v1/audit?subject={job}")).json;
    assert_eq!(of_job["lines"].as_array().unwrap().len(), 3);
    assert!(!server.get("/api/v1/audit").text.contains("wlt_pasted"));
    assert_eq!(refused(&server.get("/api/v1/audit?limit=0&x=1"), 400), ["x", "limit"]);
    let created = server.get(&format!("/api/v1/audit?subject={}", made["id"].as_str().unwrap())).json;
    assert_eq!(created["lines"][0]["outcome"], r#"operator "ann""#);
}

#[test]
fn who_tries_tokens_is_kept_waiting_and_who_has_one_is_not() {
    let server = Server::start();
    let made = server.post("/api/v1/tokens", r#"{"role": "viewer", "name": "ann"}"#).json;
    let ann = server.client.with_token(made["token"].as_str().unwrap());
    // From several sides, so that they come sooner than its tries come back.
    let guess = |n: usize| server.client.with_token(&format!("guess-{n}")).get("/api/v1/jobs").status;
    let mut statuses: Vec<u16> = (0..10).map(guess).collect();
    let more = std::thread::scope(|scope| {
        let sides: Vec<_> = (1..9)
            .map(|side| scope.spawn(move || (0..20).map(|n| guess(side * 100 + n)).collect::<Vec<_>>()))
            .collect();
        sides.into_iter().flat_map(|side| side.join().unwrap()).collect::<Vec<u16>>()
    });
    statuses.extend(more);
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(statuses[..10].iter().all(|status| *status == 401) && refused > 0, "{statuses:?}");
    assert_eq!(statuses.iter().filter(|status| **status == 401).count() + refused, statuses.len());
    let late = server.client.with_token("one-more").get("/api/v1/jobs");
    assert!(late.status == 401 || late.header("retry-after") == "1", "{}", late.text);
    assert_eq!(ann.get("/api/v1/jobs").status, 200);
    assert_eq!(server.get("/api/v1/jobs").status, 200);
}

#[test]
fn no_command_is_answered_as_done_whose_line_is_not_in_the_audit() {
    let server = Server::start();
    let database = format!("sqlite://{}", server.data.path().join("windlass.db").display());
    let rename = |statement: &'static str| {
        server.runtime.block_on(async {
            let mut connection = SqliteConnection::connect(&database).await.expect("the database");
            sqlx::query(statement).execute(&mut connection).await.expect("it is renamed");
        });
    };
    let job = json!({"steps": [{"run": "ls"}]});
    rename("ALTER TABLE audit RENAME TO elsewhere");
    let answer = server.client.post("/api/v1/jobs", &job);
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.json["detail"].as_str().unwrap().contains("the audit can't be written"), "{}", answer.text);
    let made = server.post("/api/v1/tokens/join", "{}");
    assert_eq!((made.status, server.get("/api/v1/tokens").json["tokens"].as_array().unwrap().len()), (500, 0));
    rename("ALTER TABLE elsewhere RENAME TO audit");
    assert_eq!(server.client.post("/api/v1/jobs", &job).status, 201);
}

#[test]
fn an_open_stream_ends_when_its_token_counts_no_more() {
    let server = Server::start();
    let made = server.post("/api/v1/tokens", r#"{"role": "viewer", "name": "ann"}"#).json;
    let job = server.submitted(crate::JOB);
    let ann = server.client.with_token(made["token"].as_str().unwrap());
    let mut events = ann.stream(&format!("/api/v1/jobs/{job}/events"), &[crate::EVENTS]);
    let log = ann.stream(&format!("/api/v1/jobs/{job}/logs?follow=true"), &[crate::TEXT]);
    assert!(events.next().is_some(), "what has happened comes at once");
    let id = made["id"].as_str().unwrap();
    assert_eq!(server.client.send("DELETE", &format!("/api/v1/tokens/{id}"), &[], b"").status, 204);
    let log: Vec<String> = log.collect();
    assert!(log.join(" ").contains("the log is cut off here: the token counts no more"), "{log:?}");
    // The job never ends: only the token ends its stream.
    let since = clock::instant();
    let events: Vec<String> = events.collect();
    assert!(since.elapsed() < Duration::from_mins(1), "{events:?}");
}
