//! What a submitter asks for: a job's specification, complete with defaults.
//!
//! [`parse`] makes one from JSON and names every field that it refuses; a value of these types has passed it.
//! The secrets that come with a specification are kept apart from it, in [`Submission`].

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::secret::Secrets;
use crate::time::{Period, Time};

mod deploy_key;
pub mod document;
mod grammar;
mod parse;
pub mod reader;

pub use deploy_key::{DeployKey, History, KEY_TRIES_MAX, KeyBackoff, KeyRetry, OnMissing};
pub use grammar::key_name_fault;
pub use parse::{parse_batch, parse_single};

/// The most bytes of one job's JSON: 256 KiB.
pub const JOB_BYTES_MAX: usize = 256 * 1024;
/// The most jobs of one request.
pub const JOBS_MAX: usize = 1000;
/// The most steps of one job.
pub const STEPS_MAX: usize = 100;
/// The most tags, labels, environment entries or secrets of one job, each.
pub const ENTRIES_MAX: usize = 64;
/// The most bytes of a label's, an environment entry's or a secret's value: 32 KiB.
pub const VALUE_BYTES_MAX: usize = 32 * 1024;
/// The least bytes of a secret's value. Something shorter is guessed in no time and occurs everywhere by chance: masking
/// it in a log would tell what it is and spoil the log.
pub const SECRET_BYTES_MIN: usize = 4;
/// The most bytes of a `run` script: 64 KiB.
pub const RUN_BYTES_MAX: usize = 64 * 1024;
/// The most bytes of a name, a tag, a ref or a label's key.
pub const NAME_BYTES_MAX: usize = 255;
/// The most bytes of a URL: 2 KiB.
pub const URL_BYTES_MAX: usize = 2 * 1024;
/// The most attempts that a job may ask for.
pub const ATTEMPTS_MAX: u32 = 100;

/// One job as it was submitted.
#[derive(Debug, Clone, PartialEq)]
pub struct Submission {
    /// What to do.
    pub spec: JobSpec,
    /// The secrets' values, which never enter the spec.
    pub secrets: Secrets,
    /// Makes a repeated submission return the first job.
    pub idempotency_key: Option<String>,
    /// The SHA-256 of the job's JSON in its canonical form: another body under the same key is refused by it.
    pub hash: [u8; 32],
}

/// What a job is to do, and within which limits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobSpec {
    /// What is checked out before the steps; without one they start in an empty work tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<Repository>,
    /// 1 to 100 steps, run one after the other until one fails.
    pub steps: Vec<Step>,
    /// A worker must have all of these. Sorted, without doubles.
    #[serde(default)]
    pub tags: Vec<String>,
    #[serde(default)]
    pub priority: Priority,
    /// Environment of every step.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// How long one attempt may take, from its grant on.
    #[schema(value_type = String, example = "1h")]
    pub timeout: Period,
    /// From SIGTERM to SIGKILL when the job is stopped.
    #[schema(value_type = String, example = "10s")]
    pub grace: Period,
    /// How long the job may be queued, counted anew whenever it is queued again.
    #[schema(value_type = String, example = "24h")]
    pub queue_timeout: Period,
    /// Not before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-12-01T08:00:00Z")]
    pub run_at: Option<Time>,
    #[serde(default)]
    pub retry: Retry,
    /// What an attempt does when its worker is cut off from the coordinators.
    #[serde(default)]
    pub on_lost_contact: OnLostContact,
    /// The submitter's own words, to find the job by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

impl JobSpec {
    /// Whether an attempt has something to prepare before its first step.
    pub fn needs_preparation(&self) -> bool {
        self.repository.is_some()
    }

    /// How many bytes its longer texts have together: scripts, arguments, environment, labels and tags.
    pub fn text_bytes(&self) -> usize {
        let entries = |map: &BTreeMap<String, String>| map.iter().map(|(name, value)| name.len() + value.len()).sum();
        let steps: usize = self.steps.iter().map(|step| step.action.text_bytes()).sum();
        let [env, labels]: [usize; 2] = [&self.env, &self.labels].map(entries);
        steps + env + labels + self.tags.iter().map(String::len).sum::<usize>()
    }

    /// The deploy key that it names.
    pub fn deploy_key(&self) -> Option<&DeployKey> {
        self.repository.as_ref()?.deploy_key.as_ref()
    }
}

