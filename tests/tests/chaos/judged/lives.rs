//! Timelines as the transition function itself makes them, whatever happens to the jobs: the judge finds nothing wrong with
//! their order, their numbers, their ends and how they are told, and reads each outcome alike from the store, the API and the events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::json;
use shared::cloud_event::CloudEvent;
use shared::id::{Actor, Attempt, ClaimId, Instance, JobId, Shard, WorkerId};
use shared::job::{
    AttemptEnd, Cancel, Claim, Command, Event, EventKind, Exit, Failure, Job, KeyAnswer, Limit, Progress, State,
    WorkerMessage, WorkerWord, submit,
};
use shared::log::LogSummary;
use shared::spec::{JobSpec, parse_single};
use shared::time::{Period, Time};
use shared::view::JobView;
use shared::wire::LEASE;
use tests::chaos::history::{self, Ask, Asked, At, Call, History, Id, Key, May, Row, Told, View};
use tests::chaos::judge::judge;
use uuid::Uuid;

use super::truth::{Truth, worker};

const LIVES: u32 = 600;
const STEPS: u32 = 2;
const ATTEMPTS_MAX: u32 = 3;
/// When the first is submitted.
const BEGAN: i64 = 1_800_000_000_000_000;

/// What these lives don't have: notes of their steps, and troubles that explain what befell them.
const NOT_SHOWN: [&str; 5] = [
    "a job that succeeded has done every step",
    "a step fails only as it was asked to",
    "no worker is lost without a trouble",
    "nothing but a full disk fails a checkout or the worker itself",
    "a job fails for no reason but those that were asked for",
];

/// A job and all that has happened to it.
struct Life {
    job: Job,
    now: Time,
    events: Vec<Event>,
    /// The step that comes next, and whether it is under way.
    step: (u32, bool),
}

#[test]
fn whatever_the_transition_function_makes_of_jobs_is_no_broken_promise() {
    let mut random = TestRng::from_seed(RngAlgorithm::ChaCha, &[23; 32]);
    let mut book = Book { history: Truth::new().history, numbers: BTreeMap::new() };
    let mut kinds = BTreeSet::new();
    for number in 0..LIVES {
        let life = Life::random(number, &mut random);
        kinds.extend(life.events.iter().map(|event| event.kind.name()));
        book.write(&Key(format!("key-{number}")), &life);
    }
    let found = judge(&book.history).into_iter().filter(|found| !NOT_SHOWN.contains(&found.rule));
    let found: Vec<String> = found.map(|found| found.to_string()).collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(kinds.len(), 19, "a kind of event hasn't come up: {kinds:?}");
}

impl Life {
    /// A job to which anything happens until it has ended, and a little longer.
    fn random(number: u32, random: &mut TestRng) -> Self {
        let now = Time::from_micros(BEGAN).plus(Period::from_secs(u64::from(number)));
        let mut bytes = [0; 10];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let shard = Shard::new(u16::try_from(number % 7).expect("a small number")).expect("a shard");
        let id = JobId::mint(shard, now, bytes);
        let spec = Arc::new(spec(random));
        let submitted = submit(id, spec, false, None, Actor::Client("ci".to_owned()), now);
        let mut life = Self { job: submitted.job, now, events: submitted.events, step: (0, false) };
        let cancels = random.random_bool(0.3);
        while !life.job.is_terminal() {
            let command = life.command(random, cancels);
            life.take(command);
        }
        for _ in 0..random.random_range(0..3) {
            let word = WorkerWord::End { end: AttemptEnd::Succeeded, log: LogSummary::default() };
            let said = life.says(word);
            life.take(said);
        }
        life
    }

    fn take(&mut self, command: Command) {
        self.now = self.now.plus(Period::from_millis(100));
        // What is refused changes nothing.
        let Ok(transition) = self.job.apply(command, self.now) else { return };
        for event in &transition.events {
            match event.kind {
                EventKind::Assigned { .. } => self.step = (0, false),
                EventKind::StepStarted { step, .. } => self.step = (step, true),
                EventKind::StepFinished { step, .. } => self.step = (step + 1, false),
                _ => {}
            }
        }
        self.events.extend(transition.events);
        self.job = transition.job;
    }

