//! What writes jobs: one statement for a batch. It is in `commit.sql`, and says itself how it is fenced and numbered.
//!
//! READ COMMITTED is chosen on purpose. Every condition that matters is one on a row which the statement locks (the lease,
//! the job with its version, the key, the tag set), and at this level, and at no stricter one, Postgres waits for whoever
//! has such a row and then looks at what it has become. A takeover that deletes the lease under a waiting statement
//! is thereby seen; stricter levels would refuse both parties in such cases, and every batch that ran beside
//! another in one index page besides.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

use sqlx::PgConnection;
use sqlx::postgres::PgPool;
use tracing::warn;
use uuid::Uuid;

use shared::id::{CoordinatorId, Shard, ShardSeq};

use super::batch::{self, Numbers, Plan, Told};
use super::columns::Columns;
use super::connect::Committing;
use super::fault::Fault;
use super::row;
use super::session::Session;
use super::tag_sets::{self, Known};
use crate::store::{Batch, Error, Write, Written};

/// Commits a batch: in one statement where that is possible, else in one transaction.
pub(super) async fn commit(
    connections: Committing,
    known: Arc<Known>,
    owner: CoordinatorId,
    batch: Arc<Batch>,
) -> Result<Vec<Written>, Fault> {
    let jobs = batch.writes.iter().map(|write| write.jobs().count()).sum();
    let mut session = connections.session(jobs).await?;
    let written = carry_out(&mut session, &known, owner, &batch).await;
    connections.keep(session, jobs);
    if matches!(written, Err(Fault::Again(_))) {
        // A tag set may be gone that is taken for known.
        known.forget();
    }
    written
}

async fn carry_out(
    session: &mut Session,
    known: &Known,
    owner: CoordinatorId,
    batch: &Batch,
) -> Result<Vec<Written>, Fault> {
    let homeless = tag_sets::add(session, known, owner, &batch.writes).await?;
    let runs = batch::runs(&batch.writes);
    if runs.len() > 1 {
        return piecemeal(session, owner, batch, &runs, &homeless).await;
    }
    match whole(session, owner, &batch.writes, &batch.last, &homeless).await {
        Err(Fault::Refused(why)) => {
            warn!(%why, writes = batch.writes.len(), "the database refuses a batch: its writes are tried one by one");
            piecemeal(session, owner, batch, &runs, &homeless).await
        }
        done => done,
    }
}

/// Commits the writes of one run in one statement.
async fn whole(
    session: &mut Session,
    owner: CoordinatorId,
    writes: &[Write],
    numbers: &Numbers,
    homeless: &HashSet<String>,
) -> Result<Vec<Written>, Fault> {
    let plan = Plan::of(writes, numbers, homeless)?;
    let told = execute(session, owner, &plan.columns).await;
    let told = session.wrote(told)?;
    Ok(plan.written(under_lease(told)?, &mut numbers.clone())?)
}

/// Commits the runs one after the other, in one transaction; a run that is refused goes write by write, and only
/// what is refused by itself is left out.
async fn piecemeal(
    session: &mut Session,
    owner: CoordinatorId,
    batch: &Batch,
    runs: &[Range<usize>],
    homeless: &HashSet<String>,
) -> Result<Vec<Written>, Fault> {
    session.begin().await?;
    let mut numbers = batch.last.clone();
    let mut written = Vec::with_capacity(batch.writes.len());
    let mut outcome = Ok(());
    for run in runs {
        let writes = batch.writes.get(run.clone()).unwrap_or_default();
        outcome = step(session, owner, writes, &mut numbers, homeless).await.map(|step| written.extend(step));
        if matches!(outcome, Err(Fault::Refused(_))) {
            outcome = one_by_one(session, owner, writes, &mut numbers, homeless).await.map(|step| written.extend(step));
        }
        if outcome.is_err() {
            break;
        }
    }
    match outcome {
        Ok(()) => session.commit().await.map(|()| written),
        Err(fault) => {
            session.roll_back().await;
            Err(fault)
        }
    }
}

async fn one_by_one(
    session: &mut Session,
    owner: CoordinatorId,
    writes: &[Write],
    numbers: &mut Numbers,
    homeless: &HashSet<String>,
) -> Result<Vec<Written>, Fault> {
    let mut written = Vec::with_capacity(writes.len());
    for write in writes {
        match step(session, owner, std::slice::from_ref(write), numbers, homeless).await {
            Ok(one) => written.extend(one),
            Err(Fault::Refused(why)) => written.push(Written::Refused(why)),
            Err(fault) => return Err(fault),
        }
    }
    Ok(written)
}

/// Carries out some writes inside the transaction; where they fail, nothing of them is left.
async fn step(
    session: &mut Session,
    owner: CoordinatorId,
    writes: &[Write],
    numbers: &mut Numbers,
    homeless: &HashSet<String>,
) -> Result<Vec<Written>, Fault> {
    let plan = Plan::of(writes, numbers, homeless)?;
    let begun = sqlx::query("SAVEPOINT step").execute(&mut **session).await;
    session.read(begun)?;
    let told = execute(session, owner, &plan.columns).await;
    match session.read(told) {
        Ok(told) => Ok(plan.written(under_lease(told)?, numbers)?),
        Err(fault) => {
            let undone = sqlx::query("ROLLBACK TO SAVEPOINT step").execute(&mut **session).await;
            session.read(undone)?;
            Err(fault)
        }
    }
}

/// One row of the statement's answer.
struct Row {
    slot: Option<i64>,
    what: Option<String>,
    fence: Option<i64>,
    existing: Option<Uuid>,
}

