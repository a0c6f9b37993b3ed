//! What was put into the audit within the last minute, of what may come again and again: a worker repeats a request that
//! is answered with `unavailable` every few seconds, and a line a minute says as much.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::id::{Attempt, JobId};

/// How long after a line the next of the same kind is written.
const APART: Duration = Duration::from_mins(1);
/// The most that are remembered; of more each gets its line.
const REMEMBERED_MAX: usize = 10_000;

/// What may come again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A key that can't be handed out now.
    Unavailable,
    /// A request that was answered before.
    Replayed,
}

/// When each was written last.
#[derive(Debug, Default)]
pub struct AuditedLately {
    written: Mutex<HashMap<(JobId, Attempt, Kind), Instant>>,
}

impl AuditedLately {
    /// Whether a line of that kind was written about that attempt within the minute before `now`.
    pub fn has(&self, job: JobId, attempt: Attempt, kind: Kind, now: Instant) -> bool {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(&(job, attempt, kind)).is_some_and(|at| now.saturating_duration_since(*at) < APART)
    }

    /// Notes that such a line was written.
    pub fn note(&self, job: JobId, attempt: Attempt, kind: Kind, now: Instant) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if written.len() >= REMEMBERED_MAX {
            written.retain(|_, at| now.saturating_duration_since(*at) < APART);
        }
        if written.len() < REMEMBERED_MAX {
            written.insert((job, attempt, kind), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::{Attempt, JobId, Shard};

    use super::{APART, AuditedLately, Kind, REMEMBERED_MAX};

    #[test]
    fn a_line_of_each_kind_is_due_once_a_minute_and_only_so_many_are_remembered() {
        let (lately, now) = (AuditedLately::default(), clock::instant());
        let job = JobId::mint(Shard::all().next().unwrap(), clock::now(), clock::random());
        lately.note(job, Attempt(1), Kind::Unavailable, now);
        assert!(lately.has(job, Attempt(1), Kind::Unavailable, now + APART / 2));
        assert!(!lately.has(job, Attempt(1), Kind::Unavailable, now + APART));
        assert!(!lately.has(job, Attempt(1), Kind::Replayed, now));
        assert!(!lately.has(job, Attempt(2), Kind::Unavailable, now));

        let size = || lately.written.lock().unwrap().len();
        for attempt in 2..=u32::try_from(REMEMBERED_MAX).unwrap() + 10 {
            lately.note(job, Attempt(attempt), Kind::Unavailable, now);
        }
        assert_eq!(size(), REMEMBERED_MAX);
        lately.note(job, Attempt(1), Kind::Replayed, now + APART);
        assert_eq!(size(), 1, "what is past is forgotten for the new");
    }
}
