//! The cluster's store: Postgres 15 or later, in the connection's default schema.
//!
//! The statements are in the submodules: [`commit`] for what changes jobs, [`ownership`] and [`roster`] for who may, [`log`]
//! for logs, [`keys`], [`audit`] and [`sealed`] for deploy keys and what is kept secret, [`read`] for questions, [`retention`] for what is old. [`batch`] and [`columns`] put a batch into one statement's parameters, [`tag_sets`] keeps what
//! must be there before it, [`session`] a connection while a verb has it, [`fault`] says what a failure means,
//! [`connect`] how connections are made.
//!
//! Every verb runs in a task of the runtime that opened the store: a caller who goes away cuts no statement short, and no
//! connection belongs to an actor's own runtime. Its answer is awaited for [`ANSWER_WITHIN`] at most, then whether it was
//! done is unknown, and the connection is closed.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::PgPool;
use tokio::runtime::Handle;

use shared::id::{Attempt, CoordinatorId, JobId, Seq, Shard, ShardSeq, TokenId, WorkerId};
use shared::job::{Event, Job, Offer};
use shared::log::{Chunk, Line};
use shared::secret::Secret;
use shared::time::Time;
use shared::wire::{Hello, LogAnswer, Welcome, WorkerMode};

use self::fault::Fault;
use super::{
    Ahead, AuditLine, Batch, Cluster, EndedJob, Enrolled, Error, Filter, LiveJobs, Member, NewWorker, OwnedShard,
    Ownership, RemovedExpired, RemovedJobs, Retention, Roster, Store, Token, Worker, Written,
};

mod audit;
mod batch;
mod columns;
mod commit;
mod connect;
mod fault;
mod keys;
mod log;
mod ownership;
mod read;
mod retention;
mod roster;
mod row;
mod sealed;
mod session;
mod tag_sets;

/// How long an answer is awaited, the turn at a connection and repeats left out: longer than the server lets a statement
/// run, so that only a commit that hangs or a lost connection comes to it.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);

/// The store in a Postgres database.
pub struct PostgresStore {
    /// For batches: a reader who is slow keeps none of them waiting.
    commits: connect::Committing,
    /// For the verbs by which shards change hands: a renewal waits for nobody.
    leases: PgPool,
    /// For what owners and workers need.
    others: PgPool,
    /// For what people and programs ask: lists, timelines, logs. However many of them there are, they keep no owner waiting.
    questions: PgPool,
    runtime: Handle,
    known: Arc<tag_sets::Known>,
    retries: Arc<AtomicU64>,
}

impl PostgresStore {
    /// Brings the tables of the database at `url` up to date; several processes at once take turns.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it can't be reached, [`Error::Corrupt`] when it isn't one that we can use.
    pub async fn migrate(url: &Secret) -> Result<(), Error> {
        connect::migrate(url).await
    }

    /// Connects to the database at `url`, whose tables are up to date.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it can't be reached, [`Error::Corrupt`] when it isn't one that we can use. Must be called
    /// within a tokio runtime, whose threads then carry out every verb.
    pub async fn connect(url: &Secret) -> Result<Self, Error> {
        let connect::Pools { commits, leases, others, questions } = connect::pools(url).await?;
        let (known, retries) = (Arc::default(), Arc::default());
        Ok(Self { commits, leases, others, questions, runtime: Handle::current(), known, retries })
    }

