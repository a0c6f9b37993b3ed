//! The one module that reads a clock or draws randomness. Everything else is given both.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use crate::time::Time;

/// The wall clock, in UTC.
pub fn now() -> Time {
    Time::from_jiff(jiff::Timestamp::now())
}

/// The monotonic clock, for what is measured or waited for within one process.
pub fn instant() -> Instant {
    Instant::now()
}

/// How far `at` is from the beginning of the monotonic clock that all processes of this machine share
/// (`CLOCK_MONOTONIC`). Should this process stand still meanwhile, it is too little rather than too much.
///
/// # Panics
/// When the operating system has no such clock: [`instant`] would have none to read either.
#[expect(clippy::expect_used, reason = "every Linux has this clock, and `Instant` itself reads it")]
pub fn monotonic(at: Instant) -> Duration {
    let begun: Duration = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("the monotonic clock").into();
    let now = Instant::now();
    let ahead = at.saturating_duration_since(now);
    begun.saturating_add(ahead).saturating_sub(now.saturating_duration_since(at))
}

/// `N` bytes from the operating system's generator, fit for keys and tokens.
///
/// # Panics
/// When the operating system has no randomness to give: nothing that this program does would be safe then.
#[expect(clippy::expect_used, reason = "without randomness no key, token or id is safe, and there is no way on")]
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

/// A random UUID (version 4).
pub fn random_uuid() -> Uuid {
    uuid::Builder::from_random_bytes(random()).into_uuid()
}
