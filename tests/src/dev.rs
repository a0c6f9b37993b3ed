//! `windlass dev` as a user has it: a process of its own, on a port and in a directory that nobody else uses.
//!
//! It can be killed and started again on the same directory as often as a test likes; dropping it ends it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::process::{self, Owned};
use crate::wait::eventually;
use crate::windlass::windlass;

/// How long a start, an ordinary stop or a short job may take at most, on a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// What a line of its log says once it serves.
const LISTENING: &str = "listening on ";

/// A running `windlass dev`.
#[derive(Debug)]
pub struct Dev {
    dir: TempDir,
    arguments: Vec<String>,
    process: Owned,
    log: Log,
    /// Speaks to it with the token that it wrote.
    pub client: Client,
}

/// The lines that it wrote to standard error since its start.
type Log = Arc<Mutex<Vec<String>>>;

impl Dev {
    /// Starts it in a fresh directory and waits until it serves.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with more arguments, like `--slots 1`, which it also gets whenever it is restarted.
    pub fn start_with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (process, log, client) = started(dir.path(), &arguments);
        Self { dir, arguments, process, log, client }
    }

    /// The directory that holds all it keeps.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    pub fn pid(&self) -> i32 {
        self.process.pid()
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

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        process::send(self.pid(), Signal::SIGTERM);
        eventually(DEADLINE, "dev has stopped", || self.process.0.try_wait().expect("its end"))
    }

    /// Starts it again on the same directory; where it still runs, it is killed before.
    pub fn restart(&mut self) {
        self.kill();
        (self.process, self.log, self.client) = started(self.dir.path(), &self.arguments);
    }

    /// Submits a job, which must be accepted, and returns its id.
    pub fn submit(&self, job: &Value) -> String {
        let answer = self.client.post("/api/v1/jobs", job);
        assert_eq!(answer.status, 201, "submitting {job}: {}", answer.text);
        answer.json["id"].as_str().expect("a job has an id").to_owned()
    }

    /// The job as it stands.
    pub fn job(&self, id: &str) -> Value {
        let answer = self.client.get(&format!("/api/v1/jobs/{id}"));
        assert_eq!(answer.status, 200, "asking for job {id}: {}", answer.text);
        answer.json
    }

    /// The job's timeline: all of its events.
    pub fn events(&self, id: &str) -> Vec<Value> {
        let answer = self.client.get(&format!("/api/v1/jobs/{id}/events?limit=1000"));
        assert_eq!(answer.status, 200, "asking for the events of job {id}: {}", answer.text);
        answer.json["events"].as_array().cloned().expect("a timeline has events")
    }

    /// Asks to cancel the job: the status and the state that are answered.
    pub fn cancel(&self, id: &str, how: &Value) -> (u16, String) {
        let answer = self.client.post(&format!("/api/v1/jobs/{id}/cancel"), how);
        let state = answer.json["state"].as_str().unwrap_or_else(|| panic!("canceling job {id}: {}", answer.text));
        (answer.status, state.to_owned())
    }

    /// The job's log as plain text, as far as it is there.
    pub fn text(&self, id: &str) -> String {
        let answer = self.client.send("GET", &format!("/api/v1/jobs/{id}/logs"), &[("accept", "text/plain")], b"");
        assert_eq!(answer.status, 200, "asking for the log of job {id}: {}", answer.text);
        answer.text
    }

    /// `windlass job` with these arguments, for this server.
    pub fn client_command(&self, arguments: &[&str]) -> Command {
        let mut command = windlass();
        command.arg("job").args(arguments).env("WINDLASS_DATA_DIR", self.data_dir()).env("HOME", self.dir.path());
        command
    }

    /// The job once it is in that state.
    pub fn until(&self, id: &str, state: &str) -> Value {
        eventually(DEADLINE, &format!("job {id} is {state}"), || Some(self.job(id)).filter(|job| job["state"] == state))
    }

    /// The job once it has ended, however it did.
    pub fn ended(&self, id: &str) -> Value {
        eventually(DEADLINE, &format!("job {id} has ended"), || {
            Some(self.job(id)).filter(|job| !job["finished_at"].is_null())
        })
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what dev wrote:\n{}", self.log());
        }
    }
}

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Starts it in `dir` and waits until it serves.
fn started(dir: &Path, arguments: &[String]) -> (Owned, Log, Client) {
    let mut command = windlass();
    command.arg("dev").args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.env("WINDLASS_LISTEN", "127.0.0.1:0").env("WINDLASS_DATA_DIR", data_dir(dir)).env("HOME", dir);
    let mut process = Owned(command.spawn().expect("windlass starts"));
    let log = collected(process.0.stderr.take().expect("its standard error"));
    let address = eventually(DEADLINE, "dev listens", || {
        let lines = log.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = process.0.try_wait().expect("its state");
        assert!(ended.is_none(), "dev has ended ({ended:?}):\n{}", lines.join("\n"));
        lines.iter().find_map(|line| line.split_once(LISTENING)).map(|(_, address)| address.trim().to_owned())
    });
    let token = fs::read_to_string(data_dir(dir).join("token")).expect("dev writes its token before it listens");
    (process, log, Client::new(&address, token.trim()))
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
