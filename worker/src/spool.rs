//! What outlives a crash of the worker: that an attempt was granted, before its first process starts, and how it ended,
//! before that is told. Each leaves when the coordinator has taken or refused it for good.
//!
//! One file an attempt, replaced as a whole, so that a crash leaves the old one or the new one. Nothing here is secret.

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use shared::id::{Attempt, Epoch, JobId};
use shared::job::AttemptEnd;
use shared::log::LogSummary;
use shared::time::Period;
use shared::wire::{Report, ReportKind};

use crate::attempt::directories::private;
use crate::durable;

const SUFFIX: &str = "json";
/// What is written to see whether the disk takes anything: as much as an entry with a long message has.
const PROBE_BYTES: usize = 16 * 1024;

/// The spool of one worker. Every call blocks until the disk has it.
#[derive(Debug, Clone)]
pub struct Spool {
    dir: PathBuf,
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
    /// The spool in that directory, which is made where it is missing and which nobody else may be using: what a crash has
    /// left half written there is removed.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        private(&dir)?;
        durable::remove_unfinished(&dir)?;
        Ok(Self { dir })
    }

    /// Writes the entry, in place of one that the attempt has already.
    pub fn put(&self, entry: &Entry) -> io::Result<()> {
        durable::replace(&self.path(entry.job, entry.attempt), &serde_json::to_vec(entry)?)
    }

    /// Removes the attempt's entry, if there is one.
    pub fn remove(&self, job: JobId, attempt: Attempt) -> io::Result<()> {
        durable::remove(&self.path(job, attempt))
    }

    /// Whether an entry could be written now: writes something of the size of a large one and removes it again.
    pub fn probe(&self) -> io::Result<()> {
        let path = self.dir.join("probe");
        durable::replace(&path, &[b'\n'; PROBE_BYTES])?;
        durable::remove(&path)
    }

    /// Everything in the spool. A file that can't be read as an entry is put aside, and said.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let path = file?.path();
            if path.extension().is_none_or(|extension| extension != SUFFIX) {
                continue;
            }
            match serde_json::from_slice(&fs::read(&path)?) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::error!(%error, path = %path.display(), "a file of the spool can't be read: it is put aside");
                    fs::rename(&path, path.with_extension("unreadable"))?;
                }
            }
        }
        Ok(entries)
    }

    fn path(&self, job: JobId, attempt: Attempt) -> PathBuf {
        self.dir.join(format!("{job}-{attempt}.{SUFFIX}"))
    }
}

#[cfg(test)]
mod tests {
    use shared::id::Shard;
    use shared::job::{Exit, Failure};
    use shared::time::Time;

    use super::*;

    fn entry(n: u8) -> Entry {
        let job = JobId::mint(Shard::new(3).unwrap(), Time::from_micros(1_000_000), [n; 10]);
        Entry { job, attempt: Attempt(2), epoch: Epoch(5), cgroup: Some("/sys/fs/cgroup/x".into()), outcome: None }
    }

    #[test]
    fn an_outcome_replaces_the_grant_and_leaves_when_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path().join("spool")).unwrap();
        spool.put(&entry(1)).unwrap();
        let ended = with(1, Conclusion::Ended(AttemptEnd::Stopped));
        spool.put(&ended).unwrap();
        assert_eq!(Spool::open(dir.path().join("spool")).unwrap().entries().unwrap(), [ended]);
        spool.remove(entry(1).job, Attempt(2)).unwrap();
        spool.remove(entry(1).job, Attempt(2)).unwrap();
        assert_eq!(spool.entries().unwrap(), []);
    }

    fn with(n: u8, end: Conclusion) -> Entry {
        Entry { outcome: Some(Outcome { end, log: LogSummary::default() }), ..entry(n) }
    }

    #[test]
    fn every_conclusion_is_read_again_and_one_of_an_older_version_too() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path().to_owned()).unwrap();
        let park = LetGo::Park { key: "app".to_owned(), wait: Period::from_secs(600) };
        for end in
            [Conclusion::Ended(AttemptEnd::Succeeded), Conclusion::LetGo(park), Conclusion::LetGo(LetGo::GiveBack {})]
        {
            spool.put(&with(1, end.clone())).unwrap();
            assert_eq!(spool.entries().unwrap(), [with(1, end)]);
        }
        let failure = Failure::StepFailed { step: 0, exit: Exit::ExitCode(3), message: None };
        let failed = with(1, Conclusion::Ended(AttemptEnd::Failed { failure }));
        let log = serde_json::to_string(&LogSummary::default()).unwrap();
        let older = format!(
            r#"{{"job":"{}","attempt":2,"cgroup":"/sys/fs/cgroup/x","outcome":
            {{"end":{{"end":"failed","failure":{{"reason":"step_failed","step":0,"exit_code":3}}}},"log":{log}}}}}"#,
            entry(1).job
        );
        fs::write(spool.path(entry(1).job, Attempt(2)), older).unwrap();
        assert_eq!(spool.entries().unwrap(), [Entry { epoch: Epoch(0), ..failed }]);
    }

    #[test]
    fn half_a_file_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path().to_owned()).unwrap();
        spool.put(&entry(1)).unwrap();
        fs::write(dir.path().join("half.new"), "{").unwrap();
        let spool = Spool::open(spool.dir).unwrap();
        assert!(!dir.path().join("half.new").exists());
        fs::write(dir.path().join("broken.json"), "{").unwrap();
        assert_eq!(spool.entries().unwrap(), [entry(1)]);
        assert_eq!(spool.entries().unwrap(), [entry(1)]);
    }
}
