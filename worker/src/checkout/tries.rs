//! How often a checkout is tried: what may pass a few times, with growing waits, everything else once.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use shared::clock;

use super::trouble::{Asked, Kind, Trouble};

/// The most tries of one checkout.
pub const TRIES_MAX: usize = 4;
/// The wait after the first; each later one is twice as long, and all of them have jitter.
const FIRST_WAIT: Duration = Duration::from_secs(1);

/// The tries of one checkout.
pub struct Tries {
    made: usize,
    waits: ExponentialBackoff,
}

impl Tries {
    /// None was made yet.
    pub fn new() -> Self {
        let waits = ExponentialBuilder::default()
            .with_min_delay(FIRST_WAIT)
            .with_factor(2.0)
            .with_max_times(TRIES_MAX - 1)
            .with_jitter()
            .with_jitter_seed(u64::from_ne_bytes(clock::random()))
            .build();
        Self { made: 0, waits }
    }

    /// Counts a try that came to `trouble`. Returns the wait before the next, if there is one.
    pub fn next(&mut self, trouble: &Trouble) -> Option<Duration> {
        self.made += 1;
        if trouble.kind == Kind::Passing { self.waits.next() } else { None }
    }

    /// What the log says of the try that was counted last.
    pub fn told(&self, trouble: &Trouble, next: Option<Duration>, Asked { url, .. }: Asked) -> String {
        let (made, reason) = (self.made, &trouble.reason);
        if trouble.kind != Kind::Passing {
            return format!("checkout of {url} failed: {reason}");
        }
        let then = next.map_or_else(String::new, |wait| format!("; again in {:.1} s", wait.as_secs_f64()));
        format!("checkout of {url}: try {made} of {TRIES_MAX} failed: {reason}{then}")
    }

    /// Whether one was made.
    pub fn any(&self) -> bool {
        self.made > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_pass_is_tried_four_times_with_growing_waits_and_all_else_once() {
        let of = |kind| Trouble { kind, reason: "why".to_owned() };
        let mut tries = Tries::new();
        let waits: Vec<Option<f64>> =
            (0..4).map(|_| tries.next(&of(Kind::Passing)).map(|wait| wait.as_secs_f64())).collect();
        let bounds = [Some(1.0..=2.0), Some(2.0..=4.0), Some(4.0..=8.0), None];
        for (wait, bounds) in waits.iter().zip(&bounds) {
            assert_eq!(wait.is_some(), bounds.is_some());
            assert!(wait.is_none_or(|wait| bounds.as_ref().is_some_and(|bounds| bounds.contains(&wait))), "{waits:?}");
        }
        let asked = Asked { url: "git@h:r", key: None, reference: "main", submodule: false };
        assert_eq!(tries.told(&of(Kind::Passing), None, asked), "checkout of git@h:r: try 4 of 4 failed: why");
        assert_eq!(tries.told(&of(Kind::Other), None, asked), "checkout of git@h:r failed: why");
        assert_eq!(Tries::new().next(&of(Kind::Other)), None);
        assert_eq!(Tries::new().next(&of(Kind::KeyRefused)), None);
    }
}
