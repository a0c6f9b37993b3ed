//! What waits to be said: a line of reports for each job, and which lines go into the next message to whom.
//!
//! A line is ready, held until its wait is over, or in a message on its way. Ready lines queue for the owner of their
//! shard, or for their shard alone: where its owner hasn't named itself, and where the line was said last without an
//! answer. So whatever fails in common fails apart the next time. What fails among reports of its own shard alone goes
//! with at most half as many from then on, until one is alone that harms no other; an answer ends that.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use shared::id::{CoordinatorId, JobId, Shard};
use shared::wire::REPORTS_MAX;

use super::message::{Item, Message};
use crate::courier::SAID_BYTES_MAX;

/// The most messages to one owner, or one shard alone, that are on their way at once.
pub const MESSAGES_MAX: usize = 4;
/// The waits before something is said again: from the first, doubling, to the last.
const AGAIN_FIRST: Duration = Duration::from_millis(50);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// What a message has beside its reports.
const ENVELOPE_BYTES: usize = 1024;

/// Whom a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum To {
    /// The owner of its reports' shards, as far as is known.
    Owner(CoordinatorId),
    /// Whoever owns that shard.
    Shard(Shard),
}

/// All that waits or is on its way.
#[derive(Default)]
pub struct Lines {
    jobs: HashMap<JobId, Line>,
    queues: HashMap<To, Queue>,
    held: BTreeSet<(Instant, JobId)>,
}

/// One job's reports, without those that are on their way.
#[derive(Default)]
struct Line {
    items: VecDeque<Item>,
    /// What goes wrong with it; none where nothing does.
    trouble: Option<Box<Trouble>>,
}

struct Trouble {
    /// Whether it isn't said together with other shards'.
    is_apart: bool,
    /// The most reports of a message that it is part of.
    most: usize,
    /// The waits that follow.
    waits: ExponentialBackoff,
}

/// The lines that are ready for one destination, in the order in which they became so, and the messages on their way there.
#[derive(Default)]
struct Queue {
    ready: VecDeque<JobId>,
    away: usize,
}

impl Line {
    fn most(&self) -> usize {
        self.trouble.as_ref().map_or(REPORTS_MAX, |trouble| trouble.most)
    }

    fn to(&self, shard: Shard, owner: impl Fn(Shard) -> Option<CoordinatorId>) -> To {
        let is_apart = self.trouble.as_ref().is_some_and(|trouble| trouble.is_apart);
        let owner = if is_apart { None } else { owner(shard) };
        owner.map_or(To::Shard(shard), To::Owner)
    }

    fn trouble(&mut self) -> &mut Trouble {
        self.trouble.get_or_insert_with(|| Box::new(Trouble { is_apart: false, most: REPORTS_MAX, waits: waits() }))
    }
}

impl Lines {
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// A report joins its job's line; `owner` tells whose a shard is.
    pub fn add(&mut self, item: Item, owner: impl Fn(Shard) -> Option<CoordinatorId>) {
        let job = item.job;
        if let Some(line) = self.jobs.get_mut(&job) {
            line.items.push_back(item);
        } else {
            self.jobs.insert(job, Line { items: VecDeque::from([item]), trouble: None });
            self.ready(job, owner);
        }
    }

    /// The next message that may go now: of the lines that are ready for whoever doesn't have the most messages on their
    /// way, as much as it may hold.
    pub fn next(&mut self, now: Instant, owner: impl Fn(Shard) -> Option<CoordinatorId>) -> Option<Message> {
        loop {
            let free = |queue: &Queue| queue.away < MESSAGES_MAX && !queue.ready.is_empty();
            let to = self.queues.iter().find(|(_, queue)| free(queue)).map(|(to, _)| *to)?;
            if let Some(message) = self.fill(to, now, &owner) {
                return Some(message);
            }
        }
    }

