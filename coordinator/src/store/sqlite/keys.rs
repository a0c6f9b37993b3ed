//! Deploy keys: what is registered, and which jobs wait for it. The audit is in [`super::audit`], what is sealed and under
//! which master keys in [`super::sealed`].

use async_trait::async_trait;
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Row, SqliteConnection};

use shared::id::{CoordinatorId, JobId, Shard};

use super::{SqliteStore, audit, row, sealed};
use crate::store::{AuditLine, DEPLOY_KEYS_MAX, DeployKey, Error, KeyPut, Keys, MasterKeyCheck, Place, Resealed};

#[async_trait]
impl Keys for SqliteStore {
    async fn put_key(
        &self,
        owner: CoordinatorId,
        key: &DeployKey,
        replaces: Option<u32>,
        audit: &AuditLine,
    ) -> Result<KeyPut, Error> {
        let (key, line) = (key.clone(), audit.clone());
        self.write(owner, move |connection| Box::pin(put(connection, key, replaces, line))).await
    }

    async fn remove_key(&self, owner: CoordinatorId, name: &str, audit: &AuditLine) -> Result<bool, Error> {
        let (name, line) = (name.to_owned(), audit.clone());
        self.write(owner, move |connection| Box::pin(remove(connection, name, line))).await
    }

    async fn key(&self, name: &str) -> Result<Option<DeployKey>, Error> {
        let row = sqlx::query("SELECT * FROM deploy_keys WHERE name = ?1").bind(name).fetch_optional(&self.readers);
        row.await?.as_ref().map(key).transpose()
    }

    async fn keys(&self, after: Option<&str>, limit: u32) -> Result<Vec<DeployKey>, Error> {
        let keys = "SELECT * FROM deploy_keys WHERE name > coalesce(?1, '') ORDER BY name LIMIT ?2";
        let rows = sqlx::query(keys).bind(after).bind(limit).fetch_all(&self.readers).await?;
        rows.iter().map(key).collect()
    }

    async fn registered(&self, names: &[String]) -> Result<Vec<String>, Error> {
        let there = "SELECT name FROM deploy_keys WHERE name IN (SELECT value FROM json_each(?1)) ORDER BY name";
        let rows = sqlx::query(there).bind(row::json(&names)?).fetch_all(&self.readers).await?;
        rows.iter().map(|row| Ok(row.try_get("name")?)).collect()
    }

    async fn unblocked(
        &self,
        shards: &[Shard],
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, String)>, Error> {
        unblocked(&self.readers, shards, after, limit).await
    }

    async fn audit(&self, owner: CoordinatorId, line: &AuditLine) -> Result<bool, Error> {
        let line = line.clone();
        self.write(owner, move |connection| Box::pin(audit::note(connection, line))).await
    }

    async fn note(&self, owner: CoordinatorId, lines: &[AuditLine]) -> Result<(), Error> {
        let lines = lines.to_vec();
        self.write(owner, move |connection| Box::pin(audit::add_all(connection, lines))).await
    }

    async fn audited(&self, subject: Option<&str>, limit: u32) -> Result<Vec<AuditLine>, Error> {
        audit::about(&self.readers, subject, limit).await
    }

