//! Gathers what explains a job: from the store, and where it has a live attempt from the owner of its shard, who alone knows of
//! leases and of orders that were heard. Nothing is changed by it.

use std::time::Instant;

use shared::clock;
use shared::id::{JobId, Seq};
use shared::job::{Job, State};
use shared::time::{Period, Time};
use shared::view::explanation::Explanation;

use crate::explain::{Facts, Lease, Owner, explain};
use crate::holdings::Route;
use crate::service::{Error, Service};

/// How many of a job's last events are read: those of its last attempt that matter are among them.
const EVENTS_MAX: u32 = 256;

/// What is done where another coordinator knows more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Elsewhere {
    /// It is said that another should be asked.
    Refuse,
    /// What the store knows is enough: nobody else answers.
    DoWithout,
}

impl Service {
    /// Why the job isn't running, or what it does.
    ///
    /// # Errors
    /// [`Error::Elsewhere`] where the owner of its shard knows more and `elsewhere` says so.
    pub async fn explain(&self, id: JobId, elsewhere: Elsewhere) -> Result<Explanation, Error> {
        let job = self.job(id).await?;
        let owner = self.owner_of(&job, elsewhere).await?;
        let store = &self.parts.store;
        let after = Seq(job.seq.0.saturating_sub(u64::from(EVENTS_MAX)));
        let events = if job.is_terminal() { Vec::new() } else { store.events(id, after, EVENTS_MAX).await? };
        let is_queued = matches!(job.state, State::Queued { .. });
        let workers = if is_queued || job.state.hold().is_some() { store.workers().await? } else { Vec::new() };
        let ahead = if is_queued { Some(store.ahead(&job).await?) } else { None };
        let registered = match &job.state {
            State::Blocked { key, .. } => !store.registered(std::slice::from_ref(key)).await?.is_empty(),
            _ => false,
        };
        let facts = Facts { job, events, workers, ahead, registered, owner };
        Ok(explain(&facts, self.parts.holdings.now()))
    }

    /// What the owner of the job's shard knows of it.
    async fn owner_of(&self, job: &Job, elsewhere: Elsewhere) -> Result<Owner, Error> {
        let route = self.route(job.id);
        if job.is_terminal() {
            return Ok(Owner::NotAsked);
        }
        if job.state.hold().is_none() {
            return Ok(if route == Route::Nowhere { Owner::Away } else { Owner::NotAsked });
        }
        if route == Route::Here {
            let known = self.parts.jobs.lease(job.id).await.filter(|lease| lease.attempt == job.attempt);
            let ordered = self.parts.told.when(job.id, job.attempt);
            let now = self.parts.holdings.now();
            let lease = known.map(|lease| Lease {
                heard: ago(now, lease.heard),
                told: [lease.told, ordered].into_iter().flatten().min().map(|told| ago(now, told)),
            });
            return Ok(Owner::Knows(lease));
        }
        match elsewhere {
            Elsewhere::Refuse => Err(Error::Elsewhere),
            Elsewhere::DoWithout => Ok(Owner::Away),
        }
    }
}

/// The database's time at a moment of this process.
fn ago(now: Time, moment: Instant) -> Time {
    now.minus(Period::from_millis(
        u64::try_from(clock::instant().saturating_duration_since(moment).as_millis()).unwrap_or(u64::MAX),
    ))
}
