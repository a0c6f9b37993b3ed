//! The worker: takes offers, runs attempts, tells how they went.
//!
//! [`start`] brings one up: first it ends what an earlier start has left, enrols if it never did, then tells what became of
//! that one's attempts, and only then announces itself and takes offers. It speaks to coordinators over the bus alone. Its actors
//! run in a thread of their own; the work of the attempts runs on the runtime that [`start`] is called in.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix::{Addr, System};
use shared::bus::{self, Bus, Service};
use shared::clock;
use shared::id::{Instance, WorkerId};
use shared::proof::ProofKey;
use shared::secret::Secret;
use shared::spec::KeyRetry;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use agent::{Agent, SHUTDOWN_GRACE_MAX, Shutdown, claims, contact};
use checkout::mirror::Mirrors;
use courier::Courier;
use deploy_key::fetcher::LOOK_EVERY;
use deploy_key::policy::UNANSWERED_WITHIN;
use duty::Duty;
use epochs::Epochs;
use killer::Killer;
pub use output::Tap;
use report::Reporter;
use site::{LOGS_MAX, REMOVALS_MAX, Site};
use startup::{Enrolled, Prepared};

mod agent;
mod attempt;
mod checkout;
mod courier;
mod deploy_key;
mod durable;
mod duty;
mod epochs;
#[cfg(feature = "faults")]
pub mod fuzzed;
mod identity;
pub mod keeper;
mod killer;
mod output;
mod report;
mod runner;
mod site;
mod spool;
mod ssh_agent;
mod startup;
mod sweep;
mod told;

/// How long a stop waits for the ends of its attempts to be told, after the longest grace.
const TELL_WITHIN: Duration = Duration::from_secs(10);
/// How long processes may take to end once they are killed.
const END_WITHIN: Duration = Duration::from_secs(2);
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
    /// What people shall call it; told when it enrols.
    pub name: String,
    /// What it enrols with, if it has no identity yet: see [`is_enrolled`]. With one it is ignored.
    pub join: Option<Secret>,
    /// Below all other entries of a step's environment, but above our own HOME, PATH and LANG; `windlass run` alone
    /// sets it.
    pub base_env: Vec<(OsString, OsString)>,
    /// Where the steps' output goes besides the log, masked and uncut; `windlass run` alone sets it.
    pub tap: Option<Tap>,
    /// The program that runs [`keeper::main`] when its first argument is [`keeper::SUBCOMMAND`]: our own binary.
    pub keeper: PathBuf,
    /// Whether this process takes in what loses its keeper, and ends it. Then nothing else that the process starts may
    /// begin a session of its own: it would be taken for a job's.
    pub adopts: bool,
    /// What a checkout's git is given of the environment: whom to trust over HTTPS, and which proxies to go by.
    pub git_env: Vec<(OsString, OsString)>,
    /// How it looks for a deploy key that isn't registered, unless the job says so itself.
    pub key_retry: KeyRetry,
    /// Whether attempts are pretended: each step counts as run and successful, and nothing of it is. All else is as ever.
    #[cfg(feature = "bench")]
    pub no_op: bool,
    /// Called at the points of the work that are named there, so that a test can make them fail.
    #[cfg(feature = "faults")]
    pub faults: Option<fn(point: &str)>,
    /// How long nobody may say whether a deploy key is there, in place of two minutes.
    #[cfg(feature = "faults")]
    pub key_unanswered: Option<Duration>,
    /// How often a deploy key is looked for in the middle of a long wait, in place of every 30 s.
    #[cfg(feature = "faults")]
    pub key_look_every: Option<Duration>,
    /// How long a question to a git server and a fetch may take, each, in place of their own limits.
    #[cfg(feature = "faults")]
    pub git_within: Option<Duration>,
}

/// Why a worker can't be brought up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{doing} {path}: {cause}", path = path.display())]
    DataDir { doing: &'static str, path: PathBuf, cause: io::Error },
    #[error(
        "this worker has no identity in {path} and no join token to get one: set WINDLASS_JOIN_TOKEN",
        path = path.display()
    )]
    NotEnrolled { path: PathBuf },
    #[error("the join token was refused: {why}")]
    Refused { why: String },
    #[error("the worker's agent died: its log says why")]
    AgentDied,
    #[error("this worker was revoked: to take part again it needs another data directory and a join token")]
    Revoked,
    #[error("starting the worker's thread: {0}")]
    Thread(io::Error),
    #[error("listening for orders: {0}")]
    Bus(#[from] bus::Error),
}

