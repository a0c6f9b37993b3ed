//! What comes to everybody: hints, and the events as a subscriber gets them.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use futures_util::StreamExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{broadcast, mpsc};
use tokio::time::MissedTickBehavior;

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
/// The most hints of one message: a few KiB.
const HINTS_PER_MESSAGE_MAX: usize = 256;
/// How long hints are gathered for one message.
const GATHER_HINTS_FOR: Duration = Duration::from_millis(2);
/// When a feed that broke off is tried again.
const AGAIN: Duration = Duration::from_millis(500);
/// How often a feed looks whether its stream is still the same one, and whether anybody listens.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Sends hints until nobody gives any more: all that come together in one message, a little later than what else follows from
/// the same commit, which is waited for.
pub async fn send_hints(line: Line, mut hints: mpsc::Receiver<Hint>) {
    let mut together = Vec::new();
    while let Some(first) = hints.recv().await {
        together.push(first);
        tokio::time::sleep(GATHER_HINTS_FOR).await;
        while together.len() < HINTS_PER_MESSAGE_MAX
            && let Ok(hint) = hints.try_recv()
        {
            together.push(hint);
        }
        if line.is_up() {
            line.send(HINT, None, wire::encode(&together)).await;
        }
        together.clear();
    }
}

/// The hints of a message: a list, or one alone as earlier versions send it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Together {
    Several(Vec<Hint>),
    One(Hint),
}

/// Passes hints on until the bus is gone.
pub async fn pass_hints(mut incoming: Subscriber, hints: broadcast::Sender<Hint>) {
    while let Some(message) = incoming.next().await {
        match wire::decode(&message.payload) {
            Ok(Together::Several(several)) => several.into_iter().for_each(|hint| drop(hints.send(hint))),
            Ok(Together::One(hint)) => drop(hints.send(hint)),
            Err(error) => tracing::debug!(%error, "a hint that isn't one"),
        }
    }
}

/// The events of a stream, in order, over any number of connections, and of streams that take its place.
pub struct Feed {
    line: Line,
    messages: Ordered,
    /// When the stream was made, as the server writes it.
    created: String,
    /// The stream's number of the last one that was passed on.
    last: Option<u64>,
}

impl Feed {
    /// Those that are published from now on.
    pub async fn open(line: Line) -> Result<Self, Error> {
        let messages = begin(&line, DeliverPolicy::New).await?;
        let created =
            created(&line).await.ok_or_else(|| Error::Unreachable("there is no stream of events".to_owned()))?;
        Ok(Self { line, messages, created, last: None })
    }

    /// Passes events on as long as somebody listens.
    pub async fn run(mut self, events: broadcast::Sender<CloudEvent>) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while events.receiver_count() > 0 {
            tokio::select! {
                message = self.messages.next() => match message {
                    Some(Ok(message)) => self.pass_on(&message, &events),
                    Some(Err(error)) => {
                        tracing::debug!(%error, "events broke off");
                        self.go_on().await;
                    }
                    None => self.go_on().await,
                },
                _ = look.tick() => self.look().await,
            }
        }
    }

    fn pass_on(&mut self, message: &Message, events: &broadcast::Sender<CloudEvent>) {
        self.last = message.info().map(|info| info.stream_sequence).ok().or(self.last);
        match wire::decode(&message.payload) {
            Ok(event) => drop(events.send(event)),
            Err(error) => tracing::warn!(%error, subject = %message.subject, "an event that isn't one"),
        }
    }

    /// Begins anew where the stream was made anew: it counts from 1 again, and the old place in it means nothing.
    async fn look(&mut self) {
        let Some(created) = created(&self.line).await.filter(|created| *created != self.created) else { return };
        if let Ok(messages) = begin(&self.line, DeliverPolicy::All).await {
            (self.messages, self.created, self.last) = (messages, created, None);
        }
    }

    /// Begins again behind the last one that was passed on.
    async fn go_on(&mut self) {
        tokio::time::sleep(AGAIN).await;
        self.line.connected().await;
        let policy = match self.last {
            None => DeliverPolicy::New,
            Some(last) => DeliverPolicy::ByStartSequence { start_sequence: last + 1 },
        };
        match begin(&self.line, policy).await {
            Ok(messages) => self.messages = messages,
            Err(error) => tracing::debug!(%error, "events are tried again"),
        }
    }
}

async fn created(line: &Line) -> Option<String> {
    let info = jetstream::api(line, &format!("STREAM.INFO.{EVENTS}"), &Value::Null).await.ok()?;
    Some(info.get("created")?.as_str()?.to_owned())
}

async fn begin(line: &Line, deliver_policy: DeliverPolicy) -> Result<Ordered, Error> {
    let context = async_nats::jetstream::new(line.client.clone());
    let config = OrderedConfig { deliver_policy, ..OrderedConfig::default() };
    let consumer = context.create_consumer_on_stream(config, EVENTS).await;
    let consumer = consumer.map_err(|error| Error::Unreachable(format!("subscribing to events: {error}")))?;
    consumer.messages().await.map_err(|error| Error::Unreachable(format!("subscribing to events: {error}")))
}
