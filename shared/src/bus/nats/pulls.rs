//! Taking offers. Lanes are fetched from in their order, a few at a time where they are empty; only when all are empty
//! does a pull stand at each. All that comes passes [`Desk`], and what it doesn't keep is given back at once: no offer
//! waits for its time in a hand that doesn't want it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_nats::{Message, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::consumers;
use super::desk::{Desk, STAND_FOR, Verdict};
use super::jetstream::nanoseconds;
use super::line::{Line, Tasks};
use super::subjects::{self, LaneName, OFFERS};
use crate::bus::{Delivery, Error, Settled};
use crate::job::Offer;
use crate::wire::{self, Lane};

/// The most lanes that are fetched from at the same time.
const WINDOW_MAX: usize = 64;
/// How long the fetches of a window may take. A server of 2.9 says nothing at all where a consumer is gone.
const FETCH_WITHIN: Duration = Duration::from_secs(1);
/// How long a take sleeps at most before it looks whether its pulls still stand.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a word about an offer waits for a connection; by then the offer is with another.
const SETTLE_WITHIN: Duration = Duration::from_secs(10);
/// The most tag sets whose tokens are remembered.
const TOKENS_MAX: usize = 10_000;
/// A message is done with.
const ACK: &[u8] = b"+ACK";

/// See the module.
pub struct Pulls {
    line: Line,
    desk: Arc<Desk>,
    /// What the subjects of all that pulls bring begin with.
    inbox: String,
    tokens: Mutex<HashMap<Vec<String>, String>>,
    settle_within: Duration,
    /// One takes at a time; who takes next waits for its turn as it would for an offer.
    turn: tokio::sync::Mutex<()>,
}

impl Pulls {
    /// Ready to take offers that are to be settled within that time.
    pub async fn open(line: Line, settle_within: Duration, tasks: &Tasks) -> Result<Self, Error> {
        let gone = |error: async_nats::SubscribeError| Error::Unreachable(error.to_string());
        let (inbox, desk) = (line.client.new_inbox(), Arc::new(Desk::default()));
        let incoming = line.client.subscribe(format!("{inbox}.>")).await.map_err(gone)?;
        let news = line.client.subscribe(subjects::CONSUMER_NEWS).await.map_err(gone)?;
        line.settled().await;
        tasks.spawn(receive(line.clone(), desk.clone(), incoming, format!("{inbox}.")));
        tasks.spawn(hear(desk.clone(), news));
        Ok(Self { line, desk, inbox, tokens: Mutex::default(), settle_within, turn: tokio::sync::Mutex::default() })
    }

    /// See [`crate::bus::Bus::take`].
    pub async fn take(&self, lanes: &[Lane], most: usize, wait: Duration) -> Result<Vec<Delivery>, Error> {
        let deadline = Instant::now() + wait;
        if most == 0 {
            return Ok(Vec::new());
        }
        if !self.line.is_up() {
            return Err(Error::Unreachable("there is no connection to NATS".to_owned()));
        }
        let Ok(_turn) = timeout_at(deadline.max(Instant::now() + LOOK_EVERY), self.turn.lock()).await else {
            return Ok(Vec::new());
        };
        let lanes = self.names(lanes);
        let seat = Seat::take(self, &lanes, most);
        self.list().await;
        self.fetch(&lanes, most).await;
        while self.desk.arrived() == 0 && Instant::now() < deadline {
            self.list().await;
            self.stand(&lanes).await;
            let again = deadline.min(Instant::now() + LOOK_EVERY);
            let _ = timeout_at(again, self.desk.news.notified()).await;
        }
        Ok(seat.leave(&lanes, most))
    }

    /// Finds out which lanes have a consumer, unless that is known.
    async fn list(&self) {
        if !self.line.is_up() || !self.desk.begin_listing() {
            return;
        }
        match consumers::names(&self.line).await {
            Ok(names) => self.desk.listed(names),
            // Without its stream no lane has one. Whatever it is, the next look asks again.
            Err(error) => tracing::debug!(%error, "listing the lanes"),
        }
    }

    /// Fetches what is there, lane by lane; where nothing is found more lanes at a time.
    async fn fetch(&self, lanes: &[LaneName], most: usize) {
        let lanes = self.desk.unattended(lanes);
        let (mut rest, mut window) = (lanes.as_slice(), 1);
        while let Some((now, later)) = rest.split_at_checked(window.min(rest.len())).filter(|(now, _)| !now.is_empty())
        {
            rest = later;
            let room = most.saturating_sub(self.desk.arrived());
            if room == 0 {
                return;
            }
            for lane in now {
                let number = self.desk.fetch(lane, room);
                self.pull(lane, number, &json!({ "batch": room, "no_wait": true })).await;
            }
            let answered = async {
                while self.desk.is_fetching() {
                    self.desk.news.notified().await;
                }
            };
            if timeout(FETCH_WITHIN, answered).await.is_err() {
                self.desk.abandon_fetches();
            }
            window = if self.desk.arrived() == 0 { (2 * window).min(WINDOW_MAX) } else { 1 };
        }
    }

    /// Leaves a pull at each lane that has none.
    async fn stand(&self, lanes: &[LaneName]) {
        if !self.line.is_up() {
            return;
        }
        for lane in self.desk.unattended(lanes) {
            let number = self.desk.stand(&lane);
            self.pull(&lane, number, &json!({ "batch": 1, "expires": nanoseconds(STAND_FOR) })).await;
        }
    }

