//! What coordinators do: take a message, commit what follows, answer, publish; die, take over, recover.

use shared::job::{Rejection, StateName};

use super::book::{Effect, Turn};
use super::breaks::Break;
use super::windlass::{Then, Windlass};
use super::world::{Answer, Coordinator, Fate, Fault, Reply, Said, Stop, World, Write, bit, put, take_out};

impl Windlass {
    /// Whether that coordinator speaks for the shard: its owner does, and one that was taken for dead and whose clock
    /// stood still with it, where there are such.
    pub fn speaks(&self, world: &World, c: usize) -> bool {
        let epoch = world.coordinators[c].epoch;
        epoch.is_some() && (self.scene.zombies_speak || epoch == Some(world.store.epoch))
    }

    /// Whether that coordinator's supervisor takes the next message. One that follows one that died reads the job when
    /// nothing is on its way any more.
    pub fn is_listening(&self, world: &World, c: usize) -> bool {
        let at = &world.coordinators[c];
        let unsettled = self.is_broken(Break::ReadBeforeSettled) || self.is_broken(Break::VersionUnchecked);
        at.is_listening(at.writes.is_empty() || unsettled)
    }

    /// The supervisor takes the next message.
    pub fn take(&self, world: &mut World, c: usize, said: Said, again: bool) {
        let at = &mut world.coordinators[c];
        let from = *at.held.get_or_insert(world.store.row);
        let epoch = at.epoch.expect("an owner takes messages");
        let turn = self.book.turn(from, said);
        self.judge(world, c, said, &turn);
        let at = &mut world.coordinators[c];
        match turn {
            Turn::Refused(Rejection::Early) => {}
            Turn::Refused(Rejection::Late) => self.reply(world, c, said, Answer::Late),
            Turn::Refused(_) => self.reply(world, c, said, Answer::Refused),
            Turn::Same => self.reply(world, c, said, agreed(said)),
            Turn::Moved { row, .. } => {
                at.writes.push(Write { epoch, from, said, fate: Fate::Waiting, awaited: true, again });
                if self.is_broken(Break::SwappedBeforeCommit) {
                    at.held = Some(row);
                    at.writes.iter_mut().for_each(|write| write.awaited = false);
                }
                send_next(at);
                if self.is_broken(Break::AnsweredBeforeCommit) {
                    self.reply(world, c, said, agreed(said));
                }
            }
        }
    }

    /// The supervisor takes a claim whose deadline has passed.
    pub fn take_late(&self, world: &mut World, c: usize, said: Said) {
        let Said::Claim { worker, instance, claim, attempt, .. } = said else { return };
        let at = &mut world.coordinators[c];
        let from = *at.held.get_or_insert(world.store.row);
        let late = Said::Claim { worker, instance, claim, attempt, late: true };
        let turn = self.book.turn(from, late);
        self.judge(world, c, late, &turn);
        match turn {
            Turn::Refused(Rejection::Late) => self.reply(world, c, said, Answer::Late),
            Turn::Refused(_) => self.reply(world, c, said, Answer::Refused),
            // A repeat of the claim that was granted is never too late.
            Turn::Same | Turn::Moved { .. } => self.reply(world, c, said, Answer::Granted),
        }
    }

    /// Whether what an owner answers at once, because nothing is to be committed, is so by what is committed, and stays so
    /// when what is on its way is. (That a claim which was granted is refused is for another property.)
    fn judge(&self, world: &mut World, c: usize, said: Said, turn: &Turn) {
        let at = &world.coordinators[c];
        let on_its_way = at.writes.first().filter(|write| write.from == world.store.row);
        let next = on_its_way.and_then(|write| match self.book.turn(write.from, write.said) {
            Turn::Moved { row, .. } => Some(row),
            Turn::Refused(_) | Turn::Same => None,
        });
        let is_so = |row| match (turn, self.book.turn(row, said)) {
            (Turn::Moved { .. } | Turn::Refused(Rejection::Early), _) => true,
            (Turn::Refused(_), Turn::Refused(why)) => why != Rejection::Early,
            (Turn::Refused(_), Turn::Same) => matches!(said, Said::Claim { .. }),
            (Turn::Same, truth) => matches!(truth, Turn::Same),
            (Turn::Refused(_), Turn::Moved { .. }) => false,
        };
        let is_true = is_so(world.store.row) && next.is_none_or(is_so);
        if !is_true && at.epoch == Some(world.store.epoch) {
            world.seen.note(Fault::UntrueAnswer);
        }
    }

