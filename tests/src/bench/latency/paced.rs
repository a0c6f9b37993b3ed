//! A load that doesn't wait for its answers: each job is due at a fixed time and submitted alone, whatever became of the one
//! before it. Enough threads, each with a connection that stays open, wait for the jobs' times.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use shared::clock;

use crate::http::Client;
use crate::wait;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_mins(1);
/// For how long there are threads that wait for an answer, before a job is sent late.
const ANSWERS_S: f64 = 0.2;
/// How many threads there are. More than the most would take the machine away from what is measured.
const THREADS_MIN: f64 = 4.0;
const THREADS_MAX: f64 = 128.0;
/// How long the connections may take to be opened, before the first job is due.
const OPENED_WITHIN: Duration = Duration::from_millis(500);
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

/// So many jobs a second, for so long.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    pub per_second: f64,
    pub lasting: Duration,
}

/// A job that was submitted.
#[derive(Debug)]
pub struct Sent {
    pub job: String,
    /// When its request was begun.
    pub at: Instant,
    /// How long after its time that was.
    pub late: Duration,
    /// When it was answered.
    pub answered: Instant,
}

/// Submits `job` again and again at that pace.
///
/// # Panics
/// When one isn't accepted.
pub fn submit(client: &Client, pace: Pace, job: &[u8]) -> Vec<Sent> {
    let every = Duration::from_secs_f64(1.0 / pace.per_second);
    let count = whole(pace.per_second * pace.lasting.as_secs_f64());
    let threads = whole((pace.per_second * ANSWERS_S).clamp(THREADS_MIN, THREADS_MAX));
    let (next, sent) = (AtomicU32::new(0), Mutex::new(Vec::new()));
    let begin = clock::instant() + OPENED_WITHIN;
    thread::scope(|scope| {
        for _ in 0..threads {
            let client = client.within(PATIENCE);
            let (next, sent) = (&next, &sent);
            scope.spawn(move || {
                client.get("/healthz");
                let mut ours = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    ours.push(send(&client, begin + every * number, job));
                }
                sent.lock().expect("the others haven't panicked").extend(ours);
            });
        }
    });
    sent.into_inner().expect("nobody has panicked")
}

fn send(client: &Client, due: Instant, job: &[u8]) -> Sent {
    wait::until_instant(due);
    let at = clock::instant();
    let answer = client.send("POST", "/api/v1/jobs", JSON, job);
    let answered = clock::instant();
    assert_eq!(answer.status, 201, "a submission is answered with {}", answer.text);
    let job = answer.json["id"].as_str().expect("a job has an id").to_owned();
    Sent { job, at, late: at.saturating_duration_since(due), answered }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers above zero")]
fn whole(number: f64) -> u32 {
    number.round() as u32
}
