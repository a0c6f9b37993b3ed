//! The judge: which promise a history shows to be broken.

use std::fmt;

use super::history::History;

/// A broken promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The promise, in words that don't change.
    pub rule: &'static str,
    /// Who broke it, and what shows it.
    pub evidence: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.evidence)
    }
}

/// Every broken promise that the history shows.
pub fn judge(_history: &History) -> Vec<Violation> {
    Vec::new()
}
