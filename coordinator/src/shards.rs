//! Who owns which shards, seen from one coordinator: it renews this one's lease, spreads the shards over the living
//! ones, takes over what a dead one leaves, gives away what others are to have, and comes back after a loss. Nobody else
//! changes [`Holdings`].
//!
//! The states of a shard here, and who moves them:
//!
//! | from | to | when |
//! |---|---|---|
//! | not ours | ours | the store says that we own it (taken over, or given to us): its numbers and live jobs are read in a transaction begun after that was committed, then every part is told ([`Keeper::enter`]) |
//! | ours | given away | another is to have it: no more is taken, what is under way ends, what is committed is published, then the new owner and epoch are written ([`Keeper::give`]) |
//! | ours | lost | the store says that another owns it, or that our row is gone: every part drops it at once ([`Keeper::drop_shards`]) |
//! | ours | silent | the lease has lapsed by our own clock: nothing is said for it until a renewal succeeds |
//! | ours | ours, anew | a commit's answer was lost: the shards are taken over from ourselves under a new id ([`Keeper::recover`]) |
//!
//! A failure at any point leaves the store as the truth: a shard that the store gives us and that isn't entered is
//! entered at the next look; one whose giver died is taken over when its lease has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::Addr;
use tokio::runtime::Handle;
use tokio::sync::{Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use shared::bus::{Bus, Hint};
use shared::clock;
use shared::id::{CoordinatorId, Shard};
use shared::job::Job;

use crate::committer::{Commits, Trouble};
use crate::fault;
use crate::holdings::{Holdings, Owners};
use crate::intake::Intake;
use crate::key_watch::KeyWatch;
use crate::publisher::{self, Publisher};
use crate::registry::Jobs;
use crate::store::{Cluster, Error, LEASE_TTL, Member, OwnedShard, Store};
use crate::timekeeper::{ReadAgain, Timekeeper};

pub mod formats;
mod plan;
mod renewal;

use plan::{Plan, plan};
use renewal::Renewal;

/// Between two tries to take the shards over from ourselves.
const RECOVERY_RETRY: Duration = Duration::from_millis(250);
/// How often an outage is said while it lasts.
const COMPLAIN_EVERY: Duration = Duration::from_secs(5);
/// How long commands under way may take, and then the publication of what they committed, when a shard is given away.
const GIVE_WITHIN: Duration = Duration::from_secs(1);
const GIVE_LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long leaving the cluster may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// How long our own renewals must have succeeded before others are buried: after an outage of the store all have lapsed,
/// and each gets the time to come back.
const STEADY: Duration = LEASE_TTL;
/// How many shards are entered together: what one of them holds can't keep the others out.
const ENTERED_MAX: usize = 64;
/// The most live jobs that one reading brings.
const LIVE_MAX: u32 = 500;

/// What shards are kept with.
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub bus: Arc<dyn Bus>,
    pub holdings: Arc<Holdings>,
    pub commits: Commits,
    pub publisher: Addr<Publisher>,
    pub timekeeper: Addr<Timekeeper>,
    pub jobs: Jobs,
    pub intake: Arc<Intake>,
    /// Hears of the shards that are gained.
    pub gained: mpsc::Sender<Vec<Shard>>,
    pub keys_watched: Arc<KeyWatch>,
    /// Where the other coordinators reach this one.
    pub address: String,
    /// The number of the format that this program writes.
    pub format: u32,
}

