//! Says what follows from committed events, for shards that are owned at the epoch at which it is said.
//!
//! Windows of several shards go out together, in waves: the first event of each job, then the second of each, and so on. A
//! job's offers go beside its events: what a worker does with one is told in later events, which wait for the earlier ones.
//! What a wave doesn't bring out is left, with all that follows it of its job, to be tried again apart from the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Semaphore;

use shared::bus::{Address, Error as BusError, ToSend};
use shared::id::{Epoch, JobId, Shard, ShardSeq};
use shared::job::{Event, Message as Outgoing, Offer, StopOrder};
use shared::wire::{self, Control, Word};

use super::{Parts, WINDOW_EVENTS_MAX};
use crate::fault;
use crate::store::Error as StoreError;

/// Between two tries to publish, doubled each time up to the second figure.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often an offer is tried before it is left to the slow round.
const OFFER_TRIES_MAX: u32 = 5;
/// How long a worker may take to say that it has heard an order; heartbeats repeat it.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// The most orders to workers that are under way.
const STOPS_MAX: usize = 1024;
/// The most offers that wait to be taken back, and how many are taken back at a time: few, since who cancels jobs waits for none
/// of it.
const WITHDRAWALS_MAX: usize = 4096;
const WITHDRAWING_MAX: usize = 4;

/// A window of one shard.
pub struct Part {
    pub voice: Voice,
    /// Which of the times that the shard was gained this is.
    pub gain: u64,
    pub window: Vec<(ShardSeq, Event)>,
}

/// What became of a [`Part`].
pub struct Outcome {
    pub voice: Voice,
    pub gain: u64,
    /// The last event of the window; it is out once nothing is left.
    pub last: Result<ShardSeq, StoreError>,
    /// What isn't out yet.
    left: BTreeMap<(JobId, Track), VecDeque<Outgoing>>,
}

impl Outcome {
    /// What isn't out yet, by job, the events of each first: while they can't be published, its offers aren't tried either.
    pub fn take_left(&mut self) -> Vec<VecDeque<Outgoing>> {
        let mut by_job: BTreeMap<JobId, VecDeque<Outgoing>> = BTreeMap::new();
        // From the last to the first: a job's events come before its work.
        for ((job, _), messages) in std::mem::take(&mut self.left).into_iter().rev() {
            by_job.entry(job).or_default().extend(messages);
        }
        by_job.into_values().collect()
    }
}

/// Which of a job's messages wait for each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Track {
    /// Offers and what takes them back, and orders: workers hear of them first.
    Work,
    Events,
}

impl Track {
    fn of(message: &Outgoing) -> Self {
        match message {
            Outgoing::Event(_) => Self::Events,
            Outgoing::Offer(_) | Outgoing::Withdraw(_) | Outgoing::Stop(_) => Self::Work,
        }
    }
}

/// What is still to be said of one job on one track.
struct Line {
    /// Whose it is, as an index.
    part: usize,
    name: (JobId, Track),
    messages: VecDeque<Outgoing>,
}

/// Publishes the windows of several shards together.
pub async fn publish(run: Vec<Part>) -> Vec<Outcome> {
    fault::point("publisher.publish");
    let (mut outcomes, mut lines) = (Vec::with_capacity(run.len()), Vec::new());
    for (part, Part { voice, gain, window }) in run.into_iter().enumerate() {
        let mut by_name: BTreeMap<(JobId, Track), VecDeque<Outgoing>> = BTreeMap::new();
        let last = window.last().map(|(number, _)| *number);
        for (_, event) in window {
            for message in event.outgoing() {
                by_name.entry((event.job, Track::of(&message))).or_default().push_back(message);
            }
        }
        lines.extend(by_name.into_iter().map(|(name, messages)| Line { part, name, messages }));
        let shard = voice.shard;
        let last = last.ok_or_else(|| StoreError::Corrupt(format!("an empty window of shard {shard}")));
        outcomes.push(Outcome { voice, gain, last, left: BTreeMap::new() });
    }
    while !lines.is_empty() {
        lines = wave(lines, &mut outcomes).await;
    }
    outcomes
}

