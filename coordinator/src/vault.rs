//! Secrets at rest: encrypted under a master key, each ciphertext bound to the one place it belongs to, so that rows
//! can't be swapped. Sealing them to a worker is [`shared::seal`]'s.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use shared::clock;
use shared::id::JobId;
use shared::seal::{self, Sealed};
use shared::secret::{Secret, Secrets};

/// The form of a ciphertext: format, length of the key's id, the id, the nonce, the sealed bytes.
const FORMAT: u8 = 1;
/// Bytes of an `XChaCha20-Poly1305` nonce: long enough to be drawn at random (draft-irtf-cfrg-xchacha-03).
const NONCE_BYTES: usize = 24;
/// Bytes of a master key.
const KEY_BYTES: usize = 32;
/// The most bytes of a master key's id.
const KEY_ID_BYTES_MAX: usize = 64;

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

/// The master keys: the first encrypts, the others still open.
pub struct MasterKeys {
    first: MasterKey,
    others: Vec<MasterKey>,
}

struct MasterKey {
    id: String,
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl MasterKeys {
    /// Reads `id:base64,…`.
    ///
    /// # Errors
    /// What is wrong with the text, without any of it.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut keys = text.split(',').map(|entry| MasterKey::parse(entry.trim())).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() {
            return Err(Error::Keys("there is none"));
        }
        let first = keys.remove(0);
        Ok(Self { first, others: keys })
    }

    /// One fresh key, and its text for a file that only its owner can read.
    pub fn generate() -> (Self, Secret) {
        let key = Zeroizing::new(clock::random::<KEY_BYTES>());
        let text = Secret::new(format!("local:{}", STANDARD.encode(*key)));
        (Self { first: MasterKey { id: "local".to_owned(), key }, others: Vec::new() }, text)
    }

    fn find(&self, id: &[u8]) -> Option<&MasterKey> {
        std::iter::once(&self.first).chain(&self.others).find(|key| key.id.as_bytes() == id)
    }
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKeys({} and {} others)", self.first.id, self.others.len())
    }
}

impl MasterKey {
    fn parse(entry: &str) -> Result<Self, Error> {
        let (id, encoded) = entry.split_once(':').ok_or(Error::Keys("an entry has no colon"))?;
        if id.is_empty() || id.len() > KEY_ID_BYTES_MAX {
            return Err(Error::Keys("an id must have 1 to 64 bytes"));
        }
        let bytes = Zeroizing::new(STANDARD.decode(encoded).map_err(|_| Error::Keys("a key is not base64"))?);
        let key = <[u8; KEY_BYTES]>::try_from(bytes.as_slice()).map_err(|_| Error::Keys("a key is not 32 bytes"))?;
        Ok(Self { id: id.to_owned(), key: Zeroizing::new(key) })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }
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
        let nonce = clock::random::<NONCE_BYTES>();
        let place = place(job);
        let payload = Payload { msg: &plain, aad: place.as_bytes() };
        let key = &self.keys.first;
        let sealed = key.cipher().encrypt(XNonce::from_slice(&nonce), payload).map_err(|_| Error::Damaged)?;
        let id_length = u8::try_from(key.id.len()).map_err(|_| Error::Keys("an id is too long"))?;
        Ok(Some([&[FORMAT, id_length], key.id.as_bytes(), &nonce, &sealed].concat()))
    }

    /// A job's secrets from what the store kept for that very job.
    ///
    /// # Errors
    /// When they are damaged, belong to another job, or their master key isn't there.
    pub fn decrypt(&self, job: JobId, stored: &[u8]) -> Result<Secrets, Error> {
        let [FORMAT, id_length, rest @ ..] = stored else { return Err(Error::Damaged) };
        let (id, rest) = rest.split_at_checked(usize::from(*id_length)).ok_or(Error::Damaged)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_BYTES).ok_or(Error::Damaged)?;
        let missing = || Error::KeyMissing(String::from_utf8_lossy(id).into_owned());
        let key = self.keys.find(id).ok_or_else(missing)?;
        let place = place(job);
        let payload = Payload { msg: sealed, aad: place.as_bytes() };
        let plain = key.cipher().decrypt(XNonce::from_slice(nonce), payload).map_err(|_| Error::Damaged)?;
        serde_json::from_slice(&Zeroizing::new(plain)).map_err(|_| Error::Damaged)
    }

    /// A job's stored secrets, sealed to the one-time key of a claim.
    ///
    /// # Errors
    /// As [`Vault::decrypt`], and when `recipient` is no public key.
    pub fn seal(&self, job: JobId, stored: &[u8], recipient: &str) -> Result<Sealed, Error> {
        seal::seal(&self.decrypt(job, stored)?, recipient).map_err(|_| Error::Recipient)
    }

    /// What the store keeps of a submission's hash, to know a repetition by. It is keyed, since the hash covers secrets
    /// that could otherwise be guessed from it.
    pub fn fingerprint(&self, hash: &[u8; 32]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(b"windlass submission fingerprint");
        digest.update(*self.keys.first.key);
        digest.update(hash);
        digest.finalize().into()
    }
}

/// What a job's ciphertext is bound to.
fn place(job: JobId) -> String {
    format!("job-secrets:{job}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        for text in ["", "x", "x:", ":AAAA", "x:AAAA", "x:!!!!"] {
            assert!(matches!(MasterKeys::parse(text), Err(Error::Keys(_))), "{text}");
        }
    }
}
