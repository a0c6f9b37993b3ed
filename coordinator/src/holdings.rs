//! What this coordinator owns, as every part of the process sees it: which shards at which epoch, for how long, what time
//! it is by the database's clock, and where the other shards' owners are.
//!
//! [`crate::shards`] alone changes it. Everybody else asks it before speaking for a shard: a lease that has lapsed by this
//! process's own monotonic clock, counted from when the last renewal that succeeded was *sent*, owns nothing, whatever
//! the database says by then. Reading takes no lock that others wait for.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Instant;

use tokio::sync::watch;

use shared::clock;
use shared::id::{CoordinatorId, Epoch, Shard};
use shared::time::Time;

use crate::store::Cluster;

/// A lease that doesn't end: the embedded store's, whose lock on the data directory is the lease.
const FOREVER: u64 = u64::MAX;
/// Marks the epoch of a shard that is being given away: it is still ours, and takes nothing new.
const CLOSED: u64 = 1 << 63;

/// See the module.
pub struct Holdings {
    /// The epoch at which each shard is owned; 0 where it isn't.
    epochs: Vec<AtomicU64>,
    owned: RwLock<Arc<[Shard]>>,
    /// When the lease lapses, in microseconds after `base`.
    ends: AtomicU64,
    /// How often it has lapsed.
    lapses: AtomicU64,
    /// What the database's clock is ahead of ours, where ours is microseconds after `base`.
    ahead: AtomicI64,
    /// The latest time that was told: it never goes back.
    told: AtomicI64,
    base: Instant,
    id: watch::Sender<CoordinatorId>,
    /// Held while the id or its lease changes.
    renaming: Mutex<()>,
    owners: watch::Sender<Arc<Owners>>,
}

/// Where the owners of the shards are, as the last look at the store has shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Owners {
    /// The address of each shard's owner, by the shard's number; none where it has no living owner.
    pub addresses: Vec<Option<Arc<str>>>,
}

/// Where a command for a shard goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Route {
    /// It is ours.
    Here,
    /// To the coordinator that is reached there.
    To(Arc<str>),
    /// Nobody owns it at the moment.
    Nowhere,
}

impl Holdings {
    /// Nothing is owned yet; `id` is what the coordinator writes under.
    pub fn new(id: CoordinatorId) -> Self {
        let base = clock::instant();
        Self {
            epochs: Shard::all().map(|_| AtomicU64::new(0)).collect(),
            owned: RwLock::new(Arc::from([])),
            ends: AtomicU64::new(0),
            lapses: AtomicU64::new(0),
            ahead: AtomicI64::new(clock::now().micros()),
            told: AtomicI64::new(0),
            base,
            id: watch::Sender::new(id),
            renaming: Mutex::new(()),
            owners: watch::Sender::default(),
        }
    }

    /// The id under which this coordinator writes at the moment.
    pub fn id(&self) -> CoordinatorId {
        *self.id.borrow()
    }

    /// The epoch at which the shard is owned; none where it isn't, or where the lease has lapsed.
    pub fn epoch(&self, shard: Shard) -> Option<Epoch> {
        let epoch = self.epochs.get(usize::from(shard.number()))?.load(Ordering::Acquire);
        (epoch > 0 && epoch & CLOSED == 0 && self.is_alive()).then_some(Epoch(epoch))
    }

    /// Whether the shard is owned at that epoch, whether or not the lease has lapsed: as far as is known here.
    pub fn owns(&self, shard: Shard, epoch: Epoch) -> bool {
        self.epochs
            .get(usize::from(shard.number()))
            .is_some_and(|known| known.load(Ordering::Acquire) & !CLOSED == epoch.0)
    }

    /// Whether the lease runs.
    pub fn is_alive(&self) -> bool {
        self.micros() < self.ends.load(Ordering::Acquire)
    }

    /// How often the lease had lapsed when it was renewed.
    pub fn lapses(&self) -> u64 {
        self.lapses.load(Ordering::Acquire)
    }

