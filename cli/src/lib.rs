//! What the one binary, `windlass`, does: it reads the command line, runs what it names, and ends with a code that scripts
//! can rely on.
//!
//! `windlass keeper` is no command for people: the worker starts it as the parent of a job's processes. It comes before
//! everything else here, because a keeper must begin without threads, a runtime or log lines.

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;
use shared::settings::Settings;

use crate::args::config::ConfigCommand;
use crate::args::{Cli, Command, variable};
use crate::config::Sources;
use crate::exit::Error;

mod args;
mod capacity;
mod client;
mod cluster;
mod config;
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
mod trust;
mod workers;

/// Most of what a coordinator does besides the database's work is to make and drop small things.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// The whole program; what is returned is the code to end with.
pub fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().map(OsString::as_os_str) == Some(OsStr::new("keeper")) {
        return worker::keeper::main();
    }
    // What `run` says of itself must not look like the job's own code.
    let runs = args::asks_to_run(&words);
    let failed = if runs { exit::NOT_RUN } else { exit::FAILED };
    let usage = if runs { exit::NOT_RUN } else { exit::USAGE };

    let Cli { config, command } = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(args::explain(&error, &words, usage)),
    };
    ExitCode::from(match done(command, config.as_deref()) {
        Ok(code) => code,
        Err(Error::OutputClosed) => exit::OUTPUT_CLOSED,
        Err(Error::Usage(line)) => {
            terminal::say(&line);
            usage
        }
        Err(Error::Settings(lines)) => {
            tell(&lines);
            usage
        }
        Err(Error::Failed(lines)) => {
            tell(&lines);
            failed
        }
    })
}

fn tell(lines: &[String]) {
    for line in lines {
        terminal::say(line);
    }
}

/// Does what the command says, with the settings of the environment and the file.
fn done(command: Command, config: Option<&Path>) -> Result<u8, Error> {
    match &command {
        Command::Completions { shell } => return args::completions(*shell),
        Command::Config(args) => {
            let ConfigCommand::Check(args) = &args.command;
            return config::check::check(args, config, &variable);
        }
        _ => {}
    }
    let (sources, mistakes) = Sources::load(config, &variable);
    if !mistakes.is_empty() {
        return Err(Error::Settings(mistakes.iter().map(ToString::to_string).collect()));
    }
    let lookup = |name: &str| sources.text(name);
    let settings = Settings::new(&lookup);
    if matches!(command, Command::Dev(_) | Command::Coordinator(_) | Command::Worker(_)) {
        tell(&config::warnings_here());
    }
    let done = match command {
        Command::Run(args) => run::run(args, &settings),
        Command::Dev(args) => dev::dev(&args, &settings),
        Command::Job(args) => job::job(&args, &settings),
        Command::Coordinator(args) => cluster::coordinator::coordinator(&args, &settings),
        Command::Worker(args) => cluster::worker::worker(&args, &settings),
        Command::Migrate => cluster::migrate(&settings),
        Command::Workers(args) => workers::workers(&args, &settings),
        Command::Key(args) => key::key(&args, &settings),
        Command::Token(args) => token::token(&args, &settings),
        // Neither needs settings that hold.
        Command::Config(_) | Command::Completions { .. } => Ok(0),
    };
    done.map_err(|error| match error {
        Error::Usage(line) => Error::Usage(sources.traced(&line)),
        other => other,
    })
}
