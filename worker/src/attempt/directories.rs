//! An attempt's directories: the work tree, the home and the temporary files of its steps, closed to other users and
//! gone at its end.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use shared::id::{Attempt, JobId};

/// What the owner alone may read, change and enter.
const PRIVATE: u32 = 0o700;

/// One attempt's directories. Clones are the same directories.
#[derive(Debug, Clone)]
pub struct Directories {
    root: PathBuf,
    made: Arc<AtomicBool>,
}

impl Directories {
    /// Where the directories of that attempt are, below `work`.
    pub fn of(work: &Path, job: JobId, attempt: Attempt) -> Self {
        Self { root: work.join(format!("{job}-{attempt}")), made: Arc::default() }
    }

    /// Makes them, empty.
    pub fn make(&self) -> io::Result<()> {
        self.made.store(true, Ordering::Release);
        self.remove()?;
        private(&self.root)?;
        [self.tree(), self.home(), self.tmp()].iter().try_for_each(|dir| private(dir))
    }

    /// Whether any of them may be there: they were made, or half of them.
    pub fn are_made(&self) -> bool {
        self.made.load(Ordering::Acquire)
    }

    /// Where the steps run.
    pub fn tree(&self) -> PathBuf {
        self.root.join("tree")
    }

    /// The steps' HOME.
    pub fn home(&self) -> PathBuf {
        self.root.join("home")
    }

    /// The steps' TMPDIR.
    pub fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// What holds the others.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What ssh is told during the checkout, and where its steps may use the deploy key as well.
    pub fn ssh(&self) -> PathBuf {
        self.root.join("ssh")
    }

    /// What git is told during the checkout.
    pub fn git_config(&self) -> PathBuf {
        self.root.join("gitconfig")
    }

    /// Removes them with all that is in them. It blocks for as long as that takes.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.root)
    }
}

/// Makes a directory and those above it that are missing, for the owner alone.
pub fn private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(PRIVATE).create(dir)
}

/// Removes `root` with all that is in it, also where a step has taken the right to write from a directory. However deep
/// a step has nested its directories, this looks no deeper than two levels: what lies below is moved up first.
pub fn remove(root: &Path) -> io::Result<()> {
    match fs::symlink_metadata(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(_) => open_up(root)?,
    }
    let mut moved = 0_u64;
    loop {
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                flatten(&entry.path(), root, &mut moved)?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        // What was moved up meanwhile may or may not have been seen.
        match fs::remove_dir(root) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
    }
}

/// Removes `dir`, of which the directories go to `root` and nothing else stays. Links aren't followed.
fn flatten(dir: &Path, root: &Path, moved: &mut u64) -> io::Result<()> {
    open_up(dir)?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if !entry.file_type()?.is_dir() {
            fs::remove_file(entry.path())?;
            continue;
        }
        open_up(&entry.path())?;
        let free = loop {
            let name = root.join(format!("removed-{moved}"));
            *moved += 1;
            if fs::symlink_metadata(&name).is_err() {
                break name;
            }
        };
        fs::rename(entry.path(), free)?;
    }
    match fs::remove_dir(dir) {
        // A large directory may not have shown all of itself while it shrank: the next round sees the rest.
        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        done => done,
    }
}

/// Gives the owner the rights to a directory that removing what is in it takes.
fn open_up(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, Permissions::from_mode(PRIVATE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_step_made_read_only_is_removed_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        private(&root.join("a/b")).unwrap();
        fs::write(root.join("a/b/file"), "x").unwrap();
        std::os::unix::fs::symlink("/", root.join("a/link")).unwrap();
        fs::set_permissions(root.join("a/b"), Permissions::from_mode(0o555)).unwrap();
        fs::set_permissions(root.join("a"), Permissions::from_mode(0o000)).unwrap();
        remove(&root).unwrap();
        assert!(!root.exists());
        remove(&root).unwrap();
    }
    #[test]
    fn directories_nested_beyond_any_path_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        private(&root).unwrap();
        // Built from the inside out: each round puts what there is into one more directory.
        let (inner, outer) = (root.join("inner"), root.join("outer"));
        private(&inner).unwrap();
        fs::write(inner.join("file"), "x").unwrap();
        for _ in 0..20_000 {
            fs::create_dir(&outer).unwrap();
            fs::rename(&inner, outer.join("inner")).unwrap();
            fs::rename(&outer, &inner).unwrap();
        }
        remove(&root).unwrap();
        assert!(!root.exists());
    }
}
