//! Who holds which attempt, and until when without a word. A lease is memory alone: a heartbeat moves it on, and only
//! its end becomes a message to the job.
//!
//! A lease runs only while its worker could have been heard: after a takeover, or when this process itself stood still,
//! every lease begins anew in full.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use shared::id::{Attempt, Instance, JobId, WorkerId};
use shared::job::{Job, State, StopOrder};
use shared::time::{Period, Time};

/// Without a heartbeat for this long, a worker counts as lost.
pub const LEASE: Duration = Duration::from_secs(15);
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

/// The leases of the jobs of one registry.
#[derive(Debug)]
pub struct Leases {
    by_job: HashMap<JobId, (Held, Instant)>,
    /// The last instance that each worker announced.
    instances: HashMap<WorkerId, Instance>,
    looked: Instant,
}

impl Leases {
    /// No lease, looked at `now`.
    pub fn new(now: Instant) -> Self {
        Self { by_job: HashMap::new(), instances: HashMap::new(), looked: now }
    }

    /// Notes who holds a job's attempt; a fresh hold gets a full lease.
    pub fn set(&mut self, job: JobId, held: Option<Held>, now: Instant) {
        match held {
            None => {
                self.by_job.remove(&job);
            }
            Some(held) => {
                let lease = self.by_job.get(&job).filter(|(before, _)| before.attempt == held.attempt);
                let heard = lease.map_or(now, |(_, heard)| *heard);
                self.by_job.insert(job, (held, heard));
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
                Some((held, heard)) if held.attempt == *attempt && held.worker == worker => {
                    *heard = now;
                    if let Some(ends) = held.stopping {
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

    /// The attempts whose worker wasn't heard for [`LEASE`]. Each is returned until it is no longer held, so that an end
    /// that couldn't be committed is tried again.
    pub fn expired(&mut self, now: Instant) -> Vec<(JobId, Attempt)> {
        let stood_still = now.duration_since(self.looked) > STOOD_STILL;
        self.looked = now;
        if stood_still {
            for (_, heard) in self.by_job.values_mut() {
                *heard = now;
            }
        }
        let late = |heard: &Instant| now.duration_since(*heard) >= LEASE;
        self.by_job.iter().filter(|(_, (_, heard))| late(heard)).map(|(job, (held, _))| (*job, held.attempt)).collect()
    }

    /// A worker announced its instance.
    pub fn announce(&mut self, worker: WorkerId, instance: Instance) {
        self.instances.insert(worker, instance);
    }

    /// The attempts that an earlier instance of their worker holds: it was started anew, so they are gone. A grant that
    /// was under way when the new one was announced is found by asking again.
    pub fn left_behind(&self) -> Vec<(JobId, Attempt)> {
        let left = |held: &Held| self.instances.get(&held.worker).is_some_and(|instance| *instance != held.instance);
        self.by_job.iter().filter(|(_, (held, _))| left(held)).map(|(job, (held, _))| (*job, held.attempt)).collect()
    }
}
