//! Who holds which attempt, and until when without a word. A lease is memory alone: a heartbeat moves it on, and only
//! its end becomes a message to the job.
//!
//! A lease runs only while its worker could have been heard: after a takeover, or when this process itself stood still,
//! every lease begins anew in full.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shared::id::{Attempt, Instance, JobId, Shard, WorkerId};
use shared::job::{Job, State, StopOrder};
use shared::time::{Period, Time};

pub use shared::wire::LEASE;
/// How often leases are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A look that comes this late says that the process stood still, and heard nobody meanwhile.
const STOOD_STILL: Duration = Duration::from_secs(3);

/// A live attempt and who has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub attempt: Attempt,
    pub worker: WorkerId,
    pub instance: Instance,
    /// When the grace of its cancel ends, if it has one.
    pub stopping: Option<Time>,
}

impl Held {
    /// Who holds the job's live attempt, if it has one.
    pub fn of(job: &Job) -> Option<Self> {
        let hold = job.state.hold()?;
        let stopping = match &job.state {
            State::Canceling { cancel, .. } => Some(cancel.grace_ends),
            _ => None,
        };
        Some(Self { attempt: job.attempt, worker: hold.worker, instance: hold.instance, stopping })
    }
}

/// One attempt's lease.
#[derive(Debug, Clone, Copy)]
struct Lease {
    held: Held,
    /// When it was first known here.
    since: Instant,
    /// When its worker was last heard.
    heard: Instant,
    /// When a heartbeat of its worker was first answered with its cancel.
    told: Option<Instant>,
}

/// What is known of one attempt's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub attempt: Attempt,
    /// When its worker was last heard, or could first have been.
    pub heard: Instant,
    /// When a heartbeat of its worker was first answered with its cancel.
    pub told: Option<Instant>,
}

/// The leases of the jobs of one registry.
#[derive(Debug)]
pub struct Leases {
    by_job: HashMap<JobId, Lease>,
    looked: Instant,
}

impl Leases {
    /// No lease, looked at `now`.
    pub fn new(now: Instant) -> Self {
        Self { by_job: HashMap::new(), looked: now }
    }

    /// Notes who holds a job's attempt; a fresh hold gets a full lease.
    pub fn set(&mut self, job: JobId, held: Option<Held>, now: Instant) {
        match held {
            None => {
                self.by_job.remove(&job);
            }
            Some(held) => {
                let before = self.by_job.get(&job).filter(|lease| lease.held.attempt == held.attempt);
                let fresh = Lease { held, since: now, heard: now, told: None };
                self.by_job.insert(job, before.map_or(fresh, |lease| Lease { held, ..*lease }));
            }
        }
    }

    /// A heartbeat names these attempts of a worker: each that it holds is renewed. Returns what should stop, and the
    /// jobs of which nothing is known here.
    pub fn heard(
        &mut self,
        worker: WorkerId,
        instance: Instance,
        attempts: &[(JobId, Attempt)],
        now: Instant,
        time: Time,
    ) -> (Vec<StopOrder>, Vec<(JobId, Attempt)>) {
        let (mut stop, mut unknown) = (Vec::new(), Vec::new());
        for (job, attempt) in attempts {
            let order = |grace| StopOrder { job: *job, attempt: *attempt, worker, instance, grace };
            match self.by_job.get_mut(job) {
                Some(lease) if lease.held.attempt == *attempt && lease.held.worker == worker => {
                    lease.heard = now;
                    if let Some(ends) = lease.held.stopping {
                        lease.told.get_or_insert(now);
                        let left = u64::try_from(ends.since(time).as_millis()).unwrap_or(u64::MAX);
                        stop.push(order(Period::from_millis(left)));
                    }
                }
                Some(_) => stop.push(order(Period::ZERO)),
                None => unknown.push((*job, *attempt)),
            }
        }
        (stop, unknown)
    }

    /// What is known of the lease of a job's attempt.
    pub fn known(&self, job: JobId) -> Option<Known> {
        let Lease { held, heard, told, .. } = self.by_job.get(&job)?;
        Some(Known { attempt: held.attempt, heard: *heard, told: *told })
    }

    /// The attempts whose worker wasn't heard for [`LEASE`]. Each is returned until it is no longer held, so that an end
    /// that couldn't be committed is tried again.
    pub fn expired(&mut self, now: Instant) -> Vec<(JobId, Attempt)> {
        let stood_still = now.duration_since(self.looked) > STOOD_STILL;
        self.looked = now;
        if stood_still {
            self.begin_anew(now);
        }
        let late = |lease: &Lease| now.duration_since(lease.heard) >= LEASE;
        self.by_job.iter().filter(|(_, lease)| late(lease)).map(|(job, lease)| (*job, lease.held.attempt)).collect()
    }

    /// Begins every lease anew in full: there was a time in which no worker could have been heard.
    pub fn begin_anew(&mut self, now: Instant) {
        for lease in self.by_job.values_mut() {
            lease.heard = now;
        }
    }

    /// Forgets the leases of shards that aren't ours any more.
    pub fn forget(&mut self, shards: &[Shard]) {
        self.by_job.retain(|job, _| !shards.contains(&job.shard()));
    }

