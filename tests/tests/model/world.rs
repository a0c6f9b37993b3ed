//! What there is in the model: the store, two coordinators, two workers, the bus between them, and what may still go wrong.
//! A world is small and plain, so that millions of them can be told apart.

use super::book::{Fact, Row};

/// How many coordinators and how many workers there are.
pub const COORDINATORS: usize = 2;
pub const WORKERS: usize = 2;

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    pub store: Store,
    pub coordinators: [Coordinator; COORDINATORS],
    pub workers: [Worker; WORKERS],
    pub bus: Bus,
    /// Whether the deploy key is registered.
    pub key: bool,
    /// What may still happen from outside.
    pub left: Budget,
    pub seen: Seen,
}

impl World {
    /// The place of the coordinator that owns the shard, where it lives.
    pub fn owner(&self) -> Option<usize> {
        self.coordinators.iter().position(|at| at.epoch == Some(self.store.epoch))
    }

    /// Whether something may still befall a coordinator.
    pub fn threatens_coordinators(&self) -> bool {
        self.left.crashes + self.left.lapses + self.left.unknowns > 0
    }

    /// Whether a request was said and is still to be taken, worked on, or answered.
    pub fn is_under_way(&self, said: Said) -> bool {
        let written = |at: &Coordinator| at.writes.iter().any(|write| write.said == said && write.awaited);
        self.bus.requests.contains(&said)
            || self.bus.replies.iter().any(|reply| reply.to == said)
            || self.coordinators.iter().any(written)
    }
}

/// What is committed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    pub row: Row,
    /// How far the events are published, as the store knows.
    pub cursor: u8,
    /// The events after the cursor.
    pub log: Vec<Fact>,
    /// The shard's: whoever writes under another is fenced.
    pub epoch: u8,
    /// The instance that each worker has announced.
    pub announced: [u8; WORKERS],
    /// Statements whose sender is dead or has given them up, and that may still take effect.
    pub strays: Vec<Write>,
}

impl Store {
    /// The number of the last event.
    pub fn last(&self) -> u8 {
        self.cursor + u8::try_from(self.log.len()).expect("a short log")
    }

    /// The event of that number, where it is above the cursor.
    pub fn event(&self, number: u8) -> Option<Fact> {
        let place = number.checked_sub(self.cursor + 1)?;
        self.log.get(usize::from(place)).copied()
    }
}

/// One transition on its way into the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Write {
    /// Under which its sender owns the shard.
    pub epoch: u8,
    /// The form that the command was applied to; its version is what the row has to have.
    pub from: Row,
    pub said: Said,
    pub fate: Fate,
    /// Whether the supervisor that handed it over still waits for it.
    pub awaited: bool,
    /// Whether it was applied after a conflict already.
    pub again: bool,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It waits for the writes before it.
    Waiting,
    /// The statement is on its way, following on the event of that number.
    Sent {
        after: u8,
    },
    Landed {
        after: u8,
    },
    Conflict,
    Fenced,
}

/// One coordinator: a process with its supervisor of the job, its committer and its publisher. One that crashed is one
/// that knows nothing and does nothing, so there is no word for being down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::struct_excessive_bools, reason = "each stands for something that comes and goes by itself")]
pub struct Coordinator {
    /// At which it owns the shard, as far as it knows.
    pub epoch: Option<u8>,
    /// It owns the shard and has yet to read what is in it.
    pub entering: bool,
    /// The supervisor's job.
    pub held: Option<Row>,
    /// The committer's writes, in order; only the first is on its way.
    pub writes: Vec<Write>,
    /// Whether the fate of a write is unknown, so that nothing more is committed.
    pub trouble: bool,
    /// The number of the last event that is known to be committed.
    pub last: u8,
    /// How far the publisher is.
    pub published: u8,
    /// The first statement isn't executed soon: something will come between.
    pub hangs: bool,
    /// The publisher doesn't publish soon: something will come between.
    pub mute: bool,
}

impl Coordinator {
    /// Whether its supervisor takes the next message; one that has yet to read the job once it `may_read`.
    pub fn is_listening(&self, may_read: bool) -> bool {
        let awaits = self.writes.iter().any(|write| write.awaited);
        let knows = self.held.is_some() || may_read;
        self.epoch.is_some() && !self.entering && !self.trouble && !awaits && knows
    }
}

/// One worker with one slot. It crashes and starts again in one step; in between it would say and hear nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Worker {
    pub instance: u8,
    /// The highest that it has heard since its start, or that the spool had.
    pub epoch: u8,
    /// The one that is in the spool with its attempt.
    pub spooled: u8,
    pub slot: Slot,
    /// Attempts that it declines, until that is answered; a bit each.
    pub declining: u8,
    /// Attempts whose grant to its last claim it declines, until that is answered; a bit each.
    pub declining_claim: u8,
    /// Attempts that must never start; a bit each.
    pub marks: u8,
    /// How many claims it gave up: the number of the next.
    pub given_up: u8,
}

impl Worker {
    /// Its spool is written: what it holds, it holds with the highest epoch.
    pub fn spool(&mut self) {
        self.spooled = self.slot.attempt().map_or(0, |_| self.epoch);
    }
}

