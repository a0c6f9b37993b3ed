//! Makes lost offers again from the queued rows: after a takeover, when the bus has lost them all, and in a slow round for
//! whatever else it forgot. An offer that is still there isn't doubled, so this needs no transition and no memory.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use shared::bus::Bus;
use shared::id::Shard;
use shared::job::Offer;
use shared::time::{Period, Time};

use crate::holdings::Holdings;
use crate::store::{Error as StoreError, Store};

/// The most offers that are made again in one second.
const OFFERS_PER_SECOND: u32 = 1000;
/// How many of them are on their way at once.
const AT_ONCE: usize = 64;
/// From the end of one slow round to the next.
const ROUND_EVERY: Duration = Duration::from_mins(1);
/// How long a job is queued before the slow round makes its offer again.
const QUEUED_LONG: Period = Period::from_secs(60);
/// How far ahead of ours the clock was at most by which a job was queued: that of a database that has jumped since.
const CLOCKS_APART_MAX: Period = Period::from_secs(365 * 24 * 60 * 60);
/// How soon a round that failed is gone again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a round is tried.
const TRIES_MAX: u32 = 5;
/// The most takeovers that wait for their round: of more the slow round takes care.
pub const GAINS_MAX: usize = 64;

/// What it works with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub holdings: Arc<Holdings>,
    /// The shards that were gained.
    pub gained: mpsc::Receiver<Vec<Shard>>,
}

/// Goes round after round until it is dropped: at once for shards that were gained and when all offers were lost, and
/// slowly beside that.
pub async fn keep_offering(parts: Parts) {
    let Parts { store, bus, holdings, mut gained } = parts;
    let mut lost = bus.offers_lost();
    let urgent = async {
        loop {
            let shards = tokio::select! {
                Some(shards) = gained.recv() => shards,
                Ok(()) = lost.changed() => holdings.shards().to_vec(),
                else => return,
            };
            go_round(&*store, &*bus, &Round::of_all(shards, holdings.now())).await;
        }
    };
    let slow = async {
        loop {
            tokio::time::sleep(ROUND_EVERY).await;
            let round = Round { shards: holdings.shards().to_vec(), before: holdings.now().minus(QUEUED_LONG) };
            go_round(&*store, &*bus, &round).await;
        }
    };
    tokio::join!(urgent, slow);
}

/// Offers of these shards are to be made again, of jobs that are queued since before that time.
struct Round {
    shards: Vec<Shard>,
    before: Time,
}

impl Round {
    /// A round for every job of these shards that is queued, also where the clock by which it was queued was ahead of `now`.
    fn of_all(shards: Vec<Shard>, now: Time) -> Self {
        Self { shards, before: now.plus(CLOCKS_APART_MAX) }
    }
}

/// Makes a round's offers, with a few tries; what can't be made is left to the next slow round.
async fn go_round(store: &dyn Store, bus: &dyn Bus, round: &Round) {
    for _ in 0..TRIES_MAX {
        match offer_all(store, bus, round).await {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "making lost offers again"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn offer_all(store: &dyn Store, bus: &dyn Bus, round: &Round) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let offers = store.offers(&round.shards, round.before, after, OFFERS_PER_SECOND).await?;
        let last = offers.last().map(|offer| offer.job).filter(|_| offers.len() == OFFERS_PER_SECOND as usize);
        stream::iter(offers).for_each_concurrent(AT_ONCE, |offer| make_again(bus, offer)).await;
        match last {
            Some(last) => after = Some(last),
            None => return Ok(()),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// One that can't be made now is made in the slow round.
async fn make_again(bus: &dyn Bus, offer: Offer) {
    if let Err(error) = bus.offer(&offer).await {
        tracing::warn!(job = %offer.job, %error, "making a lost offer again");
    }
}
