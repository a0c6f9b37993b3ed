//! Workers and tokens.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use shared::id::{Instance, TokenId, WorkerId};
use shared::proof::ProofKey;
use shared::time::Time;
use shared::wire::{Hello, Welcome, WorkerMode};

use super::{audit, row};
use crate::store::roster::SEEN_EVERY;
use crate::store::{AuditLine, Enrolled, Error, NewWorker, ROSTER_MAX, Seen, Token, TokenKind, Worker};

pub(super) async fn enrol(
    connection: &mut SqliteConnection,
    token: [u8; 32],
    worker: NewWorker,
    now: Time,
) -> Result<Enrolled, Error> {
    let valid = "SELECT 1 FROM tokens WHERE digest = ?1 AND kind = 'join' AND revoked_at IS NULL \
         AND (expires_at IS NULL OR expires_at > ?2)";
    let valid = sqlx::query(valid).bind(token.to_vec()).bind(now.micros()).fetch_optional(&mut *connection);
    if valid.await?.is_none() {
        return Ok(Enrolled::NoToken);
    }
    let add = "INSERT INTO workers (id, name, key, mode, enrolled_at) SELECT ?1, ?2, ?3, ?4, ?5 \
         WHERE (SELECT count(*) FROM workers WHERE revoked_at IS NULL) < ?6";
    let added = sqlx::query(add)
        .bind(worker.id.0)
        .bind(worker.name)
        .bind(worker.key.bytes().to_vec())
        .bind(WorkerMode::Active.name())
        .bind(now.micros())
        .bind(ROSTER_MAX)
        .execute(connection)
        .await?;
    Ok(if added.rows_affected() == 1 { Enrolled::Yes } else { Enrolled::TooMany })
}

/// Notes the worker and finds the tag sets whose every tag it has.
pub(super) async fn welcome(
    connection: &mut SqliteConnection,
    hello: Hello,
    now: Time,
) -> Result<Option<Welcome>, Error> {
    let tags = row::json(&hello.tags)?;
    let find = "SELECT mode, start, instance FROM workers WHERE id = ?1 AND revoked_at IS NULL";
    let Some(known) = sqlx::query(find).bind(hello.worker.0).fetch_optional(&mut *connection).await? else {
        return Ok(None);
    };
    let start = row::integer(hello.start)?;
    if known.try_get::<Option<i64>, _>("start")?.is_some_and(|latest| latest > start) {
        return Ok(None);
    }
    let begins = known.try_get::<Option<Uuid>, _>("instance")? != Some(hello.instance.0);
    let mode = match mode(&known)? {
        WorkerMode::Draining if begins => WorkerMode::Active,
        mode => mode,
    };
    let note = "UPDATE workers SET mode = ?2, instance = ?3, start = ?4, tags = ?5, slots = ?6, running = ?7, \
         draining = ?8, seen_at = ?9 WHERE id = ?1 AND (seen_at IS NULL OR seen_at + ?10 <= ?9 \
         OR (mode, instance, start, tags, slots, running, draining) IS NOT (?2, ?3, ?4, ?5, ?6, ?7, ?8))";
    sqlx::query(note)
        .bind(hello.worker.0)
        .bind(mode.name())
        .bind(hello.instance.0)
        .bind(start)
        .bind(tags.clone())
        .bind(hello.slots)
        .bind(hello.running)
        .bind(hello.draining)
        .bind(now.micros())
        .bind(row::integer(SEEN_EVERY.millis() * 1000)?)
        .execute(&mut *connection)
        .await?;
    let fitting = "SELECT tags FROM tag_sets WHERE NOT EXISTS \
         (SELECT 1 FROM json_each(tag_sets.tags) AS asked WHERE asked.value NOT IN (SELECT value FROM json_each(?1))) \
         ORDER BY tags";
    let rows = sqlx::query(fitting).bind(tags).fetch_all(connection).await?;
    let tag_sets = rows.iter().map(|row| row::parsed(row, "tags")).collect::<Result<_, _>>()?;
    Ok(Some(Welcome { tag_sets, mode, revoked: false }))
}

pub(super) async fn workers(readers: &SqlitePool) -> Result<Vec<Worker>, Error> {
    sqlx::query("SELECT * FROM workers ORDER BY id").fetch_all(readers).await?.iter().map(worker).collect()
}

pub(super) async fn set_mode(
    connection: &mut SqliteConnection,
    id: WorkerId,
    mode: WorkerMode,
    line: AuditLine,
) -> Result<Option<Worker>, Error> {
    let set = "UPDATE workers SET mode = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    let set = sqlx::query(set).bind(id.0).bind(mode.name()).execute(&mut *connection).await?;
    if set.rows_affected() == 1 {
        audit::add(&mut *connection, line).await?;
    }
    one(connection, id).await
}

