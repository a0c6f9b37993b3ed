//! What every command that speaks to the HTTP API takes: where it is, and how its answers are printed.

#![expect(clippy::doc_markdown, reason = "the comments of these types are the help that clap prints")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};

/// Where the API is, and how its answers are printed.
#[derive(Debug, Clone, Args)]
pub struct ApiArgs {
    /// `json` prints what the API answers, as one document; where it goes on without an end, one document a line
    #[arg(long, global = true, value_enum, default_value_t = Output::Table)]
    pub output: Output,
    /// Where the API is [env: WINDLASS_URL] [default: where `windlass dev` listens]
    #[arg(long, global = true, value_name = "URL")]
    pub url: Option<String>,
    /// The authorities whose certificates are trusted, a PEM file [env: WINDLASS_CA_FILE] [default: the public ones]
    #[arg(long, value_name = "F", global = true)]
    pub ca_file: Option<PathBuf>,
    /// Where `windlass dev` keeps the token, unless WINDLASS_TOKEN is set [env: WINDLASS_DATA_DIR]
    #[arg(long, global = true, value_name = "D")]
    pub data_dir: Option<PathBuf>,
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}
