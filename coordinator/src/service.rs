//! What the API and the command line speak to: jobs submitted, read, cancelled, retried and followed.
//!
//! Reads go to the store; what moves a job goes to its supervisor. Nothing here knows HTTP.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::Addr;
use futures_util::{StreamExt, stream};
use tokio::sync::broadcast;
use tokio::task::AbortHandle;

use shared::bus::{Bus, Hint};
use shared::clock;
use shared::id::{Actor, Attempt, JobId, Seq};
use shared::job::{self, Cancel, Command, Event, Job, StateName};
use shared::log::Line;
use shared::secret::Secrets;
use shared::spec::{JobSpec, Submission};
use shared::time::Period;

use crate::audit_desk::AuditDesk;
use crate::committer::{self, Commits};
use crate::holdings::Holdings;
use crate::key_watch::KeyWatch;
use crate::publisher::{Publisher, Told};
use crate::registry::Jobs;
use crate::roster::Roster;
use crate::store::{self, Filter, IdempotencyKey, NewJob, Store, Submitted, Written};
use crate::supervisor;
use crate::timekeeper::Timekeeper;
use crate::vault::Vault;

/// How long an idempotency key stands for its first job.
const IDEMPOTENCY: Period = Period::from_secs(24 * 60 * 60);
/// What a caller is told to wait at a bound, or when the store doesn't answer.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often a submission is given ids at most: each time a shard is given away before it is stored, it gets others.
const MINT_MAX: u32 = 3;
/// A watcher looks again after this long, also without a hint.
const WATCH_EVERY: Duration = Duration::from_secs(1);
/// How many jobs one call of [`Service::cancel_all`] is for at most, and how many of these cancels are under way at once.
pub const CANCELS_MAX: usize = 1000;
const CANCELS_AT_ONCE: usize = 256;
/// How many ids one call of [`Service::open_jobs`] returns at most.
pub const OPEN_JOBS_MAX: usize = 500;
/// How long after its job's end a log may still be incomplete without a word about it.
const LOG_LATE: Duration = Duration::from_secs(5);

/// Why a call wasn't done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such job")]
    NotFound,
    /// The job's state doesn't allow it.
    #[error("{0}")]
    Conflict(String),
    /// The idempotency key of the submission's job at this index stands for another body.
    #[error("the idempotency key was used for another job before")]
    KeyReused(usize),
    /// The tags of the submission's job at this index would make one tag set more than are allowed at a time.
    #[error("open jobs use too many different tag sets")]
    TooManyTagSets(usize),
    /// A bound is reached.
    #[error("too much is under way")]
    Busy { retry_after: Duration },
    /// This coordinator doesn't own the job's shard, or, for a submission, owns none: nothing was done, and whoever
    /// [`Holdings::route`] names can do it.
    #[error("another coordinator owns the job's shard")]
    Elsewhere,
    /// The store or the owner doesn't answer; the outcome may be unknown, and the call can be repeated.
    #[error("not available right now")]
    Unavailable { retry_after: Duration },
    /// A defect of ours; the log says more.
    #[error("an internal error")]
    Internal,
}

/// A job that was submitted, or the first one under its idempotency key.
#[derive(Debug, Clone, PartialEq)]
pub struct Accepted {
    pub job: Job,
    /// Whether the key was seen before.
    pub existing: bool,
}

/// What a cancel made of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canceled {
    pub state: StateName,
    /// Whether it had ended before.
    pub was_terminal: bool,
}

/// How far a job's log is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// More may come.
    Growing,
    /// All of it is stored.
    Complete,
    /// No more will come, and something is missing: what, in words.
    Gap(String),
}

/// The service; clones are the same one.
#[derive(Clone)]
pub struct Service {
    pub(crate) parts: Arc<Parts>,
}

/// What the service works with.
pub(crate) struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub jobs: Jobs,
    pub commits: Commits,
    pub vault: Arc<Vault>,
    pub keys_watched: Arc<KeyWatch>,
    pub publisher: Addr<Publisher>,
    pub timekeeper: Addr<Timekeeper>,
    pub holdings: Arc<Holdings>,
    pub roster: Arc<Roster>,
    pub audit: AuditDesk,
    pub told: Arc<Told>,
    /// What goes on beside, without an end.
    pub beside: Vec<AbortHandle>,
    pub stopping: AtomicBool,
}

