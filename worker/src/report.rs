//! A worker's reports to the owners of its jobs' shards: sent until each has its answer.
//!
//! A report is said again after any failure. That is harmless: the coordinator knows claims by their id, progress by its
//! number and an end by its attempt. What waits for one owner goes in few messages, see [`outbox`].

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::pending;
use std::time::{Duration, Instant};

use shared::clock;
use shared::id::{Attempt, ClaimId, JobId};
use shared::job::Progress;
use shared::wire::{Answer, Report, ReportKind};
use tokio::sync::{
    mpsc,
    oneshot::{self, error::RecvError},
};
use tokio::time::timeout_at;

use crate::courier::Courier;
use outbox::Outbox;

pub mod outbox;

/// How long a decline is said again: by then the attempt's lease has ended it.
const DECLINE_WITHIN: Duration = Duration::from_secs(15);

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
        let of: Vec<_> = reports.iter().map(|report| (report.job, report.attempt)).collect();
        let answers = self.outbox.put_all(reports.into_iter());
        for ((job, attempt), answer) in of.into_iter().zip(answers) {
            note(job, attempt, &answer.await);
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

/// Tells of one attempt, in order: its progress as it comes, and in the end how it ended.
pub struct Telling {
    reporter: Reporter,
    job: JobId,
    attempt: Attempt,
    queue: mpsc::Receiver<Progress>,
    /// How many reports of progress were given to the outbox.
    told: u32,
    /// Where their answers come that weren't heard yet, in the same order.
    unanswered: VecDeque<oneshot::Receiver<Answer>>,
}

impl Telling {
    /// Nothing is told yet of the progress that comes through `queue`.
    pub fn of(reporter: Reporter, job: JobId, attempt: Attempt, queue: mpsc::Receiver<Progress>) -> Self {
        Self { reporter, job, attempt, queue, told: 0, unanswered: VecDeque::new() }
    }

    /// Tells the progress as it comes, for as long as it is waited for. It may be dropped and called again.
    pub async fn go_on(&mut self) -> Infallible {
        loop {
            tokio::select! {
                Some(progress) = self.queue.recv() => self.say(Some(progress), None),
                answer = first(&mut self.unanswered) => {
                    self.unanswered.pop_front();
                    note(self.job, self.attempt, &answer);
                }
            }
        }
    }

    /// Tells the progress that waits in the queue.
    pub fn catch_up(&mut self) {
        self.say(None, None);
    }

    /// Tells the progress that is left and `end` behind it, until all is taken or refused for good. The outbox keeps their
    /// order, and says them together where nothing else of the job is on its way.
    pub async fn end(mut self, end: Report) {
        self.say(None, Some(end));
        for answer in self.unanswered {
            note(self.job, self.attempt, &answer.await);
        }
    }

    /// Gives these to the outbox together: `first`, what waits in the queue, and `last`.
    fn say(&mut self, first: Option<Progress>, last: Option<Report>) {
        let Self { job, attempt, .. } = *self;
        let waiting = std::iter::from_fn(|| self.queue.try_recv().ok());
        let progress = first.into_iter().chain(waiting).map(|progress| {
            self.told += 1;
            Report { job, attempt, what: ReportKind::Progress { number: self.told, progress } }
        });
        self.unanswered.extend(self.reporter.outbox.put_all(progress.chain(last)));
    }
}

/// The answer that the first of them brings; without one there is none.
async fn first(unanswered: &mut VecDeque<oneshot::Receiver<Answer>>) -> Result<Answer, RecvError> {
    match unanswered.front_mut() {
        Some(answer) => answer.await,
        None => pending().await,
    }
}

fn note(job: JobId, attempt: Attempt, answer: &Result<Answer, RecvError>) {
    match answer {
        Ok(Answer::Taken | Answer::TryAgain) => {}
        Ok(Answer::Refused { why }) => tracing::info!(%job, %attempt, %why, "a report was refused"),
        Ok(Answer::Unknown) => tracing::warn!(%job, %attempt, "a report is about a job that nobody knows"),
        Ok(Answer::Granted(_)) => tracing::warn!(%job, %attempt, "a grant answers a report that isn't a claim"),
        Err(_) => tracing::error!(%job, %attempt, "a report was given up: it can't be sent"),
    }
}
