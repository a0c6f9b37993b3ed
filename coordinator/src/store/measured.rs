//! Measures every verb of a store: how long it takes, how much it is given, how it ends. The stores themselves stay free of it.
//! [`Meters::snapshot`] is what `/metrics` shows; a slow transaction is warned of when it ends.

use std::array;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tracing::{debug, warn};

use shared::clock;
use shared::id::{Attempt, CoordinatorId, JobId, Seq, Shard, ShardSeq, TokenId, WorkerId};
use shared::job::{Event, Job, Offer};
use shared::log::{Chunk, Line};
use shared::time::Time;
use shared::wire::{Hello, LogAnswer, Welcome, WorkerMode};

use super::{
    Ahead, AuditLine, Batch, Cluster, DeployKey, EndedJob, Enrolled, Error, Filter, KeyPut, Keys, LiveJobs,
    MasterKeyCheck, Member, NewWorker, OwnedShard, Ownership, Place, RemovedExpired, RemovedJobs, Resealed, Retention,
    Roster, Store, Token, Worker, Written,
};

/// From how long on a transaction is slow.
const SLOW: Duration = Duration::from_secs(1);
/// The upper bounds of the durations that are counted together, in microseconds; what takes longer than the last is counted
/// apart.
pub const DURATION_BOUNDS: [u64; 10] = [500, 1000, 2500, 5000, 10_000, 25_000, 100_000, 500_000, 1_000_000, 5_000_000];
/// The same of how many writes, chunks or shards a verb is given.
pub const SIZE_BOUNDS: [u64; 6] = [1, 4, 16, 64, 256, 512];
/// How a verb ends, by name, in the order in which [`Reading::outcomes`] counts them.
pub const OUTCOMES: [&str; 5] = ["done", "unavailable", "unknown", "fenced", "corrupt"];

/// A store that is measured.
pub struct Measured {
    store: Arc<dyn Store>,
    meters: Arc<Meters>,
}

impl Measured {
    /// Measures `store`; `retries` counts the statements that it has repeated, where it repeats any.
    pub fn new(store: Arc<dyn Store>, retries: Option<Arc<AtomicU64>>) -> Self {
        let meters = VERBS.iter().map(|verb| Meter { verb, ..Meter::default() }).collect();
        Self { store, meters: Arc::new(Meters { meters, retries }) }
    }

    /// What is measured.
    pub fn meters(&self) -> Arc<Meters> {
        Arc::clone(&self.meters)
    }
}

/// What was measured since the start.
pub struct Meters {
    meters: Vec<Meter>,
    retries: Option<Arc<AtomicU64>>,
}

/// What was measured of one verb since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    pub verb: &'static str,
    /// How many took at most as long as each of [`DURATION_BOUNDS`] and longer than the one before; last, all others.
    pub durations: [u64; DURATION_BOUNDS.len() + 1],
    /// How long all of them took together.
    pub spent: Duration,
    /// The same as `durations`, of what they were given; empty where that is always one thing.
    pub sizes: [u64; SIZE_BOUNDS.len() + 1],
    /// How many ended in each of the [`OUTCOMES`].
    pub outcomes: [u64; OUTCOMES.len()],
}

impl Meters {
    /// What was measured of every verb that was used.
    pub fn snapshot(&self) -> Vec<Reading> {
        self.meters.iter().map(Meter::read).filter(|reading| reading.outcomes.iter().any(|count| *count > 0)).collect()
    }

    /// How many statements were repeated.
    pub fn retries(&self) -> u64 {
        self.retries.as_ref().map_or(0, |retries| retries.load(Ordering::Relaxed))
    }

    async fn measure<T>(
        &self,
        verb: &'static str,
        size: Option<usize>,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let begun = clock::instant();
        let outcome = work.await;
        let took = begun.elapsed();
        if let Some(meter) = self.meters.iter().find(|meter| meter.verb == verb) {
            meter.note(took, size, outcome.as_ref().err());
        }
        let (took_ms, error) = (took.as_millis(), outcome.as_ref().err());
        if took > SLOW {
            warn!(verb, size, took_ms, ?error, "a slow transaction");
        } else {
            debug!(verb, size, took_ms, ?error, "a transaction");
        }
        outcome
    }
}

