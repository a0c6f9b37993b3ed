//! A million jobs that wait for a worker that never comes, beside those that are measured: what they cost in memory and at rest,
//! how long a restart takes, and what throughput and latency are then, against those of the same cluster while it was empty.
//!
//! The queue is filled once, over HTTP, and everything is measured on it a few times. Memory is what the process has in use. What
//! Postgres does by itself within minutes of so many rows (vacuum, analysis, a checkpoint) is done before: it comes of a
//! million jobs at once, not of a million that wait.
//! A restart begins with SIGTERM; it is over when the new process says that it is ready, and then when it has canceled one of the
//! jobs that wait.

use std::time::Duration;

use shared::clock;

use super::Settings;
use super::cancel::waiting;
use super::latency::paced::Pace;
use super::latency::told::Told;
use super::latency::{Measured, STARTED};
use super::load;
use super::percentiles::{P50, P99};
use super::results::Results;
use super::rig::Rig;
use super::throughput::EVENTS_PER_JOB;
use super::usage;
use crate::wait::{self, eventually};

const NAME: &str = "backlog";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
/// How many jobs come before, so that nothing is measured for the first time.
const WARM_UP: u32 = 1000;
/// At which latency is measured.
const PACE: Pace = Pace { per_second: 50.0, lasting: Duration::from_secs(10) };
/// For how long the processes are looked at while nothing is asked of them.
const REST: Duration = Duration::from_secs(10);
/// How long all may take.
const WITHIN: Duration = Duration::from_mins(10);
/// How long a restart may take.
const RESTART_WITHIN: Duration = Duration::from_mins(5);

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    let mut rig = Rig::with_coordinators(1);
    rig.add_no_op_worker(settings.slots);
    load::submit(&[rig.cluster.client()], settings, WARM_UP);
    let told = Told::listen(&rig.cluster.nats.url(), STARTED);
    let mut jobs = Jobs { ran: u64::from(WARM_UP), waiting: 0, canceled: 0 };
    for _ in 0..settings.runs {
        measure(&rig, settings, &told, &mut jobs, "empty", results);
    }
    rest(&rig, &jobs, "empty", results);
    memory(&rig, "empty", results);
    fill(&rig, settings, &mut jobs, results);
    memory(&rig, "filled", results);
    for _ in 0..settings.runs {
        measure(&rig, settings, &told, &mut jobs, "filled", results);
    }
    rest(&rig, &jobs, "filled", results);
    for _ in 0..settings.runs {
        restart(&mut rig, &mut jobs, results);
    }
    memory(&rig, "filled, after a restart", results);
    check(&rig, &jobs);
}

/// What has become of the jobs so far.
struct Jobs {
    /// They have gone through their whole life.
    ran: u64,
    waiting: u64,
    /// They waited before.
    canceled: u64,
}

impl Jobs {
    /// How many events they have: one that waits was submitted and queued, and the cancel of one was requested and done.
    fn events(&self) -> u64 {
        self.ran * EVENTS_PER_JOB + self.waiting * 2 + self.canceled * 4
    }

    /// Waits until all that was asked for is done and told.
    fn until_at_rest(&self, rig: &Rig) {
        rig.until_published(self.events(), WITHIN);
    }
}

/// Throughput, as `throughput` measures it, and latency.
fn measure(rig: &Rig, settings: &Settings, told: &Told, jobs: &mut Jobs, queue: &str, results: &mut Results) {
    jobs.until_at_rest(rig);
    let begun = clock::instant();
    load::submit(&[rig.cluster.client()], settings, settings.jobs);
    jobs.ran += u64::from(settings.jobs);
    jobs.until_at_rest(rig);
    let rate = f64::from(settings.jobs) / begun.elapsed().as_secs_f64();
    results.add(NAME, &format!("throughput, {queue}"), "jobs/s", rate);
    let measured = Measured::of(rig, told, PACE);
    measured.answered.add_to(results, NAME, &format!("submission answered at 50/s, {queue}"), &[P50, P99]);
    measured.started.add_to(results, NAME, &format!("submit → started at 50/s, {queue}"), &[P50, P99]);
    jobs.ran += measured.jobs;
}

