//! Notices that a deploy key was registered, and wakes whoever waits for it: jobs that are parked, which the store knows,
//! and workers that asked in vain, which are remembered here.
//!
//! A hint is never the truth: parked jobs are compared with the keys every second, at a hint, when shards are gained, and
//! when a key is put through this very coordinator. What is remembered of workers may get lost with this process: they ask
//! again by themselves.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, broadcast};

use shared::bus::{Address, Bus, Hint};
use shared::clock;
use shared::id::{Attempt, JobId, WorkerId};
use shared::job::Command;
use shared::wire::{self, Control};

use crate::fault;
use crate::holdings::Holdings;
use crate::registry::Jobs;
use crate::store::{Error as StoreError, Store};
use crate::supervisor::Error as JobError;

/// How often parked jobs and waiting workers are compared with the keys, also without a hint.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The most parked jobs that one reading brings, and how many of them are told at once.
const PAGE_MAX: u32 = 1000;
const TOLD_AT_ONCE: usize = 256;
/// The most attempts that are remembered; of more each asks again by itself.
const WAITING_MAX: usize = 10_000;
/// How long an attempt is remembered: no wait of a worker is longer.
const REMEMBERED: Duration = Duration::from_mins(10);
/// How long a worker may take to say that it has heard, and how often it is told: it asks again by itself.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
const TELLS_MAX: u32 = 3;

/// Who waits for which key, and the way to have everything looked at now.
#[derive(Debug, Default)]
pub struct KeyWatch {
    waiting: Mutex<HashMap<(JobId, Attempt), Waiting>>,
    look: Notify,
}

/// A worker that asked in vain.
#[derive(Debug, Clone)]
struct Waiting {
    worker: WorkerId,
    key: String,
    until: Instant,
    told: u32,
}

impl KeyWatch {
    /// Remembers that `worker` waits for `key` with that attempt.
    pub fn remember(&self, job: JobId, attempt: Attempt, worker: WorkerId, key: &str) {
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_MAX || waiting.contains_key(&(job, attempt)) {
            let until = clock::instant() + REMEMBERED;
            waiting.insert((job, attempt), Waiting { worker, key: key.to_owned(), until, told: 0 });
        }
    }

    /// That attempt waits for no key any more.
    pub fn forget(&self, job: JobId, attempt: Attempt) {
        self.waiting().remove(&(job, attempt));
    }

    /// Has everything compared now.
    pub fn look_now(&self) {
        self.look.notify_one();
    }

    /// Everybody who waits, without those who have waited too long.
    fn all(&self) -> Vec<((JobId, Attempt), Waiting)> {
        let now = clock::instant();
        let mut waiting = self.waiting();
        waiting.retain(|_, waiting| waiting.until > now && waiting.told < TELLS_MAX);
        waiting.iter().map(|(at, waiting)| (*at, waiting.clone())).collect()
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<(JobId, Attempt), Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What it works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub jobs: Jobs,
    pub holdings: Arc<Holdings>,
    pub watch: Arc<KeyWatch>,
}

/// Looks again and again until it is dropped.
pub async fn keep_looking(parts: Parts) {
    let mut hints = parts.bus.hints();
    loop {
        // A worker may take its time to hear; the parked jobs are told meanwhile.
        let (jobs, workers) = tokio::join!(wake_jobs(&parts), wake_workers(&parts));
        for error in [jobs, workers].into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "looking for deploy keys that others wait for");
        }
        tokio::select! {
            () = next_look() => {}
            () = parts.watch.look.notified() => {}
            () = hinted(&mut hints) => {}
        }
    }
}

/// Returns when it is time for the next look without a hint.
async fn next_look() {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        if !fault::is_lost("key_watch.look_unasked") {
            return;
        }
    }
}

/// Returns at a hint about keys, or when hints were missed.
async fn hinted(hints: &mut broadcast::Receiver<Hint>) {
    loop {
        match hints.recv().await {
            Ok(Hint::Job(_) | Hint::Shards) => {}
            Ok(Hint::Keys) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Tells every parked job of our shards whose key is there.
async fn wake_jobs(parts: &Parts) -> Result<(), StoreError> {
    if fault::is_lost("key_watch.look") {
        return Ok(());
    }
    let shards = parts.holdings.shards();
    let mut after = None;
    while !shards.is_empty() {
        let page = parts.store.unblocked(&shards, after, PAGE_MAX).await?;
        after = page.last().map(|(job, _)| *job).filter(|_| page.len() == PAGE_MAX as usize);
        stream::iter(page).for_each_concurrent(TOLD_AT_ONCE, |(job, key)| wake_job(parts, job, key)).await;
        if after.is_none() {
            break;
        }
    }
    Ok(())
}

/// One that can't be told now is found again by the next look.
async fn wake_job(parts: &Parts, job: JobId, key: String) {
    match parts.jobs.tell(job, Command::KeyRegistered { key }).await {
        Ok(_) | Err(JobError::Elsewhere) => {}
        Err(error) => tracing::warn!(%job, %error, "telling a parked job that its deploy key is there"),
    }
}

/// Tells every worker whose key is there to look for it.
async fn wake_workers(parts: &Parts) -> Result<(), StoreError> {
    let waiting = parts.watch.all();
    let mut names: Vec<String> = waiting.iter().map(|(_, waiting)| waiting.key.clone()).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let there = parts.store.registered(&names).await?;
    let found = waiting.into_iter().filter(|(_, waiting)| there.contains(&waiting.key));
    stream::iter(found).for_each_concurrent(TOLD_AT_ONCE, |(at, waiting)| wake_worker(parts, at, waiting)).await;
    Ok(())
}

async fn wake_worker(parts: &Parts, (job, attempt): (JobId, Attempt), waiting: Waiting) {
    // It may ask in vain again before it is heard: then it is remembered anew, and this word isn't about that.
    let order = wire::encode(&Control::LookForKey { job, attempt });
    let heard = parts.bus.request(&Address::Control(waiting.worker), order, HEARD_WITHIN).await;
    let mut all = parts.watch.waiting();
    let Some(entry) = all.get_mut(&(job, attempt)).filter(|entry| entry.until == waiting.until) else { return };
    match heard {
        Ok(_) => drop(all.remove(&(job, attempt))),
        Err(error) => {
            entry.told += 1;
            tracing::debug!(%job, worker = %waiting.worker, %error, "a worker did not hear that its deploy key is there");
        }
    }
}
