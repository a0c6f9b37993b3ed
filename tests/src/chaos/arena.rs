//! The cluster to which things happen: its processes, the ways between them, their disks and their clocks.

use std::path::PathBuf;

use super::history::Trouble;
use super::schedule::{Planned, Size};
use crate::http::Client;

/// A running cluster.
pub struct Arena {
    _size: Size,
}

impl Arena {
    /// Starts a cluster of that size whose every part can be troubled, and waits until it serves.
    pub fn start(size: Size) -> Self {
        Self { _size: size }
    }

    /// For each coordinator a client that reaches it by the way that troubles befall, whichever process is there now.
    pub fn clients(&self) -> Vec<Client> {
        Vec::new()
    }

    /// A directory for what jobs note.
    pub fn notes(&self) -> PathBuf {
        PathBuf::new()
    }

    /// What the platform doesn't allow here, and why: those troubles are left out.
    pub fn not_allowed(&self) -> Vec<String> {
        Vec::new()
    }

    /// Carries the schedule out, and ends every trouble; returns what was done, and when.
    pub fn trouble(&mut self, _schedule: &[Planned]) -> Vec<Trouble> {
        Vec::new()
    }
}
