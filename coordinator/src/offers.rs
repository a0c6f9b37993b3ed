//! Makes lost offers again from the queued rows: after a takeover, when the bus has lost them all, and in a slow round for
//! whatever else it forgot. An offer that is still there isn't doubled, so this needs no transition and no memory.
//!
//! Urgent rounds go as fast as the bus takes offers: no worker finds the jobs that they are for. They go beside each other,
//! so that a shard that was taken over doesn't wait for a round through a million jobs, and each has one group of offers on
//! its way and one page more in memory. A job that is submitted meanwhile shares the bus with at most a group of each.
//!
//! The slow round looks for what is hardly ever there. It costs the bus, the store and us for every queued job, however long
//! that one waits, so it has a gentle pace, until a page shows that many offers were lost.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, FuturesUnordered, StreamExt};
use tokio::sync::mpsc;

use shared::bus::{Bus, Error as BusError, Placed, ToSend};
use shared::id::{JobId, Shard};
use shared::job::Offer;
use shared::time::{Period, Time};

use crate::fault;
use crate::holdings::Holdings;
use crate::store::{Error as StoreError, Store};

/// The most offers that an urgent round reads at once: about 2 MB at a time of each round.
const URGENT_PAGE_MAX: u32 = 4096;
/// How many of them are on their way at once: a few milliseconds of the bus's time, and many to each wait for its answer.
const GROUP_MAX: usize = 128;
/// The most urgent rounds at a time: further takeovers wait for one of them to end.
const ROUNDS_MAX: usize = 4;
/// The most offers of the slow round in one second, how many of them are on their way at once, and from how many that were
/// lost it doesn't wait for the next second: a few are those of jobs that workers are just claiming.
const SLOW_PER_SECOND: u32 = 1000;
const SLOW_AT_ONCE: usize = 64;
const SLOW_LOST_MANY: usize = 100;
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
        let round = |shards| go_round(&*store, &*bus, Round::of_all(shards, holdings.now()));
        let mut rounds = FuturesUnordered::new();
        loop {
            tokio::select! {
                Some(shards) = gained.recv(), if rounds.len() < ROUNDS_MAX => rounds.push(round(shards)),
                Ok(()) = lost.changed() => {
                    // What was made again so far is lost with the rest, and what was still to be made is among all.
                    rounds.clear();
                    rounds.push(round(holdings.shards().to_vec()));
                }
                Some(()) = rounds.next() => {}
                else => return,
            }
        }
    };
    let slow = async {
        loop {
            tokio::time::sleep(ROUND_EVERY).await;
            let before = holdings.now().minus(QUEUED_LONG);
            go_round(&*store, &*bus, Round { shards: holdings.shards().to_vec(), before, pace: Pace::Slow }).await;
        }
    };
    tokio::join!(urgent, slow);
}

/// Offers of these shards are to be made again, of jobs that are queued since before that time.
struct Round {
    shards: Vec<Shard>,
    before: Time,
    pace: Pace,
}

/// How fast a round goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    Urgent,
    Slow,
}

impl Round {
    /// A round for every job of these shards that is queued, also where the clock by which it was queued was ahead of `now`.
    fn of_all(shards: Vec<Shard>, now: Time) -> Self {
        Self { shards, before: now.plus(CLOCKS_APART_MAX), pace: Pace::Urgent }
    }

    /// The next page after a job's offer; none after the last.
    async fn page(&self, store: &dyn Store, after: Option<JobId>, limit: u32) -> Result<Page, StoreError> {
        let offers = store.offers(&self.shards, self.before, after, limit).await?;
        let full = offers.len() == limit as usize;
        let next = offers.last().map(|offer| offer.job).filter(|_| full);
        Ok(Page { offers, next })
    }
}

/// Offers that are to be made again.
struct Page {
    offers: Vec<Offer>,
    /// After which job the next page begins; none where this is the last.
    next: Option<JobId>,
}

/// Why a round doesn't go on now.
#[derive(Debug, thiserror::Error)]
enum Halted {
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It took none of a group.
    #[error(transparent)]
    Bus(BusError),
}

/// Makes a round's offers, with a few tries, each from where the one before it has come to; what can't be made is left to
/// the next slow round.
async fn go_round(store: &dyn Store, bus: &dyn Bus, round: Round) {
    let mut after = None;
    for _ in 0..TRIES_MAX {
        let gone = match round.pace {
            Pace::Urgent => offer_all(store, bus, &round, &mut after).await,
            Pace::Slow => offer_slowly(store, bus, &round, &mut after).await,
        };
        match gone {
            Ok(()) => return,
            Err(error) => tracing::warn!(%error, "making lost offers again"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// Makes all offers of a round as fast as the bus takes them. A page is read while the one before it is being offered.
async fn offer_all(store: &dyn Store, bus: &dyn Bus, round: &Round, after: &mut Option<JobId>) -> Result<(), Halted> {
    let mut page = round.page(store, *after, URGENT_PAGE_MAX).await?;
    loop {
        let next = async {
            match page.next {
                Some(last) => round.page(store, Some(last), URGENT_PAGE_MAX).await.map(Some),
                None => Ok(None),
            }
        };
        let (offered, next) = tokio::join!(offer_in_groups(bus, &page.offers, after), next);
        offered?;
        match next? {
            Some(next) => page = next,
            None => return Ok(()),
        }
    }
}

/// Makes these offers, and notes how far it has come.
async fn offer_in_groups(bus: &dyn Bus, offers: &[Offer], after: &mut Option<JobId>) -> Result<(), Halted> {
    for group in offers.chunks(GROUP_MAX) {
        fault::hold("offers.group").await;
        let messages: Vec<ToSend<'_>> = group.iter().map(ToSend::Offer).collect();
        let mut failed: Vec<BusError> = bus.send_all(&messages).await.into_iter().filter_map(Result::err).collect();
        let count = failed.len();
        if let Some(error) = failed.pop() {
            if count == group.len() {
                return Err(Halted::Bus(error));
            }
            tracing::warn!(count, %error, "making lost offers again; the slow round tries these once more");
        }
        *after = group.last().map(|offer| offer.job);
    }
    Ok(())
}

/// Makes the offers of a round a page a second, for as long as hardly any of them was lost.
async fn offer_slowly(
    store: &dyn Store,
    bus: &dyn Bus,
    round: &Round,
    after: &mut Option<JobId>,
) -> Result<(), Halted> {
    loop {
        let Page { offers, next } = round.page(store, *after, SLOW_PER_SECOND).await?;
        let made = stream::iter(offers).map(async |offer| bus.offer(&offer).await).buffer_unordered(SLOW_AT_ONCE);
        let made: Vec<Result<Placed, BusError>> = made.collect().await;
        let lost = made.iter().filter(|made| matches!(made, Ok(Placed::New))).count();
        let mut failed = made.into_iter().filter_map(Result::err);
        if let Some(error) = failed.next() {
            let count = 1 + failed.count();
            tracing::warn!(count, %error, "making lost offers again; the next slow round tries these once more");
        }
        match next {
            Some(job) => *after = Some(job),
            None => return Ok(()),
        }
        if lost < SLOW_LOST_MANY {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