    /// Something that may happen where the job stands.
    fn command(&mut self, random: &mut TestRng, cancels: bool) -> Command {
        if cancels && random.random_ratio(1, 8) {
            let by = Actor::Client("ann".to_owned());
            let grace = random.random_bool(0.3).then_some(Period::ZERO);
            return Command::Cancel(Cancel {
                by,
                why: Some("no more".to_owned()),
                force: random.random_bool(0.3),
                grace,
            });
        }
        match &self.job.state {
            State::Scheduled { .. } => self.wake(),
            State::Blocked { key, .. } if random.random_bool(0.7) => Command::KeyRegistered { key: key.clone() },
            State::Queued { .. } if random.random_ratio(19, 20) => self.claim(random),
            State::Assigned(_) | State::Running(_) | State::Canceling { .. } => self.live(random),
            State::Blocked { .. } | State::Queued { .. } => self.wake(),
            State::Succeeded | State::Failed { .. } | State::Canceled { .. } => Command::Wake,
        }
    }

    /// Its time has come.
    fn wake(&mut self) -> Command {
        self.now = self.job.state.wake_at().map_or(self.now, |at| at.max(self.now));
        Command::Wake
    }

    fn claim(&self, random: &mut TestRng) -> Command {
        let number = random.random_range(0..3);
        let worker = WorkerId(worker(number).0.parse().expect("an id"));
        let expires = self.now.plus(Period::from_secs(10));
        let (claim, attempt) = (ClaimId(Uuid::from_u128(random.random())), self.job.attempt.next());
        let instance = Instance(Uuid::from_u128(7));
        Command::Claim(Claim { claim, attempt, worker, instance, has_recipient: true, expires })
    }

    /// Something that may happen to an attempt.
    fn live(&mut self, random: &mut TestRng) -> Command {
        let log = LogSummary::default;
        let end = |end: AttemptEnd| WorkerWord::End { end, log: log() };
        let fails = |failure: Failure| end(AttemptEnd::Failed { failure });
        let message = "so it was".to_owned();
        let word = match random.random_range(0..100) {
            0..3 => return self.wake(),
            3..8 => {
                self.now = self.now.plus(Period::from_millis(LEASE.as_millis().try_into().expect("seconds")));
                return Command::WorkerLost { attempt: self.job.attempt, message };
            }
            8..12 => WorkerWord::Decline { claim: None, why: message },
            12..16 => WorkerWord::Park { key: "app".to_owned(), wait: Period::from_secs(60), log: log() },
            16..19 => WorkerWord::GiveBack { log: log() },
            19..22 => fails(Failure::CheckoutFailed { transient: random.random_bool(0.5), message }),
            22..24 => fails(Failure::DeployKeyMissing { message }),
            24..26 => fails(Failure::TimedOut { limit: [Limit::Job, Limit::Step(1)][random.random_range(0..2)] }),
            26..28 => fails(Failure::Internal { message }),
            28..30 => fails(Failure::WorkerLost { message }),
            30..32 => end(AttemptEnd::Stopped),
            _ => match (self.step, &self.job.state) {
                ((0, false), State::Assigned(_)) if random.random_bool(0.5) => self.prepares(random),
                ((STEPS, false), _) => end(AttemptEnd::Succeeded),
                ((step, false), _) => self.tells(Progress::StepStarted { step }),
                ((step, true), _) if random.random_ratio(1, 5) => {
                    let exit = [Exit::ExitCode(3), Exit::Signal(9)][random.random_range(0..2)];
                    fails(Failure::StepFailed { step, exit, message: None })
                }
                ((step, true), _) => self.tells(Progress::StepFinished { step, exit: Exit::ExitCode(0) }),
            },
        };
        self.says(word)
    }

    fn prepares(&self, random: &mut TestRng) -> WorkerWord {
        if random.random_bool(0.5) {
            let commit = "a".repeat(40).try_into().expect("a commit");
            return self.tells(Progress::CheckedOut { commit });
        }
        let next_in = Some(Period::from_secs(1));
        self.tells(Progress::KeyTry { number: 1, answer: KeyAnswer::NotRegistered, why: None, next_in })
    }

