//! Makes sure at the start that a coordinator has the master keys that the others have: with another under a known id, or
//! without one that something is stored under, it would write what nobody else can read, or fail at what they wrote.

use shared::id::CoordinatorId;

use crate::store::{Error as StoreError, Store};
use crate::vault::Vault;

/// Why these master keys can't be worked with. The keys themselves are in none of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Under that id the others have another key.
    #[error(
        "the master key {0} is not the one that the database knows by that id: \
         give the same key as the other coordinators, or give a new key an id of its own"
    )]
    Differs(String),
    /// Something may be stored under it.
    #[error(
        "the master key {0} is missing: secrets may be stored under it. Give it too, after the first; \
         `windlass key rekey` moves everything on to the first, and then it can go"
    )]
    Missing(String),
    #[error("the database knows too many master keys: `windlass key rekey` forgets those that nothing is stored under")]
    TooMany,
    #[error("comparing the master keys with the database's")]
    Store(#[from] StoreError),
}

/// Compares the vault's keys with those that the store knows, and makes the first one known.
pub async fn admit(store: &dyn Store, owner: CoordinatorId, vault: &Vault) -> Result<(), Error> {
    compare(store, vault).await?;
    let Some(first) = vault.checks().into_iter().next() else { return Ok(()) };
    if !store.add_master_key(owner, &first).await? {
        return Err(Error::TooMany);
    }
    // Another coordinator may have begun at the same time, with other keys.
    compare(store, vault).await
}

async fn compare(store: &dyn Store, vault: &Vault) -> Result<(), Error> {
    let given = vault.checks();
    for known in store.master_keys().await? {
        match given.iter().find(|given| given.id == known.id) {
            None => return Err(Error::Missing(known.id)),
            Some(given) if given.check != known.check => return Err(Error::Differs(known.id)),
            Some(_) => {}
        }
    }
    Ok(())
}
