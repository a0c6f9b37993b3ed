//! The workers and tokens as they were last read: whoever speaks is known from memory, without a read on the way.
//!
//! They are read every second, and at once, though not more often than [`READ_AGAIN`], when somebody speaks who isn't
//! known yet.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use shared::clock;
use shared::id::{Instance, WorkerId};
use shared::proof::ProofKey;

use crate::holdings::Holdings;
use crate::store::{Error, Store, Token, Worker};

/// How often everything is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How soon after a reading an unknown speaker brings the next one.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// See the module.
pub struct Roster {
    store: Arc<dyn Store>,
    holdings: Arc<Holdings>,
    known: RwLock<Arc<Known>>,
    /// When the last reading began; held while one is under way.
    read_at: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Known {
    workers: HashMap<WorkerId, Worker>,
    tokens: HashMap<[u8; 32], Token>,
}

impl Roster {
    /// A roster that knows nobody yet.
    pub fn new(store: Arc<dyn Store>, holdings: Arc<Holdings>) -> Self {
        Self { store, holdings, known: RwLock::default(), read_at: Mutex::default() }
    }

    /// Reads everything every second, until it is dropped.
    pub async fn keep_fresh(self: Arc<Self>) {
        loop {
            if let Err(error) = self.read(READ_AGAIN).await {
                tracing::warn!(%error, "reading the workers and tokens");
            }
            tokio::time::sleep(READ_EVERY).await;
        }
    }

    /// Reads everything, unless that was done within `fresh`.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&self, fresh: Duration) -> Result<(), Error> {
        let mut read_at = self.read_at.lock().await;
        let now = clock::instant();
        if read_at.is_some_and(|at| now.duration_since(at) < fresh) {
            return Ok(());
        }
        let (workers, tokens) = (self.store.workers().await?, self.store.tokens(self.holdings.now()).await?);
        let known = Known {
            workers: workers.into_iter().map(|worker| (worker.id, worker)).collect(),
            tokens: tokens.into_iter().map(|token| (token.digest, token)).collect(),
        };
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(known);
        *read_at = Some(now);
        Ok(())
    }

    /// What the worker's messages are proved by, if it was known at the last reading.
    pub fn key(&self, worker: WorkerId) -> Option<ProofKey> {
        self.known().workers.get(&worker).map(|worker| worker.key.clone())
    }

    /// The instance that the worker had announced at the last reading.
    pub fn instance(&self, worker: WorkerId) -> Option<Instance> {
        self.known().workers.get(&worker)?.seen.as_ref().map(|seen| seen.instance)
    }

    /// Makes sure that a worker is known, or isn't there: what was read before isn't enough.
    pub async fn look_for(&self, worker: WorkerId) {
        let asked = clock::instant();
        // Whoever asks soon after a reading waits for the next one, together with all who ask meanwhile.
        let last = *self.read_at.lock().await;
        if let Some(at) = last {
            tokio::time::sleep((at + READ_AGAIN).saturating_duration_since(asked)).await;
        }
        if let Err(error) = self.read(clock::instant().duration_since(asked)).await {
            tracing::warn!(%worker, %error, "looking for a worker");
        }
    }

    /// The token of that digest.
    ///
    /// # Errors
    /// The store's, where the token isn't known from before.
    pub async fn token(&self, digest: &[u8; 32]) -> Result<Option<Token>, Error> {
        if let Some(token) = self.live_token(digest) {
            return Ok(Some(token));
        }
        self.read(READ_AGAIN).await?;
        Ok(self.live_token(digest))
    }

    fn live_token(&self, digest: &[u8; 32]) -> Option<Token> {
        let token = self.known().tokens.get(digest).cloned()?;
        let expired = token.expires_at.is_some_and(|expires| expires <= self.holdings.now());
        (!expired).then_some(token)
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}
