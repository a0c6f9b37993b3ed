//! How a program becomes a worker: with a join token it gets an identity, and a secret that proves it from then on.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use shared::clock;
use shared::id::WorkerId;
use shared::proof::ProofKey;
use shared::seal;
use shared::secret::{Secret, Secrets};
use shared::wire::{self, Enrol, Enrolment};

use super::{Parts, decoded};
use crate::store::{Enrolled, NewWorker};

/// The most bytes of a worker's name.
const WORKER_NAME_BYTES_MAX: usize = 255;
/// Bytes of randomness in a worker's secret.
const IDENTITY_BYTES: usize = 32;

/// Makes a worker of whoever has a join token.
pub(super) async fn enrol(parts: &Parts, body: &[u8]) -> Option<Bytes> {
    let Enrol { token, name, recipient } = decoded(body)?;
    let refused = |why: &str| Some(wire::encode(&Enrolment::Refused { why: why.to_owned() }));
    if name.is_empty() || name.len() > WORKER_NAME_BYTES_MAX || name.contains(char::is_control) {
        return refused("a worker's name must have 1 to 255 bytes and no control characters");
    }
    let secret = Secret::new(URL_SAFE_NO_PAD.encode(clock::random::<IDENTITY_BYTES>()));
    let worker = NewWorker { id: WorkerId(clock::random_uuid()), name, key: ProofKey::of(&secret) };
    let secrets = Secrets([(wire::IDENTITY_SECRET.to_owned(), secret)].into());
    let Ok(sealed) = seal::seal(&secrets, &recipient) else {
        return refused("the recipient is no public key");
    };
    let digest = Sha256::digest(token.reveal()).into();
    let known = parts.roster.known_token(&digest).is_some();
    if !known && parts.enrolments.take((), clock::instant()).is_err() {
        // Who has just been given a token tries again.
        tracing::warn!("too many programs want to enrol with tokens that aren't known");
        return None;
    }
    match parts.store.enrol(parts.holdings.id(), digest, &worker, parts.holdings.now()).await {
        Ok(Enrolled::Yes) => {
            if !known {
                parts.enrolments.give_back(&());
            }
            tracing::info!(worker = %worker.id, name = worker.name, "a worker has enrolled");
            Some(wire::encode(&Enrolment::Enrolled { worker: worker.id, secret: sealed }))
        }
        Ok(Enrolled::NoToken) => {
            tracing::warn!(name = worker.name, "a worker wanted to enrol with a token that doesn't count");
            refused("the join token is not known or has expired: make one with `windlass token join`")
        }
        Ok(Enrolled::TooMany) => refused("there are too many workers"),
        Err(error) => {
            tracing::warn!(%error, "enrolling a worker");
            None
        }
    }
}
