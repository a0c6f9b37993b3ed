//! A git repository of the test's own, made commit by commit.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A repository in a temporary directory, with the branch `main`; gone when dropped.
#[derive(Debug)]
pub struct Repo {
    dir: TempDir,
}

impl Repo {
    /// A repository without commits.
    ///
    /// # Panics
    /// When git isn't there.
    pub fn empty() -> Self {
        let repo = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo
    }

    /// A repository with one commit of one file, `README`.
    pub fn new() -> Self {
        let repo = Self::empty();
        repo.commit(&[("README", "what a job builds\n")]);
        repo
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path as a job names it.
    pub fn url(&self) -> String {
        self.path().to_str().expect("a temporary directory in UTF-8").to_owned()
    }

    /// Writes the files, each a path and a content, commits everything, and returns the commit's id.
    pub fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, content) in files {
            self.write(path, content);
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", "a commit"]);
        self.head()
    }

    /// Writes a file without committing it.
    pub fn write(&self, path: &str, content: &str) -> PathBuf {
        let path = self.path().join(path);
        let dir = path.parent().expect("a file has a directory");
        std::fs::create_dir_all(dir).expect("a directory");
        std::fs::write(&path, content).expect("a file");
        path
    }

    /// The id of the commit that is checked out.
    pub fn head(&self) -> String {
        self.git(&["rev-parse", "HEAD"])
    }

    /// Any git command in the repository; what it prints, without the last newline.
    ///
    /// # Panics
    /// When it fails.
    pub fn git(&self, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        git.arg("-C").arg(self.path()).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "a test").env(format!("GIT_{role}_EMAIL"), "test@example.org");
        }
        let output = git.output().expect("git is installed");
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }
}

impl Default for Repo {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Repo;

    #[test]
    fn each_commit_has_an_id_of_its_own() {
        let repo = Repo::new();
        let first = repo.head();
        let second = repo.commit(&[("src/a.txt", "a\n")]);
        assert_eq!((second.len(), repo.head()), (40, second.clone()));
        assert_ne!(first, second);
        assert_eq!(repo.git(&["show", "main:src/a.txt"]), "a");
    }
}