    /// Takes lines out of the queue of `to`. Without a message none is left there.
    fn fill(&mut self, to: To, now: Instant, owner: impl Fn(Shard) -> Option<CoordinatorId> + Copy) -> Option<Message> {
        let mut ready = std::mem::take(&mut self.queues.get_mut(&to)?.ready);
        let (mut items, mut bytes, mut most) = (Vec::new(), ENVELOPE_BYTES, REPORTS_MAX);
        while let Some(job) = ready.pop_front() {
            let Some(line) = self.jobs.get_mut(&job) else { continue };
            line.items.retain(|item| !item.is_stale(now));
            if line.items.is_empty() {
                self.jobs.remove(&job);
                continue;
            }
            // The shard's owner may be another than when the line became ready.
            let there = line.to(job.shard(), owner);
            if there != to {
                self.queues.entry(there).or_default().ready.push_back(job);
                continue;
            }
            let (before, fewer) = (items.len(), most.min(line.most()));
            while let Some(item) = line.items.front() {
                let fits = items.is_empty() || bytes + item.bytes <= SAID_BYTES_MAX;
                if items.len() >= fewer || !fits {
                    break;
                }
                bytes += item.bytes + 1;
                items.extend(line.items.pop_front());
            }
            if items.len() == before {
                ready.push_front(job);
                break;
            }
            most = fewer;
        }
        let shard = items.first().map(|item: &Item| item.job.shard());
        let queue = self.queues.entry(to).or_default();
        queue.ready = ready;
        queue.away += usize::from(shard.is_some());
        self.tidy(to);
        shard.map(|shard| Message { to, shard, items })
    }

    /// A message to `to` isn't on its way any more.
    pub fn arrived(&mut self, to: To) {
        if let Some(queue) = self.queues.get_mut(&to) {
            queue.away = queue.away.saturating_sub(1);
        }
        self.tidy(to);
    }

    /// All that was said of the job is answered: what follows goes as if nothing had happened.
    pub fn done(&mut self, job: JobId, owner: impl Fn(Shard) -> Option<CoordinatorId>) {
        let Some(line) = self.jobs.get_mut(&job) else { return };
        if line.items.is_empty() {
            self.jobs.remove(&job);
        } else {
            line.trouble = None;
            self.ready(job, owner);
        }
    }

    /// These were answered with "try again": each job's wait is its own.
    pub fn again(&mut self, items: Vec<Item>, now: Instant) {
        let mut held: HashMap<JobId, Instant> = HashMap::new();
        for item in &items {
            let line = self.jobs.entry(item.job).or_default();
            held.entry(item.job).or_insert_with(|| now + line.trouble().wait());
        }
        self.put_back(items);
        self.held.extend(held.into_iter().map(|(job, at)| (at, job)));
    }

    /// These weren't answered: from now on their jobs go apart from other shards', in messages of `most` reports.
    pub fn apart(&mut self, items: &[Item], most: usize) {
        for item in items {
            let trouble = self.jobs.entry(item.job).or_default().trouble();
            trouble.is_apart = true;
            trouble.most = trouble.most.min(most);
        }
    }

    /// When these may be said again: all at the same time, so that they can go together.
    pub fn again_at(&mut self, items: &[Item], now: Instant) -> Instant {
        let jobs: BTreeSet<JobId> = items.iter().map(|item| item.job).collect();
        let waits = jobs.into_iter().map(|job| self.jobs.entry(job).or_default().trouble().wait());
        now + waits.max().unwrap_or_default()
    }

    /// Puts these back where they were, and holds their jobs until then.
    pub fn hold(&mut self, items: Vec<Item>, until: Instant) {
        self.held.extend(items.iter().map(|item| (until, item.job)));
        self.put_back(items);
    }

    /// Readies the lines whose wait is over.
    pub fn wake(&mut self, now: Instant, owner: impl Fn(Shard) -> Option<CoordinatorId>) {
        while let Some((at, job)) = self.held.pop_first() {
            if at > now {
                self.held.insert((at, job));
                return;
            }
            self.ready(job, &owner);
        }
    }

    /// When the next wait is over.
    pub fn wake_at(&self) -> Option<Instant> {
        self.held.first().map(|(at, _)| *at)
    }

    fn ready(&mut self, job: JobId, owner: impl Fn(Shard) -> Option<CoordinatorId>) {
        let Some(line) = self.jobs.get(&job) else { return };
        let to = line.to(job.shard(), owner);
        self.queues.entry(to).or_default().ready.push_back(job);
    }

    /// Before all that has come since.
    fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.jobs.entry(item.job).or_default().items.push_front(item);
        }
    }

    fn tidy(&mut self, to: To) {
        if self.queues.get(&to).is_some_and(|queue| queue.away == 0 && queue.ready.is_empty()) {
            self.queues.remove(&to);
        }
    }
}

impl Trouble {
    fn wait(&mut self) -> Duration {
        self.waits.next().unwrap_or(AGAIN_MAX)
    }
}

fn waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(AGAIN_FIRST)
        .with_max_delay(AGAIN_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}
