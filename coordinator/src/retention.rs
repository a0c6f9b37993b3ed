//! Removes what is old: jobs that ended long enough ago, with all that is about them, and keys and tokens that have expired.
//!
//! It goes through the jobs of its own shards a few at a time, with a rest after each write, so that live work hardly notices.
//! What a sweep leaves, because it was interrupted or isn't published yet, the next one finds.

use std::sync::Arc;
use std::time::Duration;

use shared::id::JobId;
use shared::time::Period;

use crate::fault;
use crate::holdings::Holdings;
use crate::store::{EndedJob, Error, Store};

/// How long a job is kept after its end, unless told otherwise.
pub const RETENTION_DEFAULT: Period = Period::from_secs(30 * 24 * 60 * 60);
/// The shortest that it may be: until then an idempotency key may stand for the job, and the last of its log may come.
pub const RETENTION_MIN: Period = Period::from_secs(24 * 60 * 60);

/// From the start to the first sweep, from one to the next, and from one that failed to the next.
const FIRST_AFTER: Duration = Duration::from_secs(5);
const SWEEP_EVERY: Duration = Duration::from_mins(1);
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The rest after each write.
const REST: Duration = Duration::from_millis(20);
/// The most jobs that one reading brings.
const PAGE_JOBS_MAX: u32 = 500;
/// The most jobs, and about the most events, that go in one transaction; one job's events all do.
const BATCH_JOBS_MAX: usize = 100;
const BATCH_EVENTS_MAX: u64 = 2000;
/// The most chunks of logs that go in one statement.
const BATCH_CHUNKS_MAX: u32 = 200;
/// The most keys, and tokens, that go in one statement.
const BATCH_EXPIRED_MAX: u32 = 500;

/// What it works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub holdings: Arc<Holdings>,
    /// How long a job is kept after its end.
    pub keep: Period,
}

/// What a sweep has removed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Swept {
    jobs: u32,
    chunks: u32,
    keys: u32,
    tokens: u32,
}

/// Sweeps again and again until it is dropped.
pub async fn keep_removing(parts: Parts) {
    tokio::time::sleep(FIRST_AFTER).await;
    loop {
        let mut swept = Swept::default();
        let done = sweep(&parts, &mut swept).await;
        let Swept { jobs, chunks, keys, tokens } = swept;
        if swept == Swept::default() {
            tracing::debug!("nothing is old enough to go");
        } else {
            tracing::info!(jobs, chunks, keys, tokens, "removed what was old");
        }
        if let Err(error) = &done {
            tracing::warn!(%error, "removing what is old; it is tried again");
        }
        tokio::time::sleep(if done.is_ok() { SWEEP_EVERY } else { AGAIN_AFTER }).await;
    }
}

/// Removes all that may go now; what it has removed counts also where it fails.
async fn sweep(parts: &Parts, swept: &mut Swept) -> Result<(), Error> {
    let Parts { store, holdings, keep } = parts;
    // Before the lease was first renewed there is no time to go by.
    if !holdings.is_alive() {
        return Ok(());
    }
    loop {
        let removed = store.remove_expired(holdings.id(), holdings.now(), BATCH_EXPIRED_MAX).await?;
        swept.keys += removed.keys;
        swept.tokens += removed.tokens;
        tokio::time::sleep(REST).await;
        if removed.keys.max(removed.tokens) < BATCH_EXPIRED_MAX {
            break;
        }
    }
    if fault::is_lost("retention.sweep") {
        return Err(Error::Unavailable("a fault of the tests".to_owned()));
    }
    let before = holdings.now().minus(*keep);
    let mut after = None;
    loop {
        let page = store.ended_jobs(&holdings.shards(), before, after, PAGE_JOBS_MAX).await?;
        after = page.last().map(|job| job.id).filter(|_| page.len() == PAGE_JOBS_MAX as usize);
        for batch in batches(&page) {
            loop {
                let removed = store.remove_jobs(holdings.id(), &batch, before, BATCH_CHUNKS_MAX).await?;
                swept.jobs += removed.jobs;
                swept.chunks += removed.chunks;
                tokio::time::sleep(REST).await;
                if !removed.more {
                    break;
                }
            }
        }
        if after.is_none() {
            return Ok(());
        }
    }
}

/// The jobs in their order, cut so that no batch has too many jobs or, unless it is a single one, events.
fn batches(page: &[EndedJob]) -> Vec<Vec<JobId>> {
    let mut batches: Vec<Vec<JobId>> = Vec::new();
    let mut events = 0;
    for job in page {
        match batches.last_mut() {
            Some(batch) if batch.len() < BATCH_JOBS_MAX && events + job.events <= BATCH_EVENTS_MAX => {
                batch.push(job.id);
                events += job.events;
            }
            _ => {
                batches.push(vec![job.id]);
                events = job.events;
            }
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::JobId;

    use super::{BATCH_EVENTS_MAX, BATCH_JOBS_MAX, EndedJob, batches};

    #[test]
    fn a_batch_ends_before_it_has_too_many_jobs_or_events() {
        let sizes = |events: &[u64]| -> Vec<usize> {
            let job = |events: &u64| EndedJob { id: JobId::from(clock::random_uuid()), events: *events };
            let page: Vec<EndedJob> = events.iter().map(job).collect();
            let batches = batches(&page);
            assert_eq!(batches.concat(), page.iter().map(|job| job.id).collect::<Vec<_>>());
            batches.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&[]), [0; 0]);
        assert_eq!(sizes(&[5; BATCH_JOBS_MAX + 1]), [BATCH_JOBS_MAX, 1]);
        assert_eq!(sizes(&[BATCH_EVENTS_MAX, 1, BATCH_EVENTS_MAX - 1, 1]), [1, 2, 1]);
        assert_eq!(sizes(&[1, 10 * BATCH_EVENTS_MAX, 1]), [1, 1, 1]);
    }
}
