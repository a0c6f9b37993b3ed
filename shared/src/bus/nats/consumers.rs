//! The lanes' consumers, made by coordinators before the first offer of a lane. A lane without one would keep its offers
//! to itself, so those that were made or found once are looked for again and again.

use std::collections::HashSet;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use super::jetstream::{self, Error};
use super::line::Line;
use super::streams::{Mismatch, Plan};
use super::subjects::{LaneName, OFFERS};

/// More pages of consumers than 1,000 tag sets fill.
const PAGES_MAX: usize = 100;

/// The consumers that a coordinator knows to be there.
pub struct Consumers {
    settle_within: Duration,
    known: Mutex<HashSet<LaneName>>,
    /// Whether one of them was heard to be deleted.
    doubted: AtomicBool,
    /// Held while one is made, so that a crowd of offers asks for it once.
    making: tokio::sync::Mutex<()>,
}

/// Why a consumer isn't there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    #[error(transparent)]
    JetStream(#[from] Error),
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

impl Consumers {
    pub fn new(settle_within: Duration) -> Self {
        Self {
            settle_within,
            known: Mutex::default(),
            doubted: AtomicBool::new(false),
            making: tokio::sync::Mutex::default(),
        }
    }

    /// Makes the lane's consumer unless it is known to be there.
    pub async fn ensure(&self, nats: &Line, lane: &LaneName) -> Result<(), Trouble> {
        if self.known().contains(lane) {
            return Ok(());
        }
        let _one_at_a_time = self.making.lock().await;
        if self.known().contains(lane) {
            return Ok(());
        }
        let plan = Plan::consumer(lane, self.settle_within);
        let info = jetstream::api(nats, &format!("CONSUMER.INFO.{OFFERS}.{}", lane.as_str()), &Value::Null).await;
        let info = match info {
            Err(Error::Refused(fault)) if fault.is_no_consumer() => {
                let (verb, body) = plan.creation();
                jetstream::api(nats, &verb, &body).await?
            }
            other => other?,
        };
        plan.check(info.get("config").unwrap_or(&Value::Null))?;
        self.known().insert(lane.clone());
        Ok(())
    }

    /// Checks all that are there and takes them for known.
    pub async fn find(&self, nats: &Line) -> Result<(), Trouble> {
        let mut found = HashSet::new();
        for info in paged(nats, "LIST").await? {
            let name = info.get("name").and_then(Value::as_str).unwrap_or_default();
            let config = info.get("config").unwrap_or(&Value::Null);
            let lane = LaneName::from_str(name).map_err(|()| Plan::stranger(name))?;
            Plan::consumer(&lane, self.settle_within).check(config)?;
            found.insert(lane);
        }
        *self.known() = found;
        Ok(())
    }

    /// Makes those again that were there and aren't any more; says how many.
    pub async fn mend(&self, nats: &Line) -> Result<usize, Trouble> {
        self.doubted.store(false, Ordering::Relaxed);
        let before = self.known().clone();
        let there = names(nats).await?;
        let gone: Vec<_> = before.difference(&there).cloned().collect();
        for lane in &gone {
            self.known().remove(lane);
        }
        for lane in &gone {
            self.ensure(nats, lane).await?;
        }
        Ok(gone.len())
    }

    /// One was heard to be deleted.
    pub fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    /// Whether one of the known ones may be gone, where the stream has `count`.
    pub fn may_be_gone(&self, count: u64) -> bool {
        let fewer = u64::try_from(self.known().len()).is_ok_and(|known| count < known);
        self.doubted.load(Ordering::Relaxed) || fewer
    }

    /// Forgets all: their stream is gone, and they with it.
    pub fn forget(&self) {
        self.known().clear();
    }

    fn known(&self) -> MutexGuard<'_, HashSet<LaneName>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The lanes that have a consumer.
pub async fn names(nats: &Line) -> Result<HashSet<LaneName>, Error> {
    let names = paged(nats, "NAMES").await?;
    Ok(names.iter().filter_map(|name| name.as_str()?.parse().ok()).collect())
}

/// All pages of a list of the stream's consumers.
async fn paged(nats: &Line, verb: &str) -> Result<Vec<Value>, Error> {
    let mut all = Vec::new();
    for _ in 0..PAGES_MAX {
        let offset = json!({ "offset": all.len() });
        let mut page = jetstream::api(nats, &format!("CONSUMER.{verb}.{OFFERS}"), &offset).await?;
        let total = page.get("total").and_then(Value::as_u64).unwrap_or(0);
        let Some(Value::Array(entries)) = page.get_mut("consumers").map(Value::take) else { break };
        let last = entries.is_empty();
        all.extend(entries);
        if last || u64::try_from(all.len()).is_ok_and(|got| got >= total) {
            break;
        }
    }
    Ok(all)
}
