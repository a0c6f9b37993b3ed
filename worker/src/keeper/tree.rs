//! A process and all of its descendants, found in `/proc`, and signals to them.
//!
//! The keeper is their subreaper, so whatever forks, daemonizes or changes its session stays below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Sends SIGTERM to every descendant of `root`, and wakes those that are stopped so that they can act on it.
pub fn terminate(root: Pid) {
    for pid in descendants(root) {
        send(pid, Signal::SIGTERM);
        send(pid, Signal::SIGCONT);
    }
}

/// Sends SIGKILL to every descendant of `root`.
pub fn kill_all(root: Pid) {
    kill_found(|| descendants(root));
}

/// Sends SIGKILL to every process that `find` finds. All are stopped first, until none is found that isn't: what forks
/// without end can't outrun that, since a process that has been sent a stop completes no fork. Returns how many it were.
pub fn kill_found(find: impl Fn() -> Vec<Pid>) -> usize {
    let mut stopped = BTreeSet::new();
    loop {
        let fresh: Vec<Pid> = find().into_iter().filter(|pid| stopped.insert(*pid)).collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            send(pid, Signal::SIGSTOP);
        }
    }
    for pid in &stopped {
        send(*pid, Signal::SIGKILL);
    }
    stopped.len()
}

/// The numbers of all processes.
pub fn processes() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw);
    entries.filter_map(Result::ok).filter_map(number).collect()
}

fn descendants(root: Pid) -> Vec<Pid> {
    let mut children: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    for pid in processes() {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = vec![root];
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend_from_slice(&below);
        next.extend(below);
    }
    found
}

/// The parent of a process, if it is still there.
fn parent(pid: Pid) -> Option<Pid> {
    // The name in the second field may hold anything, also spaces and brackets: what follows is counted from its end.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name_end = memchr::memrchr(b')', &stat)?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

fn send(pid: Pid, signal: Signal) {
    match kill(pid, signal) {
        // It has ended meanwhile, which is what is wanted.
        Ok(()) | Err(Errno::ESRCH) => {}
        // One that took another user's rights: the cgroup reaches it where there is one, else it is waited for.
        Err(errno) => tracing::debug!(%pid, %signal, %errno, "signalling a process of the attempt"),
    }
}
