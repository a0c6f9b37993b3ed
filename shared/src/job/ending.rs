//! What a worker's words make of a job, and how attempts and jobs end.

use super::apply::Move;
use super::event::{EventKind, ScheduledFor};
use super::{
    AttemptEnd, Canceled, Canceling, Failure, GivenBack, Hold, Job, KeyAnswer, Offer, Progress, Rejection, State,
    StopOrder, Told, WorkerMessage, WorkerWord, retry,
};
use crate::id::{Actor, ClaimId};
use crate::log::LogSummary;
use crate::spec::OnMissing;
use crate::time::{Period, Time};

impl Hold {
    pub(super) fn stop(&self, job: &Job, grace: Period) -> StopOrder {
        StopOrder { job: job.id, attempt: job.attempt, worker: self.worker, instance: self.instance, grace }
    }

    /// The hold after report `number`, which must be the next: what a failed commit left out would count as a repeat
    /// once a later report was taken.
    fn reported(&self, number: u32) -> Result<Self, Rejection> {
        if number == self.reports.saturating_add(1) {
            Ok(Self { reports: number, ..self.clone() })
        } else {
            Err(Rejection::Early)
        }
    }
}

impl Job {
    /// A word about a live attempt that nobody has cancelled.
    pub(super) fn heard(&self, hold: &Hold, said: WorkerMessage, now: Time) -> Result<Move, Rejection> {
        self.by_holder(&said)?;
        let moved = Move::of(self, Actor::Worker(said.worker), now);
        let preparing = matches!(self.state, State::Assigned(_));
        Ok(match said.word {
            WorkerWord::Decline { claim, why } => {
                may_decline(hold, claim)?;
                let mut moved = moved.told(LogSummary::default()).event(EventKind::Declined { why });
                moved.job.started_at = None;
                moved.queued()
            }
            WorkerWord::Park { key, wait, log } => {
                if !preparing {
                    return Err(Rejection::Begun);
                }
                // A worker has a say in how long, within what the job says; for which key, and whether at all, it has none.
                let named =
                    self.spec.deploy_key().filter(|named| named.name == key && named.on_missing == OnMissing::Park);
                let until = now.plus(wait.min(named.ok_or(Rejection::NoKey)?.wait));
                let mut moved = moved;
                moved.job.given_back = None;
                moved.told(log).event(EventKind::Blocked { key: key.clone(), until }).at(State::Blocked { key, until })
            }
            WorkerWord::GiveBack { log } => {
                if !preparing {
                    return Err(Rejection::Begun);
                }
                self.spec.deploy_key().ok_or(Rejection::NoKey)?;
                moved.told(log).given_back()
            }
            WorkerWord::Progress { number, .. } if number <= hold.reports => moved,
            WorkerWord::Progress { number, progress } => {
                let hold = hold.reported(number)?;
                let starts = preparing && matches!(progress, Progress::StepStarted { .. });
                match (starts, preparing) {
                    (true, _) => moved.started(hold),
                    (false, true) => moved.at(State::Assigned(hold)),
                    (false, false) => moved.at(State::Running(hold)),
                }
                .progressed(progress)
            }
            WorkerWord::End { end, log } => {
                let moved = moved.told(log);
                match end {
                    AttemptEnd::Succeeded => moved.event(EventKind::Succeeded {}).at(State::Succeeded),
                    AttemptEnd::Failed { failure } => moved.attempt_failed(failure, None),
                    AttemptEnd::Stopped => {
                        let message = "the worker was shut down and stopped the attempt".to_owned();
                        moved.attempt_failed(Failure::WorkerLost { message }, None)
                    }
                }
            }
        })
    }

    /// A word about an attempt whose cancel is committed: whatever it says, the job ends as canceled.
    pub(super) fn heard_canceling(
        &self,
        hold: &Hold,
        cancel: &Canceling,
        said: WorkerMessage,
        now: Time,
    ) -> Result<Move, Rejection> {
        self.by_holder(&said)?;
        let moved = Move::of(self, Actor::Worker(said.worker), now);
        Ok(match said.word {
            WorkerWord::Decline { claim, why } => {
                may_decline(hold, claim)?;
                let moved = moved.told(LogSummary::default()).event(EventKind::Declined { why });
                moved.canceled(cancel.ended(true), None)
            }
            WorkerWord::Park { log, .. } | WorkerWord::GiveBack { log } => {
                moved.told(log).canceled(cancel.ended(true), None)
            }
            WorkerWord::Progress { number, .. } if number <= hold.reports => moved,
            WorkerWord::Progress { number, progress } => {
                let hold = hold.reported(number)?;
                moved.at(State::Canceling { hold, cancel: cancel.clone() }).progressed(progress)
            }
            WorkerWord::End { end: AttemptEnd::Stopped, log } => moved.told(log).canceled(cancel.ended(true), None),
            WorkerWord::End { end, log } => {
                moved.told(log.clone()).event(EventKind::LateReport { end, log }).canceled(cancel.ended(true), None)
            }
        })
    }

