//! Deploy keys: what is registered, and which jobs wait for it. The audit is in [`super::audit`], what is sealed and under
//! which master keys in [`super::sealed`].

use async_trait::async_trait;
use sqlx::postgres::PgPool;

use shared::id::{CoordinatorId, JobId, Shard};

use super::fault::Fault;
use super::row::{self, Moment};
use super::session::Session;
use super::{PostgresStore, audit, sealed};
use crate::store::{AuditLine, DEPLOY_KEYS_MAX, DeployKey, Error, KeyPut, Keys, MasterKeyCheck, Place, Resealed};

#[async_trait]
impl Keys for PostgresStore {
    async fn put_key(
        &self,
        owner: CoordinatorId,
        key: &DeployKey,
        replaces: Option<u32>,
        audit: &AuditLine,
    ) -> Result<KeyPut, Error> {
        let (pool, key, line) = (self.others.clone(), key.clone(), audit.clone());
        self.write("put_key", move || put(pool.clone(), owner, key.clone(), replaces, line.clone())).await
    }

    async fn remove_key(&self, owner: CoordinatorId, name: &str, audit: &AuditLine) -> Result<bool, Error> {
        let (pool, name, line) = (self.others.clone(), name.to_owned(), audit.clone());
        self.write("remove_key", move || remove(pool.clone(), owner, name.clone(), line.clone())).await
    }

    async fn key(&self, name: &str) -> Result<Option<DeployKey>, Error> {
        let (pool, name) = (self.others.clone(), name.to_owned());
        self.read("key", move || key(pool.clone(), name.clone())).await
    }

    async fn keys(&self, after: Option<&str>, limit: u32) -> Result<Vec<DeployKey>, Error> {
        let (pool, after) = (self.questions.clone(), after.map(str::to_owned));
        self.read("keys", move || keys(pool.clone(), after.clone(), limit)).await
    }

    async fn registered(&self, names: &[String]) -> Result<Vec<String>, Error> {
        let (pool, names) = (self.others.clone(), names.to_vec());
        self.read("registered", move || registered(pool.clone(), names.clone())).await
    }

    async fn unblocked(
        &self,
        shards: &[Shard],
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, String)>, Error> {
        let (pool, shards) = (self.others.clone(), shards.to_vec());
        self.read("unblocked", move || unblocked(pool.clone(), shards.clone(), after, limit)).await
    }

    async fn audit(&self, owner: CoordinatorId, line: &AuditLine) -> Result<bool, Error> {
        let (pool, line) = (self.others.clone(), line.clone());
        self.write("audit", move || audit::note(pool.clone(), owner, line.clone())).await
    }

    async fn note(&self, owner: CoordinatorId, lines: &[AuditLine]) -> Result<(), Error> {
        let (pool, lines) = (self.others.clone(), lines.to_vec());
        self.write("note", move || audit::add_all(pool.clone(), owner, lines.clone())).await
    }

    async fn audited(&self, subject: Option<&str>, limit: u32) -> Result<Vec<AuditLine>, Error> {
        let (pool, subject) = (self.questions.clone(), subject.map(str::to_owned));
        self.read("audited", move || audit::about(pool.clone(), subject.clone(), limit)).await
    }

    async fn sealed_otherwise(
        &self,
        header: &[u8],
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<(Place, Vec<u8>)>, Error> {
        let (pool, header, after) = (self.others.clone(), header.to_vec(), after.cloned());
        self.read("sealed_otherwise", move || sealed::otherwise(pool.clone(), header.clone(), after.clone(), limit))
            .await
    }

    async fn reseal(&self, owner: CoordinatorId, all: &[Resealed]) -> Result<u32, Error> {
        let (pool, all) = (self.others.clone(), all.to_vec());
        self.write("reseal", move || sealed::reseal(pool.clone(), owner, all.clone())).await
    }

    async fn master_keys(&self) -> Result<Vec<MasterKeyCheck>, Error> {
        let pool = self.others.clone();
        self.read("master_keys", move || sealed::master_keys(pool.clone())).await
    }

    async fn add_master_key(&self, owner: CoordinatorId, check: &MasterKeyCheck) -> Result<bool, Error> {
        let (pool, check) = (self.others.clone(), check.clone());
        self.write("add_master_key", move || sealed::add_master_key(pool.clone(), owner, check.clone())).await
    }

    async fn remove_master_keys(&self, owner: CoordinatorId, ids: &[String]) -> Result<(), Error> {
        let (pool, ids) = (self.others.clone(), ids.to_vec());
        self.write("remove_master_keys", move || sealed::remove_master_keys(pool.clone(), owner, ids.clone())).await
    }
}

/// A key that is replaced keeps the time of its first version.
async fn put(
    pool: PgPool,
    owner: CoordinatorId,
    key: DeployKey,
    replaces: Option<u32>,
    line: AuditLine,
) -> Result<KeyPut, Fault> {
    let mut session = Session::of(&pool).await?;
    let put = sqlx::query!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        known AS MATERIALIZED (SELECT name FROM deploy_keys WHERE name = $2),
        replaced AS (
            UPDATE deploy_keys k SET version = $3, algorithm = $4, fingerprint = $5, public_key = $6, known_hosts = $7,
                private_key = $8, changed_at = $10
            FROM me WHERE k.name = $2 AND k.version = $11
            RETURNING k.name
        ),
        room AS MATERIALIZED (
            SELECT FROM me
            WHERE $11::bigint IS NULL AND NOT EXISTS (SELECT FROM known) AND counted_alone('deploy_keys') < $12
        ),
        added AS (
            INSERT INTO deploy_keys
                (name, version, algorithm, fingerprint, public_key, known_hosts, private_key, created_at, changed_at)
            SELECT $2, $3, $4, $5, $6, $7, $8, $9, $10 FROM room
            ON CONFLICT (name) DO NOTHING
            RETURNING name
        ),
        stored AS MATERIALIZED (SELECT name FROM replaced UNION ALL SELECT name FROM added),
        noted AS (
            INSERT INTO audit (at, actor, action, subject, outcome, job_id, attempt, request, origin)
            SELECT $13, $14, $15, $16, $17, $18, $19, $20, $21 FROM stored
        )
        SELECT EXISTS (SELECT FROM stored) AS "stored!",
            $11::bigint IS NULL AND NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM room) AS "full!"
        FROM me
        "#,
        owner.0,
        key.name,
        i64::from(key.version),
        key.algorithm,
        key.fingerprint,
        key.public_key,
        key.known_hosts,
        key.private_key,
        Moment(key.created_at) as _,
        Moment(key.changed_at) as _,
        replaces.map(i64::from),
        i64::from(DEPLOY_KEYS_MAX),
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
    let put = put.fetch_all(&mut *session).await;
    Ok(match session.wrote(put)?.pop().ok_or(Error::Fenced)? {
        row if row.stored => KeyPut::Stored,
        row if row.full => KeyPut::TooMany,
        _ => KeyPut::Conflict,
    })
}

