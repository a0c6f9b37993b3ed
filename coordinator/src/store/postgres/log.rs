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
/// `owner`'s.
pub(super) async fn append(
    pool: PgPool,
    owner: CoordinatorId,
    worker: WorkerId,
    chunks: Arc<Vec<Chunk>>,
    now: Time,
) -> Result<Vec<LogAnswer>, Fault> {
    let c = Columns::of(&chunks)?;
    let mut session = Session::of(&pool).await?;
    let stored = sqlx::query_file!(
        "src/store/postgres/append_log.sql",
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
