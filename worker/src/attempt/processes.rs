//! What an attempt runs, one program after the other, under its orders and its deadlines.
//!
//! Whatever happens, an order to stop and a deadline end the whole tree: SIGTERM, the grace, SIGKILL. Only when nothing
//! is left does the caller hear why its program was cut short.

use std::io;
use std::pin::pin;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use shared::clock;
use shared::job::{Exit, Failure, Limit};
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::keeper::{Command, Event, Keeper, tree};
use crate::output::pump::WriteEnds;
use crate::spool::{Entry, LetGo};
use crate::sweep;

/// How often the keeper is woken while the tree is being ended: a job that has stopped its keeper must not get away
/// with it.
const WAKE_EVERY: Duration = Duration::from_secs(2);
/// How long after the grace the keeper alone is trusted to end the tree.
const KEEPER_WITHIN: Duration = Duration::from_secs(5);

/// An order to stop an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// When what is left is killed.
    pub kill_at: Instant,
    /// Whether its cgroup is being killed already.
    pub is_struck: bool,
}

/// How the attempt hears that it is to stop; the one who may say so is gone when it is closed.
pub type Orders = watch::Receiver<Option<Stop>>;

/// Why an attempt ends before its steps have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// It was told to.
    Stopped,
    Failed(Failure),
    /// Its deploy key isn't to be had now.
    LetGo(LetGo),
}

/// A time by which something has to be over.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    pub at: Instant,
    pub limit: Limit,
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    pub exit: Exit,
    /// Why it couldn't be started at all; then `exit` is what a shell would say.
    pub message: Option<String>,
}

/// The tree is being ended.
struct Ending {
    cut: Cut,
    kill_at: Instant,
}

/// What comes next.
enum Turn {
    /// Something is ordered, or nobody can order anything any more.
    Ordered {
        over: bool,
    },
    TimedOut(Limit),
    /// The keeper's word; none when it is gone.
    Keeper(Option<Event>),
    /// The end takes long.
    Wake,
}

/// What bounds an attempt.
pub struct Bounds {
    pub orders: Orders,
    /// When the attempt as a whole has to be over.
    pub deadline: Deadline,
    /// From SIGTERM to SIGKILL when a deadline passes.
    pub grace: Duration,
    pub entry: Entry,
    /// Whether orphans of this process are its jobs'.
    pub adopts: bool,
}

/// The attempt's keeper and what bounds it.
pub struct Processes {
    keeper: Keeper,
    orders: Orders,
    deadline: Deadline,
    grace: Duration,
    entry: Entry,
    adopts: bool,
    ending: Option<Ending>,
    /// Nobody can order anything any more.
    orders_over: bool,
    /// Nothing runs any more, nor ever will.
    gone: bool,
    /// How the program that was cut short ended.
    last_exit: Option<Exit>,
}

impl Processes {
    /// Nothing runs yet.
    pub fn new(keeper: Keeper, bounds: Bounds) -> Self {
        let Bounds { orders, deadline, grace, entry, adopts } = bounds;
        Self {
            keeper,
            orders,
            deadline,
            grace,
            entry,
            adopts,
            ending: None,
            orders_over: false,
            gone: false,
            last_exit: None,
        }
    }

