//! Owns the way to the store for every write that moves a job. It takes all that waits and commits it as one batch,
//! then takes what has gathered meanwhile: batches grow with load, and a lone write never waits for company.
//!
//! A batch runs in a task that nobody cancels. When its answer is lost, whether it was done is unknown: the callers
//! are told so, and nothing more is committed until [`crate::shards`] has taken the shards over from this coordinator
//! itself, under a new id, which fences the lost batch. What isn't in its own map of shards it doesn't write, nor a change
//! that was handed over before its shard was taken over: who holds the job from then on knows nothing of that.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use shared::bus::{Bus, Hint};
use shared::id::{CoordinatorId, JobId, Shard, ShardSeq, Version};
use shared::job::{Event, Job, Transition};
use shared::time::Time;

use crate::fault;
use crate::holdings::Holdings;
use crate::publisher::{Missed, Publish, Publisher};
use crate::store::{Batch, Error as StoreError, NewJob, OwnedShard, Store, Submitted, Write, Written};
use crate::timekeeper::{SetTimers, Timekeeper};

/// The most jobs that one batch writes, unless a single submission has more: others wait for the writer meanwhile.
const BATCH_JOBS_MAX: usize = 512;
/// The most jobs whose writes wait for a commit or are in one.
const WAITING_JOBS_MAX: usize = 16 * 1024;
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
    /// Nothing was done: this coordinator doesn't own the shard, or not any more.
    #[error("this coordinator does not own the job's shard")]
    Elsewhere,
    /// The database refuses it, and will refuse it again.
    #[error("the database refuses it: {0}")]
    Refused(String),
}

/// The way to the committer; clones are the same one.
#[derive(Debug, Clone)]
pub struct Commits {
    committer: Addr<Committer>,
    permits: Arc<Semaphore>,
    trouble: watch::Receiver<Option<Trouble>>,
}

/// Why the committer needs the shards to be looked after: it commits nothing more under that id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Whether a batch of that coordinator was committed is unknown.
    Unknown(CoordinatorId),
    /// That coordinator's row is gone.
    Fenced(CoordinatorId),
}

impl Commits {
    /// What befalls the committer.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.clone()
    }

    /// These shards are ours from now on: their writes are taken. What waits for them was decided on rows that may have
    /// been read before: of that nothing is done, but for new jobs.
    pub async fn gain(&self, owned: &[OwnedShard]) {
        // A committer that died is told by `/readyz`.
        let _ = self.committer.send(Gain(owned.to_vec())).await;
    }

    /// These shards are not ours any more; returns when no write to them is in flight.
    pub async fn release(&self, shards: &[Shard]) {
        let (reply, released) = oneshot::channel();
        self.committer.do_send(Release { shards: shards.to_vec(), reply });
        let _ = released.await;
    }

    /// These shards were lost: nothing more is written to them. A write that is in flight is fenced.
    pub fn lose(&self, shards: &[Shard]) {
        let (reply, _) = oneshot::channel();
        self.committer.do_send(Release { shards: shards.to_vec(), reply });
    }

    /// After [`Trouble`]: the outcome of the lost batch is settled, and it goes on.
    pub async fn resume(&self) {
        let _ = self.committer.send(Resume).await;
    }

    /// After [`Trouble`] that isn't over: what waits is told that it wasn't done.
    pub async fn refuse_waiting(&self) {
        let _ = self.committer.send(RefuseWaiting).await;
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
        let jobs = u32::try_from(write.jobs().count().max(1)).map_err(|_| Error::Busy)?;
        let permit = Arc::clone(&self.permits).try_acquire_many_owned(jobs).map_err(|_| Error::Busy)?;
        let (reply, answer) = oneshot::channel();
        self.committer.do_send(Commit { write, reply, permit });
        fault::point("committer.handed");
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

/// What follows from a batch for others than those who asked.
#[derive(Default)]
struct News {
    events: BTreeMap<Shard, Vec<(ShardSeq, Event)>>,
    timers: Vec<(JobId, Time)>,
}

/// What the committer works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    /// The runtime that the store belongs to.
    pub runtime: Handle,
    pub publisher: Addr<Publisher>,
    pub timekeeper: Addr<Timekeeper>,
    pub holdings: Arc<Holdings>,
}

