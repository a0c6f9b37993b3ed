//! Workers and tokens.

use sqlx::postgres::PgPool;
use uuid::Uuid;

use shared::id::{CoordinatorId, Instance, TokenId, WorkerId};
use shared::proof::ProofKey;
use shared::time::Time;
use shared::wire::{Hello, Welcome, WorkerMode};

use super::fault::Fault;
use super::row::{self, Moment};
use super::session::Session;
use crate::store::roster::SEEN_EVERY;
use crate::store::{AuditLine, Enrolled, Error, NewWorker, ROSTER_MAX, Seen, Token, TokenKind, Worker};

pub(super) async fn enrol(
    pool: PgPool,
    owner: CoordinatorId,
    token: [u8; 32],
    worker: NewWorker,
    now: Time,
) -> Result<Enrolled, Fault> {
    let mut session = Session::of(&pool).await?;
    let enrolled = sqlx::query!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        valid AS MATERIALIZED (
            SELECT t.id FROM me, tokens t
            WHERE t.digest = $2 AND t.kind = 'join' AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $3)
            -- A revocation that comes meanwhile is waited for, and heeded.
            FOR SHARE OF t
        ),
        added AS (
            INSERT INTO workers (id, name, key, mode, enrolled_at) SELECT $4, $5, $6, 'active', $3
            FROM valid WHERE (SELECT count(*) FROM workers WHERE revoked_at IS NULL) < $7
            RETURNING id
        )
        SELECT EXISTS (SELECT FROM valid) AS "valid!", EXISTS (SELECT FROM added) AS "added!" FROM me
        "#,
        owner.0,
        &token[..],
        Moment(now) as _,
        worker.id.0,
        worker.name,
        &worker.key.bytes()[..],
        i64::from(ROSTER_MAX),
    );
    let enrolled = enrolled.fetch_all(&mut *session).await;
    let enrolled = session.wrote(enrolled)?.pop().ok_or(Error::Fenced)?;
    Ok(match enrolled {
        row if !row.valid => Enrolled::NoToken,
        row if row.added => Enrolled::Yes,
        _ => Enrolled::TooMany,
    })
}

/// Notes the worker, unless what is known of it is just that, and finds the tag sets whose every tag it has.
pub(super) async fn welcome(
    pool: PgPool,
    owner: CoordinatorId,
    hello: Hello,
    now: Time,
) -> Result<Option<Welcome>, Fault> {
    let mut session = Session::of(&pool).await?;
    let lease = sqlx::query_scalar!("SELECT id FROM coordinators WHERE id = $1", owner.0);
    let lease = lease.fetch_optional(&mut *session).await;
    session.read(lease)?.ok_or(Error::Fenced)?;
    let Some(known) = one(&mut session, hello.worker).await? else { return Ok(None) };
    if known.revoked_at.is_some() {
        return Ok(None);
    }
    let mode = match known.seen {
        Some(seen) if seen.start > hello.start => return Ok(None),
        Some(seen) if is_fresh(&seen, &hello, now) => known.mode,
        Some(_) | None => match note(&mut session, owner, &hello, now).await? {
            Some(mode) => mode,
            None => return Ok(None),
        },
    };
    let fitting = sqlx::query_scalar!(
        r#"
        SELECT tags FROM tag_sets t
        WHERE NOT EXISTS (SELECT FROM json_array_elements_text(t.tags::json) AS asked (tag) WHERE asked.tag <> ALL ($1))
        ORDER BY tags
        "#,
        &hello.tags,
    );
    let fitting = fitting.fetch_all(&mut *session).await;
    let fitting = session.read(fitting)?;
    let tag_sets = fitting.iter().map(|tags| row::parsed("tags", tags)).collect::<Result<_, _>>()?;
    Ok(Some(Welcome { tag_sets, mode, revoked: false }))
}

/// Whether the hello says nothing that isn't known, and the last one is young enough.
fn is_fresh(seen: &Seen, hello: &Hello, now: Time) -> bool {
    let said = Seen {
        at: seen.at,
        instance: hello.instance,
        start: hello.start,
        tags: hello.tags.clone(),
        slots: hello.slots,
        running: hello.running,
        draining: hello.draining,
    };
    *seen == said && now < seen.at.plus(SEEN_EVERY)
}

