//! Around the production code: every form of the job and every event that the model ever meets, by number, and what
//! [`Job::apply`] makes of a form and a command, looked up once and remembered. `apply` is pure, so remembering is sound.
//!
//! The clock stands still at [`now`]. `apply` reads times in four places only: whether a timer is due, whether a claim is
//! late, whether a grace would end sooner, and for how long a job has been given back. The model lets each come out either
//! way at any moment (a timer fires by applying [`Command::Wake`] at its own time, a claim is taken with a deadline that
//! has passed), which is more than any real clock allows; so times carry nothing more and are set back to [`now`] after each
//! transition. What a broken `apply` would do is said here as well, by changing its result.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use serde_json::json;
use shared::id::{Actor, Attempt, ClaimId, Instance, JobId, Shard, WorkerId};
use shared::job::{
    AttemptEnd, Cancel, Claim, Command, Event, EventKind, Exit, Failure, Job, Message, Rejection, State, StateName,
    Transition, WorkerMessage, WorkerWord, submit,
};
use shared::log::LogSummary;
use shared::spec::{JobSpec, parse_single};
use shared::time::{Period, Time};
use uuid::Uuid;

use super::breaks::Break;
use super::world::{Said, Word};

/// A form of the job, by number.
pub type Row = u16;
/// An event, by number.
pub type Fact = u16;

/// When everything happens, in microseconds.
const NOW: i64 = 1_767_225_600_000_000;
/// Longer than a job may be given back.
const VERY_LONG: Period = Period::from_secs(400 * 24 * 3600);
/// The deploy key that the job needs.
const KEY: &str = "app";

/// What of a form the model looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    pub name: StateName,
    pub attempt: u8,
    pub version: u8,
    pub seq: u8,
    pub hold: Option<Held>,
    pub given_back: bool,
    /// Of a canceled job: whether the worker has confirmed it.
    pub confirmed: bool,
    /// Whether it failed for want of its deploy key.
    pub keyless: bool,
}

/// Who holds the live attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    pub worker: u8,
    pub instance: u8,
    pub claim: u8,
    /// Whether a cancel is committed.
    pub stopping: bool,
}

/// When everything happens.
fn now() -> Time {
    Time::from_micros(NOW)
}

/// What a command makes of a form.
#[derive(Debug, Clone)]
pub enum Turn {
    Refused(Rejection),
    /// All was so already.
    Same,
    Moved {
        row: Row,
        facts: Arc<[Fact]>,
    },
}

/// What follows from an event, beside telling the subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    Offer(u8),
    Withdraw(u8),
    Stop { attempt: u8, worker: u8, instance: u8 },
}

#[derive(Default)]
struct Pages {
    rows: Vec<(Arc<Job>, View)>,
    row_numbers: HashMap<String, Row>,
    facts: Vec<(Event, Arc<[Effect]>)>,
    fact_numbers: HashMap<String, Fact>,
    turns: HashMap<(Row, Said), Turn>,
}

/// See the module.
pub struct Book {
    pages: RwLock<Pages>,
    broken: Option<Break>,
    /// The submitted job and its events.
    first: (Row, Arc<[Fact]>),
}

impl Book {
    /// A book of one job, whose checkout needs a deploy key where `keyed`.
    pub fn new(keyed: bool, broken: Option<Break>) -> Self {
        let shard = Shard::new(7).expect("a shard");
        let id = JobId::mint(shard, now(), [5; 10]);
        let submitted = submit(id, Arc::new(spec(keyed)), false, None, Actor::Client("ann".to_owned()), now());
        let mut pages = Pages::default();
        let first = pages.entered(submitted, now());
        Self { pages: RwLock::new(pages), broken, first }
    }

    /// The form of the job as it was submitted, and the events of that.
    pub fn first(&self) -> (Row, Arc<[Fact]>) {
        self.first.clone()
    }

    /// What of that form the model looks at.
    pub fn view(&self, row: Row) -> View {
        self.pages.read().unwrap_or_else(PoisonError::into_inner).rows[usize::from(row)].1
    }

    /// What follows from that event.
    pub fn effects(&self, fact: Fact) -> Arc<[Effect]> {
        Arc::clone(&self.pages.read().unwrap_or_else(PoisonError::into_inner).facts[usize::from(fact)].1)
    }

    /// Whether a terminal job is in both forms what it is in the first: its state, its outcome and its attempt.
    pub fn same_end(&self, before: Row, after: Row) -> bool {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        let [before, after] = [before, after].map(|row| &pages.rows[usize::from(row)].0);
        (&before.state, before.attempt) == (&after.state, after.attempt)
    }

    /// Whether the event is the commit of a cancel.
    pub fn is_cancel(&self, fact: Fact) -> bool {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        matches!(pages.facts[usize::from(fact)].0.kind, EventKind::CancelRequested { .. })
    }

    /// How many forms and events were met.
    pub fn len(&self) -> (usize, usize) {
        let pages = self.pages.read().unwrap_or_else(PoisonError::into_inner);
        (pages.rows.len(), pages.facts.len())
    }

