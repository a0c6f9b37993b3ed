//! The coordinator: it owns jobs, commits their transitions, and tells workers and subscribers.
//!
//! [`Coordinator`] starts and stops the parts; [`service::Service`] is what the API and the command line speak to.
//! Which actor does what, and what happens when one dies, is in ARCHITECTURE.md.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use actix::{Actor, Addr, ArbiterHandle};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use shared::bus::Bus;
use shared::clock;
use shared::id::{CoordinatorId, Shard};
use shared::time::Period;

use crate::arbiters::Arbiters;
use crate::attempts::Attempts;
use crate::audit_desk::AuditDesk;
use crate::committer::{Commits, Committer};
use crate::holdings::Holdings;
use crate::intake::Intake;
use crate::key_watch::KeyWatch;
use crate::publisher::{Publisher, Told};
use crate::registry::Jobs;
use crate::roster::Roster;
use crate::service::Service;
use crate::shards::Shards;
use crate::store::{Error as StoreError, Member, Store};
use crate::timekeeper::Timekeeper;
use crate::vault::{MasterKeys, Vault};

pub mod access;
pub mod api;
mod arbiters;
mod attempts;
mod audit_desk;
pub mod caller;
mod committer;
pub mod explain;
pub mod facts;
pub mod fault;
mod fresh;
#[cfg(feature = "faults")]
pub mod fuzzed;
pub mod holdings;
mod intake;
mod key_watch;
pub mod keys;
pub mod leases;
mod offers;
mod publisher;
mod registry;
pub mod retention;
pub mod roster;
pub mod service;
mod shards;
pub mod store;
mod supervisor;
mod timekeeper;
pub mod vault;
mod web;

/// The number of the format that this program writes, into the store and onto the bus.
pub const FORMAT: u32 = 1;
/// The most arbiters that hold supervisors.
const REGISTRIES_MAX: usize = 8;

/// What a coordinator works with.
#[derive(Clone)]
pub struct Config {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub keys: MasterKeys,
    /// Where other coordinators reach this one's API, like `http://10.0.0.7:7070`; empty where there are none.
    pub address: String,
    /// How long a job is kept after its end.
    pub retention: Period,
}

/// Why a coordinator doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("taking part in the cluster")]
    Store(#[from] StoreError),
    #[error(
        "the database holds what a later version of Windlass has written (format {written}), and this one reads up to format \
         {ours}: start the later version again"
    )]
    Outdated { written: u32, ours: u32 },
    #[error(transparent)]
    MasterKeys(#[from] keys::master::Error),
    #[error("starting the actors' threads")]
    Threads(#[from] std::io::Error),
    #[error("starting the actors")]
    Actors,
}

impl StartError {
    /// Whether another try may go well: the store couldn't be reached, or for so long that the lease was gone meanwhile.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store(error) | Self::MasterKeys(keys::master::Error::Store(error)) => error.may_pass(),
            Self::Outdated { .. } | Self::MasterKeys(_) | Self::Threads(_) | Self::Actors => false,
        }
    }
}

/// A running coordinator.
pub struct Coordinator {
    service: Service,
    store: Arc<dyn Store>,
    arbiters: Arbiters,
    commits: Commits,
    intake: Arc<Intake>,
    /// None once it has left the cluster.
    shards: Option<Shards>,
    /// What goes on beside (see [`Ground::start_beside`]).
    beside: Vec<JoinHandle<()>>,
}

impl Coordinator {
    /// Joins the cluster, takes over what nobody owns, and begins to serve. The store, the bus and what waits for them
    /// run on the caller's runtime, which must have several threads; the actors bring their own.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let Config { store, bus, keys, address, retention } = config;
        let format = shards::formats::ours();
        let member = Member { id: CoordinatorId(clock::random_uuid()), address: address.clone(), format };
        let vault = Arc::new(Vault::new(keys));
        // Before the others see it and deal it shards that it may never serve.
        keys::master::compare_with(&*store, &vault).await?;
        store.join(&member).await?;
        shards::formats::admit(&*store, &member).await?;
        if let Err(error) = keys::master::admit(&*store, member.id, &vault).await {
            // Where that fails too, the lease ends by itself.
            let _ = store.leave(member.id).await;
            return Err(error.into());
        }
        let holdings = Arc::new(Holdings::new(member.id));
        let roster = Arc::new(Roster::new(Arc::clone(&store), Arc::clone(&holdings)));
        let keys_watched = Arc::new(KeyWatch::default());
        let told = Arc::default();
        let ground = Ground { store, bus, runtime: Handle::current(), holdings, roster, vault, keys_watched, told };

        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(REGISTRIES_MAX);
        // The last arbiter is the committer's, the publisher's and the timekeeper's.
        let arbiters = Arbiters::start("coordinator", threads + 1).await?;
        let (common, registries) = arbiters.handles().split_last().ok_or(StartError::Actors)?;
        let (publisher, timekeeper, commits) = ground.start_actors(common).await?;
        let jobs = ground.start_jobs(registries, &commits);
        timekeeper.do_send(timekeeper::Begin(jobs.clone()));
        let intake = Arc::new(ground.intake(&jobs));
        let (gain, gained) = mpsc::channel(offers::GAINS_MAX);
        let beside = ground.start_beside(&jobs, gained, retention);
        let Ground { store, bus, runtime, holdings, roster, vault, keys_watched, told } = ground;
        let parts = shards::Parts {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            holdings: Arc::clone(&holdings),
            commits: commits.clone(),
            publisher: publisher.clone(),
            timekeeper: timekeeper.clone(),
            jobs: jobs.clone(),
            intake: Arc::clone(&intake),
            gained: gain,
            keys_watched: Arc::clone(&keys_watched),
            address,
            format,
        };
        let shards = Shards::start(parts, &runtime).await?;
        let audit = AuditDesk::start(Arc::clone(&store), Arc::clone(&holdings), &runtime);
        let parts = service::Parts {
            store: Arc::clone(&store),
            bus,
            jobs,
            commits: commits.clone(),
            vault,
            keys_watched,
            publisher,
            timekeeper,
            holdings,
            roster,
            audit,
            told,
            beside: beside.iter().map(JoinHandle::abort_handle).collect(),
            stopping: AtomicBool::new(false),
        };
        Ok(Self { service: Service::new(parts), store, arbiters, commits, intake, shards: Some(shards), beside })
    }

    /// What the API and the command line speak to.
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// Gives the shards away and leaves the cluster, while commands for them are still passed on to whoever has them next.
    pub async fn leave(&mut self) {
        if let Some(shards) = self.shards.take() {
            shards.stop().await;
        }
    }

    /// Stops in this order: refuse what would move a job, answer what workers have said, commit what was taken, publish
    /// what was committed and give the shards away, close the store, end the actors. Embedded, the worker must have been
    /// stopped before.
    pub async fn stop(mut self) {
        self.service.refuse();
        for beside in &self.beside {
            beside.abort();
        }
        self.leave().await;
        self.intake.stop().await;
        self.commits.refuse_waiting().await;
        self.commits.drain().await;
        self.store.close().await;
        self.arbiters.stop().await;
    }
}

