//! A `windlass` process that serves until it is ended: its log, its address, its signals.

use std::io::{BufRead, BufReader};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::dev::DEADLINE;
use crate::process::{self, Owned};
use crate::wait::eventually;

/// What a line of its log says once it serves.
const LISTENING: &str = "listening on ";

/// A running server.
#[derive(Debug)]
pub struct Server {
    name: String,
    process: Owned,
    log: Log,
}

/// The lines that it wrote to standard error since its start.
type Log = Arc<Mutex<Vec<String>>>;

impl Server {
    /// Starts it; `name` is what its log is headed by.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = Owned(command.spawn().expect("the server starts"));
        let log = collected(process.0.stderr.take().expect("its standard error"));
        Self { name: name.to_owned(), process, log }
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Where it listens, once it does.
    pub fn address(&mut self) -> String {
        let line = self.said(LISTENING);
        let (_, address) = line.split_once(LISTENING).expect("what was waited for");
        address.trim().to_owned()
    }

    /// The first line of its log that says `words`, once there is one.
    pub fn said(&mut self, words: &str) -> String {
        let (name, process, log) = (&self.name, &mut self.process, &self.log);
        eventually(DEADLINE, &format!("{name} says {words:?}"), || {
            let lines = log.lock().unwrap_or_else(PoisonError::into_inner);
            let found = lines.iter().find(|line| line.contains(words)).cloned();
            let ended = process.0.try_wait().expect("its state");
            assert!(found.is_some() || ended.is_none(), "{name} has ended ({ended:?}):\n{}", lines.join("\n"));
            found
        })
    }

    /// What it has written to standard error since its start.
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).join("\n")
    }

    /// Ends it with SIGKILL: it has no moment left to tidy up.
    pub fn kill(&mut self) {
        self.process.0.kill().expect("it can be killed");
        self.process.0.wait().expect("its end");
    }

    pub fn signal(&self, signal: Signal) {
        process::send(self.pid(), signal);
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.ended(DEADLINE)
    }

    /// Waits until it has ended.
    pub fn ended(&mut self, within: Duration) -> ExitStatus {
        eventually(within, &format!("{} has ended", self.name), || self.process.0.try_wait().expect("its end"))
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.process.0.try_wait().expect("its state").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what {} wrote:\n{}", self.name, self.log());
        }
    }
}

/// Collects the lines as they come; ends with the pipe.
fn collected(stderr: ChildStderr) -> Log {
    let log = Log::default();
    let lines = Arc::clone(&log);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
    log
}
