//! Questions about jobs and events. Nothing here changes anything: its connections refuse to.

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{QueryBuilder, Row, Sqlite};

use shared::id::{JobId, Seq, Shard, ShardSeq};
use shared::job::{Event, Job, Offer};
use shared::spec::Priority;
use shared::time::Time;

use super::row;
use crate::store::{AHEAD_LOOKED_MAX, Ahead, Error, Filter, LiveJobs, readable};

pub(super) async fn job(readers: &SqlitePool, id: JobId) -> Result<Option<Job>, Error> {
    let row = sqlx::query("SELECT * FROM jobs WHERE id = ?1").bind(id.uuid()).fetch_optional(readers).await?;
    row.as_ref().map(row::job).transpose()
}

pub(super) async fn jobs(
    readers: &SqlitePool,
    filter: &Filter,
    before: Option<JobId>,
    limit: u32,
) -> Result<Vec<Job>, Error> {
    let mut query = QueryBuilder::new("SELECT * FROM jobs WHERE true");
    if let Some(before) = before {
        query.push(" AND id < ").push_bind(before.uuid());
    }
    narrow(&mut query, filter);
    query.push(" ORDER BY id DESC LIMIT ").push_bind(limit);
    let rows = query.build().fetch(readers).map_err(Error::from);
    rows.and_then(|row| async move { row::job(&row) }).try_collect().await
}

