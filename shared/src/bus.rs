//! The waist between coordinators and workers, and to subscribers. What goes over it may be lost, repeated and
//! delayed: the store is the truth, and everything here can be made again from it.
//!
//! [`local::LocalBus`] is the implementation within one process, `nats::NatsBus` that of a cluster. `tests/tests/conformance/bus.rs` is what every
//! implementation has to pass.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::cloud_event::CloudEvent;
use crate::id::{JobId, Shard, WorkerId};
use crate::job::{Event, Offer};
use crate::wire::Lane;

pub mod local;
pub mod nats;

/// Carries requests, offers, events and hints.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Sends `body` to whoever serves `to` and waits for the reply, at most `within`.
    async fn request(&self, to: &Address, body: Bytes, within: Duration) -> Result<Bytes, Error>;

    /// The requests to `service` from now on, until what is returned is dropped. Where several serve [`Service::Hello`]
    /// or [`Service::Enrol`], each request goes to one of them. The others have one server; while there are two, as
    /// during a takeover, each gets every request, the first reply counts, and whoever isn't the owner says nothing.
    async fn serve(&self, service: Service) -> Result<Requests, Error>;

    /// Puts an offer out. One that is still there is not doubled.
    async fn offer(&self, offer: &Offer) -> Result<Placed, Error>;

    /// Takes an offer back, as far as it can still be had.
    async fn withdraw(&self, offer: &Offer) -> Result<(), Error>;

    /// At most `most` offers of these lanes, those of an earlier lane first, the oldest of a lane first. Waits at most
    /// `wait` for the first one.
    async fn take(&self, lanes: &[Lane], most: usize, wait: Duration) -> Result<Vec<Delivery>, Error>;

    /// Tells the subscribers of an event; returns when it can't be lost any more.
    async fn publish(&self, event: &Event) -> Result<(), Error>;

    /// Does [`Bus::publish`] or [`Bus::offer`] for each of these at once, which are about different jobs; what became of each
    /// is in their order.
    async fn send_all(&self, messages: &[ToSend<'_>]) -> Vec<Result<(), Error>> {
        let sent = messages.iter().map(|message| async move {
            match message {
                ToSend::Event(event) => self.publish(event).await,
                ToSend::Offer(offer) => self.offer(offer).await.map(drop),
            }
        });
        join_all(sent).await
    }

    /// The events that are published from now on, a job's in order, as a subscriber gets them.
    async fn events(&self) -> Result<broadcast::Receiver<CloudEvent>, Error>;

    /// Tells all coordinators that something has changed. It may be lost.
    fn hint(&self, hint: Hint);

    /// The hints from now on. A receiver that lags has missed some and looks at the store.
    fn hints(&self) -> broadcast::Receiver<Hint>;

    /// How the connection is, and how often it was lost.
    fn link(&self) -> Link;

    /// How often all offers were lost at once, as when their stream was deleted: each time they are to be made again
    /// from the store.
    fn offers_lost(&self) -> watch::Receiver<u64>;
}

/// One of several messages that are sent at once.
#[derive(Debug, Clone, Copy)]
pub enum ToSend<'a> {
    /// For subscribers.
    Event(&'a Event),
    /// For workers.
    Offer(&'a Offer),
}

/// How the connection to the bus is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub up: bool,
    /// Whether what is there can carry everything: where it can't, offers and events have to wait for somebody to mend it.
    pub fit: bool,
    /// How often it was lost so far: a count that has grown between two looks tells of a break that is over.
    pub breaks: u64,
}

/// Whom a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub enum Address {
    /// Any coordinator: a program that wants to become a worker.
    Enrol,
    /// Any coordinator: a worker's hello.
    Hello(WorkerId),
    /// The owner of a shard: a worker's reports.
    Report(Shard, WorkerId),
    /// The owner of a shard: a worker's heartbeat.
    Heartbeat(Shard, WorkerId),
    /// The owner of a shard: a worker's log.
    Log(Shard, WorkerId),
    /// The owner of a shard: a worker's wish for a deploy key.
    Key(Shard, WorkerId),
    /// A worker: orders.
    Control(WorkerId),
}

