//! How one start of a worker speaks to coordinators: every request is proved, and of the answers of a shard's owner only
//! those under its latest epoch count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use shared::bus::{self, Address, Bus};
use shared::id::{Instance, Shard, WorkerId};
use shared::proof::{PROOF_BYTES, ProofKey};
use shared::wire::{self, MESSAGE_BYTES_MAX, Word};

use crate::epochs::{Epochs, Unheeded};

/// The most bytes of a message beside its proof.
pub const SAID_BYTES_MAX: usize = MESSAGE_BYTES_MAX - PROOF_BYTES;

/// Speaks for one start of a worker. Clones share what they have heard.
#[derive(Clone)]
pub struct Courier {
    pub bus: Arc<dyn Bus>,
    pub worker: WorkerId,
    pub instance: Instance,
    /// Counts the worker's starts.
    pub start: u64,
    pub key: ProofKey,
    pub epochs: Arc<Epochs>,
}

/// Why there is no answer, or none that counts.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error(transparent)]
    Bus(#[from] bus::Error),
    #[error(transparent)]
    Undecodable(#[from] wire::Undecodable),
    #[error(transparent)]
    Unheeded(#[from] Unheeded),
    #[error("{given} answers to {said} reports")]
    Miscounted { said: usize, given: usize },
    #[error("who was asked says nothing for that shard")]
    Passed,
    #[error("whoever waited for the answer ended by a defect")]
    Defect,
}

impl Courier {
    /// Says `message` to any coordinator, and returns the answer.
    pub async fn ask<A: DeserializeOwned>(
        &self,
        to: &Address,
        message: &impl Serialize,
        within: Duration,
    ) -> Result<A, NoAnswer> {
        Ok(wire::decode(&self.ask_encoded(to, &wire::encode(message), within).await?)?)
    }

    /// Says `message` to the owner of `shard`, at an address of that shard, and returns the answer.
    pub async fn ask_owner<A: DeserializeOwned>(
        &self,
        shard: Shard,
        to: &Address,
        message: &impl Serialize,
        within: Duration,
    ) -> Result<A, NoAnswer> {
        let word: Word<A> = self.ask(to, message, within).await?;
        Ok(self.epochs.heed(shard, word)?)
    }

    /// Says a message that is encoded already, and returns the answer as it came.
    pub async fn ask_encoded(&self, to: &Address, message: &[u8], within: Duration) -> Result<Bytes, bus::Error> {
        self.bus.request(to, self.key.prove(to, message), within).await
    }
}
