//! The harness: what the tests of every ring share.
//!
//! A story about the real program starts with [`dev::Dev`] (or [`windlass::windlass`] for any other command), speaks
//! to it through [`http::Client`], gives it a [`repo::Repo`] to build, and looks at what runs with [`process`]. Whatever
//! takes time is awaited with [`wait::eventually`] or [`wait::until`], and with nothing else. Tests within one process have [`played`].

pub mod bench;
pub mod browser;
pub mod build;
pub mod certificates;
pub mod chaos;
pub mod cluster;
pub mod dev;
pub mod git_https;
pub mod host;
pub mod http;
pub mod nats;
pub mod played;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod repo;
pub mod scripted;
pub mod server;
pub mod spooled;
pub mod sshd;
pub mod wait;
pub mod windlass;
