//! The cluster to which things happen: its processes, the ways between them, their disks and their clocks.
//!
//! Clients and the other coordinators reach a coordinator by a proxy, and by another one each coordinator reaches Postgres
//! and NATS, and each worker NATS. Whoever asks the [`database`](Arena::database) or NATS what is there goes past them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use shared::clock;
use tempfile::TempDir;

use super::history::{At, Id, Kind, Trouble};
use super::schedule::{Planned, Size};
use crate::cluster::{Database, TOKEN, Turn};
use crate::dev::DEADLINE;
use crate::http::Client;
use crate::process::Starter;
use crate::proxy::Proxy;
use crate::wait::eventually;

mod calm;
mod clocks;
mod mounts;
mod part;
mod servers;
#[cfg(test)]
mod tests;
mod troubles;

use clocks::Clocks;
use mounts::Disk;
pub use mounts::own_mounts;
use part::{Part, Recipe};
use servers::Servers;

/// The name of the clock that Postgres looks at.
const POSTGRES: &str = "postgres";
/// How many jobs a worker runs at once.
pub const SLOTS: usize = 4;
/// A coordinator gives its API and then its shards ten seconds each; after the second signal it just ends.
const COORDINATORS_PATIENCE: [Duration; 2] = [Duration::from_secs(25), Duration::from_secs(5)];
/// A worker lets its jobs end, then cancels them, and then just ends.
const WORKERS_PATIENCE: [Duration; 3] = [Duration::from_secs(8), Duration::from_secs(20), Duration::from_secs(5)];

/// A running cluster.
pub struct Arena {
    // What is dropped first ends first: processes before the servers that they use, all of them before their directories.
    coordinators: Vec<Coordinator>,
    workers: Vec<Worker>,
    servers: Servers,
    starter: Starter,
    clocks: Clocks,
    place: TempDir,
    _turn: Turn,
}

struct Coordinator {
    part: Part,
    /// The way by which others reach it.
    way: Proxy,
    to_postgres: Proxy,
    to_nats: Proxy,
}

struct Worker {
    part: Part,
    to_nats: Proxy,
    disk: Disk,
    /// Every id that it was ever seen to have.
    ids: BTreeSet<String>,
}

impl Arena {
    /// Starts a cluster of that size whose every part can be troubled, and waits until it serves.
    pub fn start(size: Size) -> Self {
        let turn = Turn::take();
        let clocks = Clocks::new();
        let mut arena = Self {
            coordinators: Vec::new(),
            workers: Vec::new(),
            servers: Servers::start(&clocks.environment(POSTGRES)),
            starter: Starter::new(),
            clocks,
            place: tempfile::tempdir().expect("a temporary directory"),
            _turn: turn,
        };
        let keys = format!("test:{}", STANDARD.encode(clock::random::<32>()));
        for index in 0..size.coordinators {
            arena.add_coordinator(index, &keys);
        }
        arena.until_up();
        for index in 0..size.workers {
            arena.add_worker(index);
        }
        arena.until_up();
        arena.until_calm().expect("a cluster that nothing has befallen");
        arena
    }

    fn add_coordinator(&mut self, index: usize, keys: &str) {
        let name = format!("coordinator-{index}");
        let way = Proxy::to_nowhere();
        let to_postgres = Proxy::to(&self.servers.postgres.server().address());
        let to_nats = Proxy::to(self.servers.nats_address());
        let mut settings = vec![
            ("WINDLASS_LISTEN".to_owned(), "127.0.0.1:0".to_owned()),
            ("WINDLASS_ADVERTISE_URL".to_owned(), format!("http://{}", way.address())),
            ("WINDLASS_DATABASE_URL".to_owned(), self.servers.postgres.url_by(&to_postgres.address())),
            ("WINDLASS_NATS_URL".to_owned(), format!("nats://{}", to_nats.address())),
            ("WINDLASS_MASTER_KEYS".to_owned(), keys.to_owned()),
            ("WINDLASS_BOOTSTRAP_TOKEN".to_owned(), TOKEN.to_owned()),
            ("HOME".to_owned(), text(self.place.path())),
        ];
        settings.extend(self.clocks.environment(&name));
        let recipe = Recipe {
            arguments: vec!["coordinator".to_owned()],
            settings,
            says: "listening on http://",
            patience: &COORDINATORS_PATIENCE,
            data: None,
            log: self.log_of(&name),
            name,
        };
        self.coordinators.push(Coordinator { part: Part::new(recipe), way, to_postgres, to_nats });
    }