/// Fills the queue with jobs that nobody takes.
fn fill(rig: &Rig, settings: &Settings, jobs: &mut Jobs, results: &mut Results) {
    let begun = clock::instant();
    let filled = waiting::submit(rig.cluster.client(), settings.connections, settings.backlog, NAME).len();
    assert_eq!(filled, settings.backlog as usize, "jobs that wait");
    jobs.waiting += u64::from(settings.backlog);
    results.add(NAME, "jobs that wait", "", f64::from(settings.backlog));
    results.add(NAME, "filled within", "s", begun.elapsed().as_secs_f64());
    jobs.until_at_rest(rig);
    let begun = clock::instant();
    for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        rig.cluster.postgres.rows(statement);
    }
    results.add(NAME, "vacuumed within", "s", begun.elapsed().as_secs_f64());
}

/// What the processes use while nothing is asked of them.
fn rest(rig: &Rig, jobs: &Jobs, queue: &str, results: &mut Results) {
    jobs.until_at_rest(rig);
    let (meter, begun) = (rig.meter(), clock::instant());
    wait::pass(REST, "nothing is asked");
    let seconds = begun.elapsed().as_secs_f64();
    for (process, used) in meter.read().into_iter().filter(|(process, _)| *process != "load") {
        results.add(NAME, &format!("CPU at rest, {process}, {queue}"), "s/s", used / seconds);
    }
}

fn memory(rig: &Rig, queue: &str, results: &mut Results) {
    let (coordinator, nats) = (rig.cluster.coordinators[0].server.pid(), rig.cluster.nats.pid());
    results.add(NAME, &format!("memory, coordinator, {queue}"), "MB", usage::memory_mb(coordinator));
    results.add(NAME, &format!("memory, NATS, {queue}"), "MB", usage::memory_mb(nats));
}

/// Ends the coordinator and starts it again.
fn restart(rig: &mut Rig, jobs: &mut Jobs, results: &mut Results) {
    let waits = rig.cluster.postgres.rows("SELECT id::text FROM jobs WHERE phase = 'queued' ORDER BY id LIMIT 1");
    let job = &waits[0][0];
    let begun = clock::instant();
    rig.cluster.coordinators[0].server.stop();
    let ended = begun.elapsed();
    rig.cluster.restart_coordinator(0, &[]);
    let client = &rig.cluster.coordinators[0].client;
    let answers = |method: &str, path: &str, body: &[u8], status: u16| {
        let answer = client.try_send(method, path, JSON, body);
        answer.is_ok_and(|answer| answer.status == status).then_some(())
    };
    eventually(RESTART_WITHIN, "the coordinator is ready", || answers("GET", "/readyz", b"", 200));
    let ready = begun.elapsed();
    let cancel = format!("/api/v1/jobs/{job}/cancel");
    eventually(RESTART_WITHIN, "a command is served", || answers("POST", &cancel, b"{}", 202));
    let served = begun.elapsed();
    (jobs.waiting, jobs.canceled) = (jobs.waiting - 1, jobs.canceled + 1);
    results.add(NAME, "restart, until the old process has ended", "s", ended.as_secs_f64());
    results.add(NAME, "restart, until the new one is ready", "s", ready.as_secs_f64());
    results.add(NAME, "restart, until a command is served", "s", served.as_secs_f64());
}

/// What was measured is what was promised: what was to run has succeeded at once, the others wait still, and every event was
/// published: a restart may publish one twice.
fn check(rig: &Rig, jobs: &Jobs) {
    jobs.until_at_rest(rig);
    let count = |query: &str| rig.number(&format!("SELECT count(*)::text FROM {query}")).to_string();
    assert_eq!(count("jobs WHERE state = 'succeeded' AND attempt = 1"), jobs.ran.to_string(), "jobs that have run");
    assert_eq!(count("jobs WHERE state = 'queued'"), jobs.waiting.to_string(), "jobs that wait");
    assert_eq!(count("jobs WHERE state = 'canceled'"), jobs.canceled.to_string(), "jobs that are canceled");
    assert_eq!(count("job_events"), jobs.events().to_string(), "events in the store");
}
