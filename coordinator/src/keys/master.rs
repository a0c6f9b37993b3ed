//! Makes sure at the start that a coordinator has the master keys that the others have: with another under a known id, or
//! without one that something is stored under, it would write what nobody else can read, or fail at what they wrote.

use std::sync::Arc;
use std::time::Duration;

use shared::id::CoordinatorId;

use crate::holdings::Holdings;
use crate::store::{Error as StoreError, MasterKeyCheck, Store};
use crate::vault::Vault;

/// Why these master keys can't be worked with. The keys themselves are in none of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Under that id the others have another key.
    #[error(
        "the master key {0} is not the one that the database knows by that id: \
         give the same key as the other coordinators, or give a new key an id of its own \
         (in WINDLASS_MASTER_KEYS; `windlass dev` and `windlass run` read it from `master.key` in the data directory)"
    )]
    Differs(String),
    /// Something may be stored under it.
    #[error(
        "the master key {0} is missing: secrets may be stored under it. Give it too, after the first \
         (in WINDLASS_MASTER_KEYS; `windlass dev` and `windlass run` read it from `master.key` in the data directory); \
         `windlass key rekey` moves everything on to the first, and then it can go"
    )]
    Missing(String),
    /// It was noted, and another coordinator took the note away.
    #[error(
        "the master key {0} was forgotten by a `windlass key rekey` elsewhere while this coordinator began: start it again"
    )]
    Forgotten(String),
    #[error("the database knows too many master keys: `windlass key rekey` forgets those that nothing is stored under")]
    TooMany,
    #[error("comparing the master keys with the database's")]
    Store(#[from] StoreError),
}

/// How often a coordinator makes sure that its first key is known.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Compares the vault's keys with those that the store knows.
pub async fn compare_with(store: &dyn Store, vault: &Vault) -> Result<(), Error> {
    compare(&vault.checks(), &store.master_keys().await?)
}

/// The same, and makes the first one known.
pub async fn admit(store: &dyn Store, owner: CoordinatorId, vault: &Vault) -> Result<(), Error> {
    let given = vault.checks();
    compare_with(store, vault).await?;
    note_first(store, owner, vault).await?;
    // Another coordinator may have begun at the same time, with other keys, or may have forgotten ours just now.
    admitted(&given, &store.master_keys().await?)
}

/// Makes the first key known again where a coordinator with another first key has forgotten it: something is written under
/// it as long as this one runs. Until it is dropped.
pub async fn keep_known(store: Arc<dyn Store>, holdings: Arc<Holdings>, vault: Arc<Vault>) {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // After a recovery it is under another id that this coordinator writes.
        if let Err(error) = note_first(&*store, holdings.id(), &vault).await {
            tracing::warn!(%error, "noting the first master key");
        }
    }
}

/// Makes the first key known, where it isn't: nothing may be forgotten or written before.
pub async fn note_first(store: &dyn Store, owner: CoordinatorId, vault: &Vault) -> Result<(), Error> {
    let Some(first) = vault.checks().into_iter().next() else { return Ok(()) };
    if store.add_master_key(owner, &first).await? { Ok(()) } else { Err(Error::TooMany) }
}

/// Whether these keys are as the others know them, the first one among them.
fn admitted(given: &[MasterKeyCheck], known: &[MasterKeyCheck]) -> Result<(), Error> {
    compare(given, known)?;
    match given.first().filter(|first| known.iter().all(|known| known.id != first.id)) {
        None => Ok(()),
        Some(first) => Err(Error::Forgotten(first.id.clone())),
    }
}

fn compare(given: &[MasterKeyCheck], known: &[MasterKeyCheck]) -> Result<(), Error> {
    for known in known {
        match given.iter().find(|given| given.id == known.id) {
            None => return Err(Error::Missing(known.id.clone())),
            Some(given) if given.check != known.check => return Err(Error::Differs(known.id.clone())),
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Error, MasterKeyCheck, admitted};

    #[test]
    fn whoever_writes_under_a_key_that_was_forgotten_is_not_admitted() {
        let check = |id: &str| MasterKeyCheck { id: id.to_owned(), check: [1; 32] };
        let given = [check("new"), check("old")];
        assert_eq!(admitted(&given, &[check("old")]), Err(Error::Forgotten("new".to_owned())));
        assert_eq!(admitted(&given, &[check("new"), check("old")]), Ok(()));
        assert_eq!(admitted(&given[..1], &given), Err(Error::Missing("old".to_owned())));
    }
}
