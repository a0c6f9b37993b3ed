//! The workers and tokens as they were last read: whoever speaks is known from memory, without a read on the way.
//!
//! They are read every second, at a hint that they have changed, and when somebody speaks who isn't known yet, though not more often than [`READ_AGAIN`]:
//! all who ask meanwhile wait for the same reading, and hear the same when it fails.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, broadcast};

use shared::bus::{Bus, Hint};
use shared::clock;
use shared::id::{Instance, WorkerId};
use shared::proof::ProofKey;

use crate::holdings::Holdings;
use crate::store::{Error, Store, Token, Worker};

/// How often everything is read.
const READ_EVERY: Duration = Duration::from_secs(1);
/// How long a reading may take.
const READ_WITHIN: Duration = Duration::from_secs(3);
/// How long tokens count without another reading.
const TRUSTED_FOR: Duration = Duration::from_secs(30);
/// How soon after a reading an unknown speaker brings the next one.
const READ_AGAIN: Duration = Duration::from_millis(100);

/// See the module.
pub struct Roster {
    store: Arc<dyn Store>,
    holdings: Arc<Holdings>,
    known: RwLock<Arc<Known>>,
    /// The last reading; held while one is under way.
    last: Mutex<Option<Reading>>,
}

/// A reading that is over.
struct Reading {
    began: Instant,
    outcome: Result<(), Error>,
}

#[derive(Default)]
struct Known {
    workers: HashMap<WorkerId, Worker>,
    tokens: HashMap<[u8; 32], Token>,
    /// When it was read; none before the first reading.
    began: Option<Instant>,
}

impl Roster {
    /// A roster that knows nobody yet.
    pub fn new(store: Arc<dyn Store>, holdings: Arc<Holdings>) -> Self {
        Self { store, holdings, known: RwLock::default(), last: Mutex::default() }
    }

    /// Reads everything every second and at hints, until it is dropped.
    pub async fn keep_fresh(self: Arc<Self>, bus: Arc<dyn Bus>) {
        let mut hints = bus.hints();
        let mut hinted_at = false;
        loop {
            // What has been hinted at until now is found by this reading.
            hints = hints.resubscribe();
            let read = if hinted_at { self.read_again().await } else { self.read(READ_AGAIN).await };
            if let Err(error) = read {
                tracing::warn!(%error, "reading the workers and tokens");
            }
            hinted_at = tokio::time::timeout(READ_EVERY, hinted(&mut hints)).await.is_ok();
        }
    }

    /// Reads everything, unless that was done within `fresh`.
    ///
    /// # Errors
    /// The store's.
    pub async fn read(&self, fresh: Duration) -> Result<(), Error> {
        let mut last = self.last.lock().await;
        let now = clock::instant();
        match &*last {
            Some(Reading { began, outcome: Ok(()) }) if now.duration_since(*began) < fresh => Ok(()),
            _ => self.read_now(&mut last).await,
        }
    }

    /// Makes sure that everything was read since this was called.
    ///
    /// # Errors
    /// The store's.
    async fn read_again(&self) -> Result<(), Error> {
        let asked = clock::instant();
        let mut last = self.last.lock().await;
        if let Some(reading) = &*last {
            // While the store fails, whoever asks hears so at once, and doesn't wait for a reading of its own.
            let failed = reading.outcome.is_err() && asked.duration_since(reading.began) < READ_EVERY;
            if reading.began >= asked || failed {
                return reading.outcome.clone();
            }
            tokio::time::sleep_until((reading.began + READ_AGAIN).into()).await;
        }
        self.read_now(&mut last).await
    }

    async fn read_now(&self, last: &mut Option<Reading>) -> Result<(), Error> {
        let began = clock::instant();
        let reading = tokio::time::timeout(READ_WITHIN, self.known_now());
        let read =
            reading.await.unwrap_or_else(|_| Err(Error::Unavailable("reading the roster took too long".to_owned())));
        let outcome = read.map(|known| {
            let known = Arc::new(Known { began: Some(began), ..known });
            *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        });
        *last = Some(Reading { began, outcome: outcome.clone() });
        outcome
    }

    async fn known_now(&self) -> Result<Known, Error> {
        let (workers, tokens) = (self.store.workers().await?, self.store.tokens(self.holdings.now()).await?);
        Ok(Known {
            workers: workers.into_iter().map(|worker| (worker.id, worker)).collect(),
            tokens: tokens.into_iter().map(|token| (token.digest, token)).collect(),
            began: None,
        })
    }

    /// What the worker's messages are proved by, if it was known at the last reading; also where it was revoked.
    pub fn key(&self, worker: WorkerId) -> Option<ProofKey> {
        self.known().workers.get(&worker).map(|worker| worker.key.clone())
    }

    /// Whether the worker had been revoked at the last reading.
    pub fn is_revoked(&self, worker: WorkerId) -> bool {
        self.known().workers.get(&worker).is_some_and(|worker| worker.revoked_at.is_some())
    }

    /// The instance that the worker had announced at the last reading, and when that reading began.
    pub fn instance(&self, worker: WorkerId) -> Option<(Instance, Instant)> {
        let known = self.known();
        Some((known.workers.get(&worker)?.seen.as_ref()?.instance, known.began?))
    }

    /// Makes sure that a worker is known, or isn't there: what was read before isn't enough.
    pub async fn look_for(&self, worker: WorkerId) {
        if let Err(error) = self.read_again().await {
            tracing::warn!(%worker, %error, "looking for a worker");
        }
    }

    /// The token of that digest, if it counted at the last reading and counts still. Where the last reading is long ago, none is
    /// known: one that was revoked since would count for ever.
    pub fn known_token(&self, digest: &[u8; 32]) -> Option<Token> {
        let known = self.known();
        let old = known.began.is_none_or(|began| clock::instant().duration_since(began) > TRUSTED_FOR);
        let token = known.tokens.get(digest).filter(|_| !old).cloned()?;
        let expired = token.expires_at.is_some_and(|expires| expires <= self.holdings.now());
        (!expired).then_some(token)
    }

    /// The token of that digest.
    ///
    /// # Errors
    /// The store's, where the token isn't known from before.
    pub async fn token(&self, digest: &[u8; 32]) -> Result<Option<Token>, Error> {
        if let Some(token) = self.known_token(digest) {
            return Ok(Some(token));
        }
        self.read_again().await?;
        Ok(self.known_token(digest))
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Returns at a hint about the roster, or when hints were missed.
async fn hinted(hints: &mut broadcast::Receiver<Hint>) {
    loop {
        match hints.recv().await {
            Ok(Hint::Job(_) | Hint::Shards | Hint::Keys) => {}
            Ok(Hint::Roster) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
