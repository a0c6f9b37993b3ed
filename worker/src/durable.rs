//! Files that come into their place as a whole, so that a crash leaves the old one or the new one, and that are on disk when
//! the call returns. All of them are for their owner alone.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What the owner alone may read.
const PRIVATE: u32 = 0o600;
/// What a file is called until it is whole.
pub const FRESH: &str = "new";

/// Puts `bytes` into the file at `path`, in place of what it held. It blocks until the disk has them. Nothing is left of a
/// file that couldn't be written, as on a full disk.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension(FRESH);
    // One that a crash has left may have been made with other rights.
    remove_if_there(&fresh)?;
    if let Err(error) = write(&fresh, bytes).and_then(|()| fs::rename(&fresh, path)) {
        // What can't be removed either is removed at the next start.
        let _ = remove_if_there(&fresh);
        return Err(error);
    }
    sync_names(path)
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new file to write to, where there is none.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(PRIVATE).open(path)
}

/// Removes what writing was broken off of in that directory. Nobody may be writing there.
pub fn remove_unfinished(dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == FRESH) {
            remove_if_there(&path)?;
        }
    }
    Ok(())
}

/// Removes the file at `path`; whether there was one. The disk may not have forgotten it yet.
pub fn remove_if_there(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes sure that the names in the file's directory are on disk.
pub fn sync_names(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_file_that_could_not_be_put_in_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("entry.json");
        // A directory can't be replaced by a file.
        fs::create_dir(&path).unwrap();
        assert!(replace(&path, b"{}").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::remove_dir(&path).unwrap();
        replace(&path, b"{}").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"{}");
    }
}