/// What is told of the slots; without a single row the lease was gone.
fn under_lease(rows: Vec<Row>) -> Result<Vec<Told>, Error> {
    if rows.is_empty() {
        return Err(Error::Fenced);
    }
    let told = |row: Row| Some(Told { slot: row.slot?, what: row.what?, fence: row.fence, existing: row.existing });
    Ok(rows.into_iter().filter_map(told).collect())
}

/// Sends the statement and waits for its whole answer, the end of its transaction included.
async fn execute(
    connection: &mut PgConnection,
    owner: CoordinatorId,
    columns: &Columns,
) -> Result<Vec<Row>, sqlx::Error> {
    if columns.new.slot.is_empty() {
        change(connection, owner, columns).await
    } else {
        all(connection, owner, columns).await
    }
}

/// The statement for transitions alone.
async fn change(
    connection: &mut PgConnection,
    owner: CoordinatorId,
    columns: &Columns,
) -> Result<Vec<Row>, sqlx::Error> {
    let Columns { progress: p, events: e, .. } = columns;
    let statement = sqlx::query_file!(
        "src/store/postgres/change.sql",
        owner.0,
        &p.came_from as _,
        &p.id,
        &p.version,
        &p.seq,
        &p.attempt,
        &p.tries,
        &p.state as _,
        &p.detail,
        &p.worker as _,
        &p.told as _,
        &p.grants,
        &p.commit_id as _,
        &p.wake_at as _,
        &p.queued_at as _,
        &p.started_at as _,
        &p.finished_at as _,
        &p.given_back as _,
        &p.blocked_on as _,
        &e.slot,
        &e.job_id,
        &e.seq,
        &e.shard,
        &e.last,
        &e.at as _,
        &e.attempt,
        &e.actor,
        &e.kind as _,
        &e.data,
    );
    let answer = statement.fetch_all(connection).await?.into_iter();
    let changed = |slot: Option<i64>| slot.map(|_| "changed".to_owned());
    Ok(answer.map(|row| Row { slot: row.slot, what: changed(row.slot), fence: row.fence, existing: None }).collect())
}

/// The statement for whatever a batch may hold.
async fn all(connection: &mut PgConnection, owner: CoordinatorId, columns: &Columns) -> Result<Vec<Row>, sqlx::Error> {
    let Columns { progress: p, new: n, events: e, tag_sets } = columns;
    let statement = sqlx::query_file!(
        "src/store/postgres/commit.sql",
        owner.0,
        &p.came_from as _,
        &p.id,
        &p.version,
        &p.seq,
        &p.attempt,
        &p.tries,
        &p.state as _,
        &p.detail,
        &p.worker as _,
        &p.told as _,
        &p.grants,
        &p.commit_id as _,
        &p.wake_at as _,
        &p.queued_at as _,
        &p.started_at as _,
        &p.finished_at as _,
        &p.given_back as _,
        &p.blocked_on as _,
        &n.slot,
        &n.submission,
        &n.id,
        &n.shard,
        &n.tags,
        &n.priority as _,
        &n.repository as _,
        &n.labels,
        &n.has_secrets,
        &n.retry_of as _,
        &n.created_at as _,
        &n.spec,
        &n.key_owner as _,
        &n.key as _,
        &n.hash as _,
        &n.key_expires as _,
        &n.hindrance as _,
        &n.secrets as _,
        tag_sets,
        &e.slot,
        &e.job_id,
        &e.seq,
        &e.shard,
        &e.last,
        &e.at as _,
        &e.attempt,
        &e.actor,
        &e.kind as _,
        &e.data,
    );
    let answer = statement.fetch_all(connection).await?.into_iter();
    Ok(answer.map(|row| Row { slot: row.slot, what: row.what, fence: row.fence, existing: row.existing }).collect())
}

/// Moves cursors on, never back; those of shards that aren't `owner`'s are passed over.
pub(super) async fn move_cursors(
    pool: PgPool,
    owner: CoordinatorId,
    cursors: Vec<(Shard, ShardSeq)>,
) -> Result<(), Fault> {
    let shards: Vec<i16> = cursors.iter().map(|(shard, _)| row::small(*shard)).collect();
    let published = cursors.iter().map(|(_, seq)| row::integer(seq.0)).collect::<Result<Vec<_>, _>>()?;
    let mut session = Session::of(&pool).await?;
    let moved = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        moved AS (
            UPDATE shards s SET published_seq = c.published
            FROM me, (
                SELECT shard, max(published) AS published FROM unnest($2::smallint[], $3::bigint[]) AS c (shard, published)
                GROUP BY shard
            ) c
            WHERE s.shard = c.shard AND s.owner = me.id AND s.published_seq < c.published
        )
        SELECT id FROM me
        "#,
        owner.0,
        &shards,
        &published,
    );
    let moved = moved.fetch_all(&mut *session).await;
    if session.wrote(moved)?.is_empty() { Err(Error::Fenced.into()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    /// The parts of the statements that write jobs which say what becomes of one that changes.
    fn of_changes(statement: &str) -> &str {
        let from = statement.find("progress AS").expect("what changes");
        let to = statement.find("RETURNING p.slot").expect("what has changed");
        &statement[from..to]
    }

    #[test]
    fn a_job_changes_alike_whether_or_not_others_are_new() {
        let (all, change) = (include_str!("commit.sql"), include_str!("change.sql"));
        assert!(of_changes(all).contains("UPDATE jobs"));
        assert_eq!(of_changes(all), of_changes(change));
    }
}
