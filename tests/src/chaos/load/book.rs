//! What all clients of a load know together: what was asked for, what was answered, and which jobs are there.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use proptest::prelude::RngExt;
use proptest::test_runner::TestRng;

use crate::chaos::history::{Asked, Call, Id, Key, Seen};

/// Of how many jobs somebody who wants a recent one gets one.
const RECENT: usize = 12;

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
