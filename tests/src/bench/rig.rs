//! The cluster that is measured: Postgres that keeps what is committed on the disk, NATS, coordinators and workers, each a
//! process of its own.

use std::path::PathBuf;
use std::time::Duration;

use shared::clock;

use super::usage::Meter;
use crate::cluster::{Cluster, Database};
use crate::http::Client;
use crate::wait;
use crate::windlass;

/// The program that is measured, which has the feature `bench`.
pub const PROGRAM: &str = "windlass-bench";
/// Settings of Postgres, for ours and for what we are compared with: memory as its documentation advises at the least, and
/// checkpoints as rare as an operator of a busy server makes them.
pub const POSTGRES: &[&str] =
    &["synchronous_commit=on", "shared_buffers=1GB", "max_wal_size=8GB", "checkpoint_timeout=15min"];
/// Tells a worker to pretend that it runs its jobs.
pub const NO_OP: (&str, &str) = ("WINDLASS_BENCH_NO_OP", "1");
/// The stream of events.
const EVENTS: &str = "WINDLASS_EVENTS";

/// Where the program that is measured is.
///
/// # Panics
/// When it was not built.
pub fn program() -> PathBuf {
    let path = windlass::beside(PROGRAM);
    assert!(path.exists(), "there is no {}: start this with `cargo run`, which builds it", path.display());
    path
}

/// A cluster under measurement.
pub struct Rig {
    pub cluster: Cluster,
    monitor: Client,
}

impl Rig {
    /// Postgres and NATS, and nobody on them yet.
    pub fn bare() -> Self {
        let cluster = Cluster::bare_of(program(), || Database::durable(POSTGRES));
        let monitor = Client::new(&cluster.nats.monitoring_url(), "");
        Self { cluster, monitor }
    }

    /// The same with so many coordinators that share the shards.
    pub fn with_coordinators(count: usize) -> Self {
        let mut rig = Self::bare();
        for _ in 0..count {
            rig.cluster.add_coordinator(&[]);
        }
        rig.cluster.until_spread();
        rig
    }

    /// One more worker that pretends to run its jobs.
    pub fn add_no_op_worker(&mut self, slots: u32) {
        self.cluster.add_worker_with(&["--slots", &slots.to_string()], &[NO_OP]);
    }

    /// How many events were published since the stream is there, as NATS counts them.
    pub fn published(&self) -> u64 {
        let told = self.monitor.get("/jsz?streams=true").json;
        let accounts = told["account_details"].as_array().into_iter().flatten();
        let streams = accounts.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
        let events = streams.filter(|stream| stream["name"] == EVENTS);
        events.filter_map(|stream| stream["state"]["last_seq"].as_u64()).sum()
    }

    /// Waits until so many events are published in all.
    ///
    /// # Panics
    /// When they aren't `within` that time.
    pub fn until_published(&self, count: u64, within: Duration) {
        let begun = clock::instant();
        while self.published() < count {
            assert!(begun.elapsed() < within, "{} of {count} events are published after {within:?}", self.published());
            wait::between_samples();
        }
    }

    /// A number that the database tells.
    ///
    /// # Panics
    /// When the query has no number for an answer.
    pub fn number(&self, query: &str) -> f64 {
        let rows = self.cluster.postgres.rows(query);
        let number = rows.first().and_then(|row| row.first()).and_then(|text| text.parse().ok());
        number.unwrap_or_else(|| panic!("{query}: {rows:?}"))
    }

    /// How far the write-ahead log is, in bytes.
    pub fn wal(&self) -> f64 {
        self.number("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::text")
    }

    /// How many transactions were committed, as far as sessions have told: they do when they rest.
    pub fn commits(&self) -> f64 {
        self.number("SELECT xact_commit::text FROM pg_stat_database WHERE datname = current_database()")
    }

    /// Counts the CPU time of every process from now on, ours that makes the load included.
    pub fn meter(&self) -> Meter {
        let coordinators = self.cluster.coordinators.iter().map(|one| ("coordinator", Some(one.server.pid())));
        let workers = self.cluster.workers.iter().map(|one| ("worker", Some(one.server.pid())));
        let servers = [
            ("Postgres", Some(self.cluster.postgres.server().pid())),
            ("NATS", Some(self.cluster.nats.pid())),
            ("load", None),
        ];
        Meter::start(coordinators.chain(workers).chain(servers).collect())
    }
}
