//! The codes that commands end with, and the one error that they all end early with.

use std::fmt::{self, Display};

use coordinator::service;
use shared::settings::Fault;

/// It was tried and didn't work.
pub const FAILED: u8 = 1;
/// The arguments or settings can't be used.
pub const USAGE: u8 = 2;
/// `run`: the job passed its limit.
pub const TIMED_OUT: u8 = 124;
/// `run`: no command could be started, or Windlass itself failed.
pub const NOT_RUN: u8 = 125;
/// `run`: the job was canceled.
pub const CANCELED: u8 = 130;
/// Nobody reads our standard output any more: what a shell shows of a process that died of SIGPIPE.
pub const OUTPUT_CLOSED: u8 = 141;

/// Why a command ends early. Each line names what is wrong and, where there is one, the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// Arguments or settings that can't be used.
    Usage(String),
    /// Mistakes in the configuration file, one a line.
    Settings(Vec<String>),
    /// It was tried and didn't work.
    Failed(Vec<String>),
    /// Nobody reads our standard output any more; there is nobody to tell.
    OutputClosed,
}

impl Error {
    /// One line of what didn't work.
    pub fn failed(line: impl Display) -> Self {
        Self::Failed(vec![line.to_string()])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(line) => f.write_str(line),
            Self::Settings(lines) | Self::Failed(lines) => f.write_str(&lines.join("; ")),
            Self::OutputClosed => f.write_str("standard output is closed"),
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Self {
        Self::Usage(fault.to_string())
    }
}

impl From<service::Error> for Error {
    fn from(error: service::Error) -> Self {
        Self::failed(format_args!("the embedded coordinator: {error}"))
    }
}

impl From<anyhow::Error> for Error {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format_args!("{error:#}"))
    }
}