/// What somebody answers for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// Every program's wish to become a worker.
    Enrol,
    /// Every worker's hello.
    Hello,
    /// Everything that is said to a shard.
    Shard(Shard),
    /// Everything that is said to a worker.
    Worker(WorkerId),
}

impl Address {
    /// The worker that speaks, or is spoken to.
    pub fn worker(self) -> Option<WorkerId> {
        match self {
            Self::Enrol => None,
            Self::Hello(worker) | Self::Control(worker) => Some(worker),
            Self::Report(_, worker) | Self::Heartbeat(_, worker) => Some(worker),
            Self::Log(_, worker) | Self::Key(_, worker) => Some(worker),
        }
    }

    /// Who answers for it.
    pub fn service(self) -> Service {
        match self {
            Self::Enrol => Service::Enrol,
            Self::Hello(_) => Service::Hello,
            Self::Report(shard, _) | Self::Heartbeat(shard, _) => Service::Shard(shard),
            Self::Log(shard, _) | Self::Key(shard, _) => Service::Shard(shard),
            Self::Control(worker) => Service::Worker(worker),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Enrol => f.write_str("the enrolment"),
            Self::Hello(worker) => write!(f, "the hello of worker {worker}"),
            Self::Report(shard, worker) => write!(f, "the reports of worker {worker} to shard {shard}"),
            Self::Heartbeat(shard, worker) => write!(f, "the heartbeat of worker {worker} to shard {shard}"),
            Self::Log(shard, worker) => write!(f, "the log of worker {worker} to shard {shard}"),
            Self::Key(shard, worker) => write!(f, "the deploy keys for worker {worker} of shard {shard}"),
            Self::Control(worker) => write!(f, "the orders to worker {worker}"),
        }
    }
}

/// The requests to a service, one after the other; none after the bus is closed.
pub type Requests = mpsc::Receiver<Request>;

/// A request and the way to answer it. Dropping it leaves the asker to its deadline.
#[derive(Debug)]
pub struct Request {
    pub to: Address,
    pub body: Bytes,
    pub reply: oneshot::Sender<Bytes>,
}

/// What became of an offer that was put out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    New,
    /// It is still there from before.
    StillThere,
}

/// An offer in a worker's hand. Unless it is settled within ten seconds it goes to another.
#[derive(Debug)]
pub struct Delivery {
    pub offer: Offer,
    settle: oneshot::Sender<Settled>,
}

/// What a worker did with an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is done with for good.
    Done,
    /// Another may have it after that time.
    Back(Duration),
}

impl Delivery {
    /// An offer to be settled through `settle`; dropped unsettled, it is delivered again in time.
    pub fn new(offer: Offer, settle: oneshot::Sender<Settled>) -> Self {
        Self { offer, settle }
    }

    /// The offer is done with: granted, or refused for good.
    pub fn done(self) {
        // The bus may be gone or have given the offer to another: both are harmless, the row decides.
        let _ = self.settle.send(Settled::Done);
    }

    /// Gives the offer back, to be delivered again after `delay`.
    pub fn back(self, delay: Duration) {
        let _ = self.settle.send(Settled::Back(delay));
    }
}

/// Something has changed: look at the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hint {
    /// Something about a job.
    Job(JobId),
    /// Who owns which shard.
    Shards,
    /// Which deploy keys are registered.
    Keys,
    /// Which tokens and workers count.
    Roster,
}

/// Why the bus didn't do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody serves that address now.
    #[error("nobody takes {0}")]
    NoResponder(Address),
    /// No reply within the time that the asker gave; whether it was heard is unknown.
    #[error("no reply to {0} in time")]
    TimedOut(Address),
    /// A bound is reached: again later.
    #[error("the bus is busy at {0}")]
    Busy(&'static str),
    /// The message is over [`crate::wire::MESSAGE_BYTES_MAX`]: never again.
    #[error("a message of {0} bytes is too large")]
    TooLarge(usize),
    /// There is no connection now; whether the message was heard is unknown.
    #[error("the bus can't be reached: {0}")]
    Unreachable(String),
    /// The bus is closed.
    #[error("the bus is closed")]
    Closed,
}
