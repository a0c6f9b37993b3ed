//! What comes to everybody: hints, and the events as a subscriber gets them.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};
use tokio::time::timeout;

use super::jetstream;
use super::line::Line;
use super::subjects::{EVENTS, HINT};
use crate::bus::{Error, Hint};
use crate::cloud_event::CloudEvent;
use crate::wire;

/// The most events or hints that a slow receiver may lag behind.
pub const LAG_MAX: usize = 16 * 1024;
/// The most hints that wait to be sent. One more is dropped: they may be lost.
pub const HINTS_MAX: usize = 1024;
/// When a feed that broke off is tried again, and when one looks whether anybody listens still.
const AGAIN: Duration = Duration::from_millis(500);
const ANYBODY_EVERY: Duration = Duration::from_secs(5);

/// Sends hints until nobody gives any more.
pub async fn send_hints(line: Line, mut hints: mpsc::Receiver<Hint>) {
    while let Some(hint) = hints.recv().await {
        if line.is_up() {
            line.send(HINT, None, wire::encode(&hint)).await;
        }
    }
}

/// Passes hints on until the bus is gone.
pub async fn pass_hints(mut incoming: Subscriber, hints: broadcast::Sender<Hint>) {
    while let Some(message) = incoming.next().await {
        match wire::decode(&message.payload) {
            Ok(hint) => drop(hints.send(hint)),
            Err(error) => tracing::debug!(%error, "a hint that isn't one"),
        }
    }
}

/// The events of a stream, in order, over any number of connections.
pub struct Feed {
    line: Line,
    stream: Ordered,
    /// The stream's number of the last one that was passed on.
    last: u64,
}

impl Feed {
    /// Those that are published from now on.
    pub async fn open(line: Line) -> Result<Self, Error> {
        let stream = begin(&line, DeliverPolicy::New).await?;
        Ok(Self { line, stream, last: 0 })
    }

    /// Passes events on as long as somebody listens.
    pub async fn run(mut self, events: broadcast::Sender<CloudEvent>) {
        while events.receiver_count() > 0 {
            match timeout(ANYBODY_EVERY, self.stream.next()).await {
                Err(_) => {}
                Ok(Some(Ok(message))) => {
                    self.last = message.info().map_or(self.last, |info| info.stream_sequence);
                    match wire::decode(&message.payload) {
                        Ok(event) => drop(events.send(event)),
                        Err(error) => tracing::warn!(%error, subject = %message.subject, "an event that isn't one"),
                    }
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(%error, "events broke off");
                    self.begin_again().await;
                }
                Ok(None) => self.begin_again().await,
            }
        }
    }

    async fn begin_again(&mut self) {
        tokio::time::sleep(AGAIN).await;
        self.line.connected().await;
        let info = jetstream::api(&self.line, &format!("STREAM.INFO.{EVENTS}"), &Value::Null).await;
        let last = info.ok().and_then(|info| info.pointer("/state/last_seq").and_then(Value::as_u64));
        // A stream that was made anew counts from 1 again.
        let policy = match last {
            None => return,
            Some(_) if self.last == 0 => DeliverPolicy::New,
            Some(last) if last < self.last => DeliverPolicy::All,
            Some(_) => DeliverPolicy::ByStartSequence { start_sequence: self.last + 1 },
        };
        match begin(&self.line, policy).await {
            Ok(stream) => self.stream = stream,
            Err(error) => tracing::debug!(%error, "events are tried again"),
        }
    }
}

async fn begin(line: &Line, deliver_policy: DeliverPolicy) -> Result<Ordered, Error> {
    let context = async_nats::jetstream::new(line.client.clone());
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let consumer = context.create_consumer_on_stream(config, EVENTS).await;
    let consumer = consumer.map_err(|error| Error::Unreachable(format!("subscribing to events: {error}")))?;
    consumer.messages().await.map_err(|error| Error::Unreachable(format!("subscribing to events: {error}")))
}
