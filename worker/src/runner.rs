//! The actor that runs one attempt. It owns the attempt's order to stop; the work is a task beside it.
//!
//! A panic in the work ends the attempt with an `internal` failure, and so does one in the actor: the work hears that
//! there is nobody to order any more. Neither touches the worker.

use std::any::Any;
use std::io;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler, Message};
use futures_util::FutureExt;
use shared::clock;
use shared::id::JobId;
use shared::job::{AttemptEnd, Failure};
use shared::secret::Secrets;
use shared::wire::{Grant, Report};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::agent::{Agent, Ended};
use crate::attempt::directories::Directories;
use crate::attempt::processes::{Orders, Stop};
use crate::attempt::{Attempt, PROGRESS_MAX};
use crate::deploy_key::fetcher::{self, Search};
use crate::deploy_key::{Fetching, Told};
use crate::keeper::lifeline::Lifeline;
use crate::output::Log;
use crate::output::sender::Sending;
use crate::report::Telling;
use crate::site::Site;
use crate::spool::{Conclusion, Entry, Outcome};
use crate::{sweep, told};

/// How long an outcome waits for the attempt's log to be stored.
const LOG_WITHIN: Duration = Duration::from_secs(2);
/// The most tries to fetch a deploy key that wait for the attempt's work to tell of them.
const TOLD_MAX: usize = 8;
/// How often that is waited for at most while the bus is there and no coordinator answers.
const LOG_WINDOWS_MAX: u32 = 5;
/// How long the log of an attempt that has ended is offered: for so long a coordinator takes it.
const LOG_GIVE_UP: Duration = Duration::from_hours(1);

/// A granted attempt, ready to run.
pub struct Granted {
    pub grant: Grant,
    pub secrets: Secrets,
    /// When the grant was heard.
    pub at: Instant,
    /// Its entry, which is in the spool.
    pub entry: Entry,
    /// Where it must not outlive its lease.
    pub lifeline: Option<Arc<Lifeline>>,
    /// The slot that it takes, until it is told.
    pub slot: OwnedSemaphorePermit,
}

/// Runs one attempt for as long as somebody has its address.
pub struct AttemptRunner {
    site: Arc<Site>,
    orders: watch::Sender<Option<Stop>>,
    /// Holds its processes, if it could be made.
    cgroup: Option<PathBuf>,
    /// The search for its deploy key, where it has one.
    search: Option<Arc<Search>>,
    /// Where the search tells of itself, until it has begun.
    told: Option<mpsc::Sender<Told>>,
}

/// Stop the attempt: SIGTERM, and SIGKILL after `grace`. Of two orders the one that ends it sooner counts.
#[derive(Message)]
#[rtype(result = "()")]
pub struct StopAttempt {
    pub grace: Duration,
}

/// The deploy key that the attempt waits for may be there now.
#[derive(Message)]
#[rtype(result = "()")]
pub struct LookForKey;

impl AttemptRunner {
    /// The runner of an attempt, whose work begins at once. `of_end` says how far its end is told; `agent` hears when all is over.
    pub fn run(site: Arc<Site>, granted: Granted, of_end: Arc<told::Told>, agent: actix::Addr<Agent>) -> Self {
        let (orders, heard) = watch::channel(None);
        let (work, runtime) = (site.clone(), site.runtime.clone());
        let search = Search::of(&granted.grant, &site);
        let cgroup = granted.entry.cgroup.clone();
        let (told, fetching) = search.as_ref().map(|_| mpsc::channel(TOLD_MAX)).unzip();
        runtime.spawn(async move {
            let ended = Ended { job: granted.grant.job, attempt: granted.grant.attempt };
            if let Err(panic) = AssertUnwindSafe(conduct(work, granted, of_end, heard, fetching)).catch_unwind().await {
                let error = said(&*panic);
                tracing::error!(job = %ended.job, error, "an attempt was not told: its lease will end it");
            }
            // Nobody is there to be told when the worker has ended. There is one of these for each slot that was taken.
            agent.do_send(ended);
        });
        Self { site, orders, cgroup, search, told }
    }
}

impl Actor for AttemptRunner {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        if let (Some(search), Some(told)) = (&self.search, self.told.take()) {
            // It isn't spawned in the actor's own context, which would keep the actor there when nobody has its address.
            actix::spawn(fetcher::supervise(self.site.clone(), search.clone(), told));
        }
    }
}

impl Handler<LookForKey> for AttemptRunner {
    type Result = ();

    fn handle(&mut self, _: LookForKey, _: &mut Self::Context) {
        if let Some(search) = &self.search {
            search.wake();
        }
    }
}

impl Handler<StopAttempt> for AttemptRunner {
    type Result = ();

    fn handle(&mut self, stop: StopAttempt, _: &mut Self::Context) {
        self.site.config.fault("runner");
        let kill_at = clock::instant() + stop.grace;
        let cgroup = self.cgroup.as_ref().filter(|_| stop.grace.is_zero());
        let is_news = self.orders.send_if_modified(|order| {
            let sooner = order.is_none_or(|before| kill_at < before.kill_at);
            if sooner {
                *order = Some(Stop { kill_at, is_struck: cgroup.is_some() });
            }
            sooner
        });
        // The order is there to be seen before its processes end by it.
        if let (true, Some(cgroup)) = (is_news, cgroup) {
            self.site.killer.kill(cgroup);
        }
    }
}

