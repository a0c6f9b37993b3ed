//! A report that waits, and a message of such on its way: encoded once, sent, and its answer taken apart.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use shared::bus::Address;
use shared::id::{JobId, Shard};
use shared::time::Period;
use shared::wire::{self, Answer, Answers, Report, ReportKind, Reports, ShardAnswers, Word, Words};
use tokio::sync::oneshot;

use super::lines::To;
use crate::courier::{Courier, NoAnswer};

/// How long the answer to a message is waited for, and to one with a claim: whoever claims can't wait for long.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CLAIM_WITHIN: Duration = Duration::from_secs(2);
/// The most bytes that a claim has beside its recipient.
const CLAIM_BYTES_MAX: usize = 384;

/// A report and who waits for its answer.
pub struct Item {
    pub job: JobId,
    body: Body,
    /// As JSON, at most.
    pub bytes: usize,
    /// When it is dropped unsaid.
    until: Option<Instant>,
    pub answer: oneshot::Sender<Answer>,
}

enum Body {
    Encoded(Vec<u8>),
    /// How long its answer is waited for is known when it is said.
    Claim(Box<Report>),
}

impl Item {
    pub fn new(report: Report, until: Option<Instant>, answer: oneshot::Sender<Answer>) -> Self {
        let job = report.job;
        let (body, bytes) = if let ReportKind::Claim { recipient, .. } = &report.what {
            let bytes = CLAIM_BYTES_MAX + recipient.as_ref().map_or(0, String::len);
            (Body::Claim(Box::new(report)), bytes)
        } else {
            let encoded = Vec::from(wire::encode(&report));
            let bytes = encoded.len();
            (Body::Encoded(encoded), bytes)
        };
        Self { job, body, bytes, until, answer }
    }

    /// Whether nobody waits for its answer any more, or it is too late for it.
    pub fn is_stale(&self, now: Instant) -> bool {
        self.answer.is_closed() || self.until.is_some_and(|until| until <= now)
    }

    fn is_claim(&self) -> bool {
        matches!(self.body, Body::Claim(_))
    }

    fn encoded(&mut self, now: Instant) -> Cow<'_, [u8]> {
        match &mut self.body {
            Body::Encoded(encoded) => Cow::Borrowed(encoded),
            Body::Claim(report) => {
                if let (ReportKind::Claim { wait, .. }, Some(until)) = (&mut report.what, self.until) {
                    let left = until.saturating_duration_since(now);
                    *wait = Period::from_millis(u64::try_from(left.as_millis()).unwrap_or(0));
                }
                Cow::Owned(wire::encode(report).into())
            }
        }
    }
}

/// Reports that are said together, those of a job in order and beside each other. There is at least one.
pub struct Message {
    pub to: To,
    /// The one that it is addressed to.
    pub shard: Shard,
    pub items: Vec<Item>,
}

/// What goes over the bus of a message, and what its answer must look like.
pub struct Request {
    to: Address,
    body: Vec<u8>,
    within: Duration,
    /// How many reports there are of each shard.
    counts: HashMap<Shard, usize>,
    /// The shard that it is addressed to.
    shard: Shard,
}

/// The answers for each shard that the asked one spoke for, or why they don't count.
pub type Heard = HashMap<Shard, Result<Vec<Answer>, NoAnswer>>;

impl Message {
    pub fn request(&mut self, courier: &Courier, now: Instant) -> Request {
        let Courier { worker, instance, .. } = *courier;
        let mut counts = HashMap::new();
        for item in &self.items {
            *counts.entry(item.job.shard()).or_insert(0) += 1;
        }
        let within = if self.items.iter().any(Item::is_claim) { CLAIM_WITHIN } else { ANSWER_WITHIN };
        let encoded: Vec<Cow<'_, [u8]>> = self.items.iter_mut().map(|item| item.encoded(now)).collect();
        let body = Reports::of_encoded(worker, instance, encoded.iter().map(|report| &**report));
        Request { to: Address::Report(self.shard, worker), body, within, counts, shard: self.shard }
    }

    /// Its reports by shard, in order.
    pub fn by_shard(self) -> HashMap<Shard, Vec<Item>> {
        let mut by_shard: HashMap<Shard, Vec<Item>> = HashMap::new();
        for item in self.items {
            by_shard.entry(item.job.shard()).or_default().push(item);
        }
        by_shard
    }
}

impl Request {
    /// Sends it, and reads what is answered.
    pub async fn ask(self, courier: Courier) -> Result<Heard, NoAnswer> {
        let Self { to, body, within, mut counts, shard } = self;
        let reply = courier.ask_encoded(&to, &body, within).await?;
        let is_bundle = counts.len() > 1;
        let mut heed = |about: Shard, word: Word<Vec<Answer>>| {
            let said = counts.remove(&about)?;
            let answers = courier.epochs.heed(about, word).map_err(NoAnswer::from);
            let counted = answers.and_then(|answers| match answers.len() {
                given if given == said => Ok(answers),
                given => Err(NoAnswer::Miscounted { said, given }),
            });
            Some((about, counted))
        };
        if is_bundle {
            let Words { owner, words } = wire::decode(&reply)?;
            let word = |ShardAnswers { shard, epoch, answers }| {
                heed(shard, Word { shard, epoch, owner: Some(owner), said: answers })
            };
            Ok(words.into_iter().filter_map(word).collect())
        } else {
            let Word { shard: said_of, epoch, owner, said: Answers { answers } } = wire::decode(&reply)?;
            Ok(heed(shard, Word { shard: said_of, epoch, owner, said: answers }).into_iter().collect())
        }
    }
}
