//! The reports that wait to be said, by shard, and who says them.
//!
//! A shard with reports has a sender, which ends when none is left. It takes what waits into one message, as much as a
//! message may hold, and has a few messages on their way at once, so that one slow job doesn't hold up its neighbours. A
//! job is in one message at a time, so its reports are heard in order. What a message that wasn't answered held is said
//! again first, after a wait that the whole shard keeps; what was answered with "try again" after a wait of that job's own.
//!
//! How much waits is bounded by the slots: an attempt has one batch of progress or one end under way, and each claim holds
//! a slot.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use shared::bus::{self, Address};
use shared::clock;
use shared::id::{JobId, Shard};
use shared::time::Period;
use shared::wire::{Answer, Answers, REPORTS_MAX, Report, ReportKind, Reports};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::sleep_until;

use crate::courier::{Courier, NoAnswer, SAID_BYTES_MAX};

/// How long the answer to a message is waited for, and to one with a claim: whoever claims can't wait for long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CLAIM_WITHIN: Duration = Duration::from_secs(2);
/// The waits before something is said again: from the first, doubling, to the last.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// How long a shard's owner isn't heeded before that is said, and how often: longer than one that was replaced can go on.
const UNHEEDED_MAX: Duration = Duration::from_secs(10);
/// The most messages of one shard that are on their way at once.
const MESSAGES_MAX: usize = 4;
/// What a message has beside its reports, and a claim that gets a longer wait than it was weighed with.
const ENVELOPE_BYTES: usize = 1024;
const CLAIM_BYTES: usize = 32;

/// The reports of one start of a worker. Clones are the same outbox.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    courier: Courier,
    shards: Mutex<HashMap<Shard, Waiting>>,
    runtime: Handle,
}

/// What waits for one shard, which has a sender for as long as this is there.
#[derive(Default)]
struct Waiting {
    items: VecDeque<Item>,
    more: Arc<Notify>,
}

/// A report and who waits for its answer.
struct Item {
    report: Report,
    /// As JSON.
    bytes: usize,
    /// When it is dropped unsaid.
    until: Option<Instant>,
    answer: oneshot::Sender<Answer>,
}

/// What came of one message.
struct Said {
    items: Vec<Item>,
    answers: Result<Vec<Answer>, NoAnswer>,
}

impl Outbox {
    /// Nothing waits. The senders run on the runtime that this is called in.
    pub fn new(courier: Courier) -> Self {
        Self { inner: Arc::new(Inner { courier, shards: Mutex::default(), runtime: Handle::current() }) }
    }

    /// Says `report` until it has an answer other than "try again", which comes through what is returned. After `until` it
    /// isn't said any more. It is dropped without an answer when it can't be sent at all.
    pub fn put(&self, report: Report, until: Option<Instant>) -> oneshot::Receiver<Answer> {
        let (answer, answered) = oneshot::channel();
        let shard = report.job.shard();
        let bytes = serde_json::to_vec(&report).map_or(0, |json| json.len()) + CLAIM_BYTES;
        let mut shards = self.inner.shards();
        let waiting = shards.entry(shard).or_insert_with(|| {
            self.inner.runtime.spawn(Sender::of(self.inner.clone(), shard).send());
            Waiting::default()
        });
        waiting.items.push_back(Item { report, bytes, until, answer });
        waiting.more.notify_one();
        answered
    }
}

impl Inner {
    /// Each change leaves the table whole, so a panic elsewhere does it no harm.
    fn shards(&self) -> MutexGuard<'_, HashMap<Shard, Waiting>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says what waits for one shard.
struct Sender {
    inner: Arc<Inner>,
    shard: Shard,
    on_their_way: FuturesUnordered<BoxFuture<'static, Said>>,
    /// The jobs that they are about.
    busy: BTreeSet<JobId>,
    /// The most reports of the next message: fewer after one whose answer was too large.
    most: usize,
    /// When the next message may go, after one that wasn't answered, and the waits that follow.
    not_before: Option<Instant>,
    delays: ExponentialBackoff,
    /// Since when nobody was heeded who answered, or since that was last said.
    unheeded_since: Option<Instant>,
    /// The jobs that were told to try again: when they may, and the waits that follow.
    held: HashMap<JobId, (Instant, ExponentialBackoff)>,
}

impl Sender {
    fn of(inner: Arc<Inner>, shard: Shard) -> Self {
        Self {
            inner,
            shard,
            on_their_way: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            most: REPORTS_MAX,
            not_before: None,
            delays: delays(),
            unheeded_since: None,
            held: HashMap::new(),
        }
    }

