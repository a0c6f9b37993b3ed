//! Carries an attempt's chunks to the owner of the job's shard until each is stored or refused for good.

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use shared::bus::Address;
use shared::clock;
use shared::id::JobId;
use shared::log::Chunk;
use shared::wire::{LogAnswer, LogBatch, LogReply};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::Log;
use super::chunks::Sized;
use crate::courier::{Courier, SAID_BYTES_MAX};

/// How long more output is waited for before a chunk that isn't full is sent.
const GATHER: Duration = Duration::from_millis(50);
/// How long the answer to a batch is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The waits before a batch is sent again: from the first, doubling, to the last, which is a small part of the time that an
/// outcome waits for its log.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_millis(500);
/// How often is said that a log can't be stored.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
/// The most bytes of chunks in a batch: what is left of a message beside its own fields.
const BATCH_BYTES_MAX: usize = SAID_BYTES_MAX - 1024;

/// An attempt's log on its way. Many an attempt says nothing: a task that sends begins with the first that there is.
pub struct Sending {
    log: Log,
    courier: Courier,
    job: JobId,
    task: Option<JoinHandle<()>>,
}

impl Sending {
    /// Nothing is sent yet.
    pub fn of(log: Log, courier: Courier, job: JobId) -> Self {
        Self { log, courier, job, task: None }
    }

    /// Begins to send as soon as there is something, for as long as it is waited for. It may be dropped and called again.
    pub async fn begin(&mut self) -> Infallible {
        if self.task.is_none() && self.log.has_more().await {
            self.start();
        }
        pending().await
    }

    /// The task that sends what is left of a log that is finished; none where nothing of it ever was to be sent.
    pub fn finish(mut self) -> Option<JoinHandle<()>> {
        if self.task.is_none() && self.log.is_owed() {
            self.start();
        }
        self.task
    }

    fn start(&mut self) {
        self.task = Some(tokio::spawn(send(self.log.clone(), self.courier.clone(), self.job)));
    }
}

/// Sends what `log` takes in until it is finished and nothing is left.
async fn send(log: Log, courier: Courier, job: JobId) {
    let policy = ExponentialBuilder::new()
        .with_min_delay(AGAIN_FIRST)
        .with_max_delay(AGAIN_MAX)
        .with_jitter()
        .without_max_times();
    let mut delays = policy.build();
    let mut complain_at = None;
    while log.has_more().await {
        let _ = timeout(GATHER, log.is_pressing()).await;
        let batch = log.next_batch(BATCH_BYTES_MAX);
        if batch.is_empty() {
            continue;
        }
        let left = match exchange(&courier, job, batch).await {
            Exchange { left, refused: true } => {
                tracing::warn!(%job, "log chunks are refused: the attempt is not this worker's any more");
                log.refuse();
                left
            }
            Exchange { left, .. } => left,
        };
        if left.is_empty() {
            log.stored();
            delays = policy.build();
            complain_at = None;
            continue;
        }
        let delay = delays.next().unwrap_or(AGAIN_MAX);
        tracing::debug!(%job, chunks = left.len(), ?delay, "log chunks are to be sent again");
        let now = clock::instant();
        if *complain_at.get_or_insert(now + COMPLAIN_EVERY) <= now {
            tracing::error!(%job, "the job's log can't be stored, and its output waits");
            complain_at = Some(now + COMPLAIN_EVERY);
        }
        log.put_back(left);
        sleep(delay).await;
    }
}

/// What came of a batch.
struct Exchange {
    /// To be sent again.
    left: Vec<Sized>,
    /// Whether one was refused: then so are all that follow.
    refused: bool,
}

async fn exchange(courier: &Courier, job: JobId, batch: Vec<Sized>) -> Exchange {
    let (chunks, sizes): (Vec<Chunk>, Vec<usize>) = batch.into_iter().map(|sized| (sized.chunk, sized.json)).unzip();
    let (shard, worker) = (job.shard(), courier.worker);
    let batch = LogBatch { worker, chunks };
    let reply = courier.ask_owner::<LogReply>(shard, &Address::Log(shard, worker), &batch, ANSWER_WITHIN).await;
    let answers = match reply {
        Ok(reply) => reply.answers,
        Err(error) => {
            tracing::debug!(%error, "sending log chunks");
            Vec::new()
        }
    };
    let refused = answers.contains(&LogAnswer::Refused);
    // A chunk without an answer is in doubt: said twice it is stored once.
    let answers = answers.into_iter().chain(std::iter::repeat(LogAnswer::TryAgain));
    let left = batch.chunks.into_iter().zip(sizes).zip(answers);
    let left = left.filter(|(_, answer)| *answer == LogAnswer::TryAgain);
    Exchange { left: left.map(|((chunk, json), _)| Sized { chunk, json }).collect(), refused }
}
