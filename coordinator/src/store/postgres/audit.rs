//! The audit: lines are added and read, nothing else. Those of a key that is stored or removed are [`super::keys`]'s, in the
//! same statements.

use sqlx::postgres::PgPool;

use shared::id::{Actor, Attempt, CoordinatorId, JobId, RequestId};

use super::fault::Fault;
use super::row::{self, Moment};
use super::session::Session;
use crate::store::{AuditLine, Error};

pub(super) async fn note(pool: PgPool, owner: CoordinatorId, line: AuditLine) -> Result<bool, Fault> {
    let mut session = Session::of(&pool).await?;
    let noted = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        noted AS (
            INSERT INTO audit (at, actor, action, subject, outcome, job_id, attempt, request)
            SELECT $2, $3, $4, $5, $6, $7, $8, $9 FROM me
            ON CONFLICT (request) WHERE request IS NOT NULL DO NOTHING
            RETURNING id
        )
        SELECT EXISTS (SELECT FROM noted) AS "noted!" FROM me
        "#,
        owner.0,
        Moment(line.at) as _,
        line.actor.to_string(),
        line.action,
        line.subject,
        line.outcome,
        line.job.map(JobId::uuid),
        line.attempt.map(|attempt| i64::from(attempt.0)),
        line.request.map(|request| request.0),
    );
    let noted = noted.fetch_all(&mut *session).await;
    Ok(session.wrote(noted)?.pop().ok_or(Error::Fenced)?)
}

/// Lines of one moment in the order in which they were added.
pub(super) async fn about(pool: PgPool, subject: String, limit: u32) -> Result<Vec<AuditLine>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query!(
        r#"
        SELECT at AS "at: Moment", actor, action, subject, outcome, job_id, attempt, request FROM audit
        WHERE subject = $1 ORDER BY at DESC, id DESC LIMIT $2
        "#,
        subject,
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    let lines = session.read(rows)?.into_iter().map(|row| {
        Ok(AuditLine {
            at: row.at.0,
            actor: Actor::try_from(row.actor).map_err(|fault| row::corrupt("actor", fault))?,
            action: row.action,
            subject: row.subject,
            outcome: row.outcome,
            job: row.job_id.map(JobId::from),
            attempt: row.attempt.map(|attempt| row::natural("attempt", attempt)).transpose()?.map(Attempt),
            request: row.request.map(RequestId),
        })
    });
    Ok(lines.collect::<Result<_, Error>>()?)
}
