//! The waist to the database, which is the only truth. Its verbs are the domain's; no SQL is written anywhere else.
//!
//! [`sqlite::SqliteStore`] is the embedded default, [`postgres::PostgresStore`] the cluster's, and [`measured::Measured`] what
//! measures either. `tests/tests/conformance/store.rs` is what every implementation has to pass.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use shared::id::{Attempt, CoordinatorId, Fence, JobId, Seq, Shard, ShardSeq, Version, WorkerId};
use shared::job::{Event, Job, Offer, StateName, Transition};
use shared::log::{Chunk, Line};
use shared::time::Time;
use shared::wire::LogAnswer;

pub mod measured;
pub mod postgres;
pub mod sqlite;

mod keys;
mod log_bounds;
mod ownership;
mod retention;
mod roster;

pub use keys::{AuditLine, DEPLOY_KEYS_MAX, DeployKey, KeyPut, Keys, MASTER_KEYS_MAX, MasterKeyCheck, Place, Resealed};
pub use ownership::{Cluster, LEASE_TTL, Member, OwnedShard, Ownership};
pub use retention::{EndedJob, RemovedExpired, RemovedJobs, Retention};
pub use roster::{Enrolled, NewWorker, ROSTER_MAX, Roster, Seen, Token, TokenKind, Worker};

/// The most tag sets that are known at a time: each is one consumer per priority on the bus.
pub const TAG_SETS_MAX: u32 = 1000;

/// How many jobs before another are told apart.
pub const AHEAD_MAX: u32 = 10_000;
/// How many queued jobs, the oldest first, are looked at for that: more would take a statement too long.
pub const AHEAD_LOOKED_MAX: u32 = 100_000;

/// Keeps jobs, their events and logs. Every write names the coordinator that makes it, and is refused as
/// [`Error::Fenced`] once that coordinator's lease is gone.
#[async_trait]
pub trait Store: Ownership + Roster + Keys + Retention + Send + Sync + 'static {
    /// Commits a batch in one transaction. The answers are in the order of the writes; a write that isn't taken
    /// leaves no gap in the numbers and harms no other.
    async fn commit(&self, owner: CoordinatorId, batch: Arc<Batch>) -> Result<Vec<Written>, Error>;

    /// Notes how far shards are published; those that `owner` doesn't own are passed over.
    async fn move_cursors(&self, owner: CoordinatorId, cursors: &[(Shard, ShardSeq)]) -> Result<(), Error>;

    /// Stores the chunks of attempts that `worker` holds, or held until at most an hour before `now`; the
    /// answers are in their order. One that is there already counts as stored.
    async fn append_log(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        chunks: &[Chunk],
        now: Time,
    ) -> Result<Vec<LogAnswer>, Error>;

    /// The job of that id.
    async fn job(&self, id: JobId) -> Result<Option<Job>, Error>;

    /// The newest jobs that `filter` lets through, of those older than `before`; at most `limit`.
    async fn jobs(&self, filter: &Filter, before: Option<JobId>, limit: u32) -> Result<Vec<Job>, Error>;

    /// The ids of the jobs that aren't terminal and that `filter` lets through, in order, after `after`; at most `limit`.
    async fn open_jobs(&self, filter: &Filter, after: Option<JobId>, limit: u32) -> Result<Vec<JobId>, Error>;

    /// The jobs of `shards` with a live attempt, in order, after `after`; at most `limit`. One that can't be read is logged
    /// and left out: it mustn't keep its neighbours from being owned.
    async fn live_jobs(&self, shards: &[Shard], after: Option<JobId>, limit: u32) -> Result<LiveJobs, Error>;

    /// The offers of jobs of `shards` that are queued since before `before`, in the order of the jobs' ids, after `after`;
    /// at most `limit`.
    async fn offers(
        &self,
        shards: &[Shard],
        before: Time,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Offer>, Error>;

    /// How many jobs are offered before this one, which is queued, to the workers that have its tags (see [`Ahead`]).
    async fn ahead(&self, job: &Job) -> Result<Ahead, Error>;

    /// The jobs of `shards` that must be woken before `before`, the soonest first; at most `limit`.
    async fn due(&self, shards: &[Shard], before: Time, limit: u32) -> Result<Vec<(JobId, Time)>, Error>;

    /// The events of a job after number `after`, in order; at most `limit`.
    async fn events(&self, job: JobId, after: Seq, limit: u32) -> Result<Vec<Event>, Error>;

    /// The events of a shard after number `after`, in order; at most `limit`.
    async fn shard_events(&self, shard: Shard, after: ShardSeq, limit: u32) -> Result<Vec<(ShardSeq, Event)>, Error>;

    /// The lines of a job's log after line `after` (see [`Line::n`]), of one attempt or of all; at most `limit`. Of more
    /// than 1,000 it may be fewer, where they are long: what follows is returned when it is asked for.
    async fn lines(&self, job: JobId, attempt: Option<Attempt>, after: u64, limit: u32) -> Result<Vec<Line>, Error>;

    /// How many chunks of an attempt's log are stored.
    async fn chunk_count(&self, job: JobId, attempt: Attempt) -> Result<u32, Error>;

    /// A job's secrets as they were handed in: encrypted.
    async fn secrets(&self, job: JobId) -> Result<Option<Vec<u8>>, Error>;

    /// Whether the database answers.
    async fn ping(&self) -> Result<(), Error>;

    /// Finishes what is under way and closes the database.
    async fn close(&self);
}

