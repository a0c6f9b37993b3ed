//! Which troubles keep a worker from being heard, or from hearing.
//!
//! Precise enough that a worker to whom nothing happened is never excused by what happened to another. What happens to
//! Postgres, or to clients, excuses nothing of leases: those begin anew in full when their owner can't commit or hear.

use crate::chaos::history::{At, Id, Kind, Target, Trouble};

use super::index::Index;

/// Whether one of these troubles was there at some time from `from` to `to`.
fn was_there(index: &Index<'_>, from: At, to: At, excuses: impl Fn(&Trouble) -> bool) -> bool {
    let mut there = index.history.troubles.iter().filter(|trouble| trouble.from <= to && from <= trouble.to);
    there.any(excuses)
}

/// Whether that worker could have been cut off while it, and the steps that it runs, went on.
pub fn was_cut_off(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    was_there(index, from, to, |trouble| number.is_some_and(|number| cuts_off(trouble, number)))
}

/// Whether that worker could have been lost: cut off, or its process ended.
pub fn was_lost(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    was_there(index, from, to, |trouble| {
        let ended = matches!(trouble.kind, Kind::Kill | Kind::Terminate);
        number.is_some_and(|number| cuts_off(trouble, number) || (ended && trouble.target == Target::Worker(number)))
    })
}

/// Whether anything could have kept an order to stop from that worker, or its word that it has stopped from being committed,
/// for the few seconds for which that is waited.
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

fn cuts_off(trouble: &Trouble, worker: usize) -> bool {
    // A way that is cut once is there again at once.
    let way = matches!(trouble.kind, Kind::Cut | Kind::Stall | Kind::Deafen | Kind::Delay);
    match trouble.target {
        Target::Worker(number) => number == worker && trouble.kind == Kind::Freeze,
        Target::WorkersWay(number) => number == worker && way,
        Target::Nats => way || matches!(trouble.kind, Kind::Kill | Kind::Terminate | Kind::Freeze),
        // The owner of the shard is whichever coordinator it was.
        Target::Coordinator(_) => trouble.kind == Kind::Freeze,
        Target::WayToNats(_) => way,
        Target::Postgres | Target::WayToPostgres(_) | Target::WayToCoordinator(_) => false,
    }
}