    /// The supervisor takes what the coordinator tells it of its own accord.
    pub fn tell(&self, world: &mut World, c: usize, said: Said, then: Then) {
        let held = world.coordinators[c].held.unwrap_or(world.store.row);
        if said == Said::Wake && world.key && self.book.view(held).name == StateName::Blocked {
            world.seen.note(Fault::KeyIgnored);
        }
        self.take_then(world, c, said, then);
    }

    fn reply(&self, world: &mut World, c: usize, to: Said, answer: Answer) {
        let claimless = to.worker().is_none();
        if let Some(epoch) = world.coordinators[c].epoch.filter(|_| !claimless && self.speaks(world, c)) {
            put(&mut world.bus.replies, Reply { to, epoch, answer });
        }
    }

    /// The first statement of that coordinator takes effect, or doesn't.
    pub fn land(&self, world: &mut World, c: usize) -> Option<()> {
        let write = *world.coordinators[c].writes.first()?;
        let Fate::Sent { after } = write.fate else { return None };
        let fate = self.executed(world, write, after);
        world.coordinators[c].writes[0].fate = fate;
        Some(())
    }

    /// A statement that nobody waits for takes effect, or doesn't.
    pub fn land_stray(&self, world: &mut World, write: Write) {
        take_out(&mut world.store.strays, &write);
        if let Fate::Sent { after } = write.fate {
            self.executed(world, write, after);
        }
    }

    /// What the store makes of a statement.
    fn executed(&self, world: &mut World, write: Write, after: u8) -> Fate {
        if write.epoch != world.store.epoch && !self.is_broken(Break::OldOwnerNotFenced) {
            return Fate::Fenced;
        }
        let (before, from) = (self.book.view(world.store.row), self.book.view(write.from));
        if before.version != from.version && !self.is_broken(Break::VersionUnchecked) {
            return Fate::Conflict;
        }
        let Turn::Moved { row, facts } = self.book.turn(write.from, write.said) else { return Fate::Conflict };
        if before.name.is_terminal() && !self.book.same_end(world.store.row, row) {
            world.seen.note(Fault::TerminalChanged);
        }
        if after != world.store.last() {
            world.seen.note(Fault::NumbersCollide);
        }
        if facts.iter().any(|fact| self.book.is_cancel(*fact)) {
            world.seen.canceled_at.get_or_insert(before.attempt);
        }
        if let (Said::Lost { .. } | Said::Wake, Some(hold)) = (write.said, before.hold) {
            let worker = &world.workers[usize::from(hold.worker)];
            if worker.instance == hold.instance && worker.slot.attempt() == Some(before.attempt) {
                world.seen.given_up |= bit(before.attempt);
            }
        }
        world.store.row = row;
        world.store.log.extend(facts.iter());
        Fate::Landed { after }
    }

    /// The answer to the first statement comes: the state is swapped, whoever asked is answered, the publisher is told.
    pub fn answer(&self, world: &mut World, c: usize) -> Option<()> {
        let at = &mut world.coordinators[c];
        let write = *at.writes.first()?;
        match write.fate {
            Fate::Waiting | Fate::Sent { .. } => return None,
            Fate::Fenced => *at = Coordinator::default(),
            Fate::Landed { after } => {
                let Turn::Moved { row, facts } = self.book.turn(write.from, write.said) else { return None };
                at.writes.remove(0);
                at.last = at.last.max(after + u8::try_from(facts.len()).expect("few events"));
                send_next(at);
                if write.awaited {
                    at.held = Some(row);
                    self.reply(world, c, write.said, agreed(write.said));
                }
            }
            Fate::Conflict => {
                at.writes.remove(0);
                send_next(at);
                if write.awaited {
                    at.held = None;
                    if !write.again {
                        self.take(world, c, write.said, true);
                    }
                }
            }
        }
        Some(())
    }