/// Runs the attempt and tells how it ended, until the coordinator has taken or refused that.
async fn conduct(
    site: Arc<Site>,
    granted: Granted,
    of_end: Arc<told::Told>,
    orders: Orders,
    fetching: Option<Fetching>,
) {
    let Granted { grant, secrets, at, entry, lifeline, slot } = granted;
    let (job, attempt) = (grant.job, grant.attempt);
    tracing::info!(%job, %attempt, "attempt begins");
    let log = Log::new(job, attempt);
    let mut sending = Sending::of(log.clone(), site.reporter.courier.clone(), job);
    let (progress, queue) = mpsc::channel(PROGRESS_MAX);
    let mut telling = Telling::of(site.reporter.clone(), job, attempt, queue);
    let directories = Directories::of(&site.work, job, attempt);
    let work = Attempt {
        config: site.config.clone(),
        grant: Arc::new(grant),
        secrets,
        granted: at,
        entry: entry.clone(),
        lifeline,
        directories: directories.clone(),
        log: log.clone(),
        progress,
        orders,
        fetching,
        agents: site.agents.clone(),
        mirrors: site.mirrors.clone(),
    };
    let work = AssertUnwindSafe(Box::pin(work.run())).catch_unwind();
    let ended = tokio::select! {
        biased;
        ended = work => ended,
        never = telling.go_on() => match never {},
        never = sending.begin() => match never {},
    };
    let end = match ended {
        Ok(end) => end,
        Err(panic) => failed(said(&*panic), entry.clone(), site.config.adopts).await,
    };
    let summary = log.finish();
    tracing::info!(%job, %attempt, %end, "attempt ends");
    let outcome = Outcome { end, log: summary };
    let epoch = site.reporter.courier.epochs.highest(job.shard());
    let entry = Entry { epoch, outcome: Some(outcome.clone()), ..entry };
    let sending = sending.finish();
    if sending.is_some() {
        // What waits for the log isn't the progress. Otherwise it goes together with the end.
        telling.catch_up();
    }
    let kept = site.keep(&entry).await;
    let removing = directories.are_made().then(|| tokio::spawn(remove(site.clone(), directories)));
    if let Some(mut sending) = sending
        && !sent_in_time(&site, &mut sending).await
    {
        let logs = site.logs.clone().acquire_owned().await;
        tokio::spawn(send_the_rest(job, sending, logs.ok()));
    }
    of_end.begin(clock::instant());
    tell(&site, telling, outcome.report(job, attempt), (!kept).then_some(entry)).await;
    of_end.end();
    site.forget(job, attempt).await;
    if let Some(removing) = removing
        && let Ok(Err(error)) = removing.await
    {
        tracing::warn!(%job, %error, "removing an attempt's directories: the next start tries again");
    }
    drop(slot);
}

/// Tells the end until it is taken or refused for good. What isn't in the spool yet is kept meanwhile.
async fn tell(site: &Site, telling: Telling, end: Report, unkept: Option<Entry>) {
    let told = telling.end(end);
    let Some(entry) = unkept else { return told.await };
    tokio::pin!(told);
    tokio::select! {
        () = &mut told => {}
        // A worker that dies before it is told would know nothing of it.
        () = site.keep_at_last(entry) => told.await,
    }
}

async fn remove(site: Arc<Site>, directories: Directories) -> io::Result<()> {
    // The semaphore is never closed.
    let _turn = site.removals.acquire().await;
    tokio::task::spawn_blocking(move || directories.remove()).await.unwrap_or_else(|panic| Err(io::Error::other(panic)))
}

/// What becomes of an attempt whose work panicked: its keeper has gone with it, and what that kept is looked for.
async fn failed(error: String, entry: Entry, adopts: bool) -> Conclusion {
    tracing::error!(job = %entry.job, error, "an attempt's work failed");
    sweep::until_gone(entry, adopts).await;
    let message = "the worker failed at this attempt; its log says more".to_owned();
    Conclusion::Ended(AttemptEnd::Failed { failure: Failure::Internal { message } })
}

/// What somebody said who panicked.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic without words".to_owned())
}

/// Whether the log is stored before the outcome has to be told. Without contact neither can be said: the log's time begins
/// anew when a coordinator answers again, since what comes after the next attempt's grant is refused.
async fn sent_in_time(site: &Site, sending: &mut JoinHandle<()>) -> bool {
    let link = || site.reporter.courier.bus.link();
    let (mut heard, mut windows) = (true, 0);
    loop {
        let before = link();
        if timeout(LOG_WITHIN, &mut *sending).await.is_ok() {
            return true;
        }
        let steady = before.up && link() == before;
        windows += u32::from(steady);
        if steady && (heard || windows == LOG_WINDOWS_MAX) {
            return false;
        }
        heard = site.duty.hello_soon(LOG_WITHIN).await;
    }
}

/// Goes on sending a log whose attempt is told already; `_sent` is held until it is sent or given up.
async fn send_the_rest(job: JobId, mut sending: JoinHandle<()>, _sent: Option<OwnedSemaphorePermit>) {
    if timeout(LOG_GIVE_UP, &mut sending).await.is_err() {
        tracing::warn!(%job, "a log could not be stored completely");
        sending.abort();
    }
}