    async fn sealed_otherwise(
        &self,
        header: &[u8],
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<(Place, Vec<u8>)>, Error> {
        sealed::otherwise(&self.readers, header, after, limit).await
    }

    async fn reseal(&self, owner: CoordinatorId, all: &[Resealed]) -> Result<u32, Error> {
        let all = all.to_vec();
        self.write(owner, move |connection| Box::pin(sealed::reseal(connection, all))).await
    }

    async fn master_keys(&self) -> Result<Vec<MasterKeyCheck>, Error> {
        sealed::master_keys(&self.readers).await
    }

    async fn add_master_key(&self, owner: CoordinatorId, check: &MasterKeyCheck) -> Result<bool, Error> {
        let check = check.clone();
        self.write(owner, move |connection| Box::pin(sealed::add_master_key(connection, check))).await
    }

    async fn remove_master_keys(&self, owner: CoordinatorId, ids: &[String]) -> Result<(), Error> {
        let ids = ids.to_vec();
        self.write(owner, move |connection| Box::pin(sealed::remove_master_keys(connection, ids))).await
    }
}

async fn put(
    connection: &mut SqliteConnection,
    key: DeployKey,
    replaces: Option<u32>,
    line: AuditLine,
) -> Result<KeyPut, Error> {
    let known = sqlx::query("SELECT version FROM deploy_keys WHERE name = ?1").bind(key.name.clone());
    let known: Option<u32> =
        known.fetch_optional(&mut *connection).await?.map(|row| row.try_get("version")).transpose()?;
    if known != replaces {
        return Ok(KeyPut::Conflict);
    }
    // A key that is replaced keeps the time of its first version.
    let put = "INSERT INTO deploy_keys \
         (name, version, algorithm, fingerprint, public_key, known_hosts, private_key, created_at, changed_at) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9 WHERE ?10 OR (SELECT count(*) FROM deploy_keys) < ?11 \
         ON CONFLICT (name) DO UPDATE SET version = excluded.version, algorithm = excluded.algorithm, \
         fingerprint = excluded.fingerprint, public_key = excluded.public_key, known_hosts = excluded.known_hosts, \
         private_key = excluded.private_key, changed_at = excluded.changed_at";
    let stored = sqlx::query(put)
        .bind(key.name)
        .bind(key.version)
        .bind(key.algorithm)
        .bind(key.fingerprint)
        .bind(key.public_key)
        .bind(key.known_hosts)
        .bind(key.private_key)
        .bind(key.created_at.micros())
        .bind(key.changed_at.micros())
        .bind(known.is_some())
        .bind(DEPLOY_KEYS_MAX)
        .execute(&mut *connection)
        .await?;
    if stored.rows_affected() == 0 {
        return Ok(KeyPut::TooMany);
    }
    audit::add(connection, line).await?;
    Ok(KeyPut::Stored)
}

async fn remove(connection: &mut SqliteConnection, name: String, line: AuditLine) -> Result<bool, Error> {
    let removed = sqlx::query("DELETE FROM deploy_keys WHERE name = ?1").bind(name).execute(&mut *connection).await?;
    if removed.rows_affected() == 0 {
        return Ok(false);
    }
    audit::add(connection, line).await?;
    Ok(true)
}

/// The blocked ones are found first, by the index that has no others.
async fn unblocked(
    readers: &SqlitePool,
    shards: &[Shard],
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<(JobId, String)>, Error> {
    let unblocked = "SELECT id, blocked_on FROM jobs INDEXED BY jobs_blocked \
         WHERE blocked_on IS NOT NULL AND state = 'blocked' AND id > coalesce(?1, x'') \
         AND shard IN (SELECT value FROM json_each(?2)) AND blocked_on IN (SELECT name FROM deploy_keys) \
         ORDER BY id LIMIT ?3";
    let rows = sqlx::query(unblocked).bind(after.map(JobId::uuid)).bind(row::json(&shards)?).bind(limit);
    let rows = rows.fetch_all(readers).await?;
    rows.iter().map(|row| Ok((row::id(row, "id")?, row.try_get("blocked_on")?))).collect()
}

/// The deploy key that a whole row of `deploy_keys` holds.
fn key(row: &SqliteRow) -> Result<DeployKey, Error> {
    Ok(DeployKey {
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        algorithm: row.try_get("algorithm")?,
        fingerprint: row.try_get("fingerprint")?,
        public_key: row.try_get("public_key")?,
        known_hosts: row.try_get("known_hosts")?,
        private_key: row.try_get("private_key")?,
        created_at: row::time(row, "created_at")?,
        changed_at: row::time(row, "changed_at")?,
    })
}
