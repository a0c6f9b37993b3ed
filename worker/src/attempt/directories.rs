//! An attempt's directories: the work tree, the home and the temporary files of its steps, closed to other users and
//! gone at its end.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use shared::id::{Attempt, JobId};

/// What the owner alone may read, change and enter.
const PRIVATE: u32 = 0o700;

/// One attempt's directories.
#[derive(Debug, Clone)]
pub struct Directories {
    root: PathBuf,
}

impl Directories {
    /// Where the directories of that attempt are, below `work`.
    pub fn of(work: &Path, job: JobId, attempt: Attempt) -> Self {
        Self { root: work.join(format!("{job}-{attempt}")) }
    }

    /// Makes them, empty.
    pub fn make(&self) -> io::Result<()> {
        self.remove()?;
        private(&self.root)?;
        [self.tree(), self.home(), self.tmp()].iter().try_for_each(|dir| private(dir))
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

/// Removes `root` with all that is in it, also where a step has taken the right to write from a directory.
pub fn remove(root: &Path) -> io::Result<()> {
    match fs::remove_dir_all(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(root);
            fs::remove_dir_all(root)
        }
        done => done,
    }
}

/// Gives the owner the rights to every directory below `dir` that removing takes. What fails here fails again there.
fn open_up(dir: &Path) {
    let mut next = vec![dir.to_owned()];
    while let Some(dir) = next.pop() {
        let _ = fs::set_permissions(&dir, Permissions::from_mode(PRIVATE));
        let entries = fs::read_dir(&dir).into_iter().flatten().filter_map(Result::ok);
        // A link to a directory isn't followed: its type is that of the link.
        next.extend(entries.filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir())).map(|e| e.path()));
    }
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
        // The superuser needs no rights: for it the first way removes all, so the second one is tried by itself.
        open_up(&root);
        assert_eq!(fs::metadata(root.join("a/b")).unwrap().permissions().mode() & 0o777, PRIVATE);
        remove(&root).unwrap();
        assert!(!root.exists());
        remove(&root).unwrap();
    }
}
