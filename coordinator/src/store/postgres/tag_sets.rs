//! Which tag sets are known. One that isn't is added in a short step before the batch that needs it, outside the hot way:
//! the batch itself only locks the sets that it needs, so that none is taken away under it.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use shared::id::CoordinatorId;

use super::columns::{self, NO_TAGS};
use super::fault::Fault;
use super::session::Session;
use crate::store::{Error, TAG_SETS_MAX, Write};

/// The number of the lock that whoever adds or removes tag sets holds: "tag sets" in ASCII.
const LOCK: i64 = i64::from_be_bytes(*b"tag sets");

/// The tag sets that were in the database when it was last asked. Another coordinator may have removed some since:
/// the statement that needs one finds that out.
#[derive(Default)]
pub(super) struct Known(Mutex<HashSet<String>>);

impl Known {
    /// Nothing is taken for known any more.
    pub(super) fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Those that aren't among them, each once, in the order given.
    fn unknown(&self, needed: Vec<String>) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = HashSet::new();
        needed.into_iter().filter(|tags| !known.contains(tags) && seen.insert(tags.clone())).collect()
    }

    fn note(&self, tags: &[String]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that were removed since stay in it, so it is bounded by itself.
        if known.len() + tags.len() > 2 * usize::try_from(TAG_SETS_MAX).unwrap_or(usize::MAX) {
            known.clear();
        }
        known.extend(tags.iter().cloned());
    }
}

/// Adds the tag sets that the new jobs of `writes` need and that aren't there; returns those that there is no room for.
pub(super) async fn add(
    session: &mut Session,
    known: &Known,
    owner: CoordinatorId,
    writes: &[Write],
) -> Result<HashSet<String>, Fault> {
    let needed = needed(writes)?;
    let unknown = known.unknown(needed);
    if unknown.is_empty() {
        return Ok(HashSet::new());
    }
    session.begin().await?;
    match make_known(session, known, owner, &unknown).await {
        Ok(there) => {
            session.commit().await.map_err(|fault| match fault {
                // A set more is no harm, so whether it was added needn't be known.
                Fault::Told(Error::Unknown(why)) => Fault::Told(Error::Unavailable(why)),
                fault => fault,
            })?;
            known.note(&there);
            let there: HashSet<&String> = there.iter().collect();
            Ok(unknown.iter().filter(|tags| !there.contains(tags)).cloned().collect())
        }
        Err(fault) => {
            session.roll_back().await;
            Err(fault)
        }
    }
}

fn needed(writes: &[Write]) -> Result<Vec<String>, Error> {
    let new = writes.iter().flat_map(|write| match write {
        Write::Submit(jobs) => jobs.as_slice(),
        Write::Change { .. } => &[],
    });
    let tagged = new.filter(|new| !new.transition.job.spec.tags.is_empty());
    tagged.map(|new| columns::tag_set(&new.transition.job)).collect()
}

/// Those of `tags` that are there in the end: at the bound, those that no open job needs make room.
async fn make_known(
    session: &mut Session,
    known: &Known,
    owner: CoordinatorId,
    tags: &[String],
) -> Result<Vec<String>, Fault> {
    let lease = sqlx::query_scalar!("SELECT id FROM coordinators WHERE id = $1 FOR KEY SHARE", owner.0);
    let lease = lease.fetch_optional(&mut **session).await;
    session.read(lease)?.ok_or(Error::Fenced)?;
    let turn = sqlx::query!("SELECT pg_advisory_xact_lock($1)", LOCK).execute(&mut **session).await;
    session.read(turn)?;
    let hashes: Vec<Vec<u8>> = tags.iter().map(|tags| columns::digest(tags)).collect();
    let there = add_where_there_is_room(session, &hashes, tags).await?;
    if there.len() == tags.len() {
        return Ok(there);
    }
    known.forget();
    make_room(session, &hashes).await?;
    add_where_there_is_room(session, &hashes, tags).await
}

/// Adds what isn't there, in the order of `tags`, as far as the bound allows; returns all of them that are there then.
async fn add_where_there_is_room(
    session: &mut Session,
    hashes: &[Vec<u8>],
    tags: &[String],
) -> Result<Vec<String>, Fault> {
    let added = sqlx::query!(
        r#"
        INSERT INTO tag_sets (hash, tags)
        SELECT a.hash, a.tags FROM unnest($1::bytea[], $2::text[]) WITH ORDINALITY AS a (hash, tags, nr)
        WHERE NOT EXISTS (SELECT FROM tag_sets t WHERE t.hash = a.hash)
        ORDER BY a.nr LIMIT greatest(0, $3::bigint - (SELECT count(*) FROM tag_sets))
        "#,
        hashes,
        tags,
        i64::from(TAG_SETS_MAX),
    );
    let added = added.execute(&mut **session).await;
    session.read(added)?;
    let there = sqlx::query_scalar!("SELECT tags FROM tag_sets WHERE hash = ANY ($1)", hashes);
    let there = there.fetch_all(&mut **session).await;
    session.read(there)
}

/// Removes the tag sets that no open job needs, but for `kept`. They are locked first: a statement that needs one has
/// locked it too and is waited for, so that the one which looks at the jobs afterwards sees what it has stored.
async fn make_room(session: &mut Session, kept: &[Vec<u8>]) -> Result<(), Fault> {
    let locked = sqlx::query!("SELECT hash FROM tag_sets WHERE tags <> $1 ORDER BY hash FOR UPDATE", NO_TAGS);
    let locked = locked.fetch_all(&mut **session).await;
    session.read(locked)?;
    let removed = sqlx::query!(
        r#"
        DELETE FROM tag_sets t WHERE t.tags <> $1 AND NOT t.hash = ANY ($2)
            AND NOT EXISTS (SELECT FROM jobs j WHERE j.phase IN ('waiting', 'queued', 'live') AND j.tags = t.tags)
        "#,
        NO_TAGS,
        kept,
    );
    let removed = removed.execute(&mut **session).await;
    session.read(removed).map(drop)
}
