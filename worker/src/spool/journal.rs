//! The spool's files: numbered segments, of which the highest is written to and the others are about to be removed.
//!
//! - What is told as kept is in a segment that the disk has. A segment that couldn't be written or synced is never written
//!   to again, since nobody knows what of it the disk has: the next one begins with all entries that are live.
//! - A segment that has grown large is left for a new one too, so that the files stay as small as what is live, or a few MiB.
//! - Room is made ahead of what is written: zeros, at which reading ends.
//! - A new segment is whole before it has its name, and only then do those before it go. So at each moment the segments that
//!   are there, read in the order of their numbers, tell what is live, and perhaps entries that were removed already: those
//!   are told again, which changes nothing.
//!
//! In memory it holds the entries that are live, as they are written.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use shared::id::{Attempt, JobId};

use super::Entry;
use super::found::{self, Found, SUFFIX, Spent};
use super::record::{self, Record};
use super::segment::{Create, Segment};
use crate::attempt::directories::private;
use crate::durable::{self, remove_if_there};

/// How large a segment grows before the next one is begun, unless it began with half of that or more.
pub const SEGMENT_BYTES: u64 = 8 * 1024 * 1024;

/// The least and the most room that is made at once for what comes next; between them as much as is written already.
const ROOM_BYTES_MIN: u64 = 128 * 1024;
pub const ROOM_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// With less room than that left, more is made: as much as a busy worker writes at a time.
const ROOM_BYTES_LOW: u64 = 64 * 1024;

/// Whose entry it is.
pub type Key = (JobId, Attempt);

/// A change, and its record.
#[derive(Debug)]
pub enum Change {
    Put { key: Key, line: Vec<u8> },
    Remove { key: Key, line: Vec<u8> },
    Blank { line: Vec<u8> },
}

impl Change {
    /// Whether somebody relies on it being on disk. A removal that is lost costs nothing.
    pub fn is_to_last(&self) -> bool {
        !matches!(self, Self::Remove { .. })
    }

    fn line(&self) -> &[u8] {
        match self {
            Self::Put { line, .. } | Self::Remove { line, .. } | Self::Blank { line } => line,
        }
    }
}

/// See the module. Every call blocks for as long as the disk takes.
pub struct Journal {
    dir: PathBuf,
    create: Create,
    /// The segment that is written to; none after it couldn't be.
    current: Option<Current>,
    /// The number of the next segment.
    next: u64,
    /// The records of the entries that are live.
    live: HashMap<Key, Vec<u8>>,
    /// The files that the next segment makes needless.
    spent: Vec<Spent>,
}

/// A segment that is written to.
struct Current {
    file: Box<dyn Segment>,
    path: PathBuf,
    bytes: u64,
    /// Up to where there is room for what comes next.
    room: u64,
    /// At how many bytes the next one is begun.
    enough: u64,
}

impl Current {
    /// Makes room for what comes next, where little is left. Where the disk has none, the file grows with what is written.
    fn make_room(&mut self) {
        if self.bytes + ROOM_BYTES_LOW <= self.room {
            return;
        }
        let more = self.bytes.clamp(ROOM_BYTES_MIN, ROOM_BYTES_MAX);
        let begin = self.room.max(self.bytes);
        let made = usize::try_from(more).map_err(io::Error::other).and_then(|more| self.file.make_room(begin, more));
        match made {
            Ok(()) => self.room = begin + more,
            Err(error) => {
                tracing::debug!(%error, "the spool's file can't be given room ahead");
                // What was given of it is given back; what can't be is overwritten.
                let _ = self.file.cut(begin);
                // It is tried again when so much was written.
                self.room = begin + ROOM_BYTES_MIN;
            }
        }
    }
}

impl Journal {
    /// The journal in that directory, which is made where it is missing and which nobody else may be using, and the entries
    /// that are live in it. What an earlier start has left is moved into a segment of this one; where that can't be written
    /// now, it stays as it is until it can.
    pub fn open(dir: PathBuf, create: Create) -> io::Result<(Self, Vec<Entry>)> {
        private(&dir)?;
        durable::remove_unfinished(&dir)?;
        let Found { entries, spent, last } = found::in_dir(&dir)?;
        let lines = entries.iter().map(|(key, entry)| Ok((*key, record::line(&Record::Put(entry))?)));
        let live = lines.collect::<io::Result<_>>()?;
        let mut journal = Self { dir, create, current: None, next: last.saturating_add(1), live, spent };
        journal.tidy();
        Ok((journal, entries.into_values().collect()))
    }

