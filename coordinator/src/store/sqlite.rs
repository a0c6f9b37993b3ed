//! The embedded default: one SQLite file, in WAL mode, written durably (`synchronous=FULL`).
//!
//! One connection writes, a few read beside it. A write runs in a task of its own, so that a caller who goes away
//! never leaves a transaction half done. The statements are in the submodules: [`commit`] for what changes jobs,
//! [`ownership`] and [`roster`] for who may, [`log`] for logs, [`keys`], [`audit`] and [`sealed`] for deploy keys and
//! what is kept secret, [`read`] for questions, [`row`] for what a row holds. Whoever opens the file holds the lock on its
//! data directory; this module doesn't take it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use sqlx::migrate::MigrateError;
use sqlx::pool::PoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection};
use tokio::runtime::Handle;

use shared::id::{Attempt, CoordinatorId, JobId, Seq, Shard, ShardSeq, TokenId, WorkerId};
use shared::job::{Event, Job, Offer};
use shared::log::{Chunk, Line};
use shared::time::Time;
use shared::wire::{Hello, LogAnswer, Welcome, WorkerMode};

use super::{
    Ahead, AuditLine, Batch, Cluster, EndedJob, Enrolled, Error, Filter, LiveJobs, Member, NewWorker, OwnedShard,
    Ownership, RemovedExpired, RemovedJobs, Retention, Roster, Store, Token, Worker, Written,
};

mod audit;
mod commit;
mod keys;
mod log;
mod ownership;
mod read;
mod retention;
mod roster;
mod row;
mod sealed;
#[cfg(test)]
mod tests;

/// How many connections read at a time.
const READERS_MAX: u32 = 4;
/// How long a statement waits for another process's lock: below the TTL of a coordinator's lease, 3 s.
const BUSY_WITHIN: Duration = Duration::from_secs(2);
/// How long a call waits for its turn at a connection before the database counts as unavailable.
const TURN_WITHIN: Duration = Duration::from_secs(5);

/// The store in one SQLite file.
pub struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    /// Writes run here, also when an actor's own runtime asks for them and ends first.
    runtime: Handle,
}

impl SqliteStore {
    /// Opens the database at `path`, creates it where it is missing (mode 0600), and brings its tables up to date.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when the file can't be opened or written, [`Error::Corrupt`] when it is no database of
    /// ours. Must be called within a tokio runtime, whose threads then carry out every write.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        let unavailable = |error| Error::Unavailable(format!("opening {}: {error}", path.display()));
        // SQLite gives its journal files the mode of the database.
        let mut file = tokio::fs::OpenOptions::new();
        file.read(true).write(true).create(true).mode(0o600).open(path).await.map_err(unavailable)?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_WITHIN)
            .disable_statement_logging();
        let writer = connections(1).connect_with(options.clone()).await?;
        let mut migrator = sqlx::migrate!("../migrations/sqlite");
        // Migrations only add, so a newer version's are no obstacle.
        migrator.set_ignore_missing(true);
        migrator.run(&writer).await?;
        let readers = connections(READERS_MAX).connect_lazy_with(options.pragma("query_only", "on"));
        Ok(Self { writer, readers, runtime: Handle::current() })
    }

    /// Carries out `work` in one transaction, provided that `owner` may write.
    async fn write<T, W>(&self, owner: CoordinatorId, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        self.transaction(move |connection| {
            Box::pin(async move {
                commit::check_lease(connection, owner).await?;
                work(connection).await
            })
        })
        .await
    }

    /// Carries out `work` in one transaction, in a task that nobody cancels.
    async fn transaction<T, W>(&self, work: W) -> Result<T, Error>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>> + Send + 'static,
    {
        let writer = self.writer.clone();
        let task = self.runtime.spawn(async move {
            let mut connection = writer.acquire().await?;
            let outcome = transact(&mut connection, work).await;
            // SQLite rolls some failed transactions back by itself, and then sqlx takes the connection for one that is
            // still inside: it is replaced.
            if !matches!(outcome, Ok(_) | Err(Error::Fenced)) {
                connection.close_on_drop();
            }
            outcome
        });
        // It panicked, or the runtime ended: it may have committed before.
        task.await.unwrap_or_else(|lost| Err(Error::Unknown(lost.to_string())))
    }
}

#[async_trait]
impl Ownership for SqliteStore {
    async fn join(&self, member: &Member) -> Result<(), Error> {
        let member = member.clone();
        self.transaction(move |connection| Box::pin(ownership::join(connection, member))).await
    }

    async fn renew(&self, id: CoordinatorId) -> Result<Cluster, Error> {
        ownership::renew(&self.readers, id).await
    }

