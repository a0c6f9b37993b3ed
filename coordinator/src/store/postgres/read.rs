//! Questions about jobs and events. Nothing here changes anything.
//!
//! Who goes through a phase page by page asks for a range of `jobs_by_phase` in that index's own order, and not for the phase
//! and the order of the ids: the primary key has that order too, and going through it reads every job of every other phase.
//! All other conditions are written (`coalesce`) so that the planner can't tell how much they let through, and leaves the order
//! to the index: what it takes for rare it looks for in the whole table.

use sqlx::postgres::PgPool;
use uuid::Uuid;

use shared::id::{JobId, Seq, Shard, ShardSeq};
use shared::job::{Event, Job, Offer, StateName};
use shared::spec::Priority;
use shared::time::Time;

use super::fault::Fault;
use super::row::{self, EventRow, JobRow, Moment, OfferRow};
use super::session::Session;
use crate::store::{AHEAD_LOOKED_MAX, Ahead, Error, Filter, LiveJobs, readable};

pub(super) async fn job(pool: PgPool, id: JobId) -> Result<Option<Job>, Fault> {
    let mut session = Session::of(&pool).await?;
    let row = sqlx::query_as!(
        JobRow,
        r#"
        SELECT id, version, seq, attempt, tries, detail, has_secrets, retry_of, worker, told, given_back, fence,
            commit_id, created_at AS "created_at: Moment", queued_at AS "queued_at: Moment",
            started_at AS "started_at: Moment", finished_at AS "finished_at: Moment", spec
        FROM jobs WHERE id = $1
        "#,
        id.uuid(),
    );
    let row = row.fetch_optional(&mut *session).await;
    Ok(session.read(row)?.map(JobRow::job).transpose()?)
}

/// A state's phase is in the index; where a list wants no state, it goes through the ids.
pub(super) async fn jobs(pool: PgPool, filter: Filter, before: Option<JobId>, limit: u32) -> Result<Vec<Job>, Fault> {
    let mut session = Session::of(&pool).await?;
    let written = filter.written();
    let label = filter.label.unzip();
    let rows = sqlx::query_as!(
        JobRow,
        r#"
        SELECT id, version, seq, attempt, tries, detail, has_secrets, retry_of, worker, told, given_back, fence,
            commit_id, created_at AS "created_at: Moment", queued_at AS "queued_at: Moment",
            started_at AS "started_at: Moment", finished_at AS "finished_at: Moment", spec
        FROM jobs
        WHERE ($1::uuid IS NULL OR id < $1)
            AND ($2::text IS NULL OR phase = $2) AND ($3::text IS NULL OR state = $3)
            AND ($4::text IS NULL OR repository = $4)
            AND ($5::text IS NULL OR (strpos(tags, $9) > 0 AND $5 IN (SELECT json_array_elements_text(tags::json))))
            AND ($6::text IS NULL OR (strpos(labels, $10) > 0 AND coalesce(
                CASE WHEN $7::text IS NULL THEN labels::json -> $6 IS NOT NULL ELSE labels::json ->> $6 = $7 END, false)))
        ORDER BY id DESC LIMIT $8
        "#,
        before.map(JobId::uuid),
        filter.state.map(phase),
        filter.state.map(StateName::as_str),
        filter.repository,
        filter.tag,
        label.0,
        label.1.flatten(),
        i64::from(limit),
        written.tag,
        written.label,
    );
    let rows = rows.fetch_all(&mut *session).await;
    Ok(session.read(rows)?.into_iter().map(JobRow::job).collect::<Result<_, _>>()?)
}

