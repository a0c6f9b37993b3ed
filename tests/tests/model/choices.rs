//! What can happen next in a world.

use shared::job::StateName;

use super::book::View;
use super::breaks::Break;
use super::windlass::{Action, Then, Windlass};
use super::world::{COORDINATORS, Said, Slot, WORKERS, Word, Worker, World, bit};

impl Windlass {
    /// Every choice, in a fixed order. After a fault there is none: it was found.
    pub fn choices(&self, world: &World, actions: &mut Vec<Action>) {
        if world.seen.fault.is_some() {
            return;
        }
        for by in 0..COORDINATORS {
            self.coordinator(world, by, actions);
        }
        self.ownership(world, actions);
        for worker in 0..WORKERS {
            self.worker(world, worker, actions);
        }
        bus(world, actions);
        if self.scene.keyed && !world.key {
            actions.push(Action::RegisterKey);
        }
    }

    /// What a coordinator does about the job.
    fn coordinator(&self, world: &World, by: usize, actions: &mut Vec<Action>) {
        let (at, left) = (&world.coordinators[by], &world.left);
        if self.is_listening(world, by) && self.speaks(world, by) {
            for said in world.bus.requests.iter().copied() {
                for then in fates(world) {
                    actions.push(Action::Take { by, said, kept: false, then: *then });
                    if left.mishaps > 0 {
                        actions.push(Action::Take { by, said, kept: true, then: *then });
                    }
                }
                if left.mishaps > 0 && matches!(said, Said::Claim { .. }) {
                    actions.push(Action::TakeLate { by, said });
                }
            }
            let own = self.own_commands(world, by);
            let each = |said| fates(world).iter().map(move |then| Action::Tell { by, said, then: *then });
            actions.extend(own.into_iter().flat_map(each));
        }
        if let Some(write) = at.writes.first() {
            // One that its supervisor waits for hangs until something else happens.
            if !write.awaited || at.epoch != Some(world.store.epoch) {
                actions.push(Action::Land { by });
            }
            if left.unknowns > 0 {
                actions.push(Action::LoseAnswer { by });
            }
            if left.crashes > 0 && write.awaited {
                actions.push(Action::KillSupervisor { by });
            }
        }
        if self.publishes(world, by) && at.published < self.announced(world, by) {
            actions.push(Action::Publish { by });
        }
        let view = self.view(world);
        let missing = view.name == StateName::Queued && world.bus.offers & bit(view.attempt + 1) == 0;
        if missing && self.publishes(world, by) && !self.is_broken(Break::OffersNotRepeated) {
            actions.push(Action::OfferAgain { by });
        }
    }

    /// Whether the coordinator's publisher works.
    pub fn publishes(&self, world: &World, by: usize) -> bool {
        let at = &world.coordinators[by];
        at.epoch.is_some() && !at.entering && self.speaks(world, by)
    }

    /// What a coordinator tells the job of its own accord, or for a client.
    fn own_commands(&self, world: &World, by: usize) -> Vec<Said> {
        let (at, left) = (&world.coordinators[by], &world.left);
        let view = self.book.view(at.held.unwrap_or(world.store.row));
        let mut said = Vec::new();
        if left.cancels > 0 {
            said.push(Said::Cancel { force: world.seen.canceled_at.is_some() });
        }
        match view.name {
            StateName::Scheduled => {
                said.push(Said::Wake);
                if view.given_back && left.timers > 0 {
                    said.push(Said::WakeLate);
                }
            }
            // Its wait limit looks for the key once more, too.
            StateName::Blocked if world.key => {
                said.push(Said::Key);
                if left.timers > 0 && self.is_broken(Break::WaitLimitBlind) {
                    said.push(Said::Wake);
                }
            }
            StateName::Blocked | StateName::Queued if left.timers > 0 => said.push(Said::Wake),
            StateName::Assigned | StateName::Running | StateName::Canceling if left.timers > 0 => {
                // All of its limits are longer than a claim is waited for, too.
                said.extend(self.lease_may_end(world, view).map(|_| Said::Wake));
            }
            StateName::Blocked
            | StateName::Queued
            | StateName::Assigned
            | StateName::Running
            | StateName::Canceling => {}
            StateName::Succeeded | StateName::Failed | StateName::Canceled => {}
        }
        if self.lease_may_end(world, view).is_some_and(|free| free || left.cuts > 0) {
            said.push(Said::Lost { attempt: view.attempt });
        }
        said
    }

    /// Whether the lease of the live attempt may end, and if so whether that happens without its worker being cut off. A
    /// worker waits for the answer to its claim for less than a lease.
    pub fn lease_may_end(&self, world: &World, view: View) -> Option<bool> {
        let hold = view.hold.filter(|_| !self.is_broken(Break::LeaseUnlimited))?;
        let worker = &world.workers[usize::from(hold.worker)];
        let same = worker.instance == hold.instance;
        let waits = same && worker.slot == (Slot::Claiming { attempt: view.attempt });
        (!waits).then_some(!(same && worker.slot.attempt() == Some(view.attempt)))
    }

