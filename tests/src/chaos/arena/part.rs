//! A process under test: it is started, killed, told to end and frozen on purpose, and watched for what it does by itself.
//! Nothing here waits: [`Part::look`] is called again and again.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shared::clock;

use crate::process::{self, Owned, Starter};
use crate::spooled::spooled;
use crate::windlass::windlass;

/// How long after its end it is started again, at first and at most: whoever ends at each start is left alone for longer.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(8);
/// How long one that was told to end and has nothing to do may take to do so.
const IDLE_MAX: Duration = Duration::from_secs(6);
/// How much of its log is shown of one that has ended by itself.
const TAIL_LINES: usize = 20;
/// Which lines the processes log.
const LOG: &str = "WINDLASS_LOG";

/// How a process is started, each time alike.
#[derive(Debug)]
pub struct Recipe {
    /// What it is called, like `coordinator 1`.
    pub name: String,
    pub arguments: Vec<String>,
    pub settings: Vec<(String, String)>,
    /// What a line of its log says once it serves.
    pub says: &'static str,
    /// How long after each SIGTERM the next one follows; after the last one it should have ended.
    pub patience: &'static [Duration],
    /// A worker's data: while there is an entry in its spool, it may let something come to its end first.
    pub data: Option<PathBuf>,
    /// Where its log goes, of all its starts.
    pub log: PathBuf,
}

/// A process that there is to be.
#[derive(Debug)]
pub struct Part {
    pub recipe: Recipe,
    life: Life,
    /// Whether it shall run.
    wanted: bool,
    /// How long it was left alone after it had ended by itself.
    alone: Duration,
    /// Where the log of this start begins.
    log_from: u64,
    /// The line that says that this start serves.
    ready: Option<String>,
    /// What it did that nobody asked for.
    pub findings: Vec<String>,
}

#[derive(Debug)]
enum Life {
    Runs(Owned),
    Ends(Ending),
    /// Since then.
    Gone(Instant),
}

/// A process that was told to end.
#[derive(Debug)]
struct Ending {
    process: Owned,
    /// How often it was told, and when for the last time.
    told: usize,
    since: Instant,
    /// When it had something to do for the last time.
    busy: Instant,
}

impl Part {
    /// One that is started at the first look.
    pub fn new(recipe: Recipe) -> Self {
        let life = Life::Gone(clock::instant());
        Self { recipe, life, wanted: true, alone: Duration::ZERO, log_from: 0, ready: None, findings: Vec::new() }
    }

    /// The number of the process, while there is one.
    pub fn pid(&self) -> Option<i32> {
        match &self.life {
            Life::Runs(process) | Life::Ends(Ending { process, .. }) => Some(process.pid()),
            Life::Gone(_) => None,
        }
    }

    /// The line with which this start said that it serves.
    pub fn ready(&self) -> Option<&str> {
        self.ready.as_deref().filter(|_| matches!(self.life, Life::Runs(_)))
    }

    /// Ends it with SIGKILL, for as long as it isn't wanted again.
    pub fn kill(&mut self) {
        self.write(&self.recipe.log, "SIGKILL");
        self.wanted = false;
        self.gone();
    }

    /// Tells it to end, for as long as it isn't wanted again.
    pub fn terminate(&mut self) {
        self.wanted = false;
        match self.take_life() {
            Life::Runs(process) => {
                self.write(&self.recipe.log, "SIGTERM");
                process::send(process.pid(), Signal::SIGTERM);
                let now = clock::instant();
                self.life = Life::Ends(Ending { process, told: 1, since: now, busy: now });
            }
            // Who is told already isn't told again, nor is somebody else.
            other @ (Life::Ends(_) | Life::Gone(_)) => self.life = other,
        }
    }

    /// Has it started again as soon as it has ended.
    pub fn want(&mut self) {
        self.wanted = true;
        self.alone = Duration::ZERO;
    }

    /// Stops it where it stands, or lets it go on.
    pub fn signal(&self, signal: Signal) {
        self.write(&self.recipe.log, signal.as_str());
        if let Life::Runs(process) = &self.life {
            process::send(process.pid(), signal);
        }
    }

