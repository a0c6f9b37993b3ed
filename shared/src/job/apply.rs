//! The one transition function. It promises:
//!
//! 1. A terminal job keeps its state, outcome and attempt; a late word of its worker is noted, once.
//! 2. A job cancelled before its claim never starts.
//! 3. A word about an attempt that isn't current changes nothing.
//! 4. A repeat of anything changes nothing.
//! 5. Version and event numbers grow by one, without a gap.
//! 6. Every state but a terminal one has a time at which it is left, whatever else doesn't happen.
//! 7. A job that was cancelled is never retried.

use std::sync::Arc;

use super::event::{Event, EventKind, ScheduledFor};
use super::{Cancel, Canceled, Canceling, Claim, Command, Failure, Hold, Job, Limit, Rejection, STOP_MARGIN, State};
use crate::id::{Actor, Attempt, Fence, JobId, Seq, Version};
use crate::spec::JobSpec;
use crate::time::{Period, Time};

/// A job's next form and what happened on the way. Without events there is nothing to commit: all was so already.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    pub job: Job,
    pub events: Vec<Event>,
}

impl Transition {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Goes on with what has followed: both are one change then.
    pub fn then(&mut self, next: Self) {
        if !next.is_empty() {
            self.job = next.job;
            self.events.extend(next.events);
        }
    }

    /// Whether it grants an attempt, so that the store draws a fence with it.
    pub fn grants(&self) -> bool {
        self.events.iter().any(|event| matches!(event.kind, EventKind::Assigned { .. }))
    }
}

/// A new job: scheduled where its `run_at` is still to come, queued otherwise.
pub fn submit(
    id: JobId,
    spec: Arc<JobSpec>,
    has_secrets: bool,
    retry_of: Option<JobId>,
    by: Actor,
    now: Time,
) -> Transition {
    let run_at = spec.run_at.filter(|run_at| *run_at > now);
    let job = Job {
        id,
        spec,
        has_secrets,
        retry_of,
        version: Version::default(),
        seq: Seq::default(),
        attempt: Attempt::default(),
        worker: None,
        told: None,
        tries: 0,
        given_back: None,
        fence: Fence::default(),
        commit: None,
        created_at: now,
        queued_at: None,
        started_at: None,
        finished_at: None,
        state: State::Scheduled { until: now },
    };
    let moving = Move::of(&job, by, now).event(EventKind::Submitted { retry_of });
    match run_at {
        Some(until) => moving.scheduled(until, ScheduledFor::RunAt),
        None => moving.queued(),
    }
    .done()
}

