//! Renews the lease every second and does nothing else, so that nothing else holds it up: neither a takeover nor a bus that
//! doesn't answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use shared::clock;
use shared::id::CoordinatorId;

use crate::fault;
use crate::holdings::Holdings;
use crate::store::{Cluster, Error, Store};

/// How often the lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// How long a renewal may take before it counts as failed: below the TTL.
const RENEW_WITHIN: Duration = Duration::from_secs(2);
/// How soon one that failed is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// One renewal, and how the cluster was.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Whose lease it was.
    pub id: CoordinatorId,
    /// When it was asked for.
    pub sent: Instant,
    pub result: Result<Arc<Cluster>, Error>,
}

/// Renews the lease until it is dropped, oftener when `soon` says so, and tells what came of it.
pub async fn keep_renewing(
    store: Arc<dyn Store>,
    holdings: Arc<Holdings>,
    told: watch::Sender<Option<Renewal>>,
    soon: Arc<Notify>,
) {
    loop {
        let renewal = renew(&*store, &holdings).await;
        let wait = if renewal.result.is_ok() { RENEW_EVERY } else { AGAIN_AFTER };
        told.send_replace(Some(renewal));
        // In time, or sooner: either way it is renewed.
        let _ = tokio::time::timeout(wait, soon.notified()).await;
    }
}

/// Renews the lease once.
pub async fn renew(store: &dyn Store, holdings: &Holdings) -> Renewal {
    let (id, sent) = (holdings.id(), clock::instant());
    let renewed = tokio::time::timeout(RENEW_WITHIN, store.renew(id)).await;
    let result = renewed.unwrap_or_else(|_| Err(Error::Unavailable("the renewal took too long".to_owned())));
    if let Ok(cluster) = &result {
        holdings.renewed(id, sent, clock::instant(), cluster);
        if fault::is_lost("shards.lease") {
            holdings.lapse();
        }
    }
    Renewal { id, sent, result: result.map(Arc::new) }
}
