//! What all clients of a load know together: what was asked for, what was answered, and which jobs are there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;

use crate::chaos::history::{Ask, Asked, Call, Id, Key, Seen};

/// Of how many jobs somebody who wants a recent one gets one.
const RECENT: usize = 12;

/// The state of a job that a worker runs.
const RUNNING: &str = "running";

/// See the module.
#[derive(Default)]
pub struct Book {
    written: Mutex<Written>,
    /// Whether it is enough.
    enough: Mutex<bool>,
    said: Condvar,
}

/// What is in it.
#[derive(Default)]
pub struct Written {
    pub jobs: BTreeMap<Key, Asked>,
    pub calls: Vec<Call>,
    /// The jobs that are to last.
    pub lasting: BTreeSet<Key>,
    /// Those of them that are known.
    lasting_ids: BTreeSet<Id>,
    /// Each job that an answer has spoken of, in the order in which they were first spoken of.
    known: Vec<Seen>,
    by_id: BTreeMap<Id, usize>,
    /// Those that no answer has called ended, the one that was looked at longest ago first.
    open: VecDeque<usize>,
}

/// Which job somebody wants to do something with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// One of the last.
    Recent,
    /// Any that hasn't ended as far as is known.
    Open,
    /// Any that ran when it was last looked at.
    Running,
    /// The one whose state was asked for longest ago, of those.
    OpenForLongest,
    Ended,
    Any,
}

impl Book {
    /// What is in it, to be read or written.
    pub fn open(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that it is enough.
    pub fn say_enough(&self) {
        *self.enough.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.said.notify_all();
    }

    /// Whether it is enough, or is said to be before the pause is over.
    pub fn is_enough(&self, pause: Duration) -> bool {
        let enough = self.enough.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.said.wait_timeout_while(enough, pause, |enough| !*enough);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Written {
    /// Writes a call down, and what its answer says of jobs.
    pub fn record(&mut self, call: Call) {
        for seen in call.answer.iter().flat_map(|answer| &answer.jobs) {
            self.see(seen);
        }
        if let (Ask::Submit { keys }, Some(answer)) = (&call.ask, &call.answer) {
            let lasting = keys.iter().zip(&answer.jobs).filter(|(key, _)| self.lasting.contains(key));
            self.lasting_ids.extend(lasting.map(|(_, job)| job.id.clone()));
        }
        self.calls.push(call);
    }

    fn see(&mut self, seen: &Seen) {
        if let Some(at) = self.by_id.get(&seen.id) {
            // An answer may be older than one that came before it.
            if !ended(&self.known[*at]) {
                self.known[*at] = seen.clone();
            }
            return;
        }
        let at = self.known.len();
        self.by_id.insert(seen.id.clone(), at);
        self.known.push(seen.clone());
        self.open.push_back(at);
    }

    /// Whether it is one that is to last.
    pub fn lasts(&self, job: &Id) -> bool {
        self.lasting_ids.contains(job)
    }

    /// How many jobs hadn't ended when they were last looked at.
    pub fn open_count(&mut self) -> usize {
        let known = &self.known;
        self.open.retain(|at| !ended(&known[*at]));
        self.open.len()
    }

    /// One of those, if there is one.
    pub fn any(&mut self, which: Which, random: &mut TestRng) -> Option<Id> {
        let count = self.known.len();
        let at = match which {
            _ if count == 0 => return None,
            Which::Any => random.random_range(0..count),
            Which::Recent => random.random_range(count.saturating_sub(RECENT)..count),
            Which::Open => {
                let open = self.open_count();
                *self.open.get(random.random_range(0..open.max(1)))?
            }
            Which::Running => {
                let running = |at: &&usize| self.known[**at].state == RUNNING;
                let running: Vec<usize> = self.open.iter().filter(running).copied().collect();
                *running.get(random.random_range(0..running.len().max(1)))?
            }
            Which::OpenForLongest => {
                self.open_count();
                let at = self.open.pop_front()?;
                self.open.push_back(at);
                at
            }
            Which::Ended => {
                let at = random.random_range(0..count);
                Some(at).filter(|at| ended(&self.known[*at]))?
            }
        };
        Some(self.known[at].id.clone())
    }
}

fn ended(seen: &Seen) -> bool {
    matches!(&*seen.state, "succeeded" | "failed" | "canceled")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::test_runner::{RngAlgorithm, TestRng};

    use super::{Book, Which};
    use crate::chaos::history::{Answer, Ask, At, Call, Id, Key, Seen};

    #[test]
    fn a_running_job_is_one_that_ran_when_it_was_last_looked_at_and_those_that_last_are_known() {
        let (book, mut random) = (Book::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]));
        let mut book = book.open();
        book.lasting.insert(Key("c".to_owned()));
        let say = |ask: Ask, states: &[(&str, &str)]| {
            let seen = |(id, state): &(&str, &str)| Seen {
                id: Id((*id).to_owned()),
                state: (*state).to_owned(),
                ..Seen::default()
            };
            let jobs = states.iter().map(seen).collect();
            let answer = Some(Answer { at: At(2), status: 200, jobs, matched: None, problem: None });
            Call { client: 0, replica: 0, asked_at: At(1), ask, answer }
        };
        let keys = ["a", "b", "c", "d"].map(|key| Key(key.to_owned())).to_vec();
        book.record(say(
            Ask::Submit { keys },
            &[("1", "queued"), ("2", "running"), ("3", "running"), ("4", "running")],
        ));
        let look = |id: &str, state: &str| say(Ask::Look { job: Id(id.to_owned()) }, &[(id, state)]);
        book.record(look("2", "succeeded"));
        let mut all = || (0..50).filter_map(|_| book.any(Which::Running, &mut random)).collect::<BTreeSet<_>>();
        assert_eq!(all(), BTreeSet::from(["3", "4"].map(|id| Id(id.to_owned()))));
        assert_eq!(["1", "3"].map(|id| book.lasts(&Id(id.to_owned()))), [false, true]);
        book.record(look("3", "failed"));
        book.record(look("4", "queued"));
        assert_eq!(book.any(Which::Running, &mut random), None);
    }
}
