//! What happened to a job. The events are its timeline, its audit and its outbox in one: each holds all that the
//! messages which follow from it need.

use serde::{Deserialize, Serialize};

use super::{AttemptEnd, Canceled, Exit, Failure, KeyAnswer};
use crate::id::{Actor, Attempt, CommitId, Instance, JobId, Seq, WorkerId};
use crate::log::LogSummary;
use crate::spec::Priority;
use crate::time::{Period, Time};

/// One committed fact of a job's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub job: JobId,
    pub seq: Seq,
    pub at: Time,
    /// The last attempt that was granted when it happened; 0 before the first.
    pub attempt: Attempt,
    pub actor: Actor,
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    Submitted {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_of: Option<JobId>,
    },
    Scheduled {
        until: Time,
        why: ScheduledFor,
    },
    Blocked {
        key: String,
        until: Time,
    },
    Queued {
        offer: Offer,
        expires: Time,
    },
    Assigned {
        worker: WorkerId,
        instance: Instance,
    },
    KeyTry {
        /// Counted from 1; tries that nobody answered have a count of their own.
        number: u32,
        answer: KeyAnswer,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        /// The wait before the next try; none where there is none.
        next_in: Option<Period>,
    },
    CheckedOut {
        commit: CommitId,
    },
    Started {},
    StepStarted {
        step: u32,
        name: Option<String>,
    },
    StepFinished {
        step: u32,
        name: Option<String>,
        #[serde(flatten)]
        exit: Exit,
    },
    CancelRequested {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        force: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        grace: Option<Period>,
    },
    Canceling {
        stop: StopOrder,
    },
    Declined {
        why: String,
    },
    WorkerLost {
        message: String,
        stop: StopOrder,
    },
    /// What the worker finally said of an attempt whose fate was already settled.
    LateReport {
        #[serde(flatten)]
        end: AttemptEnd,
        log: LogSummary,
    },
    /// An attempt failed and another follows.
    Retried {
        #[serde(flatten)]
        failure: Failure,
        /// The wait before the next attempt is offered.
        delay: Period,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<StopOrder>,
    },
    Succeeded {},
    Failed {
        #[serde(flatten)]
        failure: Failure,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<StopOrder>,
        /// The offer that is withdrawn.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offer: Option<Offer>,
    },
    Canceled {
        canceled: Canceled,
        /// The offer that is withdrawn.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        offer: Option<Offer>,
    },
}

impl EventKind {
    /// Its name in the API, the store and the subjects.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Submitted { .. } => "submitted",
            Self::Scheduled { .. } => "scheduled",
            Self::Blocked { .. } => "blocked",
            Self::Queued { .. } => "queued",
            Self::Assigned { .. } => "assigned",
            Self::KeyTry { .. } => "key_try",
            Self::CheckedOut { .. } => "checked_out",
            Self::Started {} => "started",
            Self::StepStarted { .. } => "step_started",
            Self::StepFinished { .. } => "step_finished",
            Self::CancelRequested { .. } => "cancel_requested",
            Self::Canceling { .. } => "canceling",
            Self::Declined { .. } => "declined",
            Self::WorkerLost { .. } => "worker_lost",
            Self::LateReport { .. } => "late_report",
            Self::Retried { .. } => "retried",
            Self::Succeeded {} => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Canceled { .. } => "canceled",
        }
    }
}

/// What a job is scheduled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduledFor {
    /// Its `run_at`.
    RunAt,
    /// The wait before a retry.
    Backoff,
    /// The wait after nobody could say whether its deploy key is there.
    KeyUnavailable,
}

/// A queued job's offer to the workers that have its tags.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Offer {
    pub job: JobId,
    /// The attempt that a grant of it would get.
    pub attempt: Attempt,
    pub tags: Vec<String>,
    pub priority: Priority,
    /// Whether the job has secrets, for which a claim needs a key that they can be sealed to. An offer that an older version
    /// made doesn't say: it may have.
    #[serde(default = "may_have")]
    pub has_secrets: bool,
}

fn may_have() -> bool {
    true
}

/// An order to a worker: end that attempt, all of its processes included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopOrder {
    pub job: JobId,
    pub attempt: Attempt,
    pub worker: WorkerId,
    pub instance: Instance,
    /// From SIGTERM to SIGKILL.
    pub grace: Period,
}
