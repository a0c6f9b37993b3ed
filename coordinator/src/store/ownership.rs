//! Which coordinator owns which shard. A coordinator's row is its lease: it writes only while the row is there, and a
//! takeover deletes the row before it takes the shards.
//!
//! In the embedded store the lock on the data directory is the lease: there is one coordinator, whose row doesn't expire.

use std::time::Duration;

use async_trait::async_trait;

use shared::id::{CoordinatorId, Epoch, Shard, ShardSeq};
use shared::time::Time;

use super::Error;

/// How long a coordinator lives without a renewal, where its lease ends at all: 3 s. It renews every second.
pub const LEASE_TTL: Duration = Duration::from_secs(3);

/// The verbs by which shards change hands. Each is one transaction, unless it says otherwise.
#[async_trait]
pub trait Ownership: Send + Sync + 'static {
    /// Makes a coordinator known under a fresh id. Embedded, this fences whoever was there before.
    async fn join(&self, member: &Member) -> Result<(), Error>;

    /// Moves the end of the coordinator's lease on, and tells how the cluster is. [`Error::Fenced`] when its row is gone.
    async fn renew(&self, id: CoordinatorId) -> Result<Cluster, Error>;

    /// Deletes the rows of these coordinators, as far as their leases have ended: that waits for what they have in flight,
    /// and from then on they write nothing.
    async fn bury(&self, id: CoordinatorId, expired: &[CoordinatorId]) -> Result<(), Error>;

    /// Writes down that something is written in this format from now on, unless it was in a higher one already or somebody
    /// has a row who writes a lower one.
    async fn raise_format(&self, format: u32) -> Result<(), Error>;

    /// Makes `id` the owner, at the next epoch, of those of `shards` that nobody owns whose row is there; of none where
    /// something is written in a format higher than its own. Then, in a transaction begun after that was committed, reads the numbers of all of `shards` that `id` owns now, also of those
    /// that were handed over to it.
    async fn take_over(&self, id: CoordinatorId, shards: &[Shard]) -> Result<Vec<OwnedShard>, Error>;

    /// Takes a coordinator's shards over from itself under a new id: deletes the row of `old`, which waits for its lost
    /// statement or fences it, makes `new` known, and gives it, at the next epoch, what `old` owned, if it can read what is
    /// written. Their numbers are read by [`Ownership::take_over`] afterwards.
    async fn succeed(&self, old: CoordinatorId, new: &Member) -> Result<(), Error>;

    /// Gives those of `shards` that `id` owns to `to`, at the next epoch; to nobody where its row is gone, or where it can't
    /// read what is written. The caller has stopped writing to them.
    async fn hand_over(&self, id: CoordinatorId, to: CoordinatorId, shards: &[Shard]) -> Result<(), Error>;

    /// Deletes the coordinator's row. What it still owns is nobody's then.
    async fn leave(&self, id: CoordinatorId) -> Result<(), Error>;
}

/// A coordinator, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// New at each start.
    pub id: CoordinatorId,
    /// Where its API is reached by the others, like `http://10.0.0.7:7070`.
    pub address: String,
    /// The number of the format that it writes.
    pub format: u32,
}

/// How the cluster is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The database's clock.
    pub now: Time,
    /// How long a renewal holds, from when it was sent; none where the lease doesn't end.
    pub ttl: Option<Duration>,
    /// Every coordinator that has a row, in the order of their ids, and whether its lease has ended.
    pub members: Vec<(Member, bool)>,
    /// Every shard, in order: who owns it, whether or not that one's row is there, and at which epoch.
    pub shards: Vec<(Shard, Option<CoordinatorId>, Epoch)>,
    /// The highest format that anything was ever written in: a member that writes a lower one owns nothing.
    pub written: u32,
}

impl Cluster {
    /// The shards that the coordinator `id` owns.
    pub fn owned_by(&self, id: CoordinatorId) -> Vec<Shard> {
        let owned = self.shards.iter().filter(|(_, owner, _)| *owner == Some(id));
        owned.map(|(shard, ..)| *shard).collect()
    }
}

/// A shard that was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnedShard {
    pub shard: Shard,
    pub epoch: Epoch,
    /// The number of its last event.
    pub last: ShardSeq,
    /// The number up to which its events are published.
    pub published: ShardSeq,
}