    async fn bury(&self, _: CoordinatorId, _: &[CoordinatorId]) -> Result<(), Error> {
        // Nobody's lease ends here but with the directory's lock.
        Ok(())
    }

    async fn raise_format(&self, format: u32) -> Result<(), Error> {
        self.transaction(move |connection| Box::pin(ownership::raise_format(connection, format))).await
    }

    async fn take_over(&self, id: CoordinatorId, shards: &[Shard]) -> Result<Vec<OwnedShard>, Error> {
        let shards = shards.to_vec();
        self.write(id, move |connection| Box::pin(ownership::take_over(connection, id, shards))).await
    }

    async fn succeed(&self, old: CoordinatorId, new: &Member) -> Result<(), Error> {
        let new = new.clone();
        self.transaction(move |connection| Box::pin(ownership::succeed(connection, old, new))).await
    }

    async fn hand_over(&self, id: CoordinatorId, to: CoordinatorId, shards: &[Shard]) -> Result<(), Error> {
        let shards = shards.to_vec();
        self.write(id, move |connection| Box::pin(ownership::hand_over(connection, id, to, shards))).await
    }

    async fn leave(&self, id: CoordinatorId) -> Result<(), Error> {
        self.transaction(move |connection| Box::pin(ownership::leave(connection, id))).await
    }
}

#[async_trait]
impl Roster for SqliteStore {
    async fn enrol(
        &self,
        owner: CoordinatorId,
        token: [u8; 32],
        worker: &NewWorker,
        now: Time,
    ) -> Result<Enrolled, Error> {
        let worker = worker.clone();
        self.write(owner, move |connection| Box::pin(roster::enrol(connection, token, worker, now))).await
    }

    async fn welcome(&self, owner: CoordinatorId, hello: &Hello, now: Time) -> Result<Option<Welcome>, Error> {
        let hello = hello.clone();
        self.write(owner, move |connection| Box::pin(roster::welcome(connection, hello, now))).await
    }

    async fn workers(&self) -> Result<Vec<Worker>, Error> {
        roster::workers(&self.readers).await
    }

    async fn set_mode(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        mode: WorkerMode,
        audit: &AuditLine,
    ) -> Result<Option<Worker>, Error> {
        let line = audit.clone();
        self.write(owner, move |connection| Box::pin(roster::set_mode(connection, worker, mode, line))).await
    }

    async fn revoke_worker(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        now: Time,
        audit: &AuditLine,
    ) -> Result<Option<Worker>, Error> {
        let line = audit.clone();
        self.write(owner, move |connection| Box::pin(roster::revoke_worker(connection, worker, now, line))).await
    }

    async fn add_token(&self, owner: CoordinatorId, token: &Token, audit: &AuditLine) -> Result<bool, Error> {
        let (token, line) = (token.clone(), audit.clone());
        self.write(owner, move |connection| Box::pin(roster::add_token(connection, token, line))).await
    }

    async fn revoke_token(
        &self,
        owner: CoordinatorId,
        id: TokenId,
        now: Time,
        audit: &AuditLine,
    ) -> Result<bool, Error> {
        let line = audit.clone();
        self.write(owner, move |connection| Box::pin(roster::revoke_token(connection, id, now, line))).await
    }

    async fn tokens(&self, now: Time) -> Result<Vec<Token>, Error> {
        roster::tokens(&self.readers, now).await
    }
}