    /// What `said` makes of the job in that form.
    pub fn turn(&self, row: Row, said: Said) -> Turn {
        let known = self.pages.read().unwrap_or_else(PoisonError::into_inner).turns.get(&(row, said)).cloned();
        if let Some(turn) = known {
            return turn;
        }
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        let job = Arc::clone(&pages.rows[usize::from(row)].0);
        let (at, result) = self.applied(&job, said);
        let turn = match result {
            Err(rejection) => Turn::Refused(rejection),
            Ok(transition) if transition.is_empty() => Turn::Same,
            Ok(transition) => {
                let (row, facts) = pages.entered(transition, at);
                Turn::Moved { row, facts }
            }
        };
        pages.turns.insert((row, said), turn.clone());
        turn
    }

    /// The same job by one who has forgotten which claim the attempt was granted to.
    pub fn without_claim(&self, row: Row) -> Row {
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        let mut job = (*pages.rows[usize::from(row)].0).clone();
        if let State::Assigned(hold) | State::Running(hold) | State::Canceling { hold, .. } = &mut job.state {
            hold.claim = ClaimId(Uuid::nil());
        }
        pages.row(job)
    }

    /// What `apply` says, or what a broken one would.
    fn applied(&self, job: &Job, said: Said) -> (Time, Result<Transition, Rejection>) {
        let (command, at) = command(job, said);
        let result = match (self.broken, said) {
            (Some(Break::AttemptUnchecked), Said::Word { word, .. }) if job.state.hold().is_some() => {
                let current = word_of(job.worker.map_or(0, number_of), job.attempt, word);
                job.apply(current, at)
            }
            (Some(Break::ClaimNotNamed), Said::Word { worker, word: Word::Declined { .. }, .. }) => {
                let (Command::Worker(said), any) = (command, Word::Declined { claim: None }) else { unreachable!() };
                job.apply(word_of(worker, said.attempt, any), at)
            }
            (Some(Break::TimerWithoutEffect), Said::Wake) => Ok(Transition { job: job.clone(), events: Vec::new() }),
            (Some(Break::LateReportWins), Said::Word { word: Word::Succeeded, .. }) if job.is_terminal() => {
                job.apply(command, at).map(|mut late| {
                    late.job.state = State::Succeeded;
                    late
                })
            }
            (Some(Break::RetriedAfterCancel), Said::Lost { .. }) => match &job.state {
                State::Canceling { hold, .. } => {
                    let uncanceled = Job { state: State::Running(hold.clone()), ..job.clone() };
                    uncanceled.apply(command, at)
                }
                _ => job.apply(command, at),
            },
            _ => job.apply(command, at),
        };
        (at, result)
    }
}

impl Pages {
    fn entered(&mut self, transition: Transition, at: Time) -> (Row, Arc<[Fact]>) {
        let facts = transition.events.into_iter().map(|event| self.fact(event)).collect();
        (self.row(settled(transition.job, at)), facts)
    }

    fn row(&mut self, job: Job) -> Row {
        let text = format!("{job:?}");
        if let Some(row) = self.row_numbers.get(&text) {
            return *row;
        }
        let row = Row::try_from(self.rows.len()).expect("few forms");
        let view = view(&job);
        self.rows.push((Arc::new(job), view));
        self.row_numbers.insert(text, row);
        row
    }

    fn fact(&mut self, event: Event) -> Fact {
        let text = format!("{event:?}");
        if let Some(fact) = self.fact_numbers.get(&text) {
            return *fact;
        }
        let fact = Fact::try_from(self.facts.len()).expect("few events");
        let effects = event.outgoing().iter().filter_map(effect).collect();
        self.facts.push((event, effects));
        self.fact_numbers.insert(text, fact);
        fact
    }
}

/// What the model's job asks for: one step, two attempts, and a checkout with a deploy key where `keyed`.
fn spec(keyed: bool) -> JobSpec {
    let mut body = json!({
        "steps": [{"run": "make test"}],
        "retry": {"max_attempts": 2, "on": ["worker_lost", "step_failed", "timed_out"]},
    });
    if keyed {
        body["repository"] = json!({"url": "git@host:app", "ref": "main", "deploy_key": KEY});
    }
    parse_single(&body, None).unwrap_or_else(|errors| panic!("{errors:?}")).spec
}

