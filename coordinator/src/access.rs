//! What the service does about those who take part: the tokens of its callers, the workers, and the audit of what they did.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use shared::bus::{Address, Hint};
use shared::clock;
use shared::id::{Actor, JobId, TokenId, WorkerId};
use shared::role::Role;
use shared::secret::Secret;
use shared::time::Period;
use shared::wire::{self, Control, WorkerMode};

use crate::caller::Caller;
use crate::holdings::{Holdings, Route};
use crate::service::{Error, Service};
use crate::store::{AuditLine, Token, TokenKind, Worker};

/// What stands before a token's random part, so that one that leaked is known for what it is.
const TOKEN_PREFIX: &str = "wlt_";
const JOIN_PREFIX: &str = "wlj_";
/// Bytes of randomness in a token.
const TOKEN_BYTES: usize = 32;
/// How long a worker may take to say that it has heard an order; its next hello hears of it all the same.
const ORDER_WITHIN: Duration = Duration::from_secs(2);

/// A token that was made: its text is shown once, and kept by nobody here.
#[derive(Debug)]
pub struct NewToken {
    pub text: Secret,
    pub token: Token,
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

    /// The token of that SHA-256, if it counted when the tokens were last read: every second, and when one was changed.
    pub fn known_token(&self, digest: &[u8; 32]) -> Option<Token> {
        self.parts.roster.known_token(digest)
    }

    /// The token of that SHA-256, if it counts now; read, where it isn't known.
    pub async fn token(&self, digest: &[u8; 32]) -> Result<Option<Token>, Error> {
        Ok(self.parts.roster.token(digest).await?)
    }

    /// Makes the first admin token known; the same one again changes nothing, also where it was revoked since.
    pub async fn admit(&self, name: &str, token: &Secret) -> Result<(), Error> {
        let by = Caller::from(Actor::Coordinator);
        let token = self.token_of(TokenKind::Role(Role::Admin), name, token, None);
        self.add_token(&by, "token.bootstrap", &token).await
    }

    /// Makes a token that counts for as long as `valid`.
    pub async fn make_token(&self, by: &Caller, kind: TokenKind, name: &str, valid: Period) -> Result<NewToken, Error> {
        let (prefix, action) = match kind {
            TokenKind::Role(_) => (TOKEN_PREFIX, "token.create"),
            TokenKind::Join => (JOIN_PREFIX, "token.join"),
        };
        let random = URL_SAFE_NO_PAD.encode(clock::random::<TOKEN_BYTES>());
        let text = Secret::new(format!("{prefix}{random}"));
        let token = self.token_of(kind, name, &text, Some(valid));
        self.add_token(by, action, &token).await?;
        Ok(NewToken { text, token })
    }

    fn token_of(&self, kind: TokenKind, name: &str, text: &Secret, valid: Option<Period>) -> Token {
        let now = self.parts.holdings.now();
        Token {
            id: TokenId(clock::random_uuid()),
            kind,
            name: name.to_owned(),
            digest: Sha256::digest(text.reveal()).into(),
            created_at: now,
            expires_at: valid.map(|valid| now.plus(valid)),
        }
    }

    async fn add_token(&self, by: &Caller, action: &str, token: &Token) -> Result<(), Error> {
        let outcome = format!("{} {:?}", token.kind.name(), token.name);
        let line = by.line(self.parts.holdings.now(), action, &token.id.to_string(), outcome);
        let added = self.parts.store.add_token(self.parts.holdings.id(), token, &line).await?;
        self.roster_changed().await?;
        if added { Ok(()) } else { Err(Error::Conflict("there are too many tokens: revoke some".to_owned())) }
    }

    /// Every token that counts, in the order of their ids.
    pub async fn tokens(&self) -> Result<Vec<Token>, Error> {
        Ok(self.parts.store.tokens(self.parts.holdings.now()).await?)
    }

