//! The words of `windlass key …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::api::ApiArgs;

/// `windlass key`.
#[derive(Args)]
pub struct KeyArgs {
    #[command(flatten)]
    pub api: ApiArgs,
    #[command(subcommand)]
    pub command: KeyCommand,
}

/// What to do with deploy keys.
#[derive(Subcommand)]
pub enum KeyCommand {
    /// Register a deploy key under a name that jobs can give.
    #[command(after_help = ADD_EXAMPLES)]
    Add {
        name: String,
        #[command(flatten)]
        pair: PairArgs,
        /// The host's keys, as a known_hosts file; - reads standard input
        #[arg(long, value_name = "F")]
        known_hosts: PathBuf,
    },
    /// List the deploy keys, without their private halves.
    #[command(after_help = "Examples:\n  windlass key list\n  windlass key list --output json")]
    List,
    /// Show a deploy key's public half and its host keys.
    #[command(after_help = "Examples:\n  windlass key show app\n  windlass key show app --output json")]
    Show { name: String },
    /// Replace a deploy key's private half, its host keys, or both; jobs that fetch it from then on get the new one.
    #[command(after_help = ROTATE_EXAMPLES)]
    Rotate {
        name: String,
        #[command(flatten)]
        pair: PairArgs,
        /// The host's keys, as a known_hosts file; - reads standard input [default: as they are]
        #[arg(long, value_name = "F")]
        known_hosts: Option<PathBuf>,
    },
    /// Remove a deploy key: jobs that name it wait for it, or fail.
    #[command(after_help = "Examples:\n  windlass key remove app")]
    Remove { name: String },
    /// Move all that is stored encrypted on to the first master key, so that the others can go.
    #[command(after_help = REKEY_EXAMPLES)]
    Rekey,
}

/// Where the private half comes from.
#[derive(Debug, Args)]
pub struct PairArgs {
    /// A private key in OpenSSH's format, without a passphrase; - reads standard input
    #[arg(long, value_name = "F")]
    pub file: Option<PathBuf>,
    /// Have an ed25519 pair made, and print its public half
    #[arg(long, conflicts_with = "file")]
    pub generate: bool,
}

pub const EXAMPLES: &str = "\
Examples:
  ssh-keyscan git.example.org > hosts     then compare its fingerprint with what the host's owner publishes
  windlass key add app --generate --known-hosts hosts
  windlass key list

Settings: WINDLASS_URL (default: where `windlass dev` listens), WINDLASS_TOKEN or WINDLASS_TOKEN_FILE.";

const ADD_EXAMPLES: &str = "\
Examples:
  windlass key add app --generate --known-hosts hosts
  windlass key add app --file ~/.ssh/deploy_app --known-hosts ~/.ssh/known_hosts
  vault read -field=key app | windlass key add app --file - --known-hosts hosts

With --generate the public half is printed on standard output: register it at the repository's host, for reading alone, before
a job picks the key up: until the host knows it, such jobs fail as deploy_key_denied. Where jobs wait for the key already, make the
pair with ssh-keygen, register its public half at the host, and add the private one with --file.";

const ROTATE_EXAMPLES: &str = "\
Examples:
  windlass key rotate app --generate
  windlass key rotate app --file new_key
  windlass key rotate app --known-hosts hosts       when the host has new keys

With --generate, jobs that use the key fail as deploy_key_denied until the host knows the public half that is printed. To spare
them that, make the pair with ssh-keygen, register its public half at the host, and rotate with --file.";

const REKEY_EXAMPLES: &str = "\
Examples:
  windlass key rekey

To exchange the master keys: give the new one to every coordinator as the last of WINDLASS_MASTER_KEYS, then as the first, run
this, and then take the old one away. Each step is done when every coordinator was started again.";
