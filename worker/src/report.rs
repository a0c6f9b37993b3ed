//! A worker's reports to the owners of its jobs' shards: sent until each has its answer.
//!
//! A report is said again after any failure. That is harmless: the coordinator knows claims by their id, progress by its
//! number and an end by its attempt.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use shared::bus::{self, Address, Bus};
use shared::id::{Attempt, Instance, JobId, Shard, WorkerId};
use shared::job::Progress;
use shared::wire::{self, Answer, Answers, Report, ReportKind, Reports};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long the answer to reports is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// The waits before reports are said again: from the first, doubling, to the last.
const AGAIN_FIRST: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// The most reports of progress in one message. None of them is longer than a few hundred bytes.
const BATCH_MAX: usize = 64;

/// Speaks for one start of a worker.
#[derive(Clone)]
pub struct Reporter {
    pub bus: Arc<dyn Bus>,
    pub worker: WorkerId,
    pub instance: Instance,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    #[error(transparent)]
    Bus(#[from] bus::Error),
    #[error(transparent)]
    Undecodable(#[from] wire::Undecodable),
    #[error("{given} answers to {said} reports")]
    Miscounted { said: usize, given: usize },
}

impl Reporter {
    /// Says these once, in order, and returns the answer to each.
    pub async fn once(&self, shard: Shard, reports: &[Report], within: Duration) -> Result<Vec<Answer>, NoAnswer> {
        let Self { worker, instance, .. } = *self;
        let message = Reports { worker, instance, reports: reports.to_vec() };
        let body = self.bus.request(&Address::Report(shard, worker), wire::encode(&message), within).await?;
        let Answers { answers } = wire::decode(&body)?;
        if answers.len() == reports.len() {
            Ok(answers)
        } else {
            Err(NoAnswer::Miscounted { said: reports.len(), given: answers.len() })
        }
    }

    /// Says these until each is taken or refused for good. It tries for as long as nobody answers: the job's own
    /// timers bound what waits for it.
    pub async fn until_answered(&self, shard: Shard, mut reports: Vec<Report>) {
        let mut delays = ExponentialBuilder::new()
            .with_min_delay(AGAIN_FIRST)
            .with_max_delay(AGAIN_MAX)
            .with_jitter()
            .without_max_times()
            .build();
        loop {
            match self.once(shard, &reports, ANSWER_WITHIN).await {
                Ok(answers) => {
                    answers.iter().zip(&reports).for_each(|(answer, report)| note(answer, report));
                    // What follows one that isn't settled is said again too, so that the order stays.
                    let settled = answers.iter().take_while(|answer| **answer != Answer::TryAgain).count();
                    reports.drain(..settled);
                    if reports.is_empty() {
                        return;
                    }
                }
                Err(error) => tracing::debug!(%error, %shard, "reports were not answered"),
            }
            let delay = delays.next().unwrap_or(AGAIN_MAX);
            tracing::debug!(%shard, count = reports.len(), ?delay, "reports are to be said again");
            sleep(delay).await;
        }
    }

    /// Says once that a grant isn't wanted. Should nobody hear it, the attempt's lease ends it.
    pub async fn decline(&self, job: JobId, attempt: Attempt, why: &str) {
        tracing::info!(%job, %attempt, why, "declining a grant");
        let report = Report { job, attempt, what: ReportKind::Decline { why: why.to_owned() } };
        if let Err(error) = self.once(job.shard(), &[report], ANSWER_WITHIN).await {
            tracing::warn!(%error, %job, "declining a grant");
        }
    }
}

/// Tells an attempt's progress in order, as it comes, until the queue is closed.
pub async fn progress(reporter: Reporter, job: JobId, attempt: Attempt, mut queue: mpsc::Receiver<Progress>) {
    let mut told = 0;
    let mut batch = Vec::new();
    while queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let number = |progress| {
            told += 1;
            Report { job, attempt, what: ReportKind::Progress { number: told, progress } }
        };
        let reports = batch.drain(..).map(number).collect();
        reporter.until_answered(job.shard(), reports).await;
    }
}

fn note(answer: &Answer, report: &Report) {
    let Report { job, attempt, .. } = report;
    match answer {
        Answer::Taken | Answer::TryAgain => {}
        Answer::Refused { why } => tracing::info!(%job, %attempt, %why, "a report was refused"),
        Answer::Unknown => tracing::warn!(%job, %attempt, "a report is about a job that nobody knows"),
        Answer::Granted(_) => tracing::warn!(%job, %attempt, "a grant answers a report that isn't a claim"),
    }
}
