//! The identities of the system, each a type of its own so that none can stand where another belongs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Time;

/// How many shards an installation has, fixed at its first migration.
pub const SHARDS: u16 = 256;

/// A part of the job space with one owner at a time: the last two bytes of a job's id, modulo [`SHARDS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Shard(u16);

impl Shard {
    /// The shard of that number, or none where there is no such shard.
    pub fn new(number: u16) -> Option<Self> {
        (number < SHARDS).then_some(Self(number))
    }

    /// Every shard, in order.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..SHARDS).map(Self)
    }

    /// Its number, below [`SHARDS`].
    pub fn number(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for Shard {
    type Error = &'static str;

    fn try_from(number: u16) -> Result<Self, Self::Error> {
        Self::new(number).ok_or("there is no shard of that number")
    }
}

impl From<Shard> for u16 {
    fn from(shard: Shard) -> Self {
        shard.0
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A job's identity: a `UUIDv7` (RFC 9562) whose last two bytes name its shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// A new id in `shard`, ordered by `at`. `random` is ten fresh random bytes, of which the last gives
    /// way to the shard's number.
    pub fn mint(shard: Shard, at: Time, random: [u8; 10]) -> Self {
        let millis = u64::try_from(at.micros() / 1000).unwrap_or(0);
        let [_, low] = shard.number().to_be_bytes();
        let mut bytes = random;
        if let Some(last) = bytes.last_mut() {
            *last = low;
        }
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// The shard that the id names.
    pub fn shard(self) -> Shard {
        let [.., high, low] = *self.0.as_bytes();
        Shard(u16::from_be_bytes([high, low]) % SHARDS)
    }

    /// The id as a plain UUID, for the store.
    pub fn uuid(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for JobId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

/// What was given as an id isn't one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("is not a UUID like 01934f5e-0000-7000-8000-000000000000")]
pub struct NotAnId;

impl FromStr for JobId {
    type Err = NotAnId;

    /// Reads the hyphenated form alone, in upper or lower case.
    fn from_str(text: &str) -> Result<Self, NotAnId> {
        if text.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(NotAnId);
        }
        Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)
    }
}

/// Declares an identity that is a random UUID.
macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = NotAnId;

            fn from_str(text: &str) -> Result<Self, NotAnId> {
                Uuid::try_parse(text).map(Self).map_err(|_| NotAnId)
            }
        }
    };
}

random_id! {
    /// A worker's stable identity, kept in its data directory.
    WorkerId
}
random_id! {
    /// One start of a worker: new each time its process starts.
    Instance
}
random_id! {
    /// One claim of an offer. A claim that is repeated under its id gets the same grant.
    ClaimId
}
random_id! {
    /// One start of a coordinator; its row in the store is its lease.
    CoordinatorId
}
random_id! {
    /// One request for a deploy key: none is answered twice.
    RequestId
}
random_id! {
    /// A token of the API or of those who want to become workers; it says nothing of the token's text.
    TokenId
}

/// Declares a number that only grows.
macro_rules! growing_number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// The number after this one.
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

growing_number! {
    /// One grant of a job to a worker. 0 before the first; never used twice.
    Attempt(u32)
}
growing_number! {
    /// Drawn for every grant, growing over the whole installation, so that a deploy target can refuse an old deployer.
    Fence(u64)
}
growing_number! {
    /// Grows by one whenever a shard changes its owner.
    Epoch(u64)
}
growing_number! {
    /// The number of an event within its job, from 1, without gaps.
    Seq(u64)
}
growing_number! {
    /// The number of an event within its shard, from 1, without gaps: the order in which a shard's log is published.
    ShardSeq(u64)
}
growing_number! {
    /// How many transitions of a job are committed.
    Version(u64)
}

/// A commit of a repository: 40 (SHA-1) or 64 (SHA-256) hex digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CommitId(String);

impl CommitId {
    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What git calls the kind of repository that has such ids: `sha1` or `sha256`.
    pub fn object_format(&self) -> &'static str {
        if self.0.len() == 40 { "sha1" } else { "sha256" }
    }
}

impl TryFrom<String> for CommitId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let digits = text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if digits && matches!(text.len(), 40 | 64) {
            Ok(Self(text))
        } else {
            Err("a commit is 40 or 64 hex digits in lower case")
        }
    }
}

impl From<CommitId> for String {
    fn from(commit: CommitId) -> Self {
        commit.0
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Actor {
    /// A timer, a lease or a recovery of the coordinator itself.
    Coordinator,
    /// The worker of that id.
    Worker(WorkerId),
    /// Whoever holds the token of that name.
    Client(String),
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator => f.write_str("coordinator"),
            Self::Worker(id) => write!(f, "worker:{id}"),
            Self::Client(name) => write!(f, "client:{name}"),
        }
    }
}

impl From<Actor> for String {
    fn from(actor: Actor) -> Self {
        actor.to_string()
    }
}

impl TryFrom<String> for Actor {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        if text == "coordinator" {
            Ok(Self::Coordinator)
        } else if let Some(id) = text.strip_prefix("worker:") {
            id.parse().map(Self::Worker).map_err(|_| "a worker's id is a UUID")
        } else if let Some(name) = text.strip_prefix("client:") {
            Ok(Self::Client(name.to_owned()))
        } else {
            Err("an actor is `coordinator`, `worker:ID` or `client:NAME`")
        }
    }
}
