//! What attempts put out: chunks as they came in, lines as a reader wants them.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::postgres::PgPool;
use uuid::Uuid;

use shared::id::{Attempt, CoordinatorId, JobId, WorkerId};
use shared::log::{Chunk, Line};
use shared::time::Time;
use shared::wire::LogAnswer;

use super::fault::Fault;
use super::row::{self, Moment};
use super::session::Session;
use crate::store::Error;
use crate::store::log_bounds::{LATE_WITHIN, LINES_BYTES, LINES_IN_ANY_CASE, STORED_BYTES_MAX, is_sound, place_of};

/// How many chunks are read at a time: at most half a megabyte of text.
const CHUNKS_PER_PAGE: i64 = 8;

/// The chunks that a statement is given; the number of one is its place, from 1.
#[derive(Default)]
struct Columns {
    nr: Vec<i64>,
    job: Vec<Uuid>,
    attempt: Vec<i64>,
    number: Vec<i64>,
    first_line: Vec<i64>,
    last_line: Vec<i64>,
    bytes: Vec<i64>,
    segments: Vec<String>,
}

impl Columns {
    fn of(chunks: &[Chunk]) -> Result<Self, Error> {
        let mut columns = Self::default();
        for (chunk, nr) in chunks.iter().zip(1..).filter(|(chunk, _)| is_sound(chunk)) {
            columns.nr.push(nr);
            columns.job.push(chunk.job.uuid());
            columns.attempt.push(chunk.attempt.0.into());
            columns.number.push(chunk.number.into());
            columns.first_line.push(row::integer(chunk.first_line)?);
            columns.last_line.push(row::integer(chunk.first_line + chunk.lines() - 1)?);
            columns.bytes.push(row::integer(chunk.bytes())?);
            columns.segments.push(row::json(&chunk.segments)?);
        }
        Ok(columns)
    }
}

/// Stores each chunk whose attempt is the job's last one, is `worker`'s, and runs or ended lately, of jobs whose shard is
/// `owner`'s. An attempt that was followed by a wait has ended with the job's last event at the latest.
pub(super) async fn append(
    pool: PgPool,
    owner: CoordinatorId,
    worker: WorkerId,
    chunks: Arc<Vec<Chunk>>,
    now: Time,
) -> Result<Vec<LogAnswer>, Fault> {
    let c = Columns::of(&chunks)?;
    let mut session = Session::of(&pool).await?;
    let stored = sqlx::query!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        held AS MATERIALIZED (
            SELECT c.*, EXISTS (
                SELECT FROM log_chunks k WHERE k.job_id = c.job_id AND k.attempt = c.attempt AND k.number = c.number
            ) AS known
            FROM me, unnest(
                $4::bigint[], $5::uuid[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[],
                $11::text[]
            ) AS c (nr, job_id, attempt, number, first_line, last_line, bytes, segments)
            JOIN jobs j ON j.id = c.job_id AND j.attempt = c.attempt AND j.worker = $2
            JOIN shards s ON s.shard = j.shard AND s.owner = $1
            WHERE j.phase = 'live' OR $3 <= coalesce(
                j.finished_at, (SELECT e.at FROM job_events e WHERE e.job_id = j.id AND e.seq = j.seq)
            )
        ),
        -- What is new and what the attempt would come to with it; of a repeat within the statement the first counts.
        counted AS MATERIALIZED (
            SELECT h.*, coalesce(t.bytes, 0)
                + sum(h.bytes) OVER (PARTITION BY h.job_id, h.attempt ORDER BY h.nr)::bigint AS total
            FROM (
                SELECT DISTINCT ON (job_id, attempt, number) * FROM held WHERE NOT known
                ORDER BY job_id, attempt, number, nr
            ) h
            LEFT JOIN log_totals t ON t.job_id = h.job_id AND t.attempt = h.attempt
        ),
        -- Another statement may be storing the same ones at this moment.
        stored AS (
            INSERT INTO log_chunks (job_id, attempt, number, first_line, last_line, segments)
            SELECT job_id, attempt, number, first_line, last_line, segments FROM counted WHERE total <= $12
            ORDER BY job_id, attempt, number
            ON CONFLICT DO NOTHING
            RETURNING job_id, attempt, number
        ),
        totals AS (
            INSERT INTO log_totals AS t (job_id, attempt, chunks, bytes)
            SELECT s.job_id, s.attempt, count(*), sum(c.bytes)
            FROM stored s JOIN counted c ON (c.job_id, c.attempt, c.number) = (s.job_id, s.attempt, s.number)
            GROUP BY s.job_id, s.attempt ORDER BY s.job_id, s.attempt
            ON CONFLICT (job_id, attempt) DO UPDATE
                SET chunks = t.chunks + excluded.chunks, bytes = t.bytes + excluded.bytes
        )
        SELECT taken.nr AS "nr?" FROM me LEFT JOIN (
            SELECT h.nr FROM held h LEFT JOIN counted c
                ON (c.job_id, c.attempt, c.number) = (h.job_id, h.attempt, h.number)
            WHERE h.known OR c.total <= $12
        ) taken ON true
        "#,
        owner.0,
        worker.0,
        // Where it ended before that, it ended too long ago.
        Moment(now.minus(LATE_WITHIN)) as _,
        &c.nr,
        &c.job,
        &c.attempt,
        &c.number,
        &c.first_line,
        &c.last_line,
        &c.bytes,
        &c.segments,
        row::integer(STORED_BYTES_MAX)?,
    );
    let stored = stored.fetch_all(&mut *session).await;
    let stored = session.wrote(stored)?;
    if stored.is_empty() {
        return Err(Error::Fenced.into());
    }
    let stored: HashSet<i64> = stored.into_iter().filter_map(|row| row.nr).collect();
    let answer = |nr: i64| if stored.contains(&nr) { LogAnswer::Stored } else { LogAnswer::Refused };
    Ok((1..).take(chunks.len()).map(answer).collect())
}

