//! The one module that reads a clock or draws randomness. Everything else is given both.

use std::time::Instant;

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
