//! The steps of a start, in their order: end what an earlier start has left running, have an identity, tell what became
//! of the earlier one's attempts, and only then announce this one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use actix::{Actor, Addr, System};
use futures_util::future::{join_all, try_join_all};
use shared::bus::Bus;
use shared::id::Epoch;
use tokio::sync::{oneshot, watch};

use crate::agent::{Agent, contact};
use crate::attempt::directories::{private, remove};
use crate::identity::{self, Identity};
use crate::site::Site;
use crate::spool::{Entry, Spool};
use crate::{Config, Error, sweep};

/// What a start finds on disk.
pub struct Prepared {
    /// The worker's own directory.
    pub own: PathBuf,
    pub spool: Spool,
    pub work: PathBuf,
    /// For the sockets of ssh-agents: an earlier start's are gone.
    pub agents: PathBuf,
    /// For what this host has of the repositories that its jobs build.
    pub mirrors: PathBuf,
    /// What an earlier start has left in the spool.
    pub left: Vec<Entry>,
}

/// Who the worker is, and the number of this start.
pub struct Enrolled {
    pub identity: Identity,
    pub start: u64,
}

/// The worker's own directory in a data directory.
pub fn own(data_dir: &Path) -> PathBuf {
    data_dir.join("worker")
}

/// Makes the directories, reads the spool, and ends what an earlier start has left running.
pub async fn prepare(config: &Config) -> Result<Prepared, Error> {
    let dir = config.data_dir.clone();
    blocking(move || {
        let (own, work) = (own(&dir), dir.join("work"));
        private(&own).map_err(at("making", &own))?;
        private(&work).map_err(at("making", &work))?;
        let spool = own.join("spool");
        let (spool, left) = Spool::open(spool.clone()).map_err(at("reading", &spool))?;
        sweep::after_a_crash(&left, &work).map_err(at("sweeping", &work))?;
        let (agents, mirrors) = (own.join("agents"), own.join("mirrors"));
        remove(&agents).and_then(|()| private(&agents)).map_err(at("emptying", &agents))?;
        Ok(Prepared { own, spool, work, agents, mirrors, left })
    })
    .await
}

/// Finds the worker's identity, or enrols for one, and counts this start. What an earlier start has left is without its epochs then: they
/// may be another installation's.
pub async fn identify(config: &Config, bus: &dyn Bus, prepared: &mut Prepared) -> Result<Enrolled, Error> {
    let own = prepared.own.clone();
    let path = identity::file(&own);
    let dir = own.clone();
    let known = {
        let path = path.clone();
        blocking(move || Identity::load(&dir).map_err(at("reading", &path))).await?
    };
    let identity = match (known, &config.join) {
        (Some(identity), _) => identity,
        (None, None) => return Err(Error::NotEnrolled { path }),
        (None, Some(token)) => {
            let refused = |identity::Refused { why }| Error::Refused { why };
            let identity = identity::enrol(bus, token, &config.name).await.map_err(refused)?;
            tracing::info!(worker = %identity.worker, "enrolled");
            prepared.left.iter_mut().for_each(|entry| entry.epoch = Epoch::default());
            let forgotten = try_join_all(prepared.left.iter().map(|entry| prepared.spool.put(entry))).await;
            forgotten.map_err(at("writing", &own.join("spool")))?;
            let (kept, dir) = (identity.clone(), own.clone());
            blocking(move || kept.save(&dir).map_err(at("writing", &path))).await?;
            identity
        }
    };
    let starts = identity::starts_file(&own);
    let start = blocking(move || identity::count_start(&own).map_err(at("counting a start in", &starts))).await?;
    Ok(Enrolled { identity, start })
}

/// Starts the agent in a thread of its own, which runs until its system is stopped.
pub async fn actors(site: Arc<Site>, count: watch::Sender<usize>) -> Result<(Addr<Agent>, System), Error> {
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

/// Tells what became of the attempts of an earlier start, for as long as that takes, then that this one is there. Then
/// the coordinators end what is left of the earlier one, and the spool can forget it.
pub async fn announce(site: &Site, left: Vec<Entry>) {
    let told = left.iter().filter_map(|Entry { job, attempt, outcome, .. }| {
        let report = outcome.clone()?.report(*job, *attempt);
        Some(site.reporter.until_answered(vec![report]))
    });
    join_all(told).await;
    contact::first_hello(site).await;
    for Entry { job, attempt, .. } in left {
        site.forget(job, attempt).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(Error::Thread(io::Error::other(panic))))
}

fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |cause| Error::DataDir { doing, path, cause }
}