/// Writes down what a hello says; none where a later start has said hello meanwhile, or the worker was revoked.
async fn note(
    session: &mut Session,
    owner: CoordinatorId,
    hello: &Hello,
    now: Time,
) -> Result<Option<WorkerMode>, Fault> {
    let noted = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        noted AS (
            UPDATE workers w SET
                mode = CASE WHEN w.mode = 'draining' AND w.instance IS DISTINCT FROM $3 THEN 'active' ELSE w.mode END,
                instance = $3, start = $4, tags = $5, slots = $6, running = $7, draining = $8, seen_at = $9
            FROM me WHERE w.id = $2 AND w.revoked_at IS NULL AND (w.start IS NULL OR w.start <= $4)
            RETURNING w.mode
        )
        SELECT noted.mode AS "mode?" FROM me LEFT JOIN noted ON true
        "#,
        owner.0,
        hello.worker.0,
        hello.instance.0,
        row::integer(hello.start)?,
        row::json(&hello.tags)?,
        i64::from(hello.slots),
        i64::from(hello.running),
        hello.draining,
        Moment(now) as _,
    );
    let noted = noted.fetch_all(&mut **session).await;
    let noted = session.wrote(noted)?.pop().ok_or(Error::Fenced)?;
    Ok(noted.map(|mode| self::mode(&mode)).transpose()?)
}

pub(super) async fn workers(pool: PgPool) -> Result<Vec<Worker>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query_as!(
        WorkerRow,
        r#"
        SELECT id, name, key, mode, enrolled_at AS "enrolled_at: Moment", seen_at AS "seen_at: Moment", instance, start,
            tags, slots, running, draining, revoked_at AS "revoked_at: Moment"
        FROM workers ORDER BY id
        "#,
    );
    let rows = rows.fetch_all(&mut *session).await;
    Ok(session.read(rows)?.into_iter().map(WorkerRow::worker).collect::<Result<_, _>>()?)
}

async fn one(session: &mut Session, id: WorkerId) -> Result<Option<Worker>, Fault> {
    let row = sqlx::query_as!(
        WorkerRow,
        r#"
        SELECT id, name, key, mode, enrolled_at AS "enrolled_at: Moment", seen_at AS "seen_at: Moment", instance, start,
            tags, slots, running, draining, revoked_at AS "revoked_at: Moment"
        FROM workers WHERE id = $1
        "#,
        id.0,
    );
    let row = row.fetch_optional(&mut **session).await;
    Ok(session.read(row)?.map(WorkerRow::worker).transpose()?)
}

pub(super) async fn set_mode(
    pool: PgPool,
    owner: CoordinatorId,
    id: WorkerId,
    mode: WorkerMode,
    line: AuditLine,
) -> Result<Option<Worker>, Fault> {
    let mut session = Session::of(&pool).await?;
    let set = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        changed AS (
            UPDATE workers w SET mode = $3 FROM me WHERE w.id = $2 AND w.revoked_at IS NULL RETURNING w.id
        ),
        noted AS (
            INSERT INTO audit (at, actor, action, subject, outcome, origin) SELECT $4, $5, $6, $7, $8, $9 FROM changed
        )
        SELECT id FROM me
        "#,
        owner.0,
        id.0,
        mode.name(),
        Moment(line.at) as _,
        line.actor.to_string(),
        line.action,
        line.subject,
        line.outcome,
        line.origin,
    );
    let set = set.fetch_all(&mut *session).await;
    session.wrote(set)?.pop().ok_or(Error::Fenced)?;
    one(&mut session, id).await
}

pub(super) async fn revoke_worker(
    pool: PgPool,
    owner: CoordinatorId,
    id: WorkerId,
    now: Time,
    line: AuditLine,
) -> Result<Option<Worker>, Fault> {
    let mut session = Session::of(&pool).await?;
    let revoked = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        changed AS (
            UPDATE workers w SET revoked_at = $3 FROM me WHERE w.id = $2 AND w.revoked_at IS NULL RETURNING w.id
        ),
        noted AS (
            INSERT INTO audit (at, actor, action, subject, outcome, origin) SELECT $4, $5, $6, $7, $8, $9 FROM changed
        )
        SELECT id FROM me
        "#,
        owner.0,
        id.0,
        Moment(now) as _,
        Moment(line.at) as _,
        line.actor.to_string(),
        line.action,
        line.subject,
        line.outcome,
        line.origin,
    );
    let revoked = revoked.fetch_all(&mut *session).await;
    session.wrote(revoked)?.pop().ok_or(Error::Fenced)?;
    one(&mut session, id).await
}

