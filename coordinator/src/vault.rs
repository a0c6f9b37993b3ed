//! What is kept secret at rest: encrypted under a master key, each ciphertext bound to the one place it belongs to, so
//! that rows can't be swapped. Sealing to a worker is [`shared::seal`]'s.

use std::collections::BTreeMap;

use chacha20poly1305::XNonce;
use chacha20poly1305::aead::{Aead, Payload};
use zeroize::Zeroizing;

use shared::clock;
use shared::id::JobId;
use shared::seal::{self, Sealed};
use shared::secret::{Secret, Secrets};
use shared::wire::{KNOWN_HOSTS_SECRET, PRIVATE_KEY_SECRET};

use crate::store::{DeployKey, MasterKeyCheck, Place};

mod master_keys;

use master_keys::MasterKey;
pub use master_keys::MasterKeys;

/// The form of a ciphertext: format, length of the key's id, the id, the nonce, the sealed bytes.
const FORMAT: u8 = 1;
/// Bytes of an `XChaCha20-Poly1305` nonce: long enough to be drawn at random (draft-irtf-cfrg-xchacha-03).
const NONCE_BYTES: usize = 24;

/// Why the vault can't do it. It never says what was inside.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The text isn't `id:base64` of 32 bytes, comma-separated.
    #[error("master keys must be id:base64 of 32 bytes, comma-separated: {0}")]
    Keys(&'static str),
    /// The key that it was encrypted under isn't among the master keys.
    #[error("the master key {0} is needed and not given")]
    KeyMissing(String),
    /// Damaged, or moved here from another place.
    #[error("stored secrets are damaged or belong elsewhere")]
    Damaged,
    /// A worker's one-time key that isn't one.
    #[error("sealing secrets to a worker")]
    Recipient,
}

/// Encrypts and opens what the store keeps secret.
#[derive(Debug)]
pub struct Vault {
    keys: MasterKeys,
}

impl Vault {
    /// A vault with these keys.
    pub fn new(keys: MasterKeys) -> Self {
        Self { keys }
    }

    /// A job's secrets for the store; none where it has none.
    ///
    /// # Errors
    /// Only when the cipher refuses, which it doesn't for inputs of this size.
    pub fn encrypt(&self, job: JobId, secrets: &Secrets) -> Result<Option<Vec<u8>>, Error> {
        if secrets.is_empty() {
            return Ok(None);
        }
        let plain = Zeroizing::new(serde_json::to_vec(secrets).map_err(|_| Error::Damaged)?);
        self.close(&Place::Job(job), &plain).map(Some)
    }

    /// A job's secrets from what the store kept for that very job.
    ///
    /// # Errors
    /// When they are damaged, belong to another job, or their master key isn't there.
    pub fn decrypt(&self, job: JobId, stored: &[u8]) -> Result<Secrets, Error> {
        serde_json::from_slice(&self.open(&Place::Job(job), stored)?).map_err(|_| Error::Damaged)
    }

    /// A job's stored secrets, sealed to the one-time key of a claim.
    ///
    /// # Errors
    /// As [`Vault::decrypt`], and when `recipient` is no public key.
    pub fn seal(&self, job: JobId, stored: &[u8], recipient: &str) -> Result<Sealed, Error> {
        seal::seal(&self.decrypt(job, stored)?, recipient).map_err(|_| Error::Recipient)
    }

    /// The private half of that version of a deploy key, for the store.
    ///
    /// # Errors
    /// As [`Vault::encrypt`].
    pub fn encrypt_key(&self, name: &str, version: u32, private_key: &Secret) -> Result<Vec<u8>, Error> {
        self.close(&Place::DeployKey { name: name.to_owned(), version }, private_key.reveal().as_bytes())
    }

