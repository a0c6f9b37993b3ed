//! How a job can end, in full and as the API shows it.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::State;
use crate::id::Actor;
use crate::time::Time;

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// It ended by itself with that code, 0 to 255.
    ExitCode(u8),
    /// It died of that signal.
    Signal(u8),
}

impl Exit {
    /// Whether it ended with code 0.
    pub fn is_success(self) -> bool {
        self == Self::ExitCode(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExitCode(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
        }
    }
}

/// Which limit a job ran into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// The job's `timeout`.
    Job,
    /// The `timeout` of the step of that index.
    Step(u32),
}

impl fmt::Display for Limit {
    /// The path of the setting in the specification.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job => f.write_str("timeout"),
            Self::Step(step) => write!(f, "steps[{step}].timeout"),
        }
    }
}

/// Why an attempt, and in the end a job, failed: exactly one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Failure {
    StepFailed {
        step: u32,
        #[serde(flatten)]
        exit: Exit,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        message: Option<String>,
    },
    DeployKeyMissing {
        message: String,
    },
    DeployKeyDenied {
        message: String,
    },
    CheckoutFailed {
        /// Whether another try could succeed.
        transient: bool,
        message: String,
    },
    TimedOut {
        limit: Limit,
    },
    WorkerLost {
        message: String,
    },
    /// Queued for longer than `queue_timeout`.
    Expired,
    Internal {
        message: String,
    },
}

/// How a cancel ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canceled {
    pub by: Actor,
    /// When the cancel was committed.
    pub at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Whether the worker of the last attempt has said that nothing of it runs; true as well where no worker ever had
    /// the job.
    pub confirmed: bool,
}

/// A terminal job's outcome as the API shows it: of a failed job the fields from `reason` on, of a canceled one those
/// from `by` on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutcomeView {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The index of the step that failed, from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<u8>,
    /// The setting whose limit was passed, as its path in the specification.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub at: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirmed: Option<bool>,
}

impl fmt::Display for OutcomeView {
    /// Why a job failed, or who canceled it, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.reason.as_deref(), &self.limit, self.step) {
            (Some("step_failed"), _, Some(step)) => match (self.exit_code, self.signal) {
                (Some(code), _) => write!(f, "step {step} ended with exit code {code}")?,
                (None, Some(signal)) => write!(f, "step {step} ended with signal {signal}")?,
                (None, None) => write!(f, "step {step} ended with an error")?,
            },
            (Some("timed_out" | "expired"), Some(limit), _) => write!(f, "its {limit} passed")?,
            (Some(reason), _, _) => f.write_str(reason)?,
            (None, _, _) => self.by.as_ref().map_or(Ok(()), |by| write!(f, "by {by}"))?,
        }
        for detail in [&self.message, &self.why].into_iter().flatten() {
            write!(f, ": {detail}")?;
        }
        if self.confirmed == Some(false) {
            f.write_str(" (its worker has not confirmed it)")?;
        }
        Ok(())
    }
}

impl From<&Failure> for OutcomeView {
    fn from(failure: &Failure) -> Self {
        let view = |reason: &str| Self { reason: Some(reason.to_owned()), ..Self::default() };
        let said = |reason: &str, message: &String| Self { message: Some(message.clone()), ..view(reason) };
        match failure {
            Failure::StepFailed { step, exit, message } => {
                let (exit_code, signal) = match exit {
                    Exit::ExitCode(code) => (Some(*code), None),
                    Exit::Signal(signal) => (None, Some(*signal)),
                };
                Self { step: Some(*step), exit_code, signal, message: message.clone(), ..view("step_failed") }
            }
            Failure::DeployKeyMissing { message } => said("deploy_key_missing", message),
            Failure::DeployKeyDenied { message } => said("deploy_key_denied", message),
            Failure::CheckoutFailed { message, .. } => said("checkout_failed", message),
            Failure::TimedOut { limit } => {
                let step = match limit {
                    Limit::Job => None,
                    Limit::Step(step) => Some(*step),
                };
                Self { step, limit: Some(limit.to_string()), ..view("timed_out") }
            }
            Failure::WorkerLost { message } => said("worker_lost", message),
            Failure::Expired => Self { limit: Some("queue_timeout".to_owned()), ..view("expired") },
            Failure::Internal { message } => said("internal", message),
        }
    }
}

impl From<&Canceled> for OutcomeView {
    fn from(canceled: &Canceled) -> Self {
        Self {
            by: Some(canceled.by.to_string()),
            at: Some(canceled.at),
            why: canceled.why.clone(),
            confirmed: Some(canceled.confirmed),
            ..Self::default()
        }
    }
}

impl State {
    /// The outcome as the API shows it; none before the end, and none for success, which says all by its state.
    pub fn outcome(&self) -> Option<OutcomeView> {
        match self {
            Self::Failed { failure } => Some(failure.into()),
            Self::Canceled { canceled } => Some(canceled.into()),
            Self::Scheduled { .. } | Self::Blocked { .. } | Self::Queued { .. } | Self::Succeeded => None,
            Self::Assigned(_) | Self::Running(_) | Self::Canceling { .. } => None,
        }
    }
}
