//! What the service does about deploy keys and the master keys that they are kept under: put, shown, listed, removed, and
//! moved on to another master key. Each is in the audit with whoever did it.

use std::time::Duration;

use shared::bus::Hint;
use shared::clock;
use shared::secret::Secret;
use shared::spec::reader::FieldError;

use crate::caller::Caller;
use crate::service::{Error as ServiceError, Service};
use crate::store::{DeployKey, KeyPut, Place, Resealed};
use crate::vault;

pub(crate) mod known_hosts;
pub(crate) mod master;
pub(crate) mod private_key;

pub use known_hosts::KNOWN_HOSTS_BYTES_MAX;
pub use private_key::PRIVATE_KEY_BYTES_MAX;
use private_key::Pair;

/// What the names begin with that windlass gives itself.
const RESERVED: &str = "windlass.";
/// How often a key is read and stored again that somebody else changed meanwhile.
const PUT_MAX: u32 = 5;
/// How many sealed values are moved on to the first master key at a time.
const RESEAL_MAX: u32 = 500;
/// How long one call moves values on: a caller isn't kept waiting for all of them.
const RESEAL_TIME_MAX: Duration = Duration::from_secs(4);

/// Why a deploy key wasn't changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// These fields can't be accepted.
    #[error("the deploy key can't be accepted")]
    Refused(Vec<FieldError>),
    /// There is one of that name, and there mustn't be.
    #[error("there is a deploy key of that name")]
    Exists,
    /// There is none of that name.
    #[error("there is no such deploy key")]
    Missing,
    /// There are as many deploy keys as there may be.
    #[error("there are as many deploy keys as there may be: remove some")]
    TooMany,
    /// Something stored can't be opened, or something new not be closed.
    #[error("{what}: {why}")]
    Sealed { what: String, why: vault::Error },
    /// The first master key can't be noted as one that something is stored under.
    #[error(transparent)]
    MasterKey(#[from] master::Error),
    #[error(transparent)]
    Service(#[from] ServiceError),
}

/// Where a private half comes from.
#[derive(Debug)]
pub enum NewPair {
    /// It is given, in OpenSSH's format.
    Given(Secret),
    /// It is made here: ed25519.
    Generated,
}

/// What a deploy key is to be; what is left out stays as it is.
#[derive(Debug, Default)]
pub struct NewKey {
    pub pair: Option<NewPair>,
    /// A `known_hosts` file.
    pub known_hosts: Option<String>,
}

/// What must hold of a key for it to be put.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Must {
    #[default]
    BeAsItMay,
    /// There is none of that name.
    BeNew,
    /// There is one of that name.
    Exist,
}

/// A key that was put.
#[derive(Debug)]
pub struct Put {
    pub key: DeployKey,
    /// Whether there was none of that name.
    pub new: bool,
}

/// What one call has moved on to the first master key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moved {
    pub values: u64,
    /// Whether nothing is left to be moved.
    pub complete: bool,
}

impl Service {
    /// Stores a deploy key as its next version, and wakes whoever waits for it.
    pub async fn put_key(&self, by: &Caller, name: &str, new: &NewKey, must: Must) -> Result<Put, Error> {
        self.open()?;
        let refuse = |field: &str, why: String| Error::Refused(vec![FieldError::new(field, why)]);
        let fault = name_fault(name);
        if let Some(fault) = fault {
            return Err(refuse("name", fault));
        }
        if let Some(fault) = new.known_hosts.as_deref().and_then(known_hosts::fault) {
            return Err(refuse("known_hosts", fault));
        }
        let pair = match &new.pair {
            None => None,
            Some(NewPair::Generated) => Some(Pair::generate(name).map_err(|why| refuse("generate", why))?),
            Some(NewPair::Given(text)) => Some(Pair::read(text, name).map_err(|why| refuse("private_key", why))?),
        };
        for _ in 0..PUT_MAX {
            let before = self.parts.store.key(name).await.map_err(ServiceError::from)?;
            match (&before, must) {
                (Some(_), Must::BeNew) => return Err(Error::Exists),
                (None, Must::Exist) => return Err(Error::Missing),
                _ => {}
            }
            let key = self.next_version(name, before.as_ref(), pair.as_ref(), new)?;
            if let Some(put) = self.store_key(by, key, before.as_ref()).await? {
                return Ok(put);
            }
        }
        Err(ServiceError::Conflict("somebody else changes the same deploy key".to_owned()).into())
    }

