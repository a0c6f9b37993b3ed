//! How often somebody may come with a token that isn't known: whoever it is has a few tries, and gets one back every second.
//! A token that is known is never kept waiting by this, whatever else comes from there.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many tries each has at once.
const TRIES_MAX: u32 = 20;
/// How soon one of them is back.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// The most that are remembered. While as many have failed of late, no other has a try.
const REMEMBERED_MAX: usize = 10_000;

/// See the module. Those who try are told apart by `Who`.
pub struct Attempts<Who> {
    /// When each has all of its tries again.
    full_at: Mutex<HashMap<Who, Instant>>,
}

impl<Who> Default for Attempts<Who> {
    fn default() -> Self {
        Self { full_at: Mutex::default() }
    }
}

/// There is no try left: one comes back after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub Duration);

impl<Who: Eq + Hash> Attempts<Who> {
    /// Takes one of its tries.
    pub fn take(&self, who: Who, now: Instant) -> Result<(), TooMany> {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= REMEMBERED_MAX && !all.contains_key(&who) {
            all.retain(|_, full_at| *full_at > now);
            if all.len() >= REMEMBERED_MAX {
                return Err(TooMany(TRY_AGAIN));
            }
        }
        let full_at = all.entry(who).or_insert(now);
        let spent = (*full_at).max(now) + TRY_AGAIN;
        let longest = TRY_AGAIN * TRIES_MAX;
        match spent.duration_since(now).checked_sub(longest) {
            Some(wait) if !wait.is_zero() => Err(TooMany(wait)),
            _ => {
                *full_at = spent;
                Ok(())
            }
        }
    }

    /// Gives a try back that went well.
    pub fn give_back(&self, who: &Who) {
        let mut all = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = all.get_mut(who) {
            *full_at -= TRY_AGAIN;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::clock;

    #[test]
    fn each_has_its_tries_and_gets_them_back() {
        let (attempts, now) = (Attempts::default(), clock::instant());
        let (here, there) = ("192.0.2.1", "192.0.2.2");
        for _ in 0..TRIES_MAX {
            assert_eq!(attempts.take(here, now), Ok(()));
        }
        assert_eq!(attempts.take(here, now), Err(TooMany(TRY_AGAIN)));
        assert_eq!(attempts.take(there, now), Ok(()), "another one has its own");
        assert_eq!(attempts.take(here, now + TRY_AGAIN), Ok(()));
        assert_eq!(attempts.take(here, now + TRY_AGAIN), Err(TooMany(TRY_AGAIN)));
        attempts.give_back(&here);
        assert_eq!(attempts.take(here, now + TRY_AGAIN), Ok(()), "one that went well costs nothing");
        let later = now + TRY_AGAIN * (2 * TRIES_MAX);
        let tries = (0..2 * TRIES_MAX).filter(|_| attempts.take(here, later).is_ok()).count();
        assert_eq!(tries, TRIES_MAX as usize, "and no more than all of them");
    }

    #[test]
    fn no_more_are_remembered_than_there_is_room_for() {
        let (attempts, now) = (Attempts::default(), clock::instant());
        for n in 0..REMEMBERED_MAX {
            assert_eq!(attempts.take(n, now), Ok(()));
        }
        assert!(attempts.take(REMEMBERED_MAX, now).is_err());
        assert_eq!(attempts.take(0, now), Ok(()), "one that is known goes on");
        assert_eq!(attempts.take(REMEMBERED_MAX, now + 2 * TRY_AGAIN), Ok(()), "those that are full again make room");
    }
}