/// False where there is no room; one whose digest is known already, or becomes known at this moment, changes nothing.
pub(super) async fn add_token(
    pool: PgPool,
    owner: CoordinatorId,
    token: Token,
    line: AuditLine,
) -> Result<bool, Fault> {
    let mut session = Session::of(&pool).await?;
    let added = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        known AS MATERIALIZED (SELECT id FROM tokens WHERE digest = $5),
        expired AS (
            DELETE FROM tokens t USING me WHERE t.expires_at <= $6 AND NOT EXISTS (SELECT FROM known)
        ),
        room AS MATERIALIZED (
            SELECT FROM me
            WHERE (SELECT count(*) FROM tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $6)) < $8
        ),
        added AS (
            INSERT INTO tokens (id, kind, name, digest, created_at, expires_at) SELECT $2, $3, $4, $5, $6, $7
            FROM room WHERE NOT EXISTS (SELECT FROM known)
            ON CONFLICT (digest) DO NOTHING
            RETURNING id
        ),
        noted AS (
            INSERT INTO audit (at, actor, action, subject, outcome, origin) SELECT $9, $10, $11, $12, $13, $14 FROM added
        )
        SELECT EXISTS (SELECT FROM known) OR EXISTS (SELECT FROM room) AS "there!" FROM me
        "#,
        owner.0,
        token.id.0,
        token.kind.name(),
        token.name,
        &token.digest[..],
        Moment(token.created_at) as _,
        token.expires_at.map(Moment) as _,
        i64::from(ROSTER_MAX),
        Moment(line.at) as _,
        line.actor.to_string(),
        line.action,
        line.subject,
        line.outcome,
        line.origin,
    );
    let added = added.fetch_all(&mut *session).await;
    Ok(session.wrote(added)?.pop().ok_or(Error::Fenced)?)
}

pub(super) async fn revoke_token(
    pool: PgPool,
    owner: CoordinatorId,
    id: TokenId,
    now: Time,
    line: AuditLine,
) -> Result<bool, Fault> {
    let mut session = Session::of(&pool).await?;
    let revoked = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        revoked AS (
            UPDATE tokens t SET revoked_at = $3 FROM me
            WHERE t.id = $2 AND t.revoked_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > $3)
            RETURNING t.id
        ),
        noted AS (
            INSERT INTO audit (at, actor, action, subject, outcome, origin) SELECT $4, $5, $6, $7, $8, $9 FROM revoked
        )
        SELECT EXISTS (SELECT FROM revoked) AS "revoked!" FROM me
        "#,
        owner.0,
        id.0,
        Moment(now) as _,
        Moment(line.at) as _,
        line.actor.to_string(),
        line.action,
        line.subject,
        line.outcome,
        line.origin,
    );
    let revoked = revoked.fetch_all(&mut *session).await;
    Ok(session.wrote(revoked)?.pop().ok_or(Error::Fenced)?)
}

pub(super) async fn tokens(pool: PgPool, now: Time) -> Result<Vec<Token>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query!(
        r#"
        SELECT id, kind, name, digest, created_at AS "created_at: Moment", expires_at AS "expires_at: Moment"
        FROM tokens WHERE revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $1) ORDER BY id
        "#,
        Moment(now) as _,
    );
    let rows = rows.fetch_all(&mut *session).await;
    let known = session.read(rows)?.into_iter().filter(|row| {
        let known = TokenKind::named(&row.kind).is_some();
        if !known {
            tracing::warn!(kind = row.kind, "a token of a kind that only a later version knows");
        }
        known
    });
    let tokens = known.map(|row| {
        Ok(Token {
            id: TokenId(row.id),
            kind: TokenKind::named(&row.kind)
                .ok_or_else(|| Error::Corrupt(format!("kind: there is no {}", row.kind)))?,
            name: row.name,
            digest: row::digest("digest", &row.digest)?,
            created_at: row.created_at.0,
            expires_at: row.expires_at.map(|at| at.0),
        })
    });
    Ok(tokens.collect::<Result<_, Error>>()?)
}

/// A row of `workers`.
struct WorkerRow {
    id: Uuid,
    name: String,
    key: Vec<u8>,
    mode: String,
    enrolled_at: Moment,
    seen_at: Option<Moment>,
    instance: Option<Uuid>,
    start: Option<i64>,
    tags: Option<String>,
    slots: Option<i64>,
    running: Option<i64>,
    draining: Option<bool>,
    revoked_at: Option<Moment>,
}

impl WorkerRow {
    fn worker(self) -> Result<Worker, Error> {
        let missing = || Error::Corrupt("workers: a hello without all that it says".to_owned());
        let seen = match self.seen_at {
            None => None,
            Some(at) => Some(Seen {
                at: at.0,
                instance: Instance(self.instance.ok_or_else(missing)?),
                start: row::natural("start", self.start.ok_or_else(missing)?)?,
                tags: row::parsed("tags", &self.tags.ok_or_else(missing)?)?,
                slots: row::natural("slots", self.slots.ok_or_else(missing)?)?,
                running: row::natural("running", self.running.ok_or_else(missing)?)?,
                draining: self.draining.ok_or_else(missing)?,
            }),
        };
        Ok(Worker {
            id: WorkerId(self.id),
            name: self.name,
            key: ProofKey::from_bytes(row::digest("key", &self.key)?),
            mode: mode(&self.mode)?,
            enrolled_at: self.enrolled_at.0,
            revoked_at: self.revoked_at.map(|at| at.0),
            seen,
        })
    }
}

fn mode(name: &str) -> Result<WorkerMode, Error> {
    WorkerMode::named(name).ok_or_else(|| Error::Corrupt(format!("mode: there is no {name}")))
}
