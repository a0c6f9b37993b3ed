//! Carries out a schedule: begins each trouble when its time has come, ends it when it has lasted, and knows it to be over
//! when what it befell is up again.

use std::collections::VecDeque;
use std::time::Duration;

use nix::sys::signal::Signal;
use shared::clock;

use super::servers::wipe_offers;
use super::{Arena, POSTGRES, Part, now};
use crate::chaos::history::{At, Kind, Target, Trouble};
use crate::chaos::schedule::Planned;
use crate::cluster::Database;
use crate::nats::Nats;
use crate::proxy::Proxy;
use crate::wait::eventually;

/// How long after the last trouble's end everything has to be up again.
const UP_WITHIN: Duration = Duration::from_mins(2);
/// Never reached: the arena gives up before.
const NEVER: Duration = Duration::from_hours(24);

/// A trouble that has begun.
struct UnderWay {
    planned: Planned,
    from: At,
    /// Whether its end was ordered.
    is_ending: bool,
}

impl UnderWay {
    fn over(&self) -> Trouble {
        Trouble { from: self.from, to: now(), kind: self.planned.kind, target: self.planned.target }
    }
}

pub fn carry_out(arena: &mut Arena, schedule: &[Planned]) -> Vec<Trouble> {
    let to_come = schedule.iter().filter(|planned| arena.allows(planned.kind)).copied().collect();
    let mut course = Course { to_come, under_way: Vec::new(), over: Vec::new() };
    let last = schedule.iter().map(|planned| planned.at + planned.lasts).max().unwrap_or_default();
    let begun = clock::instant();
    eventually(NEVER, "the schedule is carried out", || {
        let time = begun.elapsed();
        arena.look();
        course.go_on(arena, time);
        if time > last + UP_WITHIN {
            give_up(arena);
            course.end_all(|_| true);
            return Some(());
        }
        (course.is_done() && arena.is_up()).then_some(())
    });
    course.over.sort_by_key(|trouble| trouble.from);
    course.over
}

/// How far a schedule is carried out.
struct Course {
    to_come: VecDeque<Planned>,
    under_way: Vec<UnderWay>,
    over: Vec<Trouble>,
}

impl Course {
    /// Ends what has lasted long enough, and begins what is to begin.
    fn go_on(&mut self, arena: &mut Arena, time: Duration) {
        for trouble in &mut self.under_way {
            if !trouble.is_ending && time >= trouble.planned.at + trouble.planned.lasts {
                end(arena, &trouble.planned);
                trouble.is_ending = true;
            }
        }
        self.end_all(|trouble| trouble.is_ending && is_over(arena, &trouble.planned));
        while let Some(planned) = self.to_come.pop_front_if(|planned| planned.at <= time) {
            // What hasn't come up yet is troubled anew.
            self.end_all(|other| other.planned.target == planned.target);
            self.under_way.push(UnderWay { planned, from: now(), is_ending: false });
            begin(arena, &planned);
        }
    }

    /// Counts those as over that `which` names.
    fn end_all(&mut self, which: impl Fn(&UnderWay) -> bool) {
        let ended = self.under_way.extract_if(.., |trouble| which(trouble));
        self.over.extend(ended.map(|trouble| trouble.over()));
    }

    fn is_done(&self) -> bool {
        self.to_come.is_empty() && self.under_way.is_empty()
    }
}

/// Notes who isn't up.
fn give_up(arena: &mut Arena) {
    let coordinators = arena.coordinators.iter_mut().map(|coordinator| &mut coordinator.part);
    for part in coordinators.chain(arena.workers.iter_mut().map(|worker| &mut worker.part)) {
        if part.ready().is_none() {
            part.findings.push(format!("{} doesn't come up within {UP_WITHIN:?}", part.recipe.name));
        }
    }
}

