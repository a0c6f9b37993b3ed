//! What the columns of a row hold, from and to the types of the domain. Everything that can't be read is
//! [`Error::Corrupt`].

use std::fmt::Display;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::query::Query;
use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Row, Sqlite};
use uuid::Uuid;

use shared::id::{Actor, Attempt, CommitId, Fence, JobId, Seq, ShardSeq, Version, WorkerId};
use shared::job::{Event, Job, Offer};
use shared::time::Time;

use crate::store::Error;
use crate::store::keys::blocked_on;

/// A statement with what is bound to it.
pub(super) type Statement = Query<'static, Sqlite, SqliteArguments>;

/// What the columns of a job say that change from one transition to the next, in the order in which both statements
/// that write them expect it: `?1` to `?17`. `fence` stays as it is where none is drawn.
pub(super) fn bind_progress(statement: Statement, job: &Job, fence: Option<Fence>) -> Result<Statement, Error> {
    Ok(statement
        .bind(job.id.uuid())
        .bind(integer(job.version.0)?)
        .bind(integer(job.seq.0)?)
        .bind(job.attempt.0)
        .bind(job.tries)
        .bind(job.state.name().as_str())
        .bind(json(&job.state)?)
        .bind(job.worker.map(|worker| worker.0))
        .bind(job.told.as_ref().map(json).transpose()?)
        .bind(fence.map(|fence| integer(fence.0)).transpose()?)
        .bind(job.commit.as_ref().map(|commit| commit.as_str().to_owned()))
        .bind(job.state.wake_at().map(Time::micros))
        .bind(job.queued_at.map(Time::micros))
        .bind(job.started_at.map(Time::micros))
        .bind(job.finished_at.map(Time::micros))
        .bind(job.given_back.as_ref().map(json).transpose()?)
        .bind(blocked_on(&job.state).map(str::to_owned)))
}

/// What the columns of a job say that never change: `?18` to `?26`.
pub(super) fn bind_origin(statement: Statement, job: &Job) -> Result<Statement, Error> {
    let spec = &job.spec;
    Ok(statement
        .bind(job.id.shard().number())
        .bind(json(&spec.tags)?)
        .bind(spec.priority.name())
        .bind(spec.repository.as_ref().map(|repository| repository.url.clone()))
        .bind(json(&spec.labels)?)
        .bind(job.has_secrets)
        .bind(job.retry_of.map(JobId::uuid))
        .bind(job.created_at.micros())
        .bind(json(&**spec)?))
}

/// The job that a whole row of `jobs` holds.
pub(super) fn job(row: &SqliteRow) -> Result<Job, Error> {
    Ok(Job {
        id: id(row, "id")?,
        spec: Arc::new(parsed(row, "spec")?),
        has_secrets: row.try_get("has_secrets")?,
        retry_of: row.try_get::<Option<Uuid>, _>("retry_of")?.map(JobId::from),
        version: Version(natural(row, "version")?),
        seq: Seq(natural(row, "seq")?),
        attempt: Attempt(row.try_get("attempt")?),
        worker: row.try_get::<Option<Uuid>, _>("worker")?.map(WorkerId),
        told: row.try_get::<Option<&str>, _>("told")?.map(|text| from_json("told", text)).transpose()?,
        tries: row.try_get("tries")?,
        given_back: row
            .try_get::<Option<&str>, _>("given_back")?
            .map(|text| from_json("given_back", text))
            .transpose()?,
        fence: Fence(natural(row, "fence")?),
        commit: row.try_get::<Option<String>, _>("commit_id")?.map(commit_id).transpose()?,
        created_at: time(row, "created_at")?,
        queued_at: row.try_get::<Option<i64>, _>("queued_at")?.map(Time::from_micros),
        started_at: row.try_get::<Option<i64>, _>("started_at")?.map(Time::from_micros),
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(Time::from_micros),
        state: parsed(row, "detail")?,
    })
}

/// The offer of the queued job whose `id`, `attempt`, `tags`, `priority` and `has_secrets` a row holds.
pub(super) fn offer(row: &SqliteRow) -> Result<Offer, Error> {
    let priority: &str = row.try_get("priority")?;
    Ok(Offer {
        job: id(row, "id")?,
        attempt: Attempt(row.try_get("attempt")?).next(),
        tags: parsed(row, "tags")?,
        priority: priority.parse().map_err(|fault| corrupt("priority", fault))?,
        has_secrets: row.try_get("has_secrets")?,
    })
}

/// The event that a whole row of `job_events` holds.
pub(super) fn event(row: &SqliteRow) -> Result<Event, Error> {
    let actor: String = row.try_get("actor")?;
    Ok(Event {
        job: id(row, "job_id")?,
        seq: Seq(natural(row, "seq")?),
        at: time(row, "at")?,
        attempt: Attempt(row.try_get("attempt")?),
        actor: Actor::try_from(actor).map_err(|fault| corrupt("actor", fault))?,
        kind: parsed(row, "data")?,
    })
}

/// The number in its shard of an event whose row it is.
pub(super) fn shard_seq(row: &SqliteRow) -> Result<ShardSeq, Error> {
    natural(row, "shard_seq").map(ShardSeq)
}

pub(super) fn id(row: &SqliteRow, column: &str) -> Result<JobId, Error> {
    Ok(row.try_get::<Uuid, _>(column)?.into())
}

pub(super) fn time(row: &SqliteRow, column: &str) -> Result<Time, Error> {
    Ok(Time::from_micros(row.try_get(column)?))
}

/// A number that is never negative.
pub(super) fn natural(row: &SqliteRow, column: &str) -> Result<u64, Error> {
    u64::try_from(row.try_get::<i64, _>(column)?).map_err(|fault| corrupt(column, fault))
}

/// What a column's JSON says.
pub(super) fn parsed<T: DeserializeOwned>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    from_json(column, row.try_get(column)?)
}

/// The 32 bytes of a column.
pub(super) fn digest(row: &SqliteRow, column: &str) -> Result<[u8; 32], Error> {
    let bytes: &[u8] = row.try_get(column)?;
    bytes.try_into().map_err(|_| Error::Corrupt(format!("{column}: not 32 bytes")))
}

/// A number as SQLite keeps it, in 63 bits.
pub(super) fn integer(number: u64) -> Result<i64, Error> {
    i64::try_from(number).map_err(|fault| corrupt("a number", fault))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|fault| corrupt("a value", fault))
}

fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, Error> {
    serde_json::from_str(text).map_err(|fault| corrupt(column, fault))
}

fn commit_id(text: String) -> Result<CommitId, Error> {
    text.try_into().map_err(|fault| corrupt("commit_id", fault))
}

pub(super) fn corrupt(what: &str, fault: impl Display) -> Error {
    Error::Corrupt(format!("{what}: {fault}"))
}
