//! The bus of a cluster, on NATS: requests are core NATS, offers and events are `JetStream` streams.
//!
//! A connection that breaks is made again, without end; subscriptions survive it. While there is none, calls end at once
//! as [`Error::Unreachable`], and a coordinator may start without one. Everything is published with an acknowledgement
//! that is waited for, so nothing is lost or reordered by a break: its caller hears that its fate is unknown and repeats it.
//!
//! A worker makes nothing on the server. A coordinator makes and looks after both streams and the lanes' consumers
//! ([`lookout`], [`consumers`]).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{ConnectOptions, HeaderMap, ServerAddr};
use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{OnceCell, broadcast, mpsc, oneshot, watch};
use tokio::time::timeout;

use self::consumers::{Consumers, Trouble};
use self::feed::Feed;
use self::jetstream::{Error as JetStreamError, ForStream};
use self::line::{Line, Tasks, Unanswered};
use self::lookout::{Fault, Findings, Lookout};
use self::pulls::Pulls;
use super::{Address, Bus, Delivery, Error, Hint, Link, Placed, Requests, Service, ToSend};
use crate::cloud_event::CloudEvent;
use crate::job::{Event, Offer};
use crate::tls::{self, Authorities, Refused};
use crate::wire::{self, Lane, MESSAGE_BYTES_MAX};

mod connection;
mod consumers;
mod desk;
mod feed;
pub mod jetstream;
mod line;
pub mod lookout;
mod pulls;
mod serving;
mod streams;
pub mod subjects;

pub use connection::shown;

/// The media type of an event.
const EVENT_TYPE: &str = "application/cloudevents+json";
/// How long a subscription may take to be in force before [`Bus::serve`] returns without.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// The bus of a cluster. Clones are the same connection, which ends with the last of them.
#[derive(Clone)]
pub struct NatsBus {
    inner: Arc<Inner>,
}

struct Inner {
    line: Line,
    consumers: Arc<Consumers>,
    findings: Arc<Findings>,
    pulls: OnceCell<Pulls>,
    settle_within: Duration,
    hints: broadcast::Sender<Hint>,
    hints_to_send: mpsc::Sender<Hint>,
    dropped: serving::Dropped,
    /// Ends with the bus all that runs for it.
    tasks: Tasks,
}

/// What a process is to the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Makes the streams and consumers, and looks after them.
    Coordinator,
    /// Makes nothing.
    Worker,
}

/// How to connect.
#[derive(Debug, Clone)]
pub struct NatsOptions {
    /// One or more URLs, like `nats://host:4222`, with commas between them.
    pub urls: String,
    pub role: Role,
    /// What the connection is called in the server's own listings.
    pub name: String,
    /// How long an offer may stay unsettled in a worker's hand.
    pub settle_within: Duration,
    /// How long events are kept for subscribers.
    pub event_age: Duration,
    /// How often a coordinator looks at the streams.
    pub look_every: Duration,
    /// Whose certificate the server may have, in place of the public authorities'.
    pub authorities: Option<Authorities>,
    /// How long [`NatsBus::connect`] waits for the server before it goes on without it.
    pub connect_within: Duration,
}

impl NatsOptions {
    /// The usual ones.
    pub fn new(urls: impl Into<String>, role: Role) -> Self {
        let name = match role {
            Role::Coordinator => "windlass coordinator",
            Role::Worker => "windlass worker",
        };
        Self {
            urls: urls.into(),
            role,
            name: name.to_owned(),
            settle_within: Duration::from_secs(10),
            event_age: Duration::from_hours(7 * 24),
            look_every: Duration::from_secs(1),
            authorities: None,
            connect_within: Duration::from_secs(2),
        }
    }
}

/// Why a process can't use NATS as it is. A server that can't be reached is no reason: see [`NatsBus::connect`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// No address could be read.
    #[error("{0:?} is not the address of a NATS server: {1}")]
    Address(String, String),
    /// The server can't carry the bus until somebody changes something; the text says what.
    #[error("{0}")]
    Refused(String),
}

