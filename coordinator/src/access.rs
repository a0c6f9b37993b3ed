//! What the service does about those who take part: the tokens of its callers, and the workers.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use shared::bus::Address;
use shared::clock;
use shared::id::{JobId, TokenId, WorkerId};
use shared::secret::Secret;
use shared::time::{Period, Time};
use shared::wire::{self, Control, WorkerMode};

use crate::holdings::{Holdings, Route};
use crate::service::{Error, Service};
use crate::store::{Token, TokenKind, Worker};

/// What stands before a join token, so that one that leaked is known for what it is.
const JOIN_PREFIX: &str = "wlj_";
/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;
/// How long a worker may take to say that it has heard an order; its next hello hears of it all the same.
const ORDER_WITHIN: Duration = Duration::from_secs(2);

/// A token that was made: its text is shown once, and kept by nobody here.
#[derive(Debug)]
pub struct JoinToken {
    pub text: Secret,
    pub expires_at: Option<Time>,
}

impl Service {
    /// What this coordinator owns, and where the other shards' owners are.
    pub fn holdings(&self) -> &Holdings {
        &self.parts.holdings
    }

    /// Where a command for the job goes.
    pub fn route(&self, job: JobId) -> Route {
        self.parts.holdings.route(job.shard())
    }

    /// The token of that SHA-256, if it counts now.
    pub async fn token(&self, digest: &[u8; 32]) -> Result<Option<Token>, Error> {
        Ok(self.parts.roster.token(digest).await?)
    }

    /// Makes the first admin token known; the same one again changes nothing.
    pub async fn admit(&self, name: &str, token: &Secret) -> Result<(), Error> {
        self.add_token(TokenKind::Admin, name, token, None).await.map(drop)
    }

    /// Makes a token with which programs can become workers, for as long as `valid`.
    pub async fn join_token(&self, name: &str, valid: Option<Period>) -> Result<JoinToken, Error> {
        let random = URL_SAFE_NO_PAD.encode(clock::random::<TOKEN_BYTES>());
        let text = Secret::new(format!("{JOIN_PREFIX}{random}"));
        let expires_at = self.add_token(TokenKind::Join, name, &text, valid).await?;
        Ok(JoinToken { text, expires_at })
    }

    async fn add_token(
        &self,
        kind: TokenKind,
        name: &str,
        text: &Secret,
        valid: Option<Period>,
    ) -> Result<Option<Time>, Error> {
        let now = self.parts.holdings.now();
        let token = Token {
            id: TokenId(clock::random_uuid()),
            kind,
            name: name.to_owned(),
            digest: Sha256::digest(text.reveal()).into(),
            created_at: now,
            expires_at: valid.map(|valid| now.plus(valid)),
        };
        let added = self.parts.store.add_token(self.parts.holdings.id(), &token).await?;
        self.parts.roster.read(Duration::ZERO).await?;
        if added { Ok(token.expires_at) } else { Err(Error::Conflict("there are too many tokens".to_owned())) }
    }

    /// Every worker, in the order of their ids.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        Ok(self.parts.store.workers().await?)
    }

    /// Sets what is wanted of a worker, and tells it, if it can be reached.
    pub async fn set_mode(&self, id: WorkerId, mode: WorkerMode) -> Result<Worker, Error> {
        let set = self.parts.store.set_mode(self.parts.holdings.id(), id, mode).await?;
        let worker = set.ok_or(Error::NotFound)?;
        // A worker that answers has heeded it by then: whoever pauses one knows that it takes nothing more.
        let order = wire::encode(&Control::SayHello {});
        if let Err(error) = self.parts.bus.request(&Address::Control(id), order, ORDER_WITHIN).await {
            tracing::info!(worker = %id, %error, "a worker did not hear its order; its next hello brings it");
        }
        Ok(worker)
    }
}
