//! Looks at the server and its streams, at the start and every second: what is missing is made, what is otherwise than
//! it has to be is said, and offers that were lost with their stream are counted, so that they are made again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{ServerInfo, Subscriber};
use futures_util::StreamExt;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::consumers::{Consumers, Trouble};
use super::jetstream::{self, Error};
use super::line::{LOOK_EVERY, Line, Unanswered};
use super::streams::{Mismatch, Plan};
use super::subjects::{self, ConsumerNews};
use crate::clock;

/// The first server with `discard_new_per_subject`, which keeps offers single.
const SERVER_VERSION_MIN: [u64; 3] = [2, 9, 2];
/// Our messages have at most half of that.
const MAX_PAYLOAD_MIN: usize = 1024 * 1024;
/// Every so many looks the consumers are looked for by name, even where their number is the same.
const CONSUMERS_EVERY: u64 = 10;
/// Every so many looks that find the same fault, it is said again.
const SAY_EVERY: u64 = 10;

/// How long a stream has been gone before it is made again: a server of 2.9 that is asked for one of that name while it
/// deletes the old one makes it, and then deletes the new one's files.
const MAKE_AFTER: Duration = Duration::from_millis(900);
/// The least time from a look that failed to the next one.
const AFTER_FAULT: Duration = Duration::from_millis(100);

/// Why this server can't carry the bus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the NATS server is version {0}: at least 2.9.2 is needed")]
    TooOld(String),
    #[error("the NATS server takes messages of {0} bytes at most: set its `max_payload` to 1048576 (1 MiB) or more")]
    SmallMessages(usize),
    #[error("JetStream is off on the NATS server: switch it on (`jetstream {{}}` in its configuration)")]
    NoJetStream,
    #[error("{what} can't be made on NATS: {why}")]
    NotMade { what: String, why: String },
    #[error(transparent)]
    Mismatch(#[from] Mismatch),
}

/// Why a look didn't find all in order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It stays so until somebody changes it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It is made again with a later look: see [`MAKE_AFTER`].
    #[error("{0} is gone")]
    Gone(String),
    /// It may be over with the next look.
    #[error("looking at the streams: {0}")]
    Passing(#[from] Error),
}

impl From<Trouble> for Fault {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::JetStream(error) => Self::Passing(error),
            Trouble::Mismatch(mismatch) => Self::Refused(mismatch.into()),
        }
    }
}

/// What looks tell to the rest of the bus.
pub struct Findings {
    /// Whether the last look that saw anything found all in order.
    pub fit: watch::Sender<bool>,
    pub offers_lost: watch::Sender<u64>,
    /// The streams that can't store anything any more.
    broken: Mutex<BTreeSet<&'static str>>,
    /// Told when somebody has met a missing stream or consumer: the next look comes at once.
    pub look_now: Notify,
}

impl Default for Findings {
    fn default() -> Self {
        Self {
            fit: watch::Sender::new(false),
            offers_lost: watch::Sender::new(0),
            broken: Mutex::default(),
            look_now: Notify::new(),
        }
    }
}