impl NatsBus {
    /// A connection to NATS. Where the server can't be reached in time, the bus is returned all the same and goes on
    /// trying: until then its calls end as [`Error::Unreachable`], and [`Bus::link`] says that it is down. What would be
    /// refused here and is found later is said in the log again and again, and the link isn't fit until it is mended.
    pub async fn connect(options: NatsOptions) -> Result<Self, StartError> {
        let addresses = addresses(&options.urls)?;
        let unusable =
            |error: &dyn fmt::Display| StartError::Address(connection::shown(&options.urls), error.to_string());
        let named = ConnectOptions::new().name(&options.name);
        let refused = Refused::default();
        let tls = tls::telling(options.authorities.as_ref(), refused.clone());
        let named = named.tls_client_config(tls.map_err(|error| StartError::Refused(error.to_string()))?);
        let (connect, turns) = connection::options(named, &addresses, refused);
        let client = connect.connect(addresses).await.map_err(|error| unusable(&error))?;
        let tasks = Tasks::default();
        let line = Line::open(client.clone(), turns, &tasks).await.map_err(|error| unusable(&error))?;

        let (hints, hints_to_send) = (broadcast::channel(feed::LAG_MAX).0, mpsc::channel(feed::HINTS_MAX));
        let incoming = client.subscribe(subjects::HINT).await.map_err(|error| unusable(&error))?;
        tasks.spawn(feed::pass_hints(incoming, hints.clone()));
        tasks.spawn(feed::send_hints(line.clone(), hints_to_send.1));

        let consumers = Arc::new(Consumers::new(options.settle_within));
        let findings = Arc::new(Findings::default());
        let care = (options.role == Role::Coordinator).then(|| consumers.clone());
        if let Some(consumers) = &care {
            let news = client.subscribe(subjects::CONSUMER_NEWS).await.map_err(|error| unusable(&error))?;
            tasks.spawn(lookout::hear(news, consumers.clone(), findings.clone()));
        }
        let mut lookout = Lookout::new(line.clone(), findings.clone(), care, options.event_age);
        if timeout(options.connect_within, line.connected()).await.is_ok() {
            line.settled().await;
            match lookout.begin().await {
                Ok(()) => {}
                Err(Fault::Refused(refusal)) => return Err(StartError::Refused(refusal.to_string())),
                Err(fault @ (Fault::Gone(_) | Fault::Passing(_))) => tracing::warn!(%fault, "looking at NATS"),
            }
        } else {
            tracing::warn!(urls = %connection::shown(&options.urls), "there is no connection to NATS yet");
        }
        tasks.spawn(lookout.run(options.look_every));

        let dropped = Arc::new(AtomicU64::new(0));
        let (pulls, hints_to_send) = (OnceCell::new(), hints_to_send.0);
        let settle_within = options.settle_within;
        let inner = Inner { line, consumers, findings, pulls, settle_within, hints, hints_to_send, dropped, tasks };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// How many requests were dropped so far because a service was too slow to take them.
    pub fn dropped_requests(&self) -> u64 {
        self.inner.dropped.load(Ordering::Relaxed)
    }

    /// Refuses what needs the streams while they aren't there.
    fn usable(&self) -> Result<&Line, Error> {
        let (line, fit) = (&self.inner.line, *self.inner.findings.fit.borrow());
        match (line.is_up(), fit) {
            (false, _) => Err(down()),
            (true, false) => Err(Error::Unreachable("NATS isn't as it has to be".to_owned())),
            (true, true) => Ok(line),
        }
    }

    /// An offer as its stream takes it, and its bytes, once its lane has a consumer.
    async fn offer_for_stream(&self, offer: &Offer) -> Result<(ForStream, usize), Error> {
        let lane = subjects::lane_of(offer);
        self.inner.consumers.ensure(self.usable()?, &lane).await.map_err(|trouble| match trouble {
            Trouble::JetStream(error) => self.fault(error, subjects::OFFERS, 0),
            Trouble::Mismatch(mismatch) => {
                tracing::error!(%mismatch, "an offer can't be put out");
                Error::Unreachable(mismatch.to_string())
            }
        })?;
        let body = wire::encode(offer);
        let bytes = body.len();
        Ok((ForStream { subject: subjects::offer(offer), headers: None, body }, bytes))
    }

    /// What became of an offer.
    fn placed(&self, held: Result<(), JetStreamError>, bytes: usize) -> Result<Placed, Error> {
        match held {
            Ok(()) => Ok(Placed::New),
            Err(JetStreamError::Refused(fault)) if fault.is_still_there() => Ok(Placed::StillThere),
            Err(error) => Err(self.fault(error, subjects::OFFERS, bytes)),
        }
    }

    /// What a fault of `JetStream` means to a caller. A stream that isn't there is looked for at once.
    fn fault(&self, error: JetStreamError, stream: &'static str, bytes: usize) -> Error {
        let missing = match &error {
            JetStreamError::Unanswered(unanswered) => *unanswered == Unanswered::NoResponder,
            JetStreamError::Refused(fault) => fault.is_no_stream() || fault.is_no_consumer(),
            JetStreamError::Garbled(_) => false,
        };
        let broken = matches!(&error, JetStreamError::Refused(fault) if fault.is_broken());
        if broken {
            self.inner.findings.broken().insert(stream);
        }
        if missing || broken {
            self.inner.findings.look_now.notify_one();
        }
        match error {
            JetStreamError::Unanswered(Unanswered::TooLarge) => Error::TooLarge(bytes),
            JetStreamError::Refused(fault) if fault.is_too_large() => Error::TooLarge(bytes),
            JetStreamError::Refused(fault) if !missing => {
                tracing::warn!(%fault, stream, "a stream refuses a message");
                Error::Busy(stream)
            }
            other => Error::Unreachable(other.to_string()),
        }
    }
}

#[async_trait]
impl Bus for NatsBus {
    async fn request(&self, to: &Address, body: Bytes, within: Duration) -> Result<Bytes, Error> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(Error::TooLarge(body.len()));
        }
        let bytes = body.len();
        let reply = self.inner.line.ask(subjects::of(to), None, body, within).await.map_err(|error| match error {
            Unanswered::Down => down(),
            Unanswered::NoResponder => Error::NoResponder(*to),
            Unanswered::TimedOut => Error::TimedOut(*to),
            Unanswered::TooLarge => Error::TooLarge(bytes),
        })?;
        let too_large = reply.headers.as_ref().and_then(|headers| headers.get(serving::TOO_LARGE));
        match too_large {
            Some(bytes) => Err(Error::TooLarge(bytes.as_str().parse().unwrap_or(usize::MAX))),
            None if reply.payload.len() > MESSAGE_BYTES_MAX => Err(Error::TooLarge(reply.payload.len())),
            None => Ok(reply.payload),
        }
    }

    async fn serve(&self, service: Service) -> Result<Requests, Error> {
        let (sender, requests) = serving::queue();
        let (heard, in_force) = oneshot::channel();
        let (line, dropped) = (self.inner.line.clone(), self.inner.dropped.clone());
        self.inner.tasks.spawn(serving::serve(line, service, sender, heard, dropped));
        if self.inner.line.is_up() {
            // Where the connection breaks just now, it is in force with the next one.
            let _ = timeout(HEARD_WITHIN, in_force).await;
        }
        Ok(requests)
    }

    async fn offer(&self, offer: &Offer) -> Result<Placed, Error> {
        let (message, bytes) = self.offer_for_stream(offer).await?;
        self.placed(jetstream::publish(self.usable()?, message).await, bytes)
    }

    async fn withdraw(&self, offer: &Offer) -> Result<(), Error> {
        let line = self.usable()?;
        let deleted = jetstream::delete(line, subjects::OFFERS, &subjects::offer(offer)).await;
        deleted.map_err(|error| self.fault(error, subjects::OFFERS, 0))
    }

    async fn take(&self, lanes: &[Lane], most: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        let inner = &self.inner;
        if !inner.line.is_up() {
            return Err(down());
        }
        let pulls =
            inner.pulls.get_or_try_init(|| Pulls::open(inner.line.clone(), inner.settle_within, &inner.tasks)).await?;
        pulls.take(lanes, most, wait).await
    }

    async fn publish(&self, event: &Event) -> Result<(), Error> {
        let (message, bytes) = event_for_stream(event);
        let published = jetstream::publish(self.usable()?, message).await;
        published.map_err(|error| self.fault(error, subjects::EVENTS, bytes))
    }

    async fn send_all(&self, messages: &[ToSend<'_>]) -> Vec<Result<(), Error>> {
        let (mut sent, mut results) = (Vec::with_capacity(messages.len()), Vec::with_capacity(messages.len()));
        let line = match self.usable() {
            Ok(line) => line,
            Err(error) => return messages.iter().map(|_| Err(error.clone())).collect(),
        };
        for message in messages {
            let message = match message {
                ToSend::Event(event) => Ok(event_for_stream(event)),
                ToSend::Offer(offer) => self.offer_for_stream(offer).await,
            };
            results.push(message.map(|(message, bytes)| {
                sent.push(message);
                bytes
            }));
        }
        let mut held = jetstream::publish_all(line, sent).await.into_iter();
        let result = |(message, prepared): (&ToSend<'_>, Result<usize, Error>)| {
            let bytes = prepared?;
            // There is one for each that was prepared.
            let held = held.next().unwrap_or(Err(Unanswered::Down.into()));
            match message {
                ToSend::Event(_) => held.map_err(|error| self.fault(error, subjects::EVENTS, bytes)),
                ToSend::Offer(_) => self.placed(held, bytes).map(drop),
            }
        };
        messages.iter().zip(results).map(result).collect()
    }

    async fn events(&self) -> Result<broadcast::Receiver<CloudEvent>, Error> {
        if !self.inner.line.is_up() {
            return Err(down());
        }
        let feed = Feed::open(self.inner.line.clone()).await?;
        let (sender, events) = broadcast::channel(feed::LAG_MAX);
        self.inner.tasks.spawn(feed.run(sender));
        Ok(events)
    }

    fn hint(&self, hint: Hint) {
        // Where too many wait, one more is lost, which it may be.
        let _ = self.inner.hints_to_send.try_send(hint);
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.inner.hints.subscribe()
    }

    fn link(&self) -> Link {
        Link { fit: *self.inner.findings.fit.borrow(), ..self.inner.line.link() }
    }

    fn offers_lost(&self) -> watch::Receiver<u64> {
        self.inner.findings.offers_lost.subscribe()
    }
}

/// An event as its stream takes it, and its bytes.
fn event_for_stream(event: &Event) -> (ForStream, usize) {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", EVENT_TYPE);
    let body = wire::encode(&CloudEvent::from(event));
    let bytes = body.len();
    (ForStream { subject: subjects::event(event), headers: Some(headers), body }, bytes)
}

fn down() -> Error {
    Error::Unreachable("there is no connection to NATS".to_owned())
}

/// Whether a list with commas names servers of NATS.
pub fn checked(urls: &str) -> Result<(), StartError> {
    addresses(urls).map(drop)
}

/// The addresses that a list with commas names.
fn addresses(urls: &str) -> Result<Vec<ServerAddr>, StartError> {
    let each = |url: &str| {
        url.parse().map_err(|error: std::io::Error| StartError::Address(connection::shown(url), error.to_string()))
    };
    let addresses: Vec<_> =
        urls.split(',').map(str::trim).filter(|url| !url.is_empty()).map(each).collect::<Result<_, _>>()?;
    if addresses.iter().all(|address: &ServerAddr| address.host().is_empty()) {
        return Err(StartError::Address(connection::shown(urls), "it names no server".to_owned()));
    }
    Ok(addresses)
}
