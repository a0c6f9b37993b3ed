//! No-op jobs through their whole life: submitted over HTTP, stored, offered, claimed, pretended, completed, and every event
//! of it published. The clock runs from the first request to the last event's acknowledgement.

use std::time::Duration;

use shared::clock;

use super::Settings;
use super::load;
use super::results::Results;
use super::rig::Rig;
use super::usage;

const NAME: &str = "throughput";
/// What a job's life tells: submitted, queued, assigned, started, `step_started`, `step_finished`, succeeded.
pub const EVENTS_PER_JOB: u64 = 7;
/// How many jobs come before, so that nothing is measured for the first time.
pub const WARM_UP: u32 = 1000;
/// How long all may take.
pub const WITHIN: Duration = Duration::from_mins(10);

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    for _ in 0..settings.runs {
        once(settings, results);
    }
}

fn once(settings: &Settings, results: &mut Results) {
    let mut rig = Rig::with_coordinators(1);
    rig.add_no_op_worker(settings.slots);
    load::submit(&[rig.cluster.client()], settings, WARM_UP);
    let before = u64::from(WARM_UP) * EVENTS_PER_JOB;
    rig.until_published(before, WITHIN);

    let (wal, commits, meter) = (rig.wal(), rig.commits(), rig.meter());
    let begun = clock::instant();
    load::submit(&[rig.cluster.client()], settings, settings.jobs);
    let submitted = begun.elapsed();
    rig.until_published(before + u64::from(settings.jobs) * EVENTS_PER_JOB, WITHIN);
    let took = begun.elapsed();
    let (used, wal, commits) = (meter.read(), rig.wal() - wal, rig.commits() - commits);

    check(&rig, settings.jobs + WARM_UP);
    let jobs = f64::from(settings.jobs);
    results.add(NAME, "jobs", "jobs/s", jobs / took.as_secs_f64());
    results.add(NAME, "submissions while they came", "jobs/s", jobs / submitted.as_secs_f64());
    let each = rig.number("SELECT (sum(version)::float8 / count(*))::text FROM jobs");
    results.add(NAME, "transitions", "/s", jobs * each / took.as_secs_f64());
    results.add(NAME, "transitions per commit", "", jobs * each / commits);
    results.add(NAME, "write-ahead log", "bytes/job", wal / jobs);
    let per_thousand = |seconds: f64| seconds / jobs * 1000.0;
    for (process, seconds) in &used {
        results.add(NAME, &format!("CPU, {process}"), "s/1,000 jobs", per_thousand(*seconds));
    }
    let all = used.iter().map(|(_, seconds)| seconds).sum();
    results.add(NAME, "CPU, all processes", "s/1,000 jobs", per_thousand(all));
    let (coordinator, worker) = (rig.cluster.coordinators[0].server.pid(), rig.cluster.workers[0].server.pid());
    results.add(NAME, "memory at most, coordinator", "MB", usage::peak_memory_mb(coordinator));
    results.add(NAME, "memory at most, worker", "MB", usage::peak_memory_mb(worker));
}

/// What was measured is what was promised: every job has succeeded, and each of its events was published once.
fn check(rig: &Rig, jobs: u32) {
    let succeeded = rig.number("SELECT count(*)::text FROM jobs WHERE state = 'succeeded' AND attempt = 1");
    let events = rig.number("SELECT count(*)::text FROM job_events");
    let expected = u64::from(jobs) * EVENTS_PER_JOB;
    assert!((succeeded - f64::from(jobs)).abs() < 0.5, "{succeeded} of {jobs} jobs have succeeded at once");
    assert_eq!(events.to_string(), expected.to_string(), "events in the store");
    assert_eq!(rig.published(), expected, "events that were published");
}