#[derive(Default)]
struct Meter {
    verb: &'static str,
    durations: [AtomicU64; DURATION_BOUNDS.len() + 1],
    micros: AtomicU64,
    sizes: [AtomicU64; SIZE_BOUNDS.len() + 1],
    outcomes: [AtomicU64; OUTCOMES.len()],
}

impl Meter {
    fn note(&self, took: Duration, size: Option<usize>, error: Option<&Error>) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        count(&self.durations, place(&DURATION_BOUNDS, micros));
        self.micros.fetch_add(micros, Ordering::Relaxed);
        if let Some(size) = size {
            count(&self.sizes, place(&SIZE_BOUNDS, size as u64));
        }
        let outcome = match error {
            None => 0,
            Some(Error::Unavailable(_)) => 1,
            Some(Error::Unknown(_)) => 2,
            Some(Error::Fenced) => 3,
            Some(Error::Corrupt(_)) => 4,
        };
        count(&self.outcomes, outcome);
    }

    fn read(&self) -> Reading {
        Reading {
            verb: self.verb,
            durations: counted(&self.durations),
            spent: Duration::from_micros(self.micros.load(Ordering::Relaxed)),
            sizes: counted(&self.sizes),
            outcomes: counted(&self.outcomes),
        }
    }
}

/// The first of the bounds that `value` isn't above, or the place after the last.
fn place(bounds: &[u64], value: u64) -> usize {
    bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len())
}