    /// A word about the last attempt of a terminal job: its end is noted once, everything else is too late.
    pub(super) fn heard_late(&self, said: WorkerMessage, now: Time) -> Result<Move, Rejection> {
        self.by_holder(&said)?;
        let moved = Move::of(self, Actor::Worker(said.worker), now);
        match said.word {
            WorkerWord::End { .. } if self.last_attempt_told() => Ok(moved),
            WorkerWord::End { end, log } => Ok(moved.told(log.clone()).event(EventKind::LateReport { end, log })),
            WorkerWord::Park { .. } | WorkerWord::GiveBack { .. } if self.last_attempt_told() => Ok(moved),
            WorkerWord::Park { log, .. } | WorkerWord::GiveBack { log } => {
                let end = AttemptEnd::Stopped;
                Ok(moved.told(log.clone()).event(EventKind::LateReport { end, log }))
            }
            WorkerWord::Decline { .. } | WorkerWord::Progress { .. } => Err(Rejection::Stale),
        }
    }

    fn by_holder(&self, said: &WorkerMessage) -> Result<(), Rejection> {
        self.current(said.attempt)?;
        if self.worker == Some(said.worker) { Ok(()) } else { Err(Rejection::Stale) }
    }
}

/// Whether the attempt can be declined: nothing of it was told, and it wasn't granted to another claim than that one.
fn may_decline(hold: &Hold, claim: Option<ClaimId>) -> Result<(), Rejection> {
    if claim.is_some_and(|claim| claim != hold.claim) {
        return Err(Rejection::Stale);
    }
    if hold.reports == 0 { Ok(()) } else { Err(Rejection::Begun) }
}

impl Move {
    fn progressed(mut self, progress: Progress) -> Self {
        let name = |job: &Job, step: u32| {
            let step = usize::try_from(step).ok()?;
            job.spec.steps.get(step)?.name.clone()
        };
        let kind = match progress {
            Progress::KeyTry { number, answer, why, next_in } => {
                if answer == KeyAnswer::Sealed {
                    self.job.given_back = None;
                }
                EventKind::KeyTry { number, answer, why, next_in }
            }
            Progress::CheckedOut { commit } => {
                self.job.commit.get_or_insert_with(|| commit.clone());
                EventKind::CheckedOut { commit }
            }
            Progress::StepStarted { step } => EventKind::StepStarted { step, name: name(&self.job, step) },
            Progress::StepFinished { step, exit } => {
                EventKind::StepFinished { step, name: name(&self.job, step), exit }
            }
        };
        self.event(kind)
    }

    fn told(mut self, log: LogSummary) -> Self {
        self.job.told = Some(Told { attempt: self.job.attempt, log });
        self
    }

    /// Nobody could say whether the deploy key is there: the job is offered again after a while, without a try, until that
    /// has gone on for as long as it may be queued.
    fn given_back(mut self) -> Self {
        let now = self.now;
        let given = self.job.given_back.map_or(GivenBack { since: now, times: 1 }, |given| GivenBack {
            times: given.times.saturating_add(1),
            ..given
        });
        self.job.given_back = Some(given);
        if self.job.gave_up_on_key(now) {
            return self.failed(Failure::Expired, None, None);
        }
        let delay = retry::backoff(&self.job, given.times - 1);
        let until = now.plus(delay).min(given.since.plus(self.job.spec.queue_timeout));
        self.scheduled(until, ScheduledFor::KeyUnavailable)
    }

    /// The attempt is over without success: retried where the job's policy says so, otherwise the job has failed.
    pub(super) fn attempt_failed(mut self, failure: Failure, stop: Option<StopOrder>) -> Self {
        let tries = self.job.tries + 1;
        self.job.tries = tries;
        let stop = match (&failure, stop) {
            (Failure::WorkerLost { message }, Some(stop)) => {
                self = self.event(EventKind::WorkerLost { message: message.clone(), stop });
                None
            }
            (_, stop) => stop,
        };
        let Some(delay) = retry::delay(&self.job, &failure, tries) else {
            return self.failed(failure, stop, None);
        };
        let until = self.now.plus(delay);
        let moved = self.event(EventKind::Retried { failure, delay, stop });
        if delay == Period::ZERO { moved.queued() } else { moved.scheduled(until, ScheduledFor::Backoff) }
    }

    pub(super) fn failed(self, failure: Failure, stop: Option<StopOrder>, offer: Option<Offer>) -> Self {
        self.event(EventKind::Failed { failure: failure.clone(), stop, offer }).at(State::Failed { failure })
    }

    pub(super) fn canceled(self, canceled: Canceled, offer: Option<Offer>) -> Self {
        self.event(EventKind::Canceled { canceled: canceled.clone(), offer }).at(State::Canceled { canceled })
    }
}