/// Where the work tree comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Repository {
    /// `https://`, `ssh://`, `user@host:path`, `file://` or an absolute path; holds no password.
    pub url: String,
    /// Branch, tag or commit; the repository's HEAD when left out.
    #[serde(rename = "ref", default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// What opens it; a URL of SSH needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deploy_key: Option<DeployKey>,
    /// How much of its history comes along, where it is remote.
    #[serde(default, skip_serializing_if = "History::is_shallow")]
    pub history: History,
    /// Whether its submodules are checked out as well.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub submodules: bool,
}

impl Repository {
    /// The path of a repository on the worker's own host.
    pub fn local_path(&self) -> Option<&str> {
        grammar::local_path(&self.url)
    }
}

/// One step of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Step {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(flatten)]
    pub action: Action,
    /// How long this step may take, as far as the job's timeout lets it; the job's when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "10m")]
    pub timeout: Option<Period>,
}

/// What a step runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A script for `/bin/sh -e -c` in the work tree.
    Run(String),
    /// A program and its arguments, without a shell.
    Exec(Vec<String>),
}

impl Action {
    fn text_bytes(&self) -> usize {
        match self {
            Self::Run(script) => script.len(),
            Self::Exec(argv) => argv.iter().map(String::len).sum(),
        }
    }

    /// The program and its arguments.
    pub fn argv(&self) -> Vec<String> {
        match self {
            Self::Run(script) => ["/bin/sh", "-e", "-c", script].map(str::to_owned).to_vec(),
            Self::Exec(argv) => argv.clone(),
        }
    }
}

/// Which of two waiting jobs a worker takes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    Low,
    #[default]
    Normal,
    High,
    Urgent,
}

impl Priority {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 4] = [Self::Urgent, Self::High, Self::Normal, Self::Low];

    /// Its name in the API, the store and the subjects.
    pub fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
            Self::Urgent => "urgent",
        }
    }
}

impl FromStr for Priority {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|p| p.name() == text).ok_or("is not one of low, normal, high, urgent")
    }
}

/// What an attempt does when its worker is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnLostContact {
    /// It runs on, fenced: it may overlap its successor.
    #[default]
    Run,
    /// It is killed before its lease ends, so that no two attempts overlap.
    Stop,
}

/// When an attempt that failed is followed by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Retry {
    /// 1 to 100, the first run included.
    pub max_attempts: u32,
    #[schema(value_type = Vec<String>, example = json!(["worker_lost", "exit:75"]))]
    pub on: Vec<RetryOn>,
    pub backoff: Backoff,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            on: vec![RetryOn::WorkerLost, RetryOn::CheckoutFailed],
            backoff: Backoff { first: Period::from_secs(1), max: Period::from_secs(60) },
        }
    }
}

/// The wait before a retry: `first`, doubled each time, at most `max`, with jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backoff {
    #[schema(value_type = String, example = "1s")]
    pub first: Period,
    #[schema(value_type = String, example = "60s")]
    pub max: Period,
}

/// A kind of failure that is retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RetryOn {
    WorkerLost,
    /// Where it was transient; a checkout that can't succeed is never retried.
    CheckoutFailed,
    StepFailed,
    TimedOut,
    /// A step that ended with this code.
    Exit(u8),
}

impl fmt::Display for RetryOn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerLost => f.write_str("worker_lost"),
            Self::CheckoutFailed => f.write_str("checkout_failed"),
            Self::StepFailed => f.write_str("step_failed"),
            Self::TimedOut => f.write_str("timed_out"),
            Self::Exit(code) => write!(f, "exit:{code}"),
        }
    }
}

impl FromStr for RetryOn {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = [Self::WorkerLost, Self::CheckoutFailed, Self::StepFailed, Self::TimedOut];
        let digits = text.strip_prefix("exit:").filter(|code| code.bytes().all(|b| b.is_ascii_digit()));
        let code = digits.and_then(|code| code.parse().ok()).filter(|code| *code > 0);
        known
            .into_iter()
            .find(|kind| kind.to_string() == text)
            .or(code.map(Self::Exit))
            .ok_or("is not one of worker_lost, checkout_failed, step_failed, timed_out, exit:N (N from 1 to 255)")
    }
}

impl TryFrom<String> for RetryOn {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RetryOn> for String {
    fn from(on: RetryOn) -> Self {
        on.to_string()
    }
}
