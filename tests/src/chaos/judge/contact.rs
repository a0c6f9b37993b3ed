//! Which troubles keep a worker from being heard, or from hearing.
//!
//! A lease runs only while its owner could have heard the worker, and begins anew in full after a takeover and after a break
//! between the owner and NATS or Postgres. So nothing that happens to those, or to another worker, excuses that a worker
//! is given up: only what happens to that worker or on its own way does, and only if nobody was heard for most of a lease.

use std::time::Duration;

use crate::chaos::history::{At, Id, Kind, Target, Trouble};

use super::index::{Index, before};

/// The least for which a worker that is given up was cut off: a lease, less the heartbeat before it and a margin for both ends.
pub const UNHEARD_MIN: Duration = Duration::from_secs(15 - 5 - 2);
/// How long after the end of a trouble a worker hears that an attempt of its is over.
pub const HEARS_AFTER: Duration = Duration::from_secs(5);
/// How long after the end of its own trouble a coordinator, or another in its place, speaks for its shards again.
const SPOKEN_FOR_AFTER: Duration = Duration::from_secs(15);

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

/// The same, and for so long that it could be given up. What happened to NATS then adds to that.
pub fn was_cut_off_long(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    let silent = |trouble: &Trouble| {
        let nats = trouble.target == Target::Nats && trouble.kind != Kind::WipeOffers;
        nats || number.is_some_and(|number| cuts_off(trouble, number))
    };
    was_cut_off(index, worker, from, to) && lasted(index, from, to, silent) >= UNHEARD_MIN
}

/// Whether that worker could have been given up: it was cut off, and with that time what kept its owner from hearing makes
/// up most of a lease.
pub fn was_unheard(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    was_cut_off(index, worker, from, to)
        && lasted(index, from, to, |trouble| delays(index, trouble, worker)) >= UNHEARD_MIN
}

/// Whether heartbeats of that worker could have gone unanswered for most of a lease, whatever on the whole way did it.
pub fn was_unanswered(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    lasted(index, from, to, |trouble| delays(index, trouble, worker)) >= UNHEARD_MIN
}

/// For how long, from `from` to `to`, one of these troubles was there.
fn lasted(index: &Index<'_>, from: At, to: At, counts: impl Fn(&Trouble) -> bool) -> Duration {
    let there = index.history.troubles.iter().filter(|trouble| trouble.from <= to && from <= trouble.to);
    let counted = there.filter(|trouble| trouble.kind != Kind::Delay && counts(trouble));
    let mut spans: Vec<(At, At)> = counted.map(|trouble| (trouble.from.max(from), trouble.to.min(to))).collect();
    spans.sort_unstable();
    let (mut whole, mut seen) = (Duration::ZERO, from);
    for (since, until) in spans {
        whole += until - since.max(seen);
        seen = seen.max(until);
    }
    whole
}

/// Whether that worker's process was ended.
pub fn was_ended(index: &Index<'_>, worker: &Id, from: At, to: At) -> bool {
    let number = index.workers.get(worker).copied();
    was_there(index, from, to, |trouble| {
        let ends = matches!(trouble.kind, Kind::Kill | Kind::Terminate);
        ends && number.is_some_and(|number| trouble.target == Target::Worker(number))
    })
}

/// Whether that worker may not have heard an order by that moment, which was given at `since`.
pub fn was_untold(index: &Index<'_>, worker: &Id, since: At, at: At) -> bool {
    let number = index.workers.get(worker).copied();
    let keeps = |trouble: &Trouble| match trouble.target {
        Target::Worker(_) => number.is_some_and(|number| cuts_off(trouble, number)),
        // What is on a slow way, or was on one that was cut once, is heard later.
        _ => delays(index, trouble, worker),
    };
    was_there(index, before(at, HEARS_AFTER).max(since), at, keeps)
        || was_there(index, before(at, SPOKEN_FOR_AFTER).max(since), at, |trouble| {
            matches!(trouble.target, Target::Coordinator(_)) && keeps(trouble)
        })
}

/// Whether that could have kept an order, or an answer, from that worker, or its word from being committed.
fn delays(index: &Index<'_>, trouble: &Trouble, worker: &Id) -> bool {
    match trouble.target {
        Target::Worker(number) | Target::WorkersWay(number) => {
            let its = index.workers.get(worker) == Some(&number);
            its && !matches!(trouble.kind, Kind::ClockAhead | Kind::ClockBehind | Kind::FullDisk)
        }
        Target::Coordinator(_) => !matches!(trouble.kind, Kind::ClockAhead | Kind::ClockBehind),
        Target::Nats => trouble.kind != Kind::WipeOffers,
        Target::Postgres | Target::WayToPostgres(_) | Target::WayToNats(_) => true,
        Target::WayToCoordinator(_) => false,
    }
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
        // A way that is cut once is there again at once, and on one that is slow heartbeats are still answered in time.
        Target::WorkersWay(number) => number == worker && !matches!(trouble.kind, Kind::Snap | Kind::Delay),
        Target::Coordinator(_) | Target::WayToCoordinator(_) | Target::WayToPostgres(_) | Target::WayToNats(_) => false,
        Target::Postgres | Target::Nats => false,
    }
}