pub(super) async fn open_jobs(
    readers: &SqlitePool,
    filter: &Filter,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobId>, Error> {
    let mut query = QueryBuilder::new("SELECT id FROM jobs WHERE finished_at IS NULL");
    if let Some(after) = after {
        query.push(" AND id > ").push_bind(after.uuid());
    }
    narrow(&mut query, filter);
    query.push(" ORDER BY id LIMIT ").push_bind(limit);
    let rows = query.build().fetch_all(readers).await?;
    rows.iter().map(|row| row::id(row, "id")).collect()
}

pub(super) async fn live_jobs(
    readers: &SqlitePool,
    shards: &[Shard],
    after: Option<JobId>,
    limit: u32,
) -> Result<LiveJobs, Error> {
    let live = "SELECT * FROM jobs WHERE state IN ('assigned', 'running', 'canceling') AND id > coalesce(?1, x'') \
         AND shard IN (SELECT value FROM json_each(?2)) ORDER BY id LIMIT ?3";
    let rows =
        sqlx::query(live).bind(after.map(JobId::uuid)).bind(list(shards)?).bind(limit).fetch_all(readers).await?;
    let full = rows.len() == limit as usize;
    let next = rows.last().filter(|_| full).map(|row| row::id(row, "id")).transpose()?;
    Ok(LiveJobs { jobs: rows.iter().filter_map(|row| readable(row::job(row))).collect(), next })
}

pub(super) async fn offers(
    readers: &SqlitePool,
    shards: &[Shard],
    before: Time,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<Offer>, Error> {
    let offers = "SELECT id, attempt, tags, priority, has_secrets FROM jobs WHERE state = 'queued' AND id > coalesce(?1, x'') \
         AND queued_at < ?4 AND shard IN (SELECT value FROM json_each(?2)) ORDER BY id LIMIT ?3";
    let rows = sqlx::query(offers)
        .bind(after.map(JobId::uuid))
        .bind(list(shards)?)
        .bind(limit)
        .bind(before.micros())
        .fetch_all(readers)
        .await?;
    rows.iter().map(row::offer).collect()
}

/// One pass over the queued jobs, as far as it may go, since no index has them by their tags.
pub(super) async fn ahead(readers: &SqlitePool, offer: &Offer, since: Time) -> Result<Ahead, Error> {
    let higher: Vec<&str> =
        Priority::ALL.into_iter().take_while(|above| *above != offer.priority).map(Priority::name).collect();
    let ahead = "SELECT count(*) AS looked, count(*) FILTER (WHERE tags = ?1 AND (priority IN (SELECT value FROM json_each(?2)) \
         OR (priority = ?3 AND (queued_at, id) < (?4, ?5)))) AS found \
         FROM (SELECT id, tags, priority, queued_at FROM jobs WHERE state = 'queued' ORDER BY id LIMIT ?6)";
    let row = sqlx::query(ahead)
        .bind(row::json(&offer.tags)?)
        .bind(row::json(&higher)?)
        .bind(offer.priority.name())
        .bind(since.micros())
        .bind(offer.job.uuid())
        .bind(AHEAD_LOOKED_MAX)
        .fetch_one(readers)
        .await?;
    Ok(Ahead::found(row::natural(&row, "found")?, row::natural(&row, "looked")?))
}

pub(super) async fn due(
    readers: &SqlitePool,
    shards: &[Shard],
    before: Time,
    limit: u32,
) -> Result<Vec<(JobId, Time)>, Error> {
    let due = "SELECT id, wake_at FROM jobs WHERE wake_at IS NOT NULL AND wake_at < ?1 \
         AND shard IN (SELECT value FROM json_each(?2)) ORDER BY wake_at, id LIMIT ?3";
    let rows = sqlx::query(due).bind(before.micros()).bind(list(shards)?).bind(limit).fetch_all(readers).await?;
    rows.iter().map(|row| Ok((row::id(row, "id")?, row::time(row, "wake_at")?))).collect()
}

pub(super) async fn events(readers: &SqlitePool, job: JobId, after: Seq, limit: u32) -> Result<Vec<Event>, Error> {
    let events = "SELECT * FROM job_events WHERE job_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3";
    let query = sqlx::query(events).bind(job.uuid()).bind(row::integer(after.0)?).bind(limit);
    query.fetch_all(readers).await?.iter().map(row::event).collect()
}

pub(super) async fn shard_events(
    readers: &SqlitePool,
    shard: Shard,
    after: ShardSeq,
    limit: u32,
) -> Result<Vec<(ShardSeq, Event)>, Error> {
    let events = "SELECT * FROM job_events WHERE shard = ?1 AND shard_seq > ?2 ORDER BY shard_seq LIMIT ?3";
    let query = sqlx::query(events).bind(shard.number()).bind(row::integer(after.0)?).bind(limit);
    let numbered = |row: &SqliteRow| Ok((row::shard_seq(row)?, row::event(row)?));
    query.fetch_all(readers).await?.iter().map(numbered).collect()
}

pub(super) async fn secrets(readers: &SqlitePool, job: JobId) -> Result<Option<Vec<u8>>, Error> {
    let query = sqlx::query("SELECT value FROM secrets WHERE job_id = ?1").bind(job.uuid());
    Ok(query.fetch_optional(readers).await?.map(|row| row.try_get("value")).transpose()?)
}

pub(super) async fn ping(readers: &SqlitePool) -> Result<(), Error> {
    sqlx::query("SELECT last FROM fences").fetch_one(readers).await?;
    Ok(())
}

/// Adds the conditions of `filter` to a query over `jobs`. Text is looked for before JSON is read, since that is less work.
fn narrow(query: &mut QueryBuilder<Sqlite>, filter: &Filter) {
    let written = filter.written();
    if let Some(tag) = written.tag {
        query.push(" AND instr(tags, ").push_bind(tag).push(") > 0");
    }
    if let Some(label) = written.label {
        query.push(" AND instr(labels, ").push_bind(label).push(") > 0");
    }
    if let Some(state) = filter.state {
        query.push(" AND state = ").push_bind(state.as_str());
    }
    if let Some(repository) = &filter.repository {
        query.push(" AND repository = ").push_bind(repository.clone());
    }
    if let Some(tag) = &filter.tag {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(jobs.tags) WHERE value = ").push_bind(tag.clone()).push(")");
    }
    if let Some((key, value)) = &filter.label {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(jobs.labels) WHERE key = ").push_bind(key.clone());
        if let Some(value) = value {
            query.push(" AND value = ").push_bind(value.clone());
        }
        query.push(")");
    }
}

fn list(shards: &[Shard]) -> Result<String, Error> {
    row::json(&shards)
}
