//! How what is old goes. Rows that somebody else has locked are passed over: they are found again.

use sqlx::postgres::PgPool;
use uuid::Uuid;

use shared::id::{CoordinatorId, JobId, Shard};
use shared::time::Time;

use super::fault::Fault;
use super::row::{self, Moment};
use super::session::Session;
use crate::store::retention::first_id_at;
use crate::store::{EndedJob, Error, RemovedExpired, RemovedJobs};

/// Each way to end is gone through by itself, as `read` says of phases, and no further than to the ids of jobs that are too
/// young to have ended before `before`.
pub(super) async fn ended_jobs(
    pool: PgPool,
    shards: Vec<Shard>,
    before: Time,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<EndedJob>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query!(
        r#"
        SELECT ended.id AS "id!", ended.seq AS "seq!"
        FROM unnest('{canceled,failed,succeeded}'::text[]) AS p (phase) CROSS JOIN LATERAL (
            SELECT id, seq FROM jobs
            WHERE (jobs.phase, id) > (p.phase, $1) AND (jobs.phase, id) < (p.phase, $2)
                AND coalesce(finished_at < $3 AND shard = ANY ($4), false)
            ORDER BY jobs.phase, id LIMIT $5
        ) ended ORDER BY ended.id LIMIT $5
        "#,
        after.map_or(Uuid::nil(), JobId::uuid),
        first_id_at(before).uuid(),
        Moment(before) as _,
        &row::smalls(&shards),
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    let rows = session.read(rows)?.into_iter();
    Ok(rows
        .map(|row| Ok(EndedJob { id: row.id.into(), events: row::natural("seq", row.seq)? }))
        .collect::<Result<_, Error>>()?)
}

pub(super) async fn remove_jobs(
    pool: PgPool,
    owner: CoordinatorId,
    jobs: Vec<JobId>,
    before: Time,
    chunks_max: u32,
) -> Result<RemovedJobs, Fault> {
    let jobs: Vec<Uuid> = jobs.into_iter().map(JobId::uuid).collect();
    let mut session = Session::of(&pool).await?;
    let chunks = remove_chunks(&mut session, owner, &jobs, before, chunks_max).await?;
    if chunks == chunks_max {
        return Ok(RemovedJobs { jobs: 0, chunks, more: true });
    }
    session.begin().await?;
    match remove_whole(&mut session, owner, &jobs, before).await {
        Ok(jobs) => {
            session.commit().await?;
            Ok(RemovedJobs { jobs, chunks, more: false })
        }
        Err(fault) => {
            session.roll_back().await;
            Err(fault)
        }
    }
}

async fn remove_chunks(
    session: &mut Session,
    owner: CoordinatorId,
    jobs: &[Uuid],
    before: Time,
    chunks_max: u32,
) -> Result<u32, Fault> {
    let removed = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        going AS MATERIALIZED (
            SELECT j.id FROM me, jobs j JOIN shards s ON s.shard = j.shard
            WHERE j.id = ANY ($2) AND s.owner = me.id AND j.finished_at < $3
                AND NOT EXISTS (SELECT FROM job_events e WHERE e.job_id = j.id AND e.shard_seq > s.published_seq)
        ),
        oldest AS MATERIALIZED (
            SELECT c.job_id, c.attempt, c.number FROM going g JOIN log_chunks c ON c.job_id = g.id
            ORDER BY c.job_id, c.attempt, c.number LIMIT $4
        ),
        removed AS (
            DELETE FROM log_chunks c USING oldest o
            WHERE c.job_id = o.job_id AND c.attempt = o.attempt AND c.number = o.number
            RETURNING c.number
        )
        SELECT (SELECT count(*) FROM removed) AS "chunks!" FROM me
        "#,
        owner.0,
        jobs,
        Moment(before) as _,
        i64::from(chunks_max),
    );
    let removed = removed.fetch_optional(&mut **session).await;
    let chunks = session.wrote(removed)?.ok_or(Error::Fenced)?;
    Ok(row::natural("chunks", chunks)?)
}

/// Locks the jobs first: from then on nothing is committed about them, and the last statement, with a snapshot of its own, sees
/// all that was.
async fn remove_whole(session: &mut Session, owner: CoordinatorId, jobs: &[Uuid], before: Time) -> Result<u32, Fault> {
    let me = sqlx::query_scalar!("SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE", owner.0);
    let me = me.fetch_optional(&mut **session).await;
    session.read(me)?.ok_or(Error::Fenced)?;
    let locked = sqlx::query_scalar!(
        r#"
        SELECT j.id FROM jobs j JOIN shards s ON s.shard = j.shard
        WHERE j.id = ANY ($2) AND s.owner = $1 AND j.finished_at < $3
        ORDER BY j.id FOR UPDATE OF j SKIP LOCKED
        "#,
        owner.0,
        jobs,
        Moment(before) as _,
    );
    let locked = locked.fetch_all(&mut **session).await;
    let locked = session.read(locked)?;
    let removed = sqlx::query_scalar!(
        r#"
        WITH gone AS MATERIALIZED (
            SELECT j.id FROM jobs j JOIN shards s ON s.shard = j.shard
            WHERE j.id = ANY ($1)
                AND NOT EXISTS (SELECT FROM job_events e WHERE e.job_id = j.id AND e.shard_seq > s.published_seq)
                AND NOT EXISTS (SELECT FROM log_chunks c WHERE c.job_id = j.id)
        ),
        of_events AS (DELETE FROM job_events e USING gone WHERE e.job_id = gone.id),
        of_totals AS (DELETE FROM log_totals t USING gone WHERE t.job_id = gone.id),
        of_secrets AS (DELETE FROM secrets s USING gone WHERE s.job_id = gone.id),
        of_jobs AS (DELETE FROM jobs j USING gone WHERE j.id = gone.id RETURNING j.id)
        SELECT count(*) AS "jobs!" FROM of_jobs
        "#,
        &locked,
    );
    let removed = removed.fetch_one(&mut **session).await;
    Ok(row::natural("jobs", session.read(removed)?)?)
}

pub(super) async fn remove_expired(
    pool: PgPool,
    owner: CoordinatorId,
    before: Time,
    limit: u32,
) -> Result<RemovedExpired, Fault> {
    let mut session = Session::of(&pool).await?;
    let removed = sqlx::query!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        old_keys AS MATERIALIZED (
            SELECT k.owner, k.key FROM me, idempotency_keys k WHERE k.expires_at < $2
            ORDER BY k.expires_at LIMIT $3 FOR UPDATE OF k SKIP LOCKED
        ),
        old_tokens AS MATERIALIZED (
            SELECT t.id FROM me, tokens t WHERE t.expires_at < $2 ORDER BY t.id LIMIT $3 FOR UPDATE OF t SKIP LOCKED
        ),
        of_keys AS (
            DELETE FROM idempotency_keys k USING old_keys o WHERE k.owner = o.owner AND k.key = o.key RETURNING k.key
        ),
        of_tokens AS (DELETE FROM tokens t USING old_tokens o WHERE t.id = o.id RETURNING t.id)
        SELECT (SELECT count(*) FROM of_keys) AS "keys!", (SELECT count(*) FROM of_tokens) AS "tokens!" FROM me
        "#,
        owner.0,
        Moment(before) as _,
        i64::from(limit),
    );
    let removed = removed.fetch_optional(&mut *session).await;
    let removed = session.wrote(removed)?.ok_or(Error::Fenced)?;
    Ok(RemovedExpired { keys: row::natural("keys", removed.keys)?, tokens: row::natural("tokens", removed.tokens)? })
}
