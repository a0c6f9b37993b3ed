//! Takes what workers say over the bus, hands it to the jobs, and answers when it is committed.
//!
//! Decoding and wording are here; deciding is the job's. Log chunks pass the jobs by and go straight to the store.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, join_all};
use futures_util::stream;
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use shared::bus::{Address, Bus, Error as BusError, Hint, Request, Requests, Service};
use shared::id::{Epoch, JobId, Shard, WorkerId};
use shared::wire::{self, Heartbeat, HeartbeatReply, Hello, LogBatch, LogReply, Welcome, Word};

use crate::attempts::Attempts;
use crate::fault;
use crate::holdings::Holdings;
use crate::key_watch::KeyWatch;
use crate::registry::Jobs;
use crate::roster::Roster;
use crate::store::Store;
use crate::vault::Vault;

mod enrolment;
mod key_desk;
mod reports;

/// The most requests that are worked on at once; more wait in their service's queue.
const REQUESTS_MAX: usize = 1024;
/// The most batches of log that are worked on at once; of more the worker says each again.
const LOGS_MAX: usize = 256;
/// How many services are begun at once.
const SERVED_AT_ONCE: usize = 32;

/// What the intake works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub jobs: Jobs,
    pub holdings: Arc<Holdings>,
    pub roster: Arc<Roster>,
    pub vault: Arc<Vault>,
    pub keys_watched: Arc<KeyWatch>,
    /// Those with tokens that aren't known. On the bus nobody can tell one who enrols from another.
    pub enrolments: Attempts<()>,
    pub runtime: Handle,
}

/// The running intake.
pub struct Intake {
    parts: Arc<Parts>,
    permits: Permits,
    /// What is served now.
    serving: Mutex<HashMap<Service, Serving>>,
}

/// One service that is served, and the answers that are under way.
struct Serving {
    stop: CancellationToken,
    answers: TaskTracker,
    task: JoinHandle<()>,
}

/// What bounds the requests that are worked on.
#[derive(Clone)]
struct Permits {
    others: Arc<Semaphore>,
    logs: Arc<Semaphore>,
}

impl Permits {
    /// Waits for room to work on a request; none where it is dropped for want of it. A heartbeat is answered from memory
    /// and needs none: nothing else may hold it up. Logs are many and have time, so they don't queue before others.
    async fn room(&self, to: Address) -> Option<Option<OwnedSemaphorePermit>> {
        match to {
            Address::Heartbeat(..) => Some(None),
            Address::Log(..) => Arc::clone(&self.logs).try_acquire_owned().ok().map(Some),
            Address::Report(..) | Address::Key(..) | Address::Hello(_) | Address::Enrol | Address::Control(_) => {
                Arc::clone(&self.others).acquire_owned().await.ok().map(Some)
            }
        }
    }
}

impl Intake {
    /// An intake that serves nobody yet.
    pub fn new(parts: Parts) -> Self {
        let permits =
            Permits { others: Arc::new(Semaphore::new(REQUESTS_MAX)), logs: Arc::new(Semaphore::new(LOGS_MAX)) };
        Self { parts: Arc::new(parts), permits, serving: Mutex::default() }
    }

    /// Serves these shards and no others, and what is said to any coordinator: hellos and enrolments. What can't be served
    /// now is tried again with the next call, and so is what has ended by a defect.
    pub async fn serve_shards(&self, shards: &[Shard]) {
        let common = [Service::Hello, Service::Enrol];
        let wanted: HashSet<Service> = shards.iter().map(|shard| Service::Shard(*shard)).chain(common).collect();
        self.end(|service| !wanted.contains(service));
        let missing: Vec<Service> = {
            let mut serving = self.serving();
            serving.retain(|service, serving| {
                let ended = serving.task.is_finished();
                if ended {
                    tracing::error!(?service, "a service ended by a defect; it is served again");
                }
                !ended
            });
            wanted.into_iter().filter(|service| !serving.contains_key(service)).collect()
        };
        let serve = async |service| {
            if let Err(error) = self.serve(service).await {
                tracing::warn!(?service, %error, "what workers say can't be heard; it is tried again");
            }
        };
        stream::iter(missing).for_each_concurrent(SERVED_AT_ONCE, serve).await;
    }

    /// Serves nobody, until it is told otherwise.
    pub fn fall_silent(&self) {
        self.end(|_| true);
    }

    /// Serves these shards no more and waits, at most `within`, for the answers that are under way.
    pub async fn release(&self, shards: &[Shard], within: Duration) {
        let ended = self.end(|service| matches!(service, Service::Shard(shard) if shards.contains(shard)));
        // What isn't answered by then is said again, to the next owner.
        let _ = tokio::time::timeout(within, join_all(ended.iter().map(TaskTracker::wait))).await;
    }