impl Findings {
    /// The streams that can't store anything any more, for whoever has met one.
    pub fn broken(&self) -> MutexGuard<'_, BTreeSet<&'static str>> {
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at the server, and for a coordinator at its streams.
pub struct Lookout {
    line: Line,
    findings: Arc<Findings>,
    /// What a coordinator looks after; nothing where we are a worker.
    care: Option<Care>,
}

struct Care {
    consumers: Arc<Consumers>,
    offers: Plan,
    events: Plan,
    /// The offers' stream as it was at the last look.
    seen: Option<Seen>,
    looks: u64,
    /// Since when streams are gone that were there.
    gone: BTreeMap<&'static str, Instant>,
}

#[derive(Clone, PartialEq, Eq)]
struct Seen {
    created: String,
    consumers: u64,
}

impl Lookout {
    /// One that looks after the streams where it is given their consumers.
    pub fn new(line: Line, findings: Arc<Findings>, consumers: Option<Arc<Consumers>>, event_age: Duration) -> Self {
        let (offers, events) = (Plan::offers(), Plan::events(event_age));
        let care =
            consumers.map(|consumers| Care { consumers, offers, events, seen: None, looks: 0, gone: BTreeMap::new() });
        Self { line, findings, care }
    }

    /// The first look, whose fault is for whoever starts us.
    pub async fn begin(&mut self) -> Result<(), Fault> {
        self.look().await.map(drop)
    }

    /// Looks every `every`, and at once when the connection is back or somebody asks.
    pub async fn run(mut self, every: Duration) {
        let mut turns = self.line.turns();
        let mut failed = 0_u64;
        loop {
            tokio::select! {
                () = tokio::time::sleep(every) => {}
                () = self.findings.look_now.notified() => {}
                turned = turns.changed() => if turned.is_err() { return },
            }
            if tokio::time::timeout(LOOK_EVERY, self.line.connected()).await.is_err() {
                continue;
            }
            match self.look().await {
                Ok(lost) => {
                    if lost {
                        tracing::warn!("the stream of offers is new: all offers are made again");
                        self.findings.offers_lost.send_modify(|lost| *lost += 1);
                    }
                    if failed > 0 {
                        tracing::info!("NATS is in order again");
                    }
                    failed = 0;
                }
                // Its loss is told already, and what it comes back to is looked at then.
                Err(Fault::Passing(Error::Unanswered(Unanswered::Down))) => {}
                Err(fault) => {
                    if failed.is_multiple_of(SAY_EVERY) {
                        tracing::error!(%fault, "NATS isn't as it has to be");
                    }
                    failed += 1;
                    tokio::time::sleep(AFTER_FAULT).await;
                }
            }
        }
    }

    /// Looks once. Says whether offers that were there may be lost.
    async fn look(&mut self) -> Result<bool, Fault> {
        let found = match check_server(&self.line.client.server_info()) {
            Err(refusal) => Err(refusal.into()),
            Ok(()) => match &mut self.care {
                Some(care) => care.look(&self.line, &self.findings).await,
                None => Ok(false),
            },
        };
        match &found {
            Ok(_) => self.findings.fit.send_replace(true),
            Err(Fault::Refused(_)) => self.findings.fit.send_replace(false),
            // Nothing was seen, or nothing that stays.
            Err(Fault::Gone(_) | Fault::Passing(_)) => true,
        };
        found
    }
}

impl Care {
    async fn look(&mut self, line: &Line, findings: &Findings) -> Result<bool, Fault> {
        self.looks += 1;
        delete_broken(line, findings).await?;
        let (events, offers) = (self.events.clone(), self.offers.clone());
        // One that is gone doesn't keep the other from being made.
        let events = self.there(line, &events, findings).await;
        let (info, made) = self.there(line, &offers, findings).await?;
        events?;
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let consumers = info.pointer("/state/consumer_count").and_then(Value::as_u64).unwrap_or(0);
        let now = Seen { created: text(info.get("created")), consumers };
        let before = self.seen.clone();
        let new = made || before.as_ref().is_some_and(|before| before.created != now.created);
        if new {
            self.consumers.forget();
        }
        if new || before.is_none() {
            self.consumers.find(line).await?;
        } else if before.as_ref() != Some(&now)
            || self.consumers.may_be_gone(consumers)
            || self.looks.is_multiple_of(CONSUMERS_EVERY)
        {
            let mended = self.consumers.mend(line).await?;
            if mended > 0 {
                tracing::warn!(mended, "consumers of the offers' stream were gone and are made again");
            }
        }
        self.seen = Some(now);
        Ok(new)
    }

    /// What the server tells of a stream, which is made where there is none; and whether it was.
    async fn there(&mut self, line: &Line, plan: &Plan, findings: &Findings) -> Result<(Value, bool), Fault> {
        let info = jetstream::api(line, &format!("STREAM.INFO.{}", plan.stream), &Value::Null).await;
        let (info, made) = match info {
            Err(Error::Refused(fault)) if fault.is_no_stream() => {
                let gone = *self.gone.entry(plan.stream).or_insert_with(clock::instant);
                // Before the first look that found all in order none was there for all that we know.
                if self.seen.is_some() && gone.elapsed() < MAKE_AFTER {
                    return Err(Fault::Gone(plan.what.clone()));
                }
                let info = make(line, plan).await?;
                // What was said meanwhile was said of the old one.
                findings.broken().remove(plan.stream);
                (info, true)
            }
            Err(Error::Refused(fault)) if fault.is_no_jetstream() => return Err(Refusal::NoJetStream.into()),
            other => (other?, false),
        };
        self.gone.remove(plan.stream);
        plan.check(info.get("config").unwrap_or(&Value::Null)).map_err(Refusal::from)?;
        Ok((info, made))
    }
}

async fn make(line: &Line, plan: &Plan) -> Result<Value, Fault> {
    let (verb, body) = plan.creation();
    let info = jetstream::api(line, &verb, &body).await.map_err(|error| match error {
        Error::Refused(fault) => Refusal::NotMade { what: plan.what.clone(), why: fault.to_string() }.into(),
        other => Fault::Passing(other),
    })?;
    tracing::info!("{} is made", plan.what);
    Ok(info)
}

/// Hears of deleted consumers, so that the next look comes at once and mends them.
pub async fn hear(mut news: Subscriber, consumers: Arc<Consumers>, findings: Arc<Findings>) {
    while let Some(message) = news.next().await {
        if let Some(ConsumerNews::Gone(_)) = subjects::consumer_news(&message.subject) {
            consumers.doubt();
            findings.look_now.notify_one();
        }
    }
}

/// Deletes the streams that can't store anything any more, so that they are made again. What they held can't be read
/// either.
async fn delete_broken(line: &Line, findings: &Findings) -> Result<(), Fault> {
    let broken = std::mem::take(&mut *findings.broken());
    for stream in broken {
        tracing::error!("the files of the stream {stream} are gone: it is deleted, and made again");
        jetstream::api(line, &format!("STREAM.DELETE.{stream}"), &Value::Null).await?;
    }
    Ok(())
}

/// Refuses a server that can't carry the bus.
pub fn check_server(info: &ServerInfo) -> Result<(), Refusal> {
    if version(&info.version).is_none_or(|version| version < SERVER_VERSION_MIN) {
        return Err(Refusal::TooOld(info.version.clone()));
    }
    if info.max_payload < MAX_PAYLOAD_MIN {
        return Err(Refusal::SmallMessages(info.max_payload));
    }
    if !info.jetstream {
        return Err(Refusal::NoJetStream);
    }
    Ok(())
}

/// The three numbers of a version like `2.10.4-beta.1`.
fn version(text: &str) -> Option<[u64; 3]> {
    let numbers = text.trim_start_matches('v').split(['-', '+']).next()?;
    let mut numbers = numbers.split('.').map(|number| number.parse().ok());
    Some([numbers.next()??, numbers.next()??, numbers.next().unwrap_or(Some(0))?])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(version: &str) -> ServerInfo {
        let max_payload = MAX_PAYLOAD_MIN;
        ServerInfo { version: version.to_owned(), max_payload, jetstream: true, ..ServerInfo::default() }
    }

    #[test]
    fn a_server_is_refused_when_it_is_too_old_too_narrow_or_without_jetstream() {
        for old in ["2.9.1", "2.8.9", "1.10.0", "0.0.0", "", "new"] {
            assert_eq!(check_server(&server(old)), Err(Refusal::TooOld(old.to_owned())));
        }
        for new in ["2.9.2", "2.9.10", "2.10.0", "v2.15.0", "2.11.0-preview.1", "3.0"] {
            assert_eq!(check_server(&server(new)), Ok(()), "{new}");
        }
        let narrow = ServerInfo { max_payload: MAX_PAYLOAD_MIN - 1, ..server("2.10.0") };
        assert_eq!(check_server(&narrow), Err(Refusal::SmallMessages(MAX_PAYLOAD_MIN - 1)));
        let plain = ServerInfo { jetstream: false, ..server("2.10.0") };
        assert_eq!(check_server(&plain), Err(Refusal::NoJetStream));
    }
}
