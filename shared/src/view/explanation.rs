//! What `explain` answers: why a job isn't running, or what it does, as facts that each have a kind of their own.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::id::{JobId, WorkerId};
use crate::job::{OutcomeView, ScheduledFor, StateName};
use crate::spec::Priority;
use crate::time::Time;

/// Why a job isn't running, or what it does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    #[schema(value_type = String, format = Uuid)]
    pub id: JobId,
    pub state: StateName,
    /// When all of this was so, by the database's clock.
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    /// The same for people, in a sentence or two.
    pub summary: String,
    /// The facts, what matters most first.
    pub reasons: Vec<Reason>,
}

/// One fact about a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Reason {
    /// It waits for a time.
    Scheduled {
        #[schema(value_type = String, format = DateTime)]
        until: Time,
        #[schema(value_type = Option<String>, example = "backoff")]
        why: Option<ScheduledFor>,
        /// How its last attempt ended; null before the first.
        last: Option<EndedAttempt>,
    },
    /// It is parked until a deploy key is registered.
    WaitsForKey {
        key: String,
        /// Whether the key is there by now: then the job goes on at once.
        registered: bool,
        /// When the wait limit ends the job.
        #[schema(value_type = String, format = DateTime)]
        until: Time,
        last_try: Option<KeyTry>,
    },
    /// No worker that is known has all of its tags.
    NoWorkerHasTags {
        tags: Vec<String>,
        /// Those that no worker which is heard has; where this is empty, none has all of them together.
        missing: Vec<String>,
        /// How many workers are heard.
        workers: u32,
    },
    /// Free workers have its tags: it is about to be taken.
    WorkersFree(Workers),
    /// Workers have its tags, and all of their slots are taken.
    WorkersBusy(Workers),
    /// Workers have its tags, and take nothing until they are resumed.
    WorkersPaused(Workers),
    /// Workers have its tags, and take nothing new before they end.
    WorkersDraining(Workers),
    /// Workers had its tags when they were last heard, which is too long ago.
    WorkersSilent(Workers),
    /// Its place among the jobs that are queued for the same tags: those of a higher priority are offered before it, and of
    /// its own those that were queued before. Which job a worker takes next also depends on the other tags that it has, and
    /// every tenth time it looks at the lowest priority first.
    Queued {
        tags: Vec<String>,
        priority: Priority,
        /// From 1.
        position: u32,
        /// Whether there may be more before it than could be counted.
        at_least: bool,
        #[schema(value_type = Option<String>, format = DateTime)]
        since: Option<Time>,
        /// When its `queue_timeout` ends it.
        #[schema(value_type = String, format = DateTime)]
        expires: Time,
    },
    /// A worker holds its attempt and prepares it.
    Preparing {
        worker: WorkerName,
        attempt: u32,
        part: Preparation,
        /// When the attempt was granted.
        #[schema(value_type = Option<String>, format = DateTime)]
        since: Option<Time>,
        /// When the coordinator ends the attempt itself.
        #[schema(value_type = String, format = DateTime)]
        deadline: Time,
    },
    /// Its worker asks for a deploy key.
    FetchingKey {
        key: String,
        last_try: Option<KeyTry>,
        #[schema(value_type = Option<String>, format = DateTime)]
        next_try_at: Option<Time>,
    },
    /// A worker runs its steps.
    Running {
        worker: WorkerName,
        attempt: u32,
        /// The index of the step, from 0; null between two steps.
        step: Option<u32>,
        name: Option<String>,
        /// How many steps it has.
        steps: u32,
        /// When the step started, or the attempt where there is none.
        #[schema(value_type = Option<String>, format = DateTime)]
        since: Option<Time>,
        /// When the coordinator ends the attempt itself.
        #[schema(value_type = String, format = DateTime)]
        deadline: Time,
    },
    /// Its worker is not heard.
    WorkerSilent {
        worker: WorkerName,
        #[schema(value_type = Option<String>, format = DateTime)]
        since: Option<Time>,
        /// When the attempt ends as `worker_lost`, unless the worker is heard before; null where no coordinator can say.
        #[schema(value_type = Option<String>, format = DateTime)]
        lease_ends: Option<Time>,
    },
    /// It was canceled, and its worker hasn't confirmed that nothing of it runs.
    Canceling {
        worker: WorkerName,
        by: String,
        #[schema(value_type = String, format = DateTime)]
        since: Time,
        why: Option<String>,
        told: Told,
        /// When the worker was first known to have heard it.
        #[schema(value_type = Option<String>, format = DateTime)]
        told_at: Option<Time>,
        /// When what is left is killed.
        #[schema(value_type = String, format = DateTime)]
        kills_at: Time,
        /// When the coordinator waits no longer, and the job is canceled without the worker's word.
        #[schema(value_type = String, format = DateTime)]
        gives_up_at: Time,
    },
    /// No coordinator owns it at the moment, so that nothing about it moves.
    NoOwner {},
    /// It has ended.
    Ended {
        /// Why it failed, or who canceled it.
        outcome: Option<OutcomeView>,
        attempt: u32,
        #[schema(value_type = Option<String>, format = DateTime)]
        finished_at: Option<Time>,
    },
}

/// Workers that have a job's tags, and how they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Workers {
    pub count: u32,
    /// Of all of them.
    pub slots: u32,
    /// How many attempts ran on them when they were last heard.
    pub running: u32,
    /// At most twenty of them, those that were heard last first.
    pub workers: Vec<WorkerLoad>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerLoad {
    #[schema(value_type = String, format = Uuid)]
    pub id: WorkerId,
    pub name: String,
    pub slots: u32,
    pub running: u32,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub seen_at: Option<Time>,
}

/// The worker that holds an attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkerName {
    #[schema(value_type = String, format = Uuid)]
    pub id: WorkerId,
    /// Null where it isn't known any more.
    pub name: Option<String>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndedAttempt {
    pub attempt: u32,
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
    pub outcome: OutcomeView,
}

/// What a try to fetch a deploy key came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyTry {
    pub number: u32,
    /// `sealed`, `not_registered`, `denied` or `unavailable`.
    pub answer: String,
    pub why: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub at: Time,
}

/// What a worker prepares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Preparation {
    /// It fetches the deploy key.
    DeployKey,
    /// It checks the repository out.
    Checkout,
    /// The repository is checked out, and the first step comes next.
    CheckedOut,
}

/// Whether a worker has heard an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Yes,
    NotYet,
    /// The coordinator that would know doesn't answer.
    Unknown,
}