    /// The private half from what the store kept for that very version of that key.
    ///
    /// # Errors
    /// When it is damaged, belongs to another key or version, or its master key isn't there.
    pub fn decrypt_key(&self, key: &DeployKey) -> Result<Secret, Error> {
        let place = Place::DeployKey { name: key.name.clone(), version: key.version };
        let plain = self.open(&place, &key.private_key)?;
        let text = std::str::from_utf8(&plain).map_err(|_| Error::Damaged)?;
        Ok(Secret::new(text.to_owned()))
    }

    /// A stored deploy key with its host keys, sealed to the one-time key of whoever asked for it.
    ///
    /// # Errors
    /// As [`Vault::decrypt_key`], and when `recipient` is no public key.
    pub fn seal_key(&self, key: &DeployKey, recipient: &str) -> Result<Sealed, Error> {
        let secrets = Secrets(BTreeMap::from([
            (PRIVATE_KEY_SECRET.to_owned(), self.decrypt_key(key)?),
            (KNOWN_HOSTS_SECRET.to_owned(), Secret::new(key.known_hosts.clone())),
        ]));
        seal::seal(&secrets, recipient).map_err(|_| Error::Recipient)
    }

    /// What everything begins with that is encrypted under the first master key, and nothing else.
    pub fn header(&self) -> Vec<u8> {
        header(&self.keys.first)
    }

    /// What is stored at `place`, under the first master key.
    ///
    /// # Errors
    /// When it is damaged, belongs elsewhere, or its master key isn't there.
    pub fn reseal(&self, place: &Place, stored: &[u8]) -> Result<Vec<u8>, Error> {
        self.close(place, &self.open(place, stored)?)
    }

    /// What tells whether somebody else's master keys are these; the first one's first.
    pub fn checks(&self) -> Vec<MasterKeyCheck> {
        self.keys.all().map(MasterKey::check).collect()
    }

    /// What the store may keep of a submission's hash, to know a repetition by: under each master key, the first one's
    /// first, since it may have been kept while another was the first. They are keyed, since the hash covers secrets
    /// that could otherwise be guessed from it.
    pub fn fingerprints(&self, hash: &[u8; 32]) -> impl Iterator<Item = [u8; 32]> {
        self.keys.all().map(|key| key.fingerprint(hash))
    }

    /// How many master keys there are.
    pub fn key_count(&self) -> usize {
        self.keys.all().count()
    }

    fn close(&self, place: &Place, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let nonce = clock::random::<NONCE_BYTES>();
        let bound = bound_to(place);
        let payload = Payload { msg: plain, aad: bound.as_bytes() };
        let key = &self.keys.first;
        let sealed = key.cipher().encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| Error::Damaged)?;
        Ok([header(key).as_slice(), &nonce, &sealed].concat())
    }

    fn open(&self, place: &Place, stored: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
        let [FORMAT, id_length, rest @ ..] = stored else { return Err(Error::Damaged) };
        let (id, rest) = rest.split_at_checked(usize::from(*id_length)).ok_or(Error::Damaged)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(Error::Damaged)?;
        let missing = || Error::KeyMissing(String::from_utf8_lossy(id).into_owned());
        let key = self.keys.find(id).ok_or_else(missing)?;
        let bound = bound_to(place);
        let payload = Payload { msg: sealed, aad: bound.as_bytes() };
        key.cipher().decrypt(XNonce::from_slice(nonce), payload).map(Zeroizing::new).map_err(|_| Error::Damaged)
    }
}

/// What every ciphertext under `key` begins with: the id's length in it keeps one id from being the beginning of another.
fn header(key: &MasterKey) -> Vec<u8> {
    // An id has at most 64 bytes.
    let id_length = u8::try_from(key.id().len()).unwrap_or(u8::MAX);
    [&[FORMAT, id_length], key.id().as_bytes()].concat()
}

/// What the ciphertext at `place` is bound to.
fn bound_to(place: &Place) -> String {
    match place {
        Place::Job(job) => format!("job-secrets:{job}"),
        Place::DeployKey { name, version } => format!("deploy-key:{name}:{version}"),
    }
}

#[cfg(test)]
mod tests {
    use shared::seal::OneTimeKey;

