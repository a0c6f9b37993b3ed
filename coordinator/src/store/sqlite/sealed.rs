//! What is stored sealed, wherever it is, and the master keys that it may be sealed under.

use sqlx::sqlite::SqlitePool;
use sqlx::{Row, SqliteConnection};

use shared::id::JobId;

use super::row;
use crate::store::{Error, MASTER_KEYS_MAX, MasterKeyCheck, Place, Resealed};

pub(super) async fn otherwise(
    readers: &SqlitePool,
    header: &[u8],
    after: Option<&Place>,
    limit: u32,
) -> Result<Vec<(Place, Vec<u8>)>, Error> {
    let mut found = match after {
        None => of_jobs(readers, header, None, limit).await?,
        Some(Place::Job(job)) => of_jobs(readers, header, Some(*job), limit).await?,
        Some(Place::DeployKey { .. }) => Vec::new(),
    };
    let rest = i64::from(limit) - row::integer(found.len() as u64)?;
    if rest > 0 {
        found.extend(of_keys(readers, header, after, rest).await?);
    }
    Ok(found)
}

async fn of_jobs(
    readers: &SqlitePool,
    header: &[u8],
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<(Place, Vec<u8>)>, Error> {
    let sealed = "SELECT job_id, value FROM secrets WHERE job_id > coalesce(?2, x'') \
         AND substr(value, 1, length(?1)) <> ?1 ORDER BY job_id LIMIT ?3";
    let rows = sqlx::query(sealed).bind(header).bind(after.map(JobId::uuid)).bind(limit).fetch_all(readers).await?;
    rows.iter().map(|row| Ok((Place::Job(row::id(row, "job_id")?), row.try_get("value")?))).collect()
}

async fn of_keys(
    readers: &SqlitePool,
    header: &[u8],
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<(Place, Vec<u8>)>, Error> {
    let after = match after {
        None | Some(Place::Job(_)) => None,
        Some(Place::DeployKey { name, version }) => Some((name.clone(), *version)),
    };
    let (name, version) = after.unzip();
    let sealed = "SELECT name, version, private_key FROM deploy_keys \
         WHERE (?2 IS NULL OR (name, version) > (?2, ?3)) AND substr(private_key, 1, length(?1)) <> ?1 \
         ORDER BY name LIMIT ?4";
    let rows = sqlx::query(sealed).bind(header).bind(name).bind(version).bind(limit).fetch_all(readers).await?;
    let places = rows.iter().map(|row| {
        let place = Place::DeployKey { name: row.try_get("name")?, version: row.try_get("version")? };
        Ok((place, row.try_get("private_key")?))
    });
    places.collect()
}

/// What has become another value meanwhile, or a key's other version, stays.
pub(super) async fn reseal(connection: &mut SqliteConnection, all: Vec<Resealed>) -> Result<u32, Error> {
    let mut resealed = 0;
    for Resealed { place, was, is } in all {
        let reseal = match place {
            Place::Job(job) => sqlx::query("UPDATE secrets SET value = ?1 WHERE value = ?2 AND job_id = ?3")
                .bind(is)
                .bind(was)
                .bind(job.uuid()),
            Place::DeployKey { name, version } => {
                let reseal = "UPDATE deploy_keys SET private_key = ?1 WHERE private_key = ?2 \
                     AND name = ?3 AND version = ?4";
                sqlx::query(reseal).bind(is).bind(was).bind(name).bind(version)
            }
        };
        if reseal.execute(&mut *connection).await?.rows_affected() == 1 {
            resealed += 1;
        }
    }
    Ok(resealed)
}

pub(super) async fn master_keys(readers: &SqlitePool) -> Result<Vec<MasterKeyCheck>, Error> {
    let rows = sqlx::query("SELECT * FROM master_keys ORDER BY id").fetch_all(readers).await?;
    rows.iter().map(|row| Ok(MasterKeyCheck { id: row.try_get("id")?, check: row::digest(row, "check")? })).collect()
}

pub(super) async fn add_master_key(connection: &mut SqliteConnection, check: MasterKeyCheck) -> Result<bool, Error> {
    let known = sqlx::query("SELECT 1 FROM master_keys WHERE id = ?1").bind(check.id.clone());
    if known.fetch_optional(&mut *connection).await?.is_some() {
        return Ok(true);
    }
    let add = "INSERT INTO master_keys (id, \"check\") SELECT ?1, ?2 WHERE (SELECT count(*) FROM master_keys) < ?3";
    let added =
        sqlx::query(add).bind(check.id).bind(check.check.to_vec()).bind(MASTER_KEYS_MAX).execute(connection).await?;
    Ok(added.rows_affected() == 1)
}

pub(super) async fn remove_master_keys(connection: &mut SqliteConnection, ids: Vec<String>) -> Result<(), Error> {
    let remove = "DELETE FROM master_keys WHERE id IN (SELECT value FROM json_each(?1))";
    sqlx::query(remove).bind(row::json(&ids)?).execute(connection).await?;
    Ok(())
}
