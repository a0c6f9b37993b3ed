//! How shards change hands. A coordinator's row is its lease; each verb is one statement, so that nobody who is stopped in
//! the middle of one keeps another waiting. Time is the database's, looked at when the row is there (`clock_timestamp`).

use sqlx::postgres::PgPool;
use sqlx::postgres::types::PgInterval;

use shared::id::{CoordinatorId, Epoch, Shard, ShardSeq};

use super::fault::Fault;
use super::row::{self, Moment};
use super::session::Session;
use crate::store::{Cluster, Error, LEASE_TTL, Member, OwnedShard};

fn ttl() -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(LEASE_TTL.as_micros()).unwrap_or(i64::MAX) }
}

/// Makes `member` known. Repeated after a lost answer it changes nothing but the lease's end.
pub(super) async fn join(pool: PgPool, member: Member) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let joined = sqlx::query!(
        r#"
        INSERT INTO coordinators (id, address, format, expires_at) VALUES ($1, $2, $3, clock_timestamp() + $4::interval)
        ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
        "#,
        member.id.0,
        member.address,
        i64::from(member.format),
        ttl(),
    );
    let joined = joined.execute(&mut *session).await;
    session.wrote(joined).map(drop)
}

/// Renews the lease. What a lost answer leaves open does no harm: the caller counts from the last one that came.
pub(super) async fn renew(pool: PgPool, id: CoordinatorId) -> Result<Cluster, Fault> {
    let mut session = Session::of(&pool).await?;
    let renewed = sqlx::query!(
        "UPDATE coordinators SET expires_at = clock_timestamp() + $2::interval WHERE id = $1",
        id.0,
        ttl(),
    );
    let renewed = renewed.execute(&mut *session).await;
    if session.read(renewed)?.rows_affected() == 0 {
        return Err(Error::Fenced.into());
    }
    let members = sqlx::query!(
        r#"
        SELECT c.id, c.address, c.format, c.expires_at <= t.now AS "ended!", t.now AS "now!: Moment", f.written
        FROM coordinators c, formats f, (SELECT clock_timestamp() AS now) t ORDER BY c.id
        "#,
    );
    let members = members.fetch_all(&mut *session).await;
    let members = session.read(members)?;
    let shards = sqlx::query!("SELECT shard, owner, epoch FROM shards ORDER BY shard").fetch_all(&mut *session).await;
    let shards = session.read(shards)?;
    // It was there a moment ago; where it isn't, somebody has deleted it since.
    let first = members.first().ok_or(Error::Fenced)?;
    let (now, written) = (first.now.0, row::natural("written", first.written)?);
    let members = members.into_iter().map(|row| {
        let format = row::natural("format", row.format)?;
        Ok((Member { id: CoordinatorId(row.id), address: row.address, format }, row.ended))
    });
    let shards = shards.into_iter().map(|row| {
        let epoch = Epoch(row::natural("epoch", row.epoch)?);
        Ok((row::shard(row.shard)?, row.owner.map(CoordinatorId), epoch))
    });
    Ok(Cluster {
        now,
        ttl: Some(LEASE_TTL),
        members: members.collect::<Result<_, Error>>()?,
        shards: shards.collect::<Result<_, Error>>()?,
        written,
    })
}

/// Deletes the rows of those whose leases have ended. It waits for the statements that hold one of them; one that was renewed
/// meanwhile stays.
pub(super) async fn bury(pool: PgPool, id: CoordinatorId, expired: Vec<CoordinatorId>) -> Result<(), Fault> {
    let expired: Vec<_> = expired.into_iter().map(|id| id.0).filter(|other| *other != id.0).collect();
    let mut session = Session::of(&pool).await?;
    let buried = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        ended AS MATERIALIZED (
            SELECT c.id FROM me, coordinators c WHERE c.id = ANY ($2) AND c.expires_at <= clock_timestamp()
            ORDER BY c.id FOR UPDATE OF c
        ),
        buried AS (DELETE FROM coordinators c USING ended WHERE c.id = ended.id)
        SELECT id FROM me
        "#,
        id.0,
        &expired,
    );
    let buried = buried.fetch_all(&mut *session).await;
    fenced(&session.wrote(buried)?)
}

/// Two statements in a function of the database's, so that nobody who is stopped between them keeps the lock.
pub(super) async fn raise_format(pool: PgPool, format: u32) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let raised = sqlx::query!("SELECT raise_format($1)", i64::from(format)).execute(&mut *session).await;
    session.wrote(raised).map(drop)
}

