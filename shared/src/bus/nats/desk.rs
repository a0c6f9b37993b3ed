//! Which pulls are out, and whose the offers are that come in. It knows no server: what it is told by [`super::pulls`]
//! it books, and for each message it says what shall become of it.
//!
//! A pull is either a fetch, which is answered at once, or it stands at an empty lane until an offer comes or it expires.
//! At most one of either is out for a lane. A lane where a pull stands is known to be empty, so it is fetched from no
//! more, and takes that follow each other closely don't pile pulls up.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::{Message, StatusCode};
use tokio::sync::Notify;

use super::subjects::{self, ConsumerNews, LaneName};
use crate::clock;

/// How long a pull stands.
pub const STAND_FOR: Duration = Duration::from_secs(5);
/// After that a pull whose end wasn't told counts as ended as well.
const STAND_SLACK: Duration = Duration::from_millis(500);
/// How long a lane is left alone whose consumer refused a pull.
const REST_FOR: Duration = Duration::from_millis(250);
/// How long the list of lanes is believed. News come by themselves; this is for those that were missed.
const LANES_FOR: Duration = Duration::from_secs(10);
/// What a status says when a consumer was deleted under a pull.
const CONSUMER_DELETED: &str = "Consumer Deleted";

/// See the module.
pub struct Desk {
    state: Mutex<State>,
    /// Told when the taker has reason to look again.
    pub news: Notify,
}

#[derive(Default)]
struct State {
    /// The lanes that have a consumer.
    lanes: HashSet<LaneName>,
    /// Until when that is believed.
    lanes_until: Option<Instant>,
    /// The lanes that came while they were listed.
    lanes_meanwhile: Option<HashSet<LaneName>>,
    fetches: HashMap<LaneName, Fetch>,
    standing: HashMap<LaneName, Standing>,
    taker: Option<Taker>,
    last: PullNumber,
}

/// Tells a lane's pulls apart.
type PullNumber = u64;

struct Fetch {
    number: PullNumber,
    /// How many offers it may still bring.
    left: usize,
}

struct Standing {
    number: PullNumber,
    until: Instant,
}

/// Who takes offers now.
struct Taker {
    lanes: HashSet<LaneName>,
    most: usize,
    arrived: Vec<(LaneName, Message)>,
}

/// What shall become of a message.
pub enum Verdict {
    /// It is booked.
    Kept,
    /// It is an offer that nobody wants now.
    GiveBack(Message),
    /// It is on one of the offers' subjects and no offer.
    Discard(Message),
}

impl Default for Desk {
    fn default() -> Self {
        Self { state: Mutex::default(), news: Notify::new() }
    }
}

impl Desk {
    /// Seats who takes offers from now on. There is one at a time.
    pub fn seat(&self, lanes: &[LaneName], most: usize) {
        self.held().taker = Some(Taker { lanes: lanes.iter().cloned().collect(), most, arrived: Vec::new() });
    }

    /// Ends the taking; what has arrived for it.
    pub fn leave(&self) -> Vec<(LaneName, Message)> {
        let mut state = self.held();
        state.fetches.clear();
        state.taker.take().map(|taker| taker.arrived).unwrap_or_default()
    }

    /// How many offers have arrived for the taker.
    pub fn arrived(&self) -> usize {
        self.held().taker.as_ref().map_or(0, |taker| taker.arrived.len())
    }

    /// Whether a fetch is out.
    pub fn is_fetching(&self) -> bool {
        !self.held().fetches.is_empty()
    }

    /// Gives up the fetches that are out: their consumers don't answer. They are no lanes until they are found again.
    pub fn abandon_fetches(&self) {
        let mut state = self.held();
        for (lane, _) in std::mem::take(&mut state.fetches) {
            state.lanes.remove(&lane);
        }
        state.lanes_until = None;
    }

    /// Those of `lanes` that have a consumer and no pull of ours.
    pub fn unattended(&self, lanes: &[LaneName]) -> Vec<LaneName> {
        let (mut state, now) = (self.held(), clock::instant());
        state.standing.retain(|_, standing| standing.until > now);
        let free = |lane: &&LaneName| {
            state.lanes.contains(*lane) && !state.standing.contains_key(*lane) && !state.fetches.contains_key(*lane)
        };
        lanes.iter().filter(free).cloned().collect()
    }

