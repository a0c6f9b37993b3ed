//! The orders that workers have lately heard, for whoever explains what a canceled job still waits for. It is memory alone: what
//! it has forgotten, a heartbeat's answer has repeated meanwhile.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use shared::clock;
use shared::id::{Attempt, JobId};

/// The most orders that are remembered.
const TOLD_MAX: usize = 4096;

/// See the module.
#[derive(Debug, Default)]
pub struct Told(Mutex<VecDeque<(JobId, Attempt, Instant)>>);

impl Told {
    /// The worker has heard that this attempt is to stop.
    pub fn note(&self, job: JobId, attempt: Attempt) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.pop_front();
        }
        told.push_back((job, attempt, clock::instant()));
    }

    /// When its worker was first known to have heard that this attempt is to stop.
    pub fn when(&self, job: JobId, attempt: Attempt) -> Option<Instant> {
        let told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().find(|(told, of, _)| (*told, *of) == (job, attempt)).map(|(_, _, at)| *at)
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::{Attempt, JobId};

    use super::{TOLD_MAX, Told};

    #[test]
    fn an_order_is_remembered_until_too_many_have_followed() {
        let (told, job) = (Told::default(), JobId::from(clock::random_uuid()));
        told.note(job, Attempt(2));
        assert!(told.when(job, Attempt(2)).is_some() && told.when(job, Attempt(1)).is_none());
        for _ in 1..TOLD_MAX {
            told.note(JobId::from(clock::random_uuid()), Attempt(1));
        }
        assert!(told.when(job, Attempt(2)).is_some());
        told.note(job, Attempt(3));
        assert!(told.when(job, Attempt(2)).is_none() && told.when(job, Attempt(3)).is_some());
    }
}