impl Service {
    pub(crate) fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts) }
    }

    /// Refuses from now on whatever would move a job.
    pub(crate) fn refuse(&self) {
        self.parts.stopping.store(true, Ordering::Release);
    }

    /// Stores new jobs, all or none; returns one answer for each, in order.
    pub async fn submit(&self, by: &Actor, submissions: Vec<Submission>) -> Result<Vec<Accepted>, Error> {
        let mut refused = Error::Internal;
        for master_key in 0..self.parts.vault.key_count() {
            match self.submit_under(by, &submissions, master_key).await {
                // The first submission may have been stored while another master key was the first.
                Err(error @ Error::KeyReused(_)) if master_key == 0 => refused = error,
                Err(Error::KeyReused(_)) => {}
                done => return done,
            }
        }
        Err(refused)
    }

    /// The same, with fingerprints under that one of the master keys.
    async fn submit_under(
        &self,
        by: &Actor,
        submissions: &[Submission],
        master_key: usize,
    ) -> Result<Vec<Accepted>, Error> {
        let new = |submission: &Submission| self.new_job(by, submission.clone(), None, master_key);
        let mint = || submissions.iter().map(new).collect::<Result<Vec<_>, _>>();
        for _ in 1..MINT_MAX {
            match self.store_new(mint()?).await {
                // The shard that was chosen was given away meanwhile: another is chosen.
                Err(Error::Elsewhere) => {}
                stored => return stored,
            }
        }
        self.store_new(mint()?).await
    }

    /// Wants a job stopped; returns when that is committed.
    pub async fn cancel(&self, id: JobId, cancel: Cancel) -> Result<Canceled, Error> {
        self.open()?;
        let taken = self.parts.jobs.tell(id, Command::Cancel(cancel)).await?;
        Ok(Canceled { state: taken.job.state.name(), was_terminal: !taken.changed && taken.job.is_terminal() })
    }

    /// The ids of the jobs that `filter` lets through and that haven't ended, in order, after `after`; at most
    /// [`OPEN_JOBS_MAX`].
    pub async fn open_jobs(&self, filter: &Filter, after: Option<JobId>) -> Result<Vec<JobId>, Error> {
        let limit = u32::try_from(OPEN_JOBS_MAX).unwrap_or(u32::MAX);
        Ok(self.parts.store.open_jobs(filter, after, limit).await?)
    }

    /// Wants all of these jobs stopped; returns those for which that isn't committed and may be tried again, here or at
    /// their owner.
    pub async fn cancel_all(&self, ids: Vec<JobId>, cancel: &Cancel) -> Result<Vec<JobId>, Error> {
        let results = stream::iter(ids).map(async |id| (id, self.cancel(id, cancel.clone()).await));
        let mut results = pin!(results.buffer_unordered(CANCELS_AT_ONCE));
        let mut left = Vec::new();
        while let Some((id, result)) = results.next().await {
            match result {
                Ok(_) | Err(Error::NotFound) => {}
                Err(Error::Elsewhere | Error::Busy { .. } | Error::Unavailable { .. }) => left.push(id),
                Err(error) => return Err(error),
            }
        }
        Ok(left)
    }

    /// A new job that repeats one that has ended, with its secrets.
    pub async fn retry(&self, id: JobId, by: &Actor) -> Result<Job, Error> {
        let first = self.job(id).await?;
        if !first.is_terminal() {
            return Err(Error::Conflict(format!(
                "the job is {} and has not ended: cancel it first",
                first.state.name()
            )));
        }
        let secrets = match self.parts.store.secrets(id).await? {
            Some(stored) => self.parts.vault.decrypt(id, &stored).map_err(internal)?,
            None => Secrets::default(),
        };
        let spec = JobSpec { run_at: None, ..(*first.spec).clone() };
        let submission = Submission { spec, secrets, idempotency_key: None, hash: [0; 32] };
        let accepted = self.store_new(vec![self.new_job(by, submission, Some(id), 0)?]).await?;
        accepted.into_iter().next().map(|accepted| accepted.job).ok_or(Error::Internal)
    }

    /// The job as it is committed.
    pub async fn job(&self, id: JobId) -> Result<Job, Error> {
        self.parts.store.job(id).await?.ok_or(Error::NotFound)
    }

    /// The newest jobs that `filter` lets through, of those older than `before`; at most `limit`.
    pub async fn jobs(&self, filter: &Filter, before: Option<JobId>, limit: u32) -> Result<Vec<Job>, Error> {
        Ok(self.parts.store.jobs(filter, before, limit).await?)
    }

    /// The events of a job after number `after`, in order; at most `limit`.
    pub async fn events(&self, id: JobId, after: Seq, limit: u32) -> Result<Vec<Event>, Error> {
        let events = self.parts.store.events(id, after, limit).await?;
        if events.is_empty() {
            self.job(id).await?;
        }
        Ok(events)
    }

    /// The lines of a job's log after line `after`, of one attempt or of all; at most `limit`.
    pub async fn lines(&self, id: JobId, attempt: Option<Attempt>, after: u64, limit: u32) -> Result<Vec<Line>, Error> {
        let lines = self.parts.store.lines(id, attempt, after, limit).await?;
        if lines.is_empty() {
            self.job(id).await?;
        }
        Ok(lines)
    }

    /// Whether more of a job's log will come.
    pub async fn log_state(&self, id: JobId) -> Result<LogState, Error> {
        let job = self.job(id).await?;
        let Some(finished) = job.finished_at else { return Ok(LogState::Growing) };
        if job.attempt == Attempt::default() {
            return Ok(LogState::Complete);
        }
        let told = job.told.as_ref().filter(|told| told.attempt == job.attempt);
        let stored = self.parts.store.chunk_count(id, job.attempt).await?;
        let missing = match told {
            Some(told) if stored >= told.log.chunks => return Ok(LogState::Complete),
            Some(told) => format!("{} of its {} parts are missing", told.log.chunks - stored, told.log.chunks),
            None => "its worker was lost before it told how long the log is".to_owned(),
        };
        if self.parts.holdings.now().since(finished) < LOG_LATE {
            Ok(LogState::Growing)
        } else {
            Ok(LogState::Gap(missing))
        }
    }

    /// Waits for changes of a job, from now on.
    pub fn watch(&self, id: JobId) -> Watch {
        Watch { id, hints: self.parts.bus.hints() }
    }

    /// Whether the service can do its work: every actor lives, the store can be read, and writes are committed.
    pub async fn ready(&self) -> Result<(), Error> {
        self.open()?;
        let Parts { jobs, publisher, timekeeper, .. } = &*self.parts;
        if !self.parts.holdings.is_alive() {
            return Err(Error::Unavailable { retry_after: RETRY_AFTER });
        }
        let beside = self.parts.beside.iter().all(|task| !task.is_finished());
        if !(beside && jobs.are_reachable() && publisher.connected() && timekeeper.connected()) {
            tracing::error!("an actor died: the process must be started again");
            return Err(Error::Unavailable { retry_after: RETRY_AFTER });
        }
        self.parts.store.ping().await?;
        Ok(self.parts.commits.probe().await?)
    }

    pub(crate) fn open(&self) -> Result<(), Error> {
        let stopping = self.parts.stopping.load(Ordering::Acquire);
        if stopping { Err(Error::Unavailable { retry_after: RETRY_AFTER }) } else { Ok(()) }
    }

    fn new_job(
        &self,
        by: &Actor,
        submission: Submission,
        retry_of: Option<JobId>,
        master_key: usize,
    ) -> Result<NewJob, Error> {
        self.open()?;
        let Submission { spec, secrets, idempotency_key, hash } = submission;
        let (now, random) = (self.parts.holdings.now(), clock::random::<12>());
        let [.., high, low] = random;
        let shards = self.parts.holdings.shards();
        let chosen = usize::from(u16::from_be_bytes([high, low])).checked_rem(shards.len());
        let shard = chosen.and_then(|chosen| shards.get(chosen)).ok_or(Error::Elsewhere)?;
        let id = JobId::mint(*shard, now, *random.first_chunk().ok_or(Error::Internal)?);
        let secrets = self.parts.vault.encrypt(id, &secrets).map_err(internal)?;
        let transition = job::submit(id, Arc::new(spec), secrets.is_some(), retry_of, by.clone(), now);
        let fingerprint = self.parts.vault.fingerprints(&hash).nth(master_key).ok_or(Error::Internal)?;
        let idempotency = idempotency_key.map(|key| IdempotencyKey {
            owner: by.to_string(),
            key,
            hash: fingerprint,
            expires: now.plus(IDEMPOTENCY),
        });
        Ok(NewJob { transition, secrets, idempotency })
    }

    async fn store_new(&self, new: Vec<NewJob>) -> Result<Vec<Accepted>, Error> {
        let jobs: Vec<Job> = new.iter().map(|new| new.transition.job.clone()).collect();
        let (begun, holdings) = (clock::instant(), &self.parts.holdings);
        let epochs: Vec<_> = jobs.iter().map(|job| holdings.epoch(job.id.shard())).collect();
        let submitted = match self.parts.commits.submit(new).await? {
            Written::Submitted(submitted) => submitted,
            Written::KeyReused(index) => return Err(Error::KeyReused(index)),
            Written::TooManyTagSets(index) => return Err(Error::TooManyTagSets(index)),
            Written::Refused(why) => return Err(internal(why)),
            // An id that is taken: a repeat mints another one.
            Written::Conflict | Written::Changed { .. } => return Err(Error::Unavailable { retry_after: RETRY_AFTER }),
        };
        let stored = jobs.iter().zip(epochs).zip(&submitted);
        let stored = stored.filter(|(_, submitted)| matches!(submitted, Submitted::New(_)));
        self.parts.jobs.remember(stored.filter_map(|((job, epoch), _)| Some((job.clone(), epoch?))).collect(), begun);
        let mut accepted = Vec::with_capacity(jobs.len());
        for (job, submitted) in jobs.into_iter().zip(submitted) {
            accepted.push(match submitted {
                Submitted::New(_) => Accepted { job, existing: false },
                Submitted::Existing(first) => Accepted { job: self.job(first).await?, existing: true },
            });
        }
        Ok(accepted)
    }
}

