//! The actor that knows which attempts run on this worker. It owns their runners and the marks of stops that came too
//! early; grants, orders and ends come to it one at a time, so that none of them slips between two others.
//!
//! It starts a runner for a grant unless a stop came first, passes orders on, and forgets what has ended. What it says to
//! coordinators is said elsewhere: [`claims`] takes offers, [`contact`] keeps in touch.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Addr, AsyncContext, Context, Handler, Message, MessageResult};
use shared::clock;
use shared::id::{Attempt, JobId};
use shared::job::StopOrder;
use tokio::sync::watch;

use crate::keeper::lifeline::Lifeline;
use crate::runner::{self, AttemptRunner, Granted, StopAttempt};
use crate::site::Site;
use crate::told::Told;

pub mod claims;
pub mod contact;

/// How long a stop for an attempt that doesn't run is remembered: longer than its grant could still be on its way.
const MARK_FOR: Duration = Duration::from_mins(1);
/// The most stops that are remembered; of more the oldest is forgotten.
const MARKS_MAX: usize = 4096;
/// The longest grace of an attempt that is stopped because its worker is.
pub const SHUTDOWN_GRACE_MAX: Duration = Duration::from_secs(30);

/// See the module.
pub struct Agent {
    site: Arc<Site>,
    running: HashMap<(JobId, Attempt), Running>,
    marks: HashMap<(JobId, Attempt), Instant>,
    stopping: bool,
    /// How many attempts run.
    count: watch::Sender<usize>,
}

struct Running {
    runner: Addr<AttemptRunner>,
    grace: Duration,
    /// Where it must not outlive its lease.
    lifeline: Option<Arc<Lifeline>>,
    told: Arc<Told>,
}

/// Why a granted attempt doesn't start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotStarted {
    #[error("the worker is being shut down")]
    Stopping,
    #[error("{TOLD_TO_STOP}")]
    Marked,
    /// It runs already: this grant is a repeat of its own.
    #[error("it is running already")]
    Running,
    #[error("the worker's agent is gone")]
    NoAgent,
}

/// Why an attempt is declined that was stopped before its grant came.
const TOLD_TO_STOP: &str = "it was told to stop before it had started";

/// Would that attempt be started now?
#[derive(Message)]
#[rtype(result = "Result<(), NotStarted>")]
pub struct MayStart(pub JobId, pub Attempt);

/// Run a granted attempt.
#[derive(Message)]
#[rtype(result = "Result<(), NotStarted>")]
pub struct Start(pub Granted);

/// Stop these attempts, or see to it that they never start.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Stop(pub Vec<StopOrder>);

/// The deploy key that an attempt waits for may be there now.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LookForKey(pub JobId, pub Attempt);

/// An attempt is over and told.
#[derive(Message, Clone, Copy)]
#[rtype(result = "()")]
pub struct Ended {
    pub job: JobId,
    pub attempt: Attempt,
}

/// Which attempts run, and are to be named in a heartbeat?
#[derive(Message)]
#[rtype(result = "Vec<(JobId, Attempt)>")]
pub struct Attempts;

/// A heartbeat that was sent at `sent` and named these was answered.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Confirmed {
    pub attempts: Vec<(JobId, Attempt)>,
    pub sent: Instant,
}

/// Start nothing more and stop all that runs; returns the longest grace of it.
#[derive(Message)]
#[rtype(result = "Duration")]
pub struct Shutdown;

impl Agent {
    /// An agent without attempts; `count` is kept at their number.
    pub fn new(site: Arc<Site>, count: watch::Sender<usize>) -> Self {
        Self { site, running: HashMap::new(), marks: HashMap::new(), stopping: false, count }
    }

    fn counted(&self) {
        self.count.send_replace(self.running.len());
    }

    fn may_start(&self, attempt: (JobId, Attempt)) -> Result<(), NotStarted> {
        if self.stopping {
            return Err(NotStarted::Stopping);
        }
        if self.marks.contains_key(&attempt) {
            return Err(NotStarted::Marked);
        }
        if self.running.contains_key(&attempt) {
            return Err(NotStarted::Running);
        }
        Ok(())
    }

