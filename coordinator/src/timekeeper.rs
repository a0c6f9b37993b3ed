//! Wakes jobs at their time. The times are durable in the store; what is near is held in memory, so that it comes
//! precisely, and the store is read every half minute, so that none is missed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, SpawnHandle, WrapFuture};
use futures_util::future::join_all;
use tokio::runtime::Handle;

use shared::id::JobId;
use shared::job::Command;
use shared::time::{Period, Time};

use crate::fault;
use crate::holdings::Holdings;
use crate::registry::Jobs;
use crate::store::Store;

/// How often the store is read for times to come.
const READ_EVERY: Duration = Duration::from_secs(30);
/// How far ahead times are held in memory: beyond the next reading, so that none falls between two.
const AHEAD: Period = Period::from_secs(60);
/// The most times that one reading brings; more are read when none of these is left.
const READ_MAX: u32 = 10_000;
/// The most jobs that are woken at once: a small part of the commands that may be under way, so that workers and clients
/// are heard while a great many times come together.
const WAKES_MAX: usize = 1024;
/// The most times held in memory: the store keeps the rest.
const HELD_MAX: usize = 100_000;
/// The most messages that wait here.
const MAILBOX_MAX: usize = 16 * 1024;

/// What the timekeeper works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub runtime: Handle,
    pub holdings: Arc<Holdings>,
}

/// The actor.
pub struct Timekeeper {
    parts: Parts,
    /// The way to the jobs, once there is one.
    jobs: Option<Jobs>,
    times: BinaryHeap<Reverse<(Time, JobId)>>,
    next: Option<(Time, SpawnHandle)>,
    /// Whether jobs are being woken.
    ringing: bool,
    /// Whether the last reading was full, so that the store may have more.
    more: bool,
}

impl Timekeeper {
    /// A timekeeper that wakes nobody before it is told how ([`Begin`]).
    pub fn new(parts: Parts) -> Self {
        Self { parts, jobs: None, times: BinaryHeap::new(), next: None, ringing: false, more: false }
    }

    fn read(&mut self, ctx: &mut Context<Self>) {
        let store = Arc::clone(&self.parts.store);
        let shards = self.parts.holdings.shards();
        let until = self.parts.holdings.now().plus(AHEAD);
        let due = self.parts.runtime.spawn(async move { store.due(&shards, until, READ_MAX).await });
        ctx.spawn(due.into_actor(self).map(|due, actor, ctx| match due {
            Ok(Ok(due)) => {
                actor.more = due.len() == READ_MAX as usize;
                actor.times.extend(due.into_iter().map(|(job, at)| Reverse((at, job))));
                actor.set_alarm(ctx);
            }
            Ok(Err(error)) => tracing::warn!(%error, "reading the times to come"),
            Err(error) => tracing::error!(%error, "reading the times to come"),
        }));
    }

    /// Sets the alarm to the soonest time, unless it is set to that or a sooner one, or rings.
    fn set_alarm(&mut self, ctx: &mut Context<Self>) {
        let Some(Reverse((soonest, _))) = self.times.peek().filter(|_| !self.ringing) else { return };
        if let Some((set, alarm)) = self.next {
            if set <= *soonest {
                return;
            }
            ctx.cancel_future(alarm);
        }
        let wait = soonest.since(self.parts.holdings.now());
        self.next = Some((*soonest, ctx.run_later(wait, Self::ring)));
    }

    /// Wakes the jobs whose time has come, so many at once, and goes on when they have answered.
    fn ring(&mut self, ctx: &mut Context<Self>) {
        self.next = None;
        let Some(jobs) = &self.jobs else { return };
        let now = self.parts.holdings.now();
        let mut due = BTreeSet::new();
        while let Some(Reverse((at, job))) = self.times.peek().copied()
            && at <= now
            && due.len() < WAKES_MAX
        {
            self.times.pop();
            due.insert(job);
        }
        // A job looks at the time itself; a wake that fails comes again with the next reading.
        let woken = join_all(due.into_iter().map(|job| jobs.tell(job, Command::Wake)));
        self.ringing = true;
        ctx.spawn(woken.into_actor(self).map(|_, actor, ctx| {
            actor.ringing = false;
            if actor.times.is_empty() && std::mem::take(&mut actor.more) {
                actor.read(ctx);
            }
            actor.set_alarm(ctx);
        }));
    }
}

impl Actor for Timekeeper {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
    }
}

/// Begin to wake jobs.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Begin(pub Jobs);

impl Handler<Begin> for Timekeeper {
    type Result = ();

    fn handle(&mut self, Begin(jobs): Begin, ctx: &mut Context<Self>) {
        self.jobs = Some(jobs);
        self.read(ctx);
        ctx.run_interval(READ_EVERY, Self::read);
    }
}

/// Timers were set of which nothing was told, or shards were gained: read the store, without waiting for the next reading.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct ReadAgain;

impl Handler<ReadAgain> for Timekeeper {
    type Result = ();

    fn handle(&mut self, _: ReadAgain, ctx: &mut Context<Self>) {
        self.read(ctx);
    }
}

/// These jobs must be woken at those times.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct SetTimers(pub Vec<(JobId, Time)>);

impl Handler<SetTimers> for Timekeeper {
    type Result = ();

    fn handle(&mut self, SetTimers(timers): SetTimers, ctx: &mut Context<Self>) {
        fault::point("timekeeper.hear");
        let horizon = self.parts.holdings.now().plus(AHEAD);
        for (job, at) in timers {
            if at <= horizon && self.times.len() < HELD_MAX {
                self.times.push(Reverse((at, job)));
            }
        }
        self.set_alarm(ctx);
    }
}