impl Job {
    /// What `command` makes of the job at `now`.
    ///
    /// # Errors
    /// Why it changes nothing, where whoever sent it should know.
    pub fn apply(&self, command: Command, now: Time) -> Result<Transition, Rejection> {
        use State as S;
        let by_itself = || Move::of(self, Actor::Coordinator, now);
        let due = self.state.wake_at().is_some_and(|at| now >= at);
        let moved = match (&self.state, command) {
            (_, Command::Wake) if !due => by_itself(),
            (S::Scheduled { .. }, Command::Wake) => self.scheduled_time_came(now),
            (S::Blocked { key, .. }, Command::Wake) => by_itself().failed(missing(key), None, None),
            (S::Queued { .. }, Command::Wake) => by_itself().failed(Failure::Expired, None, Some(self.offer())),
            (S::Assigned(hold) | S::Running(hold), Command::Wake) => {
                let stop = hold.stop(self, Period::ZERO);
                by_itself().attempt_failed(Failure::TimedOut { limit: Limit::Job }, Some(stop))
            }
            (S::Canceling { cancel, .. }, Command::Wake) => by_itself().canceled(cancel.ended(false), None),

            (S::Queued { .. }, Command::Claim(claim)) => self.granted(&claim, now)?,
            (S::Assigned(hold) | S::Running(hold), Command::Claim(claim)) => {
                let repeated = (hold.claim, hold.worker, self.attempt) == (claim.claim, claim.worker, claim.attempt);
                if !repeated {
                    return Err(Rejection::NotQueued);
                }
                self.sealable(&claim)?;
                by_itself()
            }
            (S::Scheduled { .. } | S::Blocked { .. } | S::Canceling { .. }, Command::Claim(_))
            | (S::Succeeded | S::Failed { .. } | S::Canceled { .. }, Command::Claim(_)) => {
                return Err(Rejection::NotQueued);
            }

            (S::Assigned(hold) | S::Running(hold), Command::Worker(said)) => self.heard(hold, said, now)?,
            (S::Canceling { hold, cancel }, Command::Worker(said)) => self.heard_canceling(hold, cancel, said, now)?,
            (S::Succeeded | S::Failed { .. } | S::Canceled { .. }, Command::Worker(said)) => {
                self.heard_late(said, now)?
            }
            (S::Scheduled { .. } | S::Blocked { .. } | S::Queued { .. }, Command::Worker(_)) => {
                return Err(Rejection::Stale);
            }

            (S::Scheduled { .. } | S::Blocked { .. }, Command::Cancel(cancel)) => {
                self.cancel_at_once(&cancel, None, now)
            }
            (S::Queued { .. }, Command::Cancel(cancel)) => self.cancel_at_once(&cancel, Some(self.offer()), now),
            (S::Assigned(hold) | S::Running(hold), Command::Cancel(cancel)) => self.cancel(hold, cancel, now),
            (S::Canceling { hold, cancel: first }, Command::Cancel(again)) => self.shorten(hold, first, again, now),
            (S::Succeeded | S::Failed { .. } | S::Canceled { .. }, Command::Cancel(_)) => by_itself(),

            (S::Assigned(hold) | S::Running(hold), Command::WorkerLost { attempt, message }) => {
                self.current(attempt)?;
                by_itself().attempt_failed(Failure::WorkerLost { message }, Some(hold.stop(self, Period::ZERO)))
            }
            (S::Canceling { hold, cancel }, Command::WorkerLost { attempt, message }) => {
                self.current(attempt)?;
                let lost = EventKind::WorkerLost { message, stop: hold.stop(self, Period::ZERO) };
                by_itself().event(lost).canceled(cancel.ended(false), None)
            }
            (S::Scheduled { .. } | S::Blocked { .. } | S::Queued { .. }, Command::WorkerLost { .. })
            | (S::Succeeded | S::Failed { .. } | S::Canceled { .. }, Command::WorkerLost { .. }) => {
                return Err(Rejection::Stale);
            }

            (S::Blocked { key, .. }, Command::KeyRegistered { key: registered }) if *key == registered => {
                by_itself().queued()
            }
            (S::Blocked { .. } | S::Scheduled { .. } | S::Queued { .. }, Command::KeyRegistered { .. })
            | (S::Assigned(_) | S::Running(_) | S::Canceling { .. }, Command::KeyRegistered { .. })
            | (S::Succeeded | S::Failed { .. } | S::Canceled { .. }, Command::KeyRegistered { .. })
            | (S::Succeeded | S::Failed { .. } | S::Canceled { .. }, Command::Wake) => by_itself(),
        };
        Ok(moved.done())
    }

    fn granted(&self, claim: &Claim, now: Time) -> Result<Move, Rejection> {
        if claim.expires < now {
            return Err(Rejection::Late);
        }
        if claim.attempt != self.attempt.next() {
            return Err(Rejection::Stale);
        }
        self.sealable(claim)?;
        let spec = &self.spec;
        let hold = Hold {
            worker: claim.worker,
            instance: claim.instance,
            claim: claim.claim,
            deadline: now.plus(spec.timeout).plus(spec.grace).plus(STOP_MARGIN),
            reports: 0,
        };
        let assigned = EventKind::Assigned { worker: claim.worker, instance: claim.instance };
        let mut moved = Move::of(self, Actor::Worker(claim.worker), now);
        moved.job.attempt = claim.attempt;
        moved.job.worker = Some(claim.worker);
        moved.job.started_at = None;
        moved = moved.event(assigned);
        Ok(if spec.needs_preparation() { moved.at(State::Assigned(hold)) } else { moved.started(hold) })
    }

    /// Whether all that a grant holds can be given to whoever claims.
    fn sealable(&self, claim: &Claim) -> Result<(), Rejection> {
        if self.has_secrets && !claim.has_recipient { Err(Rejection::Unsealable) } else { Ok(()) }
    }

    fn scheduled_time_came(&self, now: Time) -> Move {
        let moved = Move::of(self, Actor::Coordinator, now);
        if self.gave_up_on_key(now) { moved.failed(Failure::Expired, None, None) } else { moved.queued() }
    }

    /// Whether it has been given back, for want of an answer about its deploy key, for as long as it may be queued.
    pub(super) fn gave_up_on_key(&self, now: Time) -> bool {
        self.given_back.is_some_and(|given| now >= given.since.plus(self.spec.queue_timeout))
    }

