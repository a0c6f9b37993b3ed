//! What a run of chaos leaves for the judge: every call with its answer, every trouble, every line that a step wrote, every
//! event that a subscriber got, and what is stored and left over in the end.
//!
//! It holds facts, no opinions, and goes to a file as JSON, so that a failing run can be judged again.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Sub;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A moment by the machine's wall clock, which neither the clocks of the processes under test nor a trouble can move, in
/// microseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct At(pub u64);

/// A run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    pub seed: u64,
    /// Every job that somebody asked for, by the label `key` that it carries.
    pub jobs: BTreeMap<Key, Asked>,
    /// In the order in which they were made.
    pub calls: Vec<Call>,
    pub troubles: Vec<Trouble>,
    /// The lines of each job's notes, in the order in which they were written.
    pub notes: BTreeMap<Key, Vec<Note>>,
    /// What a subscriber got, in its order, repeats and all.
    pub told: Vec<Told>,
    /// The table of jobs, in the end.
    pub rows: Vec<Row>,
    /// The table of events, in the end, by job and number.
    pub events: Vec<Event>,
    /// What each replica says of each job, in the end.
    pub views: Vec<View>,
    pub end: End,
}

/// The label `key` of a job, its idempotency key as well: the one name that it has before anybody has accepted it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(pub String);

/// A job's id, as the API says it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub String);

/// What a job was asked to do, as far as that decides how it may end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Asked {
    /// The exit code of each step, in their order; those after the first that isn't 0 never run. One that dies of a signal
    /// stands here as a shell says it, as 128 and the signal's number.
    pub exits: Vec<i32>,
    /// What else may come of it than its steps' exits.
    pub may: BTreeSet<May>,
    /// `on_lost_contact: stop`.
    pub stops_without_contact: bool,
    /// `retry.max_attempts`.
    pub max_attempts: u32,
    /// Whether `retry.on` names `step_failed`.
    pub retries_failures: bool,
    /// Its label `team`.
    #[serde(default)]
    pub team: Option<String>,
}

/// What may come of a job otherwise than by the exits of its steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum May {
    /// Its `timeout` or a step's is short.
    TimeOut,
    /// Its `queue_timeout` is short.
    Expire,
    /// It names a deploy key that is registered late, or never.
    LackItsKey,
    /// A step dies of a signal.
    DieOfSignal,
}

/// One request to the API, and what came back.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Call {
    /// Who asked: a client makes one call after the other.
    pub client: u32,
    /// Which coordinator was asked.
    pub replica: usize,
    pub asked_at: At,
    pub ask: Ask,
    /// None where no answer came: it may have been done or not.
    pub answer: Option<Answer>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// One job, or several in one request.
    Submit {
        keys: Vec<Key>,
    },
    Cancel {
        job: Id,
        force: bool,
    },
    /// By filter: all jobs with the label `team` of this value.
    CancelTeam {
        team: String,
    },
    /// A new job that repeats an old one; the new one gets the label `key` of the old.
    Retry {
        job: Id,
    },
    Look {
        job: Id,
    },
    /// Registering a deploy key.
    PutKey {
        name: String,
    },
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Answer {
    pub at: At,
    pub status: u16,
    /// The jobs that it speaks of, in its order; of a cancel, the one job with nothing but its id and state.
    pub jobs: Vec<Seen>,
    /// Of a cancel by filter.
    pub matched: Option<u64>,
    /// What it said, where the status is none of 200, 201 and 202.
    pub problem: Option<String>,
}

/// A job as an answer has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    pub id: Id,
    pub state: String,
    /// None where the answer doesn't say.
    pub attempt: Option<u32>,
    pub outcome: Option<Value>,
    pub retry_of: Option<Id>,
}

/// Something that went wrong on purpose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub from: At,
    /// When it was over: the process was up again, the way open.
    pub to: At,
    pub kind: Kind,
    pub target: Target,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// SIGKILL, and started again at the end.
    Kill,
    /// SIGTERM, and started again at the end.
    Terminate,
    /// SIGSTOP, and SIGCONT at the end.
    Freeze,
    /// Every connection is cut, and none let through until the end.
    Cut,
    /// Every connection is cut once; new ones are let through.
    Snap,
    /// Connections stay open, and nothing goes through in either direction; cut at the end.
    Stall,
    /// What is sent arrives, what comes back doesn't; cut at the end.
    Deafen,
    /// Everything comes later.
    Delay,
    /// The disk takes nothing more.
    FullDisk,
    /// The wall clock jumps, and jumps back at the end.
    ClockAhead,
    ClockBehind,
    /// The stream of offers is deleted with all that is in it.
    WipeOffers,
}

