//! What writes jobs. Each function runs inside one transaction, which its caller commits, and which
//! holds SQLite's only write lock from its first statement on.

use std::collections::HashMap;

use sqlx::{Connection, Row, SqliteConnection};

use shared::id::{CoordinatorId, Fence, JobId, Shard, ShardSeq, Version};
use shared::job::{Event, Transition};
use shared::time::Time;

use super::row;
use crate::store::{Batch, Error, IdempotencyKey, NewJob, Submitted, TAG_SETS_MAX, Write, Written};

/// Refuses a writer whose row is gone. The write lock is held, so it can't go before the commit.
pub(super) async fn check_lease(connection: &mut SqliteConnection, owner: CoordinatorId) -> Result<(), Error> {
    let row = sqlx::query("SELECT 1 FROM coordinators WHERE id = ?1").bind(owner.0).fetch_optional(connection).await?;
    row.map(|_| ()).ok_or(Error::Fenced)
}

/// Carries out the writes of a batch one after the other. Whatever refuses one is found out before it changes
/// anything, or is undone with it.
pub(super) async fn commit(connection: &mut SqliteConnection, batch: &Batch) -> Result<Vec<Written>, Error> {
    let mut numbers = Numbers(batch.last.clone());
    let mut written = Vec::with_capacity(batch.writes.len());
    for write in &batch.writes {
        written.push(match write {
            Write::Submit(jobs) => submit(connection, jobs, &mut numbers).await?,
            Write::Change { from, transition } => change(connection, *from, transition, &mut numbers).await?,
        });
    }
    Ok(written)
}

/// Moves cursors on; never back.
pub(super) async fn move_cursors(
    connection: &mut SqliteConnection,
    owner: CoordinatorId,
    cursors: Vec<(Shard, ShardSeq)>,
) -> Result<(), Error> {
    for (shard, published) in cursors {
        sqlx::query("UPDATE shards SET published_seq = max(published_seq, ?2) WHERE shard = ?1 AND owner = ?3")
            .bind(shard.number())
            .bind(row::integer(published.0)?)
            .bind(owner.0)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

/// The number of the last event of each shard, as far as this transaction has come.
#[derive(Clone)]
struct Numbers(HashMap<Shard, ShardSeq>);

impl Numbers {
    /// The next number of `shard`, which is then given away.
    fn draw(&mut self, shard: Shard) -> Result<ShardSeq, Error> {
        let unknown = || Error::Corrupt(format!("the batch doesn't say the last event's number of shard {shard}"));
        let last = self.0.get_mut(&shard).ok_or_else(unknown)?;
        *last = last.next();
        Ok(*last)
    }

    /// The number that the next event of `shard` gets.
    fn next(&self, shard: Shard) -> ShardSeq {
        self.0.get(&shard).copied().unwrap_or_default().next()
    }
}

/// Stores jobs that are submitted together, all or none.
async fn submit(connection: &mut SqliteConnection, jobs: &[NewJob], numbers: &mut Numbers) -> Result<Written, Error> {
    let mut group = connection.begin().await?;
    let mut ahead = numbers.clone();
    let mut submitted = Vec::with_capacity(jobs.len());
    for (index, new) in jobs.iter().enumerate() {
        match submit_one(&mut group, new, &mut ahead).await? {
            Ok(one) => submitted.push(one),
            Err(refusal) => {
                group.rollback().await?;
                return Ok(match refusal {
                    Refusal::IdTaken => Written::Conflict,
                    Refusal::KeyReused => Written::KeyReused(index),
                    Refusal::TooManyTagSets => Written::TooManyTagSets(index),
                });
            }
        }
    }
    group.commit().await?;
    *numbers = ahead;
    Ok(Written::Submitted(submitted))
}

/// Why a job can't be stored, and with it its whole group.
enum Refusal {
    IdTaken,
    KeyReused,
    TooManyTagSets,
}

async fn submit_one(
    connection: &mut SqliteConnection,
    new: &NewJob,
    numbers: &mut Numbers,
) -> Result<Result<Submitted, Refusal>, Error> {
    let job = &new.transition.job;
    if let Some(key) = &new.idempotency
        && let Some((first, same)) = known_key(connection, key, job.created_at).await?
    {
        return Ok(if same { Ok(Submitted::Existing(first)) } else { Err(Refusal::KeyReused) });
    }
    if !know_tag_set(connection, &row::json(&job.spec.tags)?).await? {
        return Ok(Err(Refusal::TooManyTagSets));
    }
    let insert = "INSERT INTO jobs (id, version, seq, attempt, tries, state, detail, worker, told, fence, commit_id, \
         wake_at, queued_at, started_at, finished_at, given_back, blocked_on, \
         shard, tags, priority, repository, labels, has_secrets, retry_of, created_at, spec) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
         ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26) ON CONFLICT (id) DO NOTHING";
    let statement = row::bind_progress(sqlx::query(insert), job, Some(job.fence))?;
    if row::bind_origin(statement, job)?.execute(&mut *connection).await?.rows_affected() == 0 {
        return Ok(Err(Refusal::IdTaken));
    }
    let first = numbers.next(job.id.shard());
    log_events(connection, &new.transition.events, numbers).await?;
    if let Some(secrets) = &new.secrets {
        sqlx::query("INSERT INTO secrets (job_id, value) VALUES (?1, ?2)")
            .bind(job.id.uuid())
            .bind(secrets.clone())
            .execute(&mut *connection)
            .await?;
    }
    if let Some(key) = &new.idempotency {
        note_key(connection, key, job.id).await?;
    }
    Ok(Ok(Submitted::New(first)))
}

/// The job that a key stands for at `now`, and whether its body was the same; nothing once the key has expired.
async fn known_key(
    connection: &mut SqliteConnection,
    key: &IdempotencyKey,
    now: Time,
) -> Result<Option<(JobId, bool)>, Error> {
    let find = "SELECT job_id, hash = ?3 AS same FROM idempotency_keys \
         WHERE owner = ?1 AND key = ?2 AND expires_at > ?4";
    let row = sqlx::query(find)
        .bind(key.owner.clone())
        .bind(key.key.clone())
        .bind(key.hash.to_vec())
        .bind(now.micros())
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((row::id(&row, "job_id")?, row.try_get("same")?))).transpose()
}

