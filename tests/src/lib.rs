//! The harness: what the tests of every ring share.

pub mod played;
pub mod scripted;
