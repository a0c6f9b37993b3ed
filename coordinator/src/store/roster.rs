//! Who may take part: the workers, and the tokens of those who speak to the API or want to become workers.

use std::time::Duration;

use async_trait::async_trait;

use shared::id::{CoordinatorId, Instance, TokenId, WorkerId};
use shared::proof::ProofKey;
use shared::role::Role;
use shared::time::{Period, Time};
use shared::view::WorkerState;
use shared::wire::{Hello, Welcome, WorkerMode};

use super::{AuditLine, Error};

/// The most workers, and the most tokens, that are known at a time: each coordinator holds all of them in memory.
pub const ROSTER_MAX: u32 = 10_000;

/// How old a worker's `seen_at` may grow before a hello renews it, 4 s: less than the five seconds after which every
/// worker says hello again. One that says it oftener, looking for new tag sets, costs no write.
pub(super) const SEEN_EVERY: Period = Period::from_secs(4);

/// How long after its last hello, which comes every five seconds, a worker counts as silent: 15 s.
const SILENT_AFTER: Duration = Duration::from_secs(15);

/// The verbs about workers and tokens. Writes name the coordinator that makes them, as everywhere.
#[async_trait]
pub trait Roster: Send + Sync + 'static {
    /// Makes a worker known, where `token` is the digest of a join token that counts at `now`.
    async fn enrol(
        &self,
        owner: CoordinatorId,
        token: [u8; 32],
        worker: &NewWorker,
        now: Time,
    ) -> Result<Enrolled, Error>;

    /// Notes that a worker is there and which instance of it, and returns the tag sets whose jobs it may run. None where
    /// the worker isn't known, was revoked, or a later start of it has said hello before. The first hello of a start ends `Draining`.
    async fn welcome(&self, owner: CoordinatorId, hello: &Hello, now: Time) -> Result<Option<Welcome>, Error>;

    /// Every worker, revoked ones included, in the order of their ids.
    async fn workers(&self) -> Result<Vec<Worker>, Error>;

    /// Sets what is wanted of a worker, with the line in the audit; none, and no line, where it isn't known. One that was
    /// revoked stays as it is.
    async fn set_mode(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        mode: WorkerMode,
        audit: &AuditLine,
    ) -> Result<Option<Worker>, Error>;

    /// Revokes a worker, with the line in the audit; none, and no line, where it isn't known. Again, it changes nothing.
    async fn revoke_worker(
        &self,
        owner: CoordinatorId,
        worker: WorkerId,
        now: Time,
        audit: &AuditLine,
    ) -> Result<Option<Worker>, Error>;

    /// Makes a token known, with the line in the audit; one whose digest is known already, or was before it was revoked,
    /// changes nothing. False where there are [`ROSTER_MAX`].
    async fn add_token(&self, owner: CoordinatorId, token: &Token, audit: &AuditLine) -> Result<bool, Error>;

    /// Revokes a token, with the line in the audit. False, and no line, where none of that id counts at `now`.
    async fn revoke_token(
        &self,
        owner: CoordinatorId,
        id: TokenId,
        now: Time,
        audit: &AuditLine,
    ) -> Result<bool, Error>;

    /// Every token that counts at `now`: not expired and not revoked, in the order of their ids.
    async fn tokens(&self, now: Time) -> Result<Vec<Token>, Error>;
}

/// A worker that enrols.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewWorker {
    pub id: WorkerId,
    pub name: String,
    /// What its messages are proved by.
    pub key: ProofKey,
}

/// What became of an enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enrolled {
    Yes,
    /// There is no such join token, or it has expired or was revoked.
    NoToken,
    /// There are [`ROSTER_MAX`] workers.
    TooMany,
}

/// A worker as it is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Worker {
    pub id: WorkerId,
    pub name: String,
    pub key: ProofKey,
    pub mode: WorkerMode,
    pub enrolled_at: Time,
    /// From then on nothing that it says is heard.
    pub revoked_at: Option<Time>,
    /// What its last hello said; none before the first.
    pub seen: Option<Seen>,
}

impl Worker {
    /// How it is at `now`, by the database's clock.
    pub fn state(&self, now: Time) -> WorkerState {
        match &self.seen {
            _ if self.revoked_at.is_some() => WorkerState::Revoked,
            None => WorkerState::New,
            Some(seen) if now.since(seen.at) >= SILENT_AFTER => WorkerState::Silent,
            Some(seen) if seen.draining => WorkerState::Draining,
            Some(_) => match self.mode {
                WorkerMode::Active => WorkerState::Active,
                WorkerMode::Paused => WorkerState::Paused,
                WorkerMode::Draining => WorkerState::Draining,
            },
        }
    }
}

/// What a worker's last hello said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub at: Time,
    pub instance: Instance,
    pub start: u64,
    pub tags: Vec<String>,
    pub slots: u32,
    pub running: u32,
    /// Whether this start takes nothing new and ends when nothing runs any more.
    pub draining: bool,
}

/// Somebody's token, without what only its holder knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub id: TokenId,
    pub kind: TokenKind,
    /// What its holder is called in timelines.
    pub name: String,
    /// The SHA-256 of the token's text, which has enough randomness of its own.
    pub digest: [u8; 32],
    pub created_at: Time,
    /// From then on it doesn't count; none where it doesn't expire.
    pub expires_at: Option<Time>,
}

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Speaking to the API, in that role.
    Role(Role),
    /// Becoming a worker.
    Join,
}

impl TokenKind {
    /// Its name, as in the store and the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Role(role) => role.name(),
            Self::Join => "join",
        }
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<Self> {
        if name == Self::Join.name() { Some(Self::Join) } else { name.parse().ok().map(Self::Role) }
    }
}
