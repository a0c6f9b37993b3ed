//! Deploy keys, what is kept secret beside them, and the audit of who did what with them.

use async_trait::async_trait;

use shared::id::{Actor, Attempt, CoordinatorId, JobId, RequestId, Shard};
use shared::job::State;
use shared::time::Time;

use super::Error;

/// The most deploy keys that are registered at a time.
pub const DEPLOY_KEYS_MAX: u32 = 10_000;
/// The most master keys that something is stored under at a time.
pub const MASTER_KEYS_MAX: u32 = 64;

/// The verbs about deploy keys, what is sealed under the master keys, and the audit. Writes name the coordinator that makes
/// them, as everywhere.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// Stores a key in place of its version `replaces`, or where there is none of its name; with it its line in the audit.
    async fn put_key(
        &self,
        owner: CoordinatorId,
        key: &DeployKey,
        replaces: Option<u32>,
        audit: &AuditLine,
    ) -> Result<KeyPut, Error>;

    /// Removes a key, whatever its version; with that goes the line in the audit. False, and no line, where there is none.
    async fn remove_key(&self, owner: CoordinatorId, name: &str, audit: &AuditLine) -> Result<bool, Error>;

    /// The key of that name.
    async fn key(&self, name: &str) -> Result<Option<DeployKey>, Error>;

    /// The keys in the order of their names, bytewise, after `after`; at most `limit`.
    async fn keys(&self, after: Option<&str>, limit: u32) -> Result<Vec<DeployKey>, Error>;

    /// Which of these names are registered.
    async fn registered(&self, names: &[String]) -> Result<Vec<String>, Error>;

    /// The jobs of `shards` that are blocked on a deploy key which is registered, with its name, in order, after `after`;
    /// at most `limit`.
    async fn unblocked(
        &self,
        shards: &[Shard],
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<(JobId, String)>, Error>;

    /// Adds a line to the audit. False, and no line, where there is one already with the same request.
    async fn audit(&self, owner: CoordinatorId, line: &AuditLine) -> Result<bool, Error>;

    /// Adds lines to the audit, all or none; none of them may have a request.
    async fn note(&self, owner: CoordinatorId, lines: &[AuditLine]) -> Result<(), Error>;

    /// The lines about `subject`, or all, the newest first; at most `limit`.
    async fn audited(&self, subject: Option<&str>, limit: u32) -> Result<Vec<AuditLine>, Error>;

    /// What is stored sealed and doesn't begin with `header`, after `after`, in the order of [`Place`]; at most `limit`.
    async fn sealed_otherwise(
        &self,
        header: &[u8],
        after: Option<&Place>,
        limit: u32,
    ) -> Result<Vec<(Place, Vec<u8>)>, Error>;

    /// Replaces each of these that is still what it was; returns how many were.
    async fn reseal(&self, owner: CoordinatorId, all: &[Resealed]) -> Result<u32, Error>;

    /// Every master key that something may be stored under, in the order of their ids.
    async fn master_keys(&self) -> Result<Vec<MasterKeyCheck>, Error>;

    /// Notes a master key before anything is stored under it. An id that is known keeps its check; false where there are
    /// [`MASTER_KEYS_MAX`].
    async fn add_master_key(&self, owner: CoordinatorId, check: &MasterKeyCheck) -> Result<bool, Error>;

    /// Forgets master keys that nothing is stored under any more.
    async fn remove_master_keys(&self, owner: CoordinatorId, ids: &[String]) -> Result<(), Error>;
}

/// A deploy key as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployKey {
    pub name: String,
    /// From 1; it grows with every change.
    pub version: u32,
    /// Like `ssh-ed25519`.
    pub algorithm: String,
    /// Like `SHA256:…`, as `ssh-keygen -l` shows it.
    pub fingerprint: String,
    /// The public half, as a line of `authorized_keys`.
    pub public_key: String,
    /// The host keys that count, as a `known_hosts` file.
    pub known_hosts: String,
    /// The private half: encrypted, and bound to name and version.
    pub private_key: Vec<u8>,
    /// When its first version was stored.
    pub created_at: Time,
    /// When this version was stored.
    pub changed_at: Time,
}

/// What became of a key that was to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPut {
    Stored,
    /// Its version is another, or there is or isn't one of its name, against what the writer thought.
    Conflict,
    /// There are [`DEPLOY_KEYS_MAX`].
    TooMany,
}

/// Who did what, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    pub at: Time,
    pub actor: Actor,
    /// The address that it came from, where it came over the network.
    pub origin: Option<String>,
    /// Like `deploy_key.ask`.
    pub action: String,
    /// What it is about: a deploy key's name, the id of a job, a worker or a token; perhaps nothing.
    pub subject: String,
    /// Like `sealed` or `denied: …`.
    pub outcome: String,
    pub job: Option<JobId>,
    pub attempt: Option<Attempt>,
    /// Makes a request count once.
    pub request: Option<RequestId>,
}

/// Where a sealed value belongs. Ordered: job secrets before deploy keys.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A job's secrets.
    Job(JobId),
    /// The private half of that version of a deploy key.
    DeployKey { name: String, version: u32 },
}

/// A sealed value that is to stand in another's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    pub place: Place,
    pub was: Vec<u8>,
    pub is: Vec<u8>,
}

/// What tells whether somebody's master key of that id is the one that things are stored under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MasterKeyCheck {
    pub id: String,
    pub check: [u8; 32],
}

/// The deploy key that a job in this state waits for.
pub(super) fn blocked_on(state: &State) -> Option<&str> {
    match state {
        State::Blocked { key, .. } => Some(key),
        State::Scheduled { .. } | State::Queued { .. } => None,
        State::Assigned(_) | State::Running(_) | State::Canceling { .. } => None,
        State::Succeeded | State::Failed { .. } | State::Canceled { .. } => None,
    }
}