    /// The attempts that another instance of their worker holds than the one that `announced` knows since that time: it
    /// was started anew, so they are gone. An attempt that is known for less long says nothing of the kind: it may be that
    /// of a newer instance. A grant that was under way when the new one was announced is found by asking again.
    pub fn left_behind(&self, announced: impl Fn(WorkerId) -> Option<(Instance, Instant)>) -> Vec<(JobId, Attempt)> {
        let left = |lease: &Lease| {
            announced(lease.held.worker).is_some_and(|(known, at)| known != lease.held.instance && lease.since < at)
        };
        self.by_job.iter().filter(|(_, lease)| left(lease)).map(|(job, lease)| (*job, lease.held.attempt)).collect()
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;

    use super::*;

    struct Story {
        leases: Leases,
        now: Instant,
        job: JobId,
        held: Held,
    }

    impl Story {
        fn with_one_attempt() -> Self {
            let now = clock::instant();
            let held = Held {
                attempt: Attempt(1),
                worker: WorkerId(clock::random_uuid()),
                instance: Instance(clock::random_uuid()),
                stopping: None,
            };
            let job = JobId::from(clock::random_uuid());
            let mut leases = Leases::new(now);
            leases.set(job, Some(held), now);
            Self { leases, now, job, held }
        }

        /// Time goes by, looked at every second.
        fn pass(&mut self, seconds: u64) -> Vec<(JobId, Attempt)> {
            (0..seconds).fold(Vec::new(), |_, _| {
                self.now += LOOK_EVERY;
                self.leases.expired(self.now)
            })
        }

        fn beat(&mut self, attempt: Attempt) -> (Vec<StopOrder>, Vec<(JobId, Attempt)>) {
            let (worker, instance) = (self.held.worker, self.held.instance);
            self.leases.heard(worker, instance, &[(self.job, attempt)], self.now, Time::from_micros(0))
        }
    }

    #[test]
    fn a_lease_ends_fifteen_seconds_after_the_last_heartbeat() {
        let mut story = Story::with_one_attempt();
        assert_eq!(story.pass(14), []);
        assert_eq!(story.beat(Attempt(1)), (vec![], vec![]));
        assert_eq!(story.pass(14), []);
        assert_eq!(story.pass(1), [(story.job, Attempt(1))]);
        assert_eq!(story.pass(1), [(story.job, Attempt(1))], "until the end is committed");
        story.leases.set(story.job, None, story.now);
        assert_eq!(story.pass(20), []);
    }

    #[test]
    fn a_heartbeat_that_leaves_an_attempt_out_neither_renews_nor_ends_it() {
        let mut story = Story::with_one_attempt();
        story.pass(10);
        let (worker, instance) = (story.held.worker, story.held.instance);
        story.leases.heard(worker, instance, &[], story.now, Time::from_micros(0));
        assert_eq!(story.pass(4), []);
        assert_eq!(story.pass(1).len(), 1);
    }

    #[test]
    fn a_process_that_stood_still_begins_every_lease_anew() {
        let mut story = Story::with_one_attempt();
        story.now += LEASE * 2;
        assert_eq!(story.leases.expired(story.now), []);
        assert_eq!(story.pass(14), []);
        assert_eq!(story.pass(1).len(), 1);
    }

    #[test]
    fn after_a_break_every_lease_begins_anew_and_a_lost_shard_has_none() {
        let mut story = Story::with_one_attempt();
        story.pass(14);
        story.leases.begin_anew(story.now);
        assert_eq!(story.pass(14), []);
        story.leases.forget(&[story.job.shard()]);
        assert_eq!(story.pass(5), []);
    }

    #[test]
    fn a_transition_of_the_same_attempt_does_not_renew_its_lease() {
        let mut story = Story::with_one_attempt();
        story.pass(10);
        let stopping = Some(Time::from_micros(5_000_000));
        story.leases.set(story.job, Some(Held { stopping, ..story.held }), story.now);
        let (stop, _) = story.beat(Attempt(1));
        assert_eq!(stop.iter().map(|order| order.grace).collect::<Vec<_>>(), [Period::from_secs(5)]);
    }

    #[test]
    fn an_attempt_that_is_not_current_is_told_to_stop_and_an_unknown_one_is_looked_up() {
        let mut story = Story::with_one_attempt();
        let (stop, unknown) = story.beat(Attempt(7));
        assert_eq!((stop.len(), unknown.len()), (1, 0));
        story.leases.set(story.job, None, story.now);
        let (stop, unknown) = story.beat(Attempt(1));
        assert_eq!((stop.len(), unknown), (0, vec![(story.job, Attempt(1))]));
    }

    #[test]
    fn a_worker_that_was_started_anew_leaves_its_old_attempts_behind_also_late_ones() {
        let mut story = Story::with_one_attempt();
        let (same, anew) = (story.held.instance, Instance(clock::random_uuid()));
        let (before, at) = (story.now, story.now + LOOK_EVERY);
        assert_eq!(story.leases.left_behind(|_| None), []);
        assert_eq!(story.leases.left_behind(|_| Some((same, at))), []);
        assert_eq!(story.leases.left_behind(|_| Some((anew, before))), [], "it may be newer than what was known then");
        assert_eq!(story.leases.left_behind(|_| Some((anew, at))), [(story.job, Attempt(1))]);
        let late = JobId::from(clock::random_uuid());
        story.leases.set(late, Some(story.held), story.now);
        assert_eq!(story.leases.left_behind(|_| Some((anew, at))).len(), 2);
    }
}
