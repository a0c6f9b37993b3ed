//! The words of `windlass token …` and `windlass workers …`.

use clap::{Args, Subcommand};

use shared::id::WorkerId;
use shared::time::Period;

use super::api::ApiArgs;

/// `windlass token`.
#[derive(Args)]
pub struct TokenArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: TokenCommand,
}

/// What to do with tokens.
#[derive(Subcommand)]
pub enum TokenCommand {
    /// Make a token with which workers enrol, and print it.
    #[command(after_help = JOIN_EXAMPLES)]
    Join {
        /// What it is for, in people's words
        #[arg(long)]
        name: Option<String>,
        /// How long it counts, like 1h or 7d [default: 30d]
        #[arg(long, value_name = "D")]
        expires: Option<Period>,
    },
}

/// `windlass workers`.
#[derive(Args)]
pub struct WorkersArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: WorkersCommand,
}

/// What to do with workers.
#[derive(Subcommand)]
pub enum WorkersCommand {
    /// List the workers.
    #[command(after_help = "Examples:\n  windlass workers list\n  windlass workers list --output json")]
    List,
    /// Let workers finish what runs and take nothing new, until they are resumed.
    #[command(after_help = "Examples:\n  windlass workers pause ID\n  windlass workers pause ID ID")]
    Pause(WorkerIds),
    /// Let workers take jobs again.
    #[command(after_help = "Examples:\n  windlass workers resume ID")]
    Resume(WorkerIds),
    /// Let workers finish what runs, take nothing new, and end.
    #[command(after_help = "Examples:\n  windlass workers drain ID")]
    Drain(WorkerIds),
}

/// Which workers.
#[derive(Args)]
pub struct WorkerIds {
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<WorkerId>,
}

pub const TOKEN_EXAMPLES: &str = "\
Examples:
  WINDLASS_JOIN_TOKEN=$(windlass token join) windlass worker

Settings: WINDLASS_URL (default: where `windlass dev` listens), WINDLASS_TOKEN or WINDLASS_TOKEN_FILE.";

pub const WORKERS_EXAMPLES: &str = "\
Examples:
  windlass workers list
  windlass workers drain ID

Settings: WINDLASS_URL (default: where `windlass dev` listens), WINDLASS_TOKEN or WINDLASS_TOKEN_FILE.";

const JOIN_EXAMPLES: &str = "\
Examples:
  windlass token join
  windlass token join --name ci-hosts --expires 1h
  windlass token join --output json       {\"token\": …, \"expires_at\": …}";
