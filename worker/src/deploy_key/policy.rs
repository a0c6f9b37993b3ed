//! What follows each try to fetch a deploy key. Pure: time and chance come in from outside.
//!
//! Each kind of answer has a rule and a count of its own:
//! - `sealed` and `denied` end the fetching.
//! - `not_registered` is tried again by the policy, until its tries are spent or its deadline has passed; time in which nobody
//!   could answer doesn't count. A wait that would pass the deadline is cut to it, so the last look is taken then. A try
//!   that something woke up before its time doesn't count: the wait that it interrupted goes on after it.
//! - `unavailable` is tried again for as long as the budget says, from the first such try on; any other answer ends that
//!   stretch.
//!
//! `backon` says how the waits grow, and no more: its own jitter adds up to as much again after its `max_delay` was
//! applied, and its Fibonacci waits go one step past that. So the waits are cut to the longest here, and the jitter takes
//! away from them, up to a half.

use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ConstantBuilder, ExponentialBuilder, FibonacciBuilder};
use shared::job::KeyAnswer;
use shared::spec::{KEY_TRIES_MAX, KeyBackoff, KeyRetry, OnMissing};

/// How long nobody may answer before the attempt is given back.
pub const UNANSWERED_WITHIN: Duration = Duration::from_mins(2);
/// The waits after a try that nobody answered: from the first, doubling, to the last.
const UNANSWERED_FIRST: Duration = Duration::from_millis(500);
const UNANSWERED_MAX: Duration = Duration::from_secs(10);
/// The most tries of one stretch without an answer; the budget allows about 30.
const UNANSWERED_TRIES_MAX: u32 = 50;
/// The most tries before their time that don't count. A registration wakes a fetcher once.
const EARLY_MAX: u32 = 20;
/// The most tries of one attempt: each that is answered may follow a stretch that isn't.
pub const TRIES_MAX: usize = ((KEY_TRIES_MAX + EARLY_MAX + 1) * (UNANSWERED_TRIES_MAX + 1)) as usize;

/// What one attempt's fetching goes by.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub retry: KeyRetry,
    pub on_missing: OnMissing,
    /// How long nobody may answer.
    pub unanswered: Duration,
}

/// A try that is over.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    pub began: Instant,
    pub ended: Instant,
    pub answer: KeyAnswer,
    /// Any number: how much jitter the next wait has.
    pub chance: u32,
}

/// What follows a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another try, after so many whole milliseconds.
    Wait(Duration),
    Park,
    Missing,
    Denied,
    GiveBack,
    /// The key is there.
    Done,
}

/// How waits grow, without an end.
type Waits = Box<dyn Iterator<Item = Duration> + Send>;

/// The count of one attempt's tries.
pub struct Tally {
    policy: Policy,
    waits: Waits,
    /// When the first try began.
    first: Option<Instant>,
    /// The tries that somebody answered, and those of them that used up one of the policy's.
    answered: u32,
    spent: u32,
    /// Those that came before their time and didn't.
    early: u32,
    /// When the policy's next try is due.
    due: Option<Instant>,
    /// The tries that nobody answered.
    unanswered: u32,
    /// The stretch of them that hasn't ended.
    stretch: Option<Stretch>,
    /// How long all that have ended were.
    dark: Duration,
    /// When the next try is to be made, of whatever kind.
    next_at: Option<Instant>,
}

/// Nobody answers.
struct Stretch {
    since: Instant,
    tries: u32,
    waits: Waits,
}

impl Tally {
    /// Nothing was tried yet.
    pub fn new(policy: Policy) -> Self {
        Self {
            waits: growing(policy.retry.backoff, policy.retry.first.duration(), policy.retry.max.duration()),
            policy,
            first: None,
            answered: 0,
            spent: 0,
            early: 0,
            due: None,
            unanswered: 0,
            stretch: None,
            dark: Duration::ZERO,
            next_at: None,
        }
    }

    /// When the next try is to be made; none at once.
    pub fn next_at(&self) -> Option<Instant> {
        self.next_at
    }