    /// The answer to the first statement is lost. What waits behind it is told that it wasn't done; so it is as if ours
    /// had waited behind another job's, whose answer was lost, where it never lands.
    pub fn lose_answer(&self, world: &mut World, c: usize) {
        let at = &mut world.coordinators[c];
        if self.is_broken(Break::WaitingOutlivesRecovery) {
            at.writes.iter_mut().for_each(|write| (write.fate, write.awaited) = (Fate::Waiting, false));
        } else {
            self.forsake(world, c);
            world.coordinators[c].writes.clear();
        }
        let at = &mut world.coordinators[c];
        at.held = None;
        at.hangs = false;
        at.trouble = true;
    }

    /// The process dies.
    pub fn crash(&self, world: &mut World, c: usize) {
        self.forsake(world, c);
        world.coordinators[c] = Coordinator::default();
    }

    /// Nobody waits for the first statement any more; it may take effect all the same.
    fn forsake(&self, world: &mut World, c: usize) {
        let sent =
            world.coordinators[c].writes.first().copied().filter(|write| matches!(write.fate, Fate::Sent { .. }));
        if let Some(write) = sent.filter(|write| self.may_land(world, write)) {
            put(&mut world.store.strays, Write { awaited: false, ..write });
        }
    }

    /// Whether a statement can take effect now or later. An epoch never comes back.
    fn may_land(&self, world: &World, write: &Write) -> bool {
        write.epoch == world.store.epoch || self.is_broken(Break::OldOwnerNotFenced)
    }

    /// The supervisor alone dies over the write that it waits for. What it handed over is committed all the same.
    pub fn kill_supervisor(world: &mut World, c: usize) {
        let at = &mut world.coordinators[c];
        at.writes.iter_mut().for_each(|write| write.awaited = false);
        at.held = None;
    }

    /// The shard's owner becomes that coordinator, at the next epoch.
    pub fn take_over(&self, world: &mut World, c: usize) {
        world.store.epoch += 1;
        let mut strays = std::mem::take(&mut world.store.strays);
        strays.retain(|write| self.may_land(world, write));
        world.store.strays = strays;
        let at = &mut world.coordinators[c];
        at.epoch = Some(world.store.epoch);
        at.entering = !self.is_broken(Break::ReadBeforeFencing);
    }

    /// After a lost answer: the shard is taken over from ourselves.
    pub fn recover(&self, world: &mut World, c: usize) {
        if world.coordinators[c].epoch != Some(world.store.epoch) {
            world.coordinators[c] = Coordinator::default();
            return;
        }
        if !self.is_broken(Break::RecoveredByReading) {
            self.take_over(world, c);
        }
        world.coordinators[c].trouble = false;
        world.coordinators[c].entering = true;
    }

    /// Reads what the shard holds.
    pub fn enter(&self, world: &mut World, c: usize) {
        let mut row = world.store.row;
        if self.is_broken(Break::GrantNotStored) {
            row = self.book.without_claim(row);
        }
        let at = &mut world.coordinators[c];
        at.entering = false;
        at.mute = false;
        at.held = Some(row);
        at.last = world.store.last();
        at.published = world.store.cursor;
        if let (Some(epoch), false) = (at.epoch, at.writes.is_empty()) {
            at.writes.iter_mut().for_each(|write| write.epoch = epoch);
            at.hangs = true;
            send_next(at);
        }
    }

