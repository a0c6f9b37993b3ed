//! `windlass dev` as a user has it: a process of its own, on a port and in a directory that nobody else uses.
//!
//! It can be killed and started again on the same directory as often as a test likes; dropping it ends it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::server::Server;
use crate::wait::eventually;
use crate::windlass::windlass;

/// How long a start, an ordinary stop or a short job may take at most, on a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_mins(1);

/// A running `windlass dev`.
#[derive(Debug)]
pub struct Dev {
    dir: TempDir,
    arguments: Vec<String>,
    server: Server,
    /// Speaks to it with the token that it wrote.
    pub client: Client,
}

impl Dev {
    /// Starts it in a fresh directory and waits until it serves.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts it with more arguments, like `--slots 1`, which it also gets whenever it is restarted.
    pub fn start_with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let arguments: Vec<String> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let (server, client) = started(dir.path(), &arguments);
        Self { dir, arguments, server, client }
    }

    /// The directory that holds all it keeps.
    pub fn data_dir(&self) -> PathBuf {
        data_dir(self.dir.path())
    }

    pub fn pid(&self) -> i32 {
        self.server.pid()
    }

    /// What it has written to standard error since its start.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Ends it with SIGKILL: it has no moment left to tidy up.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn stop(&mut self) -> ExitStatus {
        self.server.stop()
    }

    /// Starts it again on the same directory; where it still runs, it is killed before.
    pub fn restart(&mut self) {
        self.kill();
        (self.server, self.client) = started(self.dir.path(), &self.arguments);
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

fn data_dir(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// Starts it in `dir` and waits until it serves.
fn started(dir: &Path, arguments: &[String]) -> (Server, Client) {
    let mut command = windlass();
    command.arg("dev").args(arguments);
    command.env("WINDLASS_LISTEN", "127.0.0.1:0").env("WINDLASS_DATA_DIR", data_dir(dir)).env("HOME", dir);
    let mut server = Server::start("dev", command);
    let address = server.address();
    let token = fs::read_to_string(data_dir(dir).join("token")).expect("dev writes its token before it listens");
    (server, Client::new(&address, token.trim()))
}
