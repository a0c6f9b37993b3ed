//! What goes wrong, and when: a pure function of the seed.
//!
//! Kinds come from a deck of cards that is shuffled and dealt to its last card, so that each comes up in a run of a minute.
//! The run's time is cut into windows: in every second one a coordinator, another each time, is spared with all its ways,
//! and in the others nobody is, and now and then all coordinators are hit at once.
//!
//! Whatever befalls a coordinator, Postgres or NATS begins every worker's lease anew. So there are longer windows too, every
//! second one of which is the [workers'](workers) alone: then a worker is cut off for so long that it is given up while it
//! runs on.

use std::time::Duration;

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::history::{Kind, Target};

mod deck;
#[cfg(test)]
mod tests;
mod workers;

use deck::{Deck, Length};
use workers::Window;

/// How large the cluster is that troubles befall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub coordinators: usize,
    pub workers: usize,
}

/// One trouble to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Since the load's beginning.
    pub at: Duration,
    pub lasts: Duration,
    pub kind: Kind,
    pub target: Target,
    /// How much later everything comes, or how far a clock jumps; nothing for other kinds.
    pub by: Duration,
}

/// When the first trouble begins, at the earliest, and how long it is from one to the next.
const FIRST_AFTER: Duration = Duration::from_millis(500);
const NEXT_AFTER_MS: (u64, u64) = (300, 3_000);
/// The shortest and the longest trouble.
const LASTS_MIN: Duration = Duration::from_millis(100);
const LASTS_MAX: Duration = Duration::from_secs(25);
/// How long a target is left alone at least after a trouble: a process has to start again.
const REST: Duration = Duration::from_secs(2);
/// Half of these windows spare a coordinator.
const WINDOW: Duration = Duration::from_secs(10);
/// One in so many troubles outside of them hits all coordinators within a second.
const ALL_AT_ONCE_ONE_IN: u64 = 8;
const AT_ONCE_MS: u64 = 1_000;
/// By how much clocks jump, in seconds, and how much later things come, in milliseconds.
const JUMP_S: (u64, u64) = (2, 40);
const DELAY_MS: (u64, u64) = (20, 2_000);
/// How many places are looked for for a trouble that finds none, before it is left out.
const TRIES: usize = 30;

/// All troubles of a run, in the order in which they begin; none lasts longer than the run, and no target has two at once.
pub fn schedule(seed: u64, lasts: Duration, size: Size) -> Vec<Planned> {
    let (spared, windows, planned) = (Vec::new(), Vec::new(), Vec::new());
    let mut plan = Plan { random: random(seed), lasts, size, spared, windows, planned };
    plan.spare();
    plan.leave_to_workers(seed.is_multiple_of(2));
    let mut deck = Deck::default();
    let mut at = FIRST_AFTER;
    while at + LASTS_MIN <= lasts {
        let may = plan.spared_at(at).is_none() && !plan.is_workers_only(at);
        let all = may && plan.below(ALL_AT_ONCE_ONE_IN) == 0;
        if !(all && plan.all_at_once(at)) {
            plan.one(at, &mut deck);
        }
        at += Duration::from_millis(plan.between(NEXT_AFTER_MS));
    }
    plan.planned.sort_by_key(|planned| planned.at);
    plan.planned
}

fn random(seed: u64) -> TestRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)
}

/// A schedule under way.
struct Plan {
    random: TestRng,
    lasts: Duration,
    size: Size,
    /// For each window whom it spares.
    spared: Vec<Option<usize>>,
    /// Those that are the workers' alone.
    windows: Vec<Window>,
    planned: Vec<Planned>,
}

impl Plan {
    /// Says which windows spare whom.
    fn spare(&mut self) {
        let windows = self.lasts.as_millis() / WINDOW.as_millis() + 1;
        let first = self.below(2);
        for window in 0..u64::try_from(windows).expect("a run that ends") {
            let spared = self.index(self.size.coordinators);
            self.spared.push((window + first).is_multiple_of(2).then_some(spared));
        }
    }

    fn spared_at(&self, at: Duration) -> Option<usize> {
        let window = usize::try_from(at.as_millis() / WINDOW.as_millis()).expect("a window");
        self.spared.get(window).copied().flatten()
    }

    /// Plans the next trouble of the deck that finds a place.
    fn one(&mut self, at: Duration, deck: &mut Deck) {
        let workers_only = self.is_workers_only(at);
        for _ in 0..TRIES {
            let kind = deck.draw(&mut self.random, |kind| !workers_only || deck::befalls_workers(kind));
            let target = self.target(kind, workers_only);
            let lasts = self.length(kind, target, at);
            if self.place(at, lasts, kind, target) {
                return;
            }
            deck.put_back(kind);
        }
    }