    /// The number of the last event that the publisher has been told of.
    pub fn announced(&self, world: &World, c: usize) -> u8 {
        let at = &world.coordinators[c];
        match at.writes.first().filter(|_| self.is_broken(Break::PublishedBeforeCommit)) {
            Some(Write { fate: Fate::Sent { .. }, from, said, .. }) => match self.book.turn(*from, *said) {
                Turn::Moved { facts, .. } => at.last + u8::try_from(facts.len()).expect("few events"),
                Turn::Refused(_) | Turn::Same => at.last,
            },
            _ => at.last,
        }
    }

    /// The number of the next event from which more follows than that subscribers are told, or of the last one.
    fn next_loud(&self, world: &World, c: usize) -> u8 {
        let (first, last) = (world.coordinators[c].published + 1, self.announced(world, c));
        let quiet = |number: &u8| world.store.event(*number).is_none_or(|fact| self.book.effects(fact).is_empty());
        (first..=last).find(|number| !quiet(number)).unwrap_or(last)
    }

    /// Whether the next publication takes an offer back that is there.
    pub fn next_withdraws(&self, world: &World, c: usize) -> bool {
        let effects = world.store.event(self.next_loud(world, c)).map(|fact| self.book.effects(fact));
        let there =
            |effect: &Effect| matches!(effect, Effect::Withdraw(attempt) if world.bus.offers & bit(*attempt) != 0);
        effects.is_some_and(|effects| effects.iter().any(there))
    }

    /// Publishes the next events, up to the next from which more follows than that subscribers are told: until then
    /// nobody could tell the difference. What is below the cursor was published by another, and says nothing new.
    pub fn publish(&self, world: &mut World, c: usize) {
        let first = world.coordinators[c].published + 1;
        let number = self.next_loud(world, c);
        world.coordinators[c].published = number;
        if number > world.store.last() {
            world.seen.note(Fault::PublishedUncommitted);
        }
        if first > world.seen.published + 1 {
            world.seen.note(Fault::OutOfOrder);
        }
        world.seen.published = world.seen.published.max(number);
        let epoch = world.coordinators[c].epoch.expect("an owner publishes");
        let effects = world.store.event(number).map(|fact| self.book.effects(fact));
        for effect in effects.iter().flat_map(|effects| effects.iter()) {
            match *effect {
                Effect::Offer(attempt) => world.bus.offers |= bit(attempt),
                Effect::Withdraw(attempt) => world.bus.offers &= !bit(attempt),
                Effect::Stop { attempt, worker, instance } => {
                    put(&mut world.bus.stops, Stop { worker, instance, attempt, epoch });
                }
            }
        }
    }

    /// How far the cursor could be moved by that coordinator.
    pub fn cursor(&self, world: &World, c: usize) -> u8 {
        let at = &world.coordinators[c];
        let to = if self.is_broken(Break::CursorBeforePublication) { at.last } else { at.published };
        if at.epoch == Some(world.store.epoch) && !at.entering { to } else { world.store.cursor }
    }

    /// Writes how far the owner has published, if that is what happened by now. The cursor is read by takeovers alone, so
    /// it is enough to choose then how far it was written.
    pub fn flush(&self, world: &mut World, flushed: bool) {
        let Some(owner) = world.owner().filter(|_| flushed) else { return };
        let to = self.cursor(world, owner);
        let passed = usize::from(to - world.store.cursor);
        world.store.log.drain(..passed);
        world.store.cursor = to;
    }
}

/// The answer to what was taken.
fn agreed(said: Said) -> Answer {
    if matches!(said, Said::Claim { .. }) { Answer::Granted } else { Answer::Taken }
}

/// The committer begins with the first write that waits, following on the last event that it knows.
fn send_next(at: &mut Coordinator) {
    let last = at.last;
    if let Some(write) = at.writes.first_mut().filter(|write| write.fate == Fate::Waiting) {
        write.fate = Fate::Sent { after: last };
    }
}