    use super::*;

    fn job() -> JobId {
        JobId::from(clock::random_uuid())
    }

    fn secrets() -> Secrets {
        Secrets(BTreeMap::from([("TOKEN".to_owned(), Secret::new("hunter2-hunter2".to_owned()))]))
    }

    #[test]
    fn what_is_encrypted_for_a_job_opens_for_that_job_alone() {
        let vault = Vault::new(MasterKeys::generate().0);
        let (mine, other) = (job(), job());
        let stored = vault.encrypt(mine, &secrets()).unwrap().unwrap();
        assert!(!String::from_utf8_lossy(&stored).contains("hunter2"));
        assert_eq!(vault.decrypt(mine, &stored), Ok(secrets()));
        assert_eq!(vault.decrypt(other, &stored), Err(Error::Damaged), "a row that was swapped");
        for place in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[place] ^= 1;
            assert!(vault.decrypt(mine, &damaged).is_err(), "byte {place}");
            assert!(vault.decrypt(mine, &stored[..place]).is_err(), "cut at {place}");
        }
    }

    #[test]
    fn the_first_key_encrypts_and_the_others_still_open() {
        let (_, old) = MasterKeys::generate();
        let (_, new) = MasterKeys::generate();
        let new = new.reveal().replacen("local", "next", 1);
        let before = Vault::new(MasterKeys::parse(old.reveal()).unwrap());
        let after = Vault::new(MasterKeys::parse(&format!("{new},{}", old.reveal())).unwrap());
        let mine = job();
        let stored = before.encrypt(mine, &secrets()).unwrap().unwrap();
        assert_eq!(after.decrypt(mine, &stored), Ok(secrets()));
        let stored = after.encrypt(mine, &secrets()).unwrap().unwrap();
        assert_eq!(before.decrypt(mine, &stored), Err(Error::KeyMissing("next".to_owned())));
    }

    #[test]
    fn sealed_secrets_open_with_the_claims_key_alone() {
        let vault = Vault::new(MasterKeys::generate().0);
        let (mine, key) = (job(), OneTimeKey::generate());
        let stored = vault.encrypt(mine, &secrets()).unwrap().unwrap();
        let sealed = vault.seal(mine, &stored, &key.recipient()).unwrap();
        assert_eq!(key.open(&sealed).unwrap(), secrets());
        assert!(OneTimeKey::generate().open(&sealed).is_err());
        assert_eq!(vault.seal(mine, &stored, "nobody"), Err(Error::Recipient));
    }

    #[test]
    fn nothing_of_a_key_or_a_secret_shows_in_debug_or_in_errors() {
        let (keys, text) = MasterKeys::generate();
        let shown = format!("{keys:?} {:?} {:?}", secrets(), MasterKeys::parse("x:c3dvcmRmaXNo"));
        assert!(!shown.contains("hunter2") && !shown.contains("c3dvcmRmaXNo"));
        assert!(!shown.contains(&text.reveal()["local:".len()..]));
    }

    #[test]
    fn master_keys_that_are_not_ones_are_refused() {
        let (_, given) = MasterKeys::generate();
        let twice = format!("{0},{0}", given.reveal());
        for text in ["", "x", "x:", ":AAAA", "x:AAAA", "x:!!!!", &twice] {
            assert!(matches!(MasterKeys::parse(text), Err(Error::Keys(_))), "{text}");
        }
    }

    fn deploy_key(vault: &Vault, name: &str, version: u32) -> DeployKey {
        let private_key =
            vault.encrypt_key(name, version, &Secret::new(format!("the private half of {name}"))).unwrap();
        let zero = shared::time::Time::from_micros(0);
        DeployKey {
            name: name.to_owned(),
            version,
            algorithm: "ssh-ed25519".to_owned(),
            fingerprint: "SHA256:x".to_owned(),
            public_key: "ssh-ed25519 x".to_owned(),
            known_hosts: "host ssh-ed25519 x".to_owned(),
            private_key,
            created_at: zero,
            changed_at: zero,
        }
    }

    #[test]
    fn two_rows_whose_ciphertexts_are_swapped_open_no_more_and_the_error_says_why() {
        let vault = Vault::new(MasterKeys::generate().0);
        let (one, other) = (deploy_key(&vault, "one", 1), deploy_key(&vault, "other", 1));
        assert_eq!(vault.decrypt_key(&one).unwrap().reveal(), "the private half of one");
        let swapped = [(&one, &other), (&other, &one)]
            .map(|(row, from)| DeployKey { private_key: from.private_key.clone(), ..row.clone() });
        for row in swapped {
            let error = vault.seal_key(&row, &OneTimeKey::generate().recipient()).unwrap_err();
            assert_eq!(error.to_string(), "stored secrets are damaged or belong elsewhere");
        }
        let older = DeployKey { private_key: deploy_key(&vault, "one", 2).private_key, ..one };
        assert_eq!(vault.decrypt_key(&older), Err(Error::Damaged), "another version of the same key");
    }

    #[test]
    fn a_deploy_key_travels_with_its_host_keys_to_its_recipient_alone() {
        let vault = Vault::new(MasterKeys::generate().0);
        let (key, asker) = (deploy_key(&vault, "app", 3), OneTimeKey::generate());
        let sealed = vault.seal_key(&key, &asker.recipient()).unwrap();
        let Secrets(opened) = asker.open(&sealed).unwrap();
        assert_eq!(opened[PRIVATE_KEY_SECRET].reveal(), "the private half of app");
        assert_eq!(opened[KNOWN_HOSTS_SECRET].reveal(), "host ssh-ed25519 x");
        assert!(OneTimeKey::generate().open(&sealed).is_err());
    }

    #[test]
    fn what_is_moved_on_to_another_master_key_stays_bound_and_opens_without_the_old_one() {
        let (_, old) = MasterKeys::generate();
        let (_, new) = MasterKeys::generate();
        let new = new.reveal().replacen("local", "next", 1);
        let before = Vault::new(MasterKeys::parse(old.reveal()).unwrap());
        let both = Vault::new(MasterKeys::parse(&format!("{new},{}", old.reveal())).unwrap());
        let after = Vault::new(MasterKeys::parse(&new).unwrap());
        let key = deploy_key(&before, "app", 1);
        assert!(key.private_key.starts_with(&before.header()) && !key.private_key.starts_with(&both.header()));
        let place = Place::DeployKey { name: "app".to_owned(), version: 1 };
        let moved = DeployKey { private_key: both.reseal(&place, &key.private_key).unwrap(), ..key.clone() };
        assert!(moved.private_key.starts_with(&after.header()));
        assert_eq!(after.decrypt_key(&moved).unwrap(), before.decrypt_key(&key).unwrap());
        assert_eq!(both.reseal(&Place::Job(job()), &key.private_key), Err(Error::Damaged));
        assert_eq!(after.reseal(&place, &key.private_key), Err(Error::KeyMissing("local".to_owned())));
    }

    #[test]
    fn a_check_tells_two_keys_of_one_id_apart_and_nothing_of_either() {
        let key = |text: &str| Vault::new(MasterKeys::parse(text).unwrap());
        let (_, text) = MasterKeys::generate();
        let (_, other) = MasterKeys::generate();
        let check = |vault: &Vault| vault.checks()[0].clone();
        assert_eq!(check(&key(text.reveal())), check(&key(text.reveal())));
        assert_ne!(check(&key(text.reveal())).check, check(&key(other.reveal())).check);
        let renamed = text.reveal().replacen("local", "next", 1);
        assert_ne!(check(&key(text.reveal())).check, check(&key(&renamed)).check);
        let secret = key(text.reveal()).keys.first.check();
        assert_ne!(secret.check, key(text.reveal()).fingerprints(&[0; 32]).next().unwrap());
    }
}
