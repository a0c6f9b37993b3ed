//! The threads that actors live on: one actix system with a few arbiters, apart from the caller's runtime.
//!
//! actix needs a system of its own kind; the store and the bus belong to the caller's multi-threaded runtime.

use std::io;
use std::thread::JoinHandle;

use actix::{Arbiter, ArbiterHandle, System};
use tokio::sync::oneshot;

/// A running actix system and its arbiters.
#[derive(Debug)]
pub struct Arbiters {
    system: System,
    handles: Vec<ArbiterHandle>,
    thread: JoinHandle<()>,
}

impl Arbiters {
    /// Starts a system with `count` arbiters, at least one.
    ///
    /// # Errors
    /// When the operating system gives no thread.
    pub async fn start(name: &str, count: usize) -> io::Result<Self> {
        let (told, ready) = oneshot::channel();
        let thread = std::thread::Builder::new().name(format!("{name}-system")).spawn(move || {
            let runner = System::new();
            runner.block_on(async move {
                let handles: Vec<_> = (0..count.max(1)).map(|_| Arbiter::new().handle()).collect();
                // The starter waits for this; were it gone, nobody would use the arbiters either.
                let _ = told.send((System::current(), handles));
            });
            if let Err(error) = runner.run() {
                tracing::error!(%error, "the actors' system ended with an error");
            }
        })?;
        let gone = |_| io::Error::other("the actors' system ended at its start");
        let (system, handles) = ready.await.map_err(gone)?;
        Ok(Self { system, handles, thread })
    }

    /// The arbiters, in a fixed order.
    pub fn handles(&self) -> &[ArbiterHandle] {
        &self.handles
    }

    /// Ends the system with all its actors, and its threads.
    pub async fn stop(self) {
        self.system.stop();
        let joined = tokio::task::spawn_blocking(move || self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the actors' system panicked");
        }
    }
}
