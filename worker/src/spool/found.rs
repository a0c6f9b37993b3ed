//! What a start finds in the spool: the segments of the journal, and what an older version has written, a file for each
//! attempt. Nothing is changed by looking.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use super::Entry;
use super::journal::Key;
use super::record::{self, Damage, RECORD_BYTES_MAX, Record};
use crate::durable::remove_if_there;

/// What a segment's name ends with; before that stands its number.
pub const SUFFIX: &str = "journal";
/// What the name of a file ends with that has one attempt's entry.
const SINGLE: &str = "json";
/// What the name of a file ends with of which something couldn't be read.
const UNREADABLE: &str = "unreadable";

/// What is in a spool.
pub struct Found {
    pub entries: HashMap<Key, Entry>,
    /// The files that this was read from.
    pub spent: Vec<Spent>,
    /// The highest number that a file has.
    pub last: u64,
}

/// A file whose entries are elsewhere as well.
pub struct Spent {
    pub path: PathBuf,
    /// Whether all of it could be read; else somebody may want to look at it.
    pub is_read: bool,
}

impl Spent {
    /// Removes the file, or puts it aside.
    pub fn leave(&self) -> io::Result<()> {
        if self.is_read {
            remove_if_there(&self.path).map(drop)
        } else {
            fs::rename(&self.path, self.path.with_extension(UNREADABLE))
        }
    }

    /// Says that it stays: what it holds may be told again by the next start.
    pub fn stays(&self, error: &io::Error) {
        tracing::warn!(%error, path = %self.path.display(), "a file of the spool stays that isn't needed any more");
    }
}

/// What is in the spool in that directory.
///
/// # Errors
/// When something can't be read. What can be read and makes no sense is said instead.
pub fn in_dir(dir: &Path) -> io::Result<Found> {
    let mut found = Found { entries: HashMap::new(), spent: Vec::new(), last: 0 };
    let (mut segments, mut singles) = (Vec::new(), Vec::new());
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or(0);
        found.last = found.last.max(number);
        match path.extension().and_then(|extension| extension.to_str()) {
            Some(SUFFIX) => segments.push((number, path)),
            Some(SINGLE) => singles.push(path),
            _ => {}
        }
    }
    segments.sort();
    // What is in a journal was written later: whatever an older version has left is moved there at the first start.
    singles.into_iter().try_for_each(|path| found.read_single(path))?;
    segments.into_iter().try_for_each(|(_, path)| found.read_segment(path))?;
    Ok(found)
}

impl Found {
    fn read_single(&mut self, path: PathBuf) -> io::Result<()> {
        let mut bytes = Vec::new();
        File::open(&path)?.take(RECORD_BYTES_MAX as u64).read_to_end(&mut bytes)?;
        let read = serde_json::from_slice::<Entry>(&bytes).map_err(io::Error::from);
        // An entry of the largest size can't be written again.
        let read = read.and_then(|entry| record::line(&Record::Put(&entry)).map(|_| entry));
        let is_read = read.is_ok();
        match read {
            Ok(entry) => drop(self.entries.insert((entry.job, entry.attempt), entry)),
            Err(error) => {
                tracing::error!(%error, path = %path.display(), "a file of the spool can't be read: it is put aside");
            }
        }
        self.spent.push(Spent { path, is_read });
        Ok(())
    }

    fn read_segment(&mut self, path: PathBuf) -> io::Result<()> {
        let entries = &mut self.entries;
        let Damage { lines, torn } = record::read(BufReader::new(File::open(&path)?), |record| match record {
            Record::Put(entry) => drop(entries.insert((entry.job, entry.attempt), entry)),
            Record::Removed { job, attempt } => drop(entries.remove(&(job, attempt))),
            Record::Blank(_) => {}
        })?;
        let shown = path.display();
        if torn > 0 {
            tracing::warn!(path = %shown, bytes = torn, "the last record of the spool was broken off: it is cut off");
        }
        if lines > 0 {
            tracing::error!(path = %shown, lines, "a file of the spool is damaged: what can be read counts, it is put aside");
        }
        self.spent.push(Spent { path, is_read: lines == 0 });
        Ok(())
    }
}
