//! How what is old goes: a job that ended long enough ago with all that is about it, and what has expired.
//!
//! A job goes whole, in one transaction, but for its log, which may be long and goes before it. The database itself refuses to
//! delete an event without its job, a job that hasn't ended, and an event that isn't published.

use async_trait::async_trait;

use shared::id::{CoordinatorId, JobId, Shard};
use shared::time::Time;

use super::Error;

/// The verbs by which what is old goes.
#[async_trait]
pub trait Retention: Send + Sync + 'static {
    /// The jobs of `shards` that ended before `before`, in order, after `after`; at most `limit`.
    async fn ended_jobs(
        &self,
        shards: &[Shard],
        before: Time,
        after: Option<JobId>,
        limit: u32,
    ) -> Result<Vec<EndedJob>, Error>;

    /// Removes those of `jobs` that ended before `before`, whose shards are `owner`'s, and of which every event is published,
    /// with their events, secrets and logs. At most `chunks_max` chunks of their logs go at a time, and while there are more,
    /// no job does.
    async fn remove_jobs(
        &self,
        owner: CoordinatorId,
        jobs: &[JobId],
        before: Time,
        chunks_max: u32,
    ) -> Result<RemovedJobs, Error>;

    /// Removes idempotency keys and tokens that expired before `before`, at most `limit` of each.
    async fn remove_expired(&self, owner: CoordinatorId, before: Time, limit: u32) -> Result<RemovedExpired, Error>;
}

/// A job that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndedJob {
    pub id: JobId,
    /// How many events it has.
    pub events: u64,
}

/// What went of some jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemovedJobs {
    pub jobs: u32,
    pub chunks: u32,
    /// Whether the same call again would remove more.
    pub more: bool,
}

/// How much of what had expired went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RemovedExpired {
    pub keys: u32,
    pub tokens: u32,
}

/// No job that was created at `before` or later has an id below this one: ids begin with their time.
pub(super) fn first_id_at(before: Time) -> JobId {
    let millis = u64::try_from(before.micros() / 1000).unwrap_or(0);
    JobId::from(uuid::Uuid::from_u128(u128::from(millis) << 80))
}