    async fn pull(&self, lane: &LaneName, number: u64, request: &Value) {
        let name = lane.as_str();
        let subject = format!("$JS.API.CONSUMER.MSG.NEXT.{OFFERS}.{name}");
        let reply = format!("{}.{name}.{number}", self.inbox);
        let sending = self.line.client.publish_with_reply(subject, reply, request.to_string().into());
        // What isn't sent isn't answered: the pull's own deadline passes.
        let _ = timeout(FETCH_WITHIN, sending).await;
    }

    fn names(&self, lanes: &[Lane]) -> Vec<LaneName> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if tokens.len() > TOKENS_MAX {
            tokens.clear();
        }
        let name = |lane: &Lane| {
            if let Some(token) = tokens.get(&lane.tags) {
                return LaneName::new(token, lane.priority);
            }
            let token = subjects::tag_set(&lane.tags);
            let name = LaneName::new(&token, lane.priority);
            tokens.insert(lane.tags.clone(), token);
            name
        };
        lanes.iter().map(name).collect()
    }

    /// The offer in a worker's hand, or none where the message isn't one.
    fn deliver(&self, message: Message) -> Option<Delivery> {
        let offer = wire::decode::<Offer>(&message.payload).ok();
        let Some(offer) = offer.filter(|offer| subjects::offer(offer) == *message.subject) else {
            discard(&self.line, message);
            return None;
        };
        let (settle, settled) = oneshot::channel();
        let (line, reply) = (self.line.clone(), message.reply?);
        let late = Instant::now() + self.settle_within;
        tokio::spawn(async move {
            let word = match settled.await {
                Ok(Settled::Done) => Bytes::from_static(ACK),
                // Another has it by now, from whom it would be taken.
                Ok(Settled::Back(_)) if Instant::now() >= late => return,
                Ok(Settled::Back(delay)) => not_now(delay),
                // Dropped without a word: it is delivered again in time.
                Err(_) => return,
            };
            let _ = timeout(SETTLE_WITHIN, line.connected()).await;
            line.send(reply.as_str(), None, word).await;
        });
        Some(Delivery::new(offer, settle))
    }
}

/// A taker's place at the desk. Dropped, it gives back what has arrived.
struct Seat<'a> {
    pulls: &'a Pulls,
}

impl<'a> Seat<'a> {
    fn take(pulls: &'a Pulls, lanes: &[LaneName], most: usize) -> Self {
        pulls.desk.seat(lanes, most);
        Self { pulls }
    }

    /// What has arrived, those of earlier lanes first, at most `most`; the rest is given back.
    fn leave(self, lanes: &[LaneName], most: usize) -> Vec<Delivery> {
        let mut arrived = self.pulls.desk.leave();
        let ranks: HashMap<&LaneName, usize> = lanes.iter().zip(0..).collect();
        arrived.sort_by_key(|(lane, _)| ranks.get(lane).copied());
        let rest = arrived.split_off(most.min(arrived.len()));
        for (_, message) in rest {
            give_back(&self.pulls.line, message);
        }
        arrived.into_iter().filter_map(|(_, message)| self.pulls.deliver(message)).collect()
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        for (_, message) in self.pulls.desk.leave() {
            give_back(&self.pulls.line, message);
        }
    }
}

/// Books all that pulls bring, until the bus is gone.
async fn receive(line: Line, desk: Arc<Desk>, mut incoming: Subscriber, prefix: String) {
    let mut turns = line.turns();
    loop {
        let message = tokio::select! {
            message = incoming.next() => message,
            turned = turns.changed() => {
                if turned.is_err() {
                    return;
                }
                desk.reset();
                continue;
            }
        };
        let Some(message) = message else { return };
        if let Some(pull) = message.subject.strip_prefix(prefix.as_str()) {
            let pull = pull.split_once('.').and_then(|(lane, number)| Some((lane.parse().ok()?, number.parse().ok()?)));
            if let Some((lane, number)) = pull {
                desk.status(&lane, number, &message);
            }
            continue;
        }
        match desk.offer(message) {
            Verdict::Kept => {}
            Verdict::GiveBack(message) => give_back(&line, message),
            Verdict::Discard(message) => discard(&line, message),
        }
    }
}

/// Books news of consumers, until the bus is gone.
async fn hear(desk: Arc<Desk>, mut news: Subscriber) {
    while let Some(message) = news.next().await {
        if let Some(news) = subjects::consumer_news(&message.subject) {
            desk.hear(news);
        }
    }
}

/// Gives an offer to whoever waits for it elsewhere.
fn give_back(line: &Line, message: Message) {
    settle(line, message, not_now(Duration::ZERO));
}

/// Takes what is no offer out of the stream.
fn discard(line: &Line, message: Message) {
    tracing::warn!(subject = %message.subject, "a message among the offers that isn't one is thrown away");
    settle(line, message, Bytes::from_static(ACK));
}

fn settle(line: &Line, message: Message, word: Bytes) {
    let Some(reply) = message.reply else { return };
    let line = line.clone();
    tokio::spawn(async move { line.send(reply.as_str(), None, word).await });
}

/// A message shall come again after `delay`.
fn not_now(delay: Duration) -> Bytes {
    if delay.is_zero() {
        return Bytes::from_static(b"-NAK");
    }
    format!("-NAK {}", json!({ "delay": nanoseconds(delay) })).into()
}
