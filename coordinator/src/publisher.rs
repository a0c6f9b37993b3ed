//! Publishes what is committed, in order per job, and remembers how far it is. It takes events from memory while their
//! numbers follow on, and from the store at any gap; the cursor moves only over what is out without a gap. After a crash
//! it goes on from the cursor: a repeat is harmless, since each event has its number.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, ActorFutureExt, AsyncContext, Context, Handler, Message, WrapFuture};
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use shared::bus::{Address, Bus, Error as BusError};
use shared::id::{Epoch, JobId, Shard, ShardSeq};
use shared::job::{Event, Message as Outgoing, StopOrder};
use shared::wire::{self, Control, Word};

use crate::fault;
use crate::holdings::Holdings;
use crate::store::{Error as StoreError, OwnedShard, Store};

/// The most events of a shard that are published together, and that one reading brings.
const WINDOW_EVENTS_MAX: u32 = 256;
/// The most events of a shard that wait in memory; the store keeps the rest.
const HELD_EVENTS_MAX: usize = 4096;
/// The most messages that wait here.
const MAILBOX_MAX: usize = 16 * 1024;
/// How often the cursors are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// Between two tries to publish, doubled each time up to the second figure.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often an offer is tried before it is left to the slow round.
const OFFER_TRIES_MAX: u32 = 5;
/// From a window that was lost to reading it from the store.
const READ_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long a worker may take to say that it has heard an order; heartbeats repeat it.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// The most orders to workers that are under way.
const STOPS_MAX: usize = 1024;

/// What the publisher works with.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub runtime: Handle,
    pub holdings: Arc<Holdings>,
}