    fn add_worker(&mut self, index: usize) {
        let name = format!("worker-{index}");
        let join = self.clients()[0].post("/api/v1/tokens/join", &json!({}));
        let token = join.json["token"].as_str().unwrap_or_else(|| panic!("a join token: {}", join.text));
        let to_nats = Proxy::to(self.servers.nats_address());
        let disk = Disk::make(&self.place.path().join(&name));
        let mut settings = vec![
            ("WINDLASS_DATA_DIR".to_owned(), text(&disk.data())),
            ("WINDLASS_NATS_URL".to_owned(), format!("nats://{}", to_nats.address())),
            ("WINDLASS_JOIN_TOKEN".to_owned(), token.to_owned()),
            ("WINDLASS_NAME".to_owned(), name.clone()),
            ("HOME".to_owned(), text(self.place.path())),
        ];
        settings.extend(self.clocks.environment(&name));
        let recipe = Recipe {
            arguments: vec!["worker".to_owned(), "--slots".to_owned(), SLOTS.to_string()],
            settings,
            says: "the worker has started",
            patience: &WORKERS_PATIENCE,
            data: Some(disk.data()),
            log: self.log_of(&name),
            name,
        };
        self.workers.push(Worker { part: Part::new(recipe), to_nats, disk, ids: BTreeSet::new() });
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.place.path().join(format!("{name}.log"))
    }

    fn until_up(&mut self) {
        eventually(DEADLINE, "all processes serve", || {
            self.look();
            let ended = self.deaths();
            assert!(ended.is_empty(), "{}", ended.join("\n"));
            self.is_up().then_some(())
        });
    }

    /// For each coordinator a client that reaches it by the way that troubles befall, whichever process is there now.
    pub fn clients(&self) -> Vec<Client> {
        let client = |coordinator: &Coordinator| Client::new(&format!("http://{}", coordinator.way.address()), TOKEN);
        self.coordinators.iter().map(client).collect()
    }

    /// A directory for what jobs note.
    pub fn notes(&self) -> PathBuf {
        let notes = self.place.path().join("notes");
        fs::create_dir_all(&notes).expect("a directory");
        notes
    }

    /// What the platform doesn't allow here, and why: those troubles are left out.
    pub fn not_allowed(&self) -> Vec<String> {
        let disks = Disk::allowed().err().map(|why| format!("full disks: {why}"));
        let clocks = self.clocks.missing().map(|why| format!("clocks that jump: {why}"));
        let nats = "a clock of NATS that jumps: its server is a static program, and reads none but the kernel's";
        disks.into_iter().chain(clocks).chain([nats.to_owned()]).collect()
    }

    fn allows(&self, kind: Kind) -> bool {
        match kind {
            Kind::FullDisk => Disk::allowed().is_ok(),
            Kind::ClockAhead | Kind::ClockBehind => self.clocks.missing().is_none(),
            _ => true,
        }
    }

    /// Carries the schedule out, and ends every trouble; returns what was done, and when. All processes are up again then,
    /// but for those that didn't come up in two minutes: [`deaths`](Self::deaths) tells of them.
    pub fn trouble(&mut self, schedule: &[Planned]) -> Vec<Trouble> {
        troubles::carry_out(self, schedule)
    }

    /// What processes under test did by themselves since the start: ended, didn't end when they were told to, or panicked.
    pub fn deaths(&mut self) -> Vec<String> {
        self.look();
        let parts = self.parts();
        let findings = parts.iter().flat_map(|part| part.findings.clone());
        let panics = parts.iter().flat_map(|part| panics(&part.recipe.name, &part.log()));
        findings.chain(panics).collect()
    }

