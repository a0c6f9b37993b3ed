//! Which troubles keep a worker from being heard, or from hearing.
//!
//! A lease runs only while its owner could have heard the worker, and begins anew in full after a takeover and after a break
//! between the owner and NATS or Postgres. So nothing that happens to those, or to another worker, excuses that a worker
//! is given up: only what happens to that worker or on its own way does.

use crate::chaos::history::{At, Id, Kind, Target, Trouble};

use super::index::Index;

/// Whether one of these troubles was there at some time from `from` to `to`.
fn was_there(index: &Index<'_>, from: At, to: At, excuses: impl Fn(&Trouble) -> bool) -> bool {
    let mut there = index.history.troubles.iter().filter(|trouble| trouble.from <= to && from <= trouble.to);
    there.any(excuses)
}

/// Whether that worker was cut off for a while, so that it, or the steps that it runs, could go on without it being heard.
/// What a worker ran that was killed is ended by its keepers.
pub fn was_cut_off(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    was_there(index, from, to, |trouble| number.is_some_and(|number| cuts_off(trouble, number)))
}

/// Whether that worker could have been lost: cut off, or its process ended.
pub fn was_lost(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    was_ended(index, worker, from, to)
        || was_there(index, from, to, |trouble| number.is_some_and(|number| cuts_off(trouble, number)))
}

/// Whether that worker's process was ended.
pub fn was_ended(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    was_there(index, from, to, |trouble| {
        let ends = matches!(trouble.kind, Kind::Kill | Kind::Terminate);
        ends && number.is_some_and(|number| trouble.target == Target::Worker(number))
    })
}

/// Whether anything could have kept an order, or an answer, from that worker, or its word from being committed, for the few
/// seconds for which that is waited. The database's clock, by which that is, may have jumped over them.
pub fn was_late(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    was_there(index, from, to, |trouble| match trouble.target {
        Target::Worker(worker) | Target::WorkersWay(worker) => {
            number == Some(worker) && !matches!(trouble.kind, Kind::ClockAhead | Kind::ClockBehind | Kind::FullDisk)
        }
        Target::Coordinator(_) => !matches!(trouble.kind, Kind::ClockAhead | Kind::ClockBehind),
        Target::Nats => trouble.kind != Kind::WipeOffers,
        Target::Postgres | Target::WayToPostgres(_) | Target::WayToNats(_) => true,
        Target::WayToCoordinator(_) => false,
    })
}

/// Whether a client's request to that coordinator could have come to a halt on its way, or in it.
pub fn was_slow(index: &Index<'_>, replica: usize, from: At, to: At) -> bool {
    was_there(index, from, to, |trouble| match trouble.target {
        Target::Coordinator(number) | Target::WayToCoordinator(number) => number == replica,
        _ => false,
    })
}

fn cuts_off(trouble: &Trouble, worker: usize) -> bool {
    match trouble.target {
        Target::Worker(number) => number == worker && trouble.kind == Kind::Freeze,
        // A way that is cut once is there again at once.
        Target::WorkersWay(number) => number == worker && trouble.kind != Kind::Snap,
        Target::Coordinator(_) | Target::WayToCoordinator(_) | Target::WayToPostgres(_) | Target::WayToNats(_) => false,
        Target::Postgres | Target::Nats => false,
    }
}
