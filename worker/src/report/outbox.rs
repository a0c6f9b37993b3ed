//! The reports that wait to be said, and who says them.
//!
//! What the owner of several shards is to hear goes in common messages, as much as a message may hold; where the owner isn't
//! known, each shard has messages of its own. A few messages to each are on their way at once, so that one slow job doesn't
//! hold up its neighbours, and a lone report never waits for company. A job is in one message at a time, so its reports are
//! heard in order. What isn't answered is said again after a wait of its own, by the address of its shard alone and in
//! smaller messages, until what is in trouble is alone in it: see [`lines`].
//!
//! How much waits is bounded by the slots, for each claim and each attempt has one: an attempt makes a bounded number of
//! reports of progress, and tells one end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use shared::bus;
use shared::clock;
use shared::id::Shard;
use shared::wire::{Answer, Report};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep_until;

use crate::courier::{Courier, NoAnswer};
use lines::{Lines, To};
use message::{Heard, Item, Message};

mod lines;
mod message;
#[cfg(test)]
mod tests;

/// How long a shard's owner isn't heeded before that is said, and how often: longer than one that was replaced can go on.
const UNHEEDED_MAX: Duration = Duration::from_secs(10);

/// The reports of one start of a worker. Clones are the same outbox.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    courier: Courier,
    arrived: Mutex<Arrived>,
    more: Notify,
    runtime: Handle,
}

/// What the sender hasn't seen yet, and whether there is one: it ends when nothing is left to be said.
#[derive(Default)]
struct Arrived {
    items: Vec<Item>,
    is_sent: bool,
}

/// What came of one message.
struct Said {
    message: Message,
    heard: Result<Heard, NoAnswer>,
}

impl Outbox {
    /// Nothing waits. The sender runs on the runtime that this is called in.
    pub fn new(courier: Courier) -> Self {
        let (arrived, more, runtime) = (Mutex::default(), Notify::new(), Handle::current());
        Self { inner: Arc::new(Inner { courier, arrived, more, runtime }) }
    }

    /// Says `report` until it has an answer other than "try again", which comes through what is returned. After `until` it
    /// isn't said any more. It is dropped without an answer when it can't be sent at all.
    pub fn put(&self, report: Report, until: Option<Instant>) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        self.add([Item::new(report, until, answer)]);
        answered
    }

    /// The same of several, without a time, which arrive together: so those of one job go in one message, as far as it holds
    /// them.
    pub fn put_all(&self, reports: impl Iterator<Item = Report>) -> Vec<oneshot::Receiver<Answer>> {
        let item = |report| {
            let (answer, answered) = oneshot::channel();
            (Item::new(report, None, answer), answered)
        };
        let (items, answered): (Vec<_>, Vec<_>) = reports.map(item).unzip();
        if !items.is_empty() {
            self.add(items);
        }
        answered
    }

    fn add(&self, items: impl IntoIterator<Item = Item>) {
        let mut arrived = self.inner.arrived();
        arrived.items.extend(items);
        if !std::mem::replace(&mut arrived.is_sent, true) {
            self.inner.runtime.spawn(Sender::new(self.inner.clone()).send());
        }
        drop(arrived);
        self.inner.more.notify_one();
    }
}

impl Inner {
    /// Each change leaves it whole, so a panic elsewhere does it no harm.
    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what waits.
struct Sender {
    inner: Arc<Inner>,
    lines: Lines,
    on_their_way: FuturesUnordered<BoxFuture<'static, Said>>,
    /// Since when nobody was heeded who answered for a shard, or since that was last said.
    unheeded_since: HashMap<Shard, Instant>,
}

impl Sender {
    fn new(inner: Arc<Inner>) -> Self {
        let (lines, on_their_way) = (Lines::default(), FuturesUnordered::new());
        Self { inner, lines, on_their_way, unheeded_since: HashMap::new() }
    }

    /// Goes on until nothing waits and nothing is on its way.
    async fn send(mut self) {
        let inner = self.inner.clone();
        while self.collect() {
            let now = clock::instant();
            self.lines.wake(now, |shard| inner.courier.epochs.owner(shard));
            while let Some(message) = self.lines.next(now, |shard| inner.courier.epochs.owner(shard)) {
                self.dispatch(message, now);
            }
            let wake_at = self.lines.wake_at();
            tokio::select! {
                Some(said) = self.on_their_way.next() => self.settle(said),
                () = inner.more.notified() => {}
                () = sleep_until(wake_at.unwrap_or(now).into()), if wake_at.is_some() => {}
            }
        }
    }

