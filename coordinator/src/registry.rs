//! From a job's id to its supervisor, and the only way to one. There is a registry on each arbiter, for the shards whose
//! number falls to it, so that nothing is shared between their jobs.
//!
//! It starts supervisors on demand, ends those that rest, and starts one afresh when its actor died: actix does not
//! restart an actor whose handler panicked, so the registry looks at the address before each message, and at all of them
//! every second. What the dead one has handed over may not be committed yet, so its successor has to catch up with that
//! first. The registry also holds the leases of its jobs' live attempts.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, ArbiterHandle, AsyncContext, Context, Handler, Message};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use shared::bus::{Bus, Link};
use shared::clock;
use shared::id::{Attempt, Epoch, Instance, JobId, Shard, WorkerId};
use shared::job::{Command, Job, StopOrder};

use crate::fault;
use crate::fresh::Fresh;
use crate::holdings::Holdings;
use crate::leases::{self, LOOK_EVERY, Leases};
use crate::roster::Roster;
use crate::supervisor::{Answers, CatchUp, Error, Held, JobSupervisor, Parts, Pending, Pulse, Rest, Take, Taken};

mod lease;

/// The most commands that are under way in one process.
const COMMANDS_MAX: usize = 16 * 1024;
/// How often is looked whether the supervisors of a shard that is given away are at rest.
const RELEASE_LOOK_EVERY: Duration = Duration::from_millis(5);

/// The way to every job; clones are the same one.
#[derive(Clone)]
pub struct Jobs {
    registries: Vec<Addr<Registry>>,
    permits: Arc<Semaphore>,
    holdings: Arc<Holdings>,
}

/// What a registry knows of the world outside.
#[derive(Clone)]
pub struct Surroundings {
    pub bus: Arc<dyn Bus>,
    pub roster: Arc<Roster>,
}

impl Jobs {
    /// A registry on each of these arbiters.
    pub fn start(arbiters: &[ArbiterHandle], parts: &Parts, surroundings: &Surroundings) -> Self {
        let count = arbiters.len();
        let start = |arbiter| {
            let (parts, surroundings) = (parts.clone(), surroundings.clone());
            Registry::start_in_arbiter(arbiter, move |_| Registry::new(parts, surroundings, Fresh::of(count)))
        };
        let (registries, holdings) = (arbiters.iter().map(start).collect(), Arc::clone(&parts.holdings));
        Self { registries, permits: Arc::new(Semaphore::new(COMMANDS_MAX)), holdings }
    }

    /// Gives a command to a job. It takes its place in the job's mailbox at once, before the answer is awaited.
    ///
    /// # Errors
    /// See [`Error`]; also when the supervisor dies over the command.
    pub fn tell(&self, job: JobId, command: Command) -> impl Future<Output = Result<Taken, Error>> + Send + use<> {
        let told = self.tell_all(job, vec![command]);
        async move { told.await.pop().unwrap_or(Err(Error::Internal)) }
    }

    /// The same for commands that were given together: nothing else comes between them. The answers are in their order.
    pub fn tell_all(&self, job: JobId, commands: Vec<Command>) -> impl Future<Output = Answers> + Send + use<> {
        let (reply, answer) = oneshot::channel();
        let count = commands.len();
        let permits = u32::try_from(count).map(|count| Arc::clone(&self.permits).try_acquire_many_owned(count));
        let sent = match (self.registry(job), permits) {
            _ if self.holdings.epoch(job.shard()).is_none() => Err(Error::Elsewhere),
            (Some(registry), Ok(Ok(permit))) => {
                registry.do_send(Tell { job, commands, reply, permit: Some(permit) });
                Ok(answer)
            }
            (None, _) | (_, Err(_) | Ok(Err(_))) => Err(Error::Busy),
        };
        async move {
            let failed = |error| std::iter::repeat_n(Err(error), count).collect();
            match sent {
                Ok(answer) => answer.await.unwrap_or_else(|_| failed(Error::Internal)),
                Err(error) => failed(error),
            }
        }
    }

    /// Gives the supervisors of jobs with a live attempt their jobs, as a takeover read them: their leases begin.
    pub fn adopt(&self, jobs: Vec<Job>) {
        for job in jobs {
            if let Some(registry) = self.registry(job.id) {
                registry.do_send(Adopt { job: Box::new(job) });
            }
        }
    }

