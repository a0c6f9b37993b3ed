//! What an attempt runs, one program after the other, under its orders and its deadlines.
//!
//! Whatever happens, an order to stop and a deadline end the whole tree: SIGTERM, the grace, SIGKILL. Only when nothing
//! is left does the caller hear why its program was cut short.

use std::io;
use std::time::{Duration, Instant};

use shared::clock;
use shared::job::{Exit, Failure, Limit};
use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::keeper::{Command, Event, Keeper};
use crate::output::pump::WriteEnds;
use crate::spool::Entry;
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
}

/// How the attempt hears that it is to stop; the one who may say so is gone when it is closed.
pub type Orders = watch::Receiver<Option<Stop>>;

/// Why an attempt ends before its steps have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cut {
    /// It was told to.
    Stopped,
    Failed(Failure),
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

/// The attempt's keeper and what bounds it.
pub struct Processes {
    keeper: Keeper,
    orders: Orders,
    /// When the attempt as a whole has to be over.
    deadline: Deadline,
    grace: Duration,
    entry: Entry,
    ending: Option<Ending>,
    /// Nobody can order anything any more.
    orders_over: bool,
    /// Nothing runs any more, nor ever will.
    gone: bool,
    /// How the program that was cut short ended.
    last_exit: Option<Exit>,
}

impl Processes {
    /// Nothing runs yet. `grace` is from SIGTERM to SIGKILL when a deadline passes.
    pub fn new(keeper: Keeper, orders: Orders, deadline: Deadline, grace: Duration, entry: Entry) -> Self {
        Self { keeper, orders, deadline, grace, entry, ending: None, orders_over: false, gone: false, last_exit: None }
    }

    /// Runs a program until it ends. An error says why the attempt is over; then nothing of it runs any more.
    pub async fn run(&mut self, command: Command, outputs: WriteEnds, by: Option<Deadline>) -> Result<Ran, Cut> {
        self.last_exit = None;
        self.obey().await;
        if self.ending.is_none() {
            self.order(command, outputs, by).await;
        }
        loop {
            match self.next(by).await? {
                Event::Started => {}
                Event::Exited { exit } => return Ok(Ran { exit, message: None }),
                Event::CannotStart { code, message } => {
                    return Ok(Ran { exit: Exit::ExitCode(code), message: Some(message) });
                }
                Event::Unable { message } => {
                    self.end(Cut::Failed(Failure::Internal { message }), Duration::ZERO).await;
                }
                Event::Gone => return Err(self.lost().await),
            }
        }
    }

    /// Orders the keeper to run a program. One that a job keeps from listening mustn't keep the orders and the deadline
    /// from being heard: it is killed, and what it kept is looked for.
    async fn order(&mut self, command: Command, outputs: WriteEnds, by: Option<Deadline>) {
        let WriteEnds { stdout, stderr } = outputs;
        let deadline = self.nearest(by);
        self.keeper.wake();
        let ordered = tokio::select! {
            biased;
            ordered = self.keeper.run(command, stdout, stderr) => ordered.map_err(|error| {
                Failure::Internal { message: format!("ordering the keeper to run something: {error}") }
            }),
            () = sleep_until(deadline.at.into()) => Err(Failure::TimedOut { limit: deadline.limit }),
            _ = self.orders.changed(), if !self.orders_over => {
                self.keeper.kill();
                return self.obey().await;
            }
        };
        if let Err(failure) = ordered {
            self.keeper.kill();
            self.end(Cut::Failed(failure), Duration::ZERO).await;
        }
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
            let deadline = self.nearest(by);
            let wake_at = clock::instant() + WAKE_EVERY;
            tokio::select! {
                biased;
                changed = self.orders.changed(), if !self.orders_over => {
                    self.orders_over = changed.is_err();
                    self.obey().await;
                }
                () = sleep_until(deadline.at.into()), if self.ending.is_none() => {
                    let failure = Failure::TimedOut { limit: deadline.limit };
                    self.end(Cut::Failed(failure), self.grace).await;
                }
                event = self.keeper.next() => match (event, &self.ending) {
                    (None, _) => return Err(self.lost().await),
                    (Some(event), None) => return Ok(event),
                    (Some(Event::Gone), Some(ending)) => {
                        self.gone = true;
                        return Err(ending.cut.clone());
                    }
                    (Some(Event::Exited { exit }), Some(_)) => self.last_exit = Some(exit),
                    (Some(_), Some(_)) => {}
                },
                () = sleep_until(wake_at.into()), if self.ending.is_some() => self.wake().await,
            }
        }
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
        self.keeper.stop(grace).await;
    }

    /// The keeper is gone without a word: somebody killed it. What it kept may have got away from it.
    async fn lost(&mut self) -> Cut {
        self.sweep(|entry| sweep::end(&[entry])).await;
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
            self.sweep(|entry| sweep::kill_once(&entry)).await;
        }
    }

    async fn sweep(&self, sweep: fn(Entry)) {
        let entry = self.entry.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || sweep(entry)).await {
            tracing::error!(%error, "looking for what an attempt has left");
        }
    }
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Self::Failed(Failure::Internal { message: error.to_string() })
    }
}
