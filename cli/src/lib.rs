//! What the one binary, `windlass`, does: it reads the command line, runs what it names, and ends with a code that scripts
//! can rely on.
//!
//! `windlass keeper` is no command for people: the worker starts it as the parent of a job's processes. It comes before
//! everything else here, because a keeper must begin without threads, a runtime or log lines.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

use crate::args::{Cli, Command};
use crate::exit::Error;

mod args;
mod capacity;
mod client;
mod cluster;
mod data_dir;
mod database;
mod dev;
mod embedded;
mod exit;
mod job;
mod key;
mod key_retry;
mod listen;
mod repo;
mod retention;
mod run;
mod signals;
mod table;
mod terminal;
mod timeline;
mod token;
mod workers;

/// Most of what a coordinator does besides the database's work is to make and drop small things.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The whole program; what is returned is the code to end with.
pub fn main() -> ExitCode {
    let first = std::env::args_os().nth(1);
    if first.as_deref() == Some(OsStr::new("keeper")) {
        return worker::keeper::main();
    }
    // What `run` says of itself must not look like the job's own code.
    let runs = first.as_deref() == Some(OsStr::new("run"));
    let failed = if runs { exit::NOT_RUN } else { exit::FAILED };
    let usage = if runs { exit::NOT_RUN } else { exit::USAGE };

    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let words: Vec<OsString> = std::env::args_os().skip(1).collect();
            return ExitCode::from(args::explain(&error, &words, usage));
        }
    };
    let done = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Dev(args) => dev::dev(&args),
        Command::Job(args) => job::job(&args),
        Command::Coordinator(args) => cluster::coordinator::coordinator(&args),
        Command::Worker(args) => cluster::worker::worker(&args),
        Command::Migrate => cluster::migrate(),
        Command::Workers(args) => workers::workers(&args),
        Command::Key(args) => key::key(&args),
        Command::Token(args) => token::token(&args),
        Command::Completions { shell } => args::completions(shell),
    };
    ExitCode::from(match done {
        Ok(code) => code,
        Err(Error::OutputClosed) => exit::OUTPUT_CLOSED,
        Err(Error::Usage(line)) => {
            terminal::say(&line);
            usage
        }
        Err(Error::Failed(lines)) => {
            for line in lines {
                terminal::say(&line);
            }
            failed
        }
    })
}
