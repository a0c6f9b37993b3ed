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
            INSERT INTO audit (at, actor, action, subject, outcome, job_id, attempt, request, origin)
            SELECT $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM me
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
        line.origin,
    );
    let noted = noted.fetch_all(&mut *session).await;
    Ok(session.wrote(noted)?.pop().ok_or(Error::Fenced)?)
}

/// Adds all of these in one statement, in their order.
pub(super) async fn add_all(pool: PgPool, owner: CoordinatorId, lines: Vec<AuditLine>) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let column = |of: fn(&AuditLine) -> String| lines.iter().map(of).collect::<Vec<_>>();
    let added = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        added AS (
            INSERT INTO audit (at, actor, action, subject, outcome, job_id, origin)
            SELECT l.at, l.actor, l.action, l.subject, l.outcome, l.job_id, l.origin
            FROM me, unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::uuid[], $8::text[])
                WITH ORDINALITY AS l (at, actor, action, subject, outcome, job_id, origin, place)
            ORDER BY l.place
        )
        SELECT id FROM me
        "#,
        owner.0,
        lines.iter().map(|line| Moment(line.at)).collect::<Vec<_>>() as _,
        &column(|line| line.actor.to_string()),
        &column(|line| line.action.clone()),
        &column(|line| line.subject.clone()),
        &column(|line| line.outcome.clone()),
        &lines.iter().map(|line| line.job.map(JobId::uuid)).collect::<Vec<_>>() as _,
        &lines.iter().map(|line| line.origin.clone()).collect::<Vec<_>>() as _,
    );
    let added = added.fetch_all(&mut *session).await;
    session.wrote(added)?.pop().ok_or(Error::Fenced)?;
    Ok(())
}

/// Lines of one moment in the order in which they were added.
pub(super) async fn about(pool: PgPool, subject: Option<String>, limit: u32) -> Result<Vec<AuditLine>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = if let Some(subject) = subject {
        let about = sqlx::query_as!(
            Row,
            r#"
                SELECT at AS "at: Moment", actor, origin, action, subject, outcome, job_id, attempt, request FROM audit
                WHERE subject = $1 ORDER BY at DESC, id DESC LIMIT $2
                "#,
            subject,
            i64::from(limit),
        );
        about.fetch_all(&mut *session).await
    } else {
        let all = sqlx::query_as!(
            Row,
            r#"
                SELECT at AS "at: Moment", actor, origin, action, subject, outcome, job_id, attempt, request FROM audit
                ORDER BY id DESC LIMIT $1
                "#,
            i64::from(limit),
        );
        all.fetch_all(&mut *session).await
    };
    let lines = session.read(rows)?.into_iter().map(|row: Row| {
        Ok(AuditLine {
            at: row.at.0,
            actor: Actor::try_from(row.actor).map_err(|fault| row::corrupt("actor", fault))?,
            origin: row.origin,
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

/// A row of `audit`.
struct Row {
    at: Moment,
    actor: String,
    origin: Option<String>,
    action: String,
    subject: String,
    outcome: String,
    job_id: Option<uuid::Uuid>,
    attempt: Option<i64>,
    request: Option<uuid::Uuid>,
}
