//! How far the end of an attempt is told: what its runner knows and a heartbeat asks.
//!
//! A heartbeat that names an attempt which has ended has its shard's owner look for what isn't there. So one that was told
//! isn't named, and neither is one whose end is just being told. If nobody answers that soon, it is named again: its lease has to
//! go on for as long as it takes. It is left out for less than a heartbeat's interval, which a lease outlives twice.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the answer to an end is waited for before its attempt is named again.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub struct Told {
    since: OnceLock<Instant>,
    is_over: AtomicBool,
}

impl Told {
    /// The end is being told from now on.
    pub fn begin(&self, now: Instant) {
        let _ = self.since.set(now);
    }

    /// The end was taken or refused for good.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    /// Whether a heartbeat has to name the attempt.
    pub fn is_to_be_named(&self, now: Instant) -> bool {
        let is_told_soon = self.since.get().is_some_and(|since| now.duration_since(*since) < ANSWERED_WITHIN);
        !is_told_soon && !self.is_over.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;

    use super::*;

    #[test]
    fn an_attempt_is_named_until_its_end_is_told_and_again_if_nobody_answers() {
        let (told, begun) = (Told::default(), clock::instant());
        let named_after = |ms| told.is_to_be_named(begun + Duration::from_millis(ms));
        assert!(named_after(0) && named_after(60_000));
        told.begin(begun);
        assert_eq!([0, 999, 1000, 60_000].map(named_after), [false, false, true, true]);
        // It is never left out anew.
        told.begin(begun + Duration::from_mins(1));
        assert!(named_after(60_000));
        told.end();
        assert!(!named_after(60_000));
    }
}