    /// Plans the same for every coordinator at nearly the same time; whether all of them had a place for it.
    fn all_at_once(&mut self, at: Duration) -> bool {
        const KINDS: [Kind; 4] = [Kind::Kill, Kind::Terminate, Kind::Freeze, Kind::Kill];
        let kind = KINDS[self.index(KINDS.len())];
        let before = self.planned.len();
        let all = (0..self.size.coordinators).all(|index| {
            let target = Target::Coordinator(index);
            let at = at + Duration::from_millis(self.below(AT_ONCE_MS));
            let lasts = self.length(kind, target, at);
            self.place(at, lasts, kind, target)
        });
        if !all {
            self.planned.truncate(before);
        }
        all
    }

    /// Plans that, where target and time are free.
    fn place(&mut self, at: Duration, lasts: Duration, kind: Kind, target: Target) -> bool {
        let end = at + lasts;
        let meets = |other: &Planned| at < other.at + other.lasts + REST && other.at < end + REST;
        let taken = self.planned.iter().any(|other| other.target == target && meets(other));
        let is_spared = (0..).zip(&self.spared).any(|(window, spared)| {
            let begins = WINDOW * window;
            spared.is_some() && *spared == coordinator(target) && at < begins + WINDOW && begins < end + REST
        });
        if taken || is_spared || lasts < LASTS_MIN || !self.windows.iter().all(|window| window.admits(at, end, target))
        {
            return false;
        }
        let by = match kind {
            Kind::Delay => Duration::from_millis(self.often_small(DELAY_MS)),
            Kind::ClockAhead | Kind::ClockBehind => Duration::from_secs(self.between(JUMP_S)),
            _ => Duration::ZERO,
        };
        self.planned.push(Planned { at, lasts, kind, target, by });
        true
    }

    /// Whom it befalls: one of those that it can, a part that all need more rarely.
    fn target(&mut self, kind: Kind, workers_only: bool) -> Target {
        let classes = || deck::classes(kind).iter().filter(|(target, _)| !workers_only || workers::is_theirs(*target));
        let total = classes().map(|(_, weight)| weight).sum();
        let mut drawn = self.below(total);
        let class = classes().find(|(_, weight)| {
            let found = drawn < *weight;
            drawn = drawn.saturating_sub(*weight);
            found
        });
        let (target, _) = class.expect("one of them");
        let Size { coordinators, workers } = self.size;
        match target {
            Target::Coordinator(_) => Target::Coordinator(self.index(coordinators)),
            Target::WayToPostgres(_) => Target::WayToPostgres(self.index(coordinators)),
            Target::WayToNats(_) => Target::WayToNats(self.index(coordinators)),
            Target::WayToCoordinator(_) => Target::WayToCoordinator(self.index(coordinators)),
            Target::Worker(_) => Target::Worker(self.index(workers)),
            Target::WorkersWay(_) => Target::WorkersWay(self.index(workers)),
            Target::Postgres => Target::Postgres,
            Target::Nats => Target::Nats,
        }
    }

    /// How long it lasts: no longer than what is left of the run.
    fn length(&mut self, kind: Kind, target: Target, at: Duration) -> Duration {
        let lengths = deck::lengths(kind, target);
        let Length { from_ms, to_ms } = lengths[self.index(lengths.len())];
        let drawn = Duration::from_millis(self.between((from_ms, to_ms)));
        let bound = self.windows.iter().map(|window| window.longest(at, target)).min().unwrap_or(LASTS_MAX);
        drawn.clamp(LASTS_MIN, LASTS_MAX).min(self.lasts.saturating_sub(at)).min(bound)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random.random_range(0..bound.max(1))
    }

    fn index(&mut self, count: usize) -> usize {
        self.random.random_range(0..count)
    }

    /// From the first to the last, both included.
    fn between(&mut self, (first, last): (u64, u64)) -> u64 {
        self.random.random_range(first..=last)
    }

    /// The same, as often below the middle of the magnitudes as above.
    fn often_small(&mut self, bounds: (u64, u64)) -> u64 {
        let most = self.between(bounds);
        self.between((bounds.0, most))
    }
}

/// The coordinator that suffers from it alone.
fn coordinator(target: Target) -> Option<usize> {
    match target {
        Target::Coordinator(index)
        | Target::WayToPostgres(index)
        | Target::WayToNats(index)
        | Target::WayToCoordinator(index) => Some(index),
        Target::Worker(_) | Target::WorkersWay(_) | Target::Postgres | Target::Nats => None,
    }
}
