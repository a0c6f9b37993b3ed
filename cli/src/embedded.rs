//! Everything in one process: the parts that `run` and `dev` are made of, and the one order in which they start and
//! stop.
//!
//! Start: hold the directory, open the store, coordinator, worker, API. Each part needs only those before it.
//! Stop, the other way round: the API refuses what is new; the worker ends its attempts and reports them, while the
//! coordinator still hears it; the coordinator commits what it has taken and closes the store; and with the drop of
//! this the directory is given back. A part that doesn't stop in its time is left behind with a log line: the end of this process closes the
//! pipes of the worker's keepers, and those end what is left of the jobs.
//!
//! Stopping twice, or stopping what was only half started, is safe.

use std::future::Future;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use coordinator::Coordinator;
use coordinator::api::{self, ApiServer, Tokens};
use coordinator::caller::Caller;
use coordinator::service::Service;
use coordinator::store::sqlite::SqliteStore;
use coordinator::store::{Store, TokenKind};
use shared::bus::local::LocalBus;
use shared::id::Actor;
use shared::secret::Secret;
use shared::time::Period;
use worker::Worker;

use crate::data_dir::DataDir;

/// Who has the directory's token, in the events that follow from its use.
const API_USER: &str = "dev";
/// What the worker is called, and the token that it enrols with.
const WORKER_NAME: &str = "embedded";
/// How long that token counts: it is used at once.
const JOIN_WITHIN: Period = Period::from_secs(60);
/// How long the API may take to stop: it gives the requests that it has taken five seconds itself.
pub const API_STOP_MAX: Duration = Duration::from_secs(10);
/// How long the worker may end and report its attempts: it limits itself to 30 s of grace and 10 s for the reports.
pub const WORKER_STOP_MAX: Duration = Duration::from_secs(45);
/// How long the coordinator may commit what it has taken.
pub const COORDINATOR_STOP_MAX: Duration = Duration::from_secs(10);

/// The parts that run, those that others need last.
pub struct Embedded {
    service: Service,
    api: Option<ApiServer>,
    worker: Option<Worker>,
    coordinator: Option<Coordinator>,
    bus: Arc<LocalBus>,
    dir: DataDir,
}

impl Embedded {
    /// Opens the store in `dir`, or in the file `database`, and starts the coordinator on it, which keeps jobs for `retention`
    /// after their end.
    ///
    /// # Errors
    /// When the store can't be opened or the coordinator doesn't start.
    pub async fn open(mut dir: DataDir, database: Option<&Path>, retention: Period) -> anyhow::Result<Self> {
        let database = dir.database(database)?;
        let keys = dir.master_keys(&database)?;
        let store = SqliteStore::open(&database).await.with_context(|| format!("opening {}", database.display()))?;
        let store: Arc<dyn Store> = Arc::new(store);
        let bus = Arc::new(LocalBus::default());
        let coordinator = match Coordinator::start(coordinator::Config {
            store: Arc::clone(&store),
            bus: Arc::<LocalBus>::clone(&bus),
            keys,
            address: String::new(),
            retention,
        })
        .await
        {
            Ok(coordinator) => coordinator,
            Err(error) => {
                store.close().await;
                return Err(error).context("starting the coordinator");
            }
        };
        let service = coordinator.service();
        Ok(Self { service, api: None, worker: None, coordinator: Some(coordinator), bus, dir })
    }

    /// Starts the worker, which enrols where it never did. Its own directories are below the data directory.
    ///
    /// # Errors
    /// When it doesn't start.
    pub async fn work(&mut self, config: worker::Config) -> anyhow::Result<()> {
        let join = self.join_token(&config.data_dir).await?;
        let config = worker::Config { name: WORKER_NAME.to_owned(), join, ..config };
        let bus = Arc::<LocalBus>::clone(&self.bus);
        self.worker = Some(worker::start(config, bus).await.context("starting the worker")?);
        Ok(())
    }

    /// What the worker enrols with, unless this coordinator knows it already.
    async fn join_token(&self, data_dir: &Path) -> anyhow::Result<Option<Secret>> {
        if let Some(id) = worker::enrolled(data_dir).context("reading the worker's identity")? {
            let known = self.service.workers().await.context("looking for the worker")?;
            if known.iter().any(|worker| worker.id == id && worker.revoked_at.is_none()) {
                return Ok(None);
            }
            // Its database is another one by now.
            worker::forget(data_dir).context("forgetting the worker's identity")?;
        }
        let by = Caller::from(Actor::Coordinator);
        let made = self.service.make_token(&by, TokenKind::Join, WORKER_NAME, JOIN_WITHIN).await;
        Ok(Some(made.context("making a join token for the worker")?.text))
    }

    /// Serves the API, to whoever has the directory's token.
    ///
    /// # Errors
    /// When the token can't be kept or the listener can't be used.
    pub fn serve(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let tokens = Tokens::one(API_USER, &self.dir.token()?);
        self.api = Some(api::serve(listener, self.service.clone(), tokens).context("starting the API")?);
        Ok(())
    }

    /// What the parts are spoken to through.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// The directory that everything is kept in.
    pub fn dir(&self) -> &DataDir {
        &self.dir
    }

    /// Stops what runs, in order. If it is given up half way, calling it again goes on with the next part.
    pub async fn stop(&mut self) {
        if let Some(api) = self.api.take() {
            within(API_STOP_MAX, "the API", api.stop()).await;
        }
        if let Some(worker) = self.worker.take() {
            within(WORKER_STOP_MAX, "the worker", worker.stop()).await;
        }
        if let Some(coordinator) = self.coordinator.take() {
            within(COORDINATOR_STOP_MAX, "the coordinator", coordinator.stop()).await;
        }
    }
}

/// Stops a part, or leaves it behind after `limit`.
pub async fn within(limit: Duration, part: &str, stop: impl Future<Output = ()>) {
    if tokio::time::timeout(limit, stop).await.is_err() {
        tracing::warn!("{part} did not stop within {} s and is left behind", limit.as_secs());
    }
}