pub(super) async fn revoke_worker(
    connection: &mut SqliteConnection,
    id: WorkerId,
    now: Time,
    line: AuditLine,
) -> Result<Option<Worker>, Error> {
    let revoke = "UPDATE workers SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL";
    let revoked = sqlx::query(revoke).bind(id.0).bind(now.micros()).execute(&mut *connection).await?;
    if revoked.rows_affected() == 1 {
        audit::add(&mut *connection, line).await?;
    }
    one(connection, id).await
}

async fn one(connection: &mut SqliteConnection, id: WorkerId) -> Result<Option<Worker>, Error> {
    let row = sqlx::query("SELECT * FROM workers WHERE id = ?1").bind(id.0).fetch_optional(connection).await?;
    row.as_ref().map(worker).transpose()
}

pub(super) async fn add_token(connection: &mut SqliteConnection, token: Token, line: AuditLine) -> Result<bool, Error> {
    let known = sqlx::query("SELECT 1 FROM tokens WHERE digest = ?1").bind(token.digest.to_vec());
    if known.fetch_optional(&mut *connection).await?.is_some() {
        return Ok(true);
    }
    sqlx::query("DELETE FROM tokens WHERE expires_at <= ?1")
        .bind(token.created_at.micros())
        .execute(&mut *connection)
        .await?;
    let add = "INSERT INTO tokens (id, kind, name, digest, created_at, expires_at) SELECT ?1, ?2, ?3, ?4, ?5, ?6 \
         WHERE (SELECT count(*) FROM tokens WHERE revoked_at IS NULL) < ?7";
    let added = sqlx::query(add)
        .bind(token.id.0)
        .bind(token.kind.name())
        .bind(token.name)
        .bind(token.digest.to_vec())
        .bind(token.created_at.micros())
        .bind(token.expires_at.map(Time::micros))
        .bind(ROSTER_MAX)
        .execute(&mut *connection)
        .await?;
    let added = added.rows_affected() == 1;
    if added {
        audit::add(connection, line).await?;
    }
    Ok(added)
}

pub(super) async fn revoke_token(
    connection: &mut SqliteConnection,
    id: TokenId,
    now: Time,
    line: AuditLine,
) -> Result<bool, Error> {
    let revoke = "UPDATE tokens SET revoked_at = ?2 \
         WHERE id = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)";
    let revoked = sqlx::query(revoke).bind(id.0).bind(now.micros()).execute(&mut *connection).await?;
    let revoked = revoked.rows_affected() == 1;
    if revoked {
        audit::add(connection, line).await?;
    }
    Ok(revoked)
}

pub(super) async fn tokens(readers: &SqlitePool, now: Time) -> Result<Vec<Token>, Error> {
    let tokens =
        "SELECT * FROM tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?1) ORDER BY id";
    sqlx::query(tokens).bind(now.micros()).fetch_all(readers).await?.iter().map(token).collect()
}

fn worker(row: &SqliteRow) -> Result<Worker, Error> {
    let seen = match row.try_get::<Option<i64>, _>("seen_at")? {
        None => None,
        Some(at) => Some(Seen {
            at: Time::from_micros(at),
            instance: Instance(row.try_get("instance")?),
            start: row::natural(row, "start")?,
            tags: row::parsed(row, "tags")?,
            slots: row.try_get("slots")?,
            running: row.try_get("running")?,
            draining: row.try_get("draining")?,
        }),
    };
    Ok(Worker {
        id: WorkerId(row.try_get("id")?),
        name: row.try_get("name")?,
        key: ProofKey::from_bytes(row::digest(row, "key")?),
        mode: mode(row)?,
        enrolled_at: row::time(row, "enrolled_at")?,
        revoked_at: row.try_get::<Option<i64>, _>("revoked_at")?.map(Time::from_micros),
        seen,
    })
}

fn token(row: &SqliteRow) -> Result<Token, Error> {
    let kind: &str = row.try_get("kind")?;
    Ok(Token {
        id: TokenId(row.try_get("id")?),
        kind: TokenKind::named(kind).ok_or_else(|| Error::Corrupt(format!("kind: there is no {kind}")))?,
        name: row.try_get("name")?,
        digest: row::digest(row, "digest")?,
        created_at: row::time(row, "created_at")?,
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(Time::from_micros),
    })
}

fn mode(row: &SqliteRow) -> Result<WorkerMode, Error> {
    let mode: &str = row.try_get("mode")?;
    WorkerMode::named(mode).ok_or_else(|| Error::Corrupt(format!("mode: there is no {mode}")))
}
