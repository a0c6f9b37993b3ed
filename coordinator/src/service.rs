//! What the API and the command line speak to.

use std::time::Duration;

/// Why a call wasn't done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such job")]
    NotFound,
    /// The job's state doesn't allow it.
    #[error("{0}")]
    Conflict(String),
    /// The idempotency key of the submission's job at this index stands for another body.
    #[error("the idempotency key was used for another job before")]
    KeyReused(usize),
    /// A bound is reached.
    #[error("too much is under way")]
    Busy { retry_after: Duration },
    /// The store or the owner doesn't answer; the outcome may be unknown, and the call can be repeated.
    #[error("not available right now")]
    Unavailable { retry_after: Duration },
    /// A defect of ours; the log says more.
    #[error("an internal error")]
    Internal,
}
