//! Cancels beside a load of no-op jobs ([`beside`]): from a request to its answer, which comes when the cancel is committed, and
//! from a request to the end of the job's process. So many are in flight as connections wait for an answer at a time.
//!
//! - `committed`: jobs that no worker takes are canceled one after the other by each connection. The job's supervisor has to be
//!   started for such a cancel, and its offer is withdrawn. Each answer of a connection is followed by its next request at once,
//!   so that as many are in flight all the while.
//! - `process gone`: the jobs run, each one process without a grace. The process writes its number down, and a descriptor of it
//!   (pidfd) that is polled tells the moment of its end. The cancels in flight are sent at the same time, one a connection; their
//!   answers are a figure too. Of 1,000 at the same time it is more and more the kernel that is measured.
//! - `by filter`: one request for 10,000 queued jobs, without a load, until the store says that all have ended.

use std::time::Duration;

use serde_json::json;

use super::Settings;
use super::results::Results;
use super::rig::{NO_OP, Rig};
use crate::http::Client;
use crate::wait::eventually;

mod beside;
mod committed;
mod filter;
mod gone;
pub mod waiting;

use beside::Beside;

const NAME: &str = "cancel";
/// The tag of the worker that pretends, and that of the one that runs.
const PRETENDS: &str = "pretends";
const RUNS: &str = "runs";
/// How many jobs run at a time at most.
const HELD_MAX: u32 = 1000;
/// How long an answer, or the end of everything, may take.
const WITHIN: Duration = Duration::from_mins(2);

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    for _ in 0..settings.runs {
        once(settings, results);
    }
}

fn once(settings: &Settings, results: &mut Results) {
    let mut rig = Rig::with_coordinators(1);
    rig.cluster.add_worker_with(&["--slots", &settings.slots.to_string(), "--tag", PRETENDS], &[NO_OP]);
    rig.cluster.add_worker_with(&["--slots", &HELD_MAX.to_string(), "--tag", RUNS], &[]);
    let beside = Beside::begin(rig.cluster.client());
    let mut canceled = 0;
    for (in_flight, jobs) in [(1, 200), (100, 3000), (1000, 5000)] {
        committed::measure(&rig, in_flight, jobs, results);
        canceled += jobs;
    }
    for (in_flight, count, rounds) in [(1, 100, 1), (100, 100, 2), (HELD_MAX, HELD_MAX, 1)] {
        gone::measure(&rig, in_flight, count, rounds, results);
        canceled += count * rounds;
    }
    let pretended = beside.end();
    canceled += filter::measure(&rig, results);
    check(&rig, canceled, pretended);
}

/// What was measured is what was promised: what was canceled is, and the load beside it has succeeded.
fn check(rig: &Rig, canceled: u32, pretended: u32) {
    let count =
        |state: &str| rig.number(&format!("SELECT count(*)::text FROM jobs WHERE state = '{state}'")).to_string();
    eventually(WITHIN, "all jobs have ended", || {
        let open = rig.number("SELECT count(*)::text FROM jobs WHERE finished_at IS NULL");
        (open < 0.5).then_some(())
    });
    assert_eq!(count("canceled"), canceled.to_string(), "jobs that are canceled");
    assert_eq!(count("succeeded"), pretended.to_string(), "jobs beside them that have succeeded");
}

/// Cancels a job; returns the answer's status.
fn cancel(client: &Client, job: &str) -> u16 {
    client.post(&format!("/api/v1/jobs/{job}/cancel"), &json!({})).status
}

/// A client whose connection is open.
fn connected(to: &Client) -> Client {
    let client = to.within(WITHIN);
    let answer = client.get("/healthz");
    assert_eq!(answer.status, 200, "{}", answer.text);
    client
}
