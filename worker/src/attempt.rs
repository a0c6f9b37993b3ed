//! One attempt from its grant to its end: prepare, run the steps, leave nothing behind.
//!
//! [`Attempt::run`] is the work itself, without actors and without the bus. It tells of its progress through a queue and
//! returns how the attempt ended; who reports that, and what becomes of a panic in here, is for the runner to say.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use shared::clock;
use shared::job::{AttemptEnd, Exit, Failure, Limit, Progress};
use shared::log::Stream;
use shared::secret::Secrets;
use shared::spec::{STEPS_MAX, Step};
use shared::wire::Grant;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::Config;
use crate::checkout::mirror::Mirrors;
use crate::deploy_key::policy::TRIES_MAX;
use crate::deploy_key::{Fetched, FetchedKey, Fetching, KeyTry, Told};
use crate::keeper::cgroup::Cgroup;
use crate::keeper::lifeline::Lifeline;
use crate::keeper::{Command, Keeper};
use crate::output::Log;
use crate::output::mask::Forms;
use crate::output::pump::{Ended, Outputs, Sink};
use crate::spool::{Conclusion, Entry, LetGo};
use directories::Directories;
use environment::{Environment, Sources};
use preparation::Prepared;
use processes::{Bounds, Cut, Deadline, Orders, Processes};

pub mod directories;
pub mod environment;
mod preparation;
pub mod processes;

/// How long output that a process left behind holds open is waited for.
const LEAK_WITHIN: Duration = Duration::from_secs(2);
/// How long a tap that is full is waited for once the attempt is being stopped.
const TAP_WITHIN: Duration = Duration::from_secs(2);
/// The most reports of progress that one attempt makes: a start and an end for each step, the checkout, and the tries
/// to fetch its deploy key.
pub const PROGRESS_MAX: usize = 2 * STEPS_MAX + 1 + TRIES_MAX;

/// Everything that one attempt needs.
pub struct Attempt {
    pub config: Arc<Config>,
    pub grant: Arc<Grant>,
    pub secrets: Secrets,
    /// When the grant was heard: the job's timeout counts from there.
    pub granted: Instant,
    /// Its entry in the spool.
    pub entry: Entry,
    /// Where it must not outlive its lease.
    pub lifeline: Option<Arc<Lifeline>>,
    pub directories: Directories,
    pub log: Log,
    /// Has room for [`PROGRESS_MAX`] reports.
    pub progress: mpsc::Sender<Progress>,
    pub orders: Orders,
    /// Where it hears of its deploy key, if it has one.
    pub fetching: Option<Fetching>,
    /// Holds the sockets of ssh-agents.
    pub agents: PathBuf,
    pub mirrors: Arc<Mirrors>,
}

impl Attempt {
    /// Does it all. When it returns, no process of the attempt is left; its directories still are.
    pub async fn run(mut self) -> Conclusion {
        #[cfg(feature = "bench")]
        if self.config.no_op {
            return self.pretend();
        }
        let ended = match self.processes().await {
            Ok(mut processes) => {
                let ended = self.work(&mut processes).await;
                processes.finish().await;
                ended
            }
            Err(cut) => Err(cut),
        };
        match ended {
            Ok(()) => Conclusion::Ended(AttemptEnd::Succeeded),
            Err(Cut::Stopped) => Conclusion::Ended(AttemptEnd::Stopped),
            Err(Cut::Failed(failure)) => Conclusion::Ended(AttemptEnd::Failed { failure }),
            Err(Cut::LetGo(why)) => Conclusion::LetGo(why),
        }
    }

    /// Tells what a run would tell whose steps succeed.
    #[cfg(feature = "bench")]
    fn pretend(&self) -> Conclusion {
        for (step, _) in (0..).zip(&self.grant.spec.steps) {
            self.tell(Progress::StepStarted { step });
            self.tell(Progress::StepFinished { step, exit: Exit::ExitCode(0) });
        }
        Conclusion::Ended(AttemptEnd::Succeeded)
    }

    async fn processes(&self) -> Result<Processes, Cut> {
        let directories = self.directories.clone();
        let cgroup = self.entry.cgroup.clone();
        let made = tokio::task::spawn_blocking(move || {
            directories.make()?;
            // Without a cgroup the keeper ends the tree all the same.
            Ok(cgroup.filter(|dir| Cgroup::make(dir).is_ok()))
        });
        let cgroup: Option<PathBuf> = made.await.unwrap_or_else(|panic| Err(io::Error::other(panic)))?;
        let keeper = match self.keeper(cgroup.as_deref()).await {
            Ok(keeper) => keeper,
            Err(error) => {
                // There is no keeper to remove it.
                cgroup.as_deref().and_then(Cgroup::existing).iter().for_each(Cgroup::remove);
                return Err(error.into());
            }
        };
        let spec = &self.grant.spec;
        let bounds = Bounds {
            orders: self.orders.clone(),
            deadline: Deadline { at: self.granted + spec.timeout.duration(), limit: Limit::Job },
            grace: spec.grace.duration(),
            entry: self.entry.clone(),
            adopts: self.config.adopts,
        };
        Ok(Processes::new(keeper, bounds))
    }

    async fn keeper(&self, cgroup: Option<&Path>) -> io::Result<Keeper> {
        let mut keeper = Keeper::start(&self.config.keeper, cgroup)?;
        if let Some(lifeline) = &self.lifeline {
            keeper.watch(lifeline).await?;
        }
        Ok(keeper)
    }

