//! One actor per job that something happens to. It holds the job in memory, takes one message at a time, and takes the
//! next only when the last one is committed: the race between "done" and "cancel" is settled by its mailbox, nowhere
//! else.
//!
//! A message holds one command, or all that a worker has said of the job in one message of its own. What a worker says in a
//! row is applied in a row and committed at once, whole or not at all.
//!
//! The registry starts it and is the only one to speak to it. It trusts no field across an await: a command works on
//! its own copy of the job, which replaces the field when it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use actix::{Actor, ActorContext, ActorFutureExt, Addr, AtomicResponse, Context, Handler, Message, WrapFuture};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use shared::id::JobId;
use shared::job::{Command, Job, Rejection, State, Transition};
use shared::time::Time;

use crate::committer::{self, Commits};
use crate::fault;
use crate::holdings::Holdings;
use crate::leases;
use crate::registry::{Holds, Registry};
use crate::store::{Error as StoreError, Store};

/// How often a command is applied to a job that somebody else has moved meanwhile: once more after a fresh look.
const APPLY_MAX: u32 = 2;

/// What a command made of a job.
#[derive(Debug, Clone)]
pub struct Taken {
    /// The job as it is committed.
    pub job: Job,
    /// Whether the command changed it; otherwise all was so already.
    pub changed: bool,
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("there is no such job")]
    Unknown,
    #[error("refused: {0}")]
    Refused(Rejection),
    /// Another coordinator owns the job's shard, or nobody does at the moment.
    #[error("the job's shard is not owned here")]
    Elsewhere,
    /// A bound is reached: again later.
    #[error("too many commands are under way")]
    Busy,
    /// The store doesn't answer, or its answer was lost: the command can be repeated.
    #[error("the store is not available")]
    Unavailable,
    /// The supervisor died over it; the job goes on from what is committed.
    #[error("the command met a defect")]
    Internal,
}

/// An answer for each of some commands, in their order.
pub type Answers = Vec<Result<Taken, Error>>;

/// Commands for the job, and the way back. What it holds besides counts them until they are answered.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Take {
    pub commands: Vec<Command>,
    pub reply: oneshot::Sender<Answers>,
    pub permit: Option<OwnedSemaphorePermit>,
    pub pending: Pending,
}

/// What a supervisor and the registry both see: how many commands are on their way, whether the supervisor may rest when
/// there are none, whether it has yet to catch up with its predecessor, and whether it was let go.
#[derive(Debug, Default)]
pub struct Pulse {
    pending: AtomicU32,
    restful: AtomicBool,
    behind: AtomicBool,
    released: AtomicBool,
}

impl Pulse {
    /// Whether a command is on its way.
    pub fn is_busy(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    /// Whether the supervisor has nothing to do and agrees to be ended.
    pub fn may_rest(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0 && self.restful.load(Ordering::Acquire)
    }

    /// Whether the supervisor has nothing to do and is still [`Held::Behind`].
    pub fn lags(&self) -> bool {
        self.pending.load(Ordering::Acquire) == 0 && self.behind.load(Ordering::Acquire)
    }

    /// The supervisor is let go: it hands nothing over any more, for another may hold its job soon.
    pub fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    fn is_released(&self) -> bool {
        self.released.load(Ordering::Acquire)
    }
}

/// Counts one command until it is dropped.
#[derive(Debug)]
pub struct Pending(Arc<Pulse>);

impl Pending {
    /// Counts a command for the supervisor of that pulse.
    pub fn new(pulse: &Arc<Pulse>) -> Self {
        pulse.pending.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(pulse))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What every supervisor works with.
#[derive(Clone)]
pub struct Parts {
    pub store: Arc<dyn Store>,
    pub commits: Commits,
    pub holdings: Arc<Holdings>,
}

/// The actor of one job.
pub struct JobSupervisor {
    id: JobId,
    parts: Parts,
    registry: Addr<Registry>,
    pulse: Arc<Pulse>,
    held: Held,
    /// What the registry was last told. None where it may hold a lease of which this actor doesn't know: one that a
    /// dead predecessor left, or one that a takeover found.
    told: Option<Holds>,
}

/// What a supervisor knows of its job.
#[derive(Debug, Clone)]
pub enum Held {
    /// What is committed.
    Job(Box<Job>),
    /// Nothing yet: it must be read from the store.
    NotRead,
    /// Nothing, and the store may yet move on: what was handed over for the job before, by a supervisor that has died or in
    /// a batch whose answer was lost, may be on its way. It must be settled before the job is read, for whoever is refused by
    /// the row from before it is told what isn't so.
    Behind,
}

impl JobSupervisor {
    /// A supervisor of `id` that already holds what was read, or will read it with its first command.
    pub fn new(id: JobId, parts: Parts, registry: Addr<Registry>, pulse: Arc<Pulse>, held: Held) -> Self {
        Self { id, parts, registry, pulse, held, told: None }
    }

    fn desk(&self) -> Desk {
        Desk { id: self.id, parts: self.parts.clone(), pulse: Arc::clone(&self.pulse) }
    }

