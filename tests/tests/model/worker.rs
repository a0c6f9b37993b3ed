//! What workers do: claim, start, report, stop; die and start again.

use super::book::Turn;
use super::breaks::Break;
use super::windlass::Windlass;
use super::world::{Answer, Fault, Reply, Said, Slot, Stop, Word, World, bit, put, take_out};

impl Windlass {
    /// What that worker has to say, and has no answer to.
    pub fn pending(world: &World, w: usize) -> Vec<Said> {
        let (at, worker) = (&world.workers[w], number(w));
        let says = |attempt, word| Said::Word { worker, attempt, word };
        let among = |bits: u8| (0..8).filter(move |attempt| bits & bit(*attempt) != 0);
        let any = among(at.declining).map(|attempt| says(attempt, Word::Declined { claim: None }));
        let last = Some(at.given_up.saturating_sub(1));
        let one = among(at.declining_claim).map(|attempt| says(attempt, Word::Declined { claim: last }));
        let mut said: Vec<Said> = any.chain(one).collect();
        said.extend(match at.slot {
            Slot::Claiming { attempt } => Some(claim(world, w, attempt)),
            Slot::Running { attempt, told: false, stop } => {
                let began = says(attempt, Word::Began);
                (!stop || world.is_under_way(began)).then_some(began)
            }
            Slot::Ended { attempt, word: end, .. } => Some(says(attempt, end)),
            Slot::Free | Slot::Granted { .. } | Slot::Running { .. } => None,
        });
        said
    }

    /// A worker hears an answer; one that it doesn't wait for is nothing to it.
    pub fn hear(&self, world: &mut World, reply: Reply) {
        take_out(&mut world.bus.replies, &reply);
        let Some(w) = reply.to.worker().map(usize::from) else { return };
        let worker = &world.workers[w];
        let old = reply.epoch < worker.epoch && !self.is_broken(Break::EpochIgnored);
        if old || !Self::pending(world, w).contains(&reply.to) {
            return;
        }
        world.workers[w].epoch = worker.epoch.max(reply.epoch);
        match reply.to {
            Said::Claim { attempt, .. } => self.hear_claim(world, w, attempt, reply),
            Said::Word { attempt, word: Word::Declined { claim: None }, .. } => {
                world.workers[w].declining &= !bit(attempt);
            }
            Said::Word { attempt, word: Word::Declined { claim: Some(_) }, .. } => {
                world.workers[w].declining_claim &= !bit(attempt);
            }
            Said::Word { attempt, word: Word::Began, .. } => {
                let stop = matches!(world.workers[w].slot, Slot::Running { stop: true, .. });
                world.workers[w].slot = Slot::Running { attempt, told: true, stop };
            }
            Said::Word { .. } => self.drop_outcome(world, w, reply.to, reply.answer == Answer::Taken),
            Said::Wake | Said::WakeLate | Said::Cancel { .. } | Said::Lost { .. } | Said::Key => {}
        }
    }

    fn hear_claim(&self, world: &mut World, w: usize, attempt: u8, reply: Reply) {
        world.workers[w].slot = match reply.answer {
            Answer::Granted | Answer::Taken => Slot::Granted { attempt },
            Answer::Refused | Answer::Late => Slot::Free,
        };
        world.workers[w].spool();
        if world.is_under_way(reply.to) {
            // What else is on its way of this claim is nothing to the next.
            world.workers[w].given_up += 1;
        }
        if reply.answer != Answer::Late {
            world.bus.offers &= !bit(attempt);
        }
        let live = self.book.view(world.store.row).hold.filter(|hold| !hold.stopping);
        let ours = live.is_some_and(|hold| {
            let committed = (hold.worker, hold.claim, self.book.view(world.store.row).attempt);
            matches!(reply.to, Said::Claim { worker, claim, attempt, .. } if (worker, claim, attempt) == committed)
        });
        if reply.answer == Answer::Refused && ours && reply.epoch == world.store.epoch {
            world.seen.note(Fault::GrantDenied);
        }
    }

    /// An outcome leaves the spool, because it was `taken` or refused.
    fn drop_outcome(&self, world: &mut World, w: usize, said: Said, taken: bool) {
        let moves = matches!(self.book.turn(world.store.row, said), Turn::Moved { .. });
        if moves && (taken || self.view(world).hold.is_some()) {
            world.seen.note(Fault::OutcomeDropped);
        }
        world.workers[w].slot = Slot::Free;
        world.workers[w].spool();
    }

    /// A worker is told to stop an attempt.
    pub fn hear_stop(&self, world: &mut World, stop: Stop) {
        let w = usize::from(stop.worker);
        let worker = &mut world.workers[w];
        if stop.epoch < worker.epoch && !self.is_broken(Break::EpochIgnored) {
            return;
        }
        worker.epoch = worker.epoch.max(stop.epoch);
        if stop.instance != worker.instance {
            return;
        }
        match worker.slot {
            Slot::Running { attempt, .. } if attempt == stop.attempt => self.stop(world, w),
            Slot::Ended { attempt, .. } if attempt == stop.attempt => {}
            _ if worker.marks & bit(stop.attempt) != 0 => {}
            _ => {
                worker.declining |= bit(stop.attempt);
                if !self.is_broken(Break::MarkSkipped) {
                    worker.marks |= bit(stop.attempt);
                }
            }
        }
    }

