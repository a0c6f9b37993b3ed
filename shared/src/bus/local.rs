//! The bus within one process: a table of channels, not a broker. What it forgets at exit is rebuilt from the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Address, Bus, Delivery, Error, Hint, Link, Placed, Request, Requests, Service, Settled};
use crate::cloud_event::CloudEvent;
use crate::id::{Attempt, JobId};
use crate::job::{Event, Offer};
use crate::wire::{Lane, MESSAGE_BYTES_MAX};

/// The most requests that wait for one service.
const REQUESTS_MAX: usize = 4096;
/// The most events or hints that a slow receiver may lag behind.
const LAG_MAX: usize = 16 * 1024;
/// How long an offer may stay unsettled in a worker's hand.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);

/// The bus of `run` and `dev`. Clones are the same bus.
#[derive(Clone)]
pub struct LocalBus {
    inner: Arc<Inner>,
}

struct Inner {
    services: Mutex<HashMap<Service, Vec<mpsc::Sender<Request>>>>,
    offers: Mutex<Offers>,
    offered: Notify,
    events: broadcast::Sender<CloudEvent>,
    hints: broadcast::Sender<Hint>,
    offers_lost: watch::Sender<u64>,
    settle_within: Duration,
}

/// The offers that are out: waiting in their lane, or in a worker's hand.
#[derive(Default)]
struct Offers {
    /// In the order of their tickets.
    waiting: BTreeMap<Lane, BTreeMap<Ticket, Offer>>,
    /// All that are out, each with its last ticket: an older one speaks for an offer that was withdrawn since.
    known: HashMap<Name, Ticket>,
    last: Ticket,
}

/// What makes an offer the same one, whatever else it says.
type Name = (JobId, Attempt);

/// An offer's place in its lane, drawn anew whenever it joins the end.
type Ticket = u64;

impl Offers {
    fn join(&mut self, offer: Offer) {
        self.last += 1;
        self.known.insert(name(&offer), self.last);
        self.waiting.entry(lane(&offer)).or_default().insert(self.last, offer);
    }

    fn withdraw(&mut self, offer: &Offer) {
        let Some(ticket) = self.known.remove(&name(offer)) else { return };
        let lane = lane(offer);
        if let Some(waiting) = self.waiting.get_mut(&lane) {
            waiting.remove(&ticket);
            if waiting.is_empty() {
                self.waiting.remove(&lane);
            }
        }
    }

    fn take(&mut self, lanes: &[Lane], most: usize) -> Vec<(Ticket, Offer)> {
        let mut taken = Vec::new();
        for lane in lanes {
            let Some(mut waiting) = self.waiting.remove(lane) else { continue };
            while taken.len() < most
                && let Some(first) = waiting.pop_first()
            {
                taken.push(first);
            }
            if !waiting.is_empty() {
                self.waiting.insert(lane.clone(), waiting);
            }
        }
        taken
    }

    /// Whether it is still the offer that was handed out under that ticket.
    fn is(&self, offer: &Offer, ticket: Ticket) -> bool {
        self.known.get(&name(offer)) == Some(&ticket)
    }
}

impl Default for LocalBus {
    fn default() -> Self {
        Self::new(SETTLE_WITHIN)
    }
}

impl LocalBus {
    /// A bus without anybody on it, which delivers an offer again when it isn't settled within `settle_within`.
    pub fn new(settle_within: Duration) -> Self {
        let inner = Inner {
            services: Mutex::default(),
            offers: Mutex::default(),
            offered: Notify::new(),
            events: broadcast::channel(LAG_MAX).0,
            hints: broadcast::channel(LAG_MAX).0,
            offers_lost: watch::Sender::new(0),
            settle_within,
        };
        Self { inner: Arc::new(inner) }
    }

    /// Who gets a request: one of those who serve it together, or else everybody who serves it.
    fn responders(&self, to: &Address) -> Result<Vec<mpsc::Sender<Request>>, Error> {
        let service = to.service();
        let mut services = held(&self.inner.services);
        let servers = services.get_mut(&service).ok_or(Error::NoResponder(*to))?;
        servers.retain(|server| !server.is_closed());
        let asked = match service {
            Service::Enrol | Service::Hello => {
                // The first one goes to the end: requests are spread over all that serve.
                let spread = usize::from(servers.len() > 1);
                servers.rotate_left(spread);
                servers.last().cloned().into_iter().collect()
            }
            Service::Shard(_) | Service::Worker(_) => servers.clone(),
        };
        if asked.is_empty() { Err(Error::NoResponder(*to)) } else { Ok(asked) }
    }

