//! The audit: lines are added and read, nothing else.

use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};
use uuid::Uuid;

use shared::id::{Actor, Attempt, JobId, RequestId};

use super::row;
use crate::store::{AuditLine, Error};

/// Adds a line unless its request has one.
pub(super) async fn note(connection: &mut SqliteConnection, line: AuditLine) -> Result<bool, Error> {
    if let Some(request) = line.request {
        let known = sqlx::query("SELECT 1 FROM audit WHERE request = ?1").bind(request.0);
        if known.fetch_optional(&mut *connection).await?.is_some() {
            return Ok(false);
        }
    }
    add(connection, line).await?;
    Ok(true)
}

/// Adds a line; one whose request has one fails the transaction.
pub(super) async fn add(connection: &mut SqliteConnection, line: AuditLine) -> Result<(), Error> {
    let add = "INSERT INTO audit (at, actor, action, subject, outcome, job_id, attempt, request, origin) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    sqlx::query(add)
        .bind(line.at.micros())
        .bind(line.actor.to_string())
        .bind(line.action)
        .bind(line.subject)
        .bind(line.outcome)
        .bind(line.job.map(JobId::uuid))
        .bind(line.attempt.map(|attempt| attempt.0))
        .bind(line.request.map(|request| request.0))
        .bind(line.origin)
        .execute(connection)
        .await?;
    Ok(())
}

/// Adds all of these.
pub(super) async fn add_all(connection: &mut SqliteConnection, lines: Vec<AuditLine>) -> Result<(), Error> {
    for line in lines {
        add(connection, line).await?;
    }
    Ok(())
}

/// Lines of one moment in the order in which they were added.
pub(super) async fn about(readers: &SqlitePool, subject: Option<&str>, limit: u32) -> Result<Vec<AuditLine>, Error> {
    let about = match subject {
        Some(subject) => {
            sqlx::query("SELECT * FROM audit WHERE subject = ?1 ORDER BY at DESC, id DESC LIMIT ?2").bind(subject)
        }
        None => sqlx::query("SELECT * FROM audit ORDER BY id DESC LIMIT ?1"),
    };
    about.bind(limit).fetch_all(readers).await?.iter().map(line).collect()
}

fn line(row: &SqliteRow) -> Result<AuditLine, Error> {
    let actor: String = row.try_get("actor")?;
    Ok(AuditLine {
        at: row::time(row, "at")?,
        actor: Actor::try_from(actor).map_err(|fault| row::corrupt("actor", fault))?,
        origin: row.try_get("origin")?,
        action: row.try_get("action")?,
        subject: row.try_get("subject")?,
        outcome: row.try_get("outcome")?,
        job: row.try_get::<Option<Uuid>, _>("job_id")?.map(JobId::from),
        attempt: row.try_get::<Option<_>, _>("attempt")?.map(Attempt),
        request: row.try_get::<Option<_>, _>("request")?.map(RequestId),
    })
}