    /// Revokes a token: it opens nothing any more, here at once, at the other coordinators once they have heard of it.
    pub async fn revoke_token(&self, by: &Caller, id: TokenId) -> Result<(), Error> {
        let now = self.parts.holdings.now();
        let line = by.line(now, "token.revoke", &id.to_string(), "revoked".to_owned());
        let revoked = self.parts.store.revoke_token(self.parts.holdings.id(), id, now, &line).await?;
        if let Err(error) = self.roster_changed().await {
            // It is revoked all the same, and every roster is read again within a second.
            tracing::warn!(%error, "reading the roster after a token was revoked");
        }
        if revoked { Ok(()) } else { Err(Error::NotFound) }
    }

    /// Every worker, in the order of their ids.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        Ok(self.parts.store.workers().await?)
    }

    /// Sets what is wanted of a worker, and tells it, if it can be reached.
    pub async fn set_mode(&self, by: &Caller, id: WorkerId, mode: WorkerMode) -> Result<Worker, Error> {
        let action = match mode {
            WorkerMode::Active => "worker.resume",
            WorkerMode::Paused => "worker.pause",
            WorkerMode::Draining => "worker.drain",
        };
        let line = by.line(self.parts.holdings.now(), action, &id.to_string(), mode.name().to_owned());
        let set = self.parts.store.set_mode(self.parts.holdings.id(), id, mode, &line).await?;
        let worker = set.ok_or(Error::NotFound)?;
        if worker.revoked_at.is_some() {
            return Err(Error::Conflict("this worker was revoked: nothing can be wanted of it any more".to_owned()));
        }
        self.tell(id).await;
        Ok(worker)
    }

    /// Revokes a worker: nothing that it says is heard any more, here at once, at the other coordinators once they have heard
    /// of it. It is told, if it can be reached; what it runs is lost with its lease.
    pub async fn revoke_worker(&self, by: &Caller, id: WorkerId) -> Result<Worker, Error> {
        let now = self.parts.holdings.now();
        let line = by.line(now, "worker.revoke", &id.to_string(), "revoked".to_owned());
        let revoked = self.parts.store.revoke_worker(self.parts.holdings.id(), id, now, &line).await?;
        let worker = revoked.ok_or(Error::NotFound)?;
        self.roster_changed().await?;
        self.tell(id).await;
        Ok(worker)
    }

    /// Has a worker say hello. One that answers has heeded what it heard by then: whoever pauses one knows that it takes
    /// nothing more.
    async fn tell(&self, id: WorkerId) {
        let order = wire::encode(&Control::SayHello {});
        if let Err(error) = self.parts.bus.request(&Address::Control(id), order, ORDER_WITHIN).await {
            tracing::info!(worker = %id, %error, "a worker did not hear its order; its next hello brings it");
        }
    }

    /// Has the roster read here, and by all others.
    async fn roster_changed(&self) -> Result<(), Error> {
        self.parts.bus.hint(Hint::Roster);
        Ok(self.parts.roster.read(Duration::ZERO).await?)
    }

    /// Notes in the audit that `by` has asked for `action` on `subject`. The line has its place when this returns; what is
    /// returned resolves when it is written.
    ///
    /// # Errors
    /// Where there is no place for another line now.
    pub fn note(
        &self,
        by: &Caller,
        action: &str,
        subject: &str,
        outcome: &str,
    ) -> Result<impl Future<Output = Result<(), Error>> + use<>, Error> {
        let job = if action.starts_with("job.") { subject.parse().ok() } else { None };
        let line = by.line(self.parts.holdings.now(), action, subject, outcome.to_owned());
        let noted = self.parts.audit.note(AuditLine { job, ..line })?;
        Ok(async { Ok(noted.await?) })
    }

    /// The lines of the audit about `subject`, or all, the newest first; at most `limit`.
    pub async fn audited(&self, subject: Option<&str>, limit: u32) -> Result<Vec<AuditLine>, Error> {
        Ok(self.parts.store.audited(subject, limit).await?)
    }
}