    /// Books a fetch of `most` offers.
    pub fn fetch(&self, lane: &LaneName, most: usize) -> PullNumber {
        let mut state = self.held();
        state.last += 1;
        let number = state.last;
        state.fetches.insert(lane.clone(), Fetch { number, left: most });
        number
    }

    /// Books a pull that stands.
    pub fn stand(&self, lane: &LaneName) -> PullNumber {
        let mut state = self.held();
        state.last += 1;
        let number = state.last;
        state.standing.insert(lane.clone(), Standing { number, until: clock::instant() + STAND_FOR + STAND_SLACK });
        number
    }

    /// Whether it isn't known which lanes have a consumer. Who asks for them then tells [`Desk::listed`].
    pub fn begin_listing(&self) -> bool {
        let mut state = self.held();
        if state.lanes_until.is_some_and(|until| until > clock::instant()) {
            return false;
        }
        state.lanes_meanwhile = Some(HashSet::new());
        true
    }

    /// Ends what [`Desk::begin_listing`] began.
    pub fn listed(&self, lanes: HashSet<LaneName>) {
        let mut state = self.held();
        state.lanes = lanes;
        let meanwhile = state.lanes_meanwhile.take().unwrap_or_default();
        state.lanes.extend(meanwhile);
        state.lanes_until = Some(clock::instant() + LANES_FOR);
    }

    /// The connection has changed: no pull of ours is out any more.
    pub fn reset(&self) {
        let mut state = self.held();
        state.fetches.clear();
        state.standing.clear();
        state.lanes_until = None;
        drop(state);
        self.news.notify_one();
    }

    /// Books news of a consumer.
    pub fn hear(&self, news: ConsumerNews) {
        let mut state = self.held();
        match news {
            ConsumerNews::Made(lane) => {
                // Pulls at one of that name that went before are gone with it.
                state.standing.remove(&lane);
                if let Some(meanwhile) = &mut state.lanes_meanwhile {
                    meanwhile.insert(lane.clone());
                }
                state.lanes.insert(lane);
            }
            ConsumerNews::Gone(lane) => state.forget(&lane),
        }
        drop(state);
        self.news.notify_one();
    }

    /// Books what came for the pull `pull` of `lane`, which is how its reply subject ends.
    pub fn status(&self, lane: &LaneName, pull: PullNumber, message: &Message) {
        let mut state = self.held();
        if state.fetches.get(lane).is_some_and(|fetch| fetch.number == pull) {
            state.fetches.remove(lane);
        }
        let stood = state.standing.get(lane).is_some_and(|standing| standing.number == pull);
        if stood {
            state.standing.remove(lane);
        }
        match message.status {
            // Nothing there, or it has stood long enough.
            Some(StatusCode::NOT_FOUND | StatusCode::TIMEOUT) => {}
            Some(StatusCode::NO_RESPONDERS) => state.forget(lane),
            _ if message.description.as_deref() == Some(CONSUMER_DELETED) => state.forget(lane),
            _ => {
                tracing::debug!(lane = lane.as_str(), status = ?message.status, "a pull was refused");
                let until = clock::instant() + REST_FOR;
                state.standing.insert(lane.clone(), Standing { number: 0, until });
            }
        }
        drop(state);
        self.news.notify_one();
    }

    /// Books an offer.
    pub fn offer(&self, message: Message) -> Verdict {
        let Some(lane) = subjects::lane_on(&message.subject) else { return Verdict::Discard(message) };
        let mut state = self.held();
        let fetched = state.fetches.get_mut(&lane).map(|fetch| {
            fetch.left = fetch.left.saturating_sub(1);
            fetch.left
        });
        match fetched {
            Some(0) => drop(state.fetches.remove(&lane)),
            Some(_) => {}
            None => drop(state.standing.remove(&lane)),
        }
        // Fetches may bring more than is wanted: the taker chooses among them by their lanes.
        let wanted =
            |taker: &&mut Taker| taker.lanes.contains(&lane) && (fetched.is_some() || taker.arrived.len() < taker.most);
        let Some(taker) = state.taker.as_mut().filter(wanted) else { return Verdict::GiveBack(message) };
        taker.arrived.push((lane, message));
        drop(state);
        self.news.notify_one();
        Verdict::Kept
    }

    fn held(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The lane has no consumer any more.
    fn forget(&mut self, lane: &LaneName) {
        self.lanes.remove(lane);
        self.fetches.remove(lane);
        self.standing.remove(lane);
    }
}
