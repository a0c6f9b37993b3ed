//! Jobs that no worker takes: they are queued, and stay so.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::http::Client;
use crate::wait;

/// A tag that no worker has.
const NOBODYS: &str = "nobody-has-this";
/// How many of them one request submits at most.
const JOBS_PER_REQUEST: u32 = 1000;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(2);
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// Submits so many, with this value of the label `bench`, over so many connections; returns their ids.
///
/// # Panics
/// When one is refused for another reason than that it is too much.
pub fn submit(client: &Client, connections: u32, count: u32, label: &str) -> Vec<String> {
    let (next, ids) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..connections {
            let client = client.within(PATIENCE);
            let (next, ids) = (&next, &ids);
            scope.spawn(move || {
                let whole = batch(JOBS_PER_REQUEST, label);
                loop {
                    let begin = next.fetch_add(JOBS_PER_REQUEST, Ordering::Relaxed);
                    let accepted = match count.saturating_sub(begin).min(JOBS_PER_REQUEST) {
                        0 => return,
                        JOBS_PER_REQUEST => send(&client, &whole),
                        rest => send(&client, &batch(rest, label)),
                    };
                    ids.lock().expect("the others haven't panicked").extend(accepted);
                }
            });
        }
    });
    ids.into_inner().expect("nobody has panicked")
}

fn batch(count: u32, label: &str) -> Vec<u8> {
    let job = json!({"steps": [{"run": "true"}], "tags": [NOBODYS], "labels": {"bench": label}});
    json!({"jobs": vec![job; count as usize]}).to_string().into_bytes()
}

fn send(client: &Client, body: &[u8]) -> Vec<String> {
    loop {
        let answer = client.send("POST", "/api/v1/jobs", JSON, body);
        match answer.status {
            201 => {
                let jobs = answer.json["jobs"].as_array().expect("jobs");
                return jobs.iter().map(|job| job["id"].as_str().expect("an id").to_owned()).collect();
            }
            429 | 503 => wait::between_looks(),
            status => panic!("a submission is answered with {status}: {}", answer.text),
        }
    }
}