    /// Counts the statements that are repeated, because of what another did at the same time or on a dead connection.
    pub fn retries(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.retries)
    }

    /// Carries out a verb that changes something.
    async fn write<T, F, W>(&self, verb: &'static str, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
        W: FnMut() -> F + Send + 'static,
    {
        self.perform(verb, Error::Unknown, work).await
    }

    /// Carries out a verb that changes nothing, or nothing that it matters to know of.
    async fn read<T, F, W>(&self, verb: &'static str, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
        W: FnMut() -> F + Send + 'static,
    {
        self.perform(verb, Error::Unavailable, work).await
    }

    async fn perform<T, F, W>(&self, verb: &'static str, lost: fn(String) -> Error, mut work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Fault>> + Send + 'static,
        W: FnMut() -> F + Send + 'static,
    {
        let retries = Arc::clone(&self.retries);
        let task = self.runtime.spawn(async move {
            fault::retried(verb, &retries, || {
                    let answer = tokio::time::timeout(connect::TURN_WITHIN + ANSWER_WITHIN, work());
                    async move {
                        answer.await.unwrap_or_else(|_| Err(Fault::Told(lost(format!("{verb}: no answer in time")))))
                    }
                })
                .await
        });
        // It panicked, or the runtime ended.
        task.await.unwrap_or_else(|gone| Err(lost(gone.to_string())))
    }
}

#[async_trait]
impl Ownership for PostgresStore {
    async fn join(&self, member: &Member) -> Result<(), Error> {
        let (pool, member) = (self.leases.clone(), member.clone());
        self.write("join", move || ownership::join(pool.clone(), member.clone())).await
    }

    async fn renew(&self, id: CoordinatorId) -> Result<Cluster, Error> {
        let pool = self.leases.clone();
        self.read("renew", move || ownership::renew(pool.clone(), id)).await
    }

    async fn bury(&self, id: CoordinatorId, expired: &[CoordinatorId]) -> Result<(), Error> {
        let (pool, expired) = (self.leases.clone(), expired.to_vec());
        self.write("bury", move || ownership::bury(pool.clone(), id, expired.clone())).await
    }

    async fn raise_format(&self, format: u32) -> Result<(), Error> {
        let pool = self.leases.clone();
        self.write("raise_format", move || ownership::raise_format(pool.clone(), format)).await
    }

    async fn take_over(&self, id: CoordinatorId, shards: &[Shard]) -> Result<Vec<OwnedShard>, Error> {
        let (pool, shards) = (self.leases.clone(), shards.to_vec());
        self.write("take_over", move || ownership::take_over(pool.clone(), id, shards.clone())).await
    }

    async fn succeed(&self, old: CoordinatorId, new: &Member) -> Result<(), Error> {
        let (pool, new) = (self.leases.clone(), new.clone());
        self.write("succeed", move || ownership::succeed(pool.clone(), old, new.clone())).await
    }

    async fn hand_over(&self, id: CoordinatorId, to: CoordinatorId, shards: &[Shard]) -> Result<(), Error> {
        let (pool, shards) = (self.leases.clone(), shards.to_vec());
        self.write("hand_over", move || ownership::hand_over(pool.clone(), id, to, shards.clone())).await
    }

    async fn leave(&self, id: CoordinatorId) -> Result<(), Error> {
        let pool = self.leases.clone();
        self.write("leave", move || ownership::leave(pool.clone(), id)).await
    }
}

#[async_trait]
impl Roster for PostgresStore {
    async fn enrol(
        &self,
        owner: CoordinatorId,
        token: [u8; 32],
        worker: &NewWorker,
        now: Time,
    ) -> Result<Enrolled, Error> {
        let (pool, worker) = (self.others.clone(), worker.clone());
        self.write("enrol", move || roster::enrol(pool.clone(), owner, token, worker.clone(), now)).await
    }

    async fn welcome(&self, owner: CoordinatorId, hello: &Hello, now: Time) -> Result<Option<Welcome>, Error> {
        let (pool, hello) = (self.others.clone(), hello.clone());
        self.write("welcome", move || roster::welcome(pool.clone(), owner, hello.clone(), now)).await
    }

    async fn workers(&self) -> Result<Vec<Worker>, Error> {
        let pool = self.others.clone();
        self.read("workers", move || roster::workers(pool.clone())).await
    }

    async fn set_mode(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        mode: WorkerMode,
        audit: &AuditLine,
    ) -> Result<Option<Worker>, Error> {
        let (pool, line) = (self.others.clone(), audit.clone());
        self.write("set_mode", move || roster::set_mode(pool.clone(), owner, worker, mode, line.clone())).await
    }

    async fn revoke_worker(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        now: Time,
        audit: &AuditLine,
    ) -> Result<Option<Worker>, Error> {
        let (pool, line) = (self.others.clone(), audit.clone());
        self.write("revoke_worker", move || roster::revoke_worker(pool.clone(), owner, worker, now, line.clone())).await
    }

    async fn add_token(&self, owner: CoordinatorId, token: &Token, audit: &AuditLine) -> Result<bool, Error> {
        let (pool, token, line) = (self.others.clone(), token.clone(), audit.clone());
        self.write("add_token", move || roster::add_token(pool.clone(), owner, token.clone(), line.clone())).await
    }

    async fn revoke_token(
        &self,
        owner: CoordinatorId,
        id: TokenId,
        now: Time,
        audit: &AuditLine,
    ) -> Result<bool, Error> {
        let (pool, line) = (self.others.clone(), audit.clone());
        self.write("revoke_token", move || roster::revoke_token(pool.clone(), owner, id, now, line.clone())).await
    }

    async fn tokens(&self, now: Time) -> Result<Vec<Token>, Error> {
        let pool = self.others.clone();
        self.read("tokens", move || roster::tokens(pool.clone(), now)).await
    }
}

#[async_trait]
impl Retention for PostgresStore {
    async fn ended_jobs(
        &self,
        shards: &[Shard],
        before: Time,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, Error> {
        let (pool, shards) = (self.questions.clone(), shards.to_vec());
        self.read("ended_jobs", move || retention::ended_jobs(pool.clone(), shards.clone(), before, after, limit)).await
    }

    async fn remove_jobs(
        &self,
        owner: CoordinatorId,
        jobs: &[JobId],
        before: Time,
        chunks_max: u32,
    ) -> Result<RemovedJobs, Error> {
        let (pool, jobs) = (self.questions.clone(), jobs.to_vec());
        let work = move || retention::remove_jobs(pool.clone(), owner, jobs.clone(), before, chunks_max);
        self.write("remove_jobs", work).await
    }

    async fn remove_expired(&self, owner: CoordinatorId, before: Time, limit: u32) -> Result<RemovedExpired, Error> {
        let pool = self.questions.clone();
        self.write("remove_expired", move || retention::remove_expired(pool.clone(), owner, before, limit)).await
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, owner: CoordinatorId, batch: Arc<Batch>) -> Result<Vec<Written>, Error> {
        let (connections, known) = (self.commits.clone(), Arc::clone(&self.known));
        let work = move || commit::commit(connections.clone(), Arc::clone(&known), owner, Arc::clone(&batch));
        self.write("commit", work).await
    }

    async fn move_cursors(&self, owner: CoordinatorId, cursors: &[(Shard, ShardSeq)]) -> Result<(), Error> {
        let (pool, cursors) = (self.others.clone(), cursors.to_vec());
        self.write("move_cursors", move || commit::move_cursors(pool.clone(), owner, cursors.clone())).await
    }

    async fn append_log(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        chunks: &[Chunk],
        now: Time,
    ) -> Result<Vec<LogAnswer>, Error> {
        let (pool, chunks) = (self.others.clone(), Arc::new(chunks.to_vec()));
        self.write("append_log", move || log::append(pool.clone(), owner, worker, Arc::clone(&chunks), now)).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        let pool = self.others.clone();
        self.read("job", move || read::job(pool.clone(), id)).await
    }

    async fn jobs(&self, filter: &Filter, before: Option<JobId>, limit: u32) -> Result<Vec<Job>, Error> {
        let (pool, filter) = (self.questions.clone(), filter.clone());
        self.read("jobs", move || read::jobs(pool.clone(), filter.clone(), before, limit)).await
    }

    async fn open_jobs(&self, filter: &Filter, after: Option<JobId>, limit: u32) -> Result<Vec<JobId>, Error> {
        let (pool, filter) = (self.questions.clone(), filter.clone());
        self.read("open_jobs", move || read::open_jobs(pool.clone(), filter.clone(), after, limit)).await
    }

    async fn live_jobs(&self, shards: &[Shard], after: Option<JobId>, limit: u32) -> Result<LiveJobs, Error> {
        let (pool, shards) = (self.leases.clone(), shards.to_vec());
        self.read("live_jobs", move || read::live_jobs(pool.clone(), shards.clone(), after, limit)).await
    }

    async fn offers(
        &self,
        shards: &[Shard],
        before: Time,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Offer>, Error> {
        let (pool, shards) = (self.others.clone(), shards.to_vec());
        self.read("offers", move || read::offers(pool.clone(), shards.clone(), before, after, limit)).await
    }

    async fn ahead(&self, job: &Job) -> Result<Ahead, Error> {
        let (pool, offer, since) = (self.questions.clone(), job.offer(), job.queued_at.unwrap_or(job.created_at));
        self.read("ahead", move || read::ahead(pool.clone(), offer.clone(), since)).await
    }

    async fn due(&self, shards: &[Shard], before: Time, limit: u32) -> Result<Vec<(JobId, Time)>, Error> {
        let (pool, shards) = (self.others.clone(), shards.to_vec());
        self.read("due", move || read::due(pool.clone(), shards.clone(), before, limit)).await
    }

    async fn events(&self, job: JobId, after: Seq, limit: u32) -> Result<Vec<Event>, Error> {
        let pool = self.questions.clone();
        self.read("events", move || read::events(pool.clone(), job, after, limit)).await
    }

    async fn shard_events(&self, shard: Shard, after: ShardSeq, limit: u32) -> Result<Vec<(ShardSeq, Event)>, Error> {
        let pool = self.others.clone();
        self.read("shard_events", move || read::shard_events(pool.clone(), shard, after, limit)).await
    }

    async fn lines(&self, job: JobId, attempt: Option<Attempt>, after: u64, limit: u32) -> Result<Vec<Line>, Error> {
        let pool = self.questions.clone();
        self.read("lines", move || log::lines(pool.clone(), job, attempt, after, limit)).await
    }

    async fn chunk_count(&self, job: JobId, attempt: Attempt) -> Result<u32, Error> {
        let pool = self.questions.clone();
        self.read("chunk_count", move || log::chunk_count(pool.clone(), job, attempt)).await
    }

    async fn secrets(&self, job: JobId) -> Result<Option<Vec<u8>>, Error> {
        let pool = self.others.clone();
        self.read("secrets", move || read::secrets(pool.clone(), job)).await
    }

    async fn ping(&self) -> Result<(), Error> {
        let pool = self.others.clone();
        self.read("ping", move || read::ping(pool.clone())).await
    }

    async fn close(&self) {
        // The leases last, so that one in use can still be given back.
        self.questions.close().await;
        self.others.close().await;
        self.commits.close().await;
        self.leases.close().await;
    }
}
