//! Publishes what is committed, in order per job, and remembers how far it is. It takes events from memory while their
//! numbers follow on, and from the store at any gap; the cursor moves only over what is out without a gap. After a crash
//! it goes on from the cursor: a repeat is harmless, since each event has its number.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use tokio::runtime::Handle;

use shared::bus::Bus;
use shared::id::{Epoch, Shard, ShardSeq};
use shared::job::{Event, Message as Outgoing};

use crate::fault;
use crate::holdings::Holdings;
use crate::store::{Error as StoreError, OwnedShard, Store};
use voice::{Part, Room, Voice};

mod told;
mod voice;

pub use told::Told;

/// The most events of a shard that are published together, and that one reading brings.
const WINDOW_EVENTS_MAX: u32 = 256;
/// The most events of a shard that wait in memory; the store keeps the rest.
const HELD_EVENTS_MAX: usize = 4096;
/// About how many events of all shards are published in one run, and how many runs are under way at a time.
const RUN_EVENTS_MAX: usize = 1024;
const RUNS_MAX: usize = 4;
/// The most messages that wait here.
const MAILBOX_MAX: usize = 16 * 1024;
/// How often the cursors are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// From a window that was lost to reading it from the store.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What the publisher works with.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub runtime: Handle,
    pub holdings: Arc<Holdings>,
    /// The orders that workers have heard.
    pub told: Arc<Told>,
}

/// The actor.
pub struct Publisher {
    parts: Parts,
    room: Room,
    shards: HashMap<Shard, ShardLog>,
    /// Those that may have something to be published, each once, whoever has waited longest first.
    ready: VecDeque<Shard>,
    /// How many runs are under way.
    runs: usize,
    /// How often shards were gained.
    gains: u64,
    /// Whether cursors are being written.
    writing: bool,
}

/// One shard's way from commit to publication.
#[derive(Debug, Default)]
struct ShardLog {
    /// At which the shard is owned.
    epoch: Epoch,
    /// Which of the times that the shard was gained this is.
    gain: u64,
    published: ShardSeq,
    /// What of it the store knows.
    written: ShardSeq,
    /// Follows `published` without a gap, but for a window that is being published.
    waiting: VecDeque<(ShardSeq, Event)>,
    /// The number of the last event that was taken up.
    taken: ShardSeq,
    /// The number of the last event that is known to be committed; what lies after `taken` is in the store alone.
    committed: ShardSeq,
    busy: bool,
    /// Whether it is among those that may have something to be published.
    is_ready: bool,
}

impl ShardLog {
    fn new(owned: &OwnedShard, gain: u64) -> Self {
        let OwnedShard { published, last, epoch, .. } = *owned;
        Self { epoch, gain, published, written: published, taken: published, committed: last, ..Self::default() }
    }

    /// Takes up what follows on; anything else is left to the store.
    fn take_up(&mut self, events: Vec<(ShardSeq, Event)>) {
        for (number, event) in events {
            self.committed = self.committed.max(number);
            if number == self.taken.next() && self.waiting.len() < HELD_EVENTS_MAX {
                self.taken = number;
                self.waiting.push_back((number, event));
            }
        }
    }

    /// Whether everything is out, and the store knows it.
    fn is_done(&self) -> bool {
        self.written == self.committed
    }
}

impl Publisher {
    /// A publisher without shards.
    pub fn new(parts: Parts) -> Self {
        let (shards, ready) = (HashMap::new(), VecDeque::new());
        Self { parts, room: Room::default(), shards, ready, runs: 0, gains: 0, writing: false }
    }

    /// Publishes what waits of this shard, as soon as it may: see [`Publisher::pump`].
    fn wake(&mut self, shard: Shard, ctx: &mut Context<Self>) {
        self.line_up(shard);
        self.pump(ctx);
    }

    fn line_up(&mut self, shard: Shard) {
        if let Some(log) = self.shards.get_mut(&shard).filter(|log| !log.is_ready) {
            log.is_ready = true;
            self.ready.push_back(shard);
        }
    }