/// The production command, and when it is applied.
fn command(job: &Job, said: Said) -> (Command, Time) {
    let long = now().plus(VERY_LONG);
    match said {
        Said::Wake => (Command::Wake, job.state.wake_at().unwrap_or(now())),
        Said::WakeLate => (Command::Wake, long),
        Said::Claim { worker, instance, claim, attempt, late } => {
            let claim = Claim {
                claim: claim_id(worker, claim),
                attempt: Attempt(attempt.into()),
                worker: WorkerId(Uuid::from_u128(u128::from(worker) + 1)),
                instance: Instance(Uuid::from_u128(u128::from(instance) + 1)),
                has_recipient: true,
                expires: if late { now().minus(Period::from_secs(1)) } else { now() },
            };
            (Command::Claim(claim), now())
        }
        Said::Word { worker, attempt, word: Word::GaveBackLate } => {
            (word_of(worker, Attempt(attempt.into()), Word::GaveBack), long)
        }
        Said::Word { worker, attempt, word } => (word_of(worker, Attempt(attempt.into()), word), now()),
        Said::Cancel { force } => {
            (Command::Cancel(Cancel { by: Actor::Client("ann".to_owned()), why: None, force, grace: None }), now())
        }
        Said::Lost { attempt } => {
            (Command::WorkerLost { attempt: Attempt(attempt.into()), message: "lost".to_owned() }, now())
        }
        Said::Key => (Command::KeyRegistered { key: KEY.to_owned() }, now()),
    }
}

fn claim_id(worker: u8, claim: u8) -> ClaimId {
    ClaimId(Uuid::from_u128((u128::from(worker) + 1) << 8 | u128::from(claim)))
}

fn word_of(worker: u8, attempt: Attempt, word: Word) -> Command {
    let log = LogSummary::default();
    let failure = Failure::StepFailed { step: 0, exit: Exit::ExitCode(1), message: None };
    let word = match word {
        Word::Declined { claim } => {
            let claim = claim.map(|claim| claim_id(worker, claim));
            WorkerWord::Decline { claim, why: "not wanted".to_owned() }
        }
        Word::Began => WorkerWord::Progress { number: 1, progress: shared::job::Progress::StepStarted { step: 0 } },
        Word::Parked => WorkerWord::Park { key: KEY.to_owned(), wait: Period::from_secs(600), log },
        Word::GaveBack | Word::GaveBackLate => WorkerWord::GiveBack { log },
        Word::Succeeded => WorkerWord::End { end: AttemptEnd::Succeeded, log },
        Word::Failed => WorkerWord::End { end: AttemptEnd::Failed { failure }, log },
        Word::Stopped => WorkerWord::End { end: AttemptEnd::Stopped, log },
    };
    let worker = WorkerId(Uuid::from_u128(u128::from(worker) + 1));
    Command::Worker(WorkerMessage { worker, attempt, word })
}

/// The job with its times set back, as if all of its life had happened now; what a transition at `moved_at` has set
/// beyond that stays as far ahead.
fn settled(mut job: Job, moved_at: Time) -> Job {
    let ahead = |time: Time| Period::from_millis(u64::try_from(time.since(moved_at).as_millis()).unwrap_or(0));
    let back = |time: Time| now().plus(ahead(time));
    job.created_at = now();
    for time in [&mut job.queued_at, &mut job.started_at, &mut job.finished_at].into_iter().flatten() {
        *time = now();
    }
    if let Some(given) = &mut job.given_back {
        given.since = now();
    }
    match &mut job.state {
        State::Scheduled { until } | State::Blocked { until, .. } => *until = back(*until),
        State::Queued { expires } => *expires = back(*expires),
        State::Assigned(hold) | State::Running(hold) => hold.deadline = back(hold.deadline),
        State::Canceling { hold, cancel } => {
            hold.deadline = back(hold.deadline);
            cancel.grace_ends = back(cancel.grace_ends);
            cancel.at = now();
        }
        State::Canceled { canceled } => canceled.at = now(),
        State::Succeeded | State::Failed { .. } => {}
    }
    job
}

fn view(job: &Job) -> View {
    let held = |hold: &shared::job::Hold| Held {
        worker: number_of(hold.worker),
        instance: u8::try_from(hold.instance.0.as_u128() - 1).expect("a small number"),
        claim: (hold.claim.0.as_u128() & 0xff) as u8,
        stopping: matches!(job.state, State::Canceling { .. }),
    };
    View {
        name: job.state.name(),
        attempt: u8::try_from(job.attempt.0).expect("few attempts"),
        version: u8::try_from(job.version.0).expect("few versions"),
        seq: u8::try_from(job.seq.0).expect("few events"),
        hold: job.state.hold().map(held),
        given_back: job.given_back.is_some(),
        confirmed: matches!(&job.state, State::Canceled { canceled } if canceled.confirmed),
        keyless: matches!(&job.state, State::Failed { failure: Failure::DeployKeyMissing { .. } }),
    }
}

fn effect(message: &Message) -> Option<Effect> {
    let attempt = |attempt: Attempt| u8::try_from(attempt.0).expect("few attempts");
    match message {
        Message::Event(_) => None,
        Message::Offer(offer) => Some(Effect::Offer(attempt(offer.attempt))),
        Message::Withdraw(offer) => Some(Effect::Withdraw(attempt(offer.attempt))),
        Message::Stop(order) => Some(Effect::Stop {
            attempt: attempt(order.attempt),
            worker: number_of(order.worker),
            instance: u8::try_from(order.instance.0.as_u128() - 1).expect("a small number"),
        }),
    }
}

fn number_of(worker: WorkerId) -> u8 {
    u8::try_from(worker.0.as_u128() - 1).expect("a small number")
}