    /// Takes no more requests and waits for the answers that are under way.
    pub async fn stop(&self) {
        let ended = self.end(|_| true);
        join_all(ended.iter().map(TaskTracker::wait)).await;
    }

    async fn serve(&self, service: Service) -> Result<(), BusError> {
        let requests = self.parts.bus.serve(service).await?;
        let (stop, answers) = (CancellationToken::new(), TaskTracker::new());
        let serve = serve(Arc::clone(&self.parts), requests, self.permits.clone(), answers.clone());
        let stopped = stop.clone();
        let task = self.parts.runtime.spawn(async move {
            // Cancelled or at its end: either way it is over.
            let _ = stopped.run_until_cancelled_owned(serve).await;
        });
        let serving = Serving { stop, answers, task };
        self.serving().insert(service, serving);
        Ok(())
    }

    /// Ends the services that `which` names; returns the answers that are under way.
    fn end(&self, which: impl Fn(&Service) -> bool) -> Vec<TaskTracker> {
        let ended: Vec<Serving> = self.serving().extract_if(|service, _| which(service)).map(|(_, s)| s).collect();
        let end = |serving: Serving| {
            serving.stop.cancel();
            serving.answers.close();
            serving.answers
        };
        ended.into_iter().map(end).collect()
    }

    fn serving(&self) -> MutexGuard<'_, HashMap<Service, Serving>> {
        self.serving.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(parts: Arc<Parts>, mut requests: Requests, permits: Permits, answers: TaskTracker) {
    while let Some(request) = requests.recv().await {
        let Some(permit) = permits.room(request.to).await else {
            tracing::debug!(to = ?request.to, "a request was dropped for want of room; it is said again");
            continue;
        };
        // Reports take their places in the mailboxes here, in the order in which they came; only the answers are
        // awaited apart.
        let answer = answer(&parts, request);
        answers.spawn_on(
            async move {
                answer.await;
                drop(permit);
            },
            &parts.runtime,
        );
    }
}

/// Begins to work on a request at once; what is returned waits for the outcome and replies.
fn answer(parts: &Arc<Parts>, request: Request) -> impl Future<Output = ()> + Send + use<> {
    let Request { to, body, reply } = request;
    let parts = Arc::clone(parts);
    let stranger = to.worker().filter(|worker| parts.roster.key(*worker).is_none());
    let begun = if stranger.is_none() { begin(&parts, to, &body) } else { None };
    async move {
        let begun = match stranger {
            None => begun,
            Some(worker) => {
                // It may have enrolled at another coordinator just now.
                parts.roster.look_for(worker).await;
                begin(&parts, to, &body)
            }
        };
        let answer = match begun {
            Some(answer) => answer.await,
            None => None,
        };
        let Some(answer) = answer else {
            tracing::debug!(?to, "a request was not answered");
            return;
        };
        // The worker may have stopped waiting; it says it again, and a repeat changes nothing.
        let _ = reply.send(answer);
    }
}

/// Hands a request on to where it belongs, in this moment; what is returned waits for the answer, if there is one.
fn begin(parts: &Arc<Parts>, to: Address, body: &Bytes) -> Option<BoxFuture<'static, Option<Bytes>>> {
    let parts = Arc::clone(parts);
    if to == Address::Enrol {
        let body = body.clone();
        return Some(Box::pin(async move { enrolment::enrol(&parts, &body).await }));
    }
    let (body, epoch) = opened(&parts, to, body)?;
    match (to, epoch) {
        (Address::Hello(worker), _) => Some(Box::pin(async move { hello(&parts, worker, &body).await })),
        (Address::Report(shard, worker), Some(epoch)) => reports::begin(&parts, shard, epoch, worker, &body),
        (Address::Heartbeat(shard, worker), Some(epoch)) => Some(Box::pin(async move {
            let reply = heartbeat(&parts, shard, worker, &body).await?;
            word(&parts, shard, epoch, reply)
        })),
        (Address::Log(shard, worker), Some(epoch)) => Some(Box::pin(async move {
            let reply = log(&parts, shard, worker, &body).await?;
            word(&parts, shard, epoch, reply)
        })),
        (Address::Key(shard, worker), Some(epoch)) => Some(Box::pin(async move {
            let reply = key_desk::answer(&parts, shard, worker, &body).await?;
            if fault::is_lost("intake.key_reply") { None } else { word(&parts, shard, epoch, reply) }
        })),
        (Address::Report(..) | Address::Heartbeat(..) | Address::Log(..) | Address::Key(..), None) => None,
        (Address::Enrol | Address::Control(_), _) => None,
    }
}