/// The lines after `after`, a page of chunks at a time until there are enough.
pub(super) async fn lines(
    pool: PgPool,
    job: JobId,
    attempt: Option<Attempt>,
    after: u64,
    limit: u32,
) -> Result<Vec<Line>, Fault> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let from = place_of(after);
    let from = attempt.map_or(from, |only| from.max((u64::from(only.0), 0)));
    let last_attempt = attempt.map_or(i64::MAX, |only| only.0.into());
    // After the last chunk that has been read: its attempt, its last line and its number.
    let mut place = (row::integer(from.0)?, row::integer(from.1)?, i64::MAX);
    let (mut lines, mut bytes) = (Vec::new(), 0);
    let mut session = Session::of(&pool).await?;
    loop {
        let page = sqlx::query!(
            r#"
            SELECT attempt, number, first_line, last_line, segments FROM log_chunks
            WHERE job_id = $1 AND (attempt, last_line, number) > ($2, $3, $4) AND attempt <= $5
            ORDER BY attempt, last_line, number LIMIT $6
            "#,
            job.uuid(),
            place.0,
            place.1,
            place.2,
            last_attempt,
            CHUNKS_PER_PAGE,
        );
        let page = page.fetch_all(&mut *session).await;
        let page = session.read(page)?;
        let is_last = page.is_empty();
        for row in page {
            let chunk = Chunk {
                job,
                attempt: Attempt(row::natural("attempt", row.attempt)?),
                number: row::natural("number", row.number)?,
                first_line: row::natural("first_line", row.first_line)?,
                segments: row::parsed("segments", &row.segments)?,
            };
            let room = limit - lines.len();
            for line in chunk.lines_after(after).take(room) {
                bytes += line.text.len() + 1;
                lines.push(line);
            }
            place = (row.attempt, row.last_line, row.number);
            if lines.len() >= limit || (lines.len() >= LINES_IN_ANY_CASE && bytes >= LINES_BYTES) {
                return Ok(lines);
            }
        }
        if is_last {
            return Ok(lines);
        }
    }
}

pub(super) async fn chunk_count(pool: PgPool, job: JobId, attempt: Attempt) -> Result<u32, Fault> {
    let mut session = Session::of(&pool).await?;
    let count = sqlx::query_scalar!(
        "SELECT chunks FROM log_totals WHERE job_id = $1 AND attempt = $2",
        job.uuid(),
        i64::from(attempt.0),
    );
    let count = count.fetch_optional(&mut *session).await;
    Ok(row::natural("chunks", session.read(count)?.unwrap_or(0))?)
}