    /// Who owns the shard.
    fn ownership(&self, world: &World, actions: &mut Vec<Action>) {
        let left = &world.left;
        let owner = world.owner();
        let behind = owner.is_some_and(|by| self.cursor(world, by) > world.store.cursor);
        let flushes: &[bool] = if behind { &[false, true] } else { &[false] };
        let each = |action: fn(usize, bool) -> Action, by| flushes.iter().map(move |flushed| action(by, *flushed));
        for (by, at) in world.coordinators.iter().enumerate() {
            if at.epoch.is_none() {
                let read = at.held.is_some() || !self.is_broken(Break::ReadBeforeFencing);
                if read && (owner.is_none() || left.lapses > 0) {
                    actions.extend(each(|by, flushed| Action::TakeOver { by, flushed }, by));
                }
                if !read {
                    actions.push(Action::Enter { by });
                }
                continue;
            }
            if owner != Some(by) {
                actions.push(Action::Notice { by });
            }
            if at.entering {
                actions.push(Action::Enter { by });
            }
            if at.trouble {
                actions.extend(each(|by, flushed| Action::Recover { by, flushed }, by));
            }
            if left.crashes > 0 {
                actions.extend(each(|by, flushed| Action::CrashCoordinator { by, flushed }, by));
            }
        }
        actions.extend(world.store.strays.iter().map(|write| Action::LandStray { write: *write }));
    }

    fn worker(&self, world: &World, worker: usize, actions: &mut Vec<Action>) {
        let (at, left) = (&world.workers[worker], &world.left);
        if left.mishaps > 0 {
            let again = Self::pending(world, worker).into_iter().filter(|said| !world.bus.requests.contains(said));
            actions.extend(again.map(|said| Action::SayAgain { said }));
        }
        match at.slot {
            // While nothing has happened to either worker they are the same, so the first speaks for both.
            Slot::Free if worker >= self.scene.workers => {}
            Slot::Free if worker > 0 && world.workers.iter().all(|each| *each == Worker::default()) => {}
            Slot::Free if at.declining | at.declining_claim == 0 && world.store.announced[worker] == at.instance => {
                let offered = (0..8).filter(|attempt| world.bus.offers & bit(*attempt) != 0);
                actions.extend(offered.map(|attempt| Action::TakeOffer { worker, attempt }));
            }
            Slot::Claiming { .. } if left.mishaps > 0 => actions.push(Action::GiveUpClaim { worker }),
            Slot::Granted { .. } => actions.push(Action::Start { worker }),
            Slot::Running { .. } => self.ends(world, worker, actions),
            Slot::Free | Slot::Claiming { .. } | Slot::Ended { .. } => {}
        }
        if left.worker_crashes > 0 && *at != Worker::default() {
            actions.push(Action::CrashWorker { worker });
        }
        let stopped = (0..COORDINATORS).filter(|by| self.would_stop(world, worker, *by));
        actions.extend(stopped.map(|by| Action::Beat { worker, by }));
    }

    /// How a running attempt can end.
    fn ends(&self, world: &World, worker: usize, actions: &mut Vec<Action>) {
        let Slot::Running { attempt, told, stop } = world.workers[worker].slot else { return };
        let number = u8::try_from(worker).expect("few workers");
        let telling = world.is_under_way(Said::Word { worker: number, attempt, word: Word::Began });
        let mut end = |word| actions.push(Action::End { worker, word });
        if told {
            end(Word::Succeeded);
            if world.left.failures > 0 {
                end(Word::Failed);
            }
        }
        if stop && !telling {
            end(Word::Stopped);
        }
        if self.scene.keyed && !told && !telling && !world.key && world.left.returns > 0 {
            end(Word::Parked);
            end(Word::GaveBack);
            end(Word::GaveBackLate);
        }
    }

    /// Takes what an action costs off the budget.
    pub fn spend(&self, world: &mut World, action: Action) {
        let view = self.view(world);
        let cut = self.lease_may_end(world, view) == Some(false);
        let owned = world.owner().is_some();
        let left = &mut world.left;
        let spent = match action {
            Action::Take { kept: true, .. } | Action::HearStop { kept: true, .. } => &mut left.mishaps,
            Action::TakeLate { .. } | Action::GiveUpClaim { .. } | Action::SayAgain { .. } => &mut left.mishaps,
            Action::LoseReply { .. } | Action::LoseStop { .. } | Action::LoseOffers => &mut left.mishaps,
            Action::Tell { said: Said::Cancel { .. }, .. } => &mut left.cancels,
            Action::Tell { said: Said::Lost { .. }, .. } if cut => &mut left.cuts,
            Action::Tell { said: Said::Wake, .. } if view.name != StateName::Scheduled => &mut left.timers,
            Action::Tell { said: Said::WakeLate, .. } => &mut left.timers,
            Action::LoseAnswer { .. } => &mut left.unknowns,
            Action::KillSupervisor { .. } | Action::CrashCoordinator { .. } => &mut left.crashes,
            Action::TakeOver { .. } if owned => &mut left.lapses,
            Action::End { word: Word::Failed, .. } => &mut left.failures,
            Action::End { word: Word::Parked | Word::GaveBack | Word::GaveBackLate, .. } => &mut left.returns,
            Action::CrashWorker { .. } => &mut left.worker_crashes,
            _ => return,
        };
        *spent = spent.saturating_sub(1);
    }
}

/// What can become of a transition. That it waits on its way matters only where something can come between.
fn fates(world: &World) -> &'static [Then] {
    if world.threatens_coordinators() { &[Then::Commit, Then::Hang, Then::BeMute] } else { &[Then::Commit] }
}

/// What the bus does. A request that it loses is one that nobody has taken yet: its worker says it again.
fn bus(world: &World, actions: &mut Vec<Action>) {
    let mishap = world.left.mishaps > 0;
    for reply in world.bus.replies.iter().copied() {
        actions.push(Action::Hear { reply });
        if mishap {
            actions.push(Action::LoseReply { reply });
        }
    }
    for stop in world.bus.stops.iter().copied() {
        actions.push(Action::HearStop { stop, kept: false });
        if mishap {
            actions.push(Action::HearStop { stop, kept: true });
            actions.push(Action::LoseStop { stop });
        }
    }
    if mishap && world.bus.offers != 0 {
        actions.push(Action::LoseOffers);
    }
}
