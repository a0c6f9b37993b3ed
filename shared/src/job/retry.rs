//! Whether a failed attempt is followed by another, and when.

use super::{Exit, Failure, Job};
use crate::spec::RetryOn;
use crate::time::Period;

/// The wait before the next attempt, after `tries` attempts that count, the one that failed included; none when the
/// job ends here.
pub(super) fn delay(job: &Job, failure: &Failure, tries: u32) -> Option<Period> {
    let retry = &job.spec.retry;
    if tries >= retry.max_attempts || !retry.on.iter().any(|on| covers(*on, failure)) {
        return None;
    }
    let lost = matches!(failure, Failure::WorkerLost { .. });
    let doublings = if lost { tries.checked_sub(2) } else { Some(tries.saturating_sub(1)) };
    Some(doublings.map_or(Period::ZERO, |doublings| backoff(job, doublings)))
}

/// The first wait of the job's backoff after that many doublings, with jitter.
pub(super) fn backoff(job: &Job, doublings: u32) -> Period {
    let backoff = job.spec.retry.backoff;
    let full = backoff.first.millis().saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX));
    jittered(full.min(backoff.max.millis()), job)
}

fn covers(on: RetryOn, failure: &Failure) -> bool {
    match on {
        RetryOn::WorkerLost => matches!(failure, Failure::WorkerLost { .. }),
        RetryOn::CheckoutFailed => matches!(failure, Failure::CheckoutFailed { transient: true, .. }),
        RetryOn::StepFailed => matches!(failure, Failure::StepFailed { .. }),
        RetryOn::TimedOut => matches!(failure, Failure::TimedOut { .. }),
        RetryOn::Exit(code) => {
            matches!(failure, Failure::StepFailed { exit: Exit::ExitCode(c), .. } if *c == code)
        }
    }
}

/// Between half of `full` and all of it, spread evenly over jobs and attempts without drawing randomness: the job's id
/// is random enough (the mixing step is that of `SplitMix64`, Steele, Lea and Flood 2014).
fn jittered(full: u64, job: &Job) -> Period {
    let (high, low) = job.id.uuid().as_u64_pair();
    let mut mixed = high ^ low ^ u64::from(job.attempt.0).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    let half = full / 2;
    Period::from_millis(half + mixed % (full - half + 1))
}
