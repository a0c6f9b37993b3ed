//! Keeps a worker in touch with the coordinators: hello, heartbeats, orders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures_util::future::join_all;
use shared::bus::{Address, Requests};
use shared::id::{Attempt, JobId, Shard};
use shared::wire::{self, Control, Heard, Heartbeat, HeartbeatReply, Hello, Welcome};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Agent, Attempts, Stop};
use crate::Site;

/// How often a worker says hello, and that its attempts run: a third of the lease.
const EVERY: Duration = Duration::from_secs(5);
/// How long the answer to either is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How soon the first hello is said again: nothing goes on without it.
const FIRST_AGAIN: Duration = Duration::from_millis(250);

/// The tag sets whose jobs this worker may run, as the last hello was answered.
pub type TagSets = watch::Sender<Vec<Vec<String>>>;

/// Says hello, and takes note of the answer; whether there was one.
pub async fn hello(site: &Site, tag_sets: &TagSets) -> bool {
    let reporter = &site.reporter;
    let hello = Hello {
        worker: reporter.worker,
        instance: reporter.instance,
        tags: site.config.tags.clone(),
        slots: site.config.slots,
    };
    let reply = reporter.bus.request(&Address::Hello(reporter.worker), wire::encode(&hello), ANSWER_WITHIN).await;
    match reply.map(|body| wire::decode::<Welcome>(&body)) {
        Ok(Ok(welcome)) => {
            tag_sets.send_replace(welcome.tag_sets);
            true
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the answer to a hello");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "saying hello");
            false
        }
    }
}

/// Says hello until somebody answers.
pub async fn first_hello(site: &Site, tag_sets: &TagSets) {
    while !hello(site, tag_sets).await {
        sleep(FIRST_AGAIN).await;
    }
}

/// Says hello every five seconds, so that a busy worker is known to be there too.
pub async fn hellos(site: Arc<Site>, tag_sets: TagSets) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        hello(&site, &tag_sets).await;
    }
}

/// Says every five seconds which attempts run, once to each shard, and obeys what comes back.
pub async fn heartbeats(site: Arc<Site>, agent: Addr<Agent>) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let Ok(attempts) = agent.send(Attempts).await else { return };
        let mut shards: BTreeMap<Shard, Vec<(JobId, Attempt)>> = BTreeMap::new();
        for (job, attempt) in attempts {
            shards.entry(job.shard()).or_default().push((job, attempt));
        }
        join_all(shards.into_iter().map(|(shard, attempts)| heartbeat(&site, &agent, shard, attempts))).await;
    }
}

/// Obeys the orders that come until the bus is closed.
pub async fn orders(agent: Addr<Agent>, mut requests: Requests) {
    while let Some(request) = requests.recv().await {
        match wire::decode::<Control>(&request.body) {
            Ok(Control::Stop(order)) => {
                if agent.send(Stop(order)).await.is_err() {
                    return;
                }
                // Whoever asked may have stopped waiting: orders are repeated until the end is told.
                let _ = request.reply.send(wire::encode(&Heard {}));
            }
            Err(error) => tracing::warn!(%error, "an order is not understood"),
        }
    }
}

async fn heartbeat(site: &Site, agent: &Addr<Agent>, shard: Shard, attempts: Vec<(JobId, Attempt)>) {
    let reporter = &site.reporter;
    let heartbeat = Heartbeat { worker: reporter.worker, instance: reporter.instance, attempts };
    let to = Address::Heartbeat(shard, reporter.worker);
    match reporter.bus.request(&to, wire::encode(&heartbeat), ANSWER_WITHIN).await {
        Ok(body) => match wire::decode::<HeartbeatReply>(&body) {
            Ok(reply) => {
                for order in reply.stop {
                    let _ = agent.send(Stop(order)).await;
                }
            }
            Err(error) => tracing::warn!(%error, "the answer to a heartbeat"),
        },
        Err(error) => tracing::warn!(%error, %shard, "a heartbeat was not answered"),
    }
}

fn ticks() -> tokio::time::Interval {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}