    fn tells(&self, progress: Progress) -> WorkerWord {
        let number = self.job.state.hold().map_or(0, |hold| hold.reports) + 1;
        WorkerWord::Progress { number, progress }
    }

    fn says(&self, word: WorkerWord) -> Command {
        let worker = self.job.worker.unwrap_or(WorkerId(Uuid::from_u128(1)));
        Command::Worker(WorkerMessage { worker, attempt: self.job.attempt.max(Attempt(1)), word })
    }
}

/// A job with two steps, with or without something to prepare, which is tried again after most failures.
fn spec(random: &mut TestRng) -> JobSpec {
    let retry =
        json!({"max_attempts": ATTEMPTS_MAX, "on": ["worker_lost", "step_failed", "timed_out", "checkout_failed"]});
    let mut body = json!({"steps": [{"run": "one"}, {"name": "two", "run": "two"}], "retry": retry, "tags": ["linux"]});
    if random.random_bool(0.6) {
        body["repository"] = json!({"url": "/srv/app.git", "ref": "main", "deploy_key": "app"});
    }
    if random.random_bool(0.2) {
        body["run_at"] = Time::from_micros(BEGAN).plus(Period::from_secs(100_000)).to_string().into();
    }
    parse_single(&body, None).unwrap_or_else(|faults| panic!("{body} is refused: {faults:?}")).spec
}

/// A history of lives.
struct Book {
    history: History,
    /// The number of each shard's last event.
    numbers: BTreeMap<u32, u64>,
}

impl Book {
    fn write(&mut self, key: &Key, life: &Life) {
        let Job { id, seq, attempt, tries, .. } = life.job;
        let (id, attempt, shard) = (Id(id.to_string()), attempt.0, u32::from(id.shard().number()));
        let may = BTreeSet::from([May::TimeOut, May::Expire, May::LackItsKey]);
        let asked =
            Asked { exits: vec![0, 0], may, max_attempts: ATTEMPTS_MAX, retries_failures: true, ..Asked::default() };
        self.history.jobs.insert(key.clone(), asked);
        let asks = [Ask::Submit { keys: vec![key.clone()] }, Ask::Cancel { job: id.clone(), force: false }];
        let calls =
            asks.map(|ask| Call { client: 0, replica: 0, asked_at: at(life.job.created_at), ask, answer: None });
        self.history.calls.extend(calls);
        for event in &life.events {
            self.tell(event, &id, shard);
        }
        let shown = serde_json::to_value(JobView::from(&life.job)).expect("a job is JSON");
        let outcome = Some(shown["outcome"].clone());
        let state = life.job.state.name().to_string();
        let view = View { replica: 0, job: id.clone(), state: state.clone(), attempt, outcome };
        self.history.views.push(view);
        let outcome = Some(serde_json::to_value(&life.job.state).expect("a state is JSON"));
        let (wakes, key) = (life.job.state.wake_at().is_some(), key.clone());
        let row = Row { id, key, shard, seq: seq.0, attempt, tries, state, outcome, retry_of: None, wakes };
        self.history.rows.push(row);
    }

    /// An event as the store keeps it and as it is told.
    fn tell(&mut self, event: &Event, id: &Id, shard: u32) {
        let last = self.numbers.entry(shard).or_default();
        *last += 1;
        let (job, seq, attempt, kind) = (id.clone(), event.seq.0, event.attempt.0, event.kind.name().to_owned());
        let data = serde_json::to_value(&event.kind).expect("an event is JSON");
        let worker = data["worker"].as_str().map(|worker| Id(worker.to_owned()));
        let stored = history::Event {
            job: job.clone(),
            seq,
            shard,
            shard_seq: *last,
            kind: kind.clone(),
            worker,
            attempt,
            data,
        };
        let whole = serde_json::to_value(CloudEvent::from(event)).expect("an event is JSON");
        let told = Told {
            at: at(event.at.plus(Period::from_millis(50))),
            job,
            seq,
            kind,
            attempt,
            data: whole["data"].clone(),
        };
        self.history.events.push(stored);
        self.history.told.push(told);
    }
}

fn at(time: Time) -> At {
    At(u64::try_from(time.micros()).expect("a time of this century"))
}
