//! What outlives a crash of the worker: that an attempt was granted, before its first process starts, and how it ended,
//! before that is told. Each leaves when the coordinator has taken or refused it for good.
//!
//! It is a journal with one writer, a thread that takes all that waits, writes it at once and has it synced once, while
//! the next gathers: a lone entry waits for no company, and a thousand cost little more than one. Nothing here is secret.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde::{Deserialize, Serialize};
use shared::id::{Attempt, Epoch, JobId};
use shared::job::AttemptEnd;
use shared::log::LogSummary;
use shared::time::Period;
use shared::wire::{Report, ReportKind};
use tokio::sync::{mpsc, oneshot};

use journal::{Change, Journal};
use record::Record;
use segment::{Create, create};

pub mod found;
mod journal;
pub mod record;
mod segment;
#[cfg(test)]
mod tests;

/// What is written to see whether the disk takes anything: as much as an entry with a long message has.
const PROBE_BYTES: usize = 16 * 1024;
/// How much may wait for the writer: a grant, an outcome and a removal for each slot that a worker may have. Only a disk that
/// stands still lets so much gather, and then the next caller waits.
const WAITING_MAX: usize = 3 * crate::SLOTS_MAX as usize;
/// How much is written at once.
const BATCH_MAX: usize = 1024;

/// The spool of one worker. Its writer ends when the last copy of this is dropped and what was given to it is written.
#[derive(Debug, Clone)]
pub struct Spool {
    writer: mpsc::Sender<Asked>,
    takes: Arc<AtomicBool>,
}

/// What somebody wants of the writer.
#[derive(Debug)]
struct Asked {
    change: Option<Change>,
    /// Where it is told that it is done, if anybody waits for that.
    told: Option<oneshot::Sender<io::Result<()>>>,
}

/// One attempt in the spool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub job: JobId,
    pub attempt: Attempt,
    /// The highest epoch that was heard of the job's shard when this was written: the grant's, or a later one. A file of a
    /// version that didn't keep it has none, which is lower than any.
    #[serde(default)]
    pub epoch: Epoch,
    /// The cgroup that its processes are put into, where there is one.
    pub cgroup: Option<PathBuf>,
    /// What became of it; none while it may run.
    pub outcome: Option<Outcome>,
}

/// What became of an attempt, when nothing of it runs any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub end: Conclusion,
    pub log: LogSummary,
}

/// How an attempt was concluded. The two are told apart by their tags: a file of a version that knew ends alone has one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Conclusion {
    Ended(AttemptEnd),
    LetGo(LetGo),
}

/// Why a worker lets an attempt go that hasn't ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "let_go", rename_all = "snake_case")]
pub enum LetGo {
    /// Its deploy key isn't registered: the job shall wait for it, that long at most.
    Park { key: String, wait: Period },
    /// Nobody could say whether its deploy key is there: the job shall be offered again.
    GiveBack {},
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(end) => end.fmt(f),
            Self::LetGo(LetGo::Park { key, .. }) => write!(f, "parked until the deploy key {key} is registered"),
            Self::LetGo(LetGo::GiveBack {}) => {
                f.write_str("given back: nobody could say whether its deploy key is there")
            }
        }
    }
}

impl Outcome {
    /// The report that tells it.
    pub fn report(self, job: JobId, attempt: Attempt) -> Report {
        let Self { end, log } = self;
        let what = match end {
            Conclusion::Ended(end) => ReportKind::End { end, log },
            Conclusion::LetGo(LetGo::Park { key, wait }) => ReportKind::Park { key, wait, log },
            Conclusion::LetGo(LetGo::GiveBack {}) => ReportKind::GiveBack { log },
        };
        Report { job, attempt, what }
    }
}

impl Spool {
    /// The spool in that directory, which is made where it is missing and which nobody else may be using, and what an earlier
    /// start has left in it. What can't be read there is put aside, and said.
    pub fn open(dir: PathBuf) -> io::Result<(Self, Vec<Entry>)> {
        Self::with(dir, Box::new(create))
    }

    fn with(dir: PathBuf, create: Create) -> io::Result<(Self, Vec<Entry>)> {
        let (journal, left) = Journal::open(dir, create)?;
        let (writer, asked) = mpsc::channel(WAITING_MAX);
        let takes = Arc::new(AtomicBool::new(true));
        let taking = takes.clone();
        thread::Builder::new().name("spool".to_owned()).spawn(move || write(journal, asked, &taking))?;
        Ok((Self { writer, takes }, left))
    }

    /// Writes the entry, in place of one that the attempt has already. It is on disk when this returns.
    pub async fn put(&self, entry: &Entry) -> io::Result<()> {
        let line = record::line(&Record::Put(entry))?;
        self.done(Some(Change::Put { key: (entry.job, entry.attempt), line })).await
    }

    /// Removes the attempt's entry, if there is one, without waiting for the disk. One whose removal is lost is told again
    /// by the next start, which changes nothing.
    pub async fn remove(&self, job: JobId, attempt: Attempt) -> io::Result<()> {
        let line = record::line(&Record::Removed { job, attempt })?;
        self.ask(Asked { change: Some(Change::Remove { key: (job, attempt), line }), told: None }).await
    }

    /// Whether an entry could be written now: writes something of the size of a large one that means nothing.
    pub async fn probe(&self) -> io::Result<()> {
        let line = record::line(&Record::Blank(" ".repeat(PROBE_BYTES)))?;
        self.done(Some(Change::Blank { line })).await
    }

    /// Whether the disk took what was written last.
    pub fn takes(&self) -> bool {
        self.takes.load(Ordering::Acquire) && !self.writer.is_closed()
    }

    /// Returns when all that was given to the spool is written, so that a process that ends leaves no removal behind.
    pub async fn settled(&self) -> io::Result<()> {
        self.done(None).await
    }

    async fn done(&self, change: Option<Change>) -> io::Result<()> {
        let (told, done) = oneshot::channel();
        self.ask(Asked { change, told: Some(told) }).await?;
        done.await.unwrap_or_else(|_| Err(writer_died()))
    }

    async fn ask(&self, asked: Asked) -> io::Result<()> {
        self.writer.send(asked).await.map_err(|_| writer_died())
    }
}

fn writer_died() -> io::Error {
    io::Error::other("the spool's writer died")
}

/// Writes what is asked for, until nobody can ask any more.
fn write(mut journal: Journal, mut asked: mpsc::Receiver<Asked>, takes: &AtomicBool) {
    let mut batch = Vec::new();
    while asked.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        let (changes, told): (Vec<_>, Vec<_>) = batch.drain(..).map(|Asked { change, told }| (change, told)).unzip();
        let changes: Vec<Change> = changes.into_iter().flatten().collect();
        let is_tried = changes.iter().any(Change::is_to_last);
        let written = if changes.is_empty() { Ok(()) } else { journal.write(changes) };
        match &written {
            Ok(()) if is_tried => takes.store(true, Ordering::Release),
            Ok(()) => {}
            Err(error) => {
                takes.store(false, Ordering::Release);
                // Who waits for it says it.
                if !is_tried {
                    tracing::error!(%error, "removing attempts from the spool: they may be told again");
                }
            }
        }
        for told in told.into_iter().flatten() {
            let copy = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
            // Who doesn't wait any more has nothing to do with it.
            let _ = told.send(written.as_ref().copied().map_err(copy));
        }
        journal.tidy();
    }
}
