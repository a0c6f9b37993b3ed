//! What attempts put out: chunks as they came in, lines as a reader wants them.

use futures_util::TryStreamExt;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use shared::id::{Attempt, JobId, WorkerId};
use shared::log::{Chunk, Line};
use shared::time::Time;
use shared::wire::LogAnswer;

use super::row;
use crate::store::Error;
use crate::store::log_bounds::{LATE_WITHIN, LINES_BYTES, LINES_IN_ANY_CASE, STORED_BYTES_MAX, is_sound, place_of};

/// Stores each chunk whose attempt is `worker`'s.
pub(super) async fn append(
    connection: &mut SqliteConnection,
    worker: WorkerId,
    chunks: Vec<Chunk>,
    now: Time,
) -> Result<Vec<LogAnswer>, Error> {
    let mut answers = Vec::with_capacity(chunks.len());
    for chunk in &chunks {
        let taken = is_sound(chunk) && holds(connection, worker, chunk, now).await? && store(connection, chunk).await?;
        answers.push(if taken { LogAnswer::Stored } else { LogAnswer::Refused });
    }
    Ok(answers)
}

/// The lines after `after`, a chunk at a time until there are enough.
pub(super) async fn lines(
    readers: &SqlitePool,
    job: JobId,
    attempt: Option<Attempt>,
    after: u64,
    limit: u32,
) -> Result<Vec<Line>, Error> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let from = place_of(after);
    let first = attempt.map_or(from, |only| from.max((u64::from(only.0), 0)));
    let chunks = "SELECT * FROM log_chunks WHERE job_id = ?1 AND (attempt, last_line) > (?2, ?3) AND attempt <= ?4 \
         ORDER BY attempt, last_line, number";
    let mut rows = sqlx::query(chunks)
        .bind(job.uuid())
        .bind(row::integer(first.0)?)
        .bind(row::integer(first.1)?)
        .bind(attempt.map_or(u32::MAX, |only| only.0))
        .fetch(readers);
    let (mut lines, mut bytes) = (Vec::new(), 0);
    while lines.len() < limit
        && (lines.len() < LINES_IN_ANY_CASE || bytes < LINES_BYTES)
        && let Some(row) = rows.try_next().await?
    {
        let room = limit - lines.len();
        for line in chunk(&row)?.lines_after(after).take(room) {
            bytes += line.text.len() + 1;
            lines.push(line);
        }
    }
    Ok(lines)
}

pub(super) async fn chunk_count(readers: &SqlitePool, job: JobId, attempt: Attempt) -> Result<u32, Error> {
    let query = sqlx::query("SELECT chunks FROM log_totals WHERE job_id = ?1 AND attempt = ?2");
    let row = query.bind(job.uuid()).bind(attempt.0).fetch_optional(readers).await?;
    Ok(row.map(|row| row.try_get("chunks")).transpose()?.unwrap_or(0))
}

/// Whether the chunk's attempt is the job's last one, is `worker`'s, and runs or ended lately. An attempt that was
/// followed by a wait has ended with the job's last event at the latest.
async fn holds(connection: &mut SqliteConnection, worker: WorkerId, chunk: &Chunk, now: Time) -> Result<bool, Error> {
    let holder = "SELECT worker, attempt, state IN ('assigned', 'running', 'canceling') AS live, \
         coalesce(finished_at, (SELECT at FROM job_events e WHERE e.job_id = jobs.id AND e.seq = jobs.seq)) AS ended \
         FROM jobs WHERE id = ?1";
    let Some(row) = sqlx::query(holder).bind(chunk.job.uuid()).fetch_optional(connection).await? else {
        return Ok(false);
    };
    let named = row.try_get::<Option<Uuid>, _>("worker")? == Some(worker.0)
        && row.try_get::<u32, _>("attempt")? == chunk.attempt.0;
    Ok(named && (row.try_get("live")? || now <= row::time(&row, "ended")?.plus(LATE_WITHIN)))
}

/// Stores a chunk once. Refused only where the attempt has no room left for it.
async fn store(connection: &mut SqliteConnection, chunk: &Chunk) -> Result<bool, Error> {
    let (job, attempt) = (chunk.job.uuid(), chunk.attempt.0);
    let known = sqlx::query("SELECT 1 FROM log_chunks WHERE job_id = ?1 AND attempt = ?2 AND number = ?3")
        .bind(job)
        .bind(attempt)
        .bind(chunk.number)
        .fetch_optional(&mut *connection);
    if known.await?.is_some() {
        return Ok(true);
    }
    let count = "INSERT INTO log_totals (job_id, attempt, chunks, bytes) SELECT ?1, ?2, 1, ?3 WHERE ?3 <= ?4 \
         ON CONFLICT (job_id, attempt) DO UPDATE SET chunks = chunks + 1, bytes = bytes + excluded.bytes \
         WHERE bytes + excluded.bytes <= ?4";
    let counted = sqlx::query(count)
        .bind(job)
        .bind(attempt)
        .bind(row::integer(chunk.bytes())?)
        .bind(row::integer(STORED_BYTES_MAX)?)
        .execute(&mut *connection);
    if counted.await?.rows_affected() == 0 {
        return Ok(false);
    }
    let insert = "INSERT INTO log_chunks (job_id, attempt, number, first_line, last_line, segments) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    sqlx::query(insert)
        .bind(job)
        .bind(attempt)
        .bind(chunk.number)
        .bind(row::integer(chunk.first_line)?)
        .bind(row::integer(chunk.first_line + chunk.lines() - 1)?)
        .bind(row::json(&chunk.segments)?)
        .execute(connection)
        .await?;
    Ok(true)
}

fn chunk(row: &SqliteRow) -> Result<Chunk, Error> {
    Ok(Chunk {
        job: row::id(row, "job_id")?,
        attempt: Attempt(row.try_get("attempt")?),
        number: row.try_get("number")?,
        first_line: row::natural(row, "first_line")?,
        segments: row::parsed(row, "segments")?,
    })
}