    /// Whether the wait may be ended before its time.
    pub fn may_be_woken(&self) -> bool {
        self.early < EARLY_MAX
    }

    /// Counts a try: its number among those of its kind, and what follows it.
    pub fn count(&mut self, one: Try) -> (u32, Next) {
        let first = *self.first.get_or_insert(one.began);
        let (number, next) = if one.answer == KeyAnswer::Unavailable {
            (counted(&mut self.unanswered), self.unanswered(one))
        } else {
            let dark = self.stretch.take().map_or(Duration::ZERO, |stretch| since(stretch.since, one.ended));
            self.dark += dark;
            let next = match one.answer {
                KeyAnswer::Sealed => Next::Done,
                KeyAnswer::Denied => Next::Denied,
                KeyAnswer::NotRegistered | KeyAnswer::Unavailable => self.not_registered(one, first),
            };
            (counted(&mut self.answered), next)
        };
        self.next_at = match next {
            Next::Wait(wait) => Some(one.ended + wait),
            _ => None,
        };
        (number, next)
    }

    fn not_registered(&mut self, one: Try, first: Instant) -> Next {
        if let Some(due) = self.due.filter(|due| one.began < *due && self.early < EARLY_MAX) {
            self.early += 1;
            return Next::Wait(whole(since(one.ended, due)));
        }
        self.spent += 1;
        let retry = self.policy.retry;
        let passed = since(first, one.ended).saturating_sub(self.dark);
        let left = retry.deadline.duration().saturating_sub(passed);
        if self.spent >= retry.tries || left.is_zero() {
            return match self.policy.on_missing {
                OnMissing::Park => Next::Park,
                OnMissing::Fail => Next::Missing,
            };
        }
        let wait = self.waits.next().unwrap_or(Duration::MAX).min(retry.max.duration());
        let wait = whole(jittered(wait, one.chance).min(left));
        self.due = Some(one.ended + wait);
        Next::Wait(wait)
    }

    fn unanswered(&mut self, one: Try) -> Next {
        let stretch = self.stretch.get_or_insert_with(|| Stretch {
            since: one.began,
            tries: 0,
            waits: growing(KeyBackoff::Exponential, UNANSWERED_FIRST, UNANSWERED_MAX),
        });
        stretch.tries += 1;
        let left = self.policy.unanswered.saturating_sub(since(stretch.since, one.ended));
        if left.is_zero() || stretch.tries >= UNANSWERED_TRIES_MAX {
            return Next::GiveBack;
        }
        let wait = stretch.waits.next().unwrap_or(UNANSWERED_MAX).min(UNANSWERED_MAX);
        Next::Wait(whole(jittered(wait, one.chance).min(left)))
    }
}

/// The waits of that kind from `first` on, at the latest from some point on none shorter than `max`.
fn growing(backoff: KeyBackoff, first: Duration, max: Duration) -> Waits {
    match backoff {
        KeyBackoff::Constant => Box::new(ConstantBuilder::new().with_delay(first).without_max_times().build()),
        KeyBackoff::Exponential => {
            Box::new(ExponentialBuilder::new().with_min_delay(first).with_max_delay(max).without_max_times().build())
        }
        KeyBackoff::Fibonacci => {
            Box::new(FibonacciBuilder::new().with_min_delay(first).with_max_delay(max).without_max_times().build())
        }
    }
}

/// Between half of `wait` and all of it.
fn jittered(wait: Duration, chance: u32) -> Duration {
    wait.mul_f64(0.5 + 0.5 * f64::from(chance) / f64::from(u32::MAX))
}

/// Whole milliseconds, as they are told: at least that long, and never cut to nothing.
fn whole(wait: Duration) -> Duration {
    Duration::from_millis(u64::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u64::MAX))
}

fn since(earlier: Instant, later: Instant) -> Duration {
    later.saturating_duration_since(earlier)
}

fn counted(count: &mut u32) -> u32 {
    *count = count.saturating_add(1);
    *count
}

#[cfg(test)]
mod tests;