    /// The running attempt of a worker is to end.
    fn stop(&self, world: &mut World, w: usize) {
        let Slot::Running { attempt, told, .. } = world.workers[w].slot else { return };
        world.workers[w].slot = Slot::Running { attempt, told, stop: true };
        let view = self.book.view(world.store.row);
        let current = view.hold.is_some_and(|hold| !hold.stopping && usize::from(hold.worker) == w);
        if current && view.attempt == attempt {
            world.seen.note(Fault::StoppedForNothing);
        }
    }

    /// Whether that coordinator's answer to a heartbeat would stop what the worker runs.
    pub fn would_stop(&self, world: &World, w: usize, c: usize) -> bool {
        let (at, worker) = (&world.coordinators[c], &world.workers[w]);
        let Slot::Running { attempt, stop: false, .. } = worker.slot else { return false };
        let heeded = at.epoch.is_some_and(|epoch| epoch >= worker.epoch || self.is_broken(Break::EpochIgnored));
        if at.entering || !heeded || !self.speaks(world, c) {
            return false;
        }
        let view = self.book.view(at.held.unwrap_or(world.store.row));
        let holds = view.hold.filter(|hold| usize::from(hold.worker) == w && view.attempt == attempt);
        holds.is_none_or(|hold| hold.stopping)
    }

    /// A heartbeat is answered.
    pub fn beat(&self, world: &mut World, w: usize, c: usize) {
        let epoch = world.coordinators[c].epoch.unwrap_or_default();
        let worker = &mut world.workers[w];
        worker.epoch = worker.epoch.max(epoch);
        self.stop(world, w);
    }

    /// The granted attempt starts, unless it was stopped before.
    pub fn start(&self, world: &mut World, w: usize) {
        let Slot::Granted { attempt } = world.workers[w].slot else { return };
        if world.workers[w].marks & bit(attempt) != 0 {
            world.workers[w].slot = Slot::Free;
            world.workers[w].spool();
            world.workers[w].declining |= bit(attempt);
            return;
        }
        world.workers[w].slot = Slot::Running { attempt, told: false, stop: false };
        if world.seen.canceled_at.is_some_and(|at| attempt > at) {
            world.seen.note(Fault::StartedAfterCancel);
        }
        let view = self.book.view(world.store.row);
        if view.confirmed && world.seen.given_up & bit(attempt) == 0 {
            world.seen.note(Fault::StartedAfterConfirmation);
        }
    }

    /// A worker takes an offer; one of an attempt that must not start it acknowledges.
    pub fn take_offer(world: &mut World, w: usize, attempt: u8) {
        if world.workers[w].marks & bit(attempt) == 0 {
            world.workers[w].slot = Slot::Claiming { attempt };
        } else {
            world.bus.offers &= !bit(attempt);
        }
    }

    /// A worker waits no longer for the answer to its claim: a grant that it hasn't heard isn't wanted any more.
    pub fn give_up_claim(world: &mut World, w: usize) {
        let worker = &mut world.workers[w];
        if let Slot::Claiming { attempt } = worker.slot {
            worker.slot = Slot::Free;
            worker.given_up += 1;
            worker.declining_claim |= bit(attempt);
        }
    }

    /// The running attempt is over, and that is in the spool.
    pub fn end(world: &mut World, w: usize, how: Word) {
        if let Slot::Running { attempt, .. } = world.workers[w].slot {
            world.workers[w].slot = Slot::Ended { attempt, word: how, before: false };
            world.workers[w].spool();
        }
    }

    /// A worker dies and starts again. Its processes have died with it; what it has in the spool it knows.
    pub fn crash_worker(&self, world: &mut World, w: usize) {
        let worker = &mut world.workers[w];
        worker.epoch = if self.is_broken(Break::EpochsForgotten) { 0 } else { worker.spooled };
        worker.slot = match worker.slot {
            Slot::Ended { attempt, word: how, .. } => Slot::Ended { attempt, word: how, before: true },
            _ => Slot::Free,
        };
        worker.instance += 1;
        worker.given_up += 1;
        worker.spool();
        worker.marks = 0;
        (worker.declining, worker.declining_claim) = (0, 0);
        world.bus.replies.retain(|reply| reply.to.worker() != Some(number(w)));
    }

    /// A worker says what is pending, again or for the first time.
    pub fn say(&self, world: &mut World, w: usize, said: Said) {
        put(&mut world.bus.requests, said);
        let ended = matches!(world.workers[w].slot, Slot::Ended { .. });
        if ended && self.is_broken(Break::OutcomeNotRepeated) {
            self.drop_outcome(world, w, said, true);
        }
    }
}

/// The claim that this worker makes now.
fn claim(world: &World, w: usize, attempt: u8) -> Said {
    let worker = &world.workers[w];
    Said::Claim { worker: number(w), instance: worker.instance, claim: worker.given_up, attempt, late: false }
}

fn number(w: usize) -> u8 {
    u8::try_from(w).expect("few workers")
}
