//! The worker: takes offers, runs attempts, tells how they went.
//!
//! [`start`] brings one up: first it ends what an earlier start has left, then it tells what became of that one's
//! attempts, and only then announces itself and takes offers. It speaks to coordinators over the bus alone. Its actors
//! run in a thread of their own; the work of the attempts runs on the runtime that [`start`] is called in.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Actor, Addr, System};
use shared::bus::{self, Bus, Service};
use shared::clock;
use shared::id::{Instance, WorkerId};
use shared::wire::{Report, ReportKind};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use agent::contact::{self, TagSets};
use agent::{Agent, SHUTDOWN_GRACE_MAX, Shutdown, claims};
use attempt::directories::private;
pub use output::Tap;
use report::Reporter;
use spool::{Entry, Outcome, Spool};

mod agent;
mod attempt;
mod checkout;
pub mod keeper;
mod output;
mod report;
mod runner;
mod spool;
mod sweep;

/// How long a stop waits for the ends of its attempts to be told, after the longest grace.
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// The most slots of one worker.
pub const SLOTS_MAX: u32 = 4096;

/// What a worker is to be.
#[derive(Clone)]
pub struct Config {
    /// Holds the worker's identity, its spool and the attempts' directories; nobody else uses it.
    pub data_dir: PathBuf,
    /// How many attempts may run at once: 1 to [`SLOTS_MAX`].
    pub slots: u32,
    /// What it offers; it may run jobs that ask for some of these.
    pub tags: Vec<String>,
    /// Below all other entries of a step's environment, but above our own HOME, PATH and LANG; `windlass run` alone
    /// sets it.
    pub base_env: Vec<(OsString, OsString)>,
    /// Where the steps' output goes besides the log, masked and uncut; `windlass run` alone sets it.
    pub tap: Option<Tap>,
    /// The program that runs [`keeper::main`] when its first argument is [`keeper::SUBCOMMAND`]: our own binary.
    pub keeper: PathBuf,
    /// Called at the points of the work that are named there, so that a test can make them fail.
    #[cfg(feature = "faults")]
    pub faults: Option<fn(point: &str)>,
}

/// Why a worker can't be brought up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {path}: {source}", path = path.display())]
    DataDir { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("starting the worker's thread: {0}")]
    Thread(io::Error),
    #[error("listening for orders: {0}")]
    Bus(#[from] bus::Error),
}

/// A worker that runs. Dropping it ends it at once, with all that it runs, and tells nobody.
pub struct Worker {
    agent: Addr<Agent>,
    /// How many attempts run.
    count: watch::Receiver<usize>,
    tasks: Mutex<Tasks>,
    system: System,
}

/// What keeps a worker going besides its actors.
#[derive(Default)]
struct Tasks {
    /// Takes offers.
    taking: JoinSet<()>,
    /// Goes on until the last attempt is told.
    contact: JoinSet<()>,
}

/// What all parts of one worker share.
pub(crate) struct Site {
    config: Arc<Config>,
    reporter: Reporter,
    spool: Spool,
    /// Holds the attempts' directories.
    work: PathBuf,
    /// Where cgroups may be made.
    cgroups: Option<PathBuf>,
    runtime: Handle,
}

impl Config {
    /// A worker on `data_dir` that runs `slots` attempts at once.
    pub fn new(data_dir: PathBuf, slots: u32) -> Self {
        Self {
            data_dir,
            slots,
            tags: Vec::new(),
            base_env: Vec::new(),
            tap: None,
            keeper: PathBuf::from("/proc/self/exe"),
            #[cfg(feature = "faults")]
            faults: None,
        }
    }

    /// A point at which a test may make the work fail; without the feature it is nothing.
    #[cfg_attr(
        not(feature = "faults"),
        expect(clippy::unused_self, reason = "faults are a feature that no release has")
    )]
    fn fault(&self, point: &'static str) {
        #[cfg(feature = "faults")]
        if let Some(fault) = self.faults {
            fault(point);
        }
        #[cfg(not(feature = "faults"))]
        let _ = point;
    }
}

/// Brings a worker up: returns when nothing is left of an earlier start, before it has found a coordinator.
///
/// # Errors
/// When its data directory can't be used, or its thread can't be started.
pub async fn start(config: Config, bus: Arc<dyn Bus>) -> Result<Worker, Error> {
    let slots = config.slots.clamp(1, SLOTS_MAX);
    let config = Arc::new(Config { slots, ..config });
    let dir = config.data_dir.clone();
    let prepared = tokio::task::spawn_blocking(move || prepare(&dir)).await;
    let Prepared { worker, spool, work, left } = prepared.map_err(|e| Error::Thread(io::Error::other(e)))??;
    let instance = Instance(clock::random_uuid());
    let requests = bus.serve(Service::Worker(worker)).await?;
    let reporter = Reporter { bus, worker, instance };
    let cgroups = keeper::cgroup::parent();
    let site = Arc::new(Site { config, reporter, spool, work, cgroups, runtime: Handle::current() });
    let (counted, count) = watch::channel(0);
    let (agent, system) = actors(site.clone(), counted).await?;
    let tag_sets = TagSets::new(Vec::new());
    let slots = Arc::new(Semaphore::new(usize::try_from(slots).unwrap_or(1)));
    let mut tasks = Tasks::default();
    tasks.contact.spawn(contact::orders(agent.clone(), requests));
    tasks.contact.spawn(contact::heartbeats(site.clone(), agent.clone()));
    let taking = agent.clone();
    tasks.taking.spawn(async move {
        announce(&site, left, &tag_sets).await;
        let hellos = contact::hellos(site.clone(), tag_sets.clone());
        tokio::join!(hellos, claims::take(site, taking, tag_sets, slots));
    });
    Ok(Worker { agent, count, tasks: Mutex::new(tasks), system })
}