    /// The key as it is to be stored after `before`.
    fn next_version(
        &self,
        name: &str,
        before: Option<&DeployKey>,
        pair: Option<&Pair>,
        new: &NewKey,
    ) -> Result<DeployKey, Error> {
        let now = self.parts.holdings.now();
        let vault = &self.parts.vault;
        let version = before.map_or(0, |before| before.version).saturating_add(1);
        let sealed = |why| Error::Sealed { what: format!("the deploy key {name}"), why };
        let closed = |secret: &Secret| vault.encrypt_key(name, version, secret).map_err(sealed);
        let known_hosts = new.known_hosts.clone().or_else(|| Some(before?.known_hosts.clone()));
        if pair.is_none() && before.is_some() && new.known_hosts.is_none() {
            let why = "nothing would change: give `private_key` or `generate: true` for another pair, \
                       or `known_hosts` for other host keys";
            return Err(Error::Refused(vec![FieldError::new("private_key", why)]));
        }
        // Whoever makes a key gives both.
        if pair.is_none() && before.is_none() {
            let why = "is required: the private half, or `generate: true` to have one made";
            return Err(Error::Refused(vec![FieldError::new("private_key", why)]));
        }
        let Some(known_hosts) = known_hosts else {
            let why = "is required: without the host's keys nobody could tell the host from another";
            return Err(Error::Refused(vec![FieldError::new("known_hosts", why)]));
        };
        let created_at = before.map_or(now, |before| before.created_at);
        let name = name.to_owned();
        match (pair, before) {
            (Some(pair), _) => Ok(DeployKey {
                name,
                version,
                algorithm: pair.algorithm.clone(),
                fingerprint: pair.fingerprint.clone(),
                public_key: pair.public_key.clone(),
                known_hosts,
                private_key: closed(&pair.private_key)?,
                created_at,
                changed_at: now,
            }),
            (None, Some(before)) => {
                let private_key = closed(&vault.decrypt_key(before).map_err(sealed)?)?;
                Ok(DeployKey { version, known_hosts, private_key, changed_at: now, ..before.clone() })
            }
            (None, None) => Err(Error::Missing),
        }
    }

    /// Stores the key in place of `before`; none where that isn't what is there any more.
    async fn store_key(&self, by: &Caller, key: DeployKey, before: Option<&DeployKey>) -> Result<Option<Put>, Error> {
        let action = if before.is_none() { "deploy_key.put" } else { "deploy_key.rotate" };
        let outcome = format!("version {}, {}", key.version, key.fingerprint);
        let line = by.line(self.parts.holdings.now(), action, &key.name, outcome);
        let owner = self.parts.holdings.id();
        let replaces = before.map(|before| before.version);
        match self.parts.store.put_key(owner, &key, replaces, &line).await.map_err(ServiceError::from)? {
            KeyPut::Stored => {
                self.parts.bus.hint(Hint::Keys);
                self.parts.keys_watched.look_now();
                Ok(Some(Put { key, new: before.is_none() }))
            }
            KeyPut::Conflict => Ok(None),
            KeyPut::TooMany => Err(Error::TooMany),
        }
    }

    /// The deploy key of that name.
    pub async fn deploy_key(&self, name: &str) -> Result<DeployKey, Error> {
        if name_fault(name).is_some() {
            return Err(Error::Missing);
        }
        self.parts.store.key(name).await.map_err(ServiceError::from)?.ok_or(Error::Missing)
    }

    /// The deploy keys in the order of their names after `after`; at most `limit`.
    pub async fn deploy_keys(&self, after: Option<&str>, limit: u32) -> Result<Vec<DeployKey>, Error> {
        Ok(self.parts.store.keys(after, limit).await.map_err(ServiceError::from)?)
    }

