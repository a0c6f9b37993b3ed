//! Makes lost offers again from the queued rows: after a takeover, and in a slow round for whatever the bus forgot. An
//! offer that is still there isn't doubled, so this needs no transition and no memory.

use std::sync::Arc;
use std::time::Duration;

use shared::bus::Bus;
use shared::id::Shard;

use crate::store::{Error as StoreError, Store};

/// The most offers that are made again in one second.
const OFFERS_PER_SECOND: u32 = 1000;
/// From the end of one round to the next.
const ROUND_EVERY: Duration = Duration::from_mins(1);

/// Goes round after round until it is dropped.
pub async fn keep_offering(store: Arc<dyn Store>, bus: Arc<dyn Bus>, shards: Vec<Shard>) {
    loop {
        if let Err(error) = offer_all(&*store, &*bus, &shards).await {
            tracing::warn!(%error, "making lost offers again");
        }
        tokio::time::sleep(ROUND_EVERY).await;
    }
}

async fn offer_all(store: &dyn Store, bus: &dyn Bus, shards: &[Shard]) -> Result<(), StoreError> {
    let mut after = None;
    loop {
        let offers = store.offers(shards, after, OFFERS_PER_SECOND).await?;
        for offer in &offers {
            if let Err(error) = bus.offer(offer).await {
                tracing::warn!(job = %offer.job, %error, "making a lost offer again");
            }
        }
        match offers.last() {
            Some(last) if offers.len() == OFFERS_PER_SECOND as usize => after = Some(last.job),
            _ => return Ok(()),
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
