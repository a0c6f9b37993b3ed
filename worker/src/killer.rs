//! Kills attempts that are to end without a grace, by their cgroups, before anything else is done about their end.
//!
//! The keeper ends an attempt, and all that the worker has to do for that comes in its turn; of a hundred attempts that
//! are stopped together the last one's processes would run until then. A cgroup needs nobody's turn. What isn't in it is
//! left to the keeper, which hears of the order as ever. One thread kills at a time, for the kernel may have each wait.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;

use crate::keeper::cgroup::Cgroup;

/// See the module.
#[derive(Clone)]
pub struct Killer {
    runtime: Handle,
    waiting: Arc<Mutex<Waiting>>,
}

/// Cgroups that are to be killed: no more than attempts run. And whether somebody does that already.
#[derive(Default)]
struct Waiting {
    cgroups: Vec<PathBuf>,
    is_seen_to: bool,
}

impl Killer {
    /// Nobody is to be killed yet.
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, waiting: Arc::default() }
    }

    /// Kills everything that is in that cgroup now, without waiting for it. One that isn't there has nothing in it.
    pub fn kill(&self, cgroup: &Path) {
        let mut waiting = lock(&self.waiting);
        waiting.cgroups.push(cgroup.to_owned());
        if !std::mem::replace(&mut waiting.is_seen_to, true) {
            let waiting = self.waiting.clone();
            self.runtime.spawn_blocking(move || kill_all(&waiting));
        }
    }
}

/// Goes on until nobody waits.
fn kill_all(waiting: &Mutex<Waiting>) {
    loop {
        let cgroups = {
            let mut waiting = lock(waiting);
            waiting.is_seen_to = !waiting.cgroups.is_empty();
            std::mem::take(&mut waiting.cgroups)
        };
        if cgroups.is_empty() {
            return;
        }
        cgroups.iter().filter_map(|dir| Cgroup::existing(dir)).for_each(|cgroup| cgroup.kill());
    }
}

/// Each change leaves it whole, so a panic elsewhere does it no harm.
fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
