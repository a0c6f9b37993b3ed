//! The words of the command line, and how a mistake in them is told.
//!
//! Settings that are also variables are read here as plain options: `shared::settings` looks the variable up, because
//! an empty variable counts as unset.

#![expect(clippy::doc_markdown, reason = "the comments of these types are the help that clap prints")]

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use shared::time::Period;

use crate::exit::{self, Error};
use crate::terminal;

pub mod admin;
pub mod api;
pub mod cluster;
pub mod config;
pub mod job;
pub mod key;

/// What a service logs unless told otherwise: the libraries' own words help nobody as long as nothing is wrong.
pub const LOG_DEFAULT: &str = "info,actix_server=warn,async_nats=warn,sqlx=warn";

/// Windlass coordinates build and deploy jobs.
#[derive(Parser)]
#[command(name = "windlass", version, after_help = ROOT_EXAMPLES)]
pub struct Cli {
    /// Read settings from this file [env: WINDLASS_CONFIG] [default: $XDG_CONFIG_HOME/windlass/windlass.toml, or else
    /// /etc/windlass/windlass.toml, where there is one]
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run one job here, in one process, and end with its code.
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Coordinator, worker and API in one process, with everything in one directory.
    #[command(after_help = DEV_EXAMPLES)]
    Dev(DevArgs),
    /// Submit, follow and stop jobs through the HTTP API.
    #[command(after_help = job::EXAMPLES)]
    Job(job::JobArgs),
    /// One coordinator of a cluster: owns jobs and serves the API, on Postgres and NATS.
    #[command(after_help = cluster::COORDINATOR_EXAMPLES)]
    Coordinator(cluster::CoordinatorArgs),
    /// One worker of a cluster: runs jobs on this host.
    #[command(after_help = cluster::WORKER_EXAMPLES)]
    Worker(cluster::WorkerArgs),
    /// Bring the cluster's database up to date, and do nothing else.
    #[command(after_help = cluster::MIGRATE_EXAMPLES)]
    Migrate,
    /// List, pause, resume, drain and revoke the workers of a cluster.
    #[command(after_help = admin::WORKERS_EXAMPLES)]
    Workers(admin::WorkersArgs),
    /// Register, list, replace and remove deploy keys, and move everything on to a new master key.
    #[command(after_help = key::EXAMPLES)]
    Key(key::KeyArgs),
    /// Make, list and revoke tokens.
    #[command(after_help = admin::TOKEN_EXAMPLES)]
    Token(admin::TokenArgs),
    /// Check the settings: the file's and the environment's.
    #[command(after_help = config::EXAMPLES)]
    Config(config::ConfigArgs),
    /// Print the completions of a shell.
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions { shell: Shell },
}

/// `windlass run`.
#[derive(Args)]
pub struct RunArgs {
    /// Repository to check out: a path, or a URL of file, https or ssh [default: an empty work tree]
    #[arg(long, value_name = "URL-or-path")]
    pub repo: Option<String>,
    /// Branch, tag or commit [default: the repository's HEAD]
    #[arg(long = "ref", value_name = "REF", requires = "repo")]
    pub reference: Option<String>,
    /// Deploy key that opens the repository: a file with a private key, where there is a `/` in it or no --data-dir; else the
    /// name of one that is kept in that directory
    #[arg(long, value_name = "NAME-or-file", requires = "repo")]
    pub deploy_key: Option<String>,
    /// The host's keys, for a deploy key from a file [default: ~/.ssh/known_hosts]
    #[arg(long, value_name = "F", requires = "deploy_key")]
    pub known_hosts: Option<PathBuf>,
    /// Environment of the command, over that of the caller; repeatable
    #[arg(long, value_name = "K=V", value_parser = job::pair)]
    pub env: Vec<(String, String)>,
    /// How long the job may take, like 90s or 1h30m [default: 1h]
    #[arg(long, value_name = "D")]
    pub timeout: Option<Period>,
    /// From SIGTERM to SIGKILL when the job is stopped [default: 10s]
    #[arg(long, value_name = "D")]
    pub grace: Option<Period>,
    /// Where the job and its log are kept [env: WINDLASS_DATA_DIR] [default: a directory that is gone afterwards]
    #[arg(long, value_name = "D")]
    pub data_dir: Option<PathBuf>,
    /// Which log lines to show, like `info` or `coordinator=debug` [env: WINDLASS_LOG] [default: error]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
    /// The command and its arguments, run without a shell
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `windlass dev`.
#[derive(Args)]
pub struct DevArgs {
    /// Where the API listens; port 0 picks a free one [env: WINDLASS_LISTEN] [default: 127.0.0.1:7070]
    #[arg(long, value_name = "A")]
    pub listen: Option<String>,
    /// Where everything is kept [env: WINDLASS_DATA_DIR] [default: $XDG_STATE_HOME/windlass]
    #[arg(long, value_name = "D")]
    pub data_dir: Option<PathBuf>,
    /// How many jobs run at once [env: WINDLASS_SLOTS] [default: the CPUs]
    #[arg(long, value_name = "N")]
    pub slots: Option<u32>,
    /// A tag of the worker; repeatable [env: WINDLASS_TAG, comma-separated]
    #[arg(long, value_name = "T")]
    pub tag: Vec<String>,
    /// How it looks for a deploy key that isn't registered, unless the job says so: parts of
    /// `tries=5,backoff=exponential,first=1s,max=30s,deadline=2m` [env: WINDLASS_KEY_RETRY]
    #[arg(long, value_name = "P")]
    pub key_retry: Option<String>,
    /// How long a job is kept after its end, 1d or more [env: WINDLASS_RETENTION] [default: 30d]
    #[arg(long, value_name = "D")]
    pub retention: Option<Period>,
    /// Which log lines to show, like `info` or `coordinator=debug` [env: WINDLASS_LOG] [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log: Option<String>,
}

/// Tells what clap has to say of `words`, the command line without the program's name, and returns the code to end with;
/// `usage` where it was a mistake.
pub fn explain(error: &clap::Error, words: &[OsString], usage: u8) -> u8 {
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The mistake is told by its code also where nobody reads the help.
        let _ = error.print();
        return usage;
    }
    if error.use_stderr() {
        terminal::say(&one_line(&error.to_string(), words));
        return usage;
    }
    match error.print().and_then(|()| io::stdout().flush()).map_err(|error| terminal::output_error(&error)) {
        Ok(()) => 0,
        Err(Error::OutputClosed) => exit::OUTPUT_CLOSED,
        Err(error) => {
            terminal::say(&error.to_string());
            exit::FAILED
        }
    }
}