/// The actor.
pub struct Publisher {
    parts: Parts,
    stops: Arc<Semaphore>,
    shards: HashMap<Shard, ShardLog>,
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
        let stops = Arc::new(Semaphore::new(STOPS_MAX));
        Self { parts, stops, shards: HashMap::new(), gains: 0, writing: false }
    }

    fn pump(&mut self, shard: Shard, ctx: &mut Context<Self>) {
        let Some(log) = self.shards.get_mut(&shard).filter(|log| !log.busy) else { return };
        if log.published >= log.committed {
            return;
        }
        log.busy = true;
        let window: Vec<_> = log.waiting.drain(..log.waiting.len().min(WINDOW_EVENTS_MAX as usize)).collect();
        let (after, epoch, gain) = (log.published, log.epoch, log.gain);
        let voice = Voice { parts: self.parts.clone(), stops: Arc::clone(&self.stops), shard, epoch };
        let published = self.parts.runtime.spawn(async move {
            let window = if window.is_empty() { read(&voice.parts, shard, after).await? } else { window };
            voice.publish(&window).await?;
            let last = window.last().map(|(number, _)| *number);
            last.ok_or_else(|| StoreError::Corrupt(format!("shard {shard} has no event after {after}")))
        });
        ctx.spawn(published.into_actor(self).map(move |result, actor, ctx| {
            // A shard that was gained again meanwhile has begun anew.
            let Some(log) = actor.shards.get_mut(&shard).filter(|log| log.gain == gain) else { return };
            log.busy = false;
            match result {
                Ok(Ok(last)) => {
                    log.published = log.published.max(last);
                    log.taken = log.taken.max(last);
                    actor.pump(shard, ctx);
                }
                Ok(Err(error)) => actor.again(shard, &error.to_string(), ctx),
                Err(panic) => actor.again(shard, &panic.to_string(), ctx),
            }
        }));
    }

    /// A window was lost on its way: it is read from the store, a little later.
    fn again(&mut self, shard: Shard, error: &str, ctx: &mut Context<Self>) {
        tracing::warn!(%shard, error, "publishing a shard's events");
        if let Some(log) = self.shards.get_mut(&shard) {
            log.waiting.clear();
            log.taken = log.published;
        }
        ctx.run_later(READ_AGAIN_AFTER, move |actor, ctx| actor.pump(shard, ctx));
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

async fn read(parts: &Parts, shard: Shard, after: ShardSeq) -> Result<Vec<(ShardSeq, Event)>, StoreError> {
    parts.store.shard_events(shard, after, WINDOW_EVENTS_MAX).await
}

/// Speaks for one shard under one epoch, for as long as it is owned so.
#[derive(Clone)]
struct Voice {
    parts: Parts,
    stops: Arc<Semaphore>,
    shard: Shard,
    epoch: Epoch,
}

impl Voice {
    /// Publishes a window: a job's events one after the other, any number of jobs at once. Returns when all is out, or
    /// the shard isn't ours any more.
    async fn publish(&self, window: &[(ShardSeq, Event)]) -> Result<(), StoreError> {
        fault::point("publisher.publish");
        let mut by_job: BTreeMap<JobId, Vec<&Event>> = BTreeMap::new();
        for (_, event) in window {
            by_job.entry(event.job).or_default().push(event);
        }
        let jobs = by_job.into_values().map(|events| async move {
            for message in events.into_iter().flat_map(Event::outgoing) {
                self.send(message).await?;
            }
            Ok(())
        });
        join_all(jobs).await.into_iter().collect()
    }

    /// Sends a message until the bus has it; one that the bus will never take is logged and passed over. While the lease
    /// has lapsed nothing is said.
    async fn send(&self, message: Outgoing) -> Result<(), StoreError> {
        let (mut wait, mut tries) = (RETRY_FIRST, 0);
        loop {
            if !self.parts.holdings.owns(self.shard, self.epoch) {
                return Err(StoreError::Fenced);
            }
            if self.parts.holdings.is_alive() {
                match self.send_once(&message).await {
                    Ok(()) => return Ok(()),
                    Err(error @ (BusError::TooLarge(_) | BusError::Closed)) => {
                        tracing::error!(%error, ?message, "a message can't be sent");
                        return Ok(());
                    }
                    // The event before it went out, so it is this lane that is in trouble: it mustn't hold up all others.
                    Err(error) if matches!(message, Outgoing::Offer(_)) && tries == OFFER_TRIES_MAX => {
                        tracing::warn!(%error, ?message, "an offer can't be made now; the slow round makes it again");
                        return Ok(());
                    }
                    Err(error) => tracing::warn!(%error, "publishing"),
                }
                tries += 1;
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    async fn send_once(&self, message: &Outgoing) -> Result<(), BusError> {
        let bus = &self.parts.bus;
        match message {
            Outgoing::Event(event) => bus.publish(event).await,
            Outgoing::Offer(offer) => bus.offer(offer).await.map(|_| ()),
            Outgoing::Withdraw(offer) => {
                // Best effort: a claim of what is left is refused.
                if let Err(error) = bus.withdraw(offer).await {
                    tracing::info!(job = %offer.job, %error, "an offer could not be taken back");
                }
                Ok(())
            }
            Outgoing::Stop(order) => {
                self.stop(order.clone());
                Ok(())
            }
        }
    }

    /// Gives a worker its order without waiting for it: a worker that doesn't hear must not hold up what others wait for.
    fn stop(&self, order: StopOrder) {
        let Ok(permit) = Arc::clone(&self.stops).try_acquire_owned() else {
            tracing::warn!(job = %order.job, "too many orders are under way; a heartbeat's reply will carry this one");
            return;
        };
        let bus = Arc::clone(&self.parts.bus);
        let (shard, epoch) = (self.shard, self.epoch);
        self.parts.runtime.spawn(async move {
            let (job, worker) = (order.job, order.worker);
            let body = wire::encode(&Control::Stop(Word { shard, epoch, owner: None, said: order }));
            if let Err(error) = bus.request(&Address::Control(worker), body, STOP_WITHIN).await {
                tracing::info!(%job, %worker, %error, "a worker did not hear its order; a heartbeat's reply repeats it");
            }
            drop(permit);
        });
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
            self.pump(shard, ctx);
        }
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

/// Events that were just committed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Publish {
    pub shard: Shard,
    pub events: Vec<(ShardSeq, Event)>,
}

impl Handler<Publish> for Publisher {
    type Result = ();

    fn handle(&mut self, publish: Publish, ctx: &mut Context<Self>) {
        fault::point("publisher.hear");
        // Where the shard was lost meanwhile, its next owner publishes them.
        if let Some(log) = self.shards.get_mut(&publish.shard) {
            log.take_up(publish.events);
        }
        self.pump(publish.shard, ctx);
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
        self.pump(missed.shard, ctx);
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