#[async_trait]
impl Retention for SqliteStore {
    async fn ended_jobs(
        &self,
        shards: &[Shard],
        before: Time,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, Error> {
        retention::ended_jobs(&self.readers, shards, before, after, limit).await
    }

    async fn remove_jobs(
        &self,
        owner: CoordinatorId,
        jobs: &[JobId],
        before: Time,
        chunks_max: u32,
    ) -> Result<RemovedJobs, Error> {
        let jobs = jobs.to_vec();
        self.write(owner, move |connection| {
            Box::pin(retention::remove_jobs(connection, owner, jobs, before, chunks_max))
        })
        .await
    }

    async fn remove_expired(&self, owner: CoordinatorId, before: Time, limit: u32) -> Result<RemovedExpired, Error> {
        self.write(owner, move |connection| Box::pin(retention::remove_expired(connection, before, limit))).await
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, owner: CoordinatorId, batch: Arc<Batch>) -> Result<Vec<Written>, Error> {
        self.write(owner, move |connection| Box::pin(async move { commit::commit(connection, &batch).await })).await
    }

    async fn move_cursors(&self, owner: CoordinatorId, cursors: &[(Shard, ShardSeq)]) -> Result<(), Error> {
        let cursors = cursors.to_vec();
        self.write(owner, move |connection| Box::pin(commit::move_cursors(connection, owner, cursors))).await
    }

    async fn append_log(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        chunks: &[Chunk],
        now: Time,
    ) -> Result<Vec<LogAnswer>, Error> {
        let chunks = chunks.to_vec();
        self.write(owner, move |connection| Box::pin(log::append(connection, worker, chunks, now))).await
    }

    async fn job(&self, id: JobId) -> Result<Option<Job>, Error> {
        read::job(&self.readers, id).await
    }

    async fn jobs(&self, filter: &Filter, before: Option<JobId>, limit: u32) -> Result<Vec<Job>, Error> {
        read::jobs(&self.readers, filter, before, limit).await
    }

    async fn open_jobs(&self, filter: &Filter, after: Option<JobId>, limit: u32) -> Result<Vec<JobId>, Error> {
        read::open_jobs(&self.readers, filter, after, limit).await
    }

    async fn live_jobs(&self, shards: &[Shard], after: Option<JobId>, limit: u32) -> Result<LiveJobs, Error> {
        read::live_jobs(&self.readers, shards, after, limit).await
    }

    async fn offers(
        &self,
        shards: &[Shard],
        before: Time,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<Offer>, Error> {
        read::offers(&self.readers, shards, before, after, limit).await
    }

    async fn ahead(&self, job: &Job) -> Result<Ahead, Error> {
        read::ahead(&self.readers, &job.offer(), job.queued_at.unwrap_or(job.created_at)).await
    }

    async fn due(&self, shards: &[Shard], before: Time, limit: u32) -> Result<Vec<(JobId, Time)>, Error> {
        read::due(&self.readers, shards, before, limit).await
    }

    async fn events(&self, job: JobId, after: Seq, limit: u32) -> Result<Vec<Event>, Error> {
        read::events(&self.readers, job, after, limit).await
    }

    async fn shard_events(&self, shard: Shard, after: ShardSeq, limit: u32) -> Result<Vec<(ShardSeq, Event)>, Error> {
        read::shard_events(&self.readers, shard, after, limit).await
    }

    async fn lines(&self, job: JobId, attempt: Option<Attempt>, after: u64, limit: u32) -> Result<Vec<Line>, Error> {
        log::lines(&self.readers, job, attempt, after, limit).await
    }

    async fn chunk_count(&self, job: JobId, attempt: Attempt) -> Result<u32, Error> {
        log::chunk_count(&self.readers, job, attempt).await
    }

    async fn secrets(&self, job: JobId) -> Result<Option<Vec<u8>>, Error> {
        read::secrets(&self.readers, job).await
    }

    async fn ping(&self) -> Result<(), Error> {
        read::ping(&self.readers).await
    }

    async fn close(&self) {
        self.readers.close().await;
        // The last connection to go empties the journal into the database.
        self.writer.close().await;
    }
}

impl From<sqlx::Error> for Error {
    /// What a failure before the commit means: either a repeat may do, or what is stored isn't what it must be.
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
                Self::Unavailable(error.to_string())
            }
            sqlx::Error::Database(refused) if refused.code().is_some_and(|code| passes(&code)) => {
                Self::Unavailable(error.to_string())
            }
            _ => Self::Corrupt(error.to_string()),
        }
    }
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => error.into(),
            other => Self::Corrupt(format!("migrating the database: {other}")),
        }
    }
}

/// Whether SQLite's result code names a trouble that may pass: `BUSY`, `LOCKED`, `NOMEM`, `READONLY`, `INTERRUPT`,
/// `IOERR`, `FULL`, `CANTOPEN` and `PROTOCOL` (<https://www.sqlite.org/rescode.html>).
fn passes(code: &str) -> bool {
    let primary = code.parse::<u32>().map(|code| code & 0xff);
    matches!(primary, Ok(5..=10 | 13..=15))
}

fn connections(most: u32) -> PoolOptions<Sqlite> {
    SqlitePoolOptions::new()
        .max_connections(most)
        .acquire_timeout(TURN_WITHIN)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

async fn transact<T, W>(connection: &mut SqliteConnection, work: W) -> Result<T, Error>
where
    W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Result<T, Error>>,
{
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    match work(&mut transaction).await {
        Ok(done) => match transaction.commit().await {
            Ok(()) => Ok(done),
            Err(error) => Err(Error::Unknown(error.to_string())),
        },
        Err(error) => {
            // There may be nothing left to roll back; why the work failed is the better answer.
            let _ = transaction.rollback().await;
            Err(error)
        }
    }
}
