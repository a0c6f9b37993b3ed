//! Which kinds come up how often, whom they can befall, and how long they last.

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;

use crate::chaos::history::{Kind, Target};

/// Each kind, and how many cards of a deck name it.
const CARDS: [(Kind, usize); 12] = [
    (Kind::Kill, 3),
    (Kind::Terminate, 2),
    (Kind::Freeze, 3),
    (Kind::Cut, 2),
    (Kind::Snap, 1),
    (Kind::Stall, 2),
    (Kind::Deafen, 2),
    (Kind::Delay, 2),
    (Kind::FullDisk, 1),
    (Kind::ClockAhead, 1),
    (Kind::ClockBehind, 1),
    (Kind::WipeOffers, 1),
];

/// What is left of a deck.
#[derive(Default)]
pub struct Deck(Vec<Kind>);

impl Deck {
    /// The next card of those that are wanted; a new deck is added where the old one has none of them any more.
    pub fn draw(&mut self, random: &mut TestRng, is_wanted: impl Fn(Kind) -> bool) -> Kind {
        if !self.0.iter().any(|kind| is_wanted(*kind)) {
            self.0.extend(CARDS.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)));
        }
        let wanted: Vec<usize> = (0..self.0.len()).filter(|at| is_wanted(self.0[*at])).collect();
        self.0.swap_remove(wanted[random.random_range(0..wanted.len())])
    }

    /// One that found no place.
    pub fn put_back(&mut self, kind: Kind) {
        self.0.push(kind);
    }
}

/// Whether a kind can befall a worker or its way.
pub fn befalls_workers(kind: Kind) -> bool {
    classes(kind).iter().any(|(target, _)| super::workers::is_theirs(*target))
}

/// Whom a kind can befall, each with its weight; the indices say nothing.
pub fn classes(kind: Kind) -> &'static [(Target, u64)] {
    match kind {
        Kind::Kill | Kind::Terminate => {
            &[(Target::Coordinator(0), 4), (Target::Worker(0), 4), (Target::Postgres, 1), (Target::Nats, 1)]
        }
        // A server that stands still is what a stalled way is, and Postgres is a family of processes.
        Kind::Freeze => &[(Target::Coordinator(0), 4), (Target::Worker(0), 4), (Target::Nats, 1)],
        Kind::Cut | Kind::Snap | Kind::Stall | Kind::Deafen | Kind::Delay => &[
            (Target::WayToPostgres(0), 1),
            (Target::WayToNats(0), 1),
            (Target::WayToCoordinator(0), 1),
            (Target::WorkersWay(0), 3),
        ],
        Kind::FullDisk => &[(Target::Worker(0), 1)],
        // The server of NATS is a static program, whose clock is its own.
        Kind::ClockAhead | Kind::ClockBehind => {
            &[(Target::Coordinator(0), 3), (Target::Worker(0), 3), (Target::Postgres, 2)]
        }
        Kind::WipeOffers => &[(Target::Nats, 1)],
    }
}

/// From how long to how long, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct Length {
    pub from_ms: u64,
    pub to_ms: u64,
}

const fn length(from_ms: u64, to_ms: u64) -> Length {
    Length { from_ms, to_ms }
}

/// What is over at once.
const MOMENT: [Length; 1] = [length(100, 100)];
/// A coordinator's lease is 3 s long: blinks, close calls, and what beats it.
const COORDINATORS: [Length; 5] =
    [length(100, 900), length(900, 2_500), length(2_500, 4_000), length(4_000, 10_000), length(6_000, 20_000)];
/// A worker's is 15 s long.
const WORKERS: [Length; 5] =
    [length(100, 900), length(900, 5_000), length(5_000, 14_000), length(13_000, 18_000), length(16_000, 25_000)];
/// What all need: such an outage hides all others while it lasts.
const SERVERS: [Length; 5] =
    [length(100, 900), length(500, 2_000), length(1_000, 4_000), length(3_000, 8_000), length(8_000, 20_000)];

/// How long it may last: each length is as probable as the next.
pub fn lengths(kind: Kind, target: Target) -> &'static [Length] {
    match (kind, target) {
        (Kind::Snap | Kind::WipeOffers, _) => &MOMENT,
        (_, Target::Postgres | Target::Nats) => &SERVERS,
        (_, Target::Worker(_) | Target::WorkersWay(_)) => &WORKERS,
        (_, Target::Coordinator(_) | Target::WayToPostgres(_) | Target::WayToNats(_) | Target::WayToCoordinator(_)) => {
            &COORDINATORS
        }
    }
}
