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
/// How long lies between two looks at least, however many hints there are.
const LOOK_APART: Duration = Duration::from_millis(50);
/// How long an attempt is remembered after it asked. Its whole wait may be longer, but between two tries a worker sleeps
/// far less, and each time it asks it is remembered anew.
const REMEMBERED: Duration = Duration::from_mins(10);
/// How long a worker may take to say that it has heard, and how long after a word that it didn't hear the next one is said.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
const TOLD_EVERY: Duration = Duration::from_secs(1);

/// Who waits for which key, and the way to have everything looked at now.
#[derive(Debug, Default)]
pub struct KeyWatch {
    waiting: Mutex<HashMap<(JobId, Attempt), Waiting>>,
    look_for_jobs: Notify,
    look_for_workers: Notify,
}

/// A worker that asked in vain.
#[derive(Debug, Clone)]
struct Waiting {
    worker: WorkerId,
    key: String,
    until: Instant,
    /// When it may be told: not before.
    tell: Instant,
}

impl KeyWatch {
    /// Remembers that `worker` waits for `key` with that attempt.
    pub fn remember(&self, job: JobId, attempt: Attempt, worker: WorkerId, key: &str) {
        let mut waiting = self.waiting();
        if waiting.len() < WAITING_MAX || waiting.contains_key(&(job, attempt)) {
            let tell = clock::instant();
            let until = tell + REMEMBERED;
            waiting.insert((job, attempt), Waiting { worker, key: key.to_owned(), until, tell });
        }
    }

    /// `worker` waits for no key any more with that attempt. What another waits for with it stays.
    pub fn forget(&self, job: JobId, attempt: Attempt, worker: WorkerId) {
        let mut waiting = self.waiting();
        if waiting.get(&(job, attempt)).is_some_and(|waiting| waiting.worker == worker) {
            waiting.remove(&(job, attempt));
        }
    }

    /// Has everything compared now.
    pub fn look_now(&self) {
        self.look_for_jobs.notify_one();
        self.look_for_workers.notify_one();
    }

    /// Everybody who waits and may be told now. Those who have waited too long are forgotten.
    fn due(&self) -> Vec<((JobId, Attempt), Waiting)> {
        let now = clock::instant();
        let mut waiting = self.waiting();
        waiting.retain(|_, waiting| waiting.until > now);
        let due = waiting.iter().filter(|(_, waiting)| waiting.tell <= now);
        due.map(|(at, waiting)| (*at, waiting.clone())).collect()
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

/// Looks again and again until it is dropped. Jobs and workers are looked for apart: a worker may take its time to hear.
pub async fn keep_looking(parts: Parts) {
    tokio::join!(keep(&parts, Who::Jobs), keep(&parts, Who::Workers));
}

/// Whom a loop looks for.
#[derive(Debug, Clone, Copy)]
enum Who {
    Jobs,
    Workers,
}

/// Looks every second, when asked, and at hints: at any number of them once.
async fn keep(parts: &Parts, who: Who) {
    let mut hints = parts.bus.hints();
    loop {
        // What has been hinted at until now is found by this look.
        hints = hints.resubscribe();
        let (looked, asked) = match who {
            Who::Jobs => (wake_jobs(parts).await, &parts.watch.look_for_jobs),
            Who::Workers => (wake_workers(parts).await, &parts.watch.look_for_workers),
        };
        if let Err(error) = looked {
            tracing::warn!(%error, "looking for deploy keys that others wait for");
        }
        tokio::time::sleep(LOOK_APART).await;
        tokio::select! {
            () = next_look() => {}
            () = asked.notified() => {}
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
            Ok(Hint::Job(_) | Hint::Shards | Hint::Roster) => {}
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
    let waiting = parts.watch.due();
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
            entry.tell = clock::instant() + TOLD_EVERY;
            tracing::debug!(%job, worker = %waiting.worker, %error, "a worker did not hear that its deploy key is there");
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::clock;
    use shared::id::{Attempt, JobId, Shard, WorkerId};

    use super::KeyWatch;

    #[test]
    fn only_whoever_waits_is_forgotten() {
        let watch = KeyWatch::default();
        let job = JobId::mint(Shard::all().next().unwrap(), clock::now(), clock::random());
        let [one, other] = [(); 2].map(|()| WorkerId(clock::random_uuid()));
        watch.remember(job, Attempt(1), one, "app");
        watch.forget(job, Attempt(1), other);
        watch.forget(job, Attempt(2), one);
        assert_eq!(watch.due().len(), 1);
        watch.forget(job, Attempt(1), one);
        assert_eq!(watch.due().len(), 0);
    }
}