    /// Goes on until nothing waits and nothing is on its way.
    async fn send(mut self) {
        loop {
            let now = clock::instant();
            while self.on_their_way.len() < MESSAGES_MAX && self.not_before.is_none_or(|at| at <= now) {
                let batch = self.next_batch(now);
                if batch.is_empty() {
                    break;
                }
                self.dispatch(batch, now);
            }
            let Some(more) = self.more_or_end() else { return };
            let wake_at = self.wake_at(now);
            tokio::select! {
                Some(said) = self.on_their_way.next() => self.settle(said),
                () = more.notified() => {}
                () = sleep_until(wake_at.unwrap_or(now).into()), if wake_at.is_some() => {}
            }
        }
    }

    /// What tells of more reports; none when the sender has nothing left to do, and is taken off the table by that.
    fn more_or_end(&self) -> Option<Arc<Notify>> {
        let mut shards = self.inner.shards();
        let waiting = shards.get(&self.shard)?;
        if waiting.items.is_empty() && self.on_their_way.is_empty() {
            shards.remove(&self.shard);
            return None;
        }
        Some(waiting.more.clone())
    }

    /// When the next wait is over that wasn't at `now`.
    fn wake_at(&self, now: Instant) -> Option<Instant> {
        let held = self.held.values().map(|(at, _)| *at);
        self.not_before.into_iter().chain(held).filter(|at| *at > now).min()
    }

    /// Takes what waits and may be said now, as much as a message may hold.
    fn next_batch(&self, now: Instant) -> Vec<Item> {
        let inner = self.inner.clone();
        let mut shards = inner.shards();
        let Some(waiting) = shards.get_mut(&self.shard) else { return Vec::new() };
        let (mut batch, mut bytes) = (Vec::new(), ENVELOPE_BYTES);
        let mut passed = self.busy.clone();
        passed.extend(self.held.iter().filter(|(_, (at, _))| *at > now).map(|(job, _)| *job));
        let mut full = false;
        let mut left = VecDeque::with_capacity(waiting.items.len());
        for item in waiting.items.drain(..) {
            // Nobody waits for it any more, or it is too late for it.
            if item.answer.is_closed() || item.until.is_some_and(|until| until <= now) {
                continue;
            }
            full |= batch.len() >= self.most || (!batch.is_empty() && bytes + item.bytes > SAID_BYTES_MAX);
            if full || passed.contains(&item.report.job) {
                // What follows of the same job stays behind it.
                passed.insert(item.report.job);
                left.push_back(item);
            } else {
                bytes += item.bytes + 1;
                batch.push(item);
            }
        }
        waiting.items = left;
        batch
    }

    fn dispatch(&mut self, mut items: Vec<Item>, now: Instant) {
        self.busy.extend(items.iter().map(|item| item.report.job));
        let mut within = ANSWER_WITHIN;
        for item in &mut items {
            if let (ReportKind::Claim { wait, .. }, Some(until)) = (&mut item.report.what, item.until) {
                let left = until.saturating_duration_since(now);
                *wait = Period::from_millis(u64::try_from(left.as_millis()).unwrap_or(0));
                within = CLAIM_WITHIN;
            }
        }
        let (courier, shard) = (self.inner.courier.clone(), self.shard);
        self.on_their_way.push(Box::pin(async move {
            let reports = items.iter().map(|item| item.report.clone()).collect();
            let answers = exchange(&courier, shard, reports, within).await;
            Said { items, answers }
        }));
    }

