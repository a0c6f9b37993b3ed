//! What comes to the worker itself when a keeper was killed: the worker is the next subreaper above its keepers, so what
//! they kept becomes its child, also what has emptied its environment and is in no cgroup.
//!
//! Such a child is told from the process's own by its session: whatever a job runs is in a session that isn't ours, and
//! of what we start ourselves that holds for keepers alone, which are written down here. It is reaped by its number, for
//! the runtime waits for our own children.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::prctl;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, getpid, getsid};
use tokio::process::{Child, Command};

use super::tree::{self, Stat};

/// The keepers of this process by their number and the time of their start; also such as have ended.
static KEEPERS: Mutex<BTreeSet<(Pid, u64)>> = Mutex::new(BTreeSet::new());

/// From now on what loses its keeper comes to this process.
pub fn adopt() -> io::Result<()> {
    Ok(prctl::set_child_subreaper(true)?)
}

/// Starts a keeper, and writes down that it is one before anybody looks.
pub fn start_keeper(command: &mut Command) -> io::Result<Child> {
    let mut keepers = keepers();
    let mut child = command.spawn()?;
    let noted = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw).map(|pid| {
        let stat = tree::stat(pid)?.ok_or(io::ErrorKind::NotFound)?;
        // Those that are gone for sure are forgotten.
        keepers
            .retain(|(pid, started)| tree::stat(*pid).map_or(true, |stat| stat.is_some_and(|s| s.started == *started)));
        keepers.insert((pid, stat.started));
        Ok::<_, io::Error>(())
    });
    match noted {
        Some(Ok(())) => Ok(child),
        failed => {
            // One that nobody knows would be taken for an orphan.
            child.start_kill()?;
            Err(failed.and_then(Result::err).unwrap_or_else(|| io::ErrorKind::NotFound.into()))
        }
    }
}

/// The orphans that this process has adopted and that still run, with all their descendants. Those that have ended are
/// reaped.
pub fn running() -> io::Result<Vec<Pid>> {
    let keepers = keepers();
    let (ours, session) = (getpid(), getsid(None)?);
    let is_orphan = |pid: Pid, stat: &Stat| {
        stat.parent == ours && stat.session != session && !keepers.contains(&(pid, stat.started))
    };
    let mut found = Vec::new();
    for pid in tree::processes()? {
        let Some(stat) = tree::stat(pid)?.filter(|stat| is_orphan(pid, stat)) else { continue };
        if stat.zombie {
            // Another that looks at the same time may have been first.
            let _ = waitpid(pid, Some(WaitPidFlag::WNOHANG));
        } else {
            found.push(pid);
        }
    }
    if !found.is_empty() {
        found.extend(tree::descendants(&found)?);
    }
    Ok(found)
}

/// Numbers in a set are whole after any panic.
fn keepers() -> MutexGuard<'static, BTreeSet<(Pid, u64)>> {
    KEEPERS.lock().unwrap_or_else(PoisonError::into_inner)
}
