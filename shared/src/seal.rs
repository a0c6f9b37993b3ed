//! Secrets sealed to one recipient for one use, in the `age` format (X25519), so that neither the bus nor its logs
//! ever hold them in the clear.

use std::fmt;

use age::x25519;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secret::Secrets;

/// The most bytes of a sealed blob's head: ours have a few hundred. Its reader begins anew with each byte that it finds
/// missing, so a long one would cost the square of its length.
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// What the last line of the head begins with; no other line does.
const HEAD_END: &[u8] = b"\n---";

/// Secrets that only the holder of one [`OneTimeKey`] can open; base64 of an `age` file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({} bytes)", self.0.len())
    }
}

/// Why something couldn't be sealed or opened. It never says what was inside.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the recipient is not an age public key")]
    Recipient,
    #[error("sealing secrets")]
    Seal(#[source] age::EncryptError),
    #[error("opening sealed secrets: they are damaged or were sealed to another recipient")]
    Open,
}

/// A key pair for one claim: its private half never leaves the process that made it.
pub struct OneTimeKey(x25519::Identity);

impl OneTimeKey {
    /// A fresh pair.
    pub fn generate() -> Self {
        Self(x25519::Identity::generate())
    }

    /// The public half, as a claim carries it.
    pub fn recipient(&self) -> String {
        self.0.to_public().to_string()
    }

    /// Opens what was sealed to this pair.
    ///
    /// # Errors
    /// When it was sealed to another or is damaged.
    pub fn open(&self, sealed: &Sealed) -> Result<Secrets, Error> {
        let bytes = STANDARD.decode(&sealed.0).map_err(|_| Error::Open)?;
        let head = bytes.get(..HEAD_BYTES_MAX).unwrap_or(&bytes);
        if !head.windows(HEAD_END.len()).any(|part| part == HEAD_END) {
            return Err(Error::Open);
        }
        let plain = Zeroizing::new(age::decrypt(&self.0, &bytes).map_err(|_| Error::Open)?);
        serde_json::from_slice(&plain).map_err(|_| Error::Open)
    }
}

impl fmt::Debug for OneTimeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeKey(..)")
    }
}

/// Seals `secrets` to `recipient`.
///
/// # Errors
/// When `recipient` is no public key.
pub fn seal(secrets: &Secrets, recipient: &str) -> Result<Sealed, Error> {
    let recipient: x25519::Recipient = recipient.parse().map_err(|_| Error::Recipient)?;
    let plain = Zeroizing::new(serde_json::to_vec(secrets).map_err(|_| Error::Open)?);
    let bytes = age::encrypt(&recipient, &plain).map_err(Error::Seal)?;
    Ok(Sealed(STANDARD.encode(bytes)))
}