/// What a worker says, where it proves that it is that worker, and the epoch at which the shard that it speaks to is
/// owned. Nothing where that shard isn't ours: whoever owns it answers.
fn opened(parts: &Parts, to: Address, body: &Bytes) -> Option<(Bytes, Option<Epoch>)> {
    let (worker, epoch) = match to {
        Address::Hello(worker) => (worker, None),
        Address::Report(shard, worker)
        | Address::Heartbeat(shard, worker)
        | Address::Log(shard, worker)
        | Address::Key(shard, worker) => (worker, Some(parts.holdings.epoch(shard)?)),
        Address::Enrol | Address::Control(_) => return None,
    };
    let Some(key) = parts.roster.key(worker) else {
        tracing::warn!(%worker, "somebody speaks for a worker that isn't known");
        return None;
    };
    // It hears that it was revoked when it says hello, and it says that once nothing is left to be reported.
    if parts.roster.is_revoked(worker) && !matches!(to, Address::Hello(_) | Address::Report(..)) {
        tracing::debug!(%worker, ?to, "a worker that was revoked isn't heard");
        return None;
    }
    let opened = key.open(&to, body);
    if opened.is_none() {
        tracing::warn!(%worker, ?to, "a message is not from the worker that it names");
    }
    Some((opened?, epoch))
}

/// What is said for a shard, as long as it is owned at the epoch at which it was asked.
fn word<T: Serialize>(parts: &Parts, shard: Shard, epoch: Epoch, said: T) -> Option<Bytes> {
    let owner = Some(parts.holdings.id());
    is_ours(parts, shard, epoch).then(|| wire::encode(&Word { shard, epoch, owner, said }))
}

/// Whether we may speak for the shard under that epoch.
fn is_ours(parts: &Parts, shard: Shard, epoch: Epoch) -> bool {
    parts.holdings.epoch(shard) == Some(epoch)
}

async fn heartbeat(parts: &Parts, shard: Shard, worker: WorkerId, body: &[u8]) -> Option<HeartbeatReply> {
    let beat: Heartbeat = decoded(body)?;
    let belongs = beat.worker == worker && beat.attempts.iter().all(|(job, _)| job.shard() == shard);
    if !belongs {
        tracing::warn!(%worker, %shard, "a heartbeat doesn't belong to its subject");
        return None;
    }
    let stop = parts.jobs.heard(worker, beat.instance, beat.attempts).await;
    Some(HeartbeatReply { stop })
}

async fn log(parts: &Parts, shard: Shard, worker: WorkerId, body: &[u8]) -> Option<LogReply> {
    let batch: LogBatch = decoded(body)?;
    let belongs = batch.worker == worker && batch.chunks.iter().all(|chunk| chunk.job.shard() == shard);
    if !belongs {
        tracing::warn!(%worker, %shard, "log chunks don't belong to their subject");
        return None;
    }
    let stored = parts.store.append_log(parts.holdings.id(), worker, &batch.chunks, parts.holdings.now()).await;
    match stored {
        Ok(answers) => {
            let jobs: BTreeSet<JobId> = batch.chunks.iter().map(|chunk| chunk.job).collect();
            for job in jobs {
                parts.bus.hint(Hint::Job(job));
            }
            Some(LogReply { answers })
        }
        Err(error) => {
            tracing::warn!(%worker, %error, "storing log chunks");
            None
        }
    }
}

async fn hello(parts: &Parts, worker: WorkerId, body: &[u8]) -> Option<Bytes> {
    let hello: Hello = decoded(body)?;
    if hello.worker != worker {
        tracing::warn!(%worker, "a hello doesn't belong to its subject");
        return None;
    }
    if parts.roster.is_revoked(worker) {
        return Some(wire::encode(&Welcome { revoked: true, ..Welcome::farewell() }));
    }
    match parts.store.welcome(parts.holdings.id(), &hello, parts.holdings.now()).await {
        Ok(Some(welcome)) => {
            parts.jobs.announced(worker, hello.instance);
            Some(wire::encode(&welcome))
        }
        Ok(None) => {
            // It may have been revoked by another coordinator just now.
            parts.roster.look_for(worker).await;
            if parts.roster.is_revoked(worker) {
                return Some(wire::encode(&Welcome { revoked: true, ..Welcome::farewell() }));
            }
            // One that is still there to hear it was copied with its directory: it finishes what it runs, and ends.
            tracing::warn!(%worker, start = hello.start, "a worker says hello that was started anew since: was its directory copied?");
            Some(wire::encode(&Welcome::farewell()))
        }
        Err(error) => {
            tracing::warn!(%worker, %error, "noting that a worker is there");
            None
        }
    }
}

fn decoded<T: serde::de::DeserializeOwned>(body: &[u8]) -> Option<T> {
    wire::decode(body).inspect_err(|error| tracing::warn!(%error, "a request can't be read")).ok()
}