/// Wakes whoever follows a job.
#[derive(Debug)]
pub struct Watch {
    id: JobId,
    hints: broadcast::Receiver<Hint>,
}

impl Watch {
    /// Returns when something of the job may have changed: at a hint, at the latest after a second.
    pub async fn changed(&mut self) {
        let hinted = async {
            loop {
                match self.hints.recv().await {
                    Ok(hint) if hint != Hint::Job(self.id) => {}
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => return,
                    Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
                }
            }
        };
        // Without a hint in time the store is looked at all the same.
        let _ = tokio::time::timeout(WATCH_EVERY, hinted).await;
    }
}

fn internal(error: impl std::fmt::Display) -> Error {
    tracing::error!(%error, "a call met a defect");
    Error::Internal
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) | store::Error::Unknown(_) | store::Error::Fenced => {
                tracing::warn!(%error, "a call met the store");
                Self::Unavailable { retry_after: RETRY_AFTER }
            }
            store::Error::Corrupt(_) => internal(error),
        }
    }
}

impl From<committer::Error> for Error {
    fn from(error: committer::Error) -> Self {
        match error {
            committer::Error::Busy => Self::Busy { retry_after: RETRY_AFTER },
            committer::Error::Refused(why) => internal(why),
            committer::Error::Elsewhere => Self::Elsewhere,
            committer::Error::Unavailable | committer::Error::Unknown => Self::Unavailable { retry_after: RETRY_AFTER },
        }
    }
}

impl From<supervisor::Error> for Error {
    fn from(error: supervisor::Error) -> Self {
        match error {
            supervisor::Error::Unknown => Self::NotFound,
            supervisor::Error::Refused(rejection) => Self::Conflict(rejection.to_string()),
            supervisor::Error::Elsewhere => Self::Elsewhere,
            supervisor::Error::Busy => Self::Busy { retry_after: RETRY_AFTER },
            supervisor::Error::Unavailable => Self::Unavailable { retry_after: RETRY_AFTER },
            supervisor::Error::Internal => Self::Internal,
        }
    }
}