    /// Keeps jobs for a while that were stored since `begun`, when their shards were owned at these epochs, so that the first
    /// command for one needs no reading.
    pub fn remember(&self, jobs: Vec<(Job, Epoch)>, begun: Instant) {
        let mut by_registry: Vec<Vec<(Job, Epoch)>> = vec![Vec::new(); self.registries.len()];
        for (job, epoch) in jobs {
            if let Some(part) = by_registry.get_mut(self.index(job.id)) {
                part.push((job, epoch));
            }
        }
        for (registry, jobs) in self.registries.iter().zip(by_registry) {
            registry.do_send(Remember { jobs, begun });
        }
    }

    /// Lets the supervisors of shards go that aren't ours any more, with their leases. Returns when none of them has a
    /// command under way, or after `within`: from then on none hands anything over. What they have handed over by then the
    /// committer refuses.
    pub async fn release(&self, shards: &[Shard], within: Duration) {
        let mut pulses = Vec::new();
        for registry in &self.registries {
            pulses.extend(registry.send(Release(shards.to_vec(), within)).await.unwrap_or_default());
        }
        let resting = async {
            while pulses.iter().any(|pulse| pulse.is_busy()) {
                tokio::time::sleep(RELEASE_LOOK_EVERY).await;
            }
        };
        if tokio::time::timeout(within, resting).await.is_err() {
            tracing::warn!("some commands were under way when their shards were given away");
        }
        for pulse in pulses {
            pulse.release();
        }
    }

    /// A worker's heartbeat. Returns what should stop.
    pub async fn heard(&self, worker: WorkerId, instance: Instance, attempts: Vec<(JobId, Attempt)>) -> Vec<StopOrder> {
        let mut by_registry: Vec<Vec<(JobId, Attempt)>> = vec![Vec::new(); self.registries.len()];
        for (job, attempt) in attempts {
            if let Some(part) = by_registry.get_mut(self.index(job)) {
                part.push((job, attempt));
            }
        }
        let mut stop = Vec::new();
        for (registry, attempts) in self.registries.iter().zip(by_registry) {
            if attempts.is_empty() {
                continue;
            }
            let Ok((known, unknown)) = registry.send(Beat { worker, instance, attempts }).await else { continue };
            stop.extend(known);
            for (job, attempt) in unknown {
                stop.extend(self.look(worker, instance, job, attempt).await);
            }
        }
        stop
    }

    /// A worker's instance was announced: what another instance of it held is over.
    pub fn announced(&self, worker: WorkerId, instance: Instance) {
        for registry in &self.registries {
            registry.do_send(Announced { worker, instance });
        }
    }

    /// Reads a job of which a heartbeat spoke and nothing was known: an attempt that isn't its current one must stop.
    async fn look(&self, worker: WorkerId, instance: Instance, job: JobId, attempt: Attempt) -> Option<StopOrder> {
        let order = StopOrder { job, attempt, worker, instance, grace: shared::time::Period::ZERO };
        // A wake before its time changes nothing, and brings the job into memory with its lease.
        match self.tell(job, Command::Wake).await {
            Ok(taken) => {
                let current = leases::Held::of(&taken.job).is_some_and(|h| h.attempt == attempt && h.worker == worker);
                (!current).then_some(order)
            }
            Err(Error::Unknown) => Some(order),
            Err(_) => None,
        }
    }

    /// Whether every job can be reached.
    pub fn are_reachable(&self) -> bool {
        self.registries.iter().all(Addr::connected)
    }

    fn index(&self, job: JobId) -> usize {
        usize::from(job.shard().number()).checked_rem(self.registries.len()).unwrap_or(0)
    }

    fn registry(&self, job: JobId) -> Option<&Addr<Registry>> {
        self.registries.get(self.index(job))
    }
}

/// The actor.
pub struct Registry {
    parts: Parts,
    surroundings: Surroundings,
    /// What was seen at the last look of the ways by which workers are heard and ends are committed.
    ways: Ways,
    entries: HashMap<JobId, Entry>,
    fresh: Fresh,
    leases: Leases,
}

/// Whether workers can be heard and their ends be committed, and how often that was not so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ways {
    link: Link,
    alive: bool,
    lapses: u64,
}

struct Entry {
    supervisor: Addr<JobSupervisor>,
    pulse: Arc<Pulse>,
    used: Instant,
}

impl Entry {
    fn catch_up(&self) {
        self.supervisor.do_send(CatchUp(Pending::new(&self.pulse)));
    }
}

impl Registry {
    fn new(parts: Parts, surroundings: Surroundings, fresh: Fresh) -> Self {
        let (leases, ways) = (Leases::new(clock::instant()), Ways::of(&parts, &surroundings));
        Self { parts, surroundings, ways, entries: HashMap::new(), fresh, leases }
    }

