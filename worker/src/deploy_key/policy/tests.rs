//! The policy by its tables, with a clock that the test moves.

use proptest::prelude::*;
use shared::clock;
use shared::time::Period;

use super::*;
use KeyAnswer::{Denied, NotRegistered, Sealed, Unavailable};

/// Jitter that takes nothing away.
const ALL: u32 = u32::MAX;

/// A tally and the time since its first try.
struct Played {
    tally: Tally,
    begun: Instant,
    now: Duration,
}

impl Played {
    fn of(retry: KeyRetry, on_missing: OnMissing) -> Self {
        let policy = Policy { retry, on_missing, unanswered: UNANSWERED_WITHIN };
        Self { tally: Tally::new(policy), begun: clock::instant(), now: Duration::ZERO }
    }

    /// A try now that is answered after `takes`.
    fn answered(&mut self, answer: KeyAnswer, takes: Duration, chance: u32) -> (u32, Next) {
        let began = self.begun + self.now;
        self.now += takes;
        self.tally.count(Try { began, ended: began + takes, answer, chance })
    }

    /// A try at the time for it that is answered at once; the wait after it is over.
    fn then(&mut self, answer: KeyAnswer) -> (u32, Next) {
        let next = self.answered(answer, Duration::ZERO, ALL);
        if let Next::Wait(wait) = next.1 {
            self.now += wait;
            assert_eq!(self.tally.next_at(), Some(self.begun + self.now));
        }
        next
    }