    /// Writes what each process has logged, of all its starts, into a file in that directory.
    pub fn logs_to(&self, dir: &Path) {
        fs::create_dir_all(dir).expect("a directory");
        for part in self.parts() {
            let name = part.recipe.log.file_name().expect("a name");
            fs::copy(&part.recipe.log, dir.join(name)).expect("a copy");
        }
        fs::write(dir.join("postgres.log"), self.servers.postgres.server().log()).expect("a file");
    }

    /// The database, past all ways.
    pub fn database(&self) -> &Database {
        &self.servers.postgres
    }

    /// NATS, past all ways.
    pub fn nats_url(&self) -> &str {
        &self.servers.nats_url
    }

    /// Where NATS tells over HTTP what it has, as in `/subsz`.
    pub fn nats_monitoring_url(&self) -> &str {
        &self.servers.nats_monitoring_url
    }

    /// The process number of each coordinator, while it runs.
    pub fn coordinator_pids(&self) -> Vec<Option<i32>> {
        self.coordinators.iter().map(|coordinator| coordinator.part.pid()).collect()
    }

    /// The process number of each worker, while it runs.
    pub fn worker_pids(&self) -> Vec<Option<i32>> {
        self.workers.iter().map(|worker| worker.part.pid()).collect()
    }

    /// The data directory of each worker.
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        self.workers.iter().map(|worker| worker.disk.data()).collect()
    }

    /// The ids of each worker: one, unless it enrolled anew.
    pub fn worker_ids(&mut self) -> Vec<Vec<Id>> {
        self.look();
        self.workers.iter().map(|worker| worker.ids.iter().cloned().map(Id).collect()).collect()
    }

    /// How each coordinator is known to the others.
    pub fn coordinator_urls(&self) -> Vec<String> {
        self.coordinators.iter().map(|coordinator| format!("http://{}", coordinator.way.address())).collect()
    }

    fn parts(&self) -> Vec<&Part> {
        let coordinators = self.coordinators.iter().map(|coordinator| &coordinator.part);
        coordinators.chain(self.workers.iter().map(|worker| &worker.part)).collect()
    }

    /// Whether every process serves.
    fn is_up(&self) -> bool {
        self.parts().iter().all(|part| part.ready().is_some())
    }

    /// Sees what the processes did, starts those that are to run, and leads ways to where coordinators listen now.
    fn look(&mut self) {
        for Coordinator { part, way, .. } in &mut self.coordinators {
            part.look(&self.starter);
            let address = part.ready().and_then(|line| line.split_once("http://")).map(|(_, address)| address.trim());
            // The port of one that is gone may be somebody else's by now.
            address.map_or_else(|| way.lead_nowhere(), |address| way.lead_to(address));
        }
        for Worker { part, disk, ids, .. } in &mut self.workers {
            if part.look(&self.starter) {
                ids.extend(identity(&disk.data()));
            }
            if disk.is_full() {
                disk.fill();
            }
        }
        self.servers.look();
    }
}

/// The lines of a log that tell of a panic, each with the next, which says why.
fn panics(name: &str, log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let panicked = lines.windows(2).filter(|pair| pair[0].contains("panicked"));
    panicked.map(|pair| format!("{name} panicked: {} {}", pair[0], pair[1])).collect()
}

/// The id of the worker with that data directory, once it has enrolled.
fn identity(data: &Path) -> Option<String> {
    let identity: Value = serde_json::from_slice(&fs::read(data.join("worker/identity.json")).ok()?).ok()?;
    identity["worker"].as_str().map(str::to_owned)
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of ours").to_owned()
}

/// Now, by the machine's wall clock.
fn now() -> At {
    At(u64::try_from(clock::now().micros()).expect("a time after 1970"))
}

/// Whether it is so long ago; and if so, it was now.
fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|last| last.elapsed() >= every);
    if due {
        *last = Some(clock::instant());
    }
    due
}