    fn deliver(&self, ticket: Ticket, offer: Offer) -> Delivery {
        let (settle, settled) = oneshot::channel();
        let (bus, out) = (self.clone(), offer.clone());
        tokio::spawn(async move {
            let dropped = bus.inner.settle_within;
            let deadline = Instant::now() + dropped;
            match timeout(dropped, settled).await {
                Ok(Ok(Settled::Done)) => {
                    let mut offers = held(&bus.inner.offers);
                    if offers.is(&out, ticket) {
                        offers.withdraw(&out);
                    }
                    return;
                }
                Ok(Ok(Settled::Back(delay))) => tokio::time::sleep(delay).await,
                // Dropped without a word: it is back when it would have been for a worker that died.
                Ok(Err(_)) => tokio::time::sleep_until(deadline).await,
                Err(_) => {}
            }
            let mut offers = held(&bus.inner.offers);
            if offers.is(&out, ticket) {
                offers.join(out);
                bus.inner.offered.notify_waiters();
            }
        });
        Delivery::new(offer, settle)
    }
}

#[async_trait]
impl Bus for LocalBus {
    async fn request(&self, to: &Address, body: Bytes, within: Duration) -> Result<Bytes, Error> {
        if body.len() > MESSAGE_BYTES_MAX {
            return Err(Error::TooLarge(body.len()));
        }
        let mut answers = FuturesUnordered::new();
        let mut refused = Error::NoResponder(*to);
        for responder in self.responders(to)? {
            let (reply, answer) = oneshot::channel();
            match responder.try_send(Request { to: *to, body: body.clone(), reply }) {
                Ok(()) => answers.push(answer),
                Err(mpsc::error::TrySendError::Full(_)) => refused = Error::Busy("a service's queue"),
                Err(mpsc::error::TrySendError::Closed(_)) => {}
            }
        }
        if answers.is_empty() {
            return Err(refused);
        }
        let first = async {
            // One that is dropped leaves the others to answer.
            while let Some(answer) = answers.next().await {
                if let Ok(body) = answer {
                    return Some(body);
                }
            }
            None
        };
        match timeout(within, first).await {
            Ok(Some(body)) if body.len() > MESSAGE_BYTES_MAX => Err(Error::TooLarge(body.len())),
            Ok(Some(body)) => Ok(body),
            Ok(None) | Err(_) => Err(Error::TimedOut(*to)),
        }
    }

    async fn serve(&self, service: Service) -> Result<Requests, Error> {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        held(&self.inner.services).entry(service).or_default().push(sender);
        Ok(requests)
    }

    async fn offer(&self, offer: &Offer) -> Result<Placed, Error> {
        let mut offers = held(&self.inner.offers);
        if offers.known.contains_key(&name(offer)) {
            return Ok(Placed::StillThere);
        }
        offers.join(offer.clone());
        self.inner.offered.notify_waiters();
        Ok(Placed::New)
    }

    async fn withdraw(&self, offer: &Offer) -> Result<(), Error> {
        held(&self.inner.offers).withdraw(offer);
        Ok(())
    }

    async fn take(&self, lanes: &[Lane], most: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        let deadline = Instant::now() + wait;
        loop {
            let offered = self.inner.offered.notified();
            tokio::pin!(offered);
            // From here on a new offer wakes us, also one that comes while we look.
            offered.as_mut().enable();
            let taken = held(&self.inner.offers).take(lanes, most);
            if !taken.is_empty() || most == 0 {
                return Ok(taken.into_iter().map(|(ticket, offer)| self.deliver(ticket, offer)).collect());
            }
            if timeout_at(deadline, offered).await.is_err() {
                return Ok(Vec::new());
            }
        }
    }

    async fn publish(&self, event: &Event) -> Result<(), Error> {
        if self.inner.events.receiver_count() > 0 {
            // The last listener may have just gone.
            let _ = self.inner.events.send(event.into());
        }
        Ok(())
    }

    async fn events(&self) -> Result<broadcast::Receiver<CloudEvent>, Error> {
        Ok(self.inner.events.subscribe())
    }

    fn hint(&self, hint: Hint) {
        let _ = self.inner.hints.send(hint);
    }

    fn hints(&self) -> broadcast::Receiver<Hint> {
        self.inner.hints.subscribe()
    }

    fn link(&self) -> Link {
        Link { up: true, fit: true, breaks: 0 }
    }

    fn offers_lost(&self) -> watch::Receiver<u64> {
        self.inner.offers_lost.subscribe()
    }
}

fn name(offer: &Offer) -> Name {
    (offer.job, offer.attempt)
}

fn lane(offer: &Offer) -> Lane {
    Lane { tags: offer.tags.clone(), priority: offer.priority }
}

/// Locks a table. Each is changed by single calls that leave it whole, so a panic elsewhere does it no harm.
fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