/// A worker that runs. Dropping it ends it at once, with all that it runs, and tells nobody.
pub struct Worker {
    agent: Addr<Agent>,
    site: Arc<Site>,
    tasks: Mutex<Tasks>,
    system: System,
    stopped: AtomicBool,
}

/// What keeps a worker going besides its actors.
#[derive(Default)]
struct Tasks {
    /// Takes offers.
    taking: JoinSet<()>,
    /// Goes on until the last attempt is told.
    contact: JoinSet<()>,
}

impl Config {
    /// A worker on `data_dir` that runs `slots` attempts at once.
    pub fn new(data_dir: PathBuf, slots: u32) -> Self {
        Self {
            data_dir,
            slots,
            tags: Vec::new(),
            name: "worker".to_owned(),
            join: None,
            base_env: Vec::new(),
            tap: None,
            keeper: PathBuf::from("/proc/self/exe"),
            adopts: true,
            git_env: checkout::handed_on(std::env::vars_os()),
            key_retry: KeyRetry::default(),
            #[cfg(feature = "bench")]
            no_op: std::env::var_os("WINDLASS_BENCH_NO_OP").is_some(),
            #[cfg(feature = "faults")]
            faults: None,
            #[cfg(feature = "faults")]
            key_unanswered: None,
            #[cfg(feature = "faults")]
            key_look_every: None,
            #[cfg(feature = "faults")]
            git_within: None,
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

    /// How long nobody may say whether a deploy key is there, before the attempt is given back.
    #[cfg_attr(not(feature = "faults"), expect(clippy::unused_self, reason = "only a test may have it otherwise"))]
    fn key_unanswered(&self) -> Duration {
        #[cfg(feature = "faults")]
        if let Some(within) = self.key_unanswered {
            return within;
        }
        UNANSWERED_WITHIN
    }

    /// How often a deploy key is looked for in the middle of a long wait.
    #[cfg_attr(not(feature = "faults"), expect(clippy::unused_self, reason = "only a test may have it otherwise"))]
    fn key_look_every(&self) -> Duration {
        #[cfg(feature = "faults")]
        if let Some(every) = self.key_look_every {
            return every;
        }
        LOOK_EVERY
    }

    /// How long git may be busy with a server.
    #[cfg_attr(not(feature = "faults"), expect(clippy::unused_self, reason = "only a test may have it otherwise"))]
    fn git_limits(&self) -> checkout::Limits {
        #[cfg(feature = "faults")]
        if let Some(within) = self.git_within {
            return checkout::Limits { ask: within, fetch: within };
        }
        checkout::Limits::default()
    }
}

/// Whether a worker has enrolled in that data directory, so that its start needs no join token.
pub fn is_enrolled(data_dir: &Path) -> bool {
    identity::file(&startup::own(data_dir)).exists()
}

/// The worker that has enrolled in that data directory.
///
/// # Errors
/// When what is there can't be read.
pub fn enrolled(data_dir: &Path) -> io::Result<Option<WorkerId>> {
    Ok(identity::Identity::load(&startup::own(data_dir))?.map(|identity| identity.worker))
}

/// Forgets the identity in that data directory, so that the next start enrols anew: for one that no coordinator knows any
/// more.
///
/// # Errors
/// When it can't be removed.
pub fn forget(data_dir: &Path) -> io::Result<()> {
    std::fs::remove_file(identity::file(&startup::own(data_dir)))
}

/// Brings a worker up: returns when nothing is left of an earlier start and it has an identity. A first start waits for a
/// coordinator to enrol with, without end and saying so; any other hasn't found one yet.
///
/// # Errors
/// When its data directory can't be used, it can't enrol, or its thread can't be started.
pub async fn start(config: Config, bus: Arc<dyn Bus>) -> Result<Worker, Error> {
    let slots = config.slots.clamp(1, SLOTS_MAX);
    let config = Arc::new(Config { slots, ..config });
    keeper::rank::protect();
    if config.adopts
        && let Err(error) = keeper::orphans::adopt()
    {
        tracing::warn!(%error, "what loses its keeper can't be adopted");
    }
    let mut prepared = startup::prepare(&config).await?;
    let Enrolled { identity, start } = startup::identify(&config, &*bus, &mut prepared).await?;
    let Prepared { spool, work, agents, mirrors, left, .. } = prepared;
    let worker = identity.worker;
    let requests = bus.serve(Service::Worker(worker)).await?;
    let courier = Courier {
        bus,
        worker,
        instance: Instance(clock::random_uuid()),
        start,
        key: ProofKey::of(&identity.secret),
        epochs: Arc::new(Epochs::left_in(&left)),
    };
    let (counted, running) = watch::channel(0);
    let site = Arc::new(Site {
        config,
        reporter: Reporter::new(courier),
        spool,
        work,
        agents,
        mirrors: Arc::new(Mirrors::at(mirrors)),
        cgroups: keeper::cgroup::parent(),
        killer: Killer::new(Handle::current()),
        runtime: Handle::current(),
        duty: Duty::new(),
        greeting: tokio::sync::Mutex::default(),
        beat: Notify::new(),
        slots: Arc::new(Semaphore::new(usize::try_from(slots).unwrap_or(1))),
        removals: Arc::new(Semaphore::new(REMOVALS_MAX)),
        logs: Arc::new(Semaphore::new(usize::try_from(LOGS_MAX).unwrap_or(1))),
        running,
    });
    let (agent, system) = startup::actors(site.clone(), counted).await?;
    let mut tasks = Tasks::default();
    tasks.contact.spawn(contact::orders(site.clone(), agent.clone(), requests));
    tasks.contact.spawn(contact::heartbeats(site.clone(), agent.clone()));
    let (taking, claiming) = (site.clone(), agent.clone());
    tasks.taking.spawn(async move {
        startup::announce(&taking, left).await;
        tokio::join!(contact::hellos(taking.clone()), claims::take(taking.clone(), claiming));
    });
    Ok(Worker { agent, site, tasks: Mutex::new(tasks), system, stopped: AtomicBool::new(false) })
}

impl Worker {
    /// Takes nothing new from now on, and tells the coordinators so; what runs goes on to its end.
    /// [`Worker::drained`] says when that is.
    pub fn drain(&self) {
        self.site.duty.drain();
    }

    /// Returns when a drain is over, whoever has ordered it: nothing runs and all that ran is told. Without a drain it
    /// waits for one. The process can end then, after [`Worker::stop`].
    ///
    /// # Errors
    /// When the worker's agent has died, at once: this worker does nothing any more but tell how its attempts have ended.
    /// When the worker was revoked, at once: it may do nothing any more.
    pub async fn drained(&self) -> Result<(), Error> {
        let mut running = self.site.running.clone();
        tokio::select! {
            // The agent has the sender: it is gone with the agent.
            _ = running.wait_for(|_| false) => {
                if self.stopped.load(Ordering::Acquire) { Ok(()) } else { Err(Error::AgentDied) }
            }
            () = self.site.duty.revoked() => Err(Error::Revoked),
            () = self.idle_for_good() => Ok(()),
        }
    }

    async fn idle_for_good(&self) {
        self.site.duty.draining().await;
        self.site.idle().await;
    }

    /// Takes nothing more, stops what runs with its grace (30 s at most), waits until the ends are told, and ends.
    /// What isn't told by then is in the spool. A second call finds nothing to do.
    pub async fn stop(&self) {
        self.tasks().taking.abort_all();
        // An agent that is gone has stopped its attempts already.
        let grace = self.agent.send(Shutdown).await.unwrap_or(SHUTDOWN_GRACE_MAX);
        // Nobody hears what a worker says that was revoked: its processes' ends are all that there is to wait for.
        let tell = if self.site.duty.is_revoked() { END_WITHIN } else { TELL_WITHIN };
        if timeout(grace + tell, self.site.idle()).await.is_err() {
            tracing::warn!("not every attempt could be told: the next start does it");
        }
        self.stopped.store(true, Ordering::Release);
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