    /// Makes the changes, in their order. Those that are to last are on disk when it returns.
    ///
    /// # Errors
    /// Then none of them but the removals are made, and what is on disk of the others counts no more.
    pub fn write(&mut self, changes: Vec<Change>) -> io::Result<()> {
        let written = self.append(&changes);
        if written.is_err()
            && let Some(Current { mut file, path, bytes, .. }) = self.current.take()
        {
            // Half a record would be said at the next start. What can't be cut off is passed over there.
            let _ = file.cut(bytes);
            self.spent.push(Spent { path, is_read: true });
        }
        for change in changes {
            match change {
                Change::Put { key, line } if written.is_ok() => drop(self.live.insert(key, line)),
                Change::Remove { key, .. } => drop(self.live.remove(&key)),
                Change::Put { .. } | Change::Blank { .. } => {}
            }
        }
        written
    }

    fn append(&mut self, changes: &[Change]) -> io::Result<()> {
        if self.current.is_none() {
            self.begin()?;
        }
        let Some(current) = &mut self.current else { return Err(io::Error::other("the spool has no file")) };
        let lines = changes.iter().map(Change::line).collect::<Vec<_>>().concat();
        current.file.append(&lines)?;
        if changes.iter().any(Change::is_to_last) {
            current.file.sync()?;
        }
        current.bytes += lines.len() as u64;
        Ok(())
    }

    /// Begins a new segment where the last one is too large or couldn't be written, and makes room in one that goes on, so that
    /// no caller has to wait for that later.
    pub fn tidy(&mut self) {
        if let Some(current) = self.current.as_mut().filter(|current| current.bytes <= current.enough) {
            return current.make_room();
        }
        if let Err(error) = self.begin() {
            tracing::error!(%error, "beginning a new file of the spool");
            if let Some(current) = &mut self.current {
                current.enough = current.bytes + SEGMENT_BYTES;
            }
        }
    }

    /// Begins a new segment with all that is live, and removes those before it once the disk has it.
    ///
    /// # Errors
    /// When it couldn't be made: then all is as before, or there is no segment that is written to.
    fn begin(&mut self) -> io::Result<()> {
        let path = self.dir.join(format!("{}.{SUFFIX}", self.next));
        let fresh = path.with_extension(durable::FRESH);
        let made = self.fill(&fresh).and_then(|made| fs::rename(&fresh, &path).map(|()| made));
        let (file, bytes) = match made {
            Ok(made) => made,
            Err(error) => {
                // What can't be removed either is removed at the next start.
                let _ = remove_if_there(&fresh);
                return Err(error);
            }
        };
        self.next = self.next.saturating_add(1);
        // The new one is read after the last: nothing may be written to that any more.
        if let Some(Current { path, .. }) = self.current.take() {
            self.spent.push(Spent { path, is_read: true });
        }
        if let Err(error) = durable::sync_names(&path) {
            self.spent.push(Spent { path, is_read: true });
            return Err(error);
        }
        let mut current = Current { file, path, bytes, room: bytes, enough: SEGMENT_BYTES.max(2 * bytes) };
        current.make_room();
        self.current = Some(current);
        self.spent.retain(|spent| spent.leave().inspect_err(|error| spent.stays(error)).is_err());
        Ok(())
    }

    /// A file with all that is live, which the disk has, and how many bytes those are.
    fn fill(&self, path: &Path) -> io::Result<(Box<dyn Segment>, u64)> {
        // One that couldn't be removed before.
        remove_if_there(path)?;
        let mut file = (self.create)(path)?;
        let lines = self.live.values().map(Vec::as_slice).collect::<Vec<_>>().concat();
        file.append(&lines)?;
        file.sync()?;
        Ok((file, lines.len() as u64))
    }
}
