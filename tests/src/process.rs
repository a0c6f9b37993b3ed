//! What runs on this machine, seen through `/proc`: whether a process is alive, and which ones carry a mark.
//!
//! A job that gets a [`Mark`] in its environment can be looked for after its end: whatever it started and left behind
//! has inherited the mark, whoever its parent is by then. [`escape`] is how a job leaves something behind.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use uuid::Uuid;

use crate::wait::eventually;

/// A process that is ended when this is dropped, so that no failed test leaves one behind.
#[derive(Debug)]
pub struct Owned(pub Child);

impl Owned {
    pub fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("a pid")
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // It may have ended by itself; either way its exit has to be collected.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a process that ends with ours, however we end.
///
/// # Panics
/// When it can't be started.
pub fn bound(command: Command) -> Owned {
    static STARTER: OnceLock<Starter> = OnceLock::new();
    STARTER.get_or_init(Starter::new).bound(command)
}

/// Starts processes that end with it, and with ours. The kernel tells such a process when the thread that started it ends,
/// and a test's thread may end before the process shall: so a thread of the starter's own starts them.
#[derive(Debug)]
pub struct Starter(SyncSender<Order>);

/// A process to be started.
struct Order {
    command: Command,
    answer: SyncSender<io::Result<Child>>,
}

impl Starter {
    /// One whose processes see the mounts that the caller's thread sees.
    pub fn new() -> Self {
        let (orders, ordered) = sync_channel::<Order>(1);
        thread::spawn(move || {
            for Order { mut command, answer } in ordered {
                // Whoever ordered it may have panicked since.
                let _ = answer.send(command.spawn());
            }
        });
        Self(orders)
    }

    /// Starts a process that ends with this and with ours, however we end.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn bound(&self, mut command: Command) -> Owned {
        // SAFETY: `prctl` is safe to call between `fork` and `exec`.
        unsafe {
            command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
        }
        let (answer, spawned) = sync_channel(1);
        self.0.send(Order { command, answer }).expect("the thread that starts processes");
        Owned(spawned.recv().expect("an answer").expect("the program starts"))
    }
}

impl Default for Starter {
    fn default() -> Self {
        Self::new()
    }
}

/// The environment entry that a mark is.
const NAME: &str = "TEST_MARK";

/// A value that no other process of this machine has in its environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark(String);

impl Mark {
    pub fn fresh() -> Self {
        Self(Uuid::new_v4().simple().to_string())
    }

    /// The entry's name and value, for a job's `env`.
    pub fn entry(&self) -> (&'static str, &str) {
        (NAME, &self.0)
    }

    /// The processes that carry it, zombies left out.
    pub fn carriers(&self) -> Vec<i32> {
        carrying(NAME, &self.0)
    }

    /// Whether nothing carries it.
    pub fn is_gone(&self) -> bool {
        self.carriers().is_empty()
    }

    /// Waits until nothing carries it any more.
    ///
    /// # Panics
    /// When something still does after `deadline`.
    pub fn until_gone(&self, deadline: Duration) {
        eventually(deadline, "no process of the job is left", || self.is_gone().then_some(()));
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether that process runs; one that has ended and waits for its parent doesn't.
pub fn is_alive(pid: i32) -> bool {
    stat(pid).is_some_and(|fields| !matches!(fields.first().map(String::as_str), Some("Z" | "X")))
}

/// The children of that process.
pub fn children(pid: i32) -> Vec<i32> {
    let parent = pid.to_string();
    all().into_iter().filter(|child| stat(*child).is_some_and(|fields| fields.get(1) == Some(&parent))).collect()
}

/// How much memory that process has had at most, in KiB; none when it is gone.
pub fn peak_kib(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    peak.trim().trim_end_matches("kB").trim().parse().ok()
}

/// A line of shell that leaves a process behind which is hard to get rid of: it was forked twice, is in a session of its
/// own, has closed its outputs and ignores what can be ignored. Its number is in the file `note` before the line ends.
pub fn escape(note: &Path) -> String {
    let note = note.display();
    let stays = format!("trap \\\"\\\" TERM INT HUP; echo \\$\\$ > {note}; while :; do sleep 1; done");
    format!("setsid sh -c 'sh -c \"{stays}\" > /dev/null 2>&1 &'; while [ ! -s {note} ]; do sleep 0.01; done")
}

/// The processes in whose environment `name` has that value, zombies left out.
pub fn carrying(name: &str, value: &str) -> Vec<i32> {
    let entry = format!("{name}={value}");
    let carries = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|found| found == entry.as_bytes())
    };
    all().into_iter().filter(carries).collect()
}

/// The number that a process has written into the file `note`, once it has.
pub fn noted(note: &Path) -> i32 {
    let read = || fs::read_to_string(note).ok()?.strip_suffix('\n')?.parse().ok();
    eventually(Duration::from_mins(1), &format!("a number in {}", note.display()), read)
}

/// The arguments of every process, with its number.
pub fn command_lines() -> Vec<(i32, Vec<u8>)> {
    all().into_iter().filter_map(|pid| Some((pid, fs::read(format!("/proc/{pid}/cmdline")).ok()?))).collect()
}

/// How many bytes that process has written, wherever to; none when it is gone.
pub fn written(pid: i32) -> Option<u64> {
    let counts = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    counts.lines().find_map(|line| line.strip_prefix("wchar:"))?.trim().parse().ok()
}

/// Sends `signal` to that one process.
///
/// # Panics
/// When there is no such process.
pub fn send(pid: i32, signal: Signal) {
    signal::kill(Pid::from_raw(pid), signal).unwrap_or_else(|error| panic!("sending {signal} to {pid}: {error}"));
}

/// Sends `signal` to that group of processes, as a terminal does.
///
/// # Panics
/// When there is no such group.
pub fn send_to_group(group: i32, signal: Signal) {
    signal::killpg(Pid::from_raw(group), signal).unwrap_or_else(|error| panic!("sending {signal} to {group}: {error}"));
}

fn all() -> Vec<i32> {
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The fields of `/proc/PID/stat` after the name: state, parent and so on.
fn stat(pid: i32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio, id};
    use std::time::Duration;

    use nix::sys::signal::Signal;

    use super::{Mark, children, is_alive, peak_kib, send};
    use crate::wait::eventually;

    #[test]
    fn a_marked_process_is_found_until_it_has_ended() {
        let mark = Mark::fresh();
        let (name, value) = mark.entry();
        let mut child = Command::new("cat").env(name, value).stdin(Stdio::piped()).spawn().expect("cat");
        let pid = i32::try_from(child.id()).expect("a pid");
        // Between fork and exec the child still has our environment.
        let found = eventually(Duration::from_secs(10), "the mark", || Some(mark.carriers()).filter(|c| !c.is_empty()));
        assert_eq!(found, [pid]);
        assert!(is_alive(pid) && peak_kib(pid).is_some_and(|kib| kib > 0));
        assert!(children(i32::try_from(id()).expect("a pid")).contains(&pid));

        send(pid, Signal::SIGKILL);
        eventually(Duration::from_secs(10), "a zombie isn't alive", || (!is_alive(pid)).then_some(()));
        assert!(mark.carriers().is_empty());
        child.wait().expect("its end");
        assert!(!is_alive(pid));
    }
}
