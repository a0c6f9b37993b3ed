//! A process and all of its descendants, found in `/proc`, and signals to them.
//!
//! The keeper is their subreaper, so whatever forks, daemonizes or changes its session stays below it. Where `/proc`
//! can't be read, as without a descriptor to spare, nothing is known: that is an error, never "nothing is left".

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What `/proc` says of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// It has ended and waits for its parent to hear of it.
    pub zombie: bool,
    pub parent: Pid,
    pub session: Pid,
    /// When it was started, in the kernel's ticks: with its number it names the process for good.
    pub started: u64,
}

/// The most generations between a process and the one that it is looked for below.
const GENERATIONS_MAX: usize = 10_000;
/// How often a line of parents is followed again that broke off on the way.
const CLIMBS_MAX: usize = 10;

/// Sends SIGTERM to every descendant of `root`, and wakes those that are stopped so that they can act on it.
pub fn terminate(root: Pid) -> io::Result<()> {
    for pid in descendants(&[root])? {
        send(pid, Signal::SIGTERM);
        send(pid, Signal::SIGCONT);
    }
    Ok(())
}

/// Sends SIGKILL to every descendant of `root`.
pub fn kill_all(root: Pid) -> io::Result<()> {
    kill_found(|| descendants(&[root])).map(drop)
}

/// Sends SIGKILL to every process that `find` finds. All are stopped first, until none is found that isn't: what forks
/// without end can't outrun that, since a process that has been sent a stop completes no fork. Returns how many it were.
///
/// # Errors
/// When not all could be found; those that were are killed.
pub fn kill_found(find: impl Fn() -> io::Result<Vec<Pid>>) -> io::Result<usize> {
    let mut stopped = BTreeSet::new();
    let found = loop {
        let fresh: Vec<Pid> = match find() {
            Ok(found) => found.into_iter().filter(|pid| stopped.insert(*pid)).collect(),
            Err(error) => break Err(error),
        };
        if fresh.is_empty() {
            break Ok(stopped.len());
        }
        for pid in fresh {
            send(pid, Signal::SIGSTOP);
        }
    };
    for pid in &stopped {
        send(*pid, Signal::SIGKILL);
    }
    found
}

/// The numbers of all processes.
pub fn processes() -> io::Result<Vec<Pid>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        found.extend(name.to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw));
    }
    Ok(found)
}

/// What `/proc` has of a process in the file `name`; none when the process is gone, or another user's that hides it.
pub fn read(pid: Pid, name: &str) -> io::Result<Option<Vec<u8>>> {
    match fs::read(format!("/proc/{pid}/{name}")) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What `/proc` says of a process; none when it is gone.
pub fn stat(pid: Pid) -> io::Result<Option<Stat>> {
    Ok(read(pid, "stat")?.and_then(|stat| parsed(&stat)))
}

/// The descendants of `roots`, without these themselves.
pub fn descendants(roots: &[Pid]) -> io::Result<Vec<Pid>> {
    let mut children: BTreeMap<Pid, Vec<Pid>> = BTreeMap::new();
    for pid in processes()? {
        if let Some(stat) = stat(pid)? {
            children.entry(stat.parent).or_default().push(pid);
        }
    }
    let mut found = Vec::new();
    let mut next = roots.to_vec();
    while let Some(pid) = next.pop() {
        let below = children.remove(&pid).unwrap_or_default();
        found.extend_from_slice(&below);
        next.extend(below);
    }
    Ok(found)
}

/// Whether a process is `root` or descends from it. Of one that is gone that isn't known, so it doesn't.
pub fn is_below(pid: Pid, root: Pid) -> io::Result<bool> {
    for _ in 0..CLIMBS_MAX {
        if let Some(found) = climb(pid, root)? {
            return Ok(found);
        }
    }
    Ok(false)
}

/// Follows the parents of a process up to `root`, or to where there are no more; none when one of them ended meanwhile,
/// whose children have another parent by now.
fn climb(pid: Pid, root: Pid) -> io::Result<Option<bool>> {
    let mut at = pid;
    for _ in 0..GENERATIONS_MAX {
        if at == root {
            return Ok(Some(true));
        }
        if at.as_raw() <= 1 {
            return Ok(Some(false));
        }
        match stat(at)? {
            Some(stat) => at = stat.parent,
            None if at == pid => return Ok(Some(false)),
            None => return Ok(None),
        }
    }
    Ok(Some(false))
}

/// What a process's `stat` file says, if it is one.
pub fn parsed(stat: &[u8]) -> Option<Stat> {
    // The name in the second field may hold anything, also spaces and brackets: what follows is counted from its end.
    let name_end = memchr::memrchr(b')', stat)?;
    let rest = std::str::from_utf8(stat.get(name_end + 1..)?).ok()?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let mut number = |skip: usize| fields.nth(skip)?.parse::<i64>().ok();
    let parent = Pid::from_raw(i32::try_from(number(0)?).ok()?);
    // The process group stands between.
    let session = Pid::from_raw(i32::try_from(number(1)?).ok()?);
    // The 22nd field of all; the session is the sixth.
    let started = u64::try_from(number(15)?).ok()?;
    Some(Stat { zombie: matches!(state, "Z" | "X"), parent, session, started })
}

fn send(pid: Pid, signal: Signal) {
    match kill(pid, signal) {
        // It has ended meanwhile, which is what is wanted.
        Ok(()) | Err(Errno::ESRCH) => {}
        // One that took another user's rights: the cgroup reaches it where there is one, else it is waited for.
        Err(errno) => tracing::debug!(%pid, %signal, %errno, "signalling a process of the attempt"),
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::unistd::{getpid, getsid};

    use super::*;

    #[test]
    fn a_process_is_read_whatever_its_name_is() {
        let line = b"77 (a) S 1) Z (b)) S 12 70 71 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 1000 1 1\n";
        let expected = Stat { zombie: false, parent: Pid::from_raw(12), session: Pid::from_raw(71), started: 4711 };
        assert_eq!(parsed(line), Some(expected));
        let own = stat(getpid()).unwrap().unwrap();
        assert_eq!(own.session, getsid(None).unwrap());
        assert_eq!(stat(Pid::from_raw(i32::MAX)).unwrap(), None);
    }

    #[test]
    fn without_a_descriptor_to_spare_nothing_is_known() {
        // The limit is the process's own: a process for this test alone takes it.
        if std::env::var_os("TREE_WITHOUT_DESCRIPTORS").is_some() {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            setrlimit(Resource::RLIMIT_NOFILE, 3, hard).unwrap();
            let (found, looked) = (descendants(&[getpid()]), kill_found(|| descendants(&[getpid()])));
            setrlimit(Resource::RLIMIT_NOFILE, 64, hard).unwrap();
            assert_eq!(found.unwrap_err().raw_os_error(), Some(Errno::EMFILE as i32));
            assert!(looked.is_err());
            return;
        }
        let this = std::thread::current().name().unwrap().to_owned();
        let again = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &this])
            .env("TREE_WITHOUT_DESCRIPTORS", "1")
            .status()
            .unwrap();
        assert!(again.success());
    }
}