/// The running keeper of the shards.
pub struct Shards {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Shards {
    /// Looks at the cluster once, where this coordinator has just joined, if the store lets it, and then after every renewal.
    pub async fn start(parts: Parts, runtime: &Handle) -> Result<Self, Error> {
        let (store, holdings) = (Arc::clone(&parts.store), Arc::clone(&parts.holdings));
        let soon = Arc::new(Notify::new());
        let mut keeper = Keeper {
            parts,
            soon: Arc::clone(&soon),
            steady_since: None,
            last_sent: None,
            lapses: 0,
            changed_at: clock::instant(),
            silent: true,
            successor: None,
        };
        let first = renewal::renew(&*store, &holdings).await;
        keeper.look(&first).await.or_else(|error| if error.may_pass() { Ok(()) } else { Err(error) })?;
        let (told, renewals) = watch::channel(None);
        let renewing = runtime.spawn(renewal::keep_renewing(store, Arc::clone(&holdings), told, soon));
        let (stop, stopped) = oneshot::channel();
        let kept = runtime.spawn(keeper.keep(renewals, stopped));
        let task = runtime.spawn(async move {
            if let Err(error) = kept.await {
                tracing::error!(%error, "the keeper of the shards died");
            }
            // Nothing is said any more, and `/readyz` tells: after a defect the process must be started again.
            renewing.abort();
            holdings.lapse();
        });
        Ok(Self { stop, task })
    }

    /// Gives everything away and leaves the cluster.
    pub async fn stop(self) {
        let _ = self.stop.send(());
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the keeper of the shards");
        }
    }
}

struct Keeper {
    parts: Parts,
    /// Asks for a renewal before its time.
    soon: Arc<Notify>,
    /// Since when every renewal has succeeded.
    steady_since: Option<Instant>,
    /// When the last one that succeeded was sent.
    last_sent: Option<Instant>,
    /// How often the lease had lapsed at the last look.
    lapses: u64,
    /// When shards last changed hands here: a renewal that was sent before says nothing of that.
    changed_at: Instant,
    /// Whether nobody is served, because the lease has lapsed.
    silent: bool,
    /// Under which name a recovery that isn't over takes the shards over.
    successor: Option<Member>,
}