/// Takes what nobody owns, then reads the numbers in a statement, and so with a snapshot, of its own: in the first one
/// what the last owner wrote in the end may be invisible. A shard is taken at the epoch that it was seen at or not at all, so that
/// of two who saw it free the second doesn't take it from the first.
pub(super) async fn take_over(pool: PgPool, id: CoordinatorId, shards: Vec<Shard>) -> Result<Vec<OwnedShard>, Fault> {
    let asked = row::smalls(&shards);
    let mut session = Session::of(&pool).await?;
    let taken = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        reads AS MATERIALIZED (
            SELECT me.id FROM me, coordinators c, formats f WHERE c.id = me.id AND c.format >= f.written FOR SHARE OF f
        ),
        free AS MATERIALIZED (
            SELECT s.shard, s.epoch FROM shards s
            WHERE s.shard = ANY ($2)
                AND (s.owner IS NULL OR NOT EXISTS (SELECT FROM coordinators c WHERE c.id = s.owner))
            ORDER BY s.shard
        ),
        taken AS (
            UPDATE shards s SET owner = reads.id, epoch = s.epoch + 1 FROM reads, free
            WHERE s.shard = free.shard AND s.epoch = free.epoch
        )
        SELECT id FROM me
        "#,
        id.0,
        &asked,
    );
    let taken = taken.fetch_all(&mut *session).await;
    fenced(&session.wrote(taken)?)?;
    // What is published was an event once, also where the event itself is not kept any more.
    let owned = sqlx::query!(
        r#"
        SELECT s.shard, s.epoch, s.published_seq, greatest(s.published_seq,
            (SELECT max(e.shard_seq) FROM job_events e WHERE e.shard = s.shard)) AS "last!"
        FROM shards s WHERE s.owner = $1 AND s.shard = ANY ($2) ORDER BY s.shard
        "#,
        id.0,
        &asked,
    );
    let owned = owned.fetch_all(&mut *session).await;
    let owned = session.read(owned)?.into_iter().map(|row| {
        Ok(OwnedShard {
            shard: row::shard(row.shard)?,
            epoch: Epoch(row::natural("epoch", row.epoch)?),
            last: ShardSeq(row::natural("shard_seq", row.last)?),
            published: ShardSeq(row::natural("published_seq", row.published_seq)?),
        })
    });
    Ok(owned.collect::<Result<_, Error>>()?)
}

/// One statement, so that there is no moment in which the shards are anybody's. Repeated after a lost answer it changes
/// nothing but the lease's end.
pub(super) async fn succeed(pool: PgPool, old: CoordinatorId, new: Member) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let succeeded = sqlx::query!(
        r#"
        WITH gone AS (DELETE FROM coordinators WHERE id = $1),
        reads AS MATERIALIZED (SELECT f.written FROM formats f WHERE f.written <= $4 FOR SHARE),
        joined AS (
            INSERT INTO coordinators (id, address, format, expires_at)
            VALUES ($2, $3, $4, clock_timestamp() + $5::interval)
            ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at
        )
        UPDATE shards SET owner = $2, epoch = epoch + 1 FROM reads WHERE owner = $1
        "#,
        old.0,
        new.id.0,
        new.address,
        i64::from(new.format),
        ttl(),
    );
    let succeeded = succeeded.execute(&mut *session).await;
    session.wrote(succeeded).map(drop)
}

pub(super) async fn hand_over(
    pool: PgPool,
    id: CoordinatorId,
    to: CoordinatorId,
    shards: Vec<Shard>,
) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let handed = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        handed AS (
            UPDATE shards s SET epoch = s.epoch + 1, owner = (
                SELECT c.id FROM coordinators c, formats f WHERE c.id = $2 AND c.format >= f.written
            )
            FROM me WHERE s.owner = me.id AND s.shard = ANY ($3)
        )
        SELECT id FROM me
        "#,
        id.0,
        to.0,
        &row::smalls(&shards),
    );
    let handed = handed.fetch_all(&mut *session).await;
    fenced(&session.wrote(handed)?)
}

pub(super) async fn leave(pool: PgPool, id: CoordinatorId) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let left = sqlx::query!("DELETE FROM coordinators WHERE id = $1", id.0).execute(&mut *session).await;
    session.wrote(left).map(drop)
}

/// A statement under the lease answers with its row.
fn fenced<T>(rows: &[T]) -> Result<(), Fault> {
    if rows.is_empty() { Err(Error::Fenced.into()) } else { Ok(()) }
}
