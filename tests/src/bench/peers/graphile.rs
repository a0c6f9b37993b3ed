//! Graphile Worker, measured as its own benchmark does it: jobs that do nothing are put in at once, then its processes
//! work until none is left; how long as many need to start and end without a job is taken off.
//!
//! Its version 0.16 knows no batches; 0.17, the next that runs on the same Node.js, does.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use shared::clock;

use super::{Cost, Running, Used};
use crate::bench::results::Results;
use crate::postgres::Database;

/// How many jobs a process has under way, as in its own benchmark: on two cores it does more with these than with ten.
const CONCURRENT_JOBS: u32 = 24;

/// How it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// As it comes.
    Unbatched,
    /// With a local queue, and completions gathered.
    Batched,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Unbatched => "Graphile Worker, unbatched",
            Self::Batched => "Graphile Worker, batched",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Unbatched => "graphile-worker",
            Self::Batched => "graphile-worker-batched",
        }
    }

    /// How many processes work: of one, two and the four of its own benchmark, those that do the most on two cores.
    fn processes(self) -> u32 {
        match self {
            Self::Unbatched => 1,
            Self::Batched => 2,
        }
    }
}

/// Where it is installed, or nothing where it can't be.
pub fn installed(results: &mut Results) -> Option<PathBuf> {
    let missing = |program: &&str| Command::new(*program).arg("--version").output().is_err();
    if let Some(program) = ["node", "npm"].into_iter().find(missing) {
        results.skip("Graphile Worker", &format!("there is no {program}"));
        return None;
    }
    let place = super::target("tools").join("graphile-worker");
    let installed = super::prepare(Command::new(super::ours("graphile-worker/install")).arg(&place));
    installed.map(|()| place).map_err(|why| results.skip("Graphile Worker", &why)).ok()
}

/// What so many jobs cost.
pub fn measured(place: &Path, kind: Kind, database: &Database<'_>, jobs: u32) -> Cost {
    let command = |arguments: &[&str]| command(place, kind, database, arguments);
    Running::start(command(&["--schema-only"])).end();
    let processes = || (0..kind.processes()).map(|_| command(&["--once"])).collect();
    let nothing = cost(database, processes());
    let put = format!(
        "SELECT graphile_worker.add_job('nothing', json_build_object('id', id)) FROM generate_series(1, {jobs}) AS id"
    );
    database.execute(&put).expect("jobs");
    let left = "SELECT count(*) FROM graphile_worker._private_jobs";
    assert_eq!(database.number(left), i64::from(jobs), "jobs that were put in");
    let all = cost(database, processes());
    assert_eq!(database.number(left), 0, "jobs that are left");
    Cost { took: all.took.saturating_sub(nothing.took), cpu: all.cpu - nothing.cpu }
}

/// What it costs to run these beside each other, from the first one's start to the last one's end.
fn cost(database: &Database<'_>, commands: Vec<Command>) -> Cost {
    let (used, begun) = (Used::from_now(database), clock::instant());
    let running: Vec<Running> = commands.into_iter().map(Running::start).collect();
    running.into_iter().for_each(Running::end);
    let took: Duration = begun.elapsed();
    Cost { took, cpu: used.seconds() }
}

fn command(place: &Path, kind: Kind, database: &Database<'_>, arguments: &[&str]) -> Command {
    let jobs = CONCURRENT_JOBS.to_string();
    let mut command = Command::new("node");
    command.current_dir(place).arg(format!("node_modules/{}/dist/cli.js", kind.package())).args(arguments);
    command.env("DATABASE_URL", database.url()).env("CONCURRENT_JOBS", &jobs).env("NO_LOG_SUCCESS", "1");
    match kind {
        Kind::Unbatched => command.args(["--jobs", &jobs, "--max-pool-size", &(CONCURRENT_JOBS + 1).to_string()]),
        Kind::Batched => command.args(["--config", "batched.config.js"]),
    };
    command
}
