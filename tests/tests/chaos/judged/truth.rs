//! Builds histories as a Windlass leaves them that keeps its promises: each act does and writes down what it would, and
//! takes a tenth of a second. A falsified history is a true one to which something is done that can't be.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};
use shared::time::Time;
use tests::chaos::history::{
    Answer, Ask, Asked, At, Call, End, Event, History, Id, Key, Kind, May, Measure, Note, Noted, Row, Seen, Slots,
    Target, Told, Trouble, View,
};

/// How long an act takes, in microseconds.
const ACT: u64 = 100_000;
/// When histories begin.
const BEGAN: u64 = 1_800_000_000_000_000;
const REPLICAS: usize = 2;
const WORKERS: usize = 3;

/// A history under way.
pub struct Truth {
    pub history: History,
    now: u64,
    fence: u64,
    /// The fence of each job's current attempt.
    fences: Vec<u64>,
    /// The number of each shard's last event.
    numbers: BTreeMap<u32, u64>,
}

/// A job, by its place among the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job(pub usize);

/// A job of two steps that exit with 0.
pub fn plain() -> Asked {
    Asked { exits: vec![0, 0], may: BTreeSet::new(), max_attempts: 2, ..Asked::default() }
}

/// The same, of which `may` may come as well.
pub fn that_may(may: May) -> Asked {
    Asked { may: BTreeSet::from([may]), ..plain() }
}

/// The id of the worker of that number.
pub fn worker(number: usize) -> Id {
    Id(format!("aaaaaaaa-0000-4000-8000-{number:012}"))
}

