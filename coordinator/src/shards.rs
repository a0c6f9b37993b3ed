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
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::JoinHandle;

use shared::bus::{Bus, Hint};
use shared::clock;
use shared::id::{CoordinatorId, Shard};

use crate::committer::{Commits, Trouble};
use crate::fault;
use crate::holdings::{Holdings, Owners};
use crate::intake::Intake;
use crate::publisher::{self, Publisher};
use crate::registry::Jobs;
use crate::store::{Cluster, Error, LEASE_TTL, Member, OwnedShard, Store};
use crate::timekeeper::{ReadAgain, Timekeeper};

mod plan;

use plan::{Plan, plan};

/// How often the lease is renewed and the cluster is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a renewal may take before it counts as failed: below the TTL.
const RENEW_WITHIN: Duration = Duration::from_secs(2);
/// Between two tries to take the shards over from ourselves.
const RECOVERY_RETRY: Duration = Duration::from_millis(250);
/// How long commands under way may take, and then the publication of what they committed, when a shard is given away.
const GIVE_WITHIN: Duration = Duration::from_secs(1);
const GIVE_LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long our own renewals must have succeeded before others are buried: after an outage of the store all have lapsed,
/// and each gets the time to come back.
const STEADY: Duration = LEASE_TTL;

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
    /// Looks at the cluster once, where this coordinator has just joined, and then every second.
    pub async fn start(parts: Parts, runtime: &Handle) -> Result<Self, Error> {
        let now = clock::instant();
        let mut keeper = Keeper { parts, steady_since: None, lapsed: false, successor: None };
        keeper.look(now).await?;
        let (stop, stopped) = oneshot::channel();
        let holdings = Arc::clone(&keeper.parts.holdings);
        let kept = runtime.spawn(keeper.keep(stopped));
        let task = runtime.spawn(async move {
            if let Err(error) = kept.await {
                // Nothing is said any more, and `/readyz` tells: the process must be started again.
                tracing::error!(%error, "the keeper of the shards died");
                holdings.lapse();
            }
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
    /// Since when every renewal has succeeded.
    steady_since: Option<Instant>,
    /// Whether the lease has lapsed, so that nothing is said.
    lapsed: bool,
    /// Under which name a recovery that isn't over takes the shards over.
    successor: Option<Member>,
}

impl Keeper {
    async fn keep(mut self, mut stopped: oneshot::Receiver<()>) {
        let mut hints = self.parts.bus.hints();
        let mut trouble = self.parts.commits.trouble();
        let mut wait = LOOK_EVERY;
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                () = tokio::time::sleep(wait) => {}
                () = shards_hinted(&mut hints) => {}
                Ok(()) = trouble.changed() => {}
            }
            let found = *trouble.borrow_and_update();
            let looked = match found {
                Some(Trouble::Unknown(id)) if id == self.parts.holdings.id() => self.recover().await,
                // Of an id that we don't have any more: what was in flight under it is settled.
                Some(Trouble::Unknown(id) | Trouble::Fenced(id)) if id != self.parts.holdings.id() => {
                    self.parts.commits.resume().await;
                    Ok(LOOK_EVERY)
                }
                Some(_) | None => self.look(clock::instant()).await,
            };
            wait = looked.unwrap_or_else(|error| {
                tracing::warn!(%error, "looking after the shards");
                RECOVERY_RETRY
            });
        }
        self.leave().await;
    }

    /// Renews the lease and brings what is held here to what the store says, then carries out our part of the plan.
    /// Returns how soon to look again.
    async fn look(&mut self, sent: Instant) -> Result<Duration, Error> {
        let id = self.parts.holdings.id();
        let renewal = tokio::time::timeout(RENEW_WITHIN, self.parts.store.renew(id));
        let renewed = renewal.await.unwrap_or_else(|_| Err(Error::Unavailable("the renewal took too long".to_owned())));
        let cluster = match renewed {
            Ok(cluster) => cluster,
            Err(Error::Fenced) => return self.join_anew().await.map(|()| Duration::ZERO),
            Err(error) => {
                self.steady_since = None;
                self.fall_silent().await;
                return Err(error);
            }
        };
        self.renewed(sent, &cluster);
        let ours = owned_by(&cluster, id);
        let held = self.parts.holdings.shards();
        self.drop_shards(held.iter().filter(|shard| !ours.contains(shard)).copied().collect()).await;
        let missing: Vec<Shard> = ours.iter().filter(|shard| !held.contains(shard)).copied().collect();
        let Plan { bury, take, give } = plan(&cluster, id);
        self.enter([missing, take].concat()).await?;
        self.parts.intake.serve_shards(&self.parts.holdings.shards()).await;
        for (to, shards) in give {
            self.give(to, shards).await?;
        }
        // What the dead had is dealt at once.
        Ok(if self.bury(&bury).await? { Duration::ZERO } else { LOOK_EVERY })
    }

    fn renewed(&mut self, sent: Instant, cluster: &Cluster) {
        let holdings = &self.parts.holdings;
        let heard = clock::instant();
        holdings.renewed(sent, heard, cluster.now, cluster.ttl);
        self.steady_since.get_or_insert(heard);
        if std::mem::take(&mut self.lapsed) {
            tracing::info!("the lease runs again");
        }
        let address = |owner: Option<CoordinatorId>| {
            let living = cluster.members.iter().find(|(member, ended)| Some(member.id) == owner && !ended);
            let other = living.filter(|(member, _)| member.id != holdings.id());
            other.map(|(member, _)| Arc::from(member.address.as_str()))
        };
        holdings.look(Owners { addresses: cluster.shards.iter().map(|(_, owner, _)| address(*owner)).collect() });
    }

    /// Says nothing more once the lease has lapsed by our own clock.
    async fn fall_silent(&mut self) {
        if !self.lapsed && !self.parts.holdings.is_alive() {
            tracing::warn!("the lease could not be renewed in time: nothing is said until it is");
            self.lapsed = true;
            self.parts.intake.serve_shards(&[]).await;
        }
    }

    /// Takes what nobody owns of these shards, reads what we own of them, and tells every part.
    async fn enter(&self, shards: Vec<Shard>) -> Result<(), Error> {
        if shards.is_empty() {
            return Ok(());
        }
        let Parts { store, holdings, commits, publisher, jobs, .. } = &self.parts;
        let owned = store.take_over(holdings.id(), &shards).await?;
        fault::point("shards.taken");
        let shards: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
        let live = store.live_jobs(&shards).await?;
        tracing::info!(shards = shards.len(), live = live.len(), "shards are ours");
        commits.gain(&owned).await;
        publisher.do_send(publisher::Gain(owned.clone()));
        jobs.adopt(live);
        self.open(&owned);
        Ok(())
    }

    /// From now on commands for these shards are taken, and what isn't published of them is.
    fn open(&self, owned: &[OwnedShard]) {
        let Parts { holdings, publisher, timekeeper, gained, .. } = &self.parts;
        let shards: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
        holdings.gain(&owned.iter().map(|owned| (owned.shard, owned.epoch)).collect::<Vec<_>>());
        publisher.do_send(publisher::Begin(shards.clone()));
        timekeeper.do_send(ReadAgain);
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
    async fn let_go(&self, shards: &[Shard]) {
        let Parts { holdings, commits, publisher, jobs, intake, .. } = &self.parts;
        intake.release(shards, GIVE_WITHIN).await;
        holdings.close(shards);
        jobs.release(shards, GIVE_WITHIN).await;
        commits.release(shards).await;
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
    }

    /// Hands shards over to another coordinator.
    async fn give(&self, to: CoordinatorId, shards: Vec<Shard>) -> Result<(), Error> {
        tracing::info!(shards = shards.len(), %to, "handing shards over");
        self.let_go(&shards).await;
        fault::point("shards.let_go");
        self.parts.store.hand_over(self.parts.holdings.id(), to, &shards).await?;
        self.parts.bus.hint(Hint::Shards);
        Ok(())
    }

    /// Buries coordinators whose lease has ended, once our own has run for long enough; whether it did.
    async fn bury(&self, expired: &[CoordinatorId]) -> Result<bool, Error> {
        let steady = self.steady_since.is_some_and(|since| clock::instant().duration_since(since) >= STEADY);
        if expired.is_empty() || !steady {
            return Ok(false);
        }
        tracing::warn!(?expired, "coordinators have died: their shards are taken over");
        self.parts.store.bury(self.parts.holdings.id(), expired).await?;
        fault::point("shards.buried");
        self.parts.bus.hint(Hint::Shards);
        Ok(true)
    }

    /// Our row is gone: another has taken our shards over, or will. We begin anew under another id, without any.
    async fn join_anew(&mut self) -> Result<(), Error> {
        tracing::warn!("this coordinator was taken for dead; it goes on under a new id with the shards that it gets");
        self.steady_since = None;
        self.lapsed = true;
        let Parts { store, holdings, commits, .. } = &self.parts;
        self.drop_shards(holdings.shards().to_vec()).await;
        let member = self.member();
        store.join(&member).await?;
        holdings.rename(member.id);
        commits.resume().await;
        self.parts.bus.hint(Hint::Shards);
        Ok(())
    }

    /// Takes the shards over from ourselves under a new id: that waits for the lost batch or fences it, and only then are
    /// the numbers and the live attempts read. What the lost batch may have committed was announced to nobody: the
    /// publisher, the timekeeper and the registries are told before the next batch begins.
    async fn recover(&mut self) -> Result<Duration, Error> {
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
                self.parts.commits.refuse_waiting().await;
                self.fall_silent().await;
                return Err(error);
            }
        }
        Ok(LOOK_EVERY)
    }

    async fn succeed(&mut self, member: &Member) -> Result<(), Error> {
        let Parts { store, holdings, commits, publisher, jobs, .. } = &self.parts;
        if fault::is_lost("shards.recover") {
            return Err(Error::Unavailable("a test wants it so".to_owned()));
        }
        store.succeed(holdings.id(), member).await?;
        let sent = clock::instant();
        let cluster = store.renew(member.id).await?;
        let ours = owned_by(&cluster, member.id);
        let owned = store.take_over(member.id, &ours).await?;
        let shards: Vec<Shard> = owned.iter().map(|owned| owned.shard).collect();
        let live = store.live_jobs(&shards).await?;
        tracing::info!(coordinator = %member.id, shards = shards.len(), "took the shards over after a lost answer");
        let held = holdings.shards();
        holdings.rename(member.id);
        self.drop_shards(held.iter().filter(|shard| !shards.contains(shard)).copied().collect()).await;
        publisher.do_send(publisher::Gain(owned.clone()));
        jobs.adopt(live);
        self.open(&owned);
        commits.gain(&owned).await;
        commits.resume().await;
        self.renewed(sent, &cluster);
        self.parts.intake.serve_shards(&shards).await;
        Ok(())
    }

    /// Gives everything away, to whoever takes it, and takes our row out of the cluster.
    async fn leave(&self) {
        let Parts { store, holdings, bus, .. } = &self.parts;
        self.let_go(&holdings.shards()).await;
        match tokio::time::timeout(RENEW_WITHIN, store.leave(holdings.id())).await {
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

fn owned_by(cluster: &Cluster, id: CoordinatorId) -> Vec<Shard> {
    let owned = cluster.shards.iter().filter(|(_, owner, _)| *owner == Some(id));
    owned.map(|(shard, ..)| *shard).collect()
}

/// Returns when somebody says that shards have changed hands.
async fn shards_hinted(hints: &mut broadcast::Receiver<Hint>) {
    loop {
        match hints.recv().await {
            Ok(Hint::Shards) => return,
            Ok(Hint::Job(_)) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}
