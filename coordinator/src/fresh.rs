//! Jobs that were just submitted, so that the first that happens to one needs no reading. They are few and not kept for long: a job
//! that waits is a row.
//!
//! What is kept here is what is committed as long as nobody else could have written the job: it was stored at the epoch at which
//! its shard is still owned, and whatever happens to it takes it out first.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use shared::id::{Epoch, JobId, Shard};
use shared::job::Job;

/// How long a job is kept.
const KEEP_FOR: Duration = Duration::from_secs(10);
/// The most bytes of all that are kept in one process, as far as [`weight`] knows. Of more, the older ones stay: theirs is the
/// next turn.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// What a job takes up beside its texts.
const JOB_BYTES: usize = 1024;

/// The jobs of one registry.
#[derive(Debug)]
pub struct Fresh {
    jobs: HashMap<JobId, Kept>,
    /// When each came; those that were taken out since stay until their turn comes.
    order: VecDeque<(Instant, JobId)>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    job: Job,
    epoch: Epoch,
    bytes: usize,
}

impl Fresh {
    /// Nothing, and room for what falls to one of so many registries.
    pub fn of(registries: usize) -> Self {
        let bytes_max = BYTES_MAX.checked_div(registries).unwrap_or(BYTES_MAX);
        Self { jobs: HashMap::new(), order: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// Keeps a job that was stored at that epoch of its shard, where there is room.
    pub fn put(&mut self, job: Job, epoch: Epoch, now: Instant) {
        let bytes = weight(&job);
        if self.bytes + bytes > self.bytes_max {
            return;
        }
        let id = job.id;
        if let Some(before) = self.jobs.insert(id, Kept { job, epoch, bytes }) {
            self.bytes -= before.bytes;
        }
        self.bytes += bytes;
        self.order.push_back((now, id));
    }

    /// Takes a job out; it is returned if its shard is still owned at the same epoch.
    pub fn take(&mut self, id: JobId, epoch: Option<Epoch>) -> Option<Job> {
        let kept = self.remove(id)?;
        (Some(kept.epoch) == epoch).then_some(kept.job)
    }

    /// Lets those go that have been here for long enough.
    pub fn expire(&mut self, now: Instant) {
        while let Some((since, id)) = self.order.front().copied()
            && (now.duration_since(since) > KEEP_FOR || !self.jobs.contains_key(&id))
        {
            self.order.pop_front();
            self.remove(id);
        }
    }

    /// Lets those of these shards go.
    pub fn forget(&mut self, shards: &[Shard]) {
        let gone: Vec<JobId> = self.jobs.keys().filter(|id| shards.contains(&id.shard())).copied().collect();
        for id in gone {
            self.remove(id);
        }
    }

    fn remove(&mut self, id: JobId) -> Option<Kept> {
        let kept = self.jobs.remove(&id)?;
        self.bytes -= kept.bytes;
        Some(kept)
    }
}

/// About how many bytes a job takes up.
fn weight(job: &Job) -> usize {
    JOB_BYTES + job.spec.text_bytes()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;
    use shared::clock;
    use shared::id::Actor;
    use shared::job::submit;
    use shared::spec::parse_single;
    use shared::time::Time;

    use super::*;

    fn job(shard: u16, n: u8, script: &str) -> Job {
        let spec = parse_single(&json!({"steps": [{"run": script}]}), None).unwrap().spec;
        let now = Time::from_micros(1_000_000);
        let id = JobId::mint(Shard::new(shard).unwrap(), now, [n; 10]);
        submit(id, Arc::new(spec), false, None, Actor::Coordinator, now).job
    }

    #[test]
    fn a_job_is_had_once_and_only_at_its_epoch() {
        let (mut fresh, now) = (Fresh::of(1), clock::instant());
        let [one, two, three] = [1, 2, 3].map(|n| job(7, n, "true"));
        for job in [&one, &two, &three] {
            fresh.put(job.clone(), Epoch(4), now);
        }
        assert_eq!(fresh.take(one.id, Some(Epoch(4))), Some(one.clone()));
        assert_eq!(fresh.take(one.id, Some(Epoch(4))), None, "what has happened since is not known here");
        assert_eq!(fresh.take(two.id, Some(Epoch(5))), None, "another may have owned the shard between");
        assert_eq!(fresh.take(three.id, None), None, "the shard isn't owned");
        assert_eq!(fresh.bytes, 0);
    }

    #[test]
    fn it_is_let_go_with_its_shard_or_after_a_while() {
        let (mut fresh, now) = (Fresh::of(1), clock::instant());
        let [one, other, late] = [job(1, 1, "true"), job(2, 2, "true"), job(2, 3, "true")];
        fresh.put(one.clone(), Epoch(1), now);
        fresh.put(other.clone(), Epoch(1), now);
        fresh.put(late.clone(), Epoch(1), now + KEEP_FOR);
        fresh.forget(&[one.id.shard()]);
        assert!(fresh.take(one.id, Some(Epoch(1))).is_none());
        fresh.expire(now + KEEP_FOR + Duration::from_millis(1));
        assert_eq!(fresh.jobs.keys().collect::<Vec<_>>(), [&late.id]);
        assert_eq!(fresh.order.len(), 1);
        assert_eq!(fresh.bytes, weight(&late));
    }

    #[test]
    fn no_more_is_kept_than_there_is_room_for() {
        let (mut fresh, now) = (Fresh::of(BYTES_MAX / (100 * 1024)), clock::instant());
        let large = |n| job(1, n, &"x".repeat(60 * 1024));
        fresh.put(large(1), Epoch(1), now);
        fresh.put(large(2), Epoch(1), now);
        assert!(fresh.take(large(2).id, Some(Epoch(1))).is_none(), "the older one stays");
        assert!(fresh.take(large(1).id, Some(Epoch(1))).is_some());
        fresh.put(large(3), Epoch(1), now);
        assert!(fresh.take(large(3).id, Some(Epoch(1))).is_some());
    }
}
