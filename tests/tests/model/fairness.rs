//! Whether the job ends from here if nothing more goes wrong.
//!
//! stateright's own `eventually` doesn't see a cycle in which nothing ends, nor all ways that join. So this is asked of every
//! world that is reached, as an invariant: a scheduler that is deterministic and fair, by giving each thing that can be done
//! its turn in a fixed order and never letting anything fail, brings it to its end within a bound. Timers come last, as
//! they do in life. The way of each world is that of its successor, so what was found is remembered and the way is gone
//! but once.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::PoisonError;

use shared::job::StateName;
use stateright::Model;

use super::windlass::{Action, Then, Windlass};
use super::world::{Budget, COORDINATORS, Said, Slot, World};

/// The most steps to the end.
const STEPS_MAX: usize = 300;

/// Who is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Company {
    /// Workers go on. No lease of theirs and no other limit is needed.
    Workers,
    /// All workers are gone for good: leases and limits are all there is.
    Nobody,
}

impl Windlass {
    /// Whether the job ends, everything is published, and no worker is left with anything.
    pub fn ends_with_workers(&self, world: &World) -> bool {
        self.runs_out(world, Company::Workers)
    }

    /// Whether the job ends and everything is published though no worker says anything any more.
    pub fn ends_alone(&self, world: &World) -> bool {
        self.runs_out(world, Company::Nobody)
    }

    fn runs_out(&self, world: &World, company: Company) -> bool {
        let mut world = World { left: Budget::default(), ..world.clone() };
        let mut way = Vec::new();
        for _ in 0..STEPS_MAX {
            let here = BuildHasherDefault::<DefaultHasher>::default().hash_one((&world, company));
            if world.seen.fault.is_some() {
                // That is another property's to find.
                return true;
            }
            let known = self.ending.lock().unwrap_or_else(PoisonError::into_inner).contains(&here);
            if known || self.has_ended(&world, company) {
                way.push(here);
                self.ending.lock().unwrap_or_else(PoisonError::into_inner).extend(way);
                return true;
            }
            way.push(here);
            match self.next_in_turn(&world, company) {
                Some(next) => world = next,
                None => return false,
            }
        }
        false
    }

    fn has_ended(&self, world: &World, company: Company) -> bool {
        let told = world.seen.published == world.store.last();
        let idle = |slot: Slot| slot == Slot::Free || company == Company::Nobody;
        self.view(world).name.is_terminal() && told && world.workers.iter().all(|worker| idle(worker.slot))
    }

    fn next_in_turn(&self, world: &World, company: Company) -> Option<World> {
        let mut actions = Vec::new();
        self.actions(world, &mut actions);
        self.limits(world, company, &mut actions);
        let mut turns: Vec<(u8, Action)> =
            actions.into_iter().filter_map(|action| Some((self.turn_of(world, action, company)?, action))).collect();
        turns.sort_by_key(|(turn, _)| *turn);
        turns.into_iter().find_map(|(_, action)| self.next_state(world, action))
    }

    /// What else comes though nothing goes wrong: what hung goes on, and limits come where nobody is there to be waited for.
    fn limits(&self, world: &World, company: Company, actions: &mut Vec<Action>) {
        actions.extend((0..COORDINATORS).filter(|by| Self::has_sent(world, *by)).map(|by| Action::Land { by }));
        let owner = world.owner();
        let Some(by) = owner.filter(|by| self.is_listening(world, *by)) else { return };
        let view = self.book.view(world.coordinators[by].held.unwrap_or(world.store.row));
        if view.name == StateName::Blocked && !world.key || company == Company::Nobody && !view.name.is_terminal() {
            actions.push(Action::Tell { by, said: Said::Wake, then: Then::Commit });
        }
    }

    /// When an action has its turn: never, where it is a failure.
    fn turn_of(&self, world: &World, action: Action, company: Company) -> Option<u8> {
        let alone = company == Company::Nobody;
        match action {
            Action::Notice { .. } | Action::Recover { flushed: false, .. } | Action::Enter { .. } => Some(0),
            Action::LandStray { .. } | Action::Land { .. } => Some(1),
            Action::TakeOver { flushed: false, .. } => Some(3),
            Action::Publish { .. } => Some(4),
            Action::Hear { .. } | Action::HearStop { kept: false, .. } if !alone => Some(6),
            Action::Take { kept: false, .. } if !alone => Some(7),
            Action::Start { .. } | Action::Beat { .. } if !alone => Some(8),
            Action::End { .. } if !alone => Some(10),
            Action::Tell { said: Said::Lost { .. } | Said::Key, .. } => Some(11),
            // A lease ends sooner than an offer comes round for the second time.
            Action::TakeOffer { .. } if !alone => Some(12),
            Action::OfferAgain { .. } if !alone => Some(13),
            Action::RegisterKey if self.waits_for_key(world) => Some(15),
            Action::Tell { said: Said::Wake, .. } => Some(16),
            _ => None,
        }
    }

    /// Whether a running attempt can't go on without the key.
    fn waits_for_key(&self, world: &World) -> bool {
        self.scene.keyed && world.workers.iter().any(|worker| matches!(worker.slot, Slot::Running { told: false, .. }))
    }
}