    /// The waits, in milliseconds, of tries that are all answered so, and what comes after them.
    fn all(mut self, answer: KeyAnswer) -> (Vec<u128>, Next) {
        let mut waits = Vec::new();
        loop {
            let (number, next) = self.then(answer);
            assert_eq!(usize::try_from(number).unwrap(), waits.len() + 1);
            match next {
                Next::Wait(wait) => waits.push(wait.as_millis()),
                _ => return (waits, next),
            }
        }
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn retry(tries: u32, backoff: KeyBackoff, [first, max, deadline]: [u64; 3]) -> KeyRetry {
    let [first, max, deadline] = [first, max, deadline].map(Period::from_secs);
    KeyRetry { tries, backoff, first, max, deadline }
}

#[test]
fn the_waits_grow_as_the_policy_says_and_none_is_longer_than_the_longest() {
    use KeyBackoff::{Constant, Exponential, Fibonacci};
    let long = 100_000;
    for (tries, backoff, times, waits) in [
        (1, Exponential, [1, 30, long], vec![]),
        (2, Exponential, [1, 30, long], vec![1]),
        (8, Exponential, [1, 30, long], vec![1, 2, 4, 8, 16, 30, 30]),
        (5, Exponential, [40, 30, long], vec![30; 4]),
        (4, Constant, [3, 30, long], vec![3; 3]),
        (4, Constant, [40, 30, long], vec![30; 3]),
        (10, Fibonacci, [1, 30, long], vec![1, 1, 2, 3, 5, 8, 13, 21, 30]),
        (5, Fibonacci, [40, 30, long], vec![30; 4]),
        // The deadline cuts the last wait to what is left, and the tries with it.
        (9, Exponential, [1, 30, 10], vec![1, 2, 4, 3]),
        (9, Exponential, [1, 30, 7], vec![1, 2, 4]),
        (9, Constant, [30, 30, 1], vec![1]),
    ] {
        let retry = retry(tries, backoff, times);
        let waits: Vec<u128> = waits.iter().map(|secs| secs * 1000).collect();
        assert_eq!(Played::of(retry, OnMissing::Park).all(NotRegistered), (waits.clone(), Next::Park), "{retry:?}");
        assert_eq!(Played::of(retry, OnMissing::Fail).all(NotRegistered), (waits, Next::Missing), "{retry:?}");
    }
}

#[test]
fn what_settles_it_settles_it_at_once() {
    for (answer, next) in [(Sealed, Next::Done), (Denied, Next::Denied)] {
        let mut first = Played::of(KeyRetry::default(), OnMissing::Park);
        assert_eq!(first.then(answer), (1, next));
        let mut later = Played::of(KeyRetry::default(), OnMissing::Park);
        assert_eq!(later.then(NotRegistered), (1, Next::Wait(secs(1))));
        later.then(Unavailable);
        assert_eq!(later.then(answer), (2, next));
        assert_eq!(later.tally.next_at(), None);
    }
}

#[test]
fn the_attempt_is_given_back_when_nobody_has_answered_for_as_long_as_that_may_take() {
    let (waits, next) = Played::of(KeyRetry::default(), OnMissing::Fail).all(Unavailable);
    assert_eq!(next, Next::GiveBack);
    assert_eq!(waits[..7], [500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
    assert_eq!(waits.iter().sum::<u128>(), UNANSWERED_WITHIN.as_millis(), "the last wait ends with the budget");
    // Tries that take long themselves are fewer.
    let mut slow = Played::of(KeyRetry::default(), OnMissing::Fail);
    let mut tries = 0;
    while let (_, Next::Wait(wait)) = slow.answered(Unavailable, secs(5), ALL) {
        slow.now += wait;
        tries += 1;
    }
    assert!((8..=12).contains(&tries), "{tries}");
    assert!(slow.now >= UNANSWERED_WITHIN && slow.now <= UNANSWERED_WITHIN + secs(5));
}

#[test]
fn time_in_which_nobody_answers_uses_up_nothing() {
    let retry = retry(3, KeyBackoff::Constant, [4, 4, 10]);
    let mut played = Played::of(retry, OnMissing::Park);
    assert_eq!(played.then(NotRegistered), (1, Next::Wait(secs(4))));
    // 4 s have passed, and now nobody answers for a minute.
    let dark = played.now;
    for number in 1..=9 {
        assert!(matches!(played.then(Unavailable), (said, Next::Wait(_)) if said == number));
    }
    assert!(played.now > dark + secs(55));
    assert_eq!(played.then(NotRegistered), (2, Next::Wait(secs(4))), "neither a try nor the deadline is used up");
    // A new stretch has the whole budget and the short waits again.
    assert_eq!(played.then(Unavailable), (10, Next::Wait(Duration::from_millis(500))));
    assert_eq!(played.then(NotRegistered), (3, Next::Park));

    // The deadline counts what passed outside of the stretch: 4 s before it, and 6 s are left.
    let mut played = Played::of(KeyRetry { tries: 9, ..retry }, OnMissing::Park);
    played.then(NotRegistered);
    played.then(Unavailable);
    let waits = std::iter::from_fn(|| match played.then(NotRegistered).1 {
        Next::Wait(wait) => Some(wait),
        _ => None,
    });
    assert_eq!(waits.collect::<Vec<_>>(), [secs(4), secs(2)]);
}

#[test]
fn a_try_before_its_time_does_not_count_and_the_wait_goes_on_after_it() {
    let mut played = Played::of(retry(3, KeyBackoff::Constant, [10, 10, 100]), OnMissing::Park);
    assert_eq!(played.answered(NotRegistered, Duration::ZERO, ALL), (1, Next::Wait(secs(10))));
    for (number, passed) in [(2, 3), (3, 3), (4, 3)] {
        played.now += secs(passed);
        let left = secs(10).checked_sub(played.now).unwrap();
        assert_eq!(played.answered(NotRegistered, Duration::ZERO, ALL), (number, Next::Wait(left)));
    }
    played.now += secs(1);
    assert_eq!(played.answered(NotRegistered, Duration::ZERO, ALL), (5, Next::Wait(secs(10))));
    // One that nobody answers before its time changes nothing about that.
    played.now += secs(1);
    assert_eq!(played.answered(Unavailable, secs(1), ALL), (1, Next::Wait(Duration::from_millis(500))));
    assert_eq!(played.answered(NotRegistered, Duration::ZERO, ALL), (6, Next::Wait(secs(8))));
    played.now += secs(8);
    assert_eq!(played.answered(NotRegistered, Duration::ZERO, ALL), (7, Next::Park));
}

#[test]
fn only_so_many_tries_come_before_their_time() {
    let mut played = Played::of(retry(3, KeyBackoff::Constant, [1000, 1000, 10_000]), OnMissing::Park);
    played.answered(NotRegistered, Duration::ZERO, ALL);
    for _ in 0..EARLY_MAX {
        assert!(played.tally.may_be_woken());
        played.answered(NotRegistered, Duration::ZERO, ALL);
    }
    assert!(!played.tally.may_be_woken());
}

#[test]
fn jitter_takes_away_up_to_a_half() {
    for (chance, wait) in [(0, 500), (u32::MAX / 2, 750), (u32::MAX, 1000)] {
        let mut played = Played::of(KeyRetry::default(), OnMissing::Park);
        let (_, next) = played.answered(NotRegistered, Duration::ZERO, chance);
        assert_eq!(next, Next::Wait(Duration::from_millis(wait)));
    }
}

fn answers() -> impl Strategy<Value = Vec<(bool, u64, u64, u32)>> {
    // Whether somebody answers, after how long, how much of the wait is then waited (in percent), and chance.
    proptest::collection::vec((any::<bool>(), 0..6000_u64, 0..150_u64, any::<u32>()), 0..400)
}

proptest! {
    #[test]
    fn no_history_has_a_wait_over_its_bounds_or_more_tries_than_there_is_room_for(
        (tries, first, max, deadline) in (1..=KEY_TRIES_MAX, 1..100_000_u64, 1..100_000_u64, 1..1_000_000_u64),
        backoff in prop_oneof![Just(KeyBackoff::Constant), Just(KeyBackoff::Exponential), Just(KeyBackoff::Fibonacci)],
        answers in answers(),
    ) {
        let [first, max, deadline] = [first, max, deadline].map(Period::from_millis);
        let retry = KeyRetry { tries, backoff, first, max, deadline };
        let mut played = Played::of(retry, OnMissing::Park);
        let (mut made, mut woken) = (0, 0);
        for (somebody, takes, percent, chance) in answers {
            let answer = if somebody { NotRegistered } else { Unavailable };
            let (_, next) = played.answered(answer, Duration::from_millis(takes), chance);
            made += 1;
            let Next::Wait(wait) = next else {
                prop_assert_eq!(next, if somebody { Next::Park } else { Next::GiveBack });
                break;
            };
            prop_assert!(wait <= if somebody { max.duration() } else { UNANSWERED_MAX }, "{:?}", wait);
            let wakes = percent < 100 && played.tally.may_be_woken();
            woken += u32::from(wakes);
            played.now += if wakes { wait.mul_f64(f64::from(u32::try_from(percent).unwrap()) / 100.0) } else { wait };
        }
        prop_assert!(made <= TRIES_MAX);
        prop_assert!(played.tally.spent <= tries);
        prop_assert!(played.tally.early <= woken.min(EARLY_MAX));
    }
}