/// Prints the completions of `shell`.
///
/// # Errors
/// When standard output can't be written.
pub fn completions(shell: Shell) -> Result<u8, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "windlass", &mut script);
    terminal::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

/// A variable of the environment. What isn't UTF-8 is kept as far as it can be, so that it is refused rather than ignored.
pub fn variable(name: &str) -> Option<String> {
    std::env::var_os(name).map(|value| value.to_string_lossy().into_owned())
}

/// clap's report of a mistake as one line: its first paragraphs without the usage, and where to read on.
fn one_line(report: &str, words: &[OsString]) -> String {
    let report = report.strip_prefix("error: ").unwrap_or(report);
    let end = ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|mark| report.find(mark)).min();
    let mistake = report.get(..end.unwrap_or(report.len())).unwrap_or(report);
    let mistake: Vec<&str> = mistake.split_whitespace().collect();
    format!("{} (see `{} --help`)", mistake.join(" "), command_of(words))
}

/// Whether `words`, the command line without the program's name, ask for `windlass run`. What can't be read may do so too.
pub fn asks_to_run(words: &[OsString]) -> bool {
    let mut words = words.iter().filter_map(|word| word.to_str());
    loop {
        match words.next() {
            Some("--config") => drop(words.next()),
            Some(word) if word.starts_with("--config=") => {}
            word => return word == Some("run"),
        }
    }
}

/// The command that `words` begin with, like `windlass job list`.
fn command_of(words: &[OsString]) -> String {
    let root = Cli::command();
    let (mut command, mut name) = (&root, "windlass".to_owned());
    for word in words.iter().filter_map(|word| word.to_str()).take_while(|word| *word != "--") {
        if let Some(found) = command.find_subcommand(word) {
            name = format!("{name} {word}");
            command = found;
        }
    }
    name
}

const ROOT_EXAMPLES: &str = "\
Examples:
  windlass run --repo . -- make test      run one command on a clean checkout of this repository
  windlass dev                            start a coordinator with a worker on this machine
  windlass job submit -- make test        submit a job to it
  windlass job logs -f ID                 follow its output

A cluster is one or more `windlass coordinator` and `windlass worker`, with Postgres and NATS.";

const RUN_EXAMPLES: &str = "\
Examples:
  windlass run -- ls -la
  windlass run --repo . --ref main --timeout 10m -- cargo test
  windlass run --repo git@git.example.org:app.git --deploy-key ~/.ssh/deploy_app -- make test
  windlass run --repo file:///srv/app.git --env CI=1 -- sh -c 'make && make install'

Ends with the command's own code; 124 timed out, 125 nothing could be run, 127 command not found,
126 not executable, 128+n died of signal n, 130 canceled. Ctrl-C cancels, a second one forces.";

const DEV_EXAMPLES: &str = "\
Examples:
  windlass dev
  windlass dev --listen 127.0.0.1:0 --data-dir /tmp/windlass --slots 2 --tag linux --tag docker

The token for the API is in DATA_DIR/token; `windlass job` finds it there.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  windlass completions bash > ~/.local/share/bash-completion/completions/windlass
  windlass completions zsh > ~/.zfunc/_windlass";

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{CommandFactory, Parser};

    use super::{Cli, one_line};

    fn mistake(args: &[&str]) -> String {
        let words: Vec<OsString> = args.iter().skip(1).map(OsString::from).collect();
        one_line(&Cli::try_parse_from(args).err().unwrap().to_string(), &words)
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_mistake_is_one_line_that_says_where_to_read_on() {
        let line = mistake(&["windlass", "run", "--nope", "--", "ls"]);
        assert!(line.contains("'--nope'") && line.ends_with("(see `windlass run --help`)"), "{line}");
        let line = mistake(&["windlass", "run", "--timeout", "1"]);
        assert!(line.contains("'1' for '--timeout <D>': is not a duration like"), "{line}");
        assert!(line.ends_with("(see `windlass run --help`)"), "{line}");
        let line = mistake(&["windlass", "job", "--output", "table", "list", "--limit", "x"]);
        assert!(line.ends_with("(see `windlass job list --help`)"), "{line}");
        let line = mistake(&["windlass", "run"]);
        assert!(line.contains("required") && line.contains("CMD") && !line.contains('\n'), "{line}");
    }

    #[test]
    fn run_is_known_behind_the_name_of_a_file() {
        let asks = |words: &[&str]| super::asks_to_run(&words.iter().map(OsString::from).collect::<Vec<_>>());
        assert!(asks(&["run"]) && asks(&["--config", "f", "run", "--nope"]) && asks(&["--config=f", "run"]));
        assert!(!asks(&["dev"]) && !asks(&["--config", "run"]) && !asks(&[]) && !asks(&["job", "run"]));
    }

    #[test]
    fn every_command_has_examples() {
        fn check(command: &clap::Command) {
            assert!(command.get_after_help().is_some(), "{} has no examples", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }
}
