//! The coordinator: it owns jobs, commits their transitions, and tells workers and subscribers.
//!
//! [`Coordinator`] starts and stops the parts; [`service::Service`] is what the API and the command line speak to.
//! Which actor does what, and what happens when one dies, is in ARCHITECTURE.md.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::{Actor, Addr};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use shared::bus::{Bus, Error as BusError};
use shared::clock;
use shared::id::{CoordinatorId, Shard};

use crate::arbiters::Arbiters;
use crate::committer::{Commits, Committer};
use crate::intake::Intake;
use crate::publisher::Publisher;
use crate::registry::Jobs;
use crate::service::Service;
use crate::store::{Error as StoreError, Store};
use crate::timekeeper::Timekeeper;
use crate::vault::{MasterKeys, Vault};

pub mod api;
mod arbiters;
mod committer;
pub mod fault;
mod intake;
pub mod leases;
mod offers;
mod publisher;
mod registry;
pub mod service;
pub mod store;
mod supervisor;
mod timekeeper;
pub mod vault;

/// The most arbiters that hold supervisors.
const REGISTRIES_MAX: usize = 8;
/// How long a stop waits for what is committed to be published; the next start goes on from the cursor.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(10);

/// Why a coordinator doesn't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("taking the shards over")]
    Store(#[from] StoreError),
    #[error("serving the workers")]
    Bus(#[from] BusError),
    #[error("starting the actors' threads")]
    Threads(#[from] std::io::Error),
    #[error("starting the actors")]
    Actors,
}

/// A running coordinator.
pub struct Coordinator {
    service: Service,
    store: Arc<dyn Store>,
    arbiters: Arbiters,
    commits: Commits,
    publisher: Addr<Publisher>,
    intake: Intake,
    offering: JoinHandle<()>,
}

impl Coordinator {
    /// Takes every shard over and begins to serve. The store, the bus and what waits for them run on the caller's
    /// runtime, which must have several threads; the actors bring their own.
    pub async fn start(store: Arc<dyn Store>, bus: Arc<dyn Bus>, keys: MasterKeys) -> Result<Self, StartError> {
        let runtime = Handle::current();
        let coordinator = CoordinatorId(clock::random_uuid());
        let owned = store.take_over(coordinator).await?;
        let shards: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
        let live = store.live_jobs(&shards).await?;

        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(REGISTRIES_MAX);
        // The last arbiter is the committer's, the publisher's and the timekeeper's.
        let arbiters = Arbiters::start("coordinator", threads + 1).await?;
        let (common, registries) = arbiters.handles().split_last().ok_or(StartError::Actors)?;

        let parts = publisher::Parts { store: Arc::clone(&store), bus: Arc::clone(&bus), runtime: runtime.clone() };
        let begin = owned.clone();
        let publisher = Publisher::start_in_arbiter(common, move |_| Publisher::new(parts, &begin));
        let parts = timekeeper::Parts { store: Arc::clone(&store), runtime: runtime.clone(), shards: shards.clone() };
        let timekeeper = Timekeeper::start_in_arbiter(common, move |_| Timekeeper::new(parts));
        let parts = committer::Parts {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            runtime: runtime.clone(),
            publisher: publisher.clone(),
            timekeeper: timekeeper.clone(),
            coordinator,
            shards: owned,
        };
        let (told, started) = oneshot::channel();
        common.spawn_fn(move || drop(told.send(Committer::start_with(parts))));
        let commits = started.await.map_err(|_| StartError::Actors)?;

        let parts = supervisor::Parts { store: Arc::clone(&store), commits: commits.clone() };
        let jobs = Jobs::start(registries, &parts);
        jobs.adopt(live);
        commits.begin(jobs.clone());
        publisher.do_send(publisher::Begin(commits.clone()));
        timekeeper.do_send(timekeeper::Begin(jobs.clone()));

        let vault = Arc::new(Vault::new(keys));
        let parts = intake::Parts {
            store: Arc::clone(&store),
            bus: Arc::clone(&bus),
            jobs: jobs.clone(),
            commits: commits.clone(),
            vault: Arc::clone(&vault),
        };
        let intake = Intake::start(parts, &shards, &runtime).await?;
        let offering = runtime.spawn(offers::keep_offering(Arc::clone(&store), Arc::clone(&bus), shards.clone()));
        let stopping = AtomicBool::new(false);
        let parts = service::Parts {
            store: Arc::clone(&store),
            bus,
            jobs,
            commits: commits.clone(),
            vault,
            publisher: publisher.clone(),
            timekeeper,
            shards,
            stopping,
        };
        Ok(Self { service: Service::new(parts), store, arbiters, commits, publisher, intake, offering })
    }

    /// What the API and the command line speak to.
    pub fn service(&self) -> Service {
        self.service.clone()
    }

    /// Stops in this order: refuse what would move a job, answer what workers have said, commit what was taken, publish
    /// what was committed, close the store, end the actors. The workers must have been stopped before.
    pub async fn stop(self) {
        self.service.refuse();
        self.offering.abort();
        self.intake.stop().await;
        self.commits.drain().await;
        let published = async {
            while self.publisher.send(publisher::Drain).await.is_ok_and(|left| left > 0) {
                tokio::time::sleep(DRAIN_LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(DRAIN_WITHIN, published).await.is_err() {
            tracing::warn!("some events are not published yet; the next start goes on from there");
        }
        self.store.close().await;
        self.arbiters.stop().await;
    }
}