/// What a worker's slot is taken by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Slot {
    #[default]
    Free,
    Claiming {
        attempt: u8,
    },
    /// The grant is in the spool, nothing has started.
    Granted {
        attempt: u8,
    },
    Running {
        attempt: u8,
        /// Whether the start of the step was told and answered.
        told: bool,
        stop: bool,
    },
    /// It is over, and that is in the spool until it is answered. `before`: an earlier start has left it.
    Ended {
        attempt: u8,
        word: Word,
        before: bool,
    },
}

impl Slot {
    /// The attempt that a grant was heard of and whose end isn't told.
    pub fn attempt(self) -> Option<u8> {
        match self {
            Self::Granted { attempt } | Self::Running { attempt, .. } | Self::Ended { attempt, .. } => Some(attempt),
            Self::Free | Self::Claiming { .. } => None,
        }
    }
}

/// What is on its way, each thing once: a bus that loses, repeats and reorders.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Bus {
    /// What workers have said to the shard's owner.
    pub requests: Vec<Said>,
    pub replies: Vec<Reply>,
    pub stops: Vec<Stop>,
    /// Offers that nobody has acknowledged, by attempt; a bit each.
    pub offers: u8,
}

/// The answer to a request, to whoever said it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reply {
    pub to: Said,
    pub epoch: u8,
    pub answer: Answer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Answer {
    Granted,
    Taken,
    /// For good.
    Refused,
    /// The claim was late; nothing was applied.
    Late,
}

/// An order to a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stop {
    pub worker: u8,
    pub instance: u8,
    pub attempt: u8,
    pub epoch: u8,
}

/// A command to the job, in short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Said {
    /// Its timer has come.
    Wake,
    /// Its timer has come, long ago.
    WakeLate,
    Claim {
        worker: u8,
        instance: u8,
        claim: u8,
        attempt: u8,
        late: bool,
    },
    Word {
        worker: u8,
        attempt: u8,
        word: Word,
    },
    Cancel {
        force: bool,
    },
    Lost {
        attempt: u8,
    },
    /// The deploy key is there.
    Key,
}

impl Said {
    /// The worker that says it.
    pub fn worker(self) -> Option<u8> {
        match self {
            Self::Claim { worker, .. } | Self::Word { worker, .. } => Some(worker),
            Self::Wake | Self::WakeLate | Self::Cancel { .. } | Self::Lost { .. } | Self::Key => None,
        }
    }
}

/// What a worker says of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Word {
    /// It doesn't want the grant of that claim, or of any.
    Declined {
        claim: Option<u8>,
    },
    /// Report 1: the step was started.
    Began,
    Parked,
    GaveBack,
    /// The same, when it has been given back for too long.
    GaveBackLate,
    Succeeded,
    Failed,
    Stopped,
}

/// How often each thing may still happen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Messages lost, repeated, or waited for in vain.
    pub mishaps: u8,
    /// Coordinators that die, and supervisors alone.
    pub crashes: u8,
    /// Coordinators that stand still for longer than their lease, and go on.
    pub lapses: u8,
    /// Commits whose answer is lost.
    pub unknowns: u8,
    /// Workers that die and start again.
    pub worker_crashes: u8,
    /// Attempts whose worker is cut off for longer than its lease.
    pub cuts: u8,
    pub cancels: u8,
    /// Timers of the job that come while it could have gone on.
    pub timers: u8,
    /// Attempts that end without success.
    pub failures: u8,
    /// Parkings and attempts given back.
    pub returns: u8,
}

impl Budget {
    /// One that has `more` of whatever it has any of.
    pub fn deeper(self, more: u8) -> Self {
        let add = |times: u8| if times == 0 { 0 } else { times + more };
        Self {
            mishaps: add(self.mishaps),
            crashes: add(self.crashes),
            lapses: add(self.lapses),
            unknowns: add(self.unknowns),
            worker_crashes: add(self.worker_crashes),
            cuts: add(self.cuts),
            cancels: add(self.cancels),
            timers: add(self.timers),
            failures: add(self.failures),
            returns: add(self.returns),
        }
    }
}

/// What the properties remember. Nothing in the model acts on it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Seen {
    /// The last event that subscribers have.
    pub published: u8,
    /// The attempt at which a cancel was first committed.
    pub canceled_at: Option<u8>,
    /// Attempts that the coordinators ended while their worker lived, and that may run on, fenced; a bit each.
    pub given_up: u8,
    /// The first fault that was seen.
    pub fault: Option<Fault>,
}

impl Seen {
    /// Notes a fault; the first counts.
    pub fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert(fault);
    }
}

/// What must never happen, as it happens. Each belongs to one property.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Fault {
    TerminalChanged,
    StartedAfterCancel,
    StartedAfterConfirmation,
    OutOfOrder,
    PublishedUncommitted,
    NumbersCollide,
    OutcomeDropped,
    GrantDenied,
    UntrueAnswer,
    StoppedForNothing,
    KeyIgnored,
}

/// The bit of an attempt.
pub fn bit(attempt: u8) -> u8 {
    1_u8.checked_shl(attempt.into()).expect("at most seven attempts")
}

/// Puts `item` into the ordered set, once.
pub fn put<T: Ord>(set: &mut Vec<T>, item: T) {
    if let Err(place) = set.binary_search(&item) {
        set.insert(place, item);
    }
}

/// Takes `item` out of the ordered set.
pub fn take_out<T: Ord>(set: &mut Vec<T>, item: &T) {
    if let Ok(place) = set.binary_search(item) {
        set.remove(place);
    }
}
