//! What is stored sealed, wherever it is, and the master keys that it may be sealed under.

use sqlx::postgres::PgPool;

use shared::id::{CoordinatorId, JobId};

use super::fault::Fault;
use super::row;
use super::session::Session;
use crate::store::{Error, MASTER_KEYS_MAX, MasterKeyCheck, Place, Resealed};

pub(super) async fn otherwise(
    pool: PgPool,
    header: Vec<u8>,
    after: Option<Place>,
    limit: u32,
) -> Result<Vec<(Place, Vec<u8>)>, Fault> {
    let mut session = Session::of(&pool).await?;
    let mut found = match &after {
        None => of_jobs(&mut session, &header, None, limit).await?,
        Some(Place::Job(job)) => of_jobs(&mut session, &header, Some(*job), limit).await?,
        Some(Place::DeployKey { .. }) => Vec::new(),
    };
    let rest = i64::from(limit) - row::integer(found.len() as u64)?;
    if rest > 0 {
        found.extend(of_keys(&mut session, &header, after.as_ref(), rest).await?);
    }
    Ok(found)
}

async fn of_jobs(
    session: &mut Session,
    header: &[u8],
    after: Option<JobId>,
    limit: u32,
) -> Result<Vec<(Place, Vec<u8>)>, Fault> {
    let rows = sqlx::query!(
        r#"
        SELECT job_id, value FROM secrets
        WHERE ($2::uuid IS NULL OR job_id > $2) AND substring(value, 1, octet_length($1::bytea)) <> $1
        ORDER BY job_id LIMIT $3
        "#,
        header,
        after.map(JobId::uuid),
        i64::from(limit),
    );
    let rows = rows.fetch_all(&mut **session).await;
    Ok(session.read(rows)?.into_iter().map(|row| (Place::Job(row.job_id.into()), row.value)).collect())
}

async fn of_keys(
    session: &mut Session,
    header: &[u8],
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<(Place, Vec<u8>)>, Fault> {
    let after = match after {
        None | Some(Place::Job(_)) => None,
        Some(Place::DeployKey { name, version }) => Some((name.clone(), i64::from(*version))),
    };
    let (name, version) = after.unzip();
    let rows = sqlx::query!(
        r#"
        SELECT name, version, private_key FROM deploy_keys
        WHERE ($2::text IS NULL OR (name, version) > ($2, $3::bigint))
            AND substring(private_key, 1, octet_length($1::bytea)) <> $1
        ORDER BY name LIMIT $4
        "#,
        header,
        name,
        version,
        limit,
    );
    let rows = rows.fetch_all(&mut **session).await;
    let places = session.read(rows)?.into_iter().map(|row| {
        let place = Place::DeployKey { name: row.name, version: row::natural("version", row.version)? };
        Ok((place, row.private_key))
    });
    Ok(places.collect::<Result<_, Error>>()?)
}

/// What has become another value meanwhile, or a key's other version, stays.
pub(super) async fn reseal(pool: PgPool, owner: CoordinatorId, all: Vec<Resealed>) -> Result<u32, Fault> {
    let (mut jobs, mut jobs_was, mut jobs_are) = (Vec::new(), Vec::new(), Vec::new());
    let (mut names, mut versions, mut keys_was, mut keys_are) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for resealed in all {
        match resealed.place {
            Place::Job(job) => {
                jobs.push(job.uuid());
                jobs_was.push(resealed.was);
                jobs_are.push(resealed.is);
            }
            Place::DeployKey { name, version } => {
                names.push(name);
                versions.push(i64::from(version));
                keys_was.push(resealed.was);
                keys_are.push(resealed.is);
            }
        }
    }
    let mut session = Session::of(&pool).await?;
    let resealed = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        of_jobs AS (
            UPDATE secrets s SET value = r.now
            FROM me, unnest($2::uuid[], $3::bytea[], $4::bytea[]) AS r (job_id, was, now)
            WHERE s.job_id = r.job_id AND s.value = r.was
            RETURNING s.job_id
        ),
        of_keys AS (
            UPDATE deploy_keys k SET private_key = r.now
            FROM me, unnest($5::text[], $6::bigint[], $7::bytea[], $8::bytea[]) AS r (name, version, was, now)
            WHERE k.name = r.name AND k.version = r.version AND k.private_key = r.was
            RETURNING k.name
        )
        SELECT (SELECT count(*) FROM of_jobs) + (SELECT count(*) FROM of_keys) AS "resealed!" FROM me
        "#,
        owner.0,
        &jobs,
        &jobs_was,
        &jobs_are,
        &names,
        &versions,
        &keys_was,
        &keys_are,
    );
    let resealed = resealed.fetch_all(&mut *session).await;
    Ok(row::natural("count", session.wrote(resealed)?.pop().ok_or(Error::Fenced)?)?)
}

pub(super) async fn master_keys(pool: PgPool) -> Result<Vec<MasterKeyCheck>, Fault> {
    let mut session = Session::of(&pool).await?;
    let rows = sqlx::query!(r#"SELECT id, "check" FROM master_keys ORDER BY id"#).fetch_all(&mut *session).await;
    let checks = session
        .read(rows)?
        .into_iter()
        .map(|row| Ok(MasterKeyCheck { id: row.id, check: row::digest("check", &row.check)? }));
    Ok(checks.collect::<Result<_, Error>>()?)
}

/// False where there is no room; an id that is known already, or becomes known at this moment, changes nothing.
pub(super) async fn add_master_key(pool: PgPool, owner: CoordinatorId, check: MasterKeyCheck) -> Result<bool, Fault> {
    let mut session = Session::of(&pool).await?;
    let added = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        known AS MATERIALIZED (SELECT id FROM master_keys WHERE id = $2),
        room AS MATERIALIZED (
            SELECT FROM me WHERE NOT EXISTS (SELECT FROM known) AND counted_alone('master_keys') < $4
        ),
        added AS (
            INSERT INTO master_keys (id, "check") SELECT $2, $3 FROM room
            ON CONFLICT (id) DO NOTHING
        )
        SELECT EXISTS (SELECT FROM known) OR EXISTS (SELECT FROM room) AS "there!" FROM me
        "#,
        owner.0,
        check.id,
        &check.check[..],
        i64::from(MASTER_KEYS_MAX),
    );
    let added = added.fetch_all(&mut *session).await;
    Ok(session.wrote(added)?.pop().ok_or(Error::Fenced)?)
}

pub(super) async fn remove_master_keys(pool: PgPool, owner: CoordinatorId, ids: Vec<String>) -> Result<(), Fault> {
    let mut session = Session::of(&pool).await?;
    let removed = sqlx::query_scalar!(
        r#"
        WITH me AS MATERIALIZED (SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE),
        removed AS (DELETE FROM master_keys k USING me WHERE k.id = ANY ($2))
        SELECT id FROM me
        "#,
        owner.0,
        &ids,
    );
    let removed = removed.fetch_all(&mut *session).await;
    if session.wrote(removed)?.is_empty() { Err(Error::Fenced.into()) } else { Ok(()) }
}
