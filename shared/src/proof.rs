//! What proves that a message comes from the worker that it names: a keyed digest over its address and its bytes. The
//! secret itself never travels after the enrolment, and the store keeps only a digest of it.

use std::fmt;

use bytes::Bytes;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::bus::Address;
use crate::secret::Secret;

/// Bytes of a proof: an HMAC-SHA-256 (RFC 2104), which stands before the message.
pub const PROOF_BYTES: usize = 32;

/// What both sides make proofs with: the SHA-256 of a worker's secret, which has enough randomness of its own.
#[derive(Clone, PartialEq, Eq)]
pub struct ProofKey(Zeroizing<[u8; 32]>);

impl ProofKey {
    /// The key of the worker that holds `secret`.
    pub fn of(secret: &Secret) -> Self {
        Self(Zeroizing::new(Sha256::digest(secret.reveal()).into()))
    }

    /// The key that a store kept.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The key, for a store.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The message with its proof, for `to` alone.
    pub fn prove(&self, to: &Address, message: &[u8]) -> Bytes {
        let proof = self.digest(to, message).finalize().into_bytes();
        [proof.as_slice(), message].concat().into()
    }

    /// The message, where its proof holds. It takes the same time wherever a proof is wrong.
    pub fn open(&self, to: &Address, proved: &Bytes) -> Option<Bytes> {
        let (proof, message) = proved.split_at_checked(PROOF_BYTES)?;
        self.digest(to, message).verify_slice(proof).ok()?;
        Some(proved.slice(PROOF_BYTES..))
    }

    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length, and an address is plain data")]
    fn digest(&self, to: &Address, message: &[u8]) -> Hmac<Sha256> {
        let mut digest = <Hmac<Sha256> as Mac>::new_from_slice(self.0.as_slice()).expect("any length is a key");
        let to = serde_json::to_vec(to).expect("an address has a JSON form");
        digest.update(&to);
        digest.update(b"\n");
        digest.update(message);
        digest
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::id::{Shard, WorkerId};

    #[test]
    fn a_proved_message_opens_for_its_worker_and_address_alone() {
        let key = ProofKey::of(&Secret::new("one".to_owned()));
        let worker = WorkerId(clock::random_uuid());
        let [to, other] = [3, 4].map(|shard| Address::Report(Shard::new(shard).unwrap(), worker));
        let proved = key.prove(&to, b"a claim");
        assert_eq!(key.open(&to, &proved).as_deref(), Some(b"a claim".as_slice()));
        assert_eq!(key.open(&other, &proved), None);
        assert_eq!(ProofKey::of(&Secret::new("two".to_owned())).open(&to, &proved), None);
        for place in 0..proved.len() {
            let mut damaged = proved.to_vec();
            damaged[place] ^= 1;
            assert_eq!(key.open(&to, &damaged.into()), None, "byte {place}");
            assert_eq!(key.open(&to, &proved.slice(..place)), None, "cut at {place}");
        }
        assert!(!format!("{key:?}").contains('['));
    }
}
