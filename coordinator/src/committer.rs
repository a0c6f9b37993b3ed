//! Owns the way to the store for every write that moves a job. It takes all that waits and commits it as one batch,
//! then takes what has gathered meanwhile: batches grow with load, and a lone write never waits for company.
//!
//! A batch runs in a task that nobody cancels. When its answer is lost, whether it was done is unknown: the callers
//! are told so, and the coordinator takes its shards over from itself under a new id, which fences the lost batch.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use shared::bus::{Bus, Hint};
use shared::clock;
use shared::id::{CoordinatorId, Shard, ShardSeq, Version};
use shared::job::{Event, Job, Transition};

use crate::fault;
use crate::publisher::{Missed, Publish, Publisher};
use crate::registry::Jobs;
use crate::store::{Batch, Error as StoreError, NewJob, OwnedShard, Store, Submitted, Write, Written};
use crate::timekeeper::{ReadAgain, SetTimer, Timekeeper};

/// The most jobs that one batch writes, unless a single submission has more: others wait for the writer meanwhile.
const BATCH_JOBS_MAX: usize = 512;
/// The most jobs whose writes wait for a commit or are in one.
const WAITING_JOBS_MAX: usize = 16 * 1024;
/// Between two tries to take the shards over after an answer was lost.
const RECOVERY_RETRY: Duration = Duration::from_millis(250);

/// Between two tries to tell a busy publisher that it must read the store.
const MISSED_RETRY: Duration = Duration::from_millis(100);

/// Why a write isn't committed, or may not be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was done.
    #[error("too many writes wait for the database")]
    Busy,
    /// Nothing was done.
    #[error("the database is not available")]
    Unavailable,
    /// It may have been done or not: whoever holds the job in memory must read it again.
    #[error("whether it was committed is unknown")]
    Unknown,
    /// Another coordinator owns the shard.
    #[error("this coordinator no longer owns the job")]
    Fenced,
    /// The database refuses it, and will refuse it again.
    #[error("the database refuses it: {0}")]
    Refused(String),
}

/// The way to the committer; clones are the same one.
#[derive(Debug, Clone)]
pub struct Commits {
    committer: Addr<Committer>,
    permits: Arc<Semaphore>,
    owner: watch::Receiver<CoordinatorId>,
}

impl Commits {
    /// The id under which this coordinator writes at the moment.
    pub fn owner(&self) -> CoordinatorId {
        *self.owner.borrow()
    }

    /// Makes the jobs known whose live attempts are adopted after a recovery.
    pub fn begin(&self, jobs: Jobs) {
        self.committer.do_send(Begin(jobs));
    }

    /// Commits a transition of a job whose version is `from`. None when its version is another.
    pub async fn change(&self, from: Version, transition: Transition) -> Result<Option<Job>, Error> {
        let job = transition.job.clone();
        match self.write(Write::Change { from, transition: Box::new(transition) }).await? {
            Written::Changed { fence, .. } => Ok(Some(Job { fence: fence.unwrap_or(job.fence), ..job })),
            Written::Conflict => Ok(None),
            Written::Refused(why) => Err(Error::Refused(why)),
            Written::Submitted(_) | Written::KeyReused(_) | Written::TooManyTagSets(_) => Err(Error::Unknown),
        }
    }

    /// Commits new jobs, all or none; the answer is never [`Written::Changed`].
    pub async fn submit(&self, jobs: Vec<NewJob>) -> Result<Written, Error> {
        self.write(Write::Submit(jobs)).await
    }

    /// Whether writes are committed at the moment: an empty one goes the whole way, under the lease.
    pub async fn probe(&self) -> Result<(), Error> {
        self.write(Write::Submit(Vec::new())).await.map(drop)
    }

    /// Waits until everything that was handed over is committed or refused; nothing is taken any more.
    pub async fn drain(&self) {
        let all = u32::try_from(WAITING_JOBS_MAX).unwrap_or(u32::MAX);
        if let Ok(permits) = self.permits.acquire_many(all).await {
            permits.forget();
        }
        self.permits.close();
    }

    async fn write(&self, write: Write) -> Result<Written, Error> {
        let jobs = u32::try_from(write.jobs().len().max(1)).map_err(|_| Error::Busy)?;
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(jobs).map_err(|_| Error::Busy)?;
        let (reply, answer) = oneshot::channel();
        self.committer.do_send(Commit { write, reply, permit });
        answer.await.unwrap_or(Err(Error::Unknown))
    }
}

/// One write on its way; the permit counts its jobs.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Commit {
    write: Write,
    reply: oneshot::Sender<Result<Written, Error>>,
    permit: OwnedSemaphorePermit,
}

