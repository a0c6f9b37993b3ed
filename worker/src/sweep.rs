//! Ends what an attempt has left running where its keeper couldn't: after a crash, or when the keeper itself was killed.
//!
//! Its processes are found by their cgroup and by the job's id in their environment, and where the worker has adopted them
//! by that. They are looked for until there are none; where nothing can be seen, that isn't none.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{Pid, getpid};
use shared::clock;

use crate::attempt::directories;
use crate::attempt::environment::{ATTEMPT, JOB_ID};
use crate::keeper::cgroup::Cgroup;
use crate::keeper::orphans;
use crate::keeper::tree::{self, kill_found, processes};
use crate::spool::Entry;

/// How soon is looked again.
const AGAIN: Duration = Duration::from_millis(10);
/// How long is looked at most: what can't be killed for so long hangs in the kernel, and no attempt can wait for that.
const GIVE_UP: Duration = Duration::from_secs(10);

/// Ends what is left of these attempts, and removes every work directory. It blocks.
///
/// # Errors
/// When it can't be seen whether something is left.
pub fn after_a_crash(entries: &[Entry], work: &Path) -> io::Result<()> {
    end(entries, false)?;
    for dir in fs::read_dir(work)? {
        let path = dir?.path();
        if let Err(error) = directories::remove(&path) {
            tracing::warn!(%error, path = %path.display(), "a work directory can't be removed");
        }
    }
    Ok(())
}

/// Ends what is left of these attempts, and where `adopts` every orphan of this process. It blocks until nothing is found,
/// for [`GIVE_UP`] at most.
///
/// # Errors
/// When it couldn't be seen by then whether something is left.
pub fn end(entries: &[Entry], adopts: bool) -> io::Result<()> {
    if entries.is_empty() {
        return Ok(());
    }
    let cgroups: Vec<Cgroup> =
        entries.iter().filter_map(|entry| entry.cgroup.as_deref()).filter_map(Cgroup::existing).collect();
    let owners: Vec<Owner> = entries.iter().map(Owner::of).collect();
    let until = clock::instant() + GIVE_UP;
    let ended = loop {
        cgroups.iter().for_each(Cgroup::kill);
        let found = kill_found(|| left(&owners, adopts));
        if matches!(found, Ok(0)) && !cgroups.iter().any(Cgroup::is_populated) {
            break Ok(());
        }
        if clock::instant() >= until {
            match found {
                Ok(left) => tracing::error!(left, "processes of an earlier attempt can't be ended"),
                Err(error) => break Err(error),
            }
            break Ok(());
        }
        std::thread::sleep(AGAIN);
    };
    cgroups.iter().for_each(Cgroup::remove);
    ended
}

/// Ends what is left of an attempt, for as long as it can't be seen whether something is.
pub async fn until_gone(entry: Entry, adopts: bool) {
    loop {
        let entry = entry.clone();
        let ended = tokio::task::spawn_blocking(move || end(&[entry], adopts)).await;
        match ended.unwrap_or_else(|panic| Err(io::Error::other(panic))) {
            Ok(()) => return,
            Err(error) => tracing::error!(%error, "looking for what an attempt has left"),
        }
    }
}

/// Kills what can be found of an attempt right now, once: for a keeper that doesn't get to it.
pub fn kill_once(entry: &Entry) {
    if let Some(cgroup) = entry.cgroup.as_deref().and_then(Cgroup::existing) {
        cgroup.kill();
    }
    if let Err(error) = kill_found(|| left(&[Owner::of(entry)], false)) {
        tracing::warn!(%error, "looking for the processes of an attempt");
    }
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

fn left(owners: &[Owner], adopts: bool) -> io::Result<Vec<Pid>> {
    let ours = getpid();
    let mut found = if adopts { orphans::running()? } else { Vec::new() };
    for pid in processes()? {
        let environment = tree::read(pid, "environ")?.unwrap_or_default();
        if pid != ours && owners.iter().any(|owner| owner.owns(&environment)) {
            found.push(pid);
        }
    }
    Ok(found)
}
