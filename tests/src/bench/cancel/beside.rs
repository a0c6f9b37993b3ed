//! A load that goes on beside what is measured: a few hundred no-op jobs a second, whatever becomes of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;
use shared::clock;

use super::{PRETENDS, WITHIN};
use crate::http::Client;
use crate::wait;

/// 300 jobs a second, ten a request.
const EVERY: Duration = Duration::from_nanos(1_000_000_000 / 30);
const JOBS_PER_REQUEST: u32 = 10;
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// The load, while it goes on.
pub struct Beside {
    over: Arc<AtomicBool>,
    /// Returns how many jobs it was.
    thread: JoinHandle<u32>,
}

impl Beside {
    /// Begins it.
    pub fn begin(client: &Client) -> Self {
        let (client, over) = (client.within(WITHIN), Arc::new(AtomicBool::new(false)));
        let told = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let job = json!({"steps": [{"run": "true"}], "tags": [PRETENDS]});
            let body = json!({"jobs": vec![job; JOBS_PER_REQUEST as usize]}).to_string().into_bytes();
            let (begun, mut requests) = (clock::instant(), 0);
            while !told.load(Ordering::Relaxed) {
                wait::until_instant(begun + EVERY * requests);
                let answer = client.send("POST", "/api/v1/jobs", JSON, &body);
                assert_eq!(answer.status, 201, "the load beside is answered with {}", answer.text);
                requests += 1;
            }
            requests * JOBS_PER_REQUEST
        });
        Self { over, thread }
    }

    /// Ends it; returns how many jobs were submitted.
    ///
    /// # Panics
    /// When one was refused.
    pub fn end(self) -> u32 {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("every job was accepted")
    }
}
