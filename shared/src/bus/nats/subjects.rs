//! Every name on NATS: subjects, streams and consumers. None is written anywhere else; what comes from outside is parsed
//! here, and what doesn't parse isn't ours.

use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::bus::{Address, Service};
use crate::id::{JobId, Shard, WorkerId};
use crate::job::{Event, Offer};
use crate::spec::Priority;
use crate::wire::Lane;

/// The stream of offers, and what it takes in.
pub const OFFERS: &str = "WINDLASS_OFFERS";
pub const OFFER_SUBJECTS: &str = "windlass.offer.>";
/// The stream of events, and what it takes in.
pub const EVENTS: &str = "WINDLASS_EVENTS";
pub const EVENT_SUBJECTS: &str = "windlass.event.>";
/// Something has changed.
pub const HINT: &str = "windlass.hint";

const ENROL: &str = "windlass.worker.enrol";
const HELLOS: &str = "windlass.worker.*.hello";
/// Those who serve any coordinator's services share the requests under this name.
const COORDINATORS: &str = "coordinators";
/// The server tells on these that a consumer of the offers' stream was made or deleted; the last token is its name.
const CONSUMER_MADE: &str = "$JS.EVENT.ADVISORY.CONSUMER.CREATED.WINDLASS_OFFERS.";
const CONSUMER_GONE: &str = "$JS.EVENT.ADVISORY.CONSUMER.DELETED.WINDLASS_OFFERS.";
/// Both of them.
pub const CONSUMER_NEWS: &str = "$JS.EVENT.ADVISORY.CONSUMER.*.WINDLASS_OFFERS.*";
/// Bytes of a tag set's digest that its token shows: as improbable to be shared by two as a UUID.
const TAG_SET_BYTES: usize = 16;

/// A lane's durable consumer: the token of its tag set and its priority, as `TOKEN-PRIORITY`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneName(String);

impl LaneName {
    /// The consumer's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The subjects of the lane's offers.
    pub fn subjects(&self) -> String {
        format!("windlass.offer.{}.>", self.0.replace('-', "."))
    }

    /// The one of a tag set's token.
    pub fn new(token: &str, priority: Priority) -> Self {
        Self(format!("{token}-{}", priority.name()))
    }
}

impl FromStr for LaneName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (token, priority) = name.split_once('-').ok_or(())?;
        let hex = token.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let known = hex && token.len() == 2 * TAG_SET_BYTES && Priority::from_str(priority).is_ok();
        known.then(|| Self(name.to_owned())).ok_or(())
    }
}

impl From<&Lane> for LaneName {
    fn from(lane: &Lane) -> Self {
        Self::new(&tag_set(&lane.tags), lane.priority)
    }
}

/// The token of a tag set, whatever order its tags stand in.
pub fn tag_set(tags: &[String]) -> String {
    let mut sorted: Vec<&str> = tags.iter().map(String::as_str).collect();
    sorted.sort_unstable();
    sorted.dedup();
    let mut digest = Sha256::new();
    for tag in sorted {
        // A tag holds no line break, so two sets never read alike.
        digest.update(tag);
        digest.update(b"\n");
    }
    let shown =
        digest.finalize().into_iter().take(TAG_SET_BYTES).fold(0, |sum: u128, byte| sum << 8 | u128::from(byte));
    format!("{shown:032x}")
}

/// Where requests to `address` go.
pub fn of(address: &Address) -> String {
    match address {
        Address::Enrol => ENROL.to_owned(),
        Address::Hello(worker) => format!("windlass.worker.{worker}.hello"),
        Address::Report(shard, worker) => format!("windlass.shard.{shard}.report.{worker}"),
        Address::Heartbeat(shard, worker) => format!("windlass.shard.{shard}.heartbeat.{worker}"),
        Address::Log(shard, worker) => format!("windlass.shard.{shard}.log.{worker}"),
        Address::Key(shard, worker) => format!("windlass.shard.{shard}.key.{worker}"),
        Address::Control(worker) => format!("windlass.worker.{worker}.control"),
    }
}

/// What who serves `service` listens to, and the group with which it shares the requests, if it does.
pub fn served(service: Service) -> (String, Option<&'static str>) {
    match service {
        Service::Enrol => (ENROL.to_owned(), Some(COORDINATORS)),
        Service::Hello => (HELLOS.to_owned(), Some(COORDINATORS)),
        Service::Shard(shard) => (format!("windlass.shard.{shard}.*.*"), None),
        Service::Worker(worker) => (format!("windlass.worker.{worker}.control"), None),
    }
}

/// The address that a request came to, or none where the subject isn't one of ours.
pub fn address(subject: &str) -> Option<Address> {
    let mut tokens = subject.strip_prefix("windlass.")?.split('.');
    let address = match (tokens.next()?, tokens.next()?, tokens.next(), tokens.next()) {
        ("worker", "enrol", None, None) => Address::Enrol,
        ("worker", worker, Some("hello"), None) => Address::Hello(id(worker)?),
        ("worker", worker, Some("control"), None) => Address::Control(id(worker)?),
        ("shard", shard, Some("report"), Some(worker)) => Address::Report(number(shard)?, id(worker)?),
        ("shard", shard, Some("heartbeat"), Some(worker)) => Address::Heartbeat(number(shard)?, id(worker)?),
        ("shard", shard, Some("log"), Some(worker)) => Address::Log(number(shard)?, id(worker)?),
        ("shard", shard, Some("key"), Some(worker)) => Address::Key(number(shard)?, id(worker)?),
        _ => return None,
    };
    // Only the one way to write an address counts, so that a subject that NATS lets somebody use is also what we read.
    (of(&address) == subject).then_some(address)
}

