//! What the API shows of a job: the form in which the server writes it and the client reads it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use utoipa::ToSchema;

use crate::id::{Instance, JobId, WorkerId};
use crate::job::{Event, Job, OutcomeView, StateName};
use crate::spec::{JobSpec, Priority};
use crate::time::Time;
use crate::wire::WorkerMode;

pub mod explanation;

/// A job as the API shows it. Secrets are in none of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    #[schema(value_type = String, format = Uuid)]
    pub id: JobId,
    pub state: StateName,
    /// The number of its last attempt; 0 before the first.
    pub attempt: u32,
    pub priority: Priority,
    pub tags: Vec<String>,
    pub labels: BTreeMap<String, String>,
    #[schema(value_type = JobSpec)]
    pub spec: Arc<JobSpec>,
    /// The commit that its ref was resolved to.
    pub commit: Option<String>,
    /// The worker of its last attempt.
    pub worker: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub queued_at: Option<Time>,
    /// When its last attempt reached its first step.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub started_at: Option<Time>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Time>,
    /// Why it failed, or who canceled it; null for all others.
    pub outcome: Option<OutcomeView>,
    /// The job that it repeats.
    #[schema(value_type = Option<String>, format = Uuid)]
    pub retry_of: Option<JobId>,
}

impl From<&Job> for JobView {
    fn from(job: &Job) -> Self {
        Self {
            id: job.id,
            state: job.state.name(),
            attempt: job.attempt.0,
            priority: job.spec.priority,
            tags: job.spec.tags.clone(),
            labels: job.spec.labels.clone(),
            spec: Arc::clone(&job.spec),
            commit: job.commit.clone().map(String::from),
            worker: job.worker.map(|worker| worker.to_string()),
            created_at: job.created_at,
            queued_at: job.queued_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
            outcome: job.state.outcome(),
            retry_of: job.retry_of,
        }
    }
}

/// An event as the API and the subscribers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EventView {
    /// Its number within the job, from 1, without gaps.
    pub seq: u64,
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// What happened, like `step_started`.
    #[schema(value_type = String)]
    pub kind: Cow<'static, str>,
    /// The last attempt that was granted when it happened; 0 before the first.
    pub attempt: u32,
    /// `coordinator`, `worker:ID` or `client:NAME`.
    pub actor: String,
    /// What the kind brings with it.
    #[serde(flatten)]
    #[schema(value_type = Object, additional_properties)]
    pub more: Map<String, Value>,
}

impl From<&Event> for EventView {
    fn from(event: &Event) -> Self {
        let mut more = match serde_json::to_value(&event.kind) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        more.remove("kind");
        Self {
            seq: event.seq.0,
            at: event.at,
            kind: event.kind.name().into(),
            attempt: event.attempt.0,
            actor: event.actor.to_string(),
            more,
        }
    }
}

/// A worker as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WorkerView {
    #[schema(value_type = String, format = Uuid)]
    pub id: WorkerId,
    pub name: String,
    /// What is wanted of it.
    pub mode: WorkerMode,
    pub state: WorkerState,
    pub tags: Vec<String>,
    pub slots: u32,
    /// How many attempts ran when it was last heard.
    pub running: u32,
    /// Which start of it was last heard.
    #[schema(value_type = Option<String>, format = Uuid)]
    pub instance: Option<Instance>,
    #[schema(value_type = String, format = DateTime)]
    pub enrolled_at: Time,
    /// From then on nothing that it says is heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub revoked_at: Option<Time>,
    /// When it was last heard.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub seen_at: Option<Time>,
}

/// How a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WorkerState {
    /// It has enrolled and wasn't heard since.
    New,
    /// It takes offers.
    Active,
    /// It takes nothing new, until it is resumed.
    Paused,
    /// It takes nothing new, and ends when nothing runs any more.
    Draining,
    /// It wasn't heard for 15 seconds.
    Silent,
    /// Nothing that it says is heard any more.
    Revoked,
}

impl WorkerState {
    /// Its name, as in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Draining => "draining",
            Self::Silent => "silent",
            Self::Revoked => "revoked",
        }
    }
}

/// A deploy key as the API shows it. Its private half is in none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeployKeyView {
    pub name: String,
    /// From 1; it grows with every change.
    pub version: u32,
    #[schema(example = "ssh-ed25519")]
    pub algorithm: String,
    /// As `ssh-keygen -l` shows it.
    #[schema(example = "SHA256:…")]
    pub fingerprint: String,
    /// The public half, as a line of `authorized_keys`: what the repository's host has to know, for reading alone.
    pub public_key: String,
    /// The host keys that count, as a `known_hosts` file.
    pub known_hosts: String,
    /// When its first version was stored.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// When this version was stored.
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: Time,
}

/// A deploy key in a list: without its host keys, which may be long.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ListedDeployKey {
    pub name: String,
    /// From 1; it grows with every change.
    pub version: u32,
    #[schema(example = "ssh-ed25519")]
    pub algorithm: String,
    /// As `ssh-keygen -l` shows it.
    #[schema(example = "SHA256:…")]
    pub fingerprint: String,
    /// The public half, as a line of `authorized_keys`: what the repository's host has to know, for reading alone.
    pub public_key: String,
    /// When its first version was stored.
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Time,
    /// When this version was stored.
    #[schema(value_type = String, format = DateTime)]
    pub changed_at: Time,
}