/// Notes what a key stands for; one that is there has expired.
async fn note_key(connection: &mut SqliteConnection, key: &IdempotencyKey, job: JobId) -> Result<(), Error> {
    let note = "INSERT INTO idempotency_keys (owner, key, hash, job_id, expires_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (owner, key) DO UPDATE SET \
         hash = excluded.hash, job_id = excluded.job_id, expires_at = excluded.expires_at";
    sqlx::query(note)
        .bind(key.owner.clone())
        .bind(key.key.clone())
        .bind(key.hash.to_vec())
        .bind(job.uuid())
        .bind(key.expires.micros())
        .execute(connection)
        .await?;
    Ok(())
}

/// Whether the tag set is known or becomes so: at the bound, those that no open job needs make room.
async fn know_tag_set(connection: &mut SqliteConnection, tags: &str) -> Result<bool, Error> {
    let known = sqlx::query("SELECT 1 FROM tag_sets WHERE tags = ?1").bind(tags).fetch_optional(&mut *connection);
    if known.await?.is_some() {
        return Ok(true);
    }
    if add_tag_set(connection, tags).await? {
        return Ok(true);
    }
    let unused = "DELETE FROM tag_sets WHERE tags <> '[]' \
         AND tags NOT IN (SELECT tags FROM jobs WHERE finished_at IS NULL)";
    sqlx::query(unused).execute(&mut *connection).await?;
    add_tag_set(connection, tags).await
}

/// Adds a tag set where the bound leaves room for it.
async fn add_tag_set(connection: &mut SqliteConnection, tags: &str) -> Result<bool, Error> {
    let add = "INSERT INTO tag_sets (tags) SELECT ?1 WHERE (SELECT count(*) FROM tag_sets) < ?2";
    let added = sqlx::query(add).bind(tags).bind(TAG_SETS_MAX).execute(connection).await?;
    Ok(added.rows_affected() == 1)
}

/// Commits a transition of a job whose version is still `from`. The condition on terminal rows is the trigger's own,
/// so that the trigger, which would fail the whole batch, has nothing to refuse.
async fn change(
    connection: &mut SqliteConnection,
    from: Version,
    transition: &Transition,
    numbers: &mut Numbers,
) -> Result<Written, Error> {
    let fence = if transition.grants() { Some(draw_fence(connection).await?) } else { None };
    let update = "UPDATE jobs SET version = ?2, seq = ?3, attempt = ?4, tries = ?5, state = ?6, detail = ?7, \
         worker = ?8, told = ?9, fence = coalesce(?10, fence), commit_id = ?11, wake_at = ?12, queued_at = ?13, \
         started_at = ?14, finished_at = ?15, given_back = ?16, blocked_on = ?17 \
         WHERE id = ?1 AND version = ?18 AND (finished_at IS NULL \
         OR (state, detail, attempt, finished_at) = (?6, ?7, ?4, ?15))";
    let statement = row::bind_progress(sqlx::query(update), &transition.job, fence)?;
    let updated = statement.bind(row::integer(from.0)?).execute(&mut *connection).await?;
    if updated.rows_affected() == 0 {
        return Ok(Written::Conflict);
    }
    let first = numbers.next(transition.job.id.shard());
    log_events(connection, &transition.events, numbers).await?;
    Ok(Written::Changed { first, fence })
}

async fn draw_fence(connection: &mut SqliteConnection) -> Result<Fence, Error> {
    let row = sqlx::query("UPDATE fences SET last = last + 1 RETURNING last").fetch_one(connection).await?;
    row::natural(&row, "last").map(Fence)
}

async fn log_events(connection: &mut SqliteConnection, events: &[Event], numbers: &mut Numbers) -> Result<(), Error> {
    let insert = "INSERT INTO job_events (job_id, seq, shard, shard_seq, at, attempt, actor, kind, data) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    for event in events {
        let shard = event.job.shard();
        sqlx::query(insert)
            .bind(event.job.uuid())
            .bind(row::integer(event.seq.0)?)
            .bind(shard.number())
            .bind(row::integer(numbers.draw(shard)?.0)?)
            .bind(event.at.micros())
            .bind(event.attempt.0)
            .bind(event.actor.to_string())
            .bind(event.kind.name())
            .bind(row::json(&event.kind)?)
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}
