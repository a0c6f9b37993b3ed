//! The master keys as they are given: read, found by their ids, and known again by a check that tells nothing of them.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use shared::clock;
use shared::secret::Secret;

use super::Error;
use crate::store::MasterKeyCheck;

/// Bytes of a master key.
const KEY_BYTES: usize = 32;
/// The most bytes of a master key's id.
const KEY_ID_BYTES_MAX: usize = 64;

/// The master keys: the first encrypts, the others still open.
#[derive(Clone)]
pub struct MasterKeys {
    pub(super) first: MasterKey,
    others: Vec<MasterKey>,
}

/// One of them.
#[derive(Clone)]
pub(super) struct MasterKey {
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
        let doubled = keys.iter().enumerate().any(|(n, key)| keys.iter().take(n).any(|other| other.id == key.id));
        if doubled {
            return Err(Error::Keys("an id is given twice"));
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

    /// All of them, the first one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.first).chain(&self.others)
    }

    pub(super) fn find(&self, id: &[u8]) -> Option<&MasterKey> {
        self.all().find(|key| key.id.as_bytes() == id)
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

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.key).into())
    }

    /// A digest of key and id, from which neither the key can be had nor anything that it is used for.
    pub(super) fn check(&self) -> MasterKeyCheck {
        let check = self.digest(b"windlass master key check", self.id.as_bytes());
        MasterKeyCheck { id: self.id.clone(), check }
    }

    pub(super) fn fingerprint(&self, hash: &[u8; 32]) -> [u8; 32] {
        self.digest(b"windlass submission fingerprint", hash)
    }

    /// `purpose` keeps what one digest tells apart from all others; the key after it has a fixed length.
    fn digest(&self, purpose: &'static [u8], what: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(purpose);
        digest.update(*self.key);
        digest.update(what);
        digest.finalize().into()
    }
}
