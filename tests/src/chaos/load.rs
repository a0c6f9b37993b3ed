//! The load: clients that submit, cancel, retry and look at jobs, at every coordinator, and write down each call.
//!
//! [`mix`] says which jobs they ask for, [`noting`] how those note what they do, [`asker`] is one client, and [`book`] is what
//! all of them know together.

mod asker;
mod asking;
mod book;
mod mix;
pub mod noting;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use proptest::test_runner::{RngAlgorithm, TestRng};

use self::asker::Asker;
pub use self::asking::{now, seen};
use self::book::Book;
use self::mix::Mix;
use self::noting::Noting;
use super::history::{Asked, Call, Key};
use crate::http::Client;
use crate::process::Mark;

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    /// Of all clients together, as long as there is room.
    pub jobs_per_second: f64,
    pub clients: u32,
    /// With so many jobs that haven't ended, as far as the clients know, nothing new is asked for.
    pub open_max: usize,
    /// How long an answer is waited for.
    pub patience: Duration,
    /// How long after the end what wasn't answered is repeated.
    pub answers_within: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            jobs_per_second: 8.0,
            clients: 6,
            open_max: 100,
            patience: Duration::from_secs(5),
            answers_within: Duration::from_mins(3),
        }
    }
}

/// A load under way.
pub struct Load {
    common: Arc<Common>,
    mark: Mark,
    clients: Vec<JoinHandle<()>>,
}

/// What its clients share.
pub struct Common {
    book: Book,
    mix: Mix,
    pace: Pace,
}

/// What was asked for and answered. The repositories that jobs build are there as long as this is.
pub struct Said {
    pub jobs: BTreeMap<Key, Asked>,
    pub calls: Vec<Call>,
    /// What every process of a job carries in its environment.
    pub mark: Mark,
    _common: Arc<Common>,
}

impl Load {
    /// Begins to ask, at `clients`, for jobs that note in `notes` what they do.
    pub fn begin(seed: u64, clients: &[Client], notes: &Path) -> Self {
        Self::at(Pace::default(), seed, clients, notes)
    }

    /// The same at another pace.
    pub fn at(pace: Pace, seed: u64, clients: &[Client], notes: &Path) -> Self {
        let mark = Mark::fresh();
        let mix = Mix::new(Noting::in_directory(notes), mark.clone());
        let common = Arc::new(Common { book: Book::default(), mix, pace });
        let asks = |number: u32| {
            let ways = clients.iter().map(|client| client.within(pace.patience)).collect();
            let asker = Asker::new(number, random(seed, number), ways, Arc::clone(&common));
            thread::spawn(move || asker.run())
        };
        let clients = (0..pace.clients).map(asks).collect();
        Self { common, mark, clients }
    }

    /// Asks for nothing new; returns when every submission has an answer.
    ///
    /// # Panics
    /// When a client has.
    pub fn enough(self) -> Said {
        self.common.book.say_enough();
        for client in self.clients {
            client.join().expect("a client comes to its end");
        }
        let mut written = self.common.book.open();
        let (jobs, mut calls) = (std::mem::take(&mut written.jobs), std::mem::take(&mut written.calls));
        drop(written);
        calls.sort_by_key(|call| call.asked_at);
        Said { jobs, calls, mark: self.mark, _common: self.common }
    }

    /// What every process of a job carries in its environment.
    pub fn mark(&self) -> &Mark {
        &self.mark
    }
}

/// What that client draws from.
fn random(seed: u64, client: u32) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..12].copy_from_slice(&client.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::{Load, Pace};
    use crate::chaos::evidence::subscriber::Subscriber;
    use crate::chaos::evidence::{Site, WorkerSite, gather, measures};
    use crate::cluster::Cluster;
    use crate::wait::pass;

    #[test]
    fn a_quiet_load_notes_what_it_does() {
        let mut cluster = Cluster::start(2, 0);
        for _ in 0..2 {
            cluster.add_worker_with(&["--slots", "8"], &[]);
        }
        let clients: Vec<_> = cluster.coordinators.iter().map(|coordinator| coordinator.client.clone()).collect();
        let mark = crate::process::Mark::fresh();
        let worker = |index: usize| WorkerSite {
            pid: cluster.workers[index].server.pid(),
            data_dir: cluster.place().join(format!("worker-{index}")),
        };
        let mut site = Site {
            replicas: clients.clone(),
            addresses: cluster.coordinators.iter().map(|coordinator| coordinator.address.clone()).collect(),
            coordinators: cluster.coordinators.iter().map(|coordinator| coordinator.server.pid()).collect(),
            workers: (0..2).map(worker).collect(),
            database: cluster.postgres.url(),
            nats: cluster.nats.url(),
            monitoring: None,
            mark,
            slots: 16,
        };
        let before = measures::of(&site);
        let notes = cluster.notes();
        let subscriber = Subscriber::of(cluster.nats.url());
        let load = Load::at(Pace::default(), 1, &clients, &notes);
        pass(Duration::from_secs(30), "a load");
        let said = load.enough();
        site.mark = said.mark.clone();
        let history = gather(&site, said, &notes, subscriber, &before, Duration::from_mins(3));
        std::fs::write(std::env::temp_dir().join("history.json"), serde_json::to_vec(&history).unwrap()).unwrap();
        println!("{:#?}", history.end);
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for row in &history.rows {
            *counts
                .entry(format!("{} {}", row.state, row.outcome.clone().unwrap_or_default()["reason"]))
                .or_default() += 1;
        }
        println!("{counts:#?}");
    }
}