impl Truth {
    /// A cluster of two coordinators and three workers, of which nobody has wanted anything yet.
    pub fn new() -> Self {
        let measure = Measure { what: "subscriptions at NATS".to_owned(), before: 20, after: 21, allowance: 2 };
        let end = End {
            workers: (0..WORKERS).map(|number| vec![worker(number)]).collect(),
            measures: vec![measure],
            slots: Some(Slots { there: 6, ran_at_once: 6 }),
            ..End::default()
        };
        Self {
            history: History { end, ..History::default() },
            now: BEGAN,
            fence: 0,
            fences: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    /// The time now.
    pub fn now(&self) -> At {
        At(self.now)
    }

    /// Nothing happens for a while.
    pub fn pass(&mut self, seconds: u64) {
        self.now += seconds * 1_000_000;
    }

    /// Something goes wrong from now on, for so many seconds.
    pub fn trouble(&mut self, kind: Kind, target: Target, seconds: u64) {
        self.history.troubles.push(Trouble {
            from: At(self.now),
            to: At(self.now + seconds * 1_000_000),
            kind,
            target,
        });
    }

    pub fn id(&self, job: Job) -> Id {
        self.row(job).id.clone()
    }

    pub fn key(&self, job: Job) -> Key {
        self.row(job).key.clone()
    }

    pub fn row(&self, Job(place): Job) -> &Row {
        &self.history.rows[place]
    }

    pub fn row_mut(&mut self, Job(place): Job) -> &mut Row {
        &mut self.history.rows[place]
    }

    /// What a coordinator shows of a job in the end.
    pub fn view_mut(&mut self, Job(place): Job, replica: usize) -> &mut View {
        &mut self.history.views[place * REPLICAS + replica]
    }

    /// The last stored event of that kind.
    pub fn event_mut(&mut self, job: Job, kind: &str) -> &mut Event {
        let id = self.id(job);
        let mut events = self.history.events.iter_mut().rev();
        events.find(|event| event.job == id && event.kind == kind).expect("the job has had such an event")
    }

    /// The last event of that kind as it was told.
    pub fn told_mut(&mut self, job: Job, kind: &str) -> &mut Told {
        let place = self.told_place(job, kind);
        &mut self.history.told[place]
    }

    /// Where that event is among what was told.
    pub fn told_place(&self, job: Job, kind: &str) -> usize {
        let id = self.id(job);
        let place = self.history.told.iter().rposition(|told| told.job == id && told.kind == kind);
        place.expect("the job has had such an event")
    }

    /// Changes the last event of that kind as if it had been so from the first: stored and told.
    pub fn rewrite(&mut self, job: Job, kind: &str, change: impl Fn(&mut Map<String, Value>)) {
        change(self.event_mut(job, kind).data.as_object_mut().expect("data is an object"));
        change(self.told_mut(job, kind).data.as_object_mut().expect("data is an object"));
    }

    /// The fence of a job's current attempt.
    pub fn fence_of(&self, Job(place): Job) -> u64 {
        self.fences[place]
    }

    /// The notes of a job's key.
    pub fn notes_mut(&mut self, job: Job) -> &mut Vec<Note> {
        let key = self.key(job);
        self.history.notes.entry(key).or_default()
    }

    /// Writes down a call that took one act's time.
    pub fn call(&mut self, ask: Ask, status: u16, jobs: Vec<Seen>) -> &mut Call {
        let asked_at = At(self.now - ACT / 2);
        let answer = Answer { at: At(self.now + ACT / 4), status, jobs, matched: None, problem: None };
        let replica = self.history.calls.len() % REPLICAS;
        self.history.calls.push(Call { client: 1, replica, asked_at, ask, answer: Some(answer) });
        self.now += ACT;
        self.history.calls.last_mut().expect("a call was written down")
    }

    /// How the job stands, as an answer says it.
    pub fn seen(&self, job: Job) -> Seen {
        let Row { id, state, attempt, outcome, retry_of, .. } = self.row(job).clone();
        Seen { id, state, attempt: Some(attempt), outcome: outcome.as_ref().map(shown), retry_of }
    }

    /// Commits an event that leaves the job in `state`.
    pub fn event(&mut self, job: Job, kind: &str, actor: &str, state: &str, more: Value) {
        self.now += ACT;
        let (now, row) = (self.now, self.row_mut(job));
        row.seq += 1;
        state.clone_into(&mut row.state);
        row.wakes = !matches!(state, "succeeded" | "failed" | "canceled");
        let (id, seq, shard, attempt) = (row.id.clone(), row.seq, row.shard, row.attempt);
        let mut data = more;
        data["kind"] = kind.into();
        let number = self.numbers.entry(shard).or_default();
        *number += 1;
        let shard_seq = *number;
        let worker = data.get("worker").and_then(Value::as_str).map(|worker| Id(worker.to_owned()));
        let stored = Event { job: id.clone(), seq, shard, shard_seq, kind: kind.to_owned(), worker, attempt, data };
        let mut data = stored.data.clone();
        data["seq"] = seq.into();
        data["attempt"] = attempt.into();
        data["actor"] = actor.into();
        data["at"] = Time::from_micros(i64::try_from(now).expect("a time of this century")).to_string().into();
        self.history.events.push(stored);
        self.history.told.push(Told { at: At(now + ACT / 10), job: id, seq, kind: kind.to_owned(), attempt, data });
        self.show(job);
    }

    /// Lets every coordinator show the job as it stands.
    pub fn show(&mut self, job: Job) {
        let Row { id, state, attempt, outcome, .. } = self.row(job).clone();
        for replica in 0..REPLICAS {
            let outcome = outcome.as_ref().map(shown);
            *self.view_mut(job, replica) = View { replica, job: id.clone(), state: state.clone(), attempt, outcome };
        }
    }

    /// A job that `asked` says of, accepted and queued; nobody has been answered yet.
    pub fn accept(&mut self, key: Key, asked: Option<Asked>, retry_of: Option<Id>) -> Job {
        let number = self.history.rows.len();
        let shard = u32::try_from(number % 2).expect("a small number");
        let id = Id(format!("01a2015d-3540-743c-808d-{number:010x}{shard:02x}"));
        let row = Row {
            id: id.clone(),
            key: key.clone(),
            shard,
            seq: 0,
            attempt: 0,
            tries: 0,
            state: String::new(),
            outcome: None,
            retry_of: retry_of.clone(),
            wakes: true,
        };
        self.history.rows.push(row);
        self.fences.push(0);
        if let Some(asked) = asked {
            self.history.jobs.insert(key, asked);
        }
        for replica in 0..REPLICAS {
            let view = View { replica, job: id.clone(), state: String::new(), attempt: 0, outcome: None };
            self.history.views.push(view);
        }
        let job = Job(number);
        let retry_of = retry_of.map_or_else(|| json!({}), |first| json!({"retry_of": first.0}));
        self.event(job, "submitted", "client:ci", "queued", retry_of);
        self.event(job, "queued", "client:ci", "queued", json!({"offer": {"attempt": 1}}));
        job
    }

    /// Somebody submits a job and is answered 201.
    pub fn submit(&mut self, asked: Asked) -> Job {
        let key = Key(format!("key-{}", self.history.rows.len()));
        let asked_at = self.now();
        let job = self.accept(key.clone(), Some(asked), None);
        let seen = self.seen(job);
        self.call(Ask::Submit { keys: vec![key] }, 201, vec![seen]).asked_at = asked_at;
        job
    }

    /// Somebody runs a job again by hand.
    pub fn run_again(&mut self, first: Job) -> Job {
        let (key, id, asked_at) = (self.key(first), self.id(first), self.now());
        let job = self.accept(key, None, Some(id.clone()));
        let seen = self.seen(job);
        self.call(Ask::Retry { job: id }, 201, vec![seen]).asked_at = asked_at;
        job
    }

    /// Somebody looks at a job.
    pub fn look(&mut self, job: Job) {
        let (seen, job) = (self.seen(job), self.id(job));
        self.call(Ask::Look { job }, 200, vec![seen]);
    }

    /// The worker of that number gets the job's next attempt, for which nothing is to be prepared.
    pub fn grant(&mut self, job: Job, number: usize) {
        self.assign(job, number);
        self.start(job);
    }

    /// The same, where something is to be prepared first.
    pub fn assign(&mut self, job: Job, number: usize) {
        self.row_mut(job).attempt += 1;
        self.fence += 1;
        self.fences[job.0] = self.fence;
        let (actor, more) =
            (format!("worker:{}", worker(number).0), json!({"worker": worker(number).0, "instance": "i"}));
        self.event(job, "assigned", &actor, "assigned", more);
    }

    pub fn start(&mut self, job: Job) {
        self.event(job, "started", "worker:w", "running", json!({}));
    }

    /// A step of the current attempt notes something.
    pub fn note(&mut self, job: Job, what: Noted, step: u32) {
        let attempt = self.row(job).attempt;
        let fence = self.fences[job.0];
        self.note_of(job, what, (attempt, step, fence));
    }

    /// A step of any attempt notes something, with its attempt, its index and its fence.
    pub fn note_of(&mut self, job: Job, what: Noted, (attempt, step, fence): (u32, u32, u64)) {
        self.now += ACT;
        let note = Note { at: At(self.now), what, job: self.id(job), attempt, step, fence };
        self.notes_mut(job).push(note);
    }

    /// A step begins, which the worker tells.
    pub fn begin(&mut self, job: Job, step: u32) {
        self.note(job, Noted::Begin, step);
        let state = self.row(job).state.clone();
        self.event(job, "step_started", "worker:w", &state, json!({"step": step, "name": null}));
    }

    /// A step comes to its end with that exit code, which the worker tells.
    pub fn end(&mut self, job: Job, step: u32, exit_code: i32) {
        self.note(job, Noted::End, step);
        let more = json!({"step": step, "name": null, "exit_code": exit_code});
        let state = self.row(job).state.clone();
        self.event(job, "step_finished", "worker:w", &state, more);
    }

    /// Both.
    pub fn step(&mut self, job: Job, step: u32, exit_code: i32) {
        self.begin(job, step);
        self.end(job, step, exit_code);
    }

    /// The job ends so.
    pub fn finish(&mut self, job: Job, kind: &str, outcome: Value) {
        let detail = match kind {
            "failed" => json!({"state": kind, "failure": outcome}),
            _ => json!({"state": kind, "canceled": outcome["canceled"]}),
        };
        self.row_mut(job).outcome = (kind != "succeeded").then_some(detail);
        self.event(job, kind, "worker:w", kind, outcome);
    }

    /// A worker runs both steps, and the job succeeds.
    pub fn succeed(&mut self, job: Job, number: usize) {
        self.grant(job, number);
        self.step(job, 0, 0);
        self.step(job, 1, 0);
        self.finish(job, "succeeded", json!({}));
    }

    /// The attempt has failed for that, and another follows at once.
    pub fn retry(&mut self, job: Job, mut failure: Value) {
        self.row_mut(job).tries += 1;
        failure["delay"] = "0s".into();
        self.event(job, "retried", "coordinator", "queued", failure);
        self.event(job, "queued", "coordinator", "queued", json!({"offer": {"attempt": 2}}));
    }

    /// The attempt has failed for that, and with it the job.
    pub fn fail(&mut self, job: Job, failure: Value) {
        self.row_mut(job).tries += 1;
        self.finish(job, "failed", failure);
    }

    /// Nothing was heard of the attempt's worker for its lease.
    pub fn lose(&mut self, job: Job) {
        self.event(
            job,
            "worker_lost",
            "coordinator",
            "running",
            json!({"message": "not heard", "stop": {"grace": "0s"}}),
        );
    }

    /// Somebody cancels a job that a worker has.
    pub fn cancel(&mut self, job: Job) {
        let asked_at = self.now();
        self.event(job, "cancel_requested", "client:ann", "running", json!({"force": false}));
        self.event(job, "canceling", "client:ann", "canceling", json!({"stop": {"grace": "10s"}}));
        self.answer_cancel(job, 202, asked_at);
    }

    /// Somebody cancels a job that no worker has.
    pub fn cancel_at_once(&mut self, job: Job, confirmed: bool) {
        let asked_at = self.now();
        self.event(job, "cancel_requested", "client:ann", "queued", json!({"force": false}));
        self.canceled(job, confirmed);
        self.answer_cancel(job, 202, asked_at);
    }

    /// The cancel comes to its end.
    pub fn canceled(&mut self, job: Job, confirmed: bool) {
        let at = "2027-01-15T08:00:00.000000Z";
        self.finish(job, "canceled", json!({"canceled": {"by": "client:ann", "at": at, "confirmed": confirmed}}));
    }

    /// Somebody's cancel is answered with the state of the job.
    pub fn answer_cancel(&mut self, job: Job, status: u16, asked_at: At) {
        let seen = Seen { attempt: None, outcome: None, retry_of: None, ..self.seen(job) };
        self.call(Ask::Cancel { job: seen.id.clone(), force: false }, status, vec![seen]).asked_at = asked_at;
    }
}

/// An outcome as the API shows it, of what the store holds.
fn shown(stored: &Value) -> Value {
    let (failure, canceled) = (stored.get("failure"), stored.get("canceled"));
    let mut shown = failure.or(canceled).expect("an outcome is of a failure or of a cancel").clone();
    let fields = shown.as_object_mut().expect("an outcome is an object");
    fields.remove("offer");
    match stored["failure"]["limit"].clone() {
        Value::String(_) => shown["limit"] = "timeout".into(),
        Value::Object(limit) => {
            shown["limit"] = format!("steps[{}].timeout", limit["step"]).into();
            shown["step"] = limit["step"].clone();
        }
        _ => {}
    }
    if shown["reason"] == "expired" {
        shown["limit"] = "queue_timeout".into();
    }
    shown
}