    /// The job's live supervisor, started where there is none.
    fn entry(&mut self, job: JobId, held: Held, ctx: &Context<Self>) -> &Entry {
        let now = clock::instant();
        let died = self.entries.get(&job).is_some_and(|entry| !entry.supervisor.connected());
        if died {
            tracing::error!(%job, "a supervisor died; the job goes on from what is committed");
            self.entries.remove(&job);
        }
        let held = if died { Held::Behind } else { held };
        let fresh = self.fresh.take(job, self.parts.holdings.epoch(job.shard()));
        let held = match (held, fresh) {
            (Held::NotRead, Some(fresh)) => Held::Job(Box::new(fresh)),
            (held, _) => held,
        };
        let (parts, registry) = (&self.parts, ctx.address());
        let entry = self.entries.entry(job).or_insert_with(|| {
            let pulse = Arc::new(Pulse::default());
            let actor = JobSupervisor::new(job, parts.clone(), registry, Arc::clone(&pulse), held);
            Entry { supervisor: actor.start(), pulse, used: now }
        });
        if died {
            entry.catch_up();
        }
        entry.used = now;
        entry
    }

    fn give(&mut self, tell: Tell, ctx: &Context<Self>) {
        let Tell { job, commands, reply, permit } = tell;
        let entry = self.entry(job, Held::NotRead, ctx);
        let pending = Pending::new(&entry.pulse);
        entry.supervisor.do_send(Take { commands, reply, permit, pending });
    }

    /// Tells a job that its attempt's worker is lost, without waiting for what it makes of it.
    fn lose(&mut self, lost: Vec<(JobId, Attempt)>, message: &str, ctx: &Context<Self>) {
        for (job, attempt) in lost {
            // While the store doesn't answer, one such word waits, not one a second.
            if self.entries.get(&job).is_some_and(|entry| entry.supervisor.connected() && entry.pulse.is_busy()) {
                continue;
            }
            tracing::info!(%job, %attempt, message, "an attempt lost its worker");
            let (reply, _) = oneshot::channel();
            let commands = vec![Command::WorkerLost { attempt, message: message.to_owned() }];
            self.give(Tell { job, commands, reply, permit: None }, ctx);
        }
    }

    /// Looks after leases and lets idle supervisors go. The registry is the only one to speak to them, so one that has
    /// nothing pending here can have nothing in its mailbox.
    fn look(&mut self, ctx: &mut Context<Self>) {
        let now = clock::instant();
        self.fresh.expire(now);
        let ways = Ways::of(&self.parts, &self.surroundings);
        if ways != self.ways || !ways.are_open() {
            self.leases.begin_anew(now);
            self.ways = ways;
        }
        let expired = self.leases.expired(now);
        self.lose(expired, "the worker was not heard for its whole lease", ctx);
        let roster = &self.surroundings.roster;
        let left = self.leases.left_behind(|worker| roster.instance(worker));
        self.lose(left, "the worker was started anew", ctx);
        let died = self.entries.iter().filter(|(_, entry)| !entry.supervisor.connected());
        for job in died.map(|(job, _)| *job).collect::<Vec<_>>() {
            self.entry(job, Held::Behind, ctx);
        }
        self.entries.retain(|_, entry| {
            if entry.pulse.lags() {
                entry.catch_up();
            }
            let idle = entry.pulse.may_rest() && now.duration_since(entry.used) > LOOK_EVERY;
            if idle {
                entry.supervisor.do_send(Rest);
            }
            !idle
        });
    }
}

impl Actor for Registry {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        ctx.run_interval(LOOK_EVERY, Self::look);
    }
}

impl Ways {
    fn of(parts: &Parts, surroundings: &Surroundings) -> Self {
        let holdings = &parts.holdings;
        Self { link: surroundings.bus.link(), alive: holdings.is_alive(), lapses: holdings.lapses() }
    }

    fn are_open(self) -> bool {
        self.link.up && self.alive
    }
}

/// Commands for a job.
#[derive(Message)]
#[rtype(result = "()")]
struct Tell {
    job: JobId,
    commands: Vec<Command>,
    reply: oneshot::Sender<Answers>,
    /// Bounds how many there are; what the registry itself sends is bounded by its leases.
    permit: Option<OwnedSemaphorePermit>,
}

impl Handler<Tell> for Registry {
    type Result = ();

