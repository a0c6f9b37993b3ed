//! What all parts of one worker share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shared::id::{Attempt, JobId};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::Config;
use crate::checkout::mirror::Mirrors;
use crate::duty::Duty;
use crate::killer::Killer;
use crate::report::Reporter;
use crate::spool::{Entry, Spool};

/// How soon a spool that couldn't be written is tried again.
const SPOOL_AGAIN: Duration = Duration::from_secs(5);

/// How long logs whose attempts are told are waited for when nothing runs any more.
const LOGS_WITHIN: Duration = Duration::from_secs(10);
/// The most logs that are sent after their attempts were told; with more of them an attempt keeps its slot.
pub const LOGS_MAX: u32 = 4096;
/// The most attempts whose directories are removed at once: a hundred that end together mustn't take a thread each from those
/// that are still to end.
pub const REMOVALS_MAX: usize = 8;

/// See the module.
pub struct Site {
    pub config: Arc<Config>,
    pub reporter: Reporter,
    pub spool: Spool,
    /// Holds the attempts' directories.
    pub work: PathBuf,
    /// Holds the sockets of ssh-agents.
    pub agents: PathBuf,
    pub mirrors: Arc<Mirrors>,
    /// Where cgroups may be made.
    pub cgroups: Option<PathBuf>,
    pub killer: Killer,
    pub runtime: Handle,
    pub duty: Duty,
    /// Held while a hello is on its way: what a later one says is heard later.
    pub greeting: Mutex<()>,
    /// An attempt has begun that needs to be named soon.
    pub beat: Notify,
    /// A permit for each attempt that may run.
    pub slots: Arc<Semaphore>,
    /// A permit for each attempt whose directories are being removed.
    pub removals: Arc<Semaphore>,
    /// A permit for each log that is still being sent after its attempt was told.
    pub logs: Arc<Semaphore>,
    /// How many attempts run.
    pub running: watch::Receiver<usize>,
}

impl Site {
    /// Writes an entry into the spool; whether it is there. While that fails, no grant may be taken.
    pub async fn keep(&self, entry: &Entry) -> bool {
        let kept = self.spool.put(entry).await;
        if let Err(error) = &kept {
            tracing::error!(job = %entry.job, %error, "keeping an attempt in the spool");
        }
        kept.is_ok()
    }

    /// Writes an entry into the spool that it didn't take, as soon as it does.
    pub async fn keep_at_last(&self, entry: Entry) {
        loop {
            sleep(SPOOL_AGAIN).await;
            if self.keep(&entry).await {
                return;
            }
        }
    }

    /// Removes an entry from the spool, without waiting for the disk. One that stays is told again by the next start, which
    /// changes nothing.
    pub async fn forget(&self, job: JobId, attempt: Attempt) {
        if let Err(error) = self.spool.remove(job, attempt).await {
            tracing::error!(%job, %error, "removing an attempt from the spool");
        }
    }

    /// Returns once the spool takes something.
    pub async fn spool_writable(&self) {
        while !self.spool.takes() {
            if self.spool.probe().await.is_ok() {
                tracing::info!("the spool can be written again: offers are taken");
                return;
            }
            sleep(SPOOL_AGAIN).await;
        }
    }

    /// Returns when nothing runs, no claim is on its way, all that ran is told, and its log is stored or was waited for long
    /// enough. It takes every slot for a moment, so it is for a worker that takes nothing new.
    pub async fn idle(&self) {
        // The semaphores are never closed.
        let _ = self.slots.acquire_many(self.config.slots).await;
        if timeout(LOGS_WITHIN, self.logs.acquire_many(LOGS_MAX)).await.is_err() {
            tracing::warn!("not every log could be stored completely");
        }
        // What couldn't be written is said.
        let _ = self.spool.settled().await;
    }
}