    /// Removes a deploy key. Whoever has fetched it keeps what it has, until its attempt ends.
    pub async fn remove_key(&self, by: &Caller, name: &str) -> Result<(), Error> {
        self.open()?;
        if name_fault(name).is_some() {
            return Err(Error::Missing);
        }
        let line = by.line(self.parts.holdings.now(), "deploy_key.remove", name, "removed".to_owned());
        let removed = self.parts.store.remove_key(self.parts.holdings.id(), name, &line).await;
        if removed.map_err(ServiceError::from)? { Ok(()) } else { Err(Error::Missing) }
    }

    /// Moves what is sealed on to the first master key, as much of it as can be in [`RESEAL_TIME_MAX`]; once that is all,
    /// the other master keys are forgotten. Interrupted, it is simply called again.
    ///
    /// # Errors
    /// Also when something can't be opened; then everything else was moved on, and no master key is forgotten.
    pub async fn rekey(&self, by: &Caller) -> Result<Moved, Error> {
        self.open()?;
        let (began, store, vault) = (clock::instant(), &self.parts.store, &self.parts.vault);
        let asked = by.line(self.parts.holdings.now(), "vault.rekey", "", "asked".to_owned());
        store.audit(self.parts.holdings.id(), &asked).await.map_err(ServiceError::from)?;
        let (header, mut after, mut values, mut fault) = (vault.header(), None::<Place>, 0, None);
        let complete = loop {
            let page = store.sealed_otherwise(&header, after.as_ref(), RESEAL_MAX).await.map_err(ServiceError::from)?;
            match page.last() {
                // What was stored behind us meanwhile, by a coordinator with another first key, is seen by a second look.
                None if after.is_none() || fault.is_some() => break true,
                None => after = None,
                Some((last, _)) => after = Some(last.clone()),
            }
            let all = self.resealed(page, &mut fault);
            if !all.is_empty() {
                values += u64::from(store.reseal(self.parts.holdings.id(), &all).await.map_err(ServiceError::from)?);
            }
            if began.elapsed() > RESEAL_TIME_MAX {
                break false;
            }
        };
        let checks = vault.checks();
        let first = checks.first().map(|check| check.id.as_str()).unwrap_or_default();
        let outcome = format!("{values} values moved on to this master key");
        let line = by.line(self.parts.holdings.now(), "vault.rekey", first, outcome);
        let owner = self.parts.holdings.id();
        store.audit(owner, &line).await.map_err(ServiceError::from)?;
        if let Some(fault) = fault {
            return Err(fault);
        }
        if complete {
            // A coordinator with another first key may have forgotten ours meanwhile.
            master::note_first(&**store, owner, vault).await?;
            let others: Vec<String> = checks.into_iter().skip(1).map(|check| check.id).collect();
            store.remove_master_keys(owner, &others).await.map_err(ServiceError::from)?;
        }
        Ok(Moved { values, complete })
    }

    /// These values under the first master key, but for those that can't be opened; the first of them is `fault`.
    fn resealed(&self, page: Vec<(Place, Vec<u8>)>, fault: &mut Option<Error>) -> Vec<Resealed> {
        let reseal = |(place, was): (Place, Vec<u8>)| match self.parts.vault.reseal(&place, &was) {
            Ok(is) => Some(Resealed { place, was, is }),
            Err(why) => {
                tracing::error!(?place, %why, "a stored secret can't be moved on to the first master key");
                fault.get_or_insert(Error::Sealed { what: named(&place), why });
                None
            }
        };
        page.into_iter().filter_map(reseal).collect()
    }
}

/// What is stored there, for people.
fn named(place: &Place) -> String {
    match place {
        Place::Job(job) => format!("the secrets of job {job}"),
        Place::DeployKey { name, .. } => format!("the deploy key {name}"),
    }
}

/// Why nobody registers a key under that name through the API, if so: `windlass run` does for a job of its own, and removes
/// what begins so.
pub fn reserved(name: &str) -> Option<&'static str> {
    name.starts_with(RESERVED).then_some("must not begin with `windlass.`: such names are windlass's own")
}

/// Why nothing can be registered under that name, if so.
fn name_fault(name: &str) -> Option<String> {
    use shared::spec::{NAME_BYTES_MAX, key_name_fault, reader::text_fault};
    text_fault(name, NAME_BYTES_MAX).or_else(|| key_name_fault(name).map(str::to_owned))
}