impl Worker {
    /// Takes nothing more, stops what runs with its grace (30 s at most), waits until the ends are told, and ends.
    /// What isn't told by then is in the spool. A second call finds nothing to do.
    pub async fn stop(&self) {
        self.tasks().taking.abort_all();
        // An agent that is gone has stopped its attempts already.
        let _ = self.agent.send(Shutdown).await;
        let mut count = self.count.clone();
        if timeout(SHUTDOWN_GRACE_MAX + TELL_WITHIN, count.wait_for(|count| *count == 0)).await.is_err() {
            tracing::warn!(attempts = *count.borrow(), "not every attempt could be told: the next start does it");
        }
        self.tasks().contact.abort_all();
        self.system.stop();
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, Tasks> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.system.stop();
    }
}

impl Site {
    /// Does something with the spool where it may block; whether it went well.
    async fn spooled(&self, work: impl FnOnce(&Spool) -> io::Result<()> + Send + 'static) -> bool {
        let spool = self.spool.clone();
        match tokio::task::spawn_blocking(move || work(&spool)).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "writing the spool");
                false
            }
            Err(error) => {
                tracing::error!(%error, "writing the spool");
                false
            }
        }
    }
}

/// What a start finds on disk.
struct Prepared {
    worker: WorkerId,
    spool: Spool,
    work: PathBuf,
    /// What an earlier start has left in the spool.
    left: Vec<Entry>,
}

/// Reads the data directory and ends what an earlier start has left running. It blocks.
fn prepare(dir: &Path) -> Result<Prepared, Error> {
    let own = dir.join("worker");
    let work = dir.join("work");
    private(&own).map_err(at("making", &own))?;
    private(&work).map_err(at("making", &work))?;
    let id = own.join("id");
    let worker = identity(&id).map_err(at("reading", &id))?;
    let spool = own.join("spool");
    let entries = |spool: Spool| spool.entries().map(|left| (spool, left));
    let (spool, left) = Spool::open(spool.clone()).and_then(entries).map_err(at("reading", &spool))?;
    sweep::after_a_crash(&left, &work).map_err(at("sweeping", &work))?;
    Ok(Prepared { worker, spool, work, left })
}

/// The worker's identity, made at its first start.
fn identity(path: &Path) -> io::Result<WorkerId> {
    match fs::read_to_string(path) {
        Ok(text) => text.trim().parse().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let id = WorkerId(clock::random_uuid());
            let fresh = path.with_extension("new");
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
            writeln!(file, "{id}")?;
            file.sync_all()?;
            fs::rename(&fresh, path)?;
            Ok(id)
        }
        Err(error) => Err(error),
    }
}

/// Starts the agent in a thread of its own, which runs until its system is stopped.
async fn actors(site: Arc<Site>, count: watch::Sender<usize>) -> Result<(Addr<Agent>, System), Error> {
    let (started, ready) = oneshot::channel();
    let thread = std::thread::Builder::new().name("worker".to_owned()).spawn(move || {
        let runner = System::new();
        runner.block_on(async move {
            let agent = Agent::new(site, count).start();
            // A caller that is gone has dropped what would have been a worker.
            let _ = started.send((agent, System::current()));
        });
        if let Err(error) = runner.run() {
            tracing::error!(%error, "the worker's actors");
        }
    });
    thread.map_err(Error::Thread)?;
    ready.await.map_err(|error| Error::Thread(io::Error::other(error)))
}

/// Tells what became of the attempts of an earlier start, then that this one is there. Then the coordinators end what is
/// left of the earlier one, and the spool can forget it.
async fn announce(site: &Site, left: Vec<Entry>, tag_sets: &TagSets) {
    for Entry { job, attempt, outcome, .. } in &left {
        if let Some(Outcome { end, log }) = outcome.clone() {
            let report = Report { job: *job, attempt: *attempt, what: ReportKind::End { end, log } };
            site.reporter.until_answered(job.shard(), vec![report]).await;
        }
    }
    contact::first_hello(site, tag_sets).await;
    for Entry { job, attempt, .. } in left {
        site.spooled(move |spool| spool.remove(job, attempt)).await;
    }
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::DataDir { doing, path, source }
}
