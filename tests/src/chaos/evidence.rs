//! What is there in the end: notes, events, rows, and what is left over.
//!
//! All of it is gathered by ways that no trouble befalls, from a cluster that is whole again.

pub mod leftovers;
pub mod measures;
pub mod notes;
pub mod slots;
pub mod stored;
pub mod subscriber;
pub mod sweep;
pub mod views;

use std::path::{Path, PathBuf};
use std::time::Duration;

use self::measures::Counts;
use self::subscriber::Subscriber;
use super::history::History;
use super::load::Said;
use crate::http::Client;
use crate::process::Mark;

/// Where to look.
pub struct Site {
    /// One for each coordinator, which reaches it without a detour.
    pub replicas: Vec<Client>,
    /// The coordinators' addresses, as their rows have them.
    pub addresses: Vec<String>,
    /// The number of each coordinator's process, where it runs.
    pub coordinators: Vec<Option<i32>>,
    pub workers: Vec<WorkerSite>,
    /// The database's URL.
    pub database: String,
    pub nats: String,
    /// Where NATS tells of itself over HTTP, if it does.
    pub monitoring: Option<String>,
    /// What the processes of jobs carry.
    pub mark: Mark,
    /// The slots of all workers together.
    pub slots: u64,
}

/// A worker.
pub struct WorkerSite {
    /// Its process's number, where it runs.
    pub pid: Option<i32>,
    pub data_dir: PathBuf,
}

/// How long it may take until nothing is to be done any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until the last job has ended.
    pub ended: Duration,
    /// What follows that, each by itself: logs that are still sent, a spool that is emptied, events that are published.
    pub settled: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { ended: Duration::from_mins(5), settled: Duration::from_mins(1) }
    }
}

/// Gathers everything but the seed, the troubles and the deaths, once nothing is to be done any more, or that has been waited
/// for in vain. `before` is what was measured before the load.
///
/// The jobs that fill the slots come last, and are in none of it.
///
/// # Panics
/// When something can't be asked.
pub fn gather(
    site: &Site,
    said: Said,
    notes: &Path,
    subscriber: Subscriber,
    before: &Counts,
    patience: Patience,
) -> History {
    let mut end = leftovers::of(site, patience);
    let told = subscriber.finish(patience.settled);
    let (rows, events) = (stored::rows(&site.database), stored::events(&site.database));
    let (views, notes) = (views::of(&site.replicas), notes::read(notes));
    end.measures = measures::compared(before, site);
    end.slots = Some(slots::counted(site));
    let Said { jobs, calls, .. } = said;
    History { jobs, calls, notes, told, rows, events, views, end, ..History::default() }
}