/// What the committer works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    /// The runtime that the store belongs to.
    pub runtime: Handle,
    pub publisher: Addr<Publisher>,
    pub timekeeper: Addr<Timekeeper>,
    /// The id under which the shards were taken over, and what was found.
    pub coordinator: CoordinatorId,
    pub shards: Vec<OwnedShard>,
}

/// The actor that commits.
pub struct Committer {
    parts: Parts,
    owner: watch::Sender<CoordinatorId>,
    last: HashMap<Shard, ShardSeq>,
    waiting: VecDeque<Commit>,
    /// Whether a batch, or a recovery, is under way.
    busy: bool,
    /// Shards whose events found the publisher's mailbox full: it must be told to read the store.
    missed: BTreeSet<Shard>,
    /// Whether the next try to tell it is set.
    telling: bool,
    /// The way to the jobs, once there is one.
    jobs: Option<Jobs>,
}

impl Committer {
    /// Starts it on the arbiter of the caller.
    pub fn start_with(parts: Parts) -> Commits {
        let (owner, watched) = watch::channel(parts.coordinator);
        let last = parts.shards.iter().map(|owned| (owned.shard, owned.last)).collect();
        let (waiting, missed) = (VecDeque::new(), BTreeSet::new());
        let committer = Self { parts, owner, last, waiting, busy: false, missed, telling: false, jobs: None }.start();
        Commits { committer, permits: Arc::new(Semaphore::new(WAITING_JOBS_MAX)), owner: watched }
    }

    fn flush(&mut self, ctx: &mut Context<Self>) {
        if self.busy || self.waiting.is_empty() {
            return;
        }
        self.busy = true;
        let mut jobs = 0;
        let fit = self.waiting.iter().take_while(|commit| {
            jobs += commit.permit.num_permits();
            jobs <= BATCH_JOBS_MAX
        });
        let count = fit.count().max(1);
        let commits = self.waiting.drain(..count).collect();
        let (batch, callers) = self.batch(commits);
        let (store, owner) = (Arc::clone(&self.parts.store), *self.owner.borrow());
        let committed = self.parts.runtime.spawn(async move {
            let batch = Arc::new(batch);
            let written = store.commit(owner, Arc::clone(&batch)).await;
            fault::point("committer.committed");
            (written, Arc::unwrap_or_clone(batch))
        });
        let done = committed.into_actor(self).map(move |result, actor, ctx| match result {
            Ok((Ok(written), batch)) => {
                actor.took(batch, written, callers);
                actor.busy = false;
                actor.tell_missed(ctx);
                actor.flush(ctx);
            }
            Ok((Err(error), _)) => actor.failed(&error, callers, ctx),
            Err(panic) => actor.failed(&StoreError::Unknown(panic.to_string()), callers, ctx),
        });
        ctx.spawn(done);
    }

    fn batch(&self, commits: Vec<Commit>) -> (Batch, Vec<Caller>) {
        let mut batch = Batch::default();
        let mut callers = Vec::with_capacity(commits.len());
        for commit in commits {
            for job in commit.write.jobs() {
                let shard = job.id.shard();
                batch.last.insert(shard, self.last.get(&shard).copied().unwrap_or_default());
            }
            batch.writes.push(commit.write);
            callers.push(Caller { reply: commit.reply, _permit: commit.permit });
        }
        (batch, callers)
    }

    /// Tells everybody who needs to know what was committed: first those who act on it, then those who asked for it.
    fn took(&mut self, batch: Batch, written: Vec<Written>, callers: Vec<Caller>) {
        for ((write, written), caller) in batch.writes.into_iter().zip(written).zip(callers) {
            match (write, &written) {
                (Write::Change { transition, .. }, Written::Changed { first, .. }) => {
                    self.announce(*transition, *first);
                }
                (Write::Submit(jobs), Written::Submitted(submitted)) => {
                    for (new, submitted) in jobs.into_iter().zip(submitted) {
                        if let Submitted::New(first) = submitted {
                            self.announce(new.transition, *first);
                        }
                    }
                }
                _ => {}
            }
            // Whoever asked may have gone away; what is committed stays so.
            let _ = caller.reply.send(Ok(written));
        }
    }

    fn announce(&mut self, transition: Transition, first: ShardSeq) {
        let Transition { job, events } = transition;
        let shard = job.id.shard();
        let numbered: Vec<(ShardSeq, Event)> = events
            .into_iter()
            .scan(first, |number, event| {
                let this = *number;
                *number = number.next();
                Some((this, event))
            })
            .collect();
        if let Some((last, _)) = numbered.last() {
            self.last.insert(shard, *last);
        }
        if self.parts.publisher.try_send(Publish { shard, events: numbered }).is_err() {
            self.missed.insert(shard);
        }
        if let Some(at) = job.state.wake_at()
            && self.parts.timekeeper.try_send(SetTimer { job: job.id, at }).is_err()
        {
            tracing::debug!(job = %job.id, "the timekeeper is behind; it will read the store");
        }
        self.parts.bus.hint(Hint::Job(job.id));
    }

