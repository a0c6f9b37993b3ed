//! The crate apalis with its Postgres storage. Its program stands apart from the workspace, with its own dependencies, and is
//! built when it is measured for the first time.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;

use shared::clock;

use super::{Cost, Running, Used};
use crate::bench::results::Results;
use crate::postgres::Database;

pub const PEER: &str = "apalis";
const PROGRAM: &str = "apalis-peer";

/// Its program, or nothing where it can't be built.
pub fn built(results: &mut Results) -> Option<PathBuf> {
    println!("building {PROGRAM}, unless it is there");
    let target = super::target("peers-apalis");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--locked", "--manifest-path"]).arg(super::ours("apalis/Cargo.toml"));
    cargo.arg("--target-dir").arg(&target);
    // What cargo tells the program that it runs is about that one.
    let said = env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("CARGO_PKG_"));
    for name in said {
        cargo.env_remove(name);
    }
    let program = target.join("release").join(PROGRAM);
    super::prepare(&mut cargo).map(|()| program).map_err(|why| results.skip(PEER, &why)).ok()
}

/// What so many jobs cost, from the worker's start to its end.
pub fn measured(program: &Path, database: &Database<'_>, jobs: u32) -> Cost {
    let mut command = Command::new(program);
    command.arg(jobs.to_string()).env("DATABASE_URL", database.url());
    let mut running = Running::start(command);
    let mut lines = BufReader::new(running.child().stdout.take().expect("its output")).lines().map_while(Result::ok);
    let mut said = |word: &str| assert_eq!(lines.next().as_deref(), Some(word), "what {PROGRAM} says");
    said("put in");
    let (used, begun) = (Used::from_now(database), clock::instant());
    said("done");
    let took = begun.elapsed();
    running.end();
    let cpu = used.seconds();
    let done = database.number("SELECT count(*) FROM apalis.jobs WHERE status = 'Done'");
    assert_eq!(done, i64::from(jobs), "jobs that are done");
    Cost { took, cpu }
}
