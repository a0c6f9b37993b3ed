//! The words of `windlass token …` and `windlass workers …`.

use clap::{Args, Subcommand};

use shared::id::{TokenId, WorkerId};
use shared::role::Role;
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
    /// Make a token for somebody who speaks to the API, and print it: it is shown this once.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        /// What its holder may do: viewer, submitter, operator or admin
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// What its holder is called in timelines and the audit
        #[arg(long)]
        name: String,
        /// How long it counts, like 1h or 7d [default: 90d]
        #[arg(long, value_name = "D")]
        expires: Option<Period>,
    },
    /// List the tokens that count.
    #[command(after_help = "Examples:\n  windlass token list\n  windlass token list --output json")]
    List,
    /// Let tokens count no more. Workers that have enrolled with one go on: revoke them by `windlass workers revoke`.
    #[command(after_help = "Examples:\n  windlass token revoke ID\n  windlass token revoke ID ID")]
    Revoke {
        /// As `windlass token list` shows it
        #[arg(value_name = "ID", required = true)]
        ids: Vec<TokenId>,
    },
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
    /// Refuse workers for good: they end what they run, and what that was is run again elsewhere.
    #[command(after_help = "Examples:\n  windlass workers revoke ID")]
    Revoke(WorkerIds),
}

/// Which workers.
#[derive(Args)]
pub struct WorkerIds {
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<WorkerId>,
}

pub const TOKEN_EXAMPLES: &str = "\
Examples:
  windlass token create --role submitter --name ci
  windlass token list
  windlass token revoke ID
  WINDLASS_JOIN_TOKEN=$(windlass token join) windlass worker

Settings: WINDLASS_URL (default: where `windlass dev` listens), WINDLASS_TOKEN or WINDLASS_TOKEN_FILE.";

pub const WORKERS_EXAMPLES: &str = "\
Examples:
  windlass workers list
  windlass workers drain ID

Settings: WINDLASS_URL (default: where `windlass dev` listens), WINDLASS_TOKEN or WINDLASS_TOKEN_FILE.";

const CREATE_EXAMPLES: &str = "\
Examples:
  windlass token create --role submitter --name ci
  windlass token create --role viewer --name dashboard --expires 365d
  windlass token create --role operator --name ann --output json       {\"id\": …, \"token\": …, \"expires_at\": …}

Each role may do all that the one before it may: a viewer sees jobs and logs, a submitter submits, cancels and retries them, an
operator cancels by filter and says what is wanted of workers, an admin makes tokens and keeps deploy keys.";

const JOIN_EXAMPLES: &str = "\
Examples:
  windlass token join
  windlass token join --name ci-hosts --expires 1h
  windlass token join --output json       {\"id\": …, \"token\": …, \"expires_at\": …}";
