//! What a job can be told, and why it may refuse.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Exit, Failure, KeyAnswer, OutcomeView};
use crate::id::{Actor, Attempt, ClaimId, CommitId, Instance, WorkerId};
use crate::log::LogSummary;
use crate::time::{Period, Time};

/// Everything that can happen to a job after its submission.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Its timer may have come: the job looks at the time itself.
    Wake,
    /// A worker wants the attempt that an offer named.
    Claim(Claim),
    /// The worker that holds the attempt says something about it.
    Worker(WorkerMessage),
    /// Somebody wants it stopped.
    Cancel(Cancel),
    /// The lease of that attempt ran out, or its worker was started anew.
    WorkerLost { attempt: Attempt, message: String },
    /// The deploy key of that name was registered.
    KeyRegistered { key: String },
}

/// A worker's wish for the attempt that an offer named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub claim: ClaimId,
    pub attempt: Attempt,
    pub worker: WorkerId,
    pub instance: Instance,
    /// Whether it names whom the job's secrets can be sealed to.
    pub has_recipient: bool,
    /// After this the worker has stopped waiting for the answer: the claim is dropped unapplied.
    pub expires: Time,
}

/// A worker's word about an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerMessage {
    pub worker: WorkerId,
    pub attempt: Attempt,
    pub word: WorkerWord,
}

/// What a worker can say about an attempt that it holds.
#[derive(Debug, Clone, PartialEq)]
pub enum WorkerWord {
    /// The grant came late or isn't wanted any more; nothing of it was started, and it has no log. Where it is the grant of
    /// one claim that isn't wanted, that claim is named: the same worker may have claimed the attempt again since. Without
    /// one, the worker starts the attempt on no claim.
    Decline { claim: Option<ClaimId>, why: String },
    /// Report `number` of the attempt, counted from 1: a repeat changes nothing, and one whose predecessor is missing
    /// is refused as [`Rejection::Early`].
    Progress { number: u32, progress: Progress },
    /// The deploy key isn't there and nothing of the attempt runs: let the worker go, and wait for the key for at
    /// most `wait`.
    Park { key: String, wait: Period, log: LogSummary },
    /// Nobody could say whether the deploy key is there; nothing of the attempt runs: let the worker go, and offer the job
    /// again after a while.
    GiveBack { log: LogSummary },
    /// The attempt is over and nothing of it runs any more.
    End { end: AttemptEnd, log: LogSummary },
}

/// What a worker tells of an attempt on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Progress {
    /// A try to fetch the deploy key: which one, its answer, why, and the wait before the next one, if there is one.
    KeyTry {
        /// Counted from 1; tries that nobody answered have a count of their own.
        number: u32,
        answer: KeyAnswer,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        why: Option<String>,
        next_in: Option<Period>,
    },
    /// The ref was resolved to this commit, which stands in the work tree.
    CheckedOut { commit: CommitId },
    /// The step of that index was started.
    StepStarted { step: u32 },
    /// The step of that index ended.
    StepFinished { step: u32, exit: Exit },
}

/// How an attempt ended, in the worker's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "end", rename_all = "snake_case")]
pub enum AttemptEnd {
    Succeeded,
    Failed {
        failure: Failure,
    },
    /// It was told to stop, and did.
    Stopped,
}

impl fmt::Display for AttemptEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Succeeded => f.write_str("succeeded"),
            Self::Failed { failure } => write!(f, "failed: {}", OutcomeView::from(failure)),
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// A wish to stop a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cancel {
    pub by: Actor,
    pub why: Option<String>,
    /// Skips the grace.
    pub force: bool,
    /// In place of the specification's.
    pub grace: Option<Period>,
}

/// Why a command changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// It speaks of an attempt that isn't the job's current one, or by a worker that doesn't hold it.
    #[error("the attempt is not current")]
    Stale,
    /// The job isn't queued, so there is nothing to claim.
    #[error("the job is not queued")]
    NotQueued,
    /// The claim's deadline has passed.
    #[error("the claim came after its deadline")]
    Late,
    /// The job has secrets, and the claim names nobody whom they could be sealed to.
    #[error("the claim can't be given the job's secrets")]
    Unsealable,
    /// The attempt is already under way, so it can't be given back.
    #[error("the attempt has already begun")]
    Begun,
    /// The job names no such deploy key, or isn't to wait for it.
    #[error("the job waits for no such deploy key")]
    NoKey,
    /// The report before it isn't committed. The one refusal that isn't for good: said again in order, it is taken.
    #[error("the report before it is missing")]
    Early,
}