    pub(super) fn current(&self, attempt: Attempt) -> Result<(), Rejection> {
        if attempt == self.attempt { Ok(()) } else { Err(Rejection::Stale) }
    }

    fn cancel_at_once(&self, cancel: &Cancel, offer: Option<super::Offer>, now: Time) -> Move {
        let confirmed = self.attempt == Attempt::default() || self.last_attempt_told();
        let canceled = Canceled { by: cancel.by.clone(), at: now, why: cancel.why.clone(), confirmed };
        Move::of(self, cancel.by.clone(), now).event(cancel.requested()).canceled(canceled, offer)
    }

    fn cancel(&self, hold: &Hold, cancel: Cancel, now: Time) -> Move {
        let grace = cancel.wanted_grace().unwrap_or(self.spec.grace);
        let requested = cancel.requested();
        let stop = hold.stop(self, grace);
        let state = State::Canceling {
            hold: hold.clone(),
            cancel: Canceling { by: cancel.by.clone(), at: now, why: cancel.why, grace_ends: now.plus(grace) },
        };
        Move::of(self, cancel.by, now).event(requested).event(EventKind::Canceling { stop }).at(state)
    }

    /// A cancel after the first: it counts only where it ends the grace sooner.
    fn shorten(&self, hold: &Hold, first: &Canceling, again: Cancel, now: Time) -> Move {
        let requested = again.requested();
        let grace = again.wanted_grace();
        let moved = Move::of(self, again.by, now);
        match grace.filter(|grace| now.plus(*grace) < first.grace_ends) {
            None => moved,
            Some(grace) => {
                let cancel = Canceling { grace_ends: now.plus(grace), ..first.clone() };
                let stop = EventKind::Canceling { stop: hold.stop(self, grace) };
                moved.event(requested).event(stop).at(State::Canceling { hold: hold.clone(), cancel })
            }
        }
    }
}

impl Cancel {
    fn requested(&self) -> EventKind {
        EventKind::CancelRequested { why: self.why.clone(), force: self.force, grace: self.grace }
    }

    fn wanted_grace(&self) -> Option<Period> {
        if self.force { Some(Period::ZERO) } else { self.grace }
    }
}

impl Canceling {
    pub(super) fn ended(&self, confirmed: bool) -> Canceled {
        Canceled { by: self.by.clone(), at: self.at, why: self.why.clone(), confirmed }
    }
}

pub(super) fn missing(key: &str) -> Failure {
    let message = format!("the deploy key {key} was not registered in time (`windlass key add {key}` registers it)");
    Failure::DeployKeyMissing { message }
}

/// A job on its way to its next form.
pub(super) struct Move {
    pub(super) job: Job,
    events: Vec<Event>,
    actor: Actor,
    pub(super) now: Time,
}

impl Move {
    pub(super) fn of(job: &Job, actor: Actor, now: Time) -> Self {
        Self { job: job.clone(), events: Vec::new(), actor, now }
    }

    pub(super) fn event(mut self, kind: EventKind) -> Self {
        self.job.seq = self.job.seq.next();
        let Job { id, seq, attempt, .. } = self.job;
        self.events.push(Event { job: id, seq, at: self.now, attempt, actor: self.actor.clone(), kind });
        self
    }

    pub(super) fn at(mut self, state: State) -> Self {
        if state.name().is_terminal() {
            self.job.finished_at = Some(self.now);
        }
        self.job.state = state;
        self
    }

    pub(super) fn queued(mut self) -> Self {
        let limit = self.job.spec.queue_timeout;
        let expires = self.now.plus(limit);
        // However often it is given back, that comes to an end.
        let expires = self.job.given_back.map_or(expires, |given| expires.min(given.since.plus(limit)));
        self.job.queued_at = Some(self.now);
        let offer = self.job.offer();
        self.event(EventKind::Queued { offer, expires }).at(State::Queued { expires })
    }

    pub(super) fn scheduled(self, until: Time, why: ScheduledFor) -> Self {
        self.event(EventKind::Scheduled { until, why }).at(State::Scheduled { until })
    }

    pub(super) fn started(mut self, hold: Hold) -> Self {
        self.job.started_at = Some(self.now);
        self.event(EventKind::Started {}).at(State::Running(hold))
    }

    fn done(mut self) -> Transition {
        if !self.events.is_empty() {
            self.job.version = self.job.version.next();
        }
        Transition { job: self.job, events: self.events }
    }
}
