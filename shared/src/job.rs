//! A job as its supervisor holds it: what was asked for, where it stands, and what it still waits for.
//!
//! [`Job::apply`] is the one way from one state to the next; [`Event::outgoing`] the one source of messages. Neither
//! reads a clock, draws randomness or does I/O.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{Actor, Attempt, ClaimId, CommitId, Fence, Instance, JobId, Seq, Version, WorkerId};
use crate::log::LogSummary;
use crate::spec::JobSpec;
use crate::time::{Period, Time};

mod apply;
mod command;
mod ending;
mod event;
mod key;
mod outcome;
mod outgoing;
mod retry;

pub use apply::{Transition, submit};
pub use command::{AttemptEnd, Cancel, Claim, Command, Progress, Rejection, WorkerMessage, WorkerWord};
pub use event::{Event, EventKind, Offer, ScheduledFor, StopOrder};
pub use key::{GivenBack, KeyAnswer, KeyAsker, KeyRefusal};
pub use outcome::{Canceled, Exit, Failure, Limit, OutcomeView};
pub use outgoing::Message;

/// From the end of a grace to the moment at which the coordinator stops waiting for the worker's word.
pub const STOP_MARGIN: Period = Period::from_secs(5);

/// One job. Everything in it is committed: a supervisor swaps it for the next only after the commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    pub id: JobId,
    pub spec: Arc<JobSpec>,
    /// Whether the store holds secrets for it.
    pub has_secrets: bool,
    /// The job that this one repeats by hand.
    pub retry_of: Option<JobId>,
    /// How many transitions are committed.
    pub version: Version,
    /// The number of its last event.
    pub seq: Seq,
    /// The number of its last grant.
    pub attempt: Attempt,
    /// The worker of its last grant.
    pub worker: Option<WorkerId>,
    /// What a worker has last told of an attempt's end.
    pub told: Option<Told>,
    /// How many attempts have ended that count against `max_attempts`.
    pub tries: u32,
    /// That it was given back for want of an answer about its deploy key, and has had none since.
    pub given_back: Option<GivenBack>,
    /// The fence of the last grant, drawn by the store in the grant's own transaction.
    pub fence: Fence,
    /// What the ref was resolved to, once; every attempt builds it.
    pub commit: Option<CommitId>,
    pub created_at: Time,
    /// When it was last queued.
    pub queued_at: Option<Time>,
    /// When the current or last attempt reached its first step.
    pub started_at: Option<Time>,
    /// When it became terminal.
    pub finished_at: Option<Time>,
    pub state: State,
}

/// Where a job stands, with what only that state knows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum State {
    /// Waits for a time.
    Scheduled {
        until: Time,
    },
    /// Waits for the deploy key of that name, until its wait limit.
    Blocked {
        key: String,
        until: Time,
    },
    /// An offer is out, until `queue_timeout` has passed.
    Queued {
        expires: Time,
    },
    /// A worker holds the attempt and prepares.
    Assigned(Hold),
    /// Steps run.
    Running(Hold),
    /// A cancel is committed, the worker is told to stop.
    Canceling {
        hold: Hold,
        cancel: Canceling,
    },
    Succeeded,
    Failed {
        failure: Failure,
    },
    Canceled {
        canceled: Canceled,
    },
}

/// A worker's hold on the current attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub worker: WorkerId,
    pub instance: Instance,
    pub claim: ClaimId,
    /// When the coordinator ends the attempt itself: timeout, grace and margin after the grant.
    pub deadline: Time,
    /// The number of the last report that was taken: a repeat changes nothing.
    pub reports: u32,
}

/// That the end of an attempt was told, and what its log amounts to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub attempt: Attempt,
    pub log: LogSummary,
}

/// A cancel that the worker has yet to confirm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canceling {
    pub by: Actor,
    pub at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When the grace ends.
    pub grace_ends: Time,
}

impl Canceling {
    /// When the coordinator stops waiting for the worker's word, unless the attempt's own deadline comes first.
    pub fn gives_up(&self) -> Time {
        self.grace_ends.plus(STOP_MARGIN)
    }
}

/// A state's name alone, as the API, the store and the filters say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StateName {
    Scheduled,
    Blocked,
    Queued,
    Assigned,
    Running,
    Canceling,
    Succeeded,
    Failed,
    Canceled,
}

impl StateName {
    /// All of them, in the order of a job's life.
    pub const ALL: [Self; 9] = [
        Self::Scheduled,
        Self::Blocked,
        Self::Queued,
        Self::Assigned,
        Self::Running,
        Self::Canceling,
        Self::Succeeded,
        Self::Failed,
        Self::Canceled,
    ];

    /// The name in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Blocked => "blocked",
            Self::Queued => "queued",
            Self::Assigned => "assigned",
            Self::Running => "running",
            Self::Canceling => "canceling",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
        }
    }

    /// Whether nothing follows.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

impl std::fmt::Display for StateName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for StateName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::as_str).join(", ");
        Self::ALL.into_iter().find(|name| name.as_str() == text).ok_or_else(|| format!("is not one of {}", names()))
    }
}

impl State {
    /// Its name alone.
    pub fn name(&self) -> StateName {
        match self {
            Self::Scheduled { .. } => StateName::Scheduled,
            Self::Blocked { .. } => StateName::Blocked,
            Self::Queued { .. } => StateName::Queued,
            Self::Assigned(_) => StateName::Assigned,
            Self::Running(_) => StateName::Running,
            Self::Canceling { .. } => StateName::Canceling,
            Self::Succeeded => StateName::Succeeded,
            Self::Failed { .. } => StateName::Failed,
            Self::Canceled { .. } => StateName::Canceled,
        }
    }

    /// The worker's hold, while there is a live attempt.
    pub fn hold(&self) -> Option<&Hold> {
        match self {
            Self::Assigned(hold) | Self::Running(hold) | Self::Canceling { hold, .. } => Some(hold),
            Self::Scheduled { .. } | Self::Blocked { .. } | Self::Queued { .. } => None,
            Self::Succeeded | Self::Failed { .. } | Self::Canceled { .. } => None,
        }
    }

    /// When the job must be woken if nothing else happens; a terminal job never.
    pub fn wake_at(&self) -> Option<Time> {
        match self {
            Self::Scheduled { until } | Self::Blocked { until, .. } => Some(*until),
            Self::Queued { expires } => Some(*expires),
            Self::Assigned(hold) | Self::Running(hold) => Some(hold.deadline),
            Self::Canceling { hold, cancel } => Some(cancel.gives_up().min(hold.deadline)),
            Self::Succeeded | Self::Failed { .. } | Self::Canceled { .. } => None,
        }
    }
}

impl Job {
    /// Whether nothing follows.
    pub fn is_terminal(&self) -> bool {
        self.state.name().is_terminal()
    }

    /// Whether the worker of the last attempt has said that nothing of it runs any more.
    pub fn last_attempt_told(&self) -> bool {
        self.told.as_ref().is_some_and(|told| told.attempt == self.attempt)
    }

    /// The offer that is out while the job is queued: it names the attempt that its grant would get.
    pub fn offer(&self) -> Offer {
        let Self { id, has_secrets, .. } = *self;
        let (tags, priority) = (self.spec.tags.clone(), self.spec.priority);
        Offer { job: id, attempt: self.attempt.next(), tags, priority, has_secrets }
    }
}
