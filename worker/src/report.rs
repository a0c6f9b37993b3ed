//! A worker's reports to the owners of its jobs' shards: sent until each has its answer.
//!
//! A report is said again after any failure. That is harmless: the coordinator knows claims by their id, progress by its
//! number and an end by its attempt. What waits for one owner goes in few messages, see [`outbox`].

use std::time::{Duration, Instant};

use shared::clock;
use shared::id::{Attempt, ClaimId, JobId};
use shared::job::Progress;
use shared::wire::{Answer, Report, ReportKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout_at;

use crate::courier::Courier;
use outbox::Outbox;

pub mod outbox;

/// How long a decline is said again: by then the attempt's lease has ended it.
const DECLINE_WITHIN: Duration = Duration::from_secs(15);
/// The most reports of progress that are taken from an attempt's queue at once.
const BATCH_MAX: usize = 64;

/// Reports for one start of a worker. Clones are the same reporter.
#[derive(Clone)]
pub struct Reporter {
    pub courier: Courier,
    outbox: Outbox,
}

impl Reporter {
    /// Nothing is reported yet.
    pub fn new(courier: Courier) -> Self {
        Self { outbox: Outbox::new(courier.clone()), courier }
    }

    /// Says a report until `until`, and returns its answer; none where there was none that settles it.
    pub async fn by(&self, report: Report, until: Instant) -> Option<Answer> {
        let answer = self.outbox.put(report, Some(until));
        timeout_at(until.into(), answer).await.ok()?.ok()
    }

    /// Says these, all of one job, in order, until each is taken or refused for good. It tries for as long as nobody answers: the
    /// job's own timers bound what waits for it.
    pub async fn until_answered(&self, reports: Vec<Report>) {
        let waiting: Vec<_> = reports
            .into_iter()
            .map(|report| {
                let (job, attempt) = (report.job, report.attempt);
                (job, attempt, self.outbox.put(report, None))
            })
            .collect();
        for (job, attempt, answer) in waiting {
            note(job, attempt, answer).await;
        }
    }

    /// Says that the grant of `claim` isn't wanted, or without one that the attempt never starts here. Should nobody hear
    /// it, the attempt's lease ends it.
    pub async fn decline(&self, job: JobId, attempt: Attempt, claim: Option<ClaimId>, why: &str) {
        tracing::info!(%job, %attempt, why, "declining a grant");
        let report = Report { job, attempt, what: ReportKind::Decline { claim, why: why.to_owned() } };
        if self.by(report, clock::instant() + DECLINE_WITHIN).await.is_none() {
            tracing::warn!(%job, %attempt, "nobody has heard that a grant is declined");
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
        reporter.until_answered(batch.drain(..).map(number).collect()).await;
    }
}

async fn note(job: JobId, attempt: Attempt, answer: oneshot::Receiver<Answer>) {
    match answer.await {
        Ok(Answer::Taken | Answer::TryAgain) => {}
        Ok(Answer::Refused { why }) => tracing::info!(%job, %attempt, %why, "a report was refused"),
        Ok(Answer::Unknown) => tracing::warn!(%job, %attempt, "a report is about a job that nobody knows"),
        Ok(Answer::Granted(_)) => tracing::warn!(%job, %attempt, "a grant answers a report that isn't a claim"),
        Err(_) => tracing::error!(%job, %attempt, "a report was given up: it can't be sent"),
    }
}