    /// Publishes what waits, a window of each shard in common runs. A few runs are under way at a time, so that what comes
    /// next neither waits for all before it nor goes alone; a shard is in one of them at a time.
    fn pump(&mut self, ctx: &mut Context<Self>) {
        while self.runs < RUNS_MAX && !self.ready.is_empty() {
            let (mut run, mut events) = (Vec::new(), 0);
            while events < RUN_EVENTS_MAX
                && let Some(shard) = self.ready.pop_front()
            {
                let Some(log) = self.shards.get_mut(&shard) else { continue };
                log.is_ready = false;
                if log.busy || log.published >= log.committed {
                    continue;
                }
                log.busy = true;
                let window: Vec<_> = log.waiting.drain(..log.waiting.len().min(WINDOW_EVENTS_MAX as usize)).collect();
                let (after, epoch, gain) = (log.published, log.epoch, log.gain);
                let voice = Voice { parts: self.parts.clone(), room: self.room.clone(), shard, epoch };
                if window.is_empty() {
                    self.read_on(voice, after, gain, ctx);
                } else {
                    events += window.len();
                    run.push(Part { voice, gain, window });
                }
            }
            if !run.is_empty() {
                self.run(run, ctx);
            }
        }
    }

    /// Publishes windows together. What of a shard doesn't go out at once is tried again apart from the others.
    fn run(&mut self, run: Vec<Part>, ctx: &mut Context<Self>) {
        self.runs += 1;
        let shards: Vec<_> = run.iter().map(|part| (part.voice.shard, part.gain)).collect();
        let published = self.parts.runtime.spawn(voice::publish(run));
        ctx.spawn(published.into_actor(self).map(move |outcomes, actor, ctx| {
            actor.runs -= 1;
            match outcomes {
                Ok(outcomes) => {
                    for mut outcome in outcomes {
                        let (left, gain) = (outcome.take_left(), outcome.gain);
                        match outcome.last {
                            Ok(last) if left.is_empty() => actor.done(outcome.voice.shard, gain, last),
                            Ok(last) => actor.finish(outcome.voice, gain, last, left, ctx),
                            Err(error) => actor.again(outcome.voice.shard, gain, &error.to_string(), ctx),
                        }
                    }
                }
                Err(panic) => {
                    for (shard, gain) in shards {
                        actor.again(shard, gain, &panic.to_string(), ctx);
                    }
                }
            }
            actor.pump(ctx);
        }));
    }

    /// Publishes a window of a shard that memory doesn't hold.
    fn read_on(&mut self, voice: Voice, after: ShardSeq, gain: u64, ctx: &mut Context<Self>) {
        let shard = voice.shard;
        let published = self.parts.runtime.spawn(async move {
            let window = voice.read(after).await?;
            voice.publish(&window).await?;
            let last = window.last().map(|(number, _)| *number);
            last.ok_or_else(|| StoreError::Corrupt(format!("shard {shard} has no event after {after}")))
        });
        ctx.spawn(published.into_actor(self).map(move |result, actor, ctx| {
            match result {
                Ok(Ok(last)) => actor.done(shard, gain, last),
                Ok(Err(error)) => actor.again(shard, gain, &error.to_string(), ctx),
                Err(panic) => actor.again(shard, gain, &panic.to_string(), ctx),
            }
            actor.pump(ctx);
        }));
    }

    /// Goes on with what of a window didn't go out with the others: a job's messages each in their order.
    fn finish(
        &mut self,
        voice: Voice,
        gain: u64,
        last: ShardSeq,
        left: Vec<VecDeque<Outgoing>>,
        ctx: &mut Context<Self>,
    ) {
        let shard = voice.shard;
        let published = self.parts.runtime.spawn(async move { voice.send_each(left).await });
        ctx.spawn(published.into_actor(self).map(move |result, actor, ctx| {
            match result {
                Ok(Ok(())) => actor.done(shard, gain, last),
                Ok(Err(error)) => actor.again(shard, gain, &error.to_string(), ctx),
                Err(panic) => actor.again(shard, gain, &panic.to_string(), ctx),
            }
            actor.pump(ctx);
        }));
    }

    /// The shard's log, unless it was gained again since: then it has begun anew.
    fn log_of(&mut self, shard: Shard, gain: u64) -> Option<&mut ShardLog> {
        self.shards.get_mut(&shard).filter(|log| log.gain == gain)
    }

    /// A window is out, up to that event.
    fn done(&mut self, shard: Shard, gain: u64, last: ShardSeq) {
        let Some(log) = self.log_of(shard, gain) else { return };
        log.busy = false;
        log.published = log.published.max(last);
        log.taken = log.taken.max(last);
        self.line_up(shard);
    }

