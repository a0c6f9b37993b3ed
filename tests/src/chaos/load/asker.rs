//! One client of a load: it makes one call after the other, now here, now there.

use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;
use serde_json::{Value, json};
use shared::clock;

use super::Common;
use super::asking::{Between, Request, call};
use super::book::Which;
use super::mix::{Lasting, TEAMS};
use crate::chaos::history::{Ask, Call, Id, Key};
use crate::http::Client;
use crate::wait::between_looks;

/// The most submissions of one client that wait for their answer: with more it asks for nothing new.
const WAITING_MAX: usize = 4;
/// Of how many answered submissions one may be repeated.
const ANSWERED_KEPT: usize = 8;
/// When what wasn't answered is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two calls.
const PAUSE_MS: RangeInclusive<u64> = 30..=300;
/// How often a client asks for a job that lasts: each with its first job, and then one half of them now and the other half
/// later, so that there are some at any time, but not in every slot.
const LASTING_EVERY: Duration = Duration::from_mins(1);
/// Of how many times that chance would cancel or repeat one of those it is done once.
const LASTING_TOUCHED_ONE_IN: u32 = 40;
/// How many jobs a batch has.
const BATCH: RangeInclusive<usize> = 2..=20;

/// See the module.
pub struct Asker {
    number: u32,
    random: TestRng,
    ways: Vec<Client>,
    common: Arc<Common>,
    /// Which replica is asked next.
    turn: usize,
    /// How many jobs it has asked for.
    made: u32,
    /// How many of them are to last.
    lasting: u32,
    waiting: VecDeque<Submission>,
    answered: VecDeque<Submission>,
    /// Deploy keys to be registered, and when.
    keys: Vec<(Instant, String)>,
}

/// What is repeated under its keys until it is answered.
struct Submission {
    keys: Vec<Key>,
    body: Value,
    is_batch: bool,
    /// What is to be registered some time after it is answered.
    registers: Vec<(String, Duration)>,
    /// When it is to be made next.
    due: Instant,
    /// Which replica was asked last.
    asked: Option<usize>,
}

impl Asker {
    /// A client with that number, which speaks to each replica by a way of its own.
    pub fn new(number: u32, random: TestRng, ways: Vec<Client>, common: Arc<Common>) -> Self {
        let (waiting, answered, keys) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Self { number, random, ways, common, turn: number as usize, made: 0, lasting: 0, waiting, answered, keys }
    }

    /// Asks until it is enough, and then until all that it has submitted is answered.
    pub fn run(mut self) {
        let begun = clock::instant();
        loop {
            let pause = Duration::from_millis(self.random.random_range(PAUSE_MS));
            if self.common.book.is_enough(pause) {
                break;
            }
            self.something(begun);
        }
        let until = clock::instant() + self.common.pace.answers_within;
        while !(self.waiting.is_empty() && self.keys.is_empty()) && clock::instant() < until {
            if !self.overdue() {
                between_looks();
            }
        }
    }

    /// One call, or several that belong together.
    fn something(&mut self, begun: Instant) {
        if self.overdue() {
            return;
        }
        if self.may_submit(begun) {
            return self.submits(begun);
        }
        match self.random.random_range(0..1000) {
            0..450 => self.looks(Which::OpenForLongest),
            450..650 => self.looks(Which::Recent),
            650..800 => self.looks(Which::Any),
            800..825 => self.cancels(Which::Recent),
            825..850 => self.cancels(Which::Open),
            850..870 | 910..930 => self.cancels(Which::Running),
            870..880 => self.cancels(Which::Ended),
            880..882 => self.cancels_team(),
            882..905 => self.retries(Which::Ended),
            905..910 => self.retries(Which::Any),
            930..960 => self.repeats(),
            _ => self.looks(Which::Open),
        }
    }

    /// Makes what is due of what waits; whether there was something.
    fn overdue(&mut self) -> bool {
        let now = clock::instant();
        if self.waiting.front().is_some_and(|submission| submission.due <= now) {
            let submission = self.waiting.pop_front().expect("there is one");
            self.submit(submission);
            return true;
        }
        let Some(at) = self.keys.iter().position(|(due, _)| *due <= now) else { return false };
        let (_, name) = self.keys.swap_remove(at);
        let path = format!("/api/v1/deploy-keys/{name}");
        let ask = Ask::PutKey { name: name.clone() };
        let call = self.call(&Request { ask, path, key: None, body: self.common.mix.deploy_key() });
        if is_open(&call) {
            self.keys.push((now + AGAIN, name));
        }
        true
    }

    /// Whether it is time for something new, and there is room for it.
    fn may_submit(&mut self, begun: Instant) -> bool {
        let pace = &self.common.pace;
        let share = pace.jobs_per_second / f64::from(pace.clients);
        let due = begun.elapsed().as_secs_f64() * share;
        let room = || self.common.book.open().open_count() < pace.open_max;
        self.waiting.len() < WAITING_MAX && f64::from(self.made) < due && room()
    }

    /// Which of those that last is due, if one is.
    fn lasting_due(&self, begun: Instant) -> Option<Lasting> {
        // Half of the clients are half a turn ahead.
        let halves = (2 * self.lasting).saturating_sub(self.number % 2);
        let due = LASTING_EVERY / 2 * halves;
        let kinds = [Lasting::Endures, Lasting::Careful];
        (begun.elapsed() >= due).then(|| kinds[((self.number / 2 + self.number + self.lasting) % 2) as usize])
    }