/// The jobs that are queued for the same tags as another and are offered before it: those of a higher priority, and of its own
/// those that were queued before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ahead {
    /// [`AHEAD_MAX`] at most.
    pub count: u32,
    /// Whether there may be more.
    pub at_least: bool,
}

impl Ahead {
    /// From how many were found among so many queued jobs that were looked at.
    fn found(found: u64, looked: u64) -> Self {
        let count = u32::try_from(found).unwrap_or(u32::MAX).min(AHEAD_MAX);
        Self { count, at_least: found > u64::from(count) || looked >= u64::from(AHEAD_LOOKED_MAX) }
    }
}

/// Jobs with a live attempt, and where to go on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LiveJobs {
    pub jobs: Vec<Job>,
    /// After which job the next page begins; none where this is the last.
    pub next: Option<JobId>,
}

/// What is committed together.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// The number of the last event of each shard that the writes touch.
    pub last: HashMap<Shard, ShardSeq>,
    pub writes: Vec<Write>,
}

/// One write: taken whole or not at all.
#[derive(Debug, Clone)]
pub enum Write {
    /// New jobs that are submitted together.
    Submit(Vec<NewJob>),
    /// A transition of a job whose version is still `from`.
    Change { from: Version, transition: Box<Transition> },
}

impl Write {
    /// The jobs that it is about.
    pub fn jobs(&self) -> impl Iterator<Item = &Job> {
        let (new, changed) = match self {
            Self::Submit(jobs) => (jobs.as_slice(), None),
            Self::Change { transition, .. } => (&[] as &[NewJob], Some(&transition.job)),
        };
        new.iter().map(|new| &new.transition.job).chain(changed)
    }
}

/// A job to be stored for the first time.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub transition: Transition,
    /// Encrypted.
    pub secrets: Option<Vec<u8>>,
    pub idempotency: Option<IdempotencyKey>,
}

/// A key under which a repeated submission finds the first job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Whose key it is: the owner of the token.
    pub owner: String,
    pub key: String,
    /// What was submitted under it.
    pub hash: [u8; 32],
    /// From then on it can be used anew, by a job whose `created_at` isn't earlier.
    pub expires: Time,
}

/// What became of a [`Write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Written {
    /// One answer for each job of a submission.
    Submitted(Vec<Submitted>),
    /// The transition is committed.
    Changed {
        /// The number of its first event in the shard; the others follow it.
        first: ShardSeq,
        /// Drawn where the transition grants an attempt.
        fence: Option<Fence>,
    },
    /// The job's version was another, or a new job's id is taken; nothing of the write is stored.
    Conflict,
    /// The idempotency key of the submission's job at this index stands for another body; nothing of it is stored.
    KeyReused(usize),
    /// The tag set of the submission's job at this index would be one more than [`TAG_SETS_MAX`]; nothing of it is
    /// stored. It can be once no open job needs one of the others.
    TooManyTagSets(usize),
    /// The database refuses it for a reason that no repeat will change; nothing of the write is stored.
    Refused(String),
}

/// What became of a submitted job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It is stored; the number is that of its first event in the shard.
    New(ShardSeq),
    /// Its key stands for this job, which was submitted before.
    Existing(JobId),
}

/// Which jobs a list or a cancel is about; each condition that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Filter {
    pub state: Option<StateName>,
    pub tag: Option<String>,
    /// The repository's URL as it was submitted.
    pub repository: Option<String>,
    /// A label's key and, where it matters, its value.
    pub label: Option<(String, Option<String>)>,
}

/// How what a filter asks for is written in a job's tags and labels, which are kept as JSON: what lacks it needs no reading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sought {
    tag: Option<String>,
    label: Option<String>,
}

impl Filter {
    fn written(&self) -> Sought {
        // As JSON it is shown without a space between, which is how the stores write it.
        let quoted = |text: &String| serde_json::Value::from(text.as_str()).to_string();
        let label = |(key, value): &(String, Option<String>)| {
            format!("{}:{}", quoted(key), value.as_ref().map(quoted).unwrap_or_default())
        };
        Sought { tag: self.tag.as_ref().map(quoted), label: self.label.as_ref().map(label) }
    }
}

/// What a row holds, if it can be read; where not, that is said.
fn readable<T>(row: Result<T, Error>) -> Option<T> {
    row.inspect_err(|error| tracing::error!(%error, "a row can't be read and is passed over")).ok()
}

/// Why the store didn't do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing was done; later it may be.
    #[error("the database is not available: {0}")]
    Unavailable(String),
    /// Whether it was done is unknown.
    #[error("the database's answer was lost: {0}")]
    Unknown(String),
    /// The writer's lease is gone: nothing was done and never will be.
    #[error("this coordinator's lease is gone")]
    Fenced,
    /// What is stored can't be read. No repeat will help.
    #[error("the database holds what it must not: {0}")]
    Corrupt(String),
}

impl Error {
    /// Whether the same may go well later, where it does no harm to do it twice.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::Unknown(_) | Self::Fenced => true,
            Self::Corrupt(_) => false,
        }
    }
}
