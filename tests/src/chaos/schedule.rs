//! What goes wrong, and when: a pure function of the seed.

use std::time::Duration;

use super::history::{Kind, Target};

/// How large the cluster is that troubles befall.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub coordinators: usize,
    pub workers: usize,
}

/// One trouble to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    /// Since the load's beginning.
    pub at: Duration,
    pub lasts: Duration,
    pub kind: Kind,
    pub target: Target,
}

/// All troubles of a run, in the order in which they begin; none lasts longer than the run, and no target has two at once.
pub fn schedule(_seed: u64, _lasts: Duration, _size: Size) -> Vec<Planned> {
    Vec::new()
}