    /// Sees to it that the attempt never starts, and only then confirms that it is stopped.
    fn mark(&mut self, attempt: (JobId, Attempt)) {
        let now = clock::instant();
        self.marks.retain(|_, until| *until > now);
        if self.marks.contains_key(&attempt) {
            return;
        }
        if self.marks.len() >= MARKS_MAX
            && let Some(oldest) = self.marks.iter().min_by_key(|(_, until)| **until).map(|(key, _)| *key)
        {
            self.marks.remove(&oldest);
        }
        self.marks.insert(attempt, now + MARK_FOR);
        let (reporter, (job, attempt)) = (self.site.reporter.clone(), attempt);
        self.site.runtime.spawn(async move { reporter.decline(job, attempt, None, TOLD_TO_STOP).await });
    }
}

impl Actor for Agent {
    type Context = Context<Self>;
}

impl Handler<MayStart> for Agent {
    type Result = Result<(), NotStarted>;

    fn handle(&mut self, MayStart(job, attempt): MayStart, _: &mut Self::Context) -> Self::Result {
        self.may_start((job, attempt))
    }
}

impl Handler<Start> for Agent {
    type Result = Result<(), NotStarted>;

    fn handle(&mut self, Start(granted): Start, context: &mut Self::Context) -> Self::Result {
        self.site.config.fault("agent");
        let key = (granted.grant.job, granted.grant.attempt);
        self.may_start(key)?;
        let (grace, lifeline) = (granted.grant.spec.grace.duration(), granted.lifeline.clone());
        let told = Arc::new(Told::default());
        let runner = AttemptRunner::run(self.site.clone(), granted, told.clone(), context.address()).start();
        if lifeline.is_some() {
            self.site.beat.notify_one();
        }
        self.running.insert(key, Running { runner, grace, lifeline, told });
        self.counted();
        Ok(())
    }
}

impl Handler<Stop> for Agent {
    type Result = ();

    fn handle(&mut self, Stop(orders): Stop, _: &mut Self::Context) {
        for StopOrder { job, attempt, worker, instance, grace } in orders {
            let courier = &self.site.reporter.courier;
            if worker != courier.worker || instance != courier.instance {
                // The sweep has ended what an earlier start of this worker ran.
                continue;
            }
            match self.running.get(&(job, attempt)) {
                // The runner takes orders as they come, and each is small: at most a few are on their way.
                Some(running) => running.runner.do_send(StopAttempt { grace: grace.duration() }),
                None => self.mark((job, attempt)),
            }
        }
    }
}

impl Handler<LookForKey> for Agent {
    type Result = ();

    fn handle(&mut self, LookForKey(job, attempt): LookForKey, _: &mut Self::Context) {
        // One that isn't there waits for nothing.
        if let Some(running) = self.running.get(&(job, attempt)) {
            running.runner.do_send(runner::LookForKey);
        }
    }
}

impl Handler<Ended> for Agent {
    type Result = ();

    fn handle(&mut self, Ended { job, attempt }: Ended, _: &mut Self::Context) {
        self.running.remove(&(job, attempt));
        self.counted();
    }
}

impl Handler<Attempts> for Agent {
    type Result = Vec<(JobId, Attempt)>;

    fn handle(&mut self, _: Attempts, _: &mut Self::Context) -> Self::Result {
        let now = clock::instant();
        self.running.iter().filter(|(_, running)| running.told.is_to_be_named(now)).map(|(key, _)| *key).collect()
    }
}

impl Handler<Confirmed> for Agent {
    type Result = ();

    fn handle(&mut self, Confirmed { attempts, sent }: Confirmed, _: &mut Self::Context) {
        let running = attempts.iter().filter_map(|attempt| self.running.get(attempt));
        running.filter_map(|running| running.lifeline.as_ref()).for_each(|lifeline| lifeline.renew(sent));
    }
}

impl Handler<Shutdown> for Agent {
    type Result = MessageResult<Shutdown>;

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        let mut longest = Duration::ZERO;
        for running in self.running.values() {
            let grace = running.grace.min(SHUTDOWN_GRACE_MAX);
            running.runner.do_send(StopAttempt { grace });
            longest = longest.max(grace);
        }
        MessageResult(longest)
    }
}