    /// A window was lost on its way: it is read from the store, a little later.
    fn again(&mut self, shard: Shard, gain: u64, error: &str, ctx: &mut Context<Self>) {
        let Some(log) = self.log_of(shard, gain) else { return };
        tracing::warn!(%shard, error, "publishing a shard's events");
        log.busy = false;
        log.waiting.clear();
        log.taken = log.published;
        ctx.run_later(READ_AGAIN_AFTER, move |actor, ctx| actor.wake(shard, ctx));
    }

    fn write_cursors(&mut self, ctx: &mut Context<Self>) {
        let moved =
            |(shard, log): (&Shard, &ShardLog)| (log.written < log.published).then_some((*shard, log.published));
        let cursors: Vec<_> = self.shards.iter().filter_map(moved).collect();
        if self.writing || cursors.is_empty() {
            return;
        }
        let (store, owner) = (Arc::clone(&self.parts.store), self.parts.holdings.id());
        let written = self.parts.runtime.spawn(async move { (store.move_cursors(owner, &cursors).await, cursors) });
        self.writing = true;
        ctx.spawn(written.into_actor(self).map(|written, actor, _| {
            actor.writing = false;
            match written {
                Ok((Ok(()), cursors)) => {
                    for (shard, number) in cursors {
                        if let Some(log) = actor.shards.get_mut(&shard) {
                            log.written = log.written.max(number);
                        }
                    }
                }
                Ok((Err(error), _)) => tracing::warn!(%error, "writing how far shards are published"),
                Err(error) => tracing::error!(%error, "writing how far shards are published"),
            }
        }));
    }
}

impl Actor for Publisher {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.set_mailbox_capacity(MAILBOX_MAX);
        ctx.run_interval(WRITE_EVERY, Self::write_cursors);
    }
}

/// These shards are ours, at these epochs; one that was ours before begins anew. Events are taken up from now on, and
/// nothing is said before [`Begin`].
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Gain(pub Vec<OwnedShard>);

impl Handler<Gain> for Publisher {
    type Result = ();

    fn handle(&mut self, Gain(owned): Gain, _: &mut Context<Self>) {
        self.gains += 1;
        self.shards.extend(owned.iter().map(|owned| (owned.shard, ShardLog::new(owned, self.gains))));
    }
}

/// Begin to publish what isn't published of these shards.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Begin(pub Vec<Shard>);

impl Handler<Begin> for Publisher {
    type Result = ();

    fn handle(&mut self, Begin(shards): Begin, ctx: &mut Context<Self>) {
        for shard in shards {
            self.line_up(shard);
        }
        self.pump(ctx);
    }
}

/// These shards are not ours any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Lose(pub Vec<Shard>);

impl Handler<Lose> for Publisher {
    type Result = ();

    fn handle(&mut self, Lose(shards): Lose, _: &mut Context<Self>) {
        for shard in shards {
            self.shards.remove(&shard);
        }
    }
}

/// Events that were committed together, of each shard in their order.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Publish(pub Vec<(Shard, Vec<(ShardSeq, Event)>)>);

impl Handler<Publish> for Publisher {
    type Result = ();

    fn handle(&mut self, Publish(committed): Publish, ctx: &mut Context<Self>) {
        fault::point("publisher.hear");
        for (shard, events) in committed {
            // Where the shard was lost meanwhile, its next owner publishes them.
            if let Some(log) = self.shards.get_mut(&shard) {
                log.take_up(events);
                self.line_up(shard);
            }
        }
        self.pump(ctx);
    }
}

/// Events of a shard were committed up to that number, and their own message was lost.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Missed {
    pub shard: Shard,
    pub committed: ShardSeq,
}

impl Handler<Missed> for Publisher {
    type Result = ();

    fn handle(&mut self, missed: Missed, ctx: &mut Context<Self>) {
        if let Some(log) = self.shards.get_mut(&missed.shard) {
            log.committed = log.committed.max(missed.committed);
        }
        self.wake(missed.shard, ctx);
    }
}

/// Write the cursors once more and tell how many of these shards aren't published to their end.
#[derive(Debug, Message)]
#[rtype(result = "usize")]
pub struct Drain(pub Arc<[Shard]>);

impl Handler<Drain> for Publisher {
    type Result = usize;

    fn handle(&mut self, Drain(shards): Drain, ctx: &mut Context<Self>) -> usize {
        self.write_cursors(ctx);
        shards.iter().filter_map(|shard| self.shards.get(shard)).filter(|log| !log.is_done()).count()
    }
}
