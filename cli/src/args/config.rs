//! The words of `windlass config …`.

use clap::{Args, Subcommand};

use super::api::Output;
use crate::config::table::Role;

/// `windlass config`.
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Name every mistake in the file and the environment, or else each setting and where it comes from.
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

/// `windlass config check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Whose settings, and whether they are enough for it [default: each setting by itself]
    #[arg(long = "for", value_name = "WHO", value_enum)]
    pub role: Option<Role>,
    /// `json` prints one document
    #[arg(long, value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

pub const EXAMPLES: &str = "\
Examples:
  windlass config check
  windlass config check --for coordinator --config /etc/windlass/windlass.toml";

const CHECK_EXAMPLES: &str = "\
Examples:
  windlass config check
  windlass config check --for coordinator --config /etc/windlass/windlass.toml
  windlass config check --output json

A mistake is told as file:line: key: what is wrong, or as environment: VARIABLE: what is wrong; then it ends with 1.
Of a secret nothing is shown but that it is set.";