    /// Every shard that is owned, whether or not the lease has lapsed, in order.
    pub fn shards(&self) -> Arc<[Shard]> {
        Arc::clone(&self.owned.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The database's clock, as far as the last renewal lets us know it. It never goes back.
    pub fn now(&self) -> Time {
        let ours = i64::try_from(self.micros()).unwrap_or(i64::MAX);
        let now = self.ahead.load(Ordering::Acquire).saturating_add(ours);
        Time::from_micros(self.told.fetch_max(now, Ordering::AcqRel).max(now))
    }

    /// Where a command for the shard goes.
    pub fn route(&self, shard: Shard) -> Route {
        if self.epoch(shard).is_some() {
            return Route::Here;
        }
        let owners = self.owners.borrow();
        match owners.addresses.get(usize::from(shard.number())) {
            Some(Some(address)) => Route::To(Arc::clone(address)),
            Some(None) | None => Route::Nowhere,
        }
    }

    /// The changes of [`Holdings::route`] from now on.
    pub fn owners(&self) -> watch::Receiver<Arc<Owners>> {
        self.owners.subscribe()
    }

    /// The shard is ours from now on, at that epoch.
    pub(crate) fn gain(&self, gained: &[(Shard, Epoch)]) {
        for (shard, epoch) in gained {
            self.set(*shard, epoch.0);
        }
        self.list();
    }

    /// These are being given away: they are still ours, and take nothing new.
    pub(crate) fn close(&self, shards: &[Shard]) {
        for place in shards.iter().filter_map(|shard| self.epochs.get(usize::from(shard.number()))) {
            place.fetch_or(CLOSED, Ordering::AcqRel);
        }
    }

    /// These are not ours any more.
    pub(crate) fn lose(&self, lost: &[Shard]) {
        for shard in lost {
            self.set(*shard, 0);
        }
        self.list();
    }

    /// The lease of `id` was renewed: the request for it was sent at `sent`, the answer came at `heard` and tells the time
    /// by the database's clock. It lapses its TTL after it was sent, or never. One of an id that isn't ours any more
    /// changes nothing.
    pub(crate) fn renewed(&self, id: CoordinatorId, sent: Instant, heard: Instant, cluster: &Cluster) {
        let _renaming = self.renaming.lock().unwrap_or_else(PoisonError::into_inner);
        if id != self.id() {
            return;
        }
        let Cluster { now, ttl, .. } = cluster;
        if !self.is_alive() && self.lapses.fetch_add(1, Ordering::AcqRel) == 0 {
            // What was told before the first renewal was our own clock's.
            self.told.store(i64::MIN, Ordering::Release);
        }
        self.ends.store(ttl.map_or(FOREVER, |ttl| self.at(sent + ttl)), Ordering::Release);
        // The database looked at its clock somewhere between the two; the middle errs the least.
        let middle = self.at(sent).midpoint(self.at(heard));
        self.ahead.store(now.micros().saturating_sub(i64::try_from(middle).unwrap_or(i64::MAX)), Ordering::Release);
    }

    /// The coordinator writes under that id from now on. Its lease begins with the next renewal.
    pub(crate) fn rename(&self, id: CoordinatorId) {
        let _renaming = self.renaming.lock().unwrap_or_else(PoisonError::into_inner);
        self.lapse();
        self.id.send_replace(id);
    }

    /// The lease ends here and now, until the next renewal.
    pub(crate) fn lapse(&self) {
        self.ends.store(0, Ordering::Release);
    }

    /// Where the owners are.
    pub(crate) fn look(&self, owners: Owners) {
        self.owners.send_if_modified(|known| {
            let changed = **known != owners;
            if changed {
                *known = Arc::new(owners);
            }
            changed
        });
    }

    fn set(&self, shard: Shard, epoch: u64) {
        if let Some(place) = self.epochs.get(usize::from(shard.number())) {
            place.store(epoch, Ordering::Release);
        }
    }

    fn list(&self) {
        let is_owned = |shard: &Shard| {
            self.epochs.get(usize::from(shard.number())).is_some_and(|epoch| epoch.load(Ordering::Acquire) > 0)
        };
        *self.owned.write().unwrap_or_else(PoisonError::into_inner) = Shard::all().filter(is_owned).collect();
    }

    fn micros(&self) -> u64 {
        self.at(clock::instant())
    }

    fn at(&self, instant: Instant) -> u64 {
        u64::try_from(instant.saturating_duration_since(self.base).as_micros()).unwrap_or(FOREVER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TTL: Duration = Duration::from_secs(3);

    fn holdings() -> Holdings {
        Holdings::new(CoordinatorId(clock::random_uuid()))
    }

    fn renew(holdings: &Holdings, sent: Instant, micros: i64, ttl: Option<Duration>) {
        let cluster =
            Cluster { now: Time::from_micros(micros), ttl, members: Vec::new(), shards: Vec::new(), written: 1 };
        holdings.renewed(holdings.id(), sent, sent, &cluster);
    }

    fn shard(number: u16) -> Shard {
        Shard::new(number).unwrap()
    }

    #[test]
    fn a_shard_is_owned_only_while_the_lease_runs_from_when_its_renewal_was_sent() {
        let holdings = holdings();
        holdings.gain(&[(shard(7), Epoch(3))]);
        assert_eq!(holdings.epoch(shard(7)), None, "before the first renewal");
        let now = clock::instant();
        renew(&holdings, now, 1, Some(TTL));
        assert_eq!(holdings.epoch(shard(7)), Some(Epoch(3)));
        assert_eq!(holdings.epoch(shard(8)), None);
        // The answer came in time, but it was asked for too long ago.
        let holdings = self::holdings();
        holdings.gain(&[(shard(7), Epoch(3))]);
        renew(&holdings, holdings.base, 1, Some(Duration::ZERO));
        assert_eq!(holdings.epoch(shard(7)), None);
        assert_eq!(&*holdings.shards(), [shard(7)]);
    }

    #[test]
    fn the_clock_is_the_databases_and_never_goes_back() {
        let holdings = holdings();
        assert!(holdings.now() > Time::from_micros(6_000_000), "our own, before the database has told its own");
        let now = clock::instant();
        renew(&holdings, now, 5_000_000, None);
        let told = holdings.now();
        assert!((5_000_000..6_000_000).contains(&told.micros()), "{told:?}");
        renew(&holdings, now, 1_000_000, None);
        assert!(holdings.now() >= told);
    }

    #[test]
    fn a_command_goes_to_the_owner_and_nowhere_without_one() {
        let holdings = holdings();
        let now = clock::instant();
        renew(&holdings, now, 0, None);
        assert_eq!(holdings.route(shard(1)), Route::Nowhere);
        let address: Arc<str> = "http://10.0.0.2:7070".into();
        let addresses = vec![None, Some(Arc::clone(&address))];
        holdings.look(Owners { addresses });
        assert_eq!(holdings.route(shard(1)), Route::To(address));
        assert_eq!(holdings.route(shard(0)), Route::Nowhere);
        holdings.gain(&[(shard(1), Epoch(2))]);
        assert_eq!(holdings.route(shard(1)), Route::Here);
        holdings.close(&[shard(1)]);
        assert!(matches!(holdings.route(shard(1)), Route::To(_)), "it takes nothing new");
        assert!(holdings.owns(shard(1), Epoch(2)), "what is committed is still published");
        holdings.lose(&[shard(1)]);
        assert!(!holdings.owns(shard(1), Epoch(2)));
        assert!(matches!(holdings.route(shard(1)), Route::To(_)));
    }
}