    async fn work(&mut self, processes: &mut Processes) -> Result<(), Cut> {
        let forms = Forms::of(&self.secrets).map_err(|error| {
            Cut::Failed(Failure::Internal { message: format!("preparing the masking of secrets: {error}") })
        })?;
        let forms = forms.map(Arc::new);
        let key = self.key(processes).await?;
        // Whatever of the key isn't in here is gone before the first step.
        let prepared = self.prepare(processes, key).await?;
        for (index, step) in self.grant.spec.steps.iter().enumerate() {
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let sink = Sink { log: self.log.clone(), step: number, forms: forms.clone(), tap: self.config.tap.clone() };
            let env = self.environment(&prepared, index);
            self.step(step, &sink, &env, processes).await?;
        }
        if let Some(agent) = prepared.agent {
            agent.end().await;
        }
        Ok(())
    }

    /// The attempt's deploy key, where its job names one: what has to be there before anything costly is begun.
    async fn key(&mut self, processes: &mut Processes) -> Result<Option<FetchedKey>, Cut> {
        let (Some(mut fetching), Some(named)) = (self.fetching.take(), self.grant.spec.deploy_key()) else {
            return Ok(None);
        };
        let over = processes.beside(async {
            loop {
                match fetching.recv().await {
                    Some(Told::Try(KeyTry { number, answer, why, next_in })) => {
                        self.tell(Progress::KeyTry { number, answer, why, next_in });
                    }
                    Some(Told::Over(over)) => return Some(over),
                    None => return None,
                }
            }
        });
        let key = &named.name;
        let failure = match over.await? {
            Some(Fetched::Key(key)) => return Ok(Some(key)),
            Some(Fetched::Park) => return Err(Cut::LetGo(LetGo::Park { key: key.clone(), wait: named.wait })),
            Some(Fetched::GiveBack) => return Err(Cut::LetGo(LetGo::GiveBack {})),
            Some(Fetched::Missing) => {
                let message = format!("the deploy key {key} is not registered (`windlass key add {key}` registers it)");
                Failure::DeployKeyMissing { message }
            }
            Some(Fetched::Denied { why }) => {
                Failure::DeployKeyDenied { message: format!("the deploy key {key} was denied: {why}") }
            }
            None => Failure::Internal {
                message: format!("the fetcher of the deploy key {key} died too often; the worker's log says more"),
            },
        };
        Err(Cut::Failed(failure))
    }

    fn environment(&self, prepared: &Prepared, step: usize) -> Environment {
        let sources = Sources {
            base: &self.config.base_env,
            path: std::env::var_os("PATH"),
            directories: &self.directories,
            secrets: &self.secrets,
            commit: prepared.commit.as_ref(),
            ssh: prepared.ssh.as_ref(),
        };
        environment::of_step(&sources, &self.grant, step)
    }

    async fn step(&self, step: &Step, sink: &Sink, env: &Environment, processes: &mut Processes) -> Result<(), Cut> {
        let number = sink.step;
        let (mut outputs, write_ends) = Outputs::open(sink)?;
        self.tell(Progress::StepStarted { step: number });
        self.config.fault("step");
        let limit = Limit::Step(number);
        let by = step.timeout.map(|timeout| Deadline { at: clock::instant() + timeout.duration(), limit });
        let command = command(step, env, &self.directories.tree());
        let ran = processes.run(command, write_ends, by).await;
        let exit = ran.as_ref().map_or_else(|_| processes.last_exit(), |ran| Some(ran.exit));
        if let Some(exit) = exit {
            self.tell(Progress::StepFinished { step: number, exit });
        }
        if ran.is_ok() {
            let leak = tokio::select! {
                () = outputs.ended() => false,
                // The order is obeyed before anything else is run.
                () = processes.ordered() => false,
                () = sleep(LEAK_WITHIN) => true,
            };
            // Whoever reads the tap may take their time, until the job is told to stop.
            let give_up = async {
                processes.ordered().await;
                sleep(TAP_WITHIN).await;
            };
            if outputs.close(give_up).await == Ended::Told && leak {
                let after = LEAK_WITHIN.as_secs();
                let text = format!("a process that the step left behind held its output open: closed after {after} s");
                self.say(Some(number), &text);
            }
        } else {
            let _ = timeout(LEAK_WITHIN, outputs.ended()).await;
            outputs.close(sleep(TAP_WITHIN)).await;
        }
        let ran = ran?;
        match ran.exit {
            Exit::ExitCode(0) => Ok(()),
            exit => Err(Cut::Failed(Failure::StepFailed { step: number, exit, message: ran.message })),
        }
    }

    /// Tells the coordinator. The queue has room for all that an attempt can tell.
    fn tell(&self, progress: Progress) {
        if let Err(error) = self.progress.try_send(progress) {
            tracing::error!(%error, "a report of progress is lost");
        }
    }

    /// Says something in the log in Windlass's own name, and in the tap.
    fn say(&self, step: Option<u32>, text: &str) {
        self.log.say(step, text);
        if let Some(tap) = &self.config.tap {
            // One that is full is busy with the steps' own output, which matters more.
            let _ = tap.try_send((Stream::Windlass, Bytes::from(format!("{text}\n"))));
        }
    }
}

fn command(step: &Step, env: &Environment, tree: &Path) -> Command {
    let argv = step.action.argv();
    let env = env.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()));
    Command::new(argv.iter().map(AsRef::as_ref), env, tree)
}
