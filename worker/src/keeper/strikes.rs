//! When what is to end is killed: at once, and what is left again after waits that double, for a process that was killed
//! needs time to end, and whoever strikes meanwhile takes it.

use std::time::{Duration, Instant};

/// The wait after the first strike; each one after it is twice as long, up to the second figure.
const AGAIN_FIRST: Duration = Duration::from_millis(5);
const AGAIN_MAX: Duration = Duration::from_millis(80);
/// How long after a cgroup was killed what has left it is looked for, if a child is left by then: that reads what `/proc` says of
/// every process on the machine, which a hundred keepers that end at once would all do.
const SEARCH_AFTER: Duration = Duration::from_millis(50);

/// The strikes so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Strikes(Option<Last>);

#[derive(Debug, Clone, Copy)]
struct Last {
    first_at: Instant,
    next_at: Instant,
    wait: Duration,
}

/// A strike that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strike {
    /// None has been before it.
    pub is_first: bool,
    /// A cgroup's processes have had time to end: whoever is left may have left it.
    pub is_late: bool,
}

impl Strikes {
    /// When the next one is due; none where the first hasn't been, which is due at once.
    pub fn next_at(&self) -> Option<Instant> {
        self.0.map(|last| last.next_at)
    }

    /// Somebody else strikes first, at `now`.
    pub fn begin(&mut self, now: Instant) {
        if self.0.is_none() {
            let _ = self.due(now);
        }
    }

    /// The strike that is due at `now`, which counts as done.
    pub fn due(&mut self, now: Instant) -> Option<Strike> {
        let last = self.0;
        if last.is_some_and(|last| now < last.next_at) {
            return None;
        }
        let first_at = last.map_or(now, |last| last.first_at);
        let wait = last.map_or(AGAIN_FIRST, |last| (2 * last.wait).min(AGAIN_MAX));
        self.0 = Some(Last { first_at, next_at: now + wait, wait });
        Some(Strike { is_first: last.is_none(), is_late: now.duration_since(first_at) >= SEARCH_AFTER })
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;

    use super::*;

    #[test]
    fn what_is_left_is_killed_again_after_waits_that_grow_to_a_bound() {
        let (begun, mut strikes) = (clock::instant(), Strikes::default());
        assert_eq!(strikes.next_at(), None);
        let mut at = Vec::new();
        for ms in 0..400 {
            let now = begun + Duration::from_millis(ms);
            if let Some(strike) = strikes.due(now) {
                assert_eq!((strike.is_first, strike.is_late), (ms == 0, ms >= 50), "after {ms} ms");
                assert!(strikes.next_at().is_some_and(|next| next > now));
                assert_eq!(strikes.due(now), None, "one strike is enough at a time");
                at.push(ms);
            }
        }
        assert_eq!(at, [0, 5, 15, 35, 75, 155, 235, 315, 395]);
    }

    #[test]
    fn a_strike_of_somebody_elses_counts_as_the_first() {
        let (begun, mut strikes) = (clock::instant(), Strikes::default());
        let after = |ms| begun + Duration::from_millis(ms);
        strikes.begin(begun);
        assert_eq!(strikes.due(after(4)), None);
        assert_eq!(strikes.due(after(5)), Some(Strike { is_first: false, is_late: false }));
        strikes.begin(after(100));
        assert_eq!(strikes.due(after(100)), Some(Strike { is_first: false, is_late: true }));
    }
}
