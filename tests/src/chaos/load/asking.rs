//! One request at a time, and what becomes of it: a [`Call`].

use serde_json::Value;
use shared::clock;

use crate::chaos::history::{Answer, Ask, At, Call, Id, Seen};
use crate::http::{self, Client};

/// A request.
pub struct Request {
    pub ask: Ask,
    pub path: String,
    /// Its `Idempotency-Key`.
    pub key: Option<String>,
    pub body: Value,
}

/// Who makes it, and of which replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Between {
    pub client: u32,
    pub replica: usize,
}

/// By our clock.
pub fn now() -> At {
    At(u64::try_from(clock::now().micros()).expect("a time after 1970"))
}

/// Makes it, and returns it with its answer.
pub fn call(way: &Client, Between { client, replica }: Between, request: &Request) -> Call {
    let method = match request.ask {
        Ask::Look { .. } => "GET",
        Ask::PutKey { .. } => "PUT",
        Ask::Submit { .. } | Ask::Cancel { .. } | Ask::CancelTeam { .. } | Ask::Retry { .. } => "POST",
    };
    let mut headers = vec![("content-type", "application/json")];
    headers.extend(request.key.as_deref().map(|key| ("idempotency-key", key)));
    let body = if method == "GET" { String::new() } else { request.body.to_string() };
    let headers = if method == "GET" { &[][..] } else { &headers[..] };
    let asked_at = now();
    let answer = way.try_send(method, &request.path, headers, body.as_bytes()).ok();
    let answer = answer.map(|answer| answered(&request.ask, &answer, now()));
    Call { client, replica, asked_at, ask: request.ask.clone(), answer }
}

fn answered(ask: &Ask, answer: &http::Answer, at: At) -> Answer {
    let good = matches!(answer.status, 200..=202);
    let json = &answer.json;
    let jobs = match ask {
        _ if !good => Vec::new(),
        Ask::Submit { .. } => match json["jobs"].as_array() {
            Some(jobs) => jobs.iter().map(seen).collect(),
            None => vec![seen(json)],
        },
        Ask::Cancel { .. } | Ask::Retry { .. } | Ask::Look { .. } => vec![seen(json)],
        Ask::CancelTeam { .. } | Ask::PutKey { .. } => Vec::new(),
    };
    let problem = (!good).then(|| answer.text.clone());
    Answer { at, status: answer.status, jobs, matched: json["matched"].as_u64(), problem }
}

/// A job as an answer has it.
pub fn seen(job: &Value) -> Seen {
    let text = |field: &str| job[field].as_str().unwrap_or_default().to_owned();
    Seen {
        id: Id(text("id")),
        state: text("state"),
        attempt: job["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok()),
        outcome: Some(job["outcome"].clone()).filter(|outcome| !outcome.is_null()),
        retry_of: job["retry_of"].as_str().map(|id| Id(id.to_owned())),
    }
}