/// Whom it befalls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "target", content = "index", rename_all = "snake_case")]
pub enum Target {
    Coordinator(usize),
    Worker(usize),
    Postgres,
    Nats,
    /// The way from that coordinator to Postgres.
    WayToPostgres(usize),
    /// The way from that coordinator to NATS.
    WayToNats(usize),
    /// The way from clients and from the other coordinators to that one.
    WayToCoordinator(usize),
    /// The way from that worker to NATS.
    WorkersWay(usize),
}

/// A line that a step wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Taken by the step before it wrote the line.
    pub at: At,
    pub what: Noted,
    /// `WINDLASS_JOB_ID`: a retry by hand writes into the notes of the job that it repeats.
    pub job: Id,
    pub attempt: u32,
    pub step: u32,
    pub fence: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Noted {
    /// The first thing that the step does.
    Begin,
    /// The last thing before its exit code.
    End,
    /// Before `Begin`: another attempt of the job is still there, as a lock shows that the kernel gives back when the last
    /// process that holds it is gone. `holder` is that attempt's number: a lower one, or a higher one where this step is one
    /// of an attempt that was given up and runs on.
    Overlap { holder: u32 },
}

/// An event as a subscriber got it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    pub at: At,
    pub job: Id,
    pub seq: u64,
    pub kind: String,
    pub attempt: u32,
    /// The event's `data`, whole.
    pub data: Value,
}

/// A job's row in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    pub id: Id,
    pub key: Key,
    pub shard: u32,
    pub seq: u64,
    pub attempt: u32,
    pub tries: u32,
    pub state: String,
    pub outcome: Option<Value>,
    pub retry_of: Option<Id>,
    /// Whether it still has a time at which something is to happen.
    pub wakes: bool,
}

/// An event's row in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    pub job: Id,
    pub seq: u64,
    pub shard: u32,
    pub shard_seq: u64,
    pub kind: String,
    /// The worker that it names: of `assigned` the one that the attempt was granted to.
    pub worker: Option<Id>,
    pub attempt: u32,
    /// The event's data, whole.
    pub data: Value,
}

/// What a replica says of a job in the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    pub replica: usize,
    pub job: Id,
    pub state: String,
    pub attempt: u32,
    pub outcome: Option<Value>,
}

/// What is left over in the end, when nothing is to be done any more.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct End {
    /// The jobs that hadn't ended in time.
    pub unfinished: Vec<Id>,
    /// The id of each worker, by the index that troubles name it by; one that enrolled anew has several.
    pub workers: Vec<Vec<Id>>,
    /// The processes of jobs, and the keepers, that are still there: their numbers and arguments.
    pub processes: Vec<String>,
    /// Files in the workers' spools, and directories of attempts.
    pub files: Vec<String>,
    /// Processes under test that have ended by themselves, and what their log says of panics.
    pub deaths: Vec<String>,
    /// Each shard's cursor and its last event's number, where they differ.
    pub unpublished: Vec<(u32, u64, u64)>,
    /// The number of events of each shard, and the highest number, where they differ.
    pub gaps: Vec<(u32, u64, u64)>,
    /// Offers that are still in their stream, and the consumers that should deliver them.
    pub offers: Vec<String>,
    /// Rows of coordinators that aren't there, shards whose owner isn't there, and other rows that should be gone.
    pub rows: Vec<String>,
    /// What grows if something leaks, before the load and after it.
    pub measures: Vec<Measure>,
    /// How many jobs ran at once when as many were asked for as there are slots, and the most when there was one more.
    pub slots: Option<Slots>,
}

/// Something that is counted before the load and after it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measure {
    /// Like `subscriptions at NATS` or `files open in coordinator 1`.
    pub what: String,
    pub before: u64,
    pub after: u64,
    /// How much more it may be after the load.
    pub allowance: u64,
}

/// What a load of exactly as many jobs as there are slots showed, and one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slots {
    pub there: u64,
    pub ran_at_once: u64,
}

impl Sub for At {
    type Output = Duration;

    /// How long after the other it is; nothing when it is before it.
    fn sub(self, other: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(other.0))
    }
}