    fn handle(&mut self, tell: Tell, ctx: &mut Context<Self>) {
        fault::point("registry.hear");
        // It may have been released since the command was sent: then a supervisor would hold what isn't ours.
        if self.parts.holdings.epoch(tell.job.shard()).is_none() {
            // Whoever asked may have gone away.
            let _ = tell.reply.send(tell.commands.iter().map(|_| Err(Error::Elsewhere)).collect());
            return;
        }
        self.give(tell, ctx);
    }
}

/// A job with a live attempt, as a takeover read it.
#[derive(Message)]
#[rtype(result = "()")]
struct Adopt {
    job: Box<Job>,
}

impl Handler<Adopt> for Registry {
    type Result = ();

    fn handle(&mut self, Adopt { job }: Adopt, ctx: &mut Context<Self>) {
        let held = leases::Held::of(&job);
        // Its lease begins anew, also where one is left from when the shard was ours before.
        self.leases.set(job.id, None, clock::instant());
        self.leases.set(job.id, held, clock::instant());
        self.entry(job.id, Held::Job(job), ctx);
    }
}

/// Jobs that were stored since `begun`, each with the epoch at which its shard was owned then.
#[derive(Message)]
#[rtype(result = "()")]
struct Remember {
    jobs: Vec<(Job, Epoch)>,
    begun: Instant,
}

impl Handler<Remember> for Registry {
    type Result = ();

    fn handle(&mut self, Remember { jobs, begun }: Remember, _: &mut Context<Self>) {
        let now = clock::instant();
        // Whoever has had a supervisor since has it still: none is let go any sooner. After that it could have come and gone.
        if now.duration_since(begun) >= LOOK_EVERY {
            return;
        }
        for (job, epoch) in jobs {
            if !self.entries.contains_key(&job.id) {
                self.fresh.put(job, epoch, now);
            }
        }
    }
}

/// These shards are not ours any more; what is under way may take so long. Returns how their supervisors are.
#[derive(Message)]
#[rtype(result = "Vec<Arc<Pulse>>")]
struct Release(Vec<Shard>, Duration);

impl Handler<Release> for Registry {
    type Result = Vec<Arc<Pulse>>;

    fn handle(&mut self, Release(shards, within): Release, _: &mut Context<Self>) -> Self::Result {
        self.leases.forget(&shards);
        self.fresh.forget(&shards);
        let gone = self.entries.extract_if(|job, _| shards.contains(&job.shard()));
        let rest = |(_, entry): (JobId, Entry)| {
            if within.is_zero() {
                // Here none of them is between its last look and its hand-over: they live on this thread.
                entry.pulse.release();
            }
            // It comes after whatever the supervisor still has to do.
            entry.supervisor.do_send(Rest);
            entry.pulse
        };
        gone.map(rest).collect()
    }
}

/// A supervisor tells who holds its job's attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Message)]
#[rtype(result = "()")]
pub struct Holds {
    pub job: JobId,
    pub held: Option<leases::Held>,
}

impl Handler<Holds> for Registry {
    type Result = ();

    fn handle(&mut self, holds: Holds, _: &mut Context<Self>) {
        // A supervisor that was let go may still have ended its last command.
        if !self.entries.contains_key(&holds.job) {
            return;
        }
        self.leases.set(holds.job, holds.held, clock::instant());
    }
}

/// What should stop, and what isn't known.
type BeatAnswer = (Vec<StopOrder>, Vec<(JobId, Attempt)>);

/// A worker's heartbeat for jobs of this registry.
#[derive(Message)]
#[rtype(result = "BeatAnswer")]
struct Beat {
    worker: WorkerId,
    instance: Instance,
    attempts: Vec<(JobId, Attempt)>,
}

impl Handler<Beat> for Registry {
    type Result = actix::MessageResult<Beat>;

    fn handle(&mut self, beat: Beat, _: &mut Context<Self>) -> Self::Result {
        let Beat { worker, instance, attempts } = beat;
        let answer = self.leases.heard(worker, instance, &attempts, clock::instant(), self.parts.holdings.now());
        actix::MessageResult(answer)
    }
}

/// A worker announced its instance.
#[derive(Message)]
#[rtype(result = "()")]
struct Announced {
    worker: WorkerId,
    instance: Instance,
}

impl Handler<Announced> for Registry {
    type Result = ();

    fn handle(&mut self, announced: Announced, ctx: &mut Context<Self>) {
        let Announced { worker, instance } = announced;
        let now = clock::instant();
        let left = self.leases.left_behind(|held| (held == worker).then_some((instance, now)));
        self.lose(left, "the worker was started anew", ctx);
    }
}
