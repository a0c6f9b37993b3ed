//! The two halves of a deploy key: read from what somebody gives, or made here; what can't be used is refused with the
//! remedy.

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{EcdsaCurve, HashAlg, LineEnding, PrivateKey};
use zeroize::Zeroizing;

use shared::clock;
use shared::secret::Secret;

mod scalar;

/// The most bytes of a private key's text: 16 KiB.
pub const PRIVATE_KEY_BYTES_MAX: usize = 16 * 1024;
/// The fewest bits of an RSA key.
const RSA_BITS_MIN: usize = 2048;
/// Bytes of an ed25519 key's seed.
const SEED_BYTES: usize = 32;

/// A deploy key's two halves.
pub struct Pair {
    /// In OpenSSH's own format, without a passphrase.
    pub private_key: Secret,
    /// A line of `authorized_keys`.
    pub public_key: String,
    /// Like `ssh-ed25519`.
    pub algorithm: String,
    /// Like `SHA256:…`.
    pub fingerprint: String,
}

impl Pair {
    /// A fresh ed25519 pair for the key of that name.
    ///
    /// # Errors
    /// Only when the crate can't write what it has made.
    pub fn generate(name: &str) -> Result<Self, String> {
        let seed = Zeroizing::new(clock::random::<SEED_BYTES>());
        let keypair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
        let made = PrivateKey::new(keypair, "").and_then(|key| Self::of(key, name));
        made.map_err(|_| "can't be written".to_owned())
    }

    /// The pair that `text` holds, for the key of that name.
    ///
    /// # Errors
    /// Why it can't be used, and what to do; nothing of the text is in it.
    pub fn read(text: &Secret, name: &str) -> Result<Self, String> {
        let text = text.reveal().trim();
        if text.len() > PRIVATE_KEY_BYTES_MAX {
            return Err(format!("must have at most {PRIVATE_KEY_BYTES_MAX} bytes, not {}", text.len()));
        }
        let text = Zeroizing::new(format!("{text}\n"));
        let whole = || PrivateKey::from_openssh(scalar::made_whole(&text)?.as_bytes()).ok();
        let key = PrivateKey::from_openssh(text.as_bytes()).ok().or_else(whole).ok_or_else(|| not_openssh(&text))?;
        if key.is_encrypted() {
            return Err("is protected by a passphrase, which nobody could type: remove it from a copy with \
                        `ssh-keygen -p -N '' -f FILE`"
                .to_owned());
        }
        check_algorithm(&key)?;
        Self::of(key, name).map_err(|_| "is damaged".to_owned())
    }

    fn of(mut key: PrivateKey, name: &str) -> Result<Self, ssh_key::Error> {
        key.set_comment(format!("windlass:{name}"));
        let private_key = key.to_openssh(LineEnding::LF)?;
        Ok(Self {
            private_key: Secret::new(private_key.as_str().to_owned()),
            public_key: key.public_key().to_openssh()?,
            algorithm: key.algorithm().as_str().to_owned(),
            fingerprint: key.fingerprint(HashAlg::Sha256).to_string(),
        })
    }
}

fn check_algorithm(key: &PrivateKey) -> Result<(), String> {
    match key.key_data() {
        KeypairData::Ed25519(_) => Ok(()),
        KeypairData::Rsa(pair) => {
            let bytes = pair.public.n.as_positive_bytes().unwrap_or_default();
            let unused = bytes.first().map_or(0, |first| first.leading_zeros() as usize);
            match bytes.len() * 8 - unused {
                RSA_BITS_MIN.. => Ok(()),
                bits => Err(format!("is an RSA key of {bits} bits: it must have {RSA_BITS_MIN} at least")),
            }
        }
        KeypairData::Ecdsa(pair) if matches!(pair.curve(), EcdsaCurve::NistP256 | EcdsaCurve::NistP384) => Ok(()),
        _ => Err(format!(
            "is of the kind {}, which can't be used: it must be ed25519, rsa, or ecdsa on nistp256 or nistp384",
            key.algorithm()
        )),
    }
}

/// What `text` seems to be, since it isn't a private key in OpenSSH's format.
fn not_openssh(text: &str) -> String {
    let first = text.lines().next().unwrap_or_default();
    let is_public = ["ssh-", "ecdsa-", "sk-"].iter().any(|kind| first.starts_with(kind));
    if first.contains("BEGIN OPENSSH PRIVATE KEY") {
        "is damaged, or of a kind that can't be used: it must be ed25519, rsa, or ecdsa on nistp256 or nistp384"
            .to_owned()
    } else if first.starts_with("-----BEGIN") && first.contains("PRIVATE KEY") {
        "is in PEM: bring a copy of it into OpenSSH's format with `ssh-keygen -p -N '' -f FILE`; where ssh-keygen can't read it \
         (that is so with some of PKCS#8), have it make an OpenSSH key: `ssh-keygen -t ed25519 -N '' -f NEW`"
            .to_owned()
    } else if first.starts_with("PuTTY-User-Key-File") {
        "is in PuTTY's format: bring it into OpenSSH's with `puttygen FILE -O private-openssh-new -o NEW`".to_owned()
    } else if is_public {
        "is a public key: the private half is needed (the file without .pub)".to_owned()
    } else {
        "is not a private key in OpenSSH's format".to_owned()
    }
}

#[cfg(test)]
mod tests;
