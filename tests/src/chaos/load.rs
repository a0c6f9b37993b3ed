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
            open_max: 25,
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
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::{Load, Pace};
    use crate::chaos::evidence::subscriber::Subscriber;
    use crate::chaos::evidence::sweep::Sweep;
    use crate::chaos::evidence::{Patience, Site, WorkerSite, gather, leftovers, measures, stored};
    use crate::chaos::history::{Ask, End, History, Noted, Slots};
    use crate::cluster::Cluster;
    use crate::process::Mark;
    use crate::wait::{eventually, pass};

    /// How long it is asked for jobs.
    const LASTS: Duration = Duration::from_secs(8);
    const WITHIN: Duration = Duration::from_mins(1);

    fn site(cluster: &Cluster) -> Site {
        let worker = |index: usize| WorkerSite {
            pid: Some(cluster.workers[index].server.pid()),
            data_dir: cluster.place().join(format!("worker-{index}")),
        };
        Site {
            replicas: cluster.coordinators.iter().map(|coordinator| coordinator.client.clone()).collect(),
            addresses: cluster.coordinators.iter().map(|coordinator| coordinator.address.clone()).collect(),
            coordinators: cluster.coordinators.iter().map(|coordinator| Some(coordinator.server.pid())).collect(),
            workers: (0..cluster.workers.len()).map(worker).collect(),
            database: cluster.postgres.url(),
            nats: cluster.nats.url(),
            monitoring: None,
            mark: Mark::fresh(),
            slots: 16,
        }
    }

    /// What a load of a cluster comes to that nothing happens to.
    fn quiet() -> History {
        let mut sweep = Sweep::default();
        let mut cluster = Cluster::start(2, 0);
        for _ in 0..2 {
            cluster.add_worker_with(&["--slots", "8"], &[]);
        }
        let (mut site, notes) = (site(&cluster), cluster.notes());
        let before = measures::of(&site);
        let subscriber = Subscriber::of(cluster.nats.url());
        let load = Load::at(Pace::default(), 1, &site.replicas, &notes);
        site.mark = load.mark().clone();
        sweep.after(&site.mark);
        pass(LASTS, "a load");
        all_is_seen(&site);
        let history = gather(&site, load.enough(), &notes, subscriber, &before, Patience::default());
        spoiled_is_seen(&site);
        history
    }

    /// Under a load, what must be gone afterwards is seen to be there.
    fn all_is_seen(site: &Site) {
        let End { unfinished, processes, files, .. } = eventually(WITHIN, "jobs run", || {
            let now = leftovers::of(site, Patience { ended: Duration::ZERO, settled: Duration::ZERO });
            (now.processes.len() > 2).then_some(now)
        });
        let one = |all: &[String], what: &str| assert!(all.iter().any(|one| one.contains(what)), "{what}: {all:?}");
        assert!(!unfinished.is_empty());
        one(&processes, " keeper");
        one(&processes, "/bin/sh -e -c");
        one(&files, "/worker/spool/");
        assert!(files.iter().any(|file| !file.contains("/worker/")), "an attempt's directory: {files:?}");
    }

    /// So is what is wrong with the tables.
    fn spoiled_is_seen(site: &Site) {
        let url = &site.database;
        eventually(WITHIN, "all is published", || stored::unpublished(url).is_empty().then_some(()));
        assert!(!stored::strays(url, &site.addresses[1..]).is_empty());
        let longest =
            "SELECT shard::text, max(shard_seq)::text FROM job_events GROUP BY shard ORDER BY max(shard_seq) DESC";
        let longest = &stored::query(url, longest)[0];
        let (shard, last): (u32, u64) = (longest[0].parse().expect("a shard"), longest[1].parse().expect("a number"));
        stored::query(url, &format!("UPDATE shards SET published_seq = {last} - 1 WHERE shard = {shard}"));
        assert_eq!(stored::unpublished(url), [(shard, last - 1, last)]);
        stored::query(url, "ALTER TABLE job_events DISABLE TRIGGER ALL");
        stored::query(url, &format!("DELETE FROM job_events WHERE shard = {shard} AND shard_seq = 1"));
        assert_eq!(stored::gaps(url), [(shard, last - 1, last)]);
        stored::query(url, &format!("UPDATE shards SET owner = NULL WHERE shard = {shard}"));
        assert_eq!(stored::strays(url, &site.addresses), ["1 shards without an owner"]);
    }

    #[test]
    fn a_load_that_nothing_happens_to_is_told_by_all_witnesses_alike() {
        let history = quiet();
        println!("{:#?}", history.end);
        let mut states: BTreeMap<&str, u32> = BTreeMap::new();
        history.rows.iter().for_each(|row| *states.entry(&row.state).or_default() += 1);
        println!("{states:?}, {} calls", history.calls.len());

        let mut accepted = BTreeSet::new();
        for call in &history.calls {
            let answer = call.answer.as_ref().expect("an answer");
            assert!(call.asked_at <= answer.at && call.replica < 2);
            if let Ask::Submit { keys } = &call.ask {
                assert!(matches!(answer.status, 200 | 201), "{call:?}");
                accepted.extend(keys.iter().cloned().zip(answer.jobs.iter().map(|job| job.id.clone())));
            }
        }
        let keys: Vec<_> = accepted.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, history.jobs.keys().collect::<Vec<_>>(), "each is accepted as one job");
        let first = history.rows.iter().filter(|row| row.retry_of.is_none());
        assert_eq!(accepted, first.map(|row| (row.key.clone(), row.id.clone())).collect());
        assert!(history.jobs.len() > 40 && states.len() == 3, "{states:?} of {} jobs", history.jobs.len());
        for row in history.rows.iter().filter(|row| row.state == "succeeded") {
            let noted = history.notes[&row.key].iter().filter(|note| note.job == row.id && note.attempt == row.attempt);
            let noted: Vec<_> = noted.map(|note| (note.step, note.what)).collect();
            let steps = 0..u32::try_from(history.jobs[&row.key].exits.len()).expect("few steps");
            let all: Vec<_> = steps.flat_map(|step| [(step, Noted::Begin), (step, Noted::End)]).collect();
            assert_eq!(noted, all, "{row:?}");
        }

        let rows = history.rows.iter().map(|row| (&row.id, (&row.state, row.attempt, &row.outcome)));
        let rows: BTreeMap<_, _> = rows.collect();
        for replica in 0..2 {
            let views = history.views.iter().filter(|view| view.replica == replica);
            let views: BTreeMap<_, _> = views.map(|v| (&v.job, (&v.state, v.attempt, &v.outcome))).collect();
            assert_eq!(views, rows, "as replica {replica} lists them");
        }
        let events: BTreeSet<_> = history.events.iter().map(|event| (&event.job, event.seq, &event.kind)).collect();
        let told: BTreeSet<_> = history.told.iter().map(|told| (&told.job, told.seq, &told.kind)).collect();
        assert_eq!(told, events);
        assert_eq!(told.len(), history.told.len(), "nothing is told twice where nothing happens");

        let over: Vec<_> = history.end.measures.iter().filter(|m| m.after > m.before + m.allowance).collect();
        assert!(over.is_empty(), "{over:?}");
        let End { workers, measures, .. } = history.end.clone();
        let slots = Some(Slots { there: 16, ran_at_once: 16 });
        assert_eq!(history.end, End { workers, measures, slots, ..End::default() });
    }
}
