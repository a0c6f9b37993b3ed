//! Says what follows from committed events, for shards that are owned at the epoch at which it is said.
//!
//! Windows of several shards go out together, in waves: the first message of each job, then the second of each, and so on.
//! What a wave doesn't bring out is left, with all that follows it of its job, to be tried again apart from the others.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
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
    /// What isn't out yet, by job.
    pub left: Vec<VecDeque<Outgoing>>,
}

/// What is still to be said of one job.
struct Line {
    /// Whose it is, as an index.
    part: usize,
    messages: VecDeque<Outgoing>,
}

/// Publishes the windows of several shards together.
pub async fn publish(run: Vec<Part>) -> Vec<Outcome> {
    fault::point("publisher.publish");
    let (mut outcomes, mut lines) = (Vec::with_capacity(run.len()), Vec::new());
    for (part, Part { voice, gain, window }) in run.into_iter().enumerate() {
        let mut by_job: BTreeMap<JobId, VecDeque<Outgoing>> = BTreeMap::new();
        let last = window.last().map(|(number, _)| *number);
        for (_, event) in window {
            by_job.entry(event.job).or_default().extend(event.outgoing());
        }
        lines.extend(by_job.into_values().map(|messages| Line { part, messages }));
        let shard = voice.shard;
        let last = last.ok_or_else(|| StoreError::Corrupt(format!("an empty window of shard {shard}")));
        outcomes.push(Outcome { voice, gain, last, left: Vec::new() });
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
            left.push(line.messages);
            continue;
        }
        while let Some(Outgoing::Stop(order)) = line.messages.front() {
            voice.stop(order.clone());
            line.messages.pop_front();
        }
        if !line.messages.is_empty() {
            going.push(line);
        }
    }
    let Some(parts) = outcomes.first().map(|outcome| outcome.voice.parts.clone()) else { return Vec::new() };
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    for (index, line) in going.iter().enumerate() {
        match line.messages.front() {
            Some(Outgoing::Event(event)) => together.push((index, ToSend::Event(event))),
            Some(Outgoing::Offer(offer)) => together.push((index, ToSend::Offer(offer))),
            Some(Outgoing::Withdraw(offer)) => apart.push(withdraw(&parts, offer)),
            Some(Outgoing::Stop(_)) | None => {}
        }
    }
    let messages: Vec<ToSend<'_>> = together.iter().map(|(_, message)| *message).collect();
    let (sent, _) = join(parts.bus.send_all(&messages), join_all(apart)).await;
    let mut failed: BTreeMap<usize, BusError> = BTreeMap::new();
    for ((index, _), sent) in together.into_iter().zip(sent) {
        if let Err(error) = sent {
            failed.insert(index, error);
        }
    }
    let mut lines = Vec::with_capacity(going.len());
    for (index, mut line) in going.into_iter().enumerate() {
        if let (Some(error), Some(outcome)) = (failed.remove(&index), outcomes.get_mut(line.part)) {
            tracing::debug!(%error, shard = %outcome.voice.shard, "a message is sent again");
            outcome.left.push(line.messages);
            continue;
        }
        line.messages.pop_front();
        if !line.messages.is_empty() {
            lines.push(line);
        }
    }
    lines
}

/// Takes an offer back, as far as that can be done: a claim of what is left is refused.
async fn withdraw(parts: &Parts, offer: &Offer) {
    if let Err(error) = parts.bus.withdraw(offer).await {
        tracing::info!(job = %offer.job, %error, "an offer could not be taken back");
    }
}

/// Speaks for one shard under one epoch, for as long as it is owned so.
#[derive(Clone)]
pub struct Voice {
    pub parts: Parts,
    pub stops: Arc<Semaphore>,
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
                withdraw(&self.parts, offer).await;
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