    /// Starts it where it is to run and doesn't; sees whether it has ended, or serves by now. Whether that is new.
    pub fn look(&mut self, starter: &Starter) -> bool {
        match self.take_life() {
            Life::Runs(mut process) => match process.0.try_wait().expect("its state") {
                None => {
                    self.life = Life::Runs(process);
                    return self.ready.is_none() && self.becomes_ready();
                }
                Some(status) => {
                    self.alone = (self.alone * 2).clamp(AGAIN_AFTER, AGAIN_AFTER_MAX);
                    let said = self.said();
                    let lines: Vec<&str> = said.lines().collect();
                    let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
                    self.finding(&format!("ended by itself ({status}):\n{tail}"));
                }
            },
            Life::Ends(mut ending) => {
                if ending.process.0.try_wait().expect("its state").is_none() {
                    self.insist(ending);
                }
            }
            Life::Gone(since) if self.wanted && since.elapsed() >= self.alone => self.start(starter),
            gone @ Life::Gone(_) => self.life = gone,
        }
        false
    }

    fn becomes_ready(&mut self) -> bool {
        self.ready = self.said().lines().find(|line| line.contains(self.recipe.says)).map(str::to_owned);
        self.ready.is_some()
    }

    /// What all its starts have written.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.recipe.log).unwrap_or_default()).into_owned()
    }

    /// Tells it once more to end, when it was given enough time; and in the end doesn't ask.
    fn insist(&mut self, mut ending: Ending) {
        let is_busy = self.recipe.data.as_ref().is_some_and(|dir| !spooled(dir).is_empty());
        if is_busy {
            ending.busy = clock::instant();
        }
        let patience = self.recipe.patience;
        if ending.since.elapsed() < patience[ending.told - 1] {
            self.life = Life::Ends(ending);
            return;
        }
        let idle = ending.busy.elapsed();
        if self.recipe.data.is_some() && ending.told == 1 && idle > IDLE_MAX {
            self.finding(&format!("was told to end, had nothing left to do and didn't end within {idle:?}"));
        }
        if ending.told < patience.len() {
            self.write(&self.recipe.log, "SIGTERM once more");
            process::send(ending.process.pid(), Signal::SIGTERM);
            self.life = Life::Ends(Ending { told: ending.told + 1, since: clock::instant(), ..ending });
        } else {
            let Ending { told, since, .. } = ending;
            self.finding(&format!("was told {told} times to end and hadn't {:?} after the last", since.elapsed()));
        }
    }

    fn start(&mut self, starter: &Starter) {
        let Recipe { arguments, settings, log, .. } = &self.recipe;
        self.write(log, "started");
        let mut command = windlass();
        command.args(arguments).envs(settings.iter().map(|(name, value)| (name, value)));
        // Whoever looks into a failing run can ask for more lines.
        command.envs(std::env::var(LOG).map(|filter| (LOG, filter)));
        let out = File::options().append(true).open(log).expect("its log");
        self.log_from = out.metadata().expect("its log").len();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out);
        self.ready = None;
        self.life = Life::Runs(starter.bound(command));
    }

    /// Its life, which is over unless the caller gives it back.
    fn take_life(&mut self) -> Life {
        std::mem::replace(&mut self.life, Life::Gone(clock::instant()))
    }

    fn gone(&mut self) {
        // Who had it ends it.
        drop(self.take_life());
    }

    fn finding(&mut self, what: &str) {
        self.write(&self.recipe.log, what.lines().next().unwrap_or_default());
        self.findings.push(format!("{} {what}", self.recipe.name));
    }

    /// What it has written since its last start.
    fn said(&self) -> String {
        let mut bytes = Vec::new();
        let mut file = File::open(&self.recipe.log).expect("its log");
        let read = file.seek(SeekFrom::Start(self.log_from)).and_then(|_| file.read_to_end(&mut bytes));
        read.expect("its log");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Notes in its log what was done to it.
    fn write(&self, log: &Path, what: &str) {
        let mut file = File::options().create(true).append(true).open(log).expect("its log");
        writeln!(file, "=== {} {}: {what}", clock::now(), self.recipe.name).expect("a line");
    }
}
