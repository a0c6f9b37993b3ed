//! A file of the journal as what it has to do: take bytes at its end, and have them on disk. A trait, so that a test can
//! have a disk that is full.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::durable;

/// A file that is written from its beginning to its end.
pub trait Segment: Send {
    /// Writes behind what was written before, where there may be room already.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes room on disk for so many bytes behind the first `from`: zeros, which are overwritten later. To have a file on disk that
    /// grows, its file system has to write more than the file: that is slow, and the more so the more others write.
    fn make_room(&mut self, from: u64, bytes: usize) -> io::Result<()>;

    /// Returns when the disk has all of it.
    ///
    /// # Errors
    /// Also when the file has no name any more, so that nobody would find it.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts it off behind so many bytes.
    fn cut(&mut self, bytes: u64) -> io::Result<()>;
}

/// How a new one is made at a path where there is none.
pub type Create = Box<dyn Fn(&Path) -> io::Result<Box<dyn Segment>> + Send>;

/// Makes a real one, for the owner alone.
pub fn create(path: &Path) -> io::Result<Box<dyn Segment>> {
    Ok(Box::new(durable::create(path)?))
}

impl Segment for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn make_room(&mut self, from: u64, bytes: usize) -> io::Result<()> {
        self.write_all_at(&vec![0; bytes], from)?;
        self.sync_data()
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()?;
        if self.metadata()?.nlink() == 0 {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the spool's file was removed by somebody else"));
        }
        Ok(())
    }

    fn cut(&mut self, bytes: u64) -> io::Result<()> {
        self.set_len(bytes)
    }
}
