//! The HTTP API over a real connection: what each route answers, and what each refuses.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::net::TcpStream;

use coordinator::api::{ApiServer, Tokens, serve};
use serde_json::{Value, json};
use shared::bus::Address;
use shared::id::{Attempt, JobId};
use shared::job::AttemptEnd;
use shared::log::{Chunk, LogSummary, Segment, Stream};
use shared::secret::Secret;
use shared::wire::{self, LogBatch, LogReply, ReportKind};
use tempfile::TempDir;
use tests::http::{Answer, Client};
use tests::played::{DEADLINE, Hand, Played};
use tokio::runtime::Runtime;

mod api {
    mod access;
    mod bodies;
    mod explain;
    mod keys;
    mod passing;
    mod roles;
}

const TOKEN: &str = "a-token-of-the-tests";
const JOB: &str = r#"{"steps": [{"run": "ls"}]}"#;
const JSON: (&str, &str) = ("Content-Type", "application/json");
const EVENTS: (&str, &str) = ("Accept", "text/event-stream");
const TEXT: (&str, &str) = ("Accept", "text/plain");

/// The API of a coordinator without workers.
struct Server {
    api: ApiServer,
    client: Client,
    played: Played,
    runtime: Runtime,
    data: TempDir,
}

impl Server {
    fn start() -> Self {
        let (runtime, data) = (Runtime::new().unwrap(), TempDir::new().unwrap());
        let played = runtime.block_on(Played::start(&data.path().join("windlass.db")));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tokens = Tokens::one("dev", &Secret::new(TOKEN.to_owned()));
        let api = serve(listener, played.service.clone(), tokens).unwrap();
        let client = Client::new(&format!("http://{}", api.address()), TOKEN);
        Self { api, client, played, runtime, data }
    }

    fn get(&self, path: &str) -> Answer {
        self.client.get(path)
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        self.client.send("POST", path, &[JSON], body.as_bytes())
    }

    fn submitted(&self, body: &str) -> String {
        let answer = self.post("/api/v1/jobs", body);
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json["id"].as_str().unwrap().to_owned()
    }

    /// The messages of a stream, until it closes.
    fn messages(&self, path: &str, headers: &[(&str, &str)]) -> Vec<String> {
        let lines: Vec<String> = self.client.stream(path, &[&[EVENTS], headers].concat()).collect();
        lines.join("\n").split_terminator("\n\n").map(|message| message.trim_end().to_owned()).collect()
    }
}

/// The fields that a problem names; it must be a proper one of that status.
#[track_caller]
fn refused(answer: &Answer, status: u16) -> Vec<&str> {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.json["status"], status);
    for field in ["type", "title", "detail"] {
        assert!(answer.json[field].as_str().is_some_and(|text| !text.is_empty()), "{}", answer.text);
    }
    answer.rejected_fields()
}