fn count(counters: &[AtomicU64], place: usize) {
    if let Some(counter) = counters.get(place) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn counted<const N: usize>(counters: &[AtomicU64; N]) -> [u64; N] {
    array::from_fn(|place| counters.get(place).map_or(0, |counter| counter.load(Ordering::Relaxed)))
}

/// Declares the verbs of the three traits, each measured under its name; in brackets stands how much it is given.
macro_rules! verbs {
    ($($trait:ident $(with $plain:ident)? {
        $($verb:ident($($argument:ident: $type:ty),*) $([$size:expr])? -> $answer:ty;)+
    })+) => {
        const VERBS: &[&str] = &[$($(stringify!($verb)),+),+];

        $(#[async_trait]
        impl $trait for Measured {
            $(async fn $verb(&self, $($argument: $type),*) -> Result<$answer, Error> {
                let size: Option<usize> = None;
                $(let size = size.or(Some($size));)?
                self.meters.measure(stringify!($verb), size, self.store.$verb($($argument),*)).await
            })+

            $(async fn $plain(&self) {
                self.store.$plain().await;
            })?
        })+
    };
}

verbs! {
    Ownership {
        join(member: &Member) -> ();
        renew(id: CoordinatorId) -> Cluster;
        bury(id: CoordinatorId, expired: &[CoordinatorId]) [expired.len()] -> ();
        raise_format(format: u32) -> ();
        take_over(id: CoordinatorId, shards: &[Shard]) [shards.len()] -> Vec<OwnedShard>;
        succeed(old: CoordinatorId, new: &Member) -> ();
        hand_over(id: CoordinatorId, to: CoordinatorId, shards: &[Shard]) [shards.len()] -> ();
        leave(id: CoordinatorId) -> ();
    }
    Roster {
        enrol(owner: CoordinatorId, token: [u8; 32], worker: &NewWorker, now: Time) -> Enrolled;
        welcome(owner: CoordinatorId, hello: &Hello, now: Time) -> Option<Welcome>;
        workers() -> Vec<Worker>;
        set_mode(owner: CoordinatorId, worker: WorkerId, mode: WorkerMode, audit: &AuditLine) -> Option<Worker>;
        revoke_worker(owner: CoordinatorId, worker: WorkerId, now: Time, audit: &AuditLine) -> Option<Worker>;
        add_token(owner: CoordinatorId, token: &Token, audit: &AuditLine) -> bool;
        revoke_token(owner: CoordinatorId, id: TokenId, now: Time, audit: &AuditLine) -> bool;
        tokens(now: Time) -> Vec<Token>;
    }
    Keys {
        put_key(owner: CoordinatorId, key: &DeployKey, replaces: Option<u32>, audit: &AuditLine) -> KeyPut;
        remove_key(owner: CoordinatorId, name: &str, audit: &AuditLine) -> bool;
        key(name: &str) -> Option<DeployKey>;
        keys(after: Option<&str>, limit: u32) -> Vec<DeployKey>;
        registered(names: &[String]) [names.len()] -> Vec<String>;
        unblocked(shards: &[Shard], after: Option<JobId>, limit: u32) [shards.len()] -> Vec<(JobId, String)>;
        audit(owner: CoordinatorId, line: &AuditLine) -> bool;
        note(owner: CoordinatorId, lines: &[AuditLine]) [lines.len()] -> ();
        audited(subject: Option<&str>, limit: u32) -> Vec<AuditLine>;
        sealed_otherwise(header: &[u8], after: Option<&Place>, limit: u32) -> Vec<(Place, Vec<u8>)>;
        reseal(owner: CoordinatorId, all: &[Resealed]) [all.len()] -> u32;
        master_keys() -> Vec<MasterKeyCheck>;
        add_master_key(owner: CoordinatorId, check: &MasterKeyCheck) -> bool;
        remove_master_keys(owner: CoordinatorId, ids: &[String]) -> ();
    }
    Retention {
        ended_jobs(shards: &[Shard], before: Time, after: Option<JobId>, limit: u32) [shards.len()] -> Vec<EndedJob>;
        remove_jobs(owner: CoordinatorId, jobs: &[JobId], before: Time, chunks_max: u32) [jobs.len()] -> RemovedJobs;
        remove_expired(owner: CoordinatorId, before: Time, limit: u32) -> RemovedExpired;
    }
    Store with close {
        commit(owner: CoordinatorId, batch: Arc<Batch>) [batch.writes.len()] -> Vec<Written>;
        move_cursors(owner: CoordinatorId, cursors: &[(Shard, ShardSeq)]) [cursors.len()] -> ();
        append_log(owner: CoordinatorId, worker: WorkerId, chunks: &[Chunk], now: Time) [chunks.len()] -> Vec<LogAnswer>;
        job(id: JobId) -> Option<Job>;
        jobs(filter: &Filter, before: Option<JobId>, limit: u32) -> Vec<Job>;
        open_jobs(filter: &Filter, after: Option<JobId>, limit: u32) -> Vec<JobId>;
        live_jobs(shards: &[Shard], after: Option<JobId>, limit: u32) [shards.len()] -> LiveJobs;
        offers(shards: &[Shard], before: Time, after: Option<JobId>, limit: u32) [shards.len()] -> Vec<Offer>;
        ahead(job: &Job) -> Ahead;
        due(shards: &[Shard], before: Time, limit: u32) [shards.len()] -> Vec<(JobId, Time)>;
        events(job: JobId, after: Seq, limit: u32) -> Vec<Event>;
        shard_events(shard: Shard, after: ShardSeq, limit: u32) -> Vec<(ShardSeq, Event)>;
        lines(job: JobId, attempt: Option<Attempt>, after: u64, limit: u32) -> Vec<Line>;
        chunk_count(job: JobId, attempt: Attempt) -> u32;
        secrets(job: JobId) -> Option<Vec<u8>>;
        ping() -> ();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::sqlite::SqliteStore;

    #[tokio::test]
    async fn each_verb_is_counted_with_its_size_and_its_end() {
        let directory = tempfile::TempDir::new().unwrap();
        let store = SqliteStore::open(&directory.path().join("windlass.db")).await.unwrap();
        let measured = Measured::new(Arc::new(store), None);
        let meters = measured.meters();
        assert_eq!(meters.snapshot(), []);
        let member = Member { id: CoordinatorId(clock::random_uuid()), address: String::new(), format: 1 };
        let stranger = CoordinatorId(clock::random_uuid());

        measured.join(&member).await.unwrap();
        measured.take_over(member.id, &Shard::all().collect::<Vec<_>>()).await.unwrap();
        measured.commit(member.id, Arc::default()).await.unwrap();
        assert_eq!(measured.commit(stranger, Arc::default()).await, Err(Error::Fenced));

        let read = meters.snapshot();
        assert_eq!(read.iter().map(|reading| reading.verb).collect::<Vec<_>>(), ["join", "take_over", "commit"]);
        let [join, taken, commits] = &read[..] else { panic!("{read:?}") };
        assert_eq!((join.sizes.iter().sum::<u64>(), taken.sizes), (0, [0, 0, 0, 0, 1, 0, 0]));
        assert_eq!((commits.sizes, commits.outcomes), ([2, 0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0]));
        assert!(commits.durations.iter().sum::<u64>() == 2 && !commits.spent.is_zero());
        measured.close().await;
    }
}
