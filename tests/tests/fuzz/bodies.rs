//! What the HTTP API reads: bodies of every route, queries, headers.

use coordinator::api::fuzzed::{self, Kind};
use serde_json::json;
use shared::spec::document;

use super::campaign::{Bounds, campaign};
use super::samples::{all, job, submissions};

/// As large as a body may be: 8 MiB. A document of the smallest values takes the most for each of its bytes.
const BODY: Bounds = Bounds { largest: 8 * 1024 * 1024, peak: 64, total: 160, fixed: 4 << 20 };
/// As large as the head of a request may be.
const HEAD: Bounds = Bounds { largest: 128 * 1024, peak: 8, total: 128, fixed: 1 << 20 };

/// All bodies become documents in one place, which is tried on the largest; what follows is tried on less.
fn bodies(name: &str, kind: Kind, samples: &[serde_json::Value]) {
    let bounds = Bounds { largest: 512 * 1024, peak: 160, total: 240, ..BODY };
    campaign(name, bounds, &all(samples), |bytes| {
        fuzzed::body(kind, bytes);
    });
}

#[test]
fn any_document_is_read_within_bounds() {
    campaign("a document", BODY, &all(&submissions()), |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        drop(document::read(text));
    });
}

#[test]
fn any_submission_is_taken_or_refused() {
    bodies("a submission", Kind::Submission, &submissions());
}

#[test]
fn any_cancel_is_taken_or_refused() {
    let one = json!({"reason": "not wanted", "force": true, "grace": "5s"});
    bodies("a cancel", Kind::Cancel, &[one, json!({})]);
    let filter = json!({"state": "running", "tag": "linux", "repository": "/srv/app.git", "label": "team=core"});
    bodies("a cancel by filter", Kind::CancelByFilter, &[json!({"filter": filter, "reason": "not wanted"})]);
    bodies("a cancel by ids", Kind::CancelByIds, &[json!({"ids": [job(), job()], "reason": "not wanted"})]);
}

#[test]
fn any_wish_for_a_token_or_a_key_is_taken_or_refused() {
    bodies("a join token", Kind::JoinToken, &[json!({"name": "host", "expires": "30d"}), json!({})]);
    let key = json!({"private_key": "-----BEGIN OPENSSH PRIVATE KEY-----\n", "known_hosts": "host ssh-rsa AAAA"});
    bodies("a deploy key", Kind::DeployKey, &[key, json!({"generate": true, "known_hosts": "host ssh-rsa AAAA"})]);
    bodies("an empty body", Kind::Nothing, &[json!({}), json!(null)]);
}

#[test]
fn any_query_is_taken_or_refused() {
    let cursor = "ASz1hGKsXIuJiLC3Nfu9I_hWJpDJcCZ2sVhGOcUwEyKjAZNPXgAAcACAAAAAAAAABw";
    let texts = [
        format!("state=running&tag=linux&repository=%2Fsrv%2Fapp.git&label=team%3Dc%C3%B6re+1&cursor={cursor}&limit=7"),
        "attempt=1&after=9223372036854775807&limit=1000&follow=true".to_owned(),
        format!("cursor={cursor}&limit=1000"),
        "cursor=AmFwcA&limit=1".to_owned(),
    ];
    let samples: Vec<Vec<u8>> = texts.into_iter().map(String::into_bytes).collect();
    campaign("a query", HEAD, &samples, |bytes| {
        if let Ok(raw) = std::str::from_utf8(bytes) {
            fuzzed::query(raw);
        }
    });
}

#[test]
fn any_header_is_taken_or_refused() {
    let texts = [
        "text/plain;q=0.5, text/event-stream;q=0.75, */*",
        "application/json;q=0.1,text/plain;Q=1.000",
        "Bearer 0123456789abcdef0123456789abcdef",
        "17",
        "*",
        "a key with spaces",
    ];
    let samples = texts.map(|text| text.as_bytes().to_vec());
    campaign("a header", HEAD, &samples, |bytes| {
        fuzzed::header(bytes);
    });
}

#[test]
fn any_answer_of_another_coordinator_is_read_within_bounds() {
    // It is read up to 64 MiB; what there is of it is a list of ids.
    let bounds = Bounds { largest: 8 * 1024 * 1024, peak: 4, total: 8, fixed: 1 << 20 };
    campaign("what is left", bounds, &all(&[json!({"left": [job(), job()]})]), |bytes| {
        fuzzed::left(bytes);
    });
}