    /// Keeps what is known after a command, and tells the registry who holds the attempt. Where nothing is known, the
    /// lease stands as it was: it is what brings the job back if nothing else does.
    fn keep(&mut self, held: Held) {
        self.held = held;
        let behind = matches!(self.held, Held::Behind);
        self.pulse.behind.store(behind, Ordering::Release);
        let Held::Job(job) = &self.held else {
            self.told = None;
            // The next one wouldn't know that there is something to be waited for.
            self.pulse.restful.store(!behind, Ordering::Release);
            return;
        };
        let holds = Holds { job: self.id, held: leases::Held::of(job) };
        self.pulse.restful.store(holds.held.is_none(), Ordering::Release);
        // Where it was let go, another may hold the job already, and has said so.
        if self.told != Some(holds) && !self.pulse.is_released() {
            self.told = Some(holds);
            self.registry.do_send(holds);
        }
    }
}

impl Actor for JobSupervisor {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Context<Self>) {
        let held = std::mem::replace(&mut self.held, Held::NotRead);
        self.keep(held);
    }
}

impl Handler<Take> for JobSupervisor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, take: Take, _: &mut Context<Self>) -> Self::Result {
        let Take { commands, reply, permit, pending } = take;
        let (desk, held) = (self.desk(), self.held.clone());
        let work = async move { decide(&desk, held, commands).await };
        AtomicResponse::new(Box::pin(work.into_actor(self).map(move |(held, answers), actor, _| {
            actor.keep(held);
            // Whoever asked may have gone away; what is committed stays so.
            let _ = reply.send(answers);
            drop((permit, pending));
        })))
    }
}

/// Read the job as soon as what a dead predecessor has handed over is settled, also without a command: an attempt that was
/// granted so has its lease from then on. Counts as a command until that is done.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct CatchUp(pub Pending);

impl Handler<CatchUp> for JobSupervisor {
    type Result = AtomicResponse<Self, ()>;

    fn handle(&mut self, CatchUp(pending): CatchUp, _: &mut Context<Self>) -> Self::Result {
        let (desk, held) = (self.desk(), self.held.clone());
        let work = async move { read(&desk, held).await };
        AtomicResponse::new(Box::pin(work.into_actor(self).map(move |read, actor, _| {
            actor.keep(read.map_or_else(|(held, _)| held, Held::Job));
            drop(pending);
        })))
    }
}

/// Ends the supervisor: the registry has seen that it may rest, and sends it nothing after this.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub struct Rest;

impl Handler<Rest> for JobSupervisor {
    type Result = ();