    fn tell_missed(&mut self, ctx: &mut Context<Self>) {
        let (publisher, last) = (&self.parts.publisher, &self.last);
        self.missed.retain(|shard| {
            let committed = last.get(shard).copied().unwrap_or_default();
            publisher.try_send(Missed { shard: *shard, committed }).is_err()
        });
        if !self.missed.is_empty() && !self.telling {
            self.telling = true;
            ctx.run_later(MISSED_RETRY, |actor, ctx| {
                actor.telling = false;
                actor.tell_missed(ctx);
            });
        }
    }

    fn failed(&mut self, error: &StoreError, callers: Vec<Caller>, ctx: &mut Context<Self>) {
        tracing::warn!(%error, writes = callers.len(), "a batch was not committed");
        let told = match error {
            StoreError::Unavailable(_) => Error::Unavailable,
            StoreError::Fenced => Error::Fenced,
            StoreError::Unknown(_) | StoreError::Corrupt(_) => Error::Unknown,
        };
        for caller in callers {
            let _ = caller.reply.send(Err(told.clone()));
        }
        if told == Error::Unknown {
            self.recover(ctx);
        } else {
            self.busy = false;
            self.flush(ctx);
        }
    }

    /// Takes the shards over from itself under a new id: that waits for the lost batch or fences it, and only then are
    /// the numbers and the live attempts read.
    fn recover(&mut self, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.parts.store);
        let coordinator = CoordinatorId(clock::random_uuid());
        let taken = self.parts.runtime.spawn(async move {
            fault::point("committer.recover");
            let owned = store.take_over(coordinator).await?;
            let shards: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
            Ok((owned, store.live_jobs(&shards).await?))
        });
        ctx.spawn(taken.into_actor(self).map(move |result, actor, ctx| {
            match result.unwrap_or_else(|panic| Err(StoreError::Unknown(panic.to_string()))) {
                Ok((owned, live)) => actor.recovered(coordinator, &owned, live, ctx),
                Err(error) => {
                    tracing::warn!(%error, "taking the shards over after a lost answer");
                    // Nothing of what waits was begun, and when it can be is not known.
                    for commit in actor.waiting.drain(..) {
                        let _ = commit.reply.send(Err(Error::Unavailable));
                    }
                    ctx.run_later(RECOVERY_RETRY, Self::recover);
                }
            }
        }));
    }

    /// Goes on under the new id. What the lost batch may have committed was announced to nobody: the publisher, the
    /// timekeeper and the registries are told before the next batch begins.
    fn recovered(&mut self, coordinator: CoordinatorId, owned: &[OwnedShard], live: Vec<Job>, ctx: &mut Context<Self>) {
        tracing::info!(%coordinator, "took the shards over after a lost answer");
        self.owner.send_replace(coordinator);
        for OwnedShard { shard, last, .. } in owned {
            if self.last.insert(*shard, *last) != Some(*last) {
                self.missed.insert(*shard);
            }
        }
        self.parts.timekeeper.do_send(ReadAgain);
        if let Some(jobs) = &self.jobs {
            jobs.adopt(live);
        }
        self.busy = false;
        self.tell_missed(ctx);
        self.flush(ctx);
    }
}

/// Who waits for a write, and its place among the waiting ones.
struct Caller {
    reply: oneshot::Sender<Result<Written, Error>>,
    _permit: OwnedSemaphorePermit,
}

impl Write {
    fn jobs(&self) -> Vec<&Job> {
        match self {
            Self::Submit(jobs) => jobs.iter().map(|new| &new.transition.job).collect(),
            Self::Change { transition, .. } => vec![&transition.job],
        }
    }
}

impl Actor for Committer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(WAITING_JOBS_MAX);
    }
}

/// These are the jobs whose live attempts a recovery reads.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Begin(Jobs);

impl Handler<Begin> for Committer {
    type Result = ();

    fn handle(&mut self, Begin(jobs): Begin, _: &mut Context<Self>) {
        self.jobs = Some(jobs);
    }
}

impl Handler<Commit> for Committer {
    type Result = ();

    fn handle(&mut self, commit: Commit, ctx: &mut Context<Self>) {
        fault::point("committer.hear");
        self.waiting.push_back(commit);
        self.flush(ctx);
    }
}
