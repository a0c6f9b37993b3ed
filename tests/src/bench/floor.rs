//! The machine's own limit: the rows of whole lives, written by the statement that the coordinator writes them with, in
//! batches as large as those of `throughput`, with nothing around it. There is no HTTP, no actor, no NATS and no worker; one
//! connection commits one batch after the other, as the coordinator's does, and every batch is prepared before the clock runs.

mod lives;

use std::sync::Arc;
use std::time::Duration;

use coordinator::store::postgres::PostgresStore;
use coordinator::store::{Batch, Store, Submitted, Written};
use shared::clock;
use shared::id::CoordinatorId;
use shared::secret::Secret;
use tokio::runtime::Runtime;

use self::lives::{EVENTS_PER_JOB, Lives};
use super::Settings;
use super::results::Results;
use super::rig;
use super::usage::Meter;
use crate::postgres::{Database, Durability, Postgres};

const NAME: &str = "floor";
/// How many transitions a batch holds where `throughput` wasn't measured before.
const TRANSITIONS_PER_BATCH: f64 = 256.0;
/// How many writes the larger batches hold.
const LARGE: u32 = 500;
/// How many jobs come before, so that nothing is measured for the first time.
const WARM_UP: u32 = 1000;
/// How many jobs are written transition by transition.
const ALONE: u32 = 125;

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    let transitions = results.median("throughput", "transitions per commit").unwrap_or(TRANSITIONS_PER_BATCH);
    let writes = transitions * f64::from(lives::writes_per_job()) / f64::from(lives::transitions_per_job());
    for _ in 0..settings.runs {
        let floor = Floor::start();
        let usual = floor.write(settings.jobs, batch_of(writes));
        let large = floor.write(settings.jobs, LARGE);
        let alone = floor.write(ALONE, 1);
        let jobs = f64::from(settings.jobs);
        results.add(NAME, "jobs", "jobs/s", jobs / usual.took().as_secs_f64());
        results.add(NAME, "writes per batch", "", batch_of(writes).into());
        results.add(NAME, "write-ahead log", "bytes/job", usual.wal / jobs);
        results.add(NAME, "CPU, Postgres", "s/1,000 jobs", usual.cpu / jobs * 1000.0);
        results.add(NAME, &format!("jobs, batches of {LARGE}"), "jobs/s", jobs / large.took().as_secs_f64());
        results.add(NAME, "one write alone", "ms", alone.median().as_secs_f64() * 1000.0);
    }
}

/// A whole number of writes, and at least one.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is between one and some thousand")]
fn batch_of(writes: f64) -> u32 {
    writes.round().clamp(1.0, 10_000.0) as u32
}

/// A server with nobody on it.
struct Floor {
    postgres: Postgres,
    runtime: Runtime,
}

/// What writing has cost.
struct Cost {
    /// How long each batch took.
    batches: Vec<Duration>,
    /// In bytes.
    wal: f64,
    /// Seconds of the server.
    cpu: f64,
}

impl Floor {
    fn start() -> Self {
        let postgres = Postgres::start_with(Durability::Fsync, rig::POSTGRES);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { postgres, runtime: runtime.expect("a runtime") }
    }

    /// Writes so many lives into a database of their own, in batches of so many writes.
    fn write(&self, jobs: u32, batch: u32) -> Cost {
        let database = self.postgres.database();
        let url = Secret::new(database.url());
        let store = self.runtime.block_on(PostgresStore::connect(&url)).expect("the database");
        let (owner, mut lives) = self.runtime.block_on(Lives::owner(&store));
        self.commit(&store, owner, lives.batches(WARM_UP, batch));
        let batches = lives.batches(jobs, batch);
        let (wal, meter) = (wal(&database), Meter::start(vec![("Postgres", Some(self.postgres.pid()))]));
        let batches = self.commit(&store, owner, batches);
        let (used, wal) = (meter.read(), self::wal(&database) - wal);
        check(&database, jobs + WARM_UP);
        self.runtime.block_on(store.close());
        Cost { batches, wal, cpu: used.iter().map(|(_, seconds)| seconds).sum() }
    }

    /// Commits them one after the other; returns how long each took.
    fn commit(&self, store: &PostgresStore, owner: CoordinatorId, batches: Vec<Batch>) -> Vec<Duration> {
        self.runtime.block_on(async {
            let mut took = Vec::with_capacity(batches.len());
            for batch in batches {
                let begun = clock::instant();
                let written = store.commit(owner, Arc::new(batch)).await.expect("a commit");
                took.push(begun.elapsed());
                assert!(written.iter().all(is_taken), "a write that isn't taken: {written:?}");
            }
            took
        })
    }
}

impl Cost {
    fn took(&self) -> Duration {
        self.batches.iter().sum()
    }

    fn median(&self) -> Duration {
        let mut sorted = self.batches.clone();
        sorted.sort();
        sorted[sorted.len() / 2]
    }
}

fn is_taken(written: &Written) -> bool {
    match written {
        Written::Submitted(jobs) => jobs.iter().all(|job| matches!(job, Submitted::New(_))),
        Written::Changed { .. } => true,
        Written::Conflict | Written::KeyReused(_) | Written::TooManyTagSets(_) | Written::Refused(_) => false,
    }
}

fn wal(database: &Database<'_>) -> f64 {
    let bytes = database.number("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')");
    #[expect(clippy::cast_precision_loss, reason = "exact up to some petabytes")]
    let bytes = bytes as f64;
    bytes
}

/// What was written is what `throughput` leaves behind.
fn check(database: &Database<'_>, jobs: u32) {
    let succeeded = database.number("SELECT count(*) FROM jobs WHERE state = 'succeeded' AND attempt = 1");
    assert_eq!(succeeded, i64::from(jobs), "jobs that have succeeded");
    let events = database.number("SELECT count(*) FROM job_events");
    assert_eq!(events, i64::from(jobs) * i64::from(EVENTS_PER_JOB), "events");
}
