//! From a job's submission to the start of its first step, at some rates.
//!
//! Each job is due at a fixed time and submitted alone, whether or not the ones before it are answered (`latency/paced.rs`). Its
//! time counts from the moment at which its request is begun; how late that is after the job's own time is a figure too. It
//! ends when a subscriber of ours on NATS hears the event `step_started`. That comes after the worker has told it, and it was
//! committed and published: the step itself has started before, so this is an upper bound. A worker tells of a real step right before
//! it starts the step's process, when the attempt's directories and keeper are there.

use std::time::Duration;

use serde_json::json;

use super::Settings;
use super::load;
use super::percentiles::{P50, P99, P99_9, Percentile, Samples};
use super::results::Results;
use super::rig::Rig;
use super::throughput::EVENTS_PER_JOB;

pub mod paced;
pub mod told;

use paced::Pace;
use told::Told;

const NAME: &str = "latency";
const PERCENTILES: &[Percentile] = &[P50, P99, P99_9];
/// What ends the time that is measured.
pub const STARTED: &str = "step_started";
/// How long each of the low rates lasts, and half of the maximum.
const LASTING: Duration = Duration::from_secs(20);
const LASTING_AT_HALF: Duration = Duration::from_secs(5);
/// How many jobs come before, so that nothing is measured for the first time; of real ones fewer.
const WARM_UP: u32 = 1000;
const WARM_UP_REAL: u32 = 20;
/// How many real jobs may run at once.
const SLOTS_REAL: &str = "32";
/// How long all may take.
const WITHIN: Duration = Duration::from_mins(5);

/// The rates at which every machine should keep up.
const RATES: [(f64, &str); 2] = [(1.0, "1/s"), (50.0, "50/s")];

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    let maximum = results.median("throughput", "jobs");
    if maximum.is_none() {
        results.skip(
            "latency at half of the maximum",
            "`throughput` wasn't measured in this run, which tells the maximum",
        );
    }
    for _ in 0..settings.runs {
        pretended(settings, maximum, results);
        real(settings, results);
    }
}

/// With a worker that pretends to run its jobs.
fn pretended(settings: &Settings, maximum: Option<f64>, results: &mut Results) {
    let mut rig = Rig::with_coordinators(1);
    rig.add_no_op_worker(settings.slots);
    load::submit(&[rig.cluster.client()], settings, WARM_UP);
    rig.until_published(u64::from(WARM_UP) * EVENTS_PER_JOB, WITHIN);
    let told = Told::listen(&rig.cluster.nats.url(), STARTED);
    let mut jobs = u64::from(WARM_UP);
    for (per_second, name) in RATES {
        let measured = Measured::of(&rig, &told, Pace { per_second, lasting: LASTING });
        measured.add_to(results, NAME, &format!("submit → started at {name}"), PERCENTILES);
        measured.late.add_to(results, NAME, &format!("sent late at {name}"), &[P99]);
        jobs += measured.jobs;
    }
    if let Some(maximum) = maximum {
        let per_second = maximum / 2.0;
        let measured = Measured::of(&rig, &told, Pace { per_second, lasting: LASTING_AT_HALF });
        results.add(NAME, "half of the maximum", "jobs/s", per_second);
        measured.add_to(results, NAME, "submit → started at half of the maximum", PERCENTILES);
        measured.late.add_to(results, NAME, "sent late at half of the maximum", &[P99]);
        jobs += measured.jobs;
    }
    check(&rig, jobs);
}

/// With a worker that runs them, each a shell that ends at once.
fn real(settings: &Settings, results: &mut Results) {
    let mut rig = Rig::with_coordinators(1);
    rig.cluster.add_worker_with(&["--slots", SLOTS_REAL], &[]);
    load::submit(&[rig.cluster.client()], settings, WARM_UP_REAL);
    rig.until_published(u64::from(WARM_UP_REAL) * EVENTS_PER_JOB, WITHIN);
    let told = Told::listen(&rig.cluster.nats.url(), STARTED);
    let mut jobs = u64::from(WARM_UP_REAL);
    for (per_second, name) in RATES {
        let measured = Measured::of(&rig, &told, Pace { per_second, lasting: LASTING });
        measured.add_to(results, NAME, &format!("submit → started at {name}, real steps"), PERCENTILES);
        jobs += measured.jobs;
        // What is left over of one rate must not be in the way of the next.
        rig.until_published(jobs * EVENTS_PER_JOB, WITHIN);
    }
    check(&rig, jobs);
}

/// What some jobs' ways came to.
pub struct Measured {
    pub jobs: u64,
    /// From the request to the start of the first step.
    pub started: Samples,
    /// From the request to its answer.
    pub answered: Samples,
    /// From the time at which a job was due to its request.
    pub late: Samples,
}

impl Measured {
    /// Submits jobs of one step at that pace, and waits until all have started. A job's step is `true`.
    pub fn of(rig: &Rig, told: &Told, pace: Pace) -> Self {
        let job = json!({"steps": [{"run": "true"}]}).to_string();
        let sent = paced::submit(rig.cluster.client(), pace, job.as_bytes());
        let ids: Vec<&str> = sent.iter().map(|sent| sent.job.as_str()).collect();
        let started = told.until(&ids, WITHIN);
        Self {
            jobs: sent.len() as u64,
            started: sent.iter().zip(started).map(|(sent, started)| started - sent.at).collect(),
            answered: sent.iter().map(|sent| sent.answered - sent.at).collect(),
            late: sent.iter().map(|sent| sent.late).collect(),
        }
    }

    fn add_to(&self, results: &mut Results, scenario: &'static str, what: &str, percentiles: &[Percentile]) {
        self.started.add_to(results, scenario, what, percentiles);
    }
}

/// What was measured is what was promised: every job has succeeded at once, and each of its events was published.
fn check(rig: &Rig, jobs: u64) {
    rig.until_published(jobs * EVENTS_PER_JOB, WITHIN);
    let succeeded = rig.number("SELECT count(*)::text FROM jobs WHERE state = 'succeeded' AND attempt = 1");
    assert_eq!(succeeded.to_string(), jobs.to_string(), "jobs that have succeeded at once");
    assert_eq!(rig.published(), jobs * EVENTS_PER_JOB, "events that were published");
}
