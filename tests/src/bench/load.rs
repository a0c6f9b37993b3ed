//! Submits jobs over HTTP, in batches, over several connections at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::json;

use super::Settings;
use crate::http::Client;
use crate::wait;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// The body that submits so many no-op jobs.
pub fn batch(count: u32) -> Vec<u8> {
    let jobs = vec![json!({"steps": [{"run": "true"}]}); usize::try_from(count).unwrap_or(usize::MAX)];
    json!({"jobs": jobs}).to_string().into_bytes()
}

/// Submits `count` no-op jobs as fast as they are taken. What is refused for being too much is said again.
///
/// # Panics
/// When one is refused for another reason.
pub fn submit(clients: &[&Client], settings: &Settings, count: u32) {
    let (next, most) = (AtomicU32::new(0), settings.jobs_per_request);
    let whole = batch(most);
    thread::scope(|scope| {
        for connection in 0..settings.connections {
            let at = usize::try_from(connection).unwrap_or_default() % clients.len();
            let client = clients[at].within(PATIENCE);
            let (next, whole) = (&next, &whole);
            scope.spawn(move || {
                loop {
                    let begin = next.fetch_add(most, Ordering::Relaxed);
                    let left = count.saturating_sub(begin).min(most);
                    match left {
                        0 => return,
                        left if left == most => send(&client, whole),
                        left => send(&client, &batch(left)),
                    }
                }
            });
        }
    });
}

fn send(client: &Client, body: &[u8]) {
    loop {
        let answer = client.send("POST", "/api/v1/jobs", JSON, body);
        match answer.status {
            201 => return,
            429 | 503 => wait::between_looks(),
            status => panic!("a submission is answered with {status}: {}", answer.text),
        }
    }
}