    fn submits(&mut self, begun: Instant) {
        let is_batch = self.random.random_ratio(1, 15);
        let count = if is_batch { self.random.random_range(BATCH) } else { 1 };
        let (mut keys, mut bodies, mut registers) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..count {
            let key = Key(format!("c{}-{}", self.number, self.made));
            self.made += 1;
            let lasting = self.lasting_due(begun);
            let mut made = match lasting {
                Some(kind) => self.common.mix.make_lasting(kind, &key, &mut self.random),
                None => self.common.mix.make(&key, &mut self.random),
            };
            if is_batch {
                made.body["idempotency_key"] = json!(key.0);
            }
            let mut book = self.common.book.open();
            book.jobs.insert(key.clone(), made.asked);
            if lasting.is_some() {
                book.lasting.insert(key.clone());
                self.lasting += 1;
            }
            drop(book);
            keys.push(key);
            bodies.push(made.body);
            registers.extend(made.registers);
        }
        let body = if is_batch { json!({"jobs": bodies}) } else { bodies.remove(0) };
        self.submit(Submission { keys, body, is_batch, registers, due: clock::instant(), asked: None });
    }

    /// Submits it once, at another replica than before; without an answer it is put back.
    fn submit(&mut self, mut submission: Submission) {
        let ask = Ask::Submit { keys: submission.keys.clone() };
        let key = (!submission.is_batch).then(|| submission.keys[0].0.clone());
        let path = "/api/v1/jobs".to_owned();
        if submission.asked == Some(self.turn % self.ways.len()) {
            self.turn += 1;
        }
        let call = self.call(&Request { ask, path, key, body: submission.body.clone() });
        submission.asked = Some(call.replica);
        let now = clock::instant();
        if is_open(&call) {
            submission.due = now + AGAIN;
            self.waiting.push_back(submission);
            return;
        }
        self.keys.extend(submission.registers.drain(..).map(|(name, after)| (now + after, name)));
        self.answered.push_back(submission);
        if self.answered.len() > ANSWERED_KEPT {
            self.answered.pop_front();
        }
    }

    /// Submits something again that was answered.
    fn repeats(&mut self) {
        if !self.answered.is_empty() {
            let at = self.random.random_range(0..self.answered.len());
            let submission = self.answered.remove(at).expect("it is there");
            self.submit(submission);
        }
    }

    fn looks(&mut self, which: Which) {
        if let Some(job) = self.one(which) {
            self.ask(|path| (path, Value::Null), Ask::Look { job });
        }
    }

    /// Without an answer it is sometimes repeated.
    fn cancels(&mut self, which: Which) {
        let Some(job) = self.one_to_change(which) else { return };
        let (force, body) = match self.random.random_range(0..10) {
            0..6 => (false, json!({})),
            6..8 => (true, json!({"force": true})),
            _ => (false, json!({"grace": "0s", "reason": "at once"})),
        };
        let ask = Ask::Cancel { job, force };
        while is_open(&self.ask(|path| (format!("{path}/cancel"), body.clone()), ask.clone())) {
            if self.random.random_bool(0.5) {
                return;
            }
        }
    }

    fn cancels_team(&mut self) {
        let team = TEAMS[self.random.random_range(0..TEAMS.len())].to_owned();
        let body = json!({"filter": {"label": format!("team={team}")}, "reason": "the whole team"});
        let path = "/api/v1/jobs/cancel".to_owned();
        self.call(&Request { ask: Ask::CancelTeam { team }, path, key: None, body });
    }

    fn retries(&mut self, which: Which) {
        if let Some(job) = self.one_to_change(which) {
            self.ask(|path| (format!("{path}/retry"), json!({})), Ask::Retry { job });
        }
    }

    fn one(&mut self, which: Which) -> Option<Id> {
        self.common.book.open().any(which, &mut self.random)
    }

    /// The same, but hardly ever one that is to last: it would be over before its worker is given up.
    fn one_to_change(&mut self, which: Which) -> Option<Id> {
        let job = self.one(which)?;
        let lasts = self.common.book.open().lasts(&job);
        (!lasts || self.random.random_ratio(1, LASTING_TOUCHED_ONE_IN)).then_some(job)
    }

    /// Asks something of one job, on a route below its own.
    fn ask(&mut self, route: impl FnOnce(String) -> (String, Value), ask: Ask) -> Call {
        let (Ask::Look { job } | Ask::Cancel { job, .. } | Ask::Retry { job }) = &ask else {
            panic!("{ask:?} is about more than one job");
        };
        let (path, body) = route(format!("/api/v1/jobs/{}", job.0));
        self.call(&Request { ask, path, key: None, body })
    }

    fn call(&mut self, request: &Request) -> Call {
        let replica = self.turn % self.ways.len();
        self.turn += 1;
        let call = call(&self.ways[replica], Between { client: self.number, replica }, request);
        self.common.book.open().record(call.clone());
        call
    }
}

/// Whether it may or may not have been done, or wasn't for a while only.
fn is_open(call: &Call) -> bool {
    call.answer.as_ref().is_none_or(|answer| matches!(answer.status, 429 | 503))
}
