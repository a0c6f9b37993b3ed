//! What reads bytes from outside and isn't public: for the tests that feed it rubbish, and in no release.

pub use crate::keys::known_hosts::fault as known_hosts_fault;
pub use crate::keys::private_key::Pair;
