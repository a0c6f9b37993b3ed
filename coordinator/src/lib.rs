//! The coordinator: it owns jobs, commits their transitions, and tells workers and subscribers.
//!
//! [`service::Service`] is what the API and the command line speak to; everything behind it is actors.

pub mod service;
pub mod store;