/// What all parts stand on.
struct Ground {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    runtime: Handle,
    holdings: Arc<Holdings>,
    roster: Arc<Roster>,
    vault: Arc<Vault>,
    keys_watched: Arc<KeyWatch>,
    told: Arc<Told>,
}

impl Ground {
    /// The actors that there is one of.
    async fn start_actors(
        &self,
        arbiter: &ArbiterHandle,
    ) -> Result<(Addr<Publisher>, Addr<Timekeeper>, Commits), StartError> {
        let Self { store, bus, runtime, holdings, told, .. } = self;
        let parts = publisher::Parts {
            store: Arc::clone(store),
            bus: Arc::clone(bus),
            runtime: runtime.clone(),
            holdings: Arc::clone(holdings),
            told: Arc::clone(told),
        };
        let publisher = Publisher::start_in_arbiter(arbiter, move |_| Publisher::new(parts));
        let parts =
            timekeeper::Parts { store: Arc::clone(store), runtime: runtime.clone(), holdings: Arc::clone(holdings) };
        let timekeeper = Timekeeper::start_in_arbiter(arbiter, move |_| Timekeeper::new(parts));
        let parts = committer::Parts {
            store: Arc::clone(store),
            bus: Arc::clone(bus),
            runtime: runtime.clone(),
            publisher: publisher.clone(),
            timekeeper: timekeeper.clone(),
            holdings: Arc::clone(holdings),
        };
        let (told, started) = oneshot::channel();
        arbiter.spawn_fn(move || drop(told.send(Committer::start_with(parts))));
        let commits = started.await.map_err(|_| StartError::Actors)?;
        Ok((publisher, timekeeper, commits))
    }

    fn start_jobs(&self, arbiters: &[ArbiterHandle], commits: &Commits) -> Jobs {
        let Self { store, bus, holdings, roster, .. } = self;
        let (store, holdings) = (Arc::clone(store), Arc::clone(holdings));
        let parts = supervisor::Parts { store, commits: commits.clone(), holdings };
        let surroundings = registry::Surroundings { bus: Arc::clone(bus), roster: Arc::clone(roster) };
        Jobs::start(arbiters, &parts, &surroundings)
    }

    /// What goes on beside: offers made again, deploy keys looked for, the roster read, the first master key kept known, and what
    /// is old removed.
    fn start_beside(&self, jobs: &Jobs, gained: mpsc::Receiver<Vec<Shard>>, keep: Period) -> Vec<JoinHandle<()>> {
        let Self { store, bus, runtime, holdings, roster, keys_watched, vault, .. } = self;
        let offers =
            offers::Parts { store: Arc::clone(store), bus: Arc::clone(bus), holdings: Arc::clone(holdings), gained };
        let keys = key_watch::Parts {
            store: Arc::clone(store),
            bus: Arc::clone(bus),
            jobs: jobs.clone(),
            holdings: Arc::clone(holdings),
            watch: Arc::clone(keys_watched),
        };
        let old = retention::Parts { store: Arc::clone(store), holdings: Arc::clone(holdings), keep };
        vec![
            runtime.spawn(retention::keep_removing(old)),
            runtime.spawn(offers::keep_offering(offers)),
            runtime.spawn(key_watch::keep_looking(keys)),
            runtime.spawn(Arc::clone(roster).keep_fresh(Arc::clone(bus))),
            runtime.spawn(keys::master::keep_known(Arc::clone(store), Arc::clone(holdings), Arc::clone(vault))),
        ]
    }

    fn intake(&self, jobs: &Jobs) -> Intake {
        let Self { store, bus, runtime, holdings, roster, vault, keys_watched, .. } = self;
        Intake::new(intake::Parts {
            store: Arc::clone(store),
            bus: Arc::clone(bus),
            jobs: jobs.clone(),
            holdings: Arc::clone(holdings),
            roster: Arc::clone(roster),
            vault: Arc::clone(vault),
            keys_watched: Arc::clone(keys_watched),
            enrolments: Attempts::default(),
            runtime: runtime.clone(),
        })
    }
}