/// Sends the first message of each line; returns the lines that go on.
async fn wave(lines: Vec<Line>, outcomes: &mut [Outcome]) -> Vec<Line> {
    let mut going = Vec::with_capacity(lines.len());
    for mut line in lines {
        let Some(Outcome { voice, left, .. }) = outcomes.get_mut(line.part) else { continue };
        if !voice.may_speak() {
            left.insert(line.name, line.messages);
            continue;
        }
        voice.say_aside(&mut line.messages).await;
        if !line.messages.is_empty() {
            going.push(line);
        }
    }
    let Some(bus) = outcomes.first().map(|outcome| Arc::clone(&outcome.voice.parts.bus)) else { return Vec::new() };
    let messages: Vec<ToSend<'_>> = going.iter().filter_map(|line| to_send(line.messages.front()?)).collect();
    let sent = bus.send_all(&messages).await;
    let mut lines = Vec::with_capacity(going.len());
    for (mut line, sent) in going.into_iter().zip(sent) {
        if let (Err(error), Some(outcome)) = (sent, outcomes.get_mut(line.part)) {
            tracing::debug!(%error, shard = %outcome.voice.shard, "a message is sent again");
            outcome.left.insert(line.name, line.messages);
            continue;
        }
        line.messages.pop_front();
        if !line.messages.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// What goes out in a wave.
fn to_send(message: &Outgoing) -> Option<ToSend<'_>> {
    match message {
        Outgoing::Event(event) => Some(ToSend::Event(event)),
        Outgoing::Offer(offer) => Some(ToSend::Offer(offer)),
        Outgoing::Withdraw(_) | Outgoing::Stop(_) => None,
    }
}

/// Bounds on what is said aside, while what waits for it goes on.
#[derive(Clone)]
pub struct Room {
    /// The orders to workers that are under way.
    stops: Arc<Semaphore>,
    /// The offers that are to be taken back, and those of them that are being taken back.
    withdrawals: Arc<Semaphore>,
    withdrawing: Arc<Semaphore>,
}

impl Default for Room {
    fn default() -> Self {
        let of = |most| Arc::new(Semaphore::new(most));
        Self { stops: of(STOPS_MAX), withdrawals: of(WITHDRAWALS_MAX), withdrawing: of(WITHDRAWING_MAX) }
    }
}

/// Speaks for one shard under one epoch, for as long as it is owned so.
#[derive(Clone)]
pub struct Voice {
    pub parts: Parts,
    pub room: Room,
    pub shard: Shard,
    pub epoch: Epoch,
}

impl Voice {
    /// What is stored after that event, as much as one window holds.
    pub async fn read(&self, after: ShardSeq) -> Result<Vec<(ShardSeq, Event)>, StoreError> {
        self.parts.store.shard_events(self.shard, after, WINDOW_EVENTS_MAX).await
    }

    /// Publishes a window: a job's events one after the other, any number of jobs at once. Returns when all is out, or
    /// the shard isn't ours any more.
    pub async fn publish(&self, window: &[(ShardSeq, Event)]) -> Result<(), StoreError> {
        fault::point("publisher.publish");
        let mut by_job: BTreeMap<JobId, VecDeque<Outgoing>> = BTreeMap::new();
        for (_, event) in window {
            by_job.entry(event.job).or_default().extend(event.outgoing());
        }
        self.send_each(by_job.into_values()).await
    }

    /// Sends the messages of several jobs: each job's one after the other.
    pub async fn send_each(&self, jobs: impl IntoIterator<Item = VecDeque<Outgoing>>) -> Result<(), StoreError> {
        let jobs = jobs.into_iter().map(|messages| async move {
            for message in messages {
                self.send(message).await?;
            }
            Ok(())
        });
        join_all(jobs).await.into_iter().collect()
    }

    /// Whether the shard is still ours, and the lease runs.
    fn may_speak(&self) -> bool {
        self.parts.holdings.owns(self.shard, self.epoch) && self.parts.holdings.is_alive()
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
                self.withdraw(offer.clone()).await;
                Ok(())
            }
            Outgoing::Stop(order) => {
                self.stop(order.clone());
                Ok(())
            }
        }
    }

    /// Says what comes next and need not be waited for.
    async fn say_aside(&self, messages: &mut VecDeque<Outgoing>) {
        loop {
            match messages.front() {
                Some(Outgoing::Stop(order)) => self.stop(order.clone()),
                Some(Outgoing::Withdraw(offer)) => self.withdraw(offer.clone()).await,
                Some(Outgoing::Event(_) | Outgoing::Offer(_)) | None => return,
            }
            messages.pop_front();
        }
    }

    /// Takes an offer back, as far as that can be done: a claim of what is left is refused. It isn't waited for, unless too
    /// many others wait for their turn.
    async fn withdraw(&self, offer: Offer) {
        let Ok(place) = Arc::clone(&self.room.withdrawals).acquire_owned().await else { return };
        let (bus, turns) = (Arc::clone(&self.parts.bus), Arc::clone(&self.room.withdrawing));
        self.parts.runtime.spawn(async move {
            let turn = turns.acquire().await;
            if let Err(error) = bus.withdraw(&offer).await {
                tracing::info!(job = %offer.job, %error, "an offer could not be taken back");
            }
            drop((turn, place));
        });
    }

    /// Gives a worker its order without waiting for it: a worker that doesn't hear must not hold up what others wait for.
    fn stop(&self, order: StopOrder) {
        let Ok(permit) = Arc::clone(&self.room.stops).try_acquire_owned() else {
            tracing::warn!(job = %order.job, "too many orders are under way; a heartbeat's reply will carry this one");
            return;
        };
        let (bus, told) = (Arc::clone(&self.parts.bus), Arc::clone(&self.parts.told));
        let (shard, epoch) = (self.shard, self.epoch);
        self.parts.runtime.spawn(async move {
            let (job, attempt, worker) = (order.job, order.attempt, order.worker);
            let body = wire::encode(&Control::Stop(Word { shard, epoch, owner: None, said: order }));
            match bus.request(&Address::Control(worker), body, STOP_WITHIN).await {
                Ok(_) => told.note(job, attempt),
                Err(error) => {
                    tracing::info!(%job, %worker, %error, "a worker did not hear its order; a heartbeat's reply repeats it");
                }
            }
            drop(permit);
        });
    }
}