pub fn begin(arena: &mut Arena, planned: &Planned) {
    let seconds = i64::try_from(planned.by.as_secs()).expect("seconds");
    match planned.kind {
        Kind::Kill => match planned.target {
            Target::Postgres => arena.servers.postgres(|postgres| postgres.server().crash()),
            Target::Nats => arena.servers.nats(Nats::kill),
            process => part(arena, process).kill(),
        },
        Kind::Terminate => match planned.target {
            Target::Postgres => arena.servers.postgres(Database::stop),
            Target::Nats => arena.servers.nats(Nats::stop),
            process => part(arena, process).terminate(),
        },
        Kind::Freeze => match planned.target {
            Target::Nats => arena.servers.nats(|nats| nats.freeze()),
            process => part(arena, process).signal(Signal::SIGSTOP),
        },
        Kind::Cut => way(arena, planned.target).cut(),
        Kind::Snap => way(arena, planned.target).snap(),
        Kind::Stall => way(arena, planned.target).stall(),
        Kind::Deafen => way(arena, planned.target).deafen(),
        Kind::Delay => way(arena, planned.target).delay(planned.by),
        Kind::FullDisk => worker(arena, planned.target).disk.fill(),
        Kind::ClockAhead => jump(arena, planned.target, seconds),
        Kind::ClockBehind => jump(arena, planned.target, -seconds),
        Kind::WipeOffers => arena.servers.nats(|nats| wipe_offers(nats)),
    }
}

pub fn end(arena: &mut Arena, planned: &Planned) {
    match planned.kind {
        Kind::Kill | Kind::Terminate => match planned.target {
            Target::Postgres => arena.servers.postgres(Database::start_again),
            Target::Nats => arena.servers.nats(Nats::start_again),
            process => part(arena, process).want(),
        },
        Kind::Freeze => match planned.target {
            Target::Nats => arena.servers.nats(|nats| nats.thaw()),
            process => part(arena, process).signal(Signal::SIGCONT),
        },
        Kind::Cut | Kind::Stall | Kind::Deafen | Kind::Delay => way(arena, planned.target).mend(),
        Kind::FullDisk => worker(arena, planned.target).disk.clear(),
        Kind::ClockAhead | Kind::ClockBehind => jump(arena, planned.target, 0),
        Kind::Snap | Kind::WipeOffers => {}
    }
}

/// Whether what it befell is up again.
pub fn is_over(arena: &Arena, planned: &Planned) -> bool {
    match planned.target {
        Target::Postgres => arena.servers.postgres_is_done(),
        Target::Nats => arena.servers.nats_is_done(),
        Target::Coordinator(index) => arena.coordinators[index].part.ready().is_some(),
        Target::Worker(index) => arena.workers[index].part.ready().is_some(),
        Target::WayToPostgres(_) | Target::WayToNats(_) | Target::WayToCoordinator(_) | Target::WorkersWay(_) => true,
    }
}

fn part(arena: &mut Arena, target: Target) -> &mut Part {
    match target {
        Target::Coordinator(index) => &mut arena.coordinators[index].part,
        target => &mut worker(arena, target).part,
    }
}

fn worker(arena: &mut Arena, target: Target) -> &mut super::Worker {
    let Target::Worker(index) = target else { panic!("{target:?} is no worker") };
    &mut arena.workers[index]
}

fn way(arena: &Arena, target: Target) -> &Proxy {
    match target {
        Target::WayToPostgres(index) => &arena.coordinators[index].to_postgres,
        Target::WayToNats(index) => &arena.coordinators[index].to_nats,
        Target::WayToCoordinator(index) => &arena.coordinators[index].way,
        Target::WorkersWay(index) => &arena.workers[index].to_nats,
        Target::Coordinator(_) | Target::Worker(_) | Target::Postgres | Target::Nats => panic!("{target:?} is no way"),
    }
}

fn jump(arena: &mut Arena, target: Target, seconds: i64) {
    match target {
        Target::Postgres => arena.clocks.jump(POSTGRES, seconds),
        process => {
            let name = part(arena, process).recipe.name.clone();
            arena.clocks.jump(&name, seconds);
        }
    }
}
