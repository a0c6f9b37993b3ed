//! Files that are replaced as a whole, so that a crash leaves the old one or the new one, and that are on disk when the
//! call returns. All of them are for their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What the owner alone may read.
const PRIVATE: u32 = 0o600;
/// What a file is called until it is whole.
const FRESH: &str = "new";

/// Puts `bytes` into the file at `path`, in place of what it held. It blocks until the disk has them.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension(FRESH);
    // One that a crash has left may have been made with other rights.
    remove_if_there(&fresh)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    sync_names(path)
}

/// Removes the file at `path`, if there is one. It blocks until the disk has forgotten it.
pub fn remove(path: &Path) -> io::Result<()> {
    if remove_if_there(path)? { sync_names(path) } else { Ok(()) }
}

fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes sure that the names in the file's directory are on disk.
fn sync_names(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}