/// The actor that commits.
pub struct Committer {
    parts: Parts,
    /// The last event's number of each shard that may be written to.
    last: HashMap<Shard, ShardSeq>,
    waiting: VecDeque<Commit>,
    /// Whether a batch is under way, or trouble.
    busy: bool,
    trouble: watch::Sender<Option<Trouble>>,
    /// Who waits for the batch under way to end.
    releasing: Vec<oneshot::Sender<()>>,
    /// Shards whose events found the publisher's mailbox full: it must be told to read the store.
    missed: BTreeSet<Shard>,
    /// Whether the next try to tell it is set.
    telling: bool,
}

impl Committer {
    /// Starts it on the arbiter of the caller.
    pub fn start_with(parts: Parts) -> Commits {
        let (trouble, watched) = watch::channel(None);
        let committer = Self {
            parts,
            last: HashMap::new(),
            waiting: VecDeque::new(),
            busy: false,
            trouble,
            releasing: Vec::new(),
            missed: BTreeSet::new(),
            telling: false,
        };
        let permits = Arc::new(Semaphore::new(WAITING_JOBS_MAX));
        Commits { committer: committer.start(), permits, trouble: watched }
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
        let (store, owner) = (Arc::clone(&self.parts.store), self.parts.holdings.id());
        let committed = self.parts.runtime.spawn(async move {
            let batch = Arc::new(batch);
            fault::hold("committer.commit").await;
            let written = store.commit(owner, Arc::clone(&batch)).await;
            fault::point("committer.committed");
            (written, Arc::unwrap_or_clone(batch))
        });
        let done = committed.into_actor(self).map(move |result, actor, ctx| match result {
            Ok((Ok(written), batch)) => {
                actor.took(batch, written, callers);
                actor.tell_missed(ctx);
                actor.go_on(ctx);
            }
            Ok((Err(error), _)) => actor.failed(owner, &error, callers, ctx),
            Err(panic) => actor.failed(owner, &StoreError::Unknown(panic.to_string()), callers, ctx),
        });
        ctx.spawn(done);
    }

    /// Tells the writers of shards that aren't ours that nothing was done.
    fn refuse_foreign(&mut self) {
        self.refuse(&Error::Elsewhere, |committer, commit| !committer.is_ours(commit));
    }

    /// Tells the writers of what waits and is to be refused that nothing was done.
    fn refuse(&mut self, why: &Error, is_refused: impl Fn(&Self, &Commit) -> bool) {
        let waiting = std::mem::take(&mut self.waiting);
        let (refused, left): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|commit| is_refused(self, commit));
        self.waiting = left;
        for commit in refused {
            // Whoever asked may have gone away.
            let _ = commit.reply.send(Err(why.clone()));
        }
    }

    fn is_ours(&self, commit: &Commit) -> bool {
        commit.write.jobs().all(|job| self.last.contains_key(&job.id.shard()))
    }

    /// The batch is over, or the trouble: whoever waited for that goes on, then the next batch begins.
    fn go_on(&mut self, ctx: &mut Context<Self>) {
        self.busy = false;
        for released in self.releasing.drain(..) {
            let _ = released.send(());
        }
        self.flush(ctx);
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
        let mut news = News::default();
        for (write, written) in batch.writes.into_iter().zip(&written) {
            match (write, written) {
                (Write::Change { transition, .. }, Written::Changed { first, .. }) => {
                    self.announce(*transition, *first, &mut news);
                }
                (Write::Submit(jobs), Written::Submitted(submitted)) => {
                    for (new, submitted) in jobs.into_iter().zip(submitted) {
                        if let Submitted::New(first) = submitted {
                            self.announce(new.transition, *first, &mut news);
                        }
                    }
                }
                _ => {}
            }
        }
        let News { events, timers } = news;
        let shards: Vec<Shard> = events.keys().copied().collect();
        if !events.is_empty() && self.parts.publisher.try_send(Publish(events.into_iter().collect())).is_err() {
            self.missed.extend(shards);
        }
        if !timers.is_empty() && self.parts.timekeeper.try_send(SetTimers(timers)).is_err() {
            tracing::debug!("the timekeeper is behind; it will read the store");
        }
        for (written, caller) in written.into_iter().zip(callers) {
            // Whoever asked may have gone away; what is committed stays so.
            let _ = caller.reply.send(Ok(written));
        }
    }

    fn announce(&mut self, transition: Transition, first: ShardSeq, news: &mut News) {
        let Transition { job, events } = transition;
        let shard = job.id.shard();
        let mut number = first;
        let together = news.events.entry(shard).or_default();
        for event in events {
            together.push((number, event));
            number = number.next();
        }
        // A shard that was released meanwhile stays so.
        if let (Some((last, _)), Some(known)) = (together.last(), self.last.get_mut(&shard)) {
            *known = (*known).max(*last);
        }
        news.timers.extend(job.state.wake_at().map(|at| (job.id, at)));
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

    fn failed(&mut self, owner: CoordinatorId, error: &StoreError, callers: Vec<Caller>, ctx: &mut Context<Self>) {
        tracing::warn!(%error, writes = callers.len(), "a batch was not committed");
        let (told, trouble) = match error {
            StoreError::Unavailable(_) => (Error::Unavailable, None),
            StoreError::Fenced => (Error::Elsewhere, Some(Trouble::Fenced(owner))),
            StoreError::Unknown(_) | StoreError::Corrupt(_) => (Error::Unknown, Some(Trouble::Unknown(owner))),
        };
        for caller in callers {
            let _ = caller.reply.send(Err(told.clone()));
        }
        if trouble.is_some() {
            // Busy until the shards are looked after: whatever were committed now could contradict the lost batch.
            self.trouble.send_replace(trouble);
            for released in self.releasing.drain(..) {
                let _ = released.send(());
            }
        } else {
            self.go_on(ctx);
        }
    }
}