/// Each phase that isn't the end is gone through by itself, since the index has the ids in order only within one.
pub(super) async fn open_jobs(
    pool: PgPool,
    filter: Filter,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<JobId>, Fault> {
    let mut session = Session::of(&pool).await?;
    let written = filter.written();
    let label = filter.label.unzip();
    let ids = sqlx::query_scalar!(
        r#"
        SELECT open.id FROM unnest('{waiting,queued,live}'::text[]) AS p (phase) CROSS JOIN LATERAL (
            SELECT id FROM jobs
            WHERE (jobs.phase, id) > (p.phase, $1) AND jobs.phase <= p.phase
                AND ($2::text IS NULL OR p.phase = $2) AND coalesce($3::text IS NULL OR state = $3, false)
                AND coalesce($4::text IS NULL OR repository = $4, false)
                AND ($5::text IS NULL
                    OR (strpos(tags, $9) > 0 AND $5 IN (SELECT json_array_elements_text(tags::json))))
                AND ($6::text IS NULL OR (strpos(labels, $10) > 0 AND coalesce(
                    CASE WHEN $7::text IS NULL THEN labels::json -> $6 IS NOT NULL ELSE labels::json ->> $6 = $7 END,
                    false)))
            ORDER BY jobs.phase, id LIMIT $8
        ) open ORDER BY open.id LIMIT $8
        "#,
        behind(after),
        filter.state.map(phase),
        filter.state.map(StateName::as_str),
        filter.repository,
        filter.tag,
        label.0,
        label.1.flatten(),
        i64::from(limit),
        written.tag,
        written.label,
    );
    let ids = ids.fetch_all(&mut *session).await;
    Ok(session.read(ids)?.into_iter().map(JobId::from).collect())
}

pub(super) async fn live_jobs(
    pool: PgPool,
    shards: Vec<Shard>,
    after: Option<JobId>,
    limit: u32,
) -> Result<LiveJobs, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query_as!(
        JobRow,
        r#"
        SELECT id, version, seq, attempt, tries, detail, has_secrets, retry_of, worker, told, given_back, fence,
            commit_id, created_at AS "created_at: Moment", queued_at AS "queued_at: Moment",
            started_at AS "started_at: Moment", finished_at AS "finished_at: Moment", spec
        FROM jobs
        WHERE (phase, id) > ('live', $2) AND phase <= 'live' AND coalesce(shard = ANY ($1), false)
        ORDER BY phase, id LIMIT $3
        "#,
        &row::smalls(&shards),
        behind(after),
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    let rows = session.read(rows)?;
    let full = rows.len() == limit as usize;
    let next = rows.last().filter(|_| full).map(|row| JobId::from(row.id));
    Ok(LiveJobs { jobs: rows.into_iter().filter_map(|row| readable(row.job())).collect(), next })
}

pub(super) async fn offers(
    pool: PgPool,
    shards: Vec<Shard>,
    before: Time,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<Offer>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query_as!(
        OfferRow,
        r#"
        SELECT id, attempt, tags, priority, has_secrets FROM jobs
        WHERE (phase, id) > ('queued', $1) AND phase <= 'queued' AND coalesce(queued_at < $2 AND shard = ANY ($3), false)
        ORDER BY phase, id LIMIT $4
        "#,
        behind(after),
        Moment(before) as _,
        &row::smalls(&shards),
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    Ok(session.read(rows)?.into_iter().map(OfferRow::offer).collect::<Result<_, _>>()?)
}

/// One pass over the queued jobs, as far as it may go, since no index has them by their tags.
pub(super) async fn ahead(pool: PgPool, offer: Offer, since: Time) -> Result<Ahead, Fault> {
    let mut session = Session::of(&pool).await?;
    let counts = sqlx::query!(
        r#"
        SELECT count(*) FILTER (WHERE tags = $2
                AND (priority = ANY ($3) OR (priority = $4 AND (queued_at, id) < ($5, $6)))) AS "found!",
            count(*) AS "looked!"
        FROM (
            SELECT id, tags, priority, queued_at FROM jobs
            WHERE (phase, id) > ('queued', $1) AND phase <= 'queued' ORDER BY phase, id LIMIT $7
        ) queued
        "#,
        behind(None),
        row::json(&offer.tags)?,
        &higher(offer.priority),
        offer.priority.name(),
        Moment(since) as _,
        offer.job.uuid(),
        i64::from(AHEAD_LOOKED_MAX),
    );
    let counts = counts.fetch_one(&mut *session).await;
    let counts = session.read(counts)?;
    Ok(Ahead::found(row::natural("found", counts.found)?, row::natural("looked", counts.looked)?))
}

/// The priorities above that one.
fn higher(priority: Priority) -> Vec<String> {
    Priority::ALL.into_iter().take_while(|above| *above != priority).map(|above| above.name().to_owned()).collect()
}

pub(super) async fn due(
    pool: PgPool,
    shards: Vec<Shard>,
    before: Time,
    limit: u32,
) -> Result<Vec<(JobId, Time)>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query!(
        r#"
        SELECT id, wake_at AS "wake_at!: Moment" FROM jobs WHERE wake_at < $1 AND shard = ANY ($2)
        ORDER BY wake_at, id LIMIT $3
        "#,
        Moment(before) as _,
        &row::smalls(&shards),
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    Ok(session.read(rows)?.into_iter().map(|row| (row.id.into(), row.wake_at.0)).collect())
}

pub(super) async fn events(pool: PgPool, job: JobId, after: Seq, limit: u32) -> Result<Vec<Event>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        SELECT job_id, seq, shard_seq, at AS "at: Moment", attempt, actor, data FROM job_events
        WHERE job_id = $1 AND seq > $2 ORDER BY seq LIMIT $3
        "#,
        job.uuid(),
        row::integer(after.0)?,
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    let events = session.read(rows)?.into_iter().map(|row| row.event().map(|(_, event)| event));
    Ok(events.collect::<Result<_, _>>()?)
}

pub(super) async fn shard_events(
    pool: PgPool,
    shard: Shard,
    after: ShardSeq,
    limit: u32,
) -> Result<Vec<(ShardSeq, Event)>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        SELECT job_id, seq, shard_seq, at AS "at: Moment", attempt, actor, data FROM job_events
        WHERE shard = $1 AND shard_seq > $2 ORDER BY shard_seq LIMIT $3
        "#,
        row::small(shard),
        row::integer(after.0)?,
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    Ok(session.read(rows)?.into_iter().map(EventRow::event).collect::<Result<_, Error>>()?)
}

pub(super) async fn secrets(pool: PgPool, job: JobId) -> Result<Option<Vec<u8>>, Fault> {
    let mut session = Session::of(&pool).await?;
    let value = sqlx::query_scalar!("SELECT value FROM secrets WHERE job_id = $1", job.uuid());
    let value = value.fetch_optional(&mut *session).await;
    session.read(value)
}

/// Looks at a table, since a server can answer that has lost its disk.
pub(super) async fn ping(pool: PgPool) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let row = sqlx::query_scalar!("SELECT shard FROM shards LIMIT 1").fetch_optional(&mut *session).await;
    session.read(row).map(drop)
}

/// The id behind which a page begins: before all of them where none is named.
fn behind(after: Option<JobId>) -> Uuid {
    after.map_or(Uuid::nil(), JobId::uuid)
}

/// The phase of a state, as the table's generated column has it.
fn phase(state: StateName) -> &'static str {
    match state {
        StateName::Scheduled | StateName::Blocked => "waiting",
        StateName::Assigned | StateName::Running | StateName::Canceling => "live",
        StateName::Queued | StateName::Succeeded | StateName::Failed | StateName::Canceled => state.as_str(),
    }
}