async fn remove(pool: PgPool, owner: CoordinatorId, name: String, line: AuditLine) -> Result<bool, Fault> {
    let mut session = Session::of(&pool).await?;
    let removed = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        removed AS (DELETE FROM deploy_keys k USING me WHERE k.name = $2 RETURNING k.name),
        noted AS (
            INSERT INTO audit (at, actor, action, subject, outcome, job_id, attempt, request, origin)
            SELECT $3, $4, $5, $6, $7, $8, $9, $10, $11 FROM removed
        )
        SELECT EXISTS (SELECT FROM removed) AS "removed!" FROM me
        "#,
        owner.0,
        name,
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
    let removed = removed.fetch_all(&mut *session).await;
    Ok(session.wrote(removed)?.pop().ok_or(Error::Fenced)?)
}

async fn key(pool: PgPool, name: String) -> Result<Option<DeployKey>, Fault> {
    let mut session = Session::of(&pool).await?;
    let row = sqlx::query_as!(
        KeyRow,
        r#"
        SELECT name, version, algorithm, fingerprint, public_key, known_hosts, private_key,
            created_at AS "created_at: Moment", changed_at AS "changed_at: Moment"
        FROM deploy_keys WHERE name = $1
        "#,
        name,
    );
    let row = row.fetch_optional(&mut *session).await;
    Ok(session.read(row)?.map(KeyRow::key).transpose()?)
}

async fn keys(pool: PgPool, after: Option<String>, limit: u32) -> Result<Vec<DeployKey>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query_as!(
        KeyRow,
        r#"
        SELECT name, version, algorithm, fingerprint, public_key, known_hosts, private_key,
            created_at AS "created_at: Moment", changed_at AS "changed_at: Moment"
        FROM deploy_keys WHERE $1::text IS NULL OR name > $1 ORDER BY name LIMIT $2
        "#,
        after,
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    Ok(session.read(rows)?.into_iter().map(KeyRow::key).collect::<Result<_, _>>()?)
}

async fn registered(pool: PgPool, names: Vec<String>) -> Result<Vec<String>, Fault> {
    let mut session = Session::of(&pool).await?;
    let there = sqlx::query_scalar!("SELECT name FROM deploy_keys WHERE name = ANY ($1) ORDER BY name", &names);
    let there = there.fetch_all(&mut *session).await;
    session.read(there)
}

/// All are found before they are put in order, so that it is done by the index of the blocked ones: in the order of their
/// ids, until there are enough, every job would be looked at where there is none.
async fn unblocked(
    pool: PgPool,
    shards: Vec<Shard>,
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<(JobId, String)>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query!(
        r#"
        WITH unblocked AS MATERIALIZED (
            SELECT j.id, k.name FROM jobs j JOIN deploy_keys k ON k.name = j.blocked_on
            WHERE j.blocked_on IS NOT NULL AND j.state = 'blocked'
                AND j.shard = ANY ($1) AND ($2::uuid IS NULL OR j.id > $2)
        )
        SELECT id, name FROM unblocked ORDER BY id LIMIT $3
        "#,
        &row::smalls(&shards),
        after.map(JobId::uuid),
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut *session).await;
    Ok(session.read(rows)?.into_iter().map(|row| (row.id.into(), row.name)).collect())
}

/// A row of `deploy_keys`.
struct KeyRow {
    name: String,
    version: i64,
    algorithm: String,
    fingerprint: String,
    public_key: String,
    known_hosts: String,
    private_key: Vec<u8>,
    created_at: Moment,
    changed_at: Moment,
}

impl KeyRow {
    fn key(self) -> Result<DeployKey, Error> {
        Ok(DeployKey {
            name: self.name,
            version: row::natural("version", self.version)?,
            algorithm: self.algorithm,
            fingerprint: self.fingerprint,
            public_key: self.public_key,
            known_hosts: self.known_hosts,
            private_key: self.private_key,
            created_at: self.created_at.0,
            changed_at: self.changed_at.0,
        })
    }
}
