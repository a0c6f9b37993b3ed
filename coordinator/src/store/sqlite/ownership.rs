//! Who owns the shards. The lock on the data directory is the lease, so there is one coordinator, and its row doesn't
//! expire: whoever joins has the lock and ends all others.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use shared::clock;
use shared::id::{CoordinatorId, Epoch, Shard, ShardSeq};

use super::row;
use crate::store::{Cluster, Error, Member, OwnedShard};

/// Makes `member` the only one. Who was there before has no row any more and so can't write.
pub(super) async fn join(connection: &mut SqliteConnection, member: Member) -> Result<(), Error> {
    sqlx::query("DELETE FROM coordinators").execute(&mut *connection).await?;
    let join =
        sqlx::query("INSERT INTO coordinators (id, format) VALUES (?1, ?2)").bind(member.id.0).bind(member.format);
    join.execute(connection).await?;
    Ok(())
}

/// How things stand, as the coordinator `id` sees them: it is alone.
pub(super) async fn renew(readers: &SqlitePool, id: CoordinatorId) -> Result<Cluster, Error> {
    let me = sqlx::query("SELECT format, written FROM coordinators, formats WHERE id = ?1").bind(id.0);
    let me = me.fetch_optional(readers).await?.ok_or(Error::Fenced)?;
    let rows = sqlx::query("SELECT shard, owner, epoch FROM shards ORDER BY shard").fetch_all(readers).await?;
    let owned = |row: &SqliteRow| {
        let owner = row.try_get::<Option<Uuid>, _>("owner")?.map(CoordinatorId);
        Ok((shard(row)?, owner, Epoch(row::natural(row, "epoch")?)))
    };
    let shards = rows.iter().map(owned).collect::<Result<_, Error>>()?;
    let myself = Member { id, address: String::new(), format: me.try_get("format")? };
    let written = me.try_get("written")?;
    Ok(Cluster { now: clock::now(), ttl: None, members: vec![(myself, false)], shards, written })
}

pub(super) async fn raise_format(connection: &mut SqliteConnection, format: u32) -> Result<(), Error> {
    let raise = "UPDATE formats SET written = ?1 \
         WHERE written < ?1 AND NOT EXISTS (SELECT 1 FROM coordinators WHERE format < ?1)";
    sqlx::query(raise).bind(format).execute(connection).await?;
    Ok(())
}

pub(super) async fn take_over(
    connection: &mut SqliteConnection,
    id: CoordinatorId,
    shards: Vec<Shard>,
) -> Result<Vec<OwnedShard>, Error> {
    let asked = row::json(&shards)?;
    let take = "UPDATE shards SET owner = ?1, epoch = epoch + 1 WHERE shard IN (SELECT value FROM json_each(?2)) \
         AND (SELECT format FROM coordinators WHERE id = ?1) >= (SELECT written FROM formats) \
         AND (owner IS NULL OR owner NOT IN (SELECT id FROM coordinators))";
    sqlx::query(take).bind(id.0).bind(asked.clone()).execute(&mut *connection).await?;
    // What is published was an event once, also where the event itself is not kept any more.
    let numbers = "SELECT shard, epoch, published_seq, \
         max(published_seq, coalesce((SELECT max(shard_seq) FROM job_events e WHERE e.shard = s.shard), 0)) AS last \
         FROM shards s WHERE owner = ?1 AND shard IN (SELECT value FROM json_each(?2)) ORDER BY shard";
    let rows = sqlx::query(numbers).bind(id.0).bind(asked).fetch_all(connection).await?;
    let owned = |row: &SqliteRow| {
        Ok(OwnedShard {
            shard: shard(row)?,
            epoch: Epoch(row::natural(row, "epoch")?),
            last: ShardSeq(row::natural(row, "last")?),
            published: ShardSeq(row::natural(row, "published_seq")?),
        })
    };
    rows.iter().map(owned).collect()
}

pub(super) async fn succeed(connection: &mut SqliteConnection, old: CoordinatorId, new: Member) -> Result<(), Error> {
    let id = new.id;
    // Where somebody else has joined meanwhile, the directory's lock was lost: nothing may be taken from that one.
    let others = sqlx::query("SELECT 1 FROM coordinators WHERE id NOT IN (?1, ?2)").bind(old.0).bind(id.0);
    if others.fetch_optional(&mut *connection).await?.is_some() {
        return Err(Error::Fenced);
    }
    join(connection, new).await?;
    let take = "UPDATE shards SET owner = ?1, epoch = epoch + 1 WHERE owner = ?2 \
         AND (SELECT format FROM coordinators WHERE id = ?1) >= (SELECT written FROM formats)";
    sqlx::query(take).bind(id.0).bind(old.0).execute(connection).await?;
    Ok(())
}

pub(super) async fn hand_over(
    connection: &mut SqliteConnection,
    id: CoordinatorId,
    to: CoordinatorId,
    shards: Vec<Shard>,
) -> Result<(), Error> {
    let hand = "UPDATE shards SET epoch = epoch + 1, owner = \
         (SELECT id FROM coordinators, formats WHERE id = ?2 AND format >= written) \
         WHERE owner = ?1 AND shard IN (SELECT value FROM json_each(?3))";
    sqlx::query(hand).bind(id.0).bind(to.0).bind(row::json(&shards)?).execute(connection).await?;
    Ok(())
}

pub(super) async fn leave(connection: &mut SqliteConnection, id: CoordinatorId) -> Result<(), Error> {
    sqlx::query("DELETE FROM coordinators WHERE id = ?1").bind(id.0).execute(connection).await?;
    Ok(())
}

fn shard(row: &SqliteRow) -> Result<Shard, Error> {
    let number = row.try_get("shard")?;
    Shard::new(number).ok_or_else(|| Error::Corrupt(format!("there is no shard {number}")))
}