    fn settle(&mut self, Said { items, answers }: Said) {
        for item in &items {
            self.busy.remove(&item.report.job);
        }
        let shard = self.shard;
        match answers {
            Ok(answers) => {
                self.most = REPORTS_MAX;
                self.not_before = None;
                self.unheeded_since = None;
                self.delays = delays();
                self.answered(items, answers);
            }
            Err(NoAnswer::Bus(bus::Error::TooLarge(bytes))) if items.len() == 1 => {
                tracing::error!(%shard, bytes, "a report or its answer is too large to be sent: it is given up");
            }
            Err(NoAnswer::Bus(bus::Error::TooLarge(bytes))) => {
                tracing::debug!(%shard, bytes, "reports or their answers are too large for one message");
                self.most = items.len().div_ceil(2);
                self.put_back(items);
            }
            Err(error) => {
                let delay = self.delays.next().unwrap_or(AGAIN_MAX);
                self.complain(&error);
                tracing::debug!(%error, %shard, count = items.len(), ?delay, "reports are to be said again");
                // The grants of several claims may have been too large for one answer.
                let claims = items.iter().filter(|item| matches!(item.report.what, ReportKind::Claim { .. }));
                if claims.count() > 1 {
                    self.most = items.len().div_ceil(2);
                }
                self.not_before = Some(clock::instant() + delay);
                self.put_back(items);
            }
        }
    }

    /// Says that the shard's owner isn't heeded, if that lasts: one that isn't owner any more soon falls silent.
    fn complain(&mut self, error: &NoAnswer) {
        let NoAnswer::Unheeded(unheeded) = error else { return };
        let now = clock::instant();
        if now.duration_since(*self.unheeded_since.get_or_insert(now)) >= UNHEEDED_MAX {
            self.unheeded_since = Some(now);
            tracing::warn!(
                %unheeded,
                "who answers for a shard isn't heeded: if the database was restored from a backup, start this worker with an \
                 empty data directory"
            );
        }
    }

    /// Hands each its answer. One that is to be said again goes back with all that follow it of its job.
    fn answered(&mut self, items: Vec<Item>, answers: Vec<Answer>) {
        let mut again: Vec<Item> = Vec::new();
        for (item, answer) in items.into_iter().zip(answers) {
            let job = item.report.job;
            if answer == Answer::TryAgain || again.iter().any(|before| before.report.job == job) {
                again.push(item);
            } else {
                self.held.remove(&job);
                // Whoever has given up waiting for a grant declines it.
                let _ = item.answer.send(answer);
            }
        }
        let now = clock::instant();
        let jobs: BTreeSet<JobId> = again.iter().map(|item| item.report.job).collect();
        for job in jobs {
            let (at, waits) = self.held.entry(job).or_insert_with(|| (now, delays()));
            let delay = waits.next().unwrap_or(AGAIN_MAX);
            tracing::debug!(%job, ?delay, "reports of a job are to be said again");
            *at = now + delay;
        }
        self.put_back(again);
    }

    /// Puts these back where they were: before all that has come since.
    fn put_back(&self, items: Vec<Item>) {
        if let Some(waiting) = self.inner.shards().get_mut(&self.shard) {
            for item in items.into_iter().rev() {
                waiting.items.push_front(item);
            }
        }
    }
}

async fn exchange(
    courier: &Courier,
    shard: Shard,
    reports: Vec<Report>,
    within: Duration,
) -> Result<Vec<Answer>, NoAnswer> {
    let Courier { worker, instance, .. } = *courier;
    let message = Reports { worker, instance, reports };
    let to = Address::Report(shard, worker);
    let Answers { answers } = courier.ask_owner(shard, &to, &message, within).await?;
    let (said, given) = (message.reports.len(), answers.len());
    if said == given { Ok(answers) } else { Err(NoAnswer::Miscounted { said, given }) }
}

fn delays() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(AGAIN_FIRST)
        .with_max_delay(AGAIN_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}