    /// Does something that may block, as a file system does that is far away. Should the attempt be cut short meanwhile,
    /// that isn't waited for.
    pub async fn aside<T: Send + 'static>(&mut self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Cut> {
        let done = self.beside(tokio::task::spawn_blocking(work)).await?;
        done.map_err(|panic| io::Error::other(panic).into())
    }

    /// Waits for something that isn't a process. Should the attempt be cut short meanwhile, that is dropped at once.
    pub async fn beside<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Cut> {
        self.obey().await;
        {
            let mut work = pin!(work);
            while self.ending.is_none() {
                let turn = tokio::select! {
                    biased;
                    done = &mut work => return Ok(done),
                    turn = self.turn(None) => turn,
                };
                self.take(turn).await?;
            }
        }
        loop {
            self.next(None).await?;
        }
    }

    /// Runs a program until it ends. An error says why the attempt is over; then nothing of it runs any more.
    pub async fn run(&mut self, command: Command, outputs: WriteEnds, by: Option<Deadline>) -> Result<Ran, Cut> {
        self.begin(command, outputs, by).await;
        loop {
            let event = self.next(by).await?;
            if let Some(ran) = self.ran(event).await? {
                return Ok(ran);
            }
        }
    }

    /// Runs a program until it ends or `within` has passed: then it is killed with all that runs beside it, and the attempt
    /// goes on. Says as well whether that was so.
    pub async fn run_within(
        &mut self,
        command: Command,
        outputs: WriteEnds,
        within: Duration,
    ) -> Result<(Ran, bool), Cut> {
        self.begin(command, outputs, None).await;
        let until = clock::instant() + within;
        let mut overdue = false;
        loop {
            let turn = tokio::select! {
                biased;
                turn = self.turn(None) => turn,
                () = sleep_until(until.into()), if !overdue && self.ending.is_none() => {
                    overdue = true;
                    if let Some(keeper) = self.keeper.pid() {
                        // Nothing that the keeper says meanwhile is missed.
                        tokio::task::spawn_blocking(move || tree::kill_all(keeper)).await.map_err(io::Error::other)??;
                    }
                    continue;
                }
            };
            if let Some(event) = self.take(turn).await?
                && let Some(ran) = self.ran(event).await?
            {
                return Ok((ran, overdue));
            }
        }
    }

    /// Kills whatever a program has left behind that has ended. The attempt goes on.
    pub async fn clear(&mut self) -> Result<(), Cut> {
        let Some(keeper) = self.keeper.pid() else { return Ok(()) };
        Ok(self.aside(move || tree::kill_all(keeper)).await??)
    }

    /// The number of the keeper, below which everything runs; none when it is gone.
    pub fn keeper(&self) -> Option<Pid> {
        self.keeper.pid()
    }

    async fn begin(&mut self, command: Command, outputs: WriteEnds, by: Option<Deadline>) {
        self.last_exit = None;
        self.obey().await;
        if self.ending.is_none() {
            self.order(command, outputs, by).await;
        }
    }

    /// How the program ended, if that is what the keeper says.
    async fn ran(&mut self, event: Event) -> Result<Option<Ran>, Cut> {
        match event {
            Event::Started | Event::LostContact => Ok(None),
            Event::Exited { exit } => Ok(Some(Ran { exit, message: None })),
            Event::CannotStart { code, message } => {
                Ok(Some(Ran { exit: Exit::ExitCode(code), message: Some(message) }))
            }
            Event::Unable { message } => {
                self.end(Cut::Failed(Failure::Internal { message }), Duration::ZERO).await;
                Ok(None)
            }
            Event::Gone => Err(self.lost().await),
        }
    }

    /// Orders the keeper to run a program. One that a job keeps from listening mustn't keep the orders and the deadline
    /// from being heard: it is killed, and what it kept is looked for.
    async fn order(&mut self, command: Command, outputs: WriteEnds, by: Option<Deadline>) {
        let WriteEnds { stdout, stderr } = outputs;
        let deadline = self.nearest(by);
        self.keeper.wake();
        let failure = tokio::select! {
            biased;
            ordered = self.keeper.run(command, stdout, stderr) => match ordered {
                Ok(()) => return,
                // It is gone, and has said why or will be missed.
                Err(error) if is_closed(&error) => return,
                Err(error) => Failure::Internal { message: format!("ordering the keeper to run something: {error}") },
            },
            () = sleep_until(deadline.at.into()) => Failure::TimedOut { limit: deadline.limit },
            _ = self.orders.changed(), if !self.orders_over => {
                self.keeper.kill();
                return self.obey().await;
            }
        };
        self.keeper.kill();
        self.end(Cut::Failed(failure), Duration::ZERO).await;
    }

    fn nearest(&self, by: Option<Deadline>) -> Deadline {
        by.filter(|by| by.at < self.deadline.at).unwrap_or(self.deadline)
    }

    /// How the program ended that was cut short last, as far as it was seen.
    pub fn last_exit(&self) -> Option<Exit> {
        self.last_exit
    }

    /// Waits until an order is there that hasn't been obeyed.
    pub async fn ordered(&mut self) {
        // Without anybody to order there is an end to be made as well.
        let _ = self.orders.clone().wait_for(Option::is_some).await;
    }

    /// Kills what is left, and returns when nothing is.
    pub async fn finish(mut self) {
        if !self.gone {
            self.end(Cut::Stopped, Duration::ZERO).await;
            while self.next(None).await.is_ok() {}
        }
    }

    /// The keeper's next word while the attempt goes on. When it is cut, the end of everything is waited for.
    async fn next(&mut self, by: Option<Deadline>) -> Result<Event, Cut> {
        loop {
            let turn = self.turn(by).await;
            if let Some(event) = self.take(turn).await? {
                return Ok(event);
            }
        }
    }

    /// Waits for what comes next. May be dropped and called again.
    async fn turn(&mut self, by: Option<Deadline>) -> Turn {
        let deadline = self.nearest(by);
        let wake_at = clock::instant() + WAKE_EVERY;
        tokio::select! {
            biased;
            changed = self.orders.changed(), if !self.orders_over => Turn::Ordered { over: changed.is_err() },
            () = sleep_until(deadline.at.into()), if self.ending.is_none() => Turn::TimedOut(deadline.limit),
            event = self.keeper.next() => Turn::Keeper(event),
            () = sleep_until(wake_at.into()), if self.ending.is_some() => Turn::Wake,
        }
    }

    /// Does what a turn asks for; the keeper's word while the attempt goes on.
    async fn take(&mut self, turn: Turn) -> Result<Option<Event>, Cut> {
        match turn {
            Turn::Ordered { over } => {
                self.orders_over = over;
                self.obey().await;
            }
            Turn::TimedOut(limit) => self.end(Cut::Failed(Failure::TimedOut { limit }), self.grace).await,
            Turn::Wake => self.wake().await,
            Turn::Keeper(None) => return Err(self.lost().await),
            Turn::Keeper(Some(Event::LostContact)) => {
                // It kills everything already.
                let message = "contact was lost, and the job is to stop then".to_owned();
                let (cut, kill_at) = (Cut::Failed(Failure::WorkerLost { message }), clock::instant());
                self.ending.get_or_insert(Ending { cut, kill_at });
            }
            Turn::Keeper(Some(event)) => {
                if self.ending.is_none() && self.orders.borrow().is_some() {
                    // It came in this very turn, and may be what the program has ended by: see `killer`.
                    self.obey().await;
                }
                match (event, &self.ending) {
                    (event, None) => return Ok(Some(event)),
                    (Event::Gone, Some(ending)) => {
                        self.gone = true;
                        return Err(ending.cut.clone());
                    }
                    (Event::Exited { exit }, Some(_)) => self.last_exit = Some(exit),
                    (_, Some(_)) => {}
                }
            }
        }
        Ok(None)
    }

    /// Looks what has been ordered, and does it.
    async fn obey(&mut self) {
        let order = *self.orders.borrow_and_update();
        if let Some(stop) = order {
            self.end(Cut::Stopped, stop.kill_at.saturating_duration_since(clock::instant())).await;
        } else if self.orders_over {
            let message = "the attempt's runner died".to_owned();
            self.end(Cut::Failed(Failure::Internal { message }), Duration::ZERO).await;
        }
    }

    /// Ends the tree. The first reason stays the reason, and the soonest end the end.
    async fn end(&mut self, cut: Cut, grace: Duration) {
        let kill_at = clock::instant() + grace;
        let ending = self.ending.get_or_insert(Ending { cut, kill_at });
        ending.kill_at = ending.kill_at.min(kill_at);
        let is_struck = self.orders.borrow().is_some_and(|order| order.is_struck);
        self.keeper.stop(grace, is_struck).await;
    }

    /// The keeper is gone without a word: somebody killed it. What it kept may have got away from it.
    async fn lost(&mut self) -> Cut {
        self.keeper.ended().await;
        let (entry, adopts) = (self.entry.clone(), self.adopts);
        sweep::until_gone(entry, adopts).await;
        self.gone = true;
        let message = "the attempt's keeper was killed".to_owned();
        self.ending.as_ref().map_or(Cut::Failed(Failure::Internal { message }), |ending| ending.cut.clone())
    }

    /// The end takes long: wakes the keeper, and helps it in the end.
    async fn wake(&mut self) {
        self.keeper.wake();
        let overdue = self.ending.as_ref().is_some_and(|ending| clock::instant() > ending.kill_at + KEEPER_WITHIN);
        if overdue {
            tracing::warn!(job = %self.entry.job, "an attempt's processes take long to end");
            let entry = self.entry.clone();
            if let Err(error) = tokio::task::spawn_blocking(move || sweep::kill_once(&entry)).await {
                tracing::error!(%error, "looking for what an attempt has left");
            }
        }
    }
}

/// Whether the other end of the socket is gone.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Failed(Failure::Internal { message: error.to_string() })
    }
}