fn id(token: &str) -> Option<WorkerId> {
    token.parse().ok()
}

fn number(token: &str) -> Option<Shard> {
    Shard::new(token.parse().ok()?)
}

/// Where an offer goes: a subject that no other attempt's offer has.
pub fn offer(offer: &Offer) -> String {
    let (tags, priority) = (tag_set(&offer.tags), offer.priority.name());
    format!("windlass.offer.{tags}.{priority}.{}.{}", offer.job, offer.attempt)
}

/// The lane of an offer.
pub fn lane_of(offer: &Offer) -> LaneName {
    LaneName::new(&tag_set(&offer.tags), offer.priority)
}

/// The lane whose offer came on `subject`.
pub fn lane_on(subject: &str) -> Option<LaneName> {
    let mut tokens = subject.strip_prefix("windlass.offer.")?.split('.');
    let (token, priority) = (tokens.next()?, Priority::from_str(tokens.next()?).ok()?);
    let _: JobId = tokens.next()?.parse().ok()?;
    let _: u32 = tokens.next()?.parse().ok()?;
    let lane = LaneName::new(token, priority).0.parse().ok()?;
    tokens.next().is_none().then_some(lane)
}

/// Where an event goes.
pub fn event(event: &Event) -> String {
    format!("windlass.event.{}.{}", event.job, event.kind.name())
}

/// What happened to a lane's consumer.
pub enum ConsumerNews {
    Made(LaneName),
    Gone(LaneName),
}

/// The news that came on `subject`, or none where it is about a consumer that isn't ours.
pub fn consumer_news(subject: &str) -> Option<ConsumerNews> {
    let made = subject.strip_prefix(CONSUMER_MADE).and_then(|name| name.parse().ok()).map(ConsumerNews::Made);
    made.or_else(|| subject.strip_prefix(CONSUMER_GONE)?.parse().ok().map(ConsumerNews::Gone))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::id::Attempt;
    use crate::time::Time;

    fn worker() -> WorkerId {
        WorkerId(clock::random_uuid())
    }

    #[test]
    fn every_address_is_read_back_from_its_subject() {
        let (shard, worker) = (Shard::new(255).unwrap(), worker());
        for address in [
            Address::Enrol,
            Address::Hello(worker),
            Address::Control(worker),
            Address::Report(shard, worker),
            Address::Heartbeat(shard, worker),
            Address::Log(shard, worker),
            Address::Key(shard, worker),
        ] {
            assert_eq!(super::address(&of(&address)), Some(address));
        }
    }

    #[test]
    fn what_is_no_address_is_not_taken_for_one() {
        let worker = worker();
        for subject in [
            String::new(),
            "windlass".to_owned(),
            "windlass.worker".to_owned(),
            format!("windlass.worker.{worker}"),
            format!("windlass.worker.{worker}.hello.more"),
            "windlass.worker.someone.hello".to_owned(),
            format!("windlass.worker.{}.hello", worker.to_string().to_uppercase()),
            format!("windlass.worker.{}.hello", worker.0.simple()),
            format!("windlass.shard.256.report.{worker}"),
            format!("windlass.shard.-1.report.{worker}"),
            format!("windlass.shard.01.report.{worker}"),
            format!("windlass.shard.1.gossip.{worker}"),
            format!("other.shard.1.report.{worker}"),
        ] {
            assert_eq!(address(&subject), None, "{subject}");
        }
    }

    #[test]
    fn a_lane_has_one_name_whatever_order_its_tags_stand_in() {
        let tags = |tags: &[&str]| tags.iter().map(|tag| (*tag).to_owned()).collect::<Vec<_>>();
        assert_eq!(tag_set(&tags(&["b", "a", "a"])), tag_set(&tags(&["a", "b"])));
        assert_ne!(tag_set(&tags(&["ab"])), tag_set(&tags(&["a", "b"])));
        assert_ne!(tag_set(&tags(&[])), tag_set(&tags(&[""])));
    }

    #[test]
    fn an_offers_lane_is_read_back_from_its_subject() {
        let job = JobId::mint(Shard::new(3).unwrap(), Time::from_micros(0), clock::random());
        let offer = Offer {
            job,
            attempt: Attempt(7),
            tags: vec!["linux".to_owned()],
            priority: Priority::High,
            has_secrets: false,
        };
        let subject = super::offer(&offer);
        assert_eq!(lane_on(&subject), Some(lane_of(&offer)));
        assert!(subject.starts_with(lane_of(&offer).subjects().trim_end_matches('>')));
        for other in [format!("{subject}.1"), subject.replace("high", "hi"), subject.replace(".7", ".x")] {
            assert_eq!(lane_on(&other), None, "{other}");
        }
    }
}
