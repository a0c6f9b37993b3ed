//! What grows if something leaks: counted before the load and after it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::leftovers::left;
use super::{Site, stored};
use crate::chaos::history::Measure;
use crate::http::Client;
use crate::process::children;

/// How long it may take until what a load needed is given back: connections and threads that idle are kept for a while.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);

/// How many looks in a row find the same where nothing comes any more, and how long that is waited for.
const LOOKS_ALIKE: u32 = 10;
const RESTING_WITHIN: Duration = Duration::from_secs(30);

/// The most sessions that a coordinator's pools have at Postgres together. They are opened when they are needed first, which
/// is under a load, and then kept.
const SESSIONS_MAX: u64 = 16;
/// Connections to a coordinator over HTTP that are open at the moment, ours among them.
const CONNECTIONS: u64 = 8;
/// Threads for work that blocks come when there is some, and go after a while.
const THREADS: u64 = 2;
/// What a worker happens to write or look up at the moment.
const FILES: u64 = 4;

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Counted {
    /// Each process has one.
    NatsConnections,
    /// Those that the processes ask for when they start.
    NatsSubscriptions,
    Sessions,
    CoordinatorFiles(usize),
    WorkerFiles(usize),
    CoordinatorThreads(usize),
    WorkerThreads(usize),
    CoordinatorChildren(usize),
    /// Keepers.
    WorkerChildren(usize),
}

/// What was counted at one time.
#[derive(Debug, Clone, Default)]
pub struct Counts(BTreeMap<Counted, u64>);

impl Counted {
    fn name(&self) -> String {
        match self {
            Self::NatsConnections => "connections at NATS".to_owned(),
            Self::NatsSubscriptions => "subscriptions at NATS".to_owned(),
            Self::Sessions => "sessions at Postgres".to_owned(),
            Self::CoordinatorFiles(index) => format!("files open in coordinator {index}"),
            Self::WorkerFiles(index) => format!("files open in worker {index}"),
            Self::CoordinatorThreads(index) => format!("threads of coordinator {index}"),
            Self::WorkerThreads(index) => format!("threads of worker {index}"),
            Self::CoordinatorChildren(index) => format!("children of coordinator {index}"),
            Self::WorkerChildren(index) => format!("children of worker {index}"),
        }
    }

    /// How much more it may be after the load than the `before` that it was.
    fn allowance(&self, before: u64, coordinators: u64) -> u64 {
        match self {
            Self::NatsConnections | Self::NatsSubscriptions => 0,
            Self::Sessions => (SESSIONS_MAX * coordinators).saturating_sub(before),
            Self::CoordinatorFiles(_) => SESSIONS_MAX + CONNECTIONS,
            Self::WorkerFiles(_) => FILES,
            Self::CoordinatorThreads(_) | Self::WorkerThreads(_) => THREADS,
            Self::CoordinatorChildren(_) | Self::WorkerChildren(_) => 0,
        }
    }
}

/// Counts everything as soon as the subscriptions stay as many as they are for a while: those of a process that has just
/// started come one by one.
pub fn at_rest(site: &Site) -> Counts {
    let (mut counts, mut same) = (of(site), 0);
    left(RESTING_WITHIN, || {
        let now = of(site);
        let subscriptions = |counts: &Counts| counts.0.get(&Counted::NatsSubscriptions).copied();
        same = if subscriptions(&now) == subscriptions(&counts) { same + 1 } else { 0 };
        counts = now;
        (same..LOOKS_ALIKE).collect()
    });
    counts
}

/// Counts everything.
///
/// # Panics
/// When something can't be counted, as where a process is gone that is said to run.
pub fn of(site: &Site) -> Counts {
    let mut counts = BTreeMap::new();
    if let Some(url) = &site.monitoring {
        let page = Client::new(url, "").get("/connz?limit=1024");
        assert_eq!(page.status, 200, "{}", page.text);
        let connections = page.json["connections"].as_array().cloned().unwrap_or_default();
        let subscriptions = connections.iter().filter_map(|connection| connection["subscriptions"].as_u64()).sum();
        counts.insert(Counted::NatsConnections, connections.len() as u64);
        counts.insert(Counted::NatsSubscriptions, subscriptions);
    }
    let sessions = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'windlass'";
    let sessions = stored::query(&site.database, sessions)[0][0].parse().expect("a number");
    counts.insert(Counted::Sessions, sessions);
    for (index, pid) in site.coordinators.iter().enumerate() {
        let Some(pid) = *pid else { continue };
        counts.insert(Counted::CoordinatorFiles(index), entries(pid, "fd"));
        counts.insert(Counted::CoordinatorThreads(index), entries(pid, "task"));
        counts.insert(Counted::CoordinatorChildren(index), children(pid).len() as u64);
    }
    for (index, worker) in site.workers.iter().enumerate() {
        let Some(pid) = worker.pid else { continue };
        counts.insert(Counted::WorkerFiles(index), entries(pid, "fd"));
        counts.insert(Counted::WorkerThreads(index), entries(pid, "task"));
        counts.insert(Counted::WorkerChildren(index), children(pid).len() as u64);
    }
    Counts(counts)
}

fn entries(pid: i32, directory: &str) -> u64 {
    let path = format!("/proc/{pid}/{directory}");
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    entries.count() as u64
}

/// Each once more, beside what it was: as soon as nothing is more than it may be, or when that has been waited for in vain.
pub fn compared(before: &Counts, site: &Site) -> Vec<Measure> {
    let mut measured = Vec::new();
    left(SETTLED_WITHIN, || {
        measured = joined(before, &of(site), site.coordinators.len() as u64);
        measured.iter().filter(|measure| measure.after > measure.before + measure.allowance).cloned().collect()
    });
    measured
}

/// What is counted only once is nothing to compare.
fn joined(before: &Counts, after: &Counts, coordinators: u64) -> Vec<Measure> {
    let both = after.0.iter().filter_map(|(counted, after)| Some((counted, *before.0.get(counted)?, *after)));
    let measure = |(counted, before, after): (&Counted, u64, u64)| {
        let allowance = counted.allowance(before, coordinators);
        Measure { what: counted.name(), before, after, allowance }
    };
    both.map(measure).collect()
}

#[cfg(test)]
mod tests {
    use super::{Counted, Counts, joined};

    #[test]
    fn a_measure_has_both_counts_and_what_it_may_grow_by() {
        let counts = |sessions, files| {
            Counts([(Counted::Sessions, sessions), (Counted::WorkerFiles(1), files)].into_iter().collect())
        };
        let joined = joined(&counts(12, 17), &counts(33, 20), 2);
        let words: Vec<_> = joined.iter().map(|m| (m.what.as_str(), m.before, m.after, m.allowance)).collect();
        assert_eq!(words, [("sessions at Postgres", 12, 33, 20), ("files open in worker 1", 17, 20, 4)]);
    }
}
