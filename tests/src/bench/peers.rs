//! What a user could pick instead, on a Postgres of the same kind in the same run: Graphile Worker (Node.js), as it comes and
//! with its batches, and the crate apalis. Each has jobs that do nothing, put in before the clock runs, as their own benchmarks
//! have it, whereas ours are submitted over HTTP while it runs. Ours keep their whole history; Graphile Worker deletes its jobs,
//! apalis keeps a row.

mod apalis;
mod graphile;

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::Settings;
use super::results::Results;
use super::rig;
use super::usage::Meter;
use crate::postgres::{Database, Durability, Postgres};
use crate::process::{self, Owned};
use crate::windlass;

const NAME: &str = "peers";

/// What a run of a peer has cost.
struct Cost {
    took: Duration,
    /// CPU seconds of its processes and of Postgres.
    cpu: f64,
}

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    let graphile = graphile::installed(results);
    let apalis = apalis::built(results);
    for _ in 0..settings.runs {
        let postgres = Postgres::start_with(Durability::Fsync, rig::POSTGRES);
        if let Some(place) = &graphile {
            for kind in [graphile::Kind::Unbatched, graphile::Kind::Batched] {
                let cost = graphile::measured(place, kind, &postgres.empty_database(), settings.jobs);
                add(results, kind.name(), settings.jobs, &cost);
            }
        }
        if let Some(program) = &apalis {
            let cost = apalis::measured(program, &postgres.empty_database(), settings.jobs);
            add(results, apalis::PEER, settings.jobs, &cost);
        }
    }
}

fn add(results: &mut Results, peer: &str, jobs: u32, cost: &Cost) {
    let jobs = f64::from(jobs);
    results.add(NAME, peer, "jobs/s", jobs / cost.took.as_secs_f64());
    results.add(NAME, &format!("CPU, {peer}, with Postgres"), "s/1,000 jobs", cost.cpu / jobs * 1000.0);
}

/// A file or directory of ours that is about a peer.
fn ours(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// A place in the target directory.
fn target(name: &str) -> PathBuf {
    let programs = windlass::beside("");
    programs.parent().expect("a target directory").join(name)
}

/// Runs a command that prepares something.
///
/// # Errors
/// The last line that it said, or why it didn't run.
fn prepare(command: &mut Command) -> Result<(), String> {
    let done = command.stdin(Stdio::null()).output();
    let done = done.map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    let said = String::from_utf8_lossy(&done.stderr);
    if done.status.success() { Ok(()) } else { Err(said.lines().last().unwrap_or("no reason given").to_owned()) }
}

/// A process of a peer, and what it says.
struct Running {
    process: Owned,
    said: std::fs::File,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let said = tempfile::tempfile().expect("a file");
        let also = said.try_clone().expect("the same file");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(also);
        Self { process: process::bound(command), said }
    }

    fn child(&mut self) -> &mut Child {
        &mut self.process.0
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it fails, with what it said.
    fn end(mut self) {
        let mut out = String::new();
        if let Some(mut stdout) = self.child().stdout.take() {
            stdout.read_to_string(&mut out).expect("its output");
        }
        let status = self.child().wait().expect("its end");
        let mut said = String::new();
        self.said.rewind().and_then(|()| self.said.read_to_string(&mut said)).expect("what it said");
        assert!(status.success(), "it ended with {status}:\n{out}\n{said}");
    }
}

/// CPU seconds of one database's server and of what was started and has ended, from a moment on.
struct Used {
    server: Meter,
    ended: f64,
}

impl Used {
    fn from_now(database: &Database<'_>) -> Self {
        Self { server: Meter::start(vec![("Postgres", Some(database.server().pid()))]), ended: of_ended() }
    }

    fn seconds(&self) -> f64 {
        self.server.read().iter().map(|(_, seconds)| seconds).sum::<f64>() + of_ended() - self.ended
    }
}

/// CPU seconds of all that we have started and that has ended.
fn of_ended() -> f64 {
    let used = getrusage(UsageWho::RUSAGE_CHILDREN).expect("what was used");
    let micros = used.user_time().num_microseconds() + used.system_time().num_microseconds();
    Duration::from_micros(micros.try_into().unwrap_or_default()).as_secs_f64()
}