    /// Takes what has arrived; whether there is anything left to do. Without that the next report begins another sender.
    fn collect(&mut self) -> bool {
        let items = {
            let mut arrived = self.inner.arrived();
            if arrived.items.is_empty() && self.lines.is_empty() && self.on_their_way.is_empty() {
                arrived.is_sent = false;
                return false;
            }
            std::mem::take(&mut arrived.items)
        };
        for item in items {
            self.lines.add(item, |shard| self.inner.courier.epochs.owner(shard));
        }
        true
    }

    fn dispatch(&mut self, mut message: Message, now: Instant) {
        let request = message.request(&self.inner.courier, now);
        // On its own, so that what is large is encoded and read beside the others.
        let asked = self.inner.runtime.spawn(request.ask(self.inner.courier.clone()));
        self.on_their_way.push(Box::pin(async move {
            let heard = asked.await.unwrap_or(Err(NoAnswer::Defect));
            Said { message, heard }
        }));
    }

    fn settle(&mut self, Said { message, heard }: Said) {
        let to = message.to;
        self.lines.arrived(to);
        let by_shard = message.by_shard();
        match heard {
            Ok(mut heard) => {
                for (shard, items) in by_shard {
                    match heard.remove(&shard).unwrap_or(Err(NoAnswer::Passed)) {
                        Ok(answers) => self.answered(shard, items, answers),
                        Err(error) => self.failed(to, shard, items, &error),
                    }
                }
            }
            Err(error) => {
                for (shard, items) in by_shard {
                    self.failed(to, shard, items, &error);
                }
            }
        }
    }

    /// Hands each its answer. One that is to be said again goes back with all that follow it of its job.
    fn answered(&mut self, shard: Shard, items: Vec<Item>, answers: Vec<Answer>) {
        self.unheeded_since.remove(&shard);
        let owner = |shard| self.inner.courier.epochs.owner(shard);
        let mut again: Vec<Item> = Vec::new();
        let mut done = Vec::new();
        for (item, answer) in items.into_iter().zip(answers) {
            let job = item.job;
            if answer == Answer::TryAgain || again.last().is_some_and(|before| before.job == job) {
                again.push(item);
                continue;
            }
            if done.last() != Some(&job) {
                done.push(job);
            }
            // Whoever has given up waiting for a grant declines it.
            let _ = item.answer.send(answer);
        }
        done.retain(|job| again.iter().all(|item| item.job != *job));
        for job in done {
            self.lines.done(job, owner);
        }
        self.lines.again(again, clock::instant());
    }

    /// Has the reports of one shard said again that weren't answered.
    fn failed(&mut self, to: To, shard: Shard, items: Vec<Item>, error: &NoAnswer) {
        let count = items.len();
        if let To::Owner(owner) = to {
            self.inner.courier.epochs.forget_owner(shard, owner);
        }
        self.complain(shard, error);
        let too_large = matches!(error, NoAnswer::Bus(bus::Error::TooLarge(_)));
        if too_large && count == 1 && matches!(to, To::Shard(_)) {
            tracing::error!(%shard, %error, "a report or its answer is too large to be sent: it is given up");
            for item in items {
                self.lines.done(item.job, |shard| self.inner.courier.epochs.owner(shard));
            }
            return;
        }
        // Away from other shards' reports they may be heard; where they were alone, what one of them holds may be the
        // reason, or what several are answered together. Where nobody was reached, smaller messages reach nobody either.
        let split = matches!(to, To::Shard(_)) && is_of_its_content(error);
        self.lines.apart(&items, if split { count.div_ceil(2) } else { usize::MAX });
        let now = clock::instant();
        let again_at = if too_large { now } else { self.lines.again_at(&items, now) };
        tracing::debug!(%error, %shard, count, ?to, wait = ?again_at.duration_since(now), "reports are to be said again");
        self.lines.hold(items, again_at);
    }

    /// Says that the shard's owner isn't heeded, if that lasts: one that isn't owner any more soon falls silent.
    fn complain(&mut self, shard: Shard, error: &NoAnswer) {
        let NoAnswer::Unheeded(unheeded) = error else { return };
        let now = clock::instant();
        let since = self.unheeded_since.entry(shard).or_insert(now);
        if now.duration_since(*since) >= UNHEEDED_MAX {
            *since = now;
            tracing::warn!(
                %unheeded,
                "who answers for a shard isn't heeded: if the database was restored from a backup, start this worker with an \
                 empty data directory"
            );
        }
    }
}

/// Whether a message with less in it might have been answered.
fn is_of_its_content(error: &NoAnswer) -> bool {
    match error {
        NoAnswer::Bus(bus::Error::TooLarge(_) | bus::Error::TimedOut(_)) => true,
        NoAnswer::Undecodable(_) | NoAnswer::Miscounted { .. } | NoAnswer::Defect => true,
        NoAnswer::Bus(_) | NoAnswer::Unheeded(_) | NoAnswer::Passed => false,
    }
}
