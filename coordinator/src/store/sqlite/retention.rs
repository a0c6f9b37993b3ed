//! How what is old goes.

use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePool;

use shared::id::{CoordinatorId, JobId, Shard};
use shared::time::Time;

use super::row;
use crate::store::retention::first_id_at;
use crate::store::{EndedJob, Error, RemovedExpired, RemovedJobs};

/// Those of the jobs `?1` that may go: ended before `?2`, owned by `?3`, every event published.
const GOING: &str = "SELECT j.id FROM jobs j JOIN shards s ON s.shard = j.shard \
     WHERE j.id IN (SELECT unhex(value) FROM json_each(?1)) AND j.finished_at < ?2 AND s.owner = ?3 \
     AND NOT EXISTS (SELECT 1 FROM job_events e WHERE e.job_id = j.id AND e.shard_seq > s.published_seq)";

pub(super) async fn ended_jobs(
    readers: &SqlitePool,
    shards: &[Shard],
    before: Time,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<EndedJob>, Error> {
    let ended = "SELECT id, seq FROM jobs WHERE state IN ('succeeded', 'failed', 'canceled') AND id > coalesce(?1, x'') \
         AND id < ?2 AND finished_at < ?3 AND shard IN (SELECT value FROM json_each(?4)) ORDER BY id LIMIT ?5";
    let rows = sqlx::query(ended)
        .bind(after.map(JobId::uuid))
        .bind(first_id_at(before).uuid())
        .bind(before.micros())
        .bind(row::json(&shards.iter().map(|shard| shard.number()).collect::<Vec<_>>())?)
        .bind(limit)
        .fetch_all(readers)
        .await?;
    rows.iter().map(|row| Ok(EndedJob { id: row::id(row, "id")?, events: row::natural(row, "seq")? })).collect()
}

pub(super) async fn remove_jobs(
    connection: &mut SqliteConnection,
    owner: CoordinatorId,
    jobs: Vec<JobId>,
    before: Time,
    chunks_max: u32,
) -> Result<RemovedJobs, Error> {
    let jobs = row::json(&jobs.iter().map(|job| job.uuid().simple().to_string()).collect::<Vec<_>>())?;
    let chunks = format!(
        "DELETE FROM log_chunks WHERE (job_id, attempt, number) IN (SELECT job_id, attempt, number FROM log_chunks \
         WHERE job_id IN ({GOING}) ORDER BY job_id, attempt, number LIMIT ?4)"
    );
    let chunks =
        sqlx::query(sqlx::AssertSqlSafe(chunks)).bind(&jobs).bind(before.micros()).bind(owner.0).bind(chunks_max);
    let chunks = count(chunks.execute(&mut *connection).await?.rows_affected());
    if chunks == chunks_max {
        return Ok(RemovedJobs { jobs: 0, chunks, more: true });
    }
    let removals = format!("INSERT INTO removals (job_id) {GOING}");
    let removals = sqlx::query(sqlx::AssertSqlSafe(removals)).bind(&jobs).bind(before.micros()).bind(owner.0);
    removals.execute(&mut *connection).await?;
    for table in [
        "DELETE FROM job_events WHERE job_id IN (SELECT job_id FROM removals)",
        "DELETE FROM log_totals WHERE job_id IN (SELECT job_id FROM removals)",
        "DELETE FROM secrets WHERE job_id IN (SELECT job_id FROM removals)",
        // Expired long since: none stands for its job as long as that is kept.
        "DELETE FROM idempotency_keys WHERE job_id IN (SELECT job_id FROM removals)",
    ] {
        sqlx::query(table).execute(&mut *connection).await?;
    }
    let gone = sqlx::query("DELETE FROM jobs WHERE id IN (SELECT job_id FROM removals)").execute(connection).await?;
    Ok(RemovedJobs { jobs: count(gone.rows_affected()), chunks, more: false })
}

pub(super) async fn remove_expired(
    connection: &mut SqliteConnection,
    before: Time,
    limit: u32,
) -> Result<RemovedExpired, Error> {
    let keys = "DELETE FROM idempotency_keys WHERE (owner, key) IN \
         (SELECT owner, key FROM idempotency_keys WHERE expires_at < ?1 ORDER BY expires_at LIMIT ?2)";
    let keys = sqlx::query(keys).bind(before.micros()).bind(limit).execute(&mut *connection).await?;
    let tokens = "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires_at < ?1 ORDER BY id LIMIT ?2)";
    let tokens = sqlx::query(tokens).bind(before.micros()).bind(limit).execute(&mut *connection).await?;
    Ok(RemovedExpired { keys: count(keys.rows_affected()), tokens: count(tokens.rows_affected()) })
}

fn count(rows: u64) -> u32 {
    u32::try_from(rows).unwrap_or(u32::MAX)
}
