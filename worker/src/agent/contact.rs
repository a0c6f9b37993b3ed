//! Keeps a worker in touch with the coordinators: hello, heartbeats, orders.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actix::Addr;
use futures_util::future::join_all;
use shared::bus::{Address, Request, Requests};
use shared::clock;
use shared::id::{Attempt, JobId, Shard};
use shared::wire::{self, Control, Heard, Heartbeat, HeartbeatReply, Hello, Welcome};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{Agent, Attempts, Confirmed, LookForKey, Stop};
use crate::courier::NoAnswer;
use crate::site::Site;

/// How often a worker says hello, and that its attempts run: a third of the lease.
const EVERY: Duration = Duration::from_secs(5);
/// How long the answer to either is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
/// How soon the first hello is said again: nothing goes on without it.
const FIRST_AGAIN: Duration = Duration::from_millis(250);
/// How long a first hello goes unanswered before that is said, and then said again.
const COMPLAIN_AFTER: Duration = Duration::from_secs(10);
/// How soon a heartbeat that wasn't answered is said again, for the lease goes on meanwhile; and no heartbeat follows
/// another sooner.
const HEARTBEAT_AGAIN: Duration = Duration::from_secs(1);

/// The most orders that are obeyed together.
const ORDERS_MAX: usize = 256;
/// How long whoever asks for a hello waits for its answer.
const SAID_WITHIN: Duration = Duration::from_millis(1500);

/// Says hello, and does as the answer says; whether there was one.
pub async fn hello(site: &Site) -> bool {
    let _greeting = site.greeting.lock().await;
    let number = site.duty.begin_hello();
    let courier = &site.reporter.courier;
    let hello = Hello {
        worker: courier.worker,
        instance: courier.instance,
        start: courier.start,
        tags: site.config.tags.clone(),
        slots: site.config.slots,
        running: u32::try_from(*site.running.borrow()).unwrap_or(u32::MAX),
        draining: site.duty.is_draining(),
    };
    match courier.ask::<Welcome>(&Address::Hello(courier.worker), &hello, ANSWER_WITHIN).await {
        Ok(welcome) => {
            site.duty.welcomed(welcome);
            site.duty.end_hello(number);
            true
        }
        Err(error) => {
            tracing::debug!(%error, "saying hello");
            false
        }
    }
}

/// Says hello until somebody answers.
pub async fn first_hello(site: &Site) {
    let mut complain_at = clock::instant() + COMPLAIN_AFTER;
    while !hello(site).await {
        if clock::instant() >= complain_at {
            tracing::warn!(worker = %site.reporter.courier.worker, "no coordinator answers this worker: it goes on trying");
            complain_at = clock::instant() + COMPLAIN_AFTER;
        }
        sleep(FIRST_AGAIN).await;
    }
}

/// Says hello every five seconds, so that a busy worker is known to be there too, and whenever somebody wants one.
pub async fn hellos(site: Arc<Site>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = site.duty.hello.notified() => {}
        }
        hello(&site).await;
    }
}

/// Says every five seconds which attempts run, to all shards at once, and obeys what comes back. What wasn't answered is
/// said again sooner, and a new attempt is named at once.
pub async fn heartbeats(site: Arc<Site>, agent: Addr<Agent>) {
    loop {
        let Ok(attempts) = agent.send(Attempts).await else { return };
        let mut shards: BTreeMap<Shard, Vec<(JobId, Attempt)>> = BTreeMap::new();
        for (job, attempt) in attempts {
            shards.entry(job.shard()).or_default().push((job, attempt));
        }
        let next = clock::instant() + EVERY;
        let beats = shards.into_iter().map(|(shard, attempts)| heartbeat(&site, &agent, shard, attempts));
        let mut unanswered = join_all(beats).await.into_iter().filter_map(Result::err);
        let again = match unanswered.next() {
            None => next.saturating_duration_since(clock::instant()),
            Some(error) => {
                let shards = 1 + unanswered.count();
                tracing::warn!(%error, shards, "heartbeats were not answered");
                HEARTBEAT_AGAIN
            }
        };
        sleep(again.min(HEARTBEAT_AGAIN)).await;
        // Either way it is time.
        let _ = timeout(again.saturating_sub(HEARTBEAT_AGAIN), site.beat.notified()).await;
    }
}

/// Obeys the orders that come until the bus is closed. Those to stop that have come together are obeyed together, before
/// anything else: an attempt's end mustn't wait for what is done about the others'.
pub async fn orders(site: Arc<Site>, agent: Addr<Agent>, mut requests: Requests) {
    let mut arrived = Vec::new();
    while requests.recv_many(&mut arrived, ORDERS_MAX).await > 0 {
        let (mut stops, mut looks, mut heard) = (Vec::new(), Vec::new(), Vec::new());
        for request in arrived.drain(..) {
            match wire::decode::<Control>(&request.body) {
                Ok(Control::Stop(word)) => match site.reporter.courier.epochs.heed(word.said.job.shard(), word) {
                    Ok(order) => {
                        stops.push(order);
                        heard.push(request.reply);
                    }
                    Err(unheeded) => tracing::debug!(%unheeded, "an order"),
                },
                Ok(Control::LookForKey { job, attempt }) => {
                    looks.push(LookForKey(job, attempt));
                    heard.push(request.reply);
                }
                Ok(Control::SayHello {}) => say_hello(&site, request),
                Err(error) => tracing::warn!(%error, "an order is not understood"),
            }
        }
        if !stops.is_empty() && agent.send(Stop(stops)).await.is_err() {
            return;
        }
        for look in looks {
            if agent.send(look).await.is_err() {
                return;
            }
        }
        for reply in heard {
            // Whoever asked may have stopped waiting: orders are repeated until the end is told.
            let _ = reply.send(wire::encode(&Heard {}));
        }
    }
}

/// Says hello soon, and answers when that is done: whoever asks wants to know when this worker has heard what there is to
/// hear.
fn say_hello(site: &Site, request: Request) {
    let welcomed = site.duty.hello_soon(SAID_WITHIN);
    tokio::spawn(async move {
        // Without an answer in time, a later hello brings what there is to hear.
        let _ = welcomed.await;
        let _ = request.reply.send(wire::encode(&Heard {}));
    });
}

/// Names a shard's attempts to its owner, and does what the answer says.
async fn heartbeat(
    site: &Site,
    agent: &Addr<Agent>,
    shard: Shard,
    attempts: Vec<(JobId, Attempt)>,
) -> Result<(), NoAnswer> {
    let courier = &site.reporter.courier;
    let heartbeat = Heartbeat { worker: courier.worker, instance: courier.instance, attempts };
    let to = Address::Heartbeat(shard, courier.worker);
    let sent = clock::instant();
    let reply = courier.ask_owner::<HeartbeatReply>(shard, &to, &heartbeat, ANSWER_WITHIN).await?;
    let _ = agent.send(Confirmed { attempts: heartbeat.attempts, sent }).await;
    if !reply.stop.is_empty() {
        let _ = agent.send(Stop(reply.stop)).await;
    }
    Ok(())
}