impl Keeper {
    async fn keep(mut self, mut renewals: watch::Receiver<Option<Renewal>>, mut stopped: oneshot::Receiver<()>) {
        let mut hints = self.parts.bus.hints();
        let mut trouble = self.parts.commits.trouble();
        let (mut retry, mut complained): (bool, Option<Instant>) = (false, None);
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                () = tokio::time::sleep(RECOVERY_RETRY), if retry => {}
                Ok(()) = renewals.changed() => {}
                Ok(()) = trouble.changed() => {}
                () = shards_hinted(&mut hints) => {
                    self.soon.notify_one();
                    continue;
                }
            }
            let found = *trouble.borrow_and_update();
            let looked = match found {
                Some(Trouble::Unknown(id)) if id == self.parts.holdings.id() => self.recover().await,
                // Of an id that we don't have any more: what was in flight under it is settled.
                Some(Trouble::Unknown(id) | Trouble::Fenced(id)) if id != self.parts.holdings.id() => {
                    self.parts.commits.resume().await;
                    Ok(())
                }
                Some(_) => {
                    self.soon.notify_one();
                    self.look_at(&mut renewals).await
                }
                None => self.look_at(&mut renewals).await,
            };
            retry = looked.is_err();
            match looked {
                Ok(()) => complained = None,
                // An outage is said when it begins, and now and then while it lasts.
                Err(error) if complained.is_none_or(|at| clock::instant().duration_since(at) >= COMPLAIN_EVERY) => {
                    tracing::warn!(%error, "looking after the shards");
                    complained = Some(clock::instant());
                }
                Err(error) => tracing::debug!(%error, "looking after the shards"),
            }
        }
        self.leave().await;
    }

    async fn look_at(&mut self, renewals: &mut watch::Receiver<Option<Renewal>>) -> Result<(), Error> {
        let renewal = renewals.borrow_and_update().clone();
        match renewal {
            Some(renewal) => self.look(&renewal).await,
            None => Ok(()),
        }
    }

    /// Brings what is held here to what the store says, then carries out our part of the plan.
    async fn look(&mut self, renewal: &Renewal) -> Result<(), Error> {
        let id = self.parts.holdings.id();
        if renewal.id != id {
            return Ok(());
        }
        let cluster = match &renewal.result {
            Ok(cluster) => Arc::clone(cluster),
            Err(Error::Fenced) => return self.join_anew().await,
            Err(error) => {
                self.fall_silent().await;
                return Err(error.clone());
            }
        };
        if renewal.sent < self.changed_at {
            // It was asked for before our last change, and may not know of that.
            self.soon.notify_one();
            return Ok(());
        }
        self.renewed(renewal.sent, &cluster);
        let ours = cluster.owned_by(id);
        let held = self.parts.holdings.shards();
        self.drop_shards(held.iter().filter(|shard| !ours.contains(shard)).copied().collect()).await;
        let missing: Vec<Shard> = ours.iter().filter(|shard| !held.contains(shard)).copied().collect();
        let Plan { bury, take, give, raise } = plan(&cluster, id);
        let entered = self.enter([missing, take].concat()).await;
        self.silent = false;
        self.parts.intake.serve_shards(&self.parts.holdings.shards()).await;
        self.bury(&bury).await?;
        for (to, shards) in give {
            self.give(to, shards).await?;
        }
        self.raise_format(raise).await?;
        entered
    }

    /// Takes note of a renewal that succeeded.
    fn renewed(&mut self, sent: Instant, cluster: &Cluster) {
        let holdings = &self.parts.holdings;
        let stood_still = self.last_sent.is_some_and(|last| sent.saturating_duration_since(last) > LEASE_TTL);
        self.last_sent = Some(sent);
        if stood_still {
            self.steady_since = None;
        }
        self.steady_since.get_or_insert(sent);
        if std::mem::replace(&mut self.lapses, holdings.lapses()) != holdings.lapses() {
            tracing::info!("the lease runs");
            // What came due while it didn't was refused.
            self.parts.timekeeper.do_send(ReadAgain);
        }
        let address = |owner: Option<CoordinatorId>| {
            let living = cluster.members.iter().find(|(member, ended)| Some(member.id) == owner && !ended);
            let other = living.filter(|(member, _)| member.id != holdings.id());
            other.map(|(member, _)| Arc::from(member.address.as_str()))
        };
        holdings.look(Owners { addresses: cluster.shards.iter().map(|(_, owner, _)| address(*owner)).collect() });
    }

    /// The store doesn't answer: once the lease has lapsed by our own clock, nothing more is said, and whoever waits for
    /// a commit hears that none comes.
    async fn fall_silent(&mut self) {
        self.steady_since = None;
        self.parts.commits.refuse_waiting().await;
        if !self.silent && !self.parts.holdings.is_alive() {
            tracing::warn!("the lease could not be renewed in time: nothing is said until it is");
            self.silent = true;
            self.parts.intake.fall_silent();
        }
    }

    /// Takes what nobody owns of these shards, reads what we own of them, and tells every part. What fails for some is
    /// tried again with the next look, and keeps the others out of nothing.
    async fn enter(&mut self, shards: Vec<Shard>) -> Result<(), Error> {
        let mut entered = Ok(());
        for shards in shards.chunks(ENTERED_MAX) {
            if let Err(error) = self.enter_some(shards).await {
                tracing::warn!(%error, first = ?shards.first(), "entering shards");
                entered = Err(error);
            }
        }
        entered
    }

    async fn enter_some(&mut self, shards: &[Shard]) -> Result<(), Error> {
        let Parts { store, bus, holdings, commits, publisher, jobs, .. } = &self.parts;
        let owned = store.take_over(holdings.id(), shards).await?;
        fault::point("shards.taken");
        let live = self.live_jobs(&owned.iter().map(|owned| owned.shard).collect::<Vec<_>>()).await?;
        tracing::info!(shards = owned.len(), live = live.len(), "shards are ours");
        // Before anything can be committed, so that no event is missed.
        publisher.do_send(publisher::Gain(owned.clone()));
        commits.gain(&owned).await;
        jobs.adopt(live);
        self.open(&owned);
        bus.hint(Hint::Shards); // Until they look again, the others have nobody to pass commands on to.
        self.changed_at = clock::instant();
        Ok(())
    }

    /// Every job of these shards with a live attempt.
    async fn live_jobs(&self, shards: &[Shard]) -> Result<Vec<Job>, Error> {
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = self.parts.store.live_jobs(shards, after, LIVE_MAX).await?;
            all.extend(page.jobs);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    /// From now on commands for these shards are taken, and what isn't published of them is.
    fn open(&self, owned: &[OwnedShard]) {
        let Parts { holdings, publisher, timekeeper, gained, keys_watched, .. } = &self.parts;
        let shards: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
        holdings.gain(&owned.iter().map(|owned| (owned.shard, owned.epoch)).collect::<Vec<_>>());
        publisher.do_send(publisher::Begin(shards.clone()));
        timekeeper.do_send(ReadAgain);
        keys_watched.look_now();
        if gained.try_send(shards).is_err() {
            tracing::warn!("too many takeovers at once; lost offers are made again in the slow round");
        }
    }

    /// These are somebody else's by now: nothing of ours is said or written for them any more.
    async fn drop_shards(&self, shards: Vec<Shard>) {
        if shards.is_empty() {
            return;
        }
        tracing::warn!(shards = shards.len(), "shards were lost to another coordinator");
        let Parts { holdings, commits, publisher, jobs, intake, .. } = &self.parts;
        holdings.lose(&shards);
        publisher.do_send(publisher::Lose(shards.clone()));
        intake.release(&shards, Duration::ZERO).await;
        jobs.release(&shards, Duration::ZERO).await;
        commits.lose(&shards);
    }

    /// Ends what we do for these shards: what is under way ends first, and what is committed is published.
    async fn let_go(&self, shards: &[Shard]) -> Result<(), Error> {
        let Parts { holdings, commits, publisher, jobs, intake, .. } = &self.parts;
        intake.release(shards, GIVE_WITHIN).await;
        holdings.close(shards);
        jobs.release(shards, GIVE_WITHIN).await;
        commits.release(shards).await;
        if commits.trouble().borrow().is_some() {
            // The last batch may still land: the shards can't be anybody's before that is settled.
            return Err(Error::Unknown("a commit's answer was lost while shards were given away".to_owned()));
        }
        let drain: Arc<[Shard]> = shards.into();
        let published = async {
            while publisher.send(publisher::Drain(Arc::clone(&drain))).await.is_ok_and(|left| left > 0) {
                tokio::time::sleep(GIVE_LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(GIVE_WITHIN, published).await.is_err() {
            tracing::info!("some events are not published yet; their shards' next owner goes on from there");
        }
        holdings.lose(shards);
        publisher.do_send(publisher::Lose(shards.to_vec()));
        Ok(())
    }

    /// Hands shards over to another coordinator.
    async fn give(&mut self, to: CoordinatorId, shards: Vec<Shard>) -> Result<(), Error> {
        tracing::info!(shards = shards.len(), %to, "handing shards over");
        self.let_go(&shards).await?;
        self.changed_at = clock::instant();
        fault::point("shards.let_go");
        match self.parts.store.hand_over(self.parts.holdings.id(), to, &shards).await {
            // It may still land, and until then the shards are nobody's: our old row is deleted before we own any again.
            Err(Error::Unknown(_)) => return self.recover().await,
            handed => handed?,
        }
        self.changed_at = clock::instant();
        self.parts.bus.hint(Hint::Shards);
        Ok(())
    }

    /// Buries coordinators whose lease has ended, once our own has run for long enough.
    async fn bury(&mut self, expired: &[CoordinatorId]) -> Result<(), Error> {
        let steady = self.steady_since.is_some_and(|since| clock::instant().duration_since(since) >= STEADY);
        if expired.is_empty() || !steady {
            return Ok(());
        }
        tracing::warn!(?expired, "coordinators have died: their shards are taken over");
        self.parts.store.bury(self.parts.holdings.id(), expired).await?;
        fault::point("shards.buried");
        self.changed_at = clock::instant();
        // What they had is dealt at once.
        self.soon.notify_one();
        self.parts.bus.hint(Hint::Shards);
        Ok(())
    }

    /// Our row is gone: another has taken our shards over, or will. We begin anew under another id, without any.
    async fn join_anew(&mut self) -> Result<(), Error> {
        tracing::warn!("this coordinator was taken for dead; it goes on under a new id with the shards that it gets");
        self.steady_since = None;
        self.silent = true;
        let Parts { store, holdings, commits, bus, intake, .. } = &self.parts;
        self.drop_shards(holdings.shards().to_vec()).await;
        intake.fall_silent();
        let member = self.member();
        store.join(&member).await?;
        holdings.rename(member.id);
        commits.resume().await;
        bus.hint(Hint::Shards);
        self.changed_at = clock::instant();
        self.soon.notify_one();
        Ok(())
    }

    /// Takes the shards over from ourselves under a new id: that waits for the lost batch or fences it, and only then are
    /// the numbers and the live attempts read. What the lost batch may have committed was announced to nobody: the
    /// publisher, the timekeeper and the registries are told before the next batch begins.
    async fn recover(&mut self) -> Result<(), Error> {
        // A try that fails halfway is gone on with under the same id.
        let fresh = self.member();
        let member = self.successor.get_or_insert(fresh).clone();
        match self.succeed(&member).await {
            Ok(()) => self.successor = None,
            Err(Error::Fenced) => {
                self.successor = None;
                self.join_anew().await?;
            }
            Err(error) => {
                self.fall_silent().await;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn succeed(&mut self, member: &Member) -> Result<(), Error> {
        let Parts { store, holdings, commits, publisher, jobs, .. } = &self.parts;
        if fault::is_lost("shards.recover") {
            return Err(Error::Unavailable("a test wants it so".to_owned()));
        }
        store.succeed(holdings.id(), member).await?;
        let sent = clock::instant();
        let cluster = store.renew(member.id).await?;
        let heard = clock::instant();
        let ours = cluster.owned_by(member.id);
        let owned = store.take_over(member.id, &ours).await?;
        let shards: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
        let live = self.live_jobs(&shards).await?;
        tracing::info!(coordinator = %member.id, shards = shards.len(), "took the shards over after a lost answer");
        let held = holdings.shards();
        holdings.rename(member.id);
        self.drop_shards(held.iter().filter(|shard| !shards.contains(shard)).copied().collect()).await;
        // What was read meanwhile may be from before the lost batch landed.
        jobs.release(&shards, Duration::ZERO).await;
        publisher.do_send(publisher::Gain(owned.clone()));
        commits.gain(&owned).await;
        jobs.adopt(live);
        self.open(&owned);
        commits.resume().await;
        holdings.renewed(member.id, sent, heard, &cluster);
        self.changed_at = clock::instant();
        self.renewed(sent, &cluster);
        self.silent = false;
        self.parts.intake.serve_shards(&shards).await;
        Ok(())
    }

    /// Gives everything away, to whoever takes it, and takes our row out of the cluster.
    async fn leave(&self) {
        let Parts { store, holdings, bus, .. } = &self.parts;
        if let Err(error) = self.let_go(&holdings.shards()).await {
            // Deleting our row settles what that leaves open.
            tracing::warn!(%error, "giving the shards away");
        }
        match tokio::time::timeout(LEAVE_WITHIN, store.leave(holdings.id())).await {
            Ok(Ok(())) => bus.hint(Hint::Shards),
            Ok(Err(error)) => tracing::warn!(%error, "leaving the cluster: the lease ends by itself"),
            Err(_) => tracing::warn!("leaving the cluster takes too long: the lease ends by itself"),
        }
    }

    fn member(&self) -> Member {
        let Parts { address, format, .. } = &self.parts;
        Member { id: CoordinatorId(clock::random_uuid()), address: address.clone(), format: *format }
    }
}

/// Returns when somebody says that shards have changed hands.
async fn shards_hinted(hints: &mut broadcast::Receiver<Hint>) {
    loop {
        match hints.recv().await {
            Ok(Hint::Shards) => return,
            Ok(Hint::Job(_) | Hint::Keys | Hint::Roster) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
