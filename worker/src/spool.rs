//! What outlives a crash of the worker: that an attempt was granted, before its first process starts, and how it ended,
//! before that is told. Each leaves when the coordinator has taken or refused it for good.
//!
//! One file an attempt, replaced as a whole, so that a crash leaves the old one or the new one. Nothing here is secret.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use shared::id::{Attempt, JobId};
use shared::job::AttemptEnd;
use shared::log::LogSummary;

use crate::attempt::directories::private;

/// What the owner alone may read.
const PRIVATE: u32 = 0o600;
const SUFFIX: &str = "json";

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
    /// The cgroup that its processes are put into, where there is one.
    pub cgroup: Option<PathBuf>,
    /// How it ended; none while it may run.
    pub outcome: Option<Outcome>,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    pub end: AttemptEnd,
    pub log: LogSummary,
}

impl Spool {
    /// The spool in that directory, which is made where it is missing.
    pub fn open(dir: PathBuf) -> io::Result<Self> {
        private(&dir)?;
        Ok(Self { dir })
    }

    /// Writes the entry, in place of one that the attempt has already.
    pub fn put(&self, entry: &Entry) -> io::Result<()> {
        let path = self.path(entry.job, entry.attempt);
        let fresh = path.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(PRIVATE).open(&fresh)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        sync(&self.dir)
    }

    /// Removes the attempt's entry, if there is one.
    pub fn remove(&self, job: JobId, attempt: Attempt) -> io::Result<()> {
        match fs::remove_file(self.path(job, attempt)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync(&self.dir),
        }
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

/// Makes sure that the names in `dir` are on disk.
fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use shared::id::Shard;
    use shared::time::Time;

    use super::*;

    fn entry(n: u8) -> Entry {
        let job = JobId::mint(Shard::new(3).unwrap(), Time::from_micros(1_000_000), [n; 10]);
        Entry { job, attempt: Attempt(2), cgroup: Some("/sys/fs/cgroup/x".into()), outcome: None }
    }

    #[test]
    fn an_outcome_replaces_the_grant_and_leaves_when_it_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path().join("spool")).unwrap();
        spool.put(&entry(1)).unwrap();
        let ended =
            Entry { outcome: Some(Outcome { end: AttemptEnd::Stopped, log: LogSummary::default() }), ..entry(1) };
        spool.put(&ended).unwrap();
        assert_eq!(Spool::open(dir.path().join("spool")).unwrap().entries().unwrap(), [ended]);
        spool.remove(entry(1).job, Attempt(2)).unwrap();
        spool.remove(entry(1).job, Attempt(2)).unwrap();
        assert_eq!(spool.entries().unwrap(), []);
    }

    #[test]
    fn half_a_file_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::open(dir.path().to_owned()).unwrap();
        spool.put(&entry(1)).unwrap();
        fs::write(dir.path().join("half.new"), "{").unwrap();
        fs::write(dir.path().join("broken.json"), "{").unwrap();
        assert_eq!(spool.entries().unwrap(), [entry(1)]);
        assert_eq!(spool.entries().unwrap(), [entry(1)]);
    }
}