#[test]
fn a_job_is_submitted_shown_canceled_and_run_again() {
    let server = Server::start();
    let answer = server.post("/api/v1/jobs", JOB);
    assert_eq!(answer.status, 201);
    let job = answer.json.clone();
    let id = job["id"].as_str().unwrap();
    assert_eq!(answer.header("location"), format!("/api/v1/jobs/{id}"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    assert_eq!(answer.header("cache-control"), "no-store");
    assert_eq!(job["state"], "queued");
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}")).json, job);
    assert_eq!(server.get("/api/v1/jobs").json, json!({"jobs": [job], "next_cursor": null}));
    assert_eq!(refused(&server.post(&format!("/api/v1/jobs/{id}/retry"), ""), 409), ["id"]);

    let canceled = server.client.send("POST", &format!("/api/v1/jobs/{id}/cancel"), &[], b"");
    assert_eq!((canceled.status, canceled.json), (202, json!({"id": id, "state": "canceled"})));
    let again =
        server.post(&format!("/api/v1/jobs/{id}/cancel"), r#"{"reason": "late", "force": true, "grace": "0s"}"#);
    assert_eq!((again.status, again.json), (200, json!({"id": id, "state": "canceled"})));
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}")).json["outcome"]["by"], "client:dev");

    let retried = server.post(&format!("/api/v1/jobs/{id}/retry"), "");
    assert_eq!((retried.status, &retried.json["retry_of"]), (201, &job["id"]));
}

#[test]
fn a_key_returns_the_first_job_and_refuses_another_body() {
    let server = Server::start();
    let submit = |key: &str, body: &str| {
        let headers = [JSON, ("Idempotency-Key", key)];
        server.client.send("POST", "/api/v1/jobs", &headers, body.as_bytes())
    };
    let first = submit("k1", JOB);
    let second = submit("k1", JOB);
    assert_eq!((first.status, second.status), (201, 200));
    assert_eq!(first.json["id"], second.json["id"]);
    let other = r#"{"steps": [{"run": "pwd"}]}"#;
    assert_eq!(refused(&submit("k1", other), 422), ["Idempotency-Key"]);
    assert_eq!(refused(&submit("k2", &format!(r#"{{"jobs": [{JOB}]}}"#)), 400), ["Idempotency-Key"]);
    let twice = [JSON, ("Idempotency-Key", "k4"), ("Idempotency-Key", "k5")];
    assert_eq!(refused(&server.client.send("POST", "/api/v1/jobs", &twice, JOB.as_bytes()), 400), ["Idempotency-Key"]);
    assert_eq!(refused(&submit("", JOB), 400), ["Idempotency-Key"]);
    assert_eq!(refused(&submit(&"k".repeat(256), JOB), 400), ["Idempotency-Key"]);

    let batch = |key: &str| {
        let jobs = json!({"jobs": [{"steps": [{"run": "ls"}]}, {"steps": [{"run": "id"}], "idempotency_key": key}]});
        server.post("/api/v1/jobs", &jobs.to_string())
    };
    let jobs = batch("k3");
    assert_eq!((jobs.status, jobs.json["jobs"].as_array().unwrap().len()), (201, 2));
    assert_eq!(refused(&batch("k1"), 422), ["jobs[1].idempotency_key"]);
}

#[test]
fn what_is_malformed_is_refused_by_name() {
    let server = Server::start();
    let id = server.submitted(JOB);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let bodies: [(&[u8], u16, &[&str]); 10] = [
        (b"", 400, &["body"]),
        (b"{", 400, &["body"]),
        (b"{} {}", 400, &["body"]),
        (b"{\"steps\": [{\"run\": \"\xff\"}]}", 400, &["body"]),
        (deep.as_bytes(), 400, &["body"]),
        (br#"{"steps": [{"run": "ls", "run": "pwd"}], "env": {"A": "1", "A": "2"}}"#, 400, &["steps[0].run", "env.A"]),
        (b"[]", 422, &["body"]),
        (br#"{"steps": [{"run": ""}], "x": 1}"#, 422, &["steps[0].run", "x"]),
        (br#"{"jobs": []}"#, 422, &["jobs"]),
        (br#"{"jobs": [{"steps": [{"run": "ls"}]}, {"steps": 1}]}"#, 422, &["jobs[1].steps"]),
    ];
    for (body, status, fields) in bodies {
        let answer = server.client.send("POST", "/api/v1/jobs", &[JSON], body);
        assert_eq!(refused(&answer, status), fields, "{:?}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }
    let queries = [
        ("/api/v1/jobs?state=done", "state"),
        ("/api/v1/jobs?limit=0", "limit"),
        ("/api/v1/jobs?limit=1001", "limit"),
        ("/api/v1/jobs?limit=1&limit=1", "limit"),
        ("/api/v1/jobs?cursor=x", "cursor"),
        ("/api/v1/jobs?cursor=", "cursor"),
        ("/api/v1/jobs?colour=red", "colour"),
        ("/api/v1/jobs?tag=%ff", "tag"),
        ("/api/v1/jobs?label=%00", "label"),
        ("/api/v1/jobs/1", "id"),
        ("/api/v1/jobs/%ff", "id"),
        ("/api/v1/jobs/1/events", "id"),
        ("/api/v1/jobs/1/logs", "id"),
        ("/api/v1/jobs/ID?x=1", "x"),
        ("/api/v1/jobs/ID/events?after=-1", "after"),
        ("/api/v1/jobs/ID/events?follow=true", "follow"),
        ("/api/v1/jobs/ID/logs?attempt=0", "attempt"),
        ("/api/v1/jobs/ID/logs?after=9223372036854775808", "after"),
        ("/api/v1/jobs/ID/logs?follow=yes", "follow"),
    ];
    for (path, field) in queries {
        assert_eq!(refused(&server.get(&path.replace("ID", &id)), 400), [field], "{path}");
    }
    let stream = [EVENTS, ("Last-Event-ID", "x")];
    for of in ["events", "logs"] {
        let answer = server.client.send("GET", &format!("/api/v1/jobs/{id}/{of}"), &stream, b"");
        assert_eq!(refused(&answer, 400), ["Last-Event-ID"], "{of}");
    }
    assert_eq!(refused(&server.post("/api/v1/jobs?dry_run=1", JOB), 400), ["dry_run"]);
    assert_eq!(server.get("/api/v1/jobs").json["jobs"].as_array().unwrap().len(), 1, "nothing was stored");
}

#[test]
fn a_cancel_is_read_as_strictly_as_a_submission() {
    let server = Server::start();
    let id = server.submitted(JOB);
    let one = format!("/api/v1/jobs/{id}/cancel");
    let cases: [(&str, &str, u16, &[&str]); 11] = [
        (&one, r#"{"reason": 1, "force": "yes", "grace": "-1s", "x": 1}"#, 422, &["reason", "force", "grace", "x"]),
        (&one, "[]", 422, &["body"]),
        (&one, "x", 400, &["body"]),
        ("/api/v1/jobs/1/cancel", "", 400, &["id"]),
        ("/api/v1/jobs/01934f5e-0000-7000-8000-000000000000/cancel", "", 404, &["id"]),
        ("/api/v1/jobs/01934f5e-0000-7000-8000-000000000000/retry", "", 404, &["id"]),
        ("/api/v1/jobs/cancel", "", 400, &["body"]),
        ("/api/v1/jobs/cancel", "{}", 422, &["filter"]),
        ("/api/v1/jobs/cancel", r#"{"filter": {"tag": null}}"#, 422, &["filter"]),
        ("/api/v1/jobs/cancel", r#"{"filter": {"state": "done"}, "force": true}"#, 422, &["filter.state", "force"]),
        (
            "/api/v1/jobs/cancel",
            r#"{"filter": {"colour": "red", "label": "=x"}}"#,
            422,
            &["filter.label", "filter.colour"],
        ),
    ];
    for (path, body, status, fields) in cases {
        assert_eq!(refused(&server.post(path, body), status), fields, "{path} {body}");
    }
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}")).json["state"], "queued");
}

#[test]
fn a_cancel_by_filter_is_for_the_jobs_that_match() {
    let server = Server::start();
    let core = server.submitted(r#"{"steps": [{"run": "ls"}], "labels": {"team": "core"}}"#);
    let web = server.submitted(r#"{"steps": [{"run": "ls"}], "labels": {"team": "web"}}"#);
    let answer = server.post("/api/v1/jobs/cancel", r#"{"filter": {"label": "team=core"}, "reason": "moved"}"#);
    assert_eq!((answer.status, answer.json), (202, json!({"matched": 1})));
    let messages = server.messages(&format!("/api/v1/jobs/{core}/events"), &[]);
    assert!(messages.last().unwrap().starts_with("event: end"), "{messages:?}");
    assert_eq!(server.get(&format!("/api/v1/jobs/{web}")).json["state"], "queued");
}

#[test]
fn every_route_but_the_probes_asks_for_the_token() {
    let server = Server::start();
    for path in ["/api/v1/jobs", "/api/openapi.json", "/nothing"] {
        for client in [server.client.with_token(""), server.client.with_token("wrong")] {
            let answer = client.get(path);
            assert_eq!(refused(&answer, 401), ["Authorization"], "{path}");
            assert!(answer.header("www-authenticate").starts_with("Bearer"));
        }
    }
    let anyone = server.client.with_token("");
    for path in ["/healthz", "/readyz"] {
        assert_eq!(anyone.get(path).status, 200);
        assert_eq!(anyone.send("HEAD", path, &[], b"").status, 200);
    }
}

#[test]
fn an_unknown_route_method_or_type_is_a_problem() {
    let server = Server::start();
    for path in ["/api", "/api/v1", "/api/v1/jobs/", "/api/v2/jobs", "/metrics"] {
        assert_eq!(refused(&server.get(path), 404), ["path"], "{path}");
    }
    for (method, path, allowed) in [
        ("DELETE", "/api/v1/jobs", "GET, POST"),
        ("GET", "/api/v1/jobs/cancel", "POST"),
        ("POST", "/api/v1/jobs/01934f5e-0000-7000-8000-000000000000", "GET"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("BREW", "/api/v1/jobs", "GET, POST"),
    ] {
        let answer = server.client.send(method, path, &[], b"");
        assert_eq!(refused(&answer, 405), ["method"], "{method} {path}");
        assert_eq!(answer.header("allow"), allowed);
    }
    for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let answer = server.client.send("POST", "/api/v1/jobs", &[("Content-Type", kind)], JOB.as_bytes());
        assert_eq!(refused(&answer, 415), ["Content-Type"], "{kind}");
    }
    assert_eq!(refused(&server.client.send("POST", "/api/v1/jobs", &[], JOB.as_bytes()), 415), ["Content-Type"]);
    let utf8 = [("Content-Type", "Application/JSON; charset=utf-8")];
    assert_eq!(server.client.send("POST", "/api/v1/jobs", &utf8, JOB.as_bytes()).status, 201);
}

#[test]
fn a_body_over_eight_mebibytes_is_refused() {
    let server = Server::start();
    let body = format!(r#"{{"steps": [{{"run": "{}"}}]}}"#, "x".repeat(20 * 1024 * 1024));
    assert_eq!(refused(&server.post("/api/v1/jobs", &body), 413), ["body"]);
    assert_eq!(server.get("/api/v1/jobs").json["jobs"], json!([]));
}

#[test]
fn an_endless_body_is_answered_and_cut_off() {
    let server = Server::start();
    for (token, status) in [(TOKEN, "413"), ("wrong", "401")] {
        let head = format!("POST /api/v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
        let kind = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut sending = TcpStream::connect(server.api.address()).unwrap();
        sending.set_read_timeout(Some(DEADLINE)).unwrap();
        sending.set_write_timeout(Some(DEADLINE)).unwrap();
        sending.write_all(format!("{head}{kind}").as_bytes()).unwrap();
        let reading = BufReader::new(sending.try_clone().unwrap());
        let sender = std::thread::spawn(move || {
            let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x1_0000));
            let began = shared::clock::instant();
            while began.elapsed() < DEADLINE {
                if sending.write_all(chunk.as_bytes()).is_err() {
                    return true;
                }
            }
            false
        });
        let first = reading.lines().next().unwrap().unwrap();
        assert_eq!(first.split(' ').nth(1), Some(status));
        assert!(sender.join().unwrap(), "the connection is closed under the sender");
    }
}

#[test]
fn a_list_is_read_page_by_page_with_its_own_cursor() {
    let server = Server::start();
    let mut ids: Vec<String> = (0..5).map(|_| server.submitted(JOB)).collect();
    ids.sort();
    ids.reverse();
    let mut seen = Vec::new();
    let mut path = "/api/v1/jobs?limit=2&state=queued".to_owned();
    loop {
        let page = server.get(&path).json.clone();
        seen.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        assert_eq!(refused(&server.get(&format!("/api/v1/jobs?cursor={cursor}")), 400), ["cursor"]);
        assert_eq!(refused(&server.get(&format!("/api/v1/jobs?state=failed&cursor={cursor}")), 400), ["cursor"]);
        path = format!("/api/v1/jobs?state=queued&limit=2&cursor={cursor}");
    }
    assert_eq!(seen, ids);
}

#[test]
fn a_timeline_is_streamed_to_its_end_and_resumed() {
    let server = Server::start();
    let id = server.submitted(JOB);
    let path = format!("/api/v1/jobs/{id}/events");
    let mut lines = server.client.stream(&path, &[EVENTS]);
    let mut data = || lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&data()).unwrap()["kind"], "submitted");
    assert_eq!(serde_json::from_str::<Value>(&data()).unwrap()["kind"], "queued");
    server.post(&format!("/api/v1/jobs/{id}/cancel"), "");
    assert_eq!(serde_json::from_str::<Value>(&data()).unwrap()["kind"], "cancel_requested");
    assert_eq!(serde_json::from_str::<Value>(&data()).unwrap()["kind"], "canceled");
    assert_eq!(data(), r#"{"state":"canceled"}"#);
    assert_eq!(lines.find(|line| !line.is_empty()), None, "the stream closes after its end");

    let all = server.messages(&path, &[]);
    assert_eq!(all.len(), 5);
    assert_eq!(server.messages(&format!("{path}?after=3"), &[]), all[3..]);
    assert_eq!(server.messages(&format!("{path}?after=1"), &[("Last-Event-ID", "2")]), all[2..]);
    assert_eq!(server.messages(&format!("{path}?limit=2"), &[]), all[..2]);
    let page = server.get(&format!("{path}?after=1&limit=2")).json.clone();
    let seqs: Vec<_> = page["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, [2, 3]);
    assert!(page["events"][0].get("job").is_none(), "{page}");
}

#[test]
fn a_log_is_followed_until_its_job_has_ended() {
    let server = Server::start();
    let id = server.submitted(JOB);
    let path = format!("/api/v1/jobs/{id}/logs");
    assert_eq!(server.get(&path).json, json!({"lines": [], "next": 0}));
    let plain = server.client.send("GET", &path, &[TEXT], b"");
    assert_eq!((plain.status, plain.text.as_str()), (200, ""), "without follow it doesn't wait");
    assert_eq!(plain.header("content-type"), "text/plain; charset=utf-8");
    let follow = format!("{path}?follow=true");
    let (events, text) = (server.client.stream(&follow, &[]), server.client.stream(&follow, &[TEXT]));
    server.post(&format!("/api/v1/jobs/{id}/cancel"), "");
    assert_eq!(events.collect::<Vec<_>>(), ["event: end", "data: {\"complete\":true}", ""]);
    assert_eq!(text.count(), 0);
}

#[test]
fn a_log_is_shown_in_every_form_from_where_a_reader_left_it() {
    let server = Server::start();
    let id = server.submitted(JOB);
    server.runtime.block_on(write_a_log(&server.played, id.parse().unwrap()));
    let path = format!("/api/v1/jobs/{id}/logs");

    let page = server.get(&format!("{path}?after=1&limit=1")).json;
    assert_eq!(
        (&page["lines"][0]["n"], &page["lines"][0]["text"], &page["next"]),
        (&json!(2), &json!("two"), &json!(2))
    );
    assert_eq!(page["lines"][0]["stream"], "stderr");
    assert_eq!(server.get(&format!("{path}?attempt=2")).json, json!({"lines": [], "next": 0}));
    assert_eq!(server.client.send("GET", &path, &[TEXT], b"").text, "one\ntwo\nthree\n");
    assert_eq!(server.client.send("GET", &format!("{path}?limit=1"), &[TEXT], b"").text, "one\n");

    let all = server.messages(&path, &[]);
    assert_eq!((all.len(), all[3].as_str()), (4, "event: end\ndata: {\"complete\":true}"));
    assert!(all[0].starts_with("id: 1\ndata: {"), "{all:?}");
    assert_eq!(server.messages(&format!("{path}?after=1"), &[("Last-Event-ID", "2")]), all[2..]);
}

/// Runs the job by hand: one attempt that succeeds and writes three lines.
async fn write_a_log(played: &Played, job: JobId) {
    let hand = Hand::arrive(played).await;
    hand.must_get(job).await;
    let segment =
        |stream, text: &str| Segment { at: shared::clock::now(), step: Some(0), stream, text: text.to_owned() };
    let segments = vec![segment(Stream::Stdout, "one\n"), segment(Stream::Stderr, "two\nthree\n")];
    let chunk = Chunk { job, attempt: Attempt(1), number: 1, first_line: 1, segments };
    let log = LogSummary { chunks: 1, ..LogSummary::default() };
    let batch = wire::encode(&LogBatch { worker: hand.id, chunks: vec![chunk] });
    hand.ask::<LogReply>(&Address::Log(job.shard(), hand.id), &batch).await;
    hand.say(job, Attempt(1), ReportKind::End { end: AttemptEnd::Succeeded, log }).await;
}

#[test]
fn a_stream_too_many_is_refused_until_another_closes() {
    let server = Server::start();
    let id = server.submitted(JOB);
    let path = format!("/api/v1/jobs/{id}/logs?follow=true");
    // Nothing is ever written to these, so that only the closed connection can tell that a reader has gone.
    let streams: Vec<_> = (0..256).map(|_| server.client.stream(&path, &[TEXT])).collect();
    let answer = server.get(&path);
    assert_eq!(refused(&answer, 429), [""; 0]);
    assert_eq!(answer.header("retry-after"), "5");
    assert_eq!(server.get(&format!("/api/v1/jobs/{id}/logs")).status, 200, "a page is not a stream");

    drop(streams);
    let began = shared::clock::instant();
    // Plain text that doesn't follow needs a place for a moment.
    while server.client.send("GET", &format!("/api/v1/jobs/{id}/logs"), &[TEXT], b"").status != 200 {
        assert!(began.elapsed() < DEADLINE, "a stream whose reader has gone gives its place back");
    }
}

#[test]
fn a_stop_ends_streams_and_can_be_repeated() {
    let server = Server::start();
    let id = server.submitted(JOB);
    let stream = server.client.stream(&format!("/api/v1/jobs/{id}/logs?follow=true"), &[TEXT]);
    let both = async { tokio::join!(server.api.stop(), server.api.stop()) };
    server.runtime.block_on(async { tokio::time::timeout(DEADLINE, both).await }).unwrap();
    assert_eq!(stream.collect::<Vec<_>>(), ["", "[windlass] the log is cut off here: the server is stopping"]);
    server.runtime.block_on(server.api.stop());
    assert!(TcpStream::connect(server.api.address()).is_err());
}

#[test]
fn no_answer_holds_a_secret() {
    let server = Server::start();
    let id = server.submitted(r#"{"steps": [{"run": "ls"}], "secrets": {"TOKEN": "hunter2"}}"#);
    for path in ["/api/v1/jobs", "/api/v1/jobs/ID", "/api/v1/jobs/ID/events", "/api/v1/jobs/ID/logs"] {
        let answer = server.get(&path.replace("ID", &id));
        assert_eq!(answer.status, 200);
        assert!(!answer.text.contains("hunter2"), "{path}");
    }
    let answer = server.post("/api/v1/jobs", r#"{"steps": [], "secrets": {"TOKEN": "hunter2", "0": "hunter2"}}"#);
    assert_eq!(refused(&answer, 422), ["secrets.0", "steps"]);
    assert!(!answer.text.contains("hunter2"));
}

#[test]
fn the_api_describes_itself() {
    let server = Server::start();
    let description = server.get("/api/openapi.json").json.clone();
    assert_eq!(description["openapi"], "3.1.0");
    assert!(description["paths"]["/api/v1/jobs/{id}/logs"]["get"].is_object());
}