/// Who waits for a write, and its place among the waiting ones.
struct Caller {
    reply: oneshot::Sender<Result<Written, Error>>,
    _permit: OwnedSemaphorePermit,
}

impl Actor for Committer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(WAITING_JOBS_MAX);
    }
}

/// These shards are ours.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Gain(Vec<OwnedShard>);

impl Handler<Gain> for Committer {
    type Result = ();

    fn handle(&mut self, Gain(owned): Gain, _: &mut Context<Self>) {
        // Those who handed them over were let go: others hold the jobs as they were read now.
        let gained: BTreeSet<Shard> = owned.iter().map(|owned| owned.shard).collect();
        self.refuse(&Error::Unavailable, |_, commit| match &commit.write {
            Write::Change { transition, .. } => gained.contains(&transition.job.id.shard()),
            Write::Submit(_) => false,
        });
        self.last.extend(owned.iter().map(|owned| (owned.shard, owned.last)));
    }
}

/// These shards are not ours any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Release {
    shards: Vec<Shard>,
    reply: oneshot::Sender<()>,
}

impl Handler<Release> for Committer {
    type Result = ();

    fn handle(&mut self, release: Release, _: &mut Context<Self>) {
        self.last.retain(|shard, _| !release.shards.contains(shard));
        self.refuse_foreign();
        if self.busy && self.trouble.borrow().is_none() {
            self.releasing.push(release.reply);
        } else {
            // Whoever asked may have gone away.
            let _ = release.reply.send(());
        }
    }
}

/// The trouble is over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct Resume;

impl Handler<Resume> for Committer {
    type Result = ();

    /// What the lost batch may have committed was announced to nobody: whoever resumes it tells the publisher, the
    /// timekeeper and the registries before.
    fn handle(&mut self, _: Resume, ctx: &mut Context<Self>) {
        // Without trouble a batch may be under way, which goes on by itself.
        if self.trouble.send_replace(None).is_some() {
            self.go_on(ctx);
        }
    }
}

/// The trouble goes on: nothing of what waits was begun, and when it can be is not known.
#[derive(Debug, Message)]
#[rtype(result = "()")]
struct RefuseWaiting;

impl Handler<RefuseWaiting> for Committer {
    type Result = ();

    fn handle(&mut self, _: RefuseWaiting, _: &mut Context<Self>) {
        if self.trouble.borrow().is_some() {
            self.refuse(&Error::Unavailable, |_, _| true);
        }
    }
}

impl Handler<Commit> for Committer {
    type Result = ();

    fn handle(&mut self, commit: Commit, ctx: &mut Context<Self>) {
        fault::point("committer.hear");
        if self.is_ours(&commit) {
            self.waiting.push_back(commit);
            self.flush(ctx);
        } else {
            let _ = commit.reply.send(Err(Error::Elsewhere));
        }
    }
}