    fn handle(&mut self, _: Rest, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// What one command is worked on with, apart from the actor.
struct Desk {
    id: JobId,
    parts: Parts,
    pulse: Arc<Pulse>,
}

/// Applies the commands to the job and commits what follows. Returns what is known of the job afterwards: nothing, where
/// a commit's answer was lost.
async fn decide(desk: &Desk, held: Held, commands: Vec<Command>) -> (Held, Answers) {
    let (mut held, mut answers) = (held, Answers::with_capacity(commands.len()));
    for run in commands.chunk_by(|one, next| [one, next].iter().all(|told| matches!(told, Command::Worker(_)))) {
        let (known, more) = decide_run(desk, held, run).await;
        held = known;
        answers.extend(more);
    }
    (held, answers)
}

/// The same for one run of them.
///
/// No wake-up for a deploy key is lost: a key that was registered while its job was being parked is found by a look right
/// after that commit, and one that nobody noticed by another look before the wait limit fails the job.
async fn decide_run(desk: &Desk, held: Held, run: &[Command]) -> (Held, Answers) {
    let (parts, id) = (&desk.parts, desk.id);
    let (held, answers) = take(desk, held, run).await;
    let changed = answers.iter().rev().find_map(|answer| answer.as_ref().ok().filter(|taken| taken.changed));
    let key = match changed.map(|taken| &taken.job.state) {
        Some(State::Blocked { key, .. }) => key.clone(),
        _ => return (held, answers),
    };
    match is_registered(parts, &key).await {
        Ok(false) => (held, answers),
        Ok(true) => {
            let (held, gone_on) = take(desk, held, &[Command::KeyRegistered { key }]).await;
            if let Some(Err(error)) = gone_on.first() {
                tracing::warn!(job = %id, %error, "a job whose deploy key is there stays parked for a moment");
            }
            (held, answers)
        }
        // The comparison of parked jobs with the keys finds it.
        Err(error) => {
            tracing::warn!(job = %id, %error, "looking for the deploy key of a job that was parked");
            (held, answers)
        }
    }
}

/// Whether a deploy key of that name is there.
async fn is_registered(parts: &Parts, key: &str) -> Result<bool, StoreError> {
    if fault::is_lost("supervisor.look_for_key") {
        return Err(StoreError::Unavailable("a fault point was armed".to_owned()));
    }
    let names = [key.to_owned()];
    Ok(!parts.store.registered(&names).await?.is_empty())
}

/// What is to be taken in place of a wake of a parked job whose wait is over: its key, if that is there. Nothing where
/// that can't be said: a job isn't failed for want of a key that may be there.
async fn instead(parts: &Parts, job: &Job, command: Command, now: Time) -> Option<Command> {
    let State::Blocked { key, until } = &job.state else { return Some(command) };
    if command != Command::Wake || now < *until {
        return Some(command);
    }
    match is_registered(parts, key).await {
        Ok(true) => Some(Command::KeyRegistered { key: key.clone() }),
        Ok(false) => Some(command),
        Err(error) => {
            tracing::warn!(job = %job.id, %error, "looking for a parked job's deploy key once more");
            None
        }
    }
}

/// The job as it is committed; else what is held without it.
async fn read(desk: &Desk, held: Held) -> Result<Box<Job>, (Held, Error)> {
    let (parts, id) = (&desk.parts, desk.id);
    // A row that couldn't be read is still to be read no sooner than all before it is settled.
    let unread = if matches!(held, Held::Behind) { Held::Behind } else { Held::NotRead };
    if desk.pulse.is_released() {
        return Err((held, Error::Elsewhere));
    }
    match held {
        Held::Job(job) => return Ok(job),
        Held::NotRead => {}
        // Writes are committed in the order in which they were handed over: when an empty one is, all before it are settled.
        Held::Behind => match parts.commits.probe().await {
            Ok(()) => {}
            Err(committer::Error::Busy) => return Err((Held::Behind, Error::Busy)),
            Err(_) => return Err((Held::Behind, Error::Unavailable)),
        },
    }
    let found = parts.store.job(id).await;
    fault::hold("supervisor.read").await;
    match found {
        Ok(Some(job)) => Ok(Box::new(job)),
        Ok(None) => Err((Held::NotRead, Error::Unknown)),
        Err(error) => {
            tracing::warn!(job = %id, %error, "reading a job");
            Err((unread, Error::Unavailable))
        }
    }
}

/// Applies a run of commands, one after the other, and commits what follows of all in one write: the answers to all of them
/// count only with it.
async fn take(desk: &Desk, held: Held, run: &[Command]) -> (Held, Answers) {
    let (parts, id) = (&desk.parts, desk.id);
    let all = |error: Error| run.iter().map(|_| Err(error.clone())).collect::<Answers>();
    let mut held = held;
    for _ in 0..APPLY_MAX {
        let job = match read(desk, held).await {
            Ok(job) => job,
            Err((held, error)) => return (held, all(error)),
        };
        fault::point("supervisor.take");
        let Some((transition, decided)) = applied(parts, &job, run).await else {
            return (Held::Job(job), all(Error::Unavailable));
        };
        if transition.is_empty() {
            let answers = answers(decided, &job);
            return (Held::Job(job), answers);
        }
        if desk.pulse.is_released() {
            return (Held::NotRead, all(Error::Elsewhere));
        }
        match parts.commits.change(job.version, transition).await {
            Ok(Some(job)) => {
                let answers = answers(decided, &job);
                return (Held::Job(Box::new(job)), answers);
            }
            // Somebody else moved the job.
            Ok(None) => held = Held::NotRead,
            Err(committer::Error::Busy) => return (Held::Job(job), all(Error::Busy)),
            Err(committer::Error::Unavailable) => return (Held::Job(job), all(Error::Unavailable)),
            Err(committer::Error::Unknown) => return (Held::Behind, all(Error::Unavailable)),
            Err(committer::Error::Elsewhere) => return (Held::NotRead, all(Error::Elsewhere)),
            Err(committer::Error::Refused(why)) => {
                tracing::error!(job = %id, why, "the database refuses a transition");
                return (Held::NotRead, all(Error::Internal));
            }
        }
    }
    tracing::error!(job = %id, "a job was moved by somebody else again and again");
    (Held::NotRead, all(Error::Unavailable))
}

/// What a command comes to, once everything before it is committed: whether it changes the job, or why it is refused.
type Decided = Result<bool, Rejection>;

/// What a run of commands makes of the job, and what each of them comes to. Nothing where that can't be said now.
async fn applied(parts: &Parts, job: &Job, run: &[Command]) -> Option<(Transition, Vec<Decided>)> {
    let now = parts.holdings.now();
    let mut whole = Transition { job: job.clone(), events: Vec::new() };
    let mut decided = Vec::with_capacity(run.len());
    for command in run {
        let command = instead(parts, &whole.job, command.clone(), now).await?;
        decided.push(whole.job.apply(command, now).map(|next| {
            let changes = !next.is_empty();
            whole.then(next);
            changes
        }));
    }
    Some((whole, decided))
}

fn answers(decided: Vec<Decided>, job: &Job) -> Answers {
    let answer = |decided: Decided| match decided {
        Ok(changed) => Ok(Taken { job: job.clone(), changed }),
        Err(rejection) => Err(Error::Refused(rejection)),
    };
    decided.into_iter().map(answer).collect()
}
