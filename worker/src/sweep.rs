//! Ends what an attempt has left running where its keeper couldn't: after a crash, or when the keeper itself was killed.
//!
//! Its processes are found by their cgroup and by the job's id in their environment, and looked for until there are none.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Pid, getpid};
use shared::clock;

use crate::attempt::directories;
use crate::attempt::environment::{ATTEMPT, JOB_ID};
use crate::keeper::cgroup::Cgroup;
use crate::keeper::tree::{kill_found, processes};
use crate::spool::Entry;

/// How soon is looked again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long is looked at most: what can't be killed for so long hangs in the kernel, and no attempt can wait for that.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Ends what is left of these attempts, and removes every work directory. It blocks.
pub fn after_a_crash(entries: &[Entry], work: &Path) -> io::Result<()> {
    end(entries);
    for dir in fs::read_dir(work)? {
        let path = dir?.path();
        if let Err(error) = directories::remove(&path) {
            tracing::warn!(%error, path = %path.display(), "a work directory can't be removed");
        }
    }
    Ok(())
}

/// Ends what is left of these attempts. It blocks until nothing is found, for [`GIVE_UP`] at most.
pub fn end(entries: &[Entry]) {
    if entries.is_empty() {
        return;
    }
    let cgroups: Vec<Cgroup> =
        entries.iter().filter_map(|entry| entry.cgroup.as_deref()).filter_map(Cgroup::existing).collect();
    let owners: Vec<Owner> = entries.iter().map(Owner::of).collect();
    let until = clock::instant() + GIVE_UP;
    loop {
        cgroups.iter().for_each(Cgroup::kill);
        let left = kill_found(|| of_any(&owners));
        if left == 0 && !cgroups.iter().any(Cgroup::is_populated) {
            break;
        }
        if clock::instant() >= until {
            tracing::error!(left, "processes of an earlier attempt can't be ended");
            break;
        }
        std::thread::sleep(AGAIN);
    }
    cgroups.iter().for_each(Cgroup::remove);
}

/// Kills what can be found of an attempt right now, once: for a keeper that doesn't get to it.
pub fn kill_once(entry: &Entry) {
    if let Some(cgroup) = entry.cgroup.as_deref().and_then(Cgroup::existing) {
        cgroup.kill();
    }
    kill_found(|| of_any(&[Owner::of(entry)]));
}

/// What the environment of an attempt's processes says.
struct Owner {
    job: String,
    attempt: String,
}

impl Owner {
    fn of(entry: &Entry) -> Self {
        Self { job: format!("{JOB_ID}={}", entry.job), attempt: format!("{ATTEMPT}={}", entry.attempt) }
    }

    /// Whether the process of that environment is the attempt's. That of a zombie is empty.
    fn owns(&self, environment: &[u8]) -> bool {
        let says = |entry: &str| environment.split(|byte| *byte == 0).any(|said| said == entry.as_bytes());
        says(&self.job) && says(&self.attempt)
    }
}

fn of_any(owners: &[Owner]) -> Vec<Pid> {
    let ours = getpid();
    let owned = |pid: &Pid| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        owners.iter().any(|owner| owner.owns(&environment))
    };
    processes().into_iter().filter(|pid| *pid != ours).filter(owned).collect()
}
