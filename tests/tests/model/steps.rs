//! What an action does, and what follows of itself.
//!
//! What nobody could tell from its happening later, or at once, happens at once ([`Windlass::settle`]): a message that is
//! on its way may be heard at any later time, so that it is sent at once loses no order of things. Between hand-over and commit,
//! and between commit and publication, things are left standing only where something can come between that makes a
//! difference: then it is chosen, as [`Then`].

use super::windlass::{Action, Then, Windlass};
use super::world::{COORDINATORS, Fate, Reply, Said, Slot, WORKERS, Word, World, bit, put, take_out};

impl Windlass {
    /// Does it.
    pub fn act(&self, world: &mut World, action: Action) {
        match action {
            Action::Take { by, said, kept, then } => {
                if !kept {
                    take_out(&mut world.bus.requests, &said);
                }
                self.take_then(world, by, said, then);
            }
            Action::Tell { by, said, then } => self.tell(world, by, said, then),
            Action::TakeLate { by, said } => {
                take_out(&mut world.bus.requests, &said);
                self.take_late(world, by, said);
            }
            Action::Land { by } => world.coordinators[by].hangs = false,
            Action::LandStray { write } => self.land_stray(world, write),
            Action::LoseAnswer { by } => self.lose_answer(world, by),
            Action::KillSupervisor { by } => Self::kill_supervisor(world, by),
            Action::CrashCoordinator { by, flushed } => {
                self.flush(world, flushed);
                self.crash(world, by);
            }
            Action::TakeOver { by, flushed } => {
                self.flush(world, flushed);
                self.take_over(world, by);
            }
            Action::Recover { by, flushed } => {
                self.flush(world, flushed);
                self.recover(world, by);
            }
            Action::Notice { by } => self.crash(world, by),
            Action::Enter { by } => self.enter(world, by),
            Action::Publish { by } => self.publish(world, by),
            Action::OfferAgain { .. } => world.bus.offers |= bit(self.view(world).attempt + 1),
            Action::LoseReply { reply } => take_out(&mut world.bus.replies, &reply),
            Action::LoseStop { stop } => take_out(&mut world.bus.stops, &stop),
            Action::LoseOffers => world.bus.offers = 0,
            Action::Hear { reply } => self.hear(world, reply),
            Action::HearStop { stop, kept } => {
                if !kept {
                    take_out(&mut world.bus.stops, &stop);
                }
                self.hear_stop(world, stop);
            }
            Action::Beat { worker, by } => self.beat(world, worker, by),
            Action::TakeOffer { worker, attempt } => Self::take_offer(world, worker, attempt),
            Action::GiveUpClaim { worker } => Self::give_up_claim(world, worker),
            Action::Start { worker } => self.start(world, worker),
            Action::SayAgain { said } => put(&mut world.bus.requests, said),
            Action::End { worker, word } => Self::end(world, worker, word),
            Action::CrashWorker { worker } => self.crash_worker(world, worker),
            Action::RegisterKey => world.key = true,
        }
    }

    /// A coordinator takes a message, and its transition goes as far as was chosen.
    pub fn take_then(&self, world: &mut World, by: usize, said: Said, then: Then) {
        self.take(world, by, said, false);
        let at = &mut world.coordinators[by];
        match then {
            Then::Commit => {}
            Then::Hang => at.hangs |= !at.writes.is_empty(),
            Then::BeMute => at.mute |= !at.writes.is_empty(),
        }
    }

    /// Lets happen what follows of itself.
    pub fn settle(&self, world: &mut World) {
        for by in 0..COORDINATORS {
            while !world.coordinators[by].hangs && self.land(world, by).is_some() {
                self.answer(world, by);
            }
            self.settle_publisher(world, by);
        }
        self.settle_replies(world);
        for worker in 0..WORKERS {
            self.settle_worker(world, worker);
        }
        // Nothing names a coordinator, so their order says nothing.
        world.coordinators.sort();
    }

    /// A worker says what it has to say, and announces itself when its spool is empty.
    fn settle_worker(&self, world: &mut World, worker: usize) {
        if world.workers[worker].slot == Slot::Free {
            world.store.announced[worker] = world.workers[worker].instance;
        }
        for said in Self::pending(world, worker) {
            let begins = matches!(said, Said::Word { word: Word::Began, .. });
            let waits = begins && self.scene.keyed && !world.key;
            if !waits && !world.is_under_way(said) {
                self.say(world, worker, said);
            }
        }
    }

    /// A publisher publishes. That an offer is withdrawn is what a worker can be faster than.
    fn settle_publisher(&self, world: &mut World, by: usize) {
        while self.publishes(world, by) && !world.coordinators[by].mute {
            if world.coordinators[by].published >= self.announced(world, by) || self.next_withdraws(world, by) {
                return;
            }
            self.publish(world, by);
        }
    }

    /// Where nothing can befall an answer on its way or who waits for it, one that only lets a worker go on is heard.
    fn settle_replies(&self, world: &mut World) {
        if world.left.mishaps + world.left.worker_crashes > 0 {
            return;
        }
        let small = |reply: &&Reply| matches!(reply.to, Said::Word { word: Word::Began | Word::Declined { .. }, .. });
        while let Some(reply) = world.bus.replies.iter().find(small).copied() {
            self.hear(world, reply);
        }
    }

    /// Whether a write of that coordinator waits to be executed.
    pub fn has_sent(world: &World, by: usize) -> bool {
        world.coordinators[by].writes.first().is_some_and(|write| matches!(write.fate, Fate::Sent { .. }))
    }
}
