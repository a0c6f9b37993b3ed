//! Requests to a service: a subscription that lives as long as somebody takes its requests, over any number of
//! connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{HeaderMap, Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{mpsc, oneshot};

use super::line::Line;
use super::subjects;
use crate::bus::{Request, Requests, Service};
use crate::wire::MESSAGE_BYTES_MAX;

/// The most requests that wait for one service. One more is dropped, and its asker's deadline passes.
const REQUESTS_MAX: usize = 4096;
/// When a subscription that couldn't be made is tried again.
const AGAIN: Duration = Duration::from_millis(200);
/// A reply without a body says with this header that it would have been too large, and how many bytes it had.
pub const TOO_LARGE: &str = "Windlass-Too-Large";

/// Requests that were dropped because their service was too slow, so far.
pub type Dropped = Arc<AtomicU64>;

/// Serves `service` until the receiver of its requests is dropped. `heard` is told once the first subscription is in force.
pub async fn serve(
    line: Line,
    service: Service,
    requests: mpsc::Sender<Request>,
    heard: oneshot::Sender<()>,
    dropped: Dropped,
) {
    let mut heard = Some(heard);
    loop {
        let subscriber = tokio::select! {
            () = requests.closed() => return,
            subscriber = subscribe(&line, service) => subscriber,
        };
        if let Some(heard) = heard.take() {
            // Whoever asked for it may not wait any more.
            let _ = heard.send(());
        }
        if let Some(mut subscriber) = forward(&line, subscriber, &requests, &dropped).await {
            // Dropping it would do as well, but only with the next message.
            let _ = tokio::time::timeout(AGAIN, subscriber.unsubscribe()).await;
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// A channel for the requests to a service.
pub fn queue() -> (mpsc::Sender<Request>, Requests) {
    mpsc::channel(REQUESTS_MAX)
}

async fn subscribe(line: &Line, service: Service) -> Subscriber {
    let (subject, group) = subjects::served(service);
    loop {
        line.connected().await;
        let subscribed = match group {
            Some(group) => line.client.queue_subscribe(subject.clone(), group.to_owned()).await,
            None => line.client.subscribe(subject.clone()).await,
        };
        match subscribed {
            Ok(incoming) => {
                line.settled().await;
                return incoming;
            }
            Err(error) => {
                tracing::warn!(%error, ?service, "subscribing to requests");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Hands requests over; returns the subscription when nobody takes them any more, nothing when it has ended by itself.
async fn forward(
    line: &Line,
    mut subscriber: Subscriber,
    requests: &mpsc::Sender<Request>,
    dropped: &Dropped,
) -> Option<Subscriber> {
    loop {
        let message = tokio::select! {
            () = requests.closed() => return Some(subscriber),
            message = subscriber.next() => message?,
        };
        let Some((request, reply)) = open(message) else { continue };
        let Ok(room) = requests.try_reserve() else {
            let so_far = dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if so_far.is_power_of_two() {
                tracing::warn!(so_far, "requests are dropped: they come faster than they are answered");
            }
            continue;
        };
        let (answer, answered) = oneshot::channel();
        room.send(Request { reply: answer, ..request });
        let line = line.clone();
        tokio::spawn(async move {
            // Dropped unanswered, it leaves the asker to its deadline.
            if let Ok(body) = answered.await {
                send_reply(&line, reply, body).await;
            }
        });
    }
}

/// The request that a message is, and where its reply goes; nothing where it isn't one of ours.
fn open(message: Message) -> Option<(Request, String)> {
    let to = subjects::address(&message.subject);
    let (Some(to), Some(reply)) = (to, message.reply) else {
        tracing::debug!(subject = %message.subject, "a message that is no request");
        return None;
    };
    if message.payload.len() > MESSAGE_BYTES_MAX {
        tracing::debug!(subject = %message.subject, "a request that is too large");
        return None;
    }
    let (nobody, _) = oneshot::channel();
    Some((Request { to, body: message.payload, reply: nobody }, reply.to_string()))
}

async fn send_reply(line: &Line, to: String, body: Bytes) {
    if body.len() <= MESSAGE_BYTES_MAX {
        return line.send(to, None, body).await;
    }
    let mut headers = HeaderMap::new();
    headers.insert(TOO_LARGE, body.len().to_string().as_str());
    line.send(to, Some(headers), Bytes::new()).await;
}
