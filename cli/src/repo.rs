//! Which repository a person means: a path as a shell knows it becomes the absolute one that a job can name.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A repository as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Repo {
    /// A directory of this host, absolute and without symbolic links.
    Local(String),
    /// Somewhere else; whether that can be used is for the specification's grammar to say.
    Remote(String),
}

impl Repo {
    /// Reads a path, a `file://` URL or a remote URL.
    ///
    /// # Errors
    /// Why a path can't be used.
    pub fn find(text: &str) -> Result<Self, String> {
        let path = match text.strip_prefix("file://") {
            Some(rest) => rest.strip_prefix("localhost").unwrap_or(rest),
            None if is_remote(text) => return Ok(Self::Remote(text.to_owned())),
            None => text,
        };
        let canonical = std::fs::canonicalize(path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => format!("there is no directory {path}"),
            _ => format!("{path}: {error}"),
        })?;
        if !canonical.is_dir() {
            return Err(format!("{path} is not a directory"));
        }
        if let Some(top) = top(&canonical).filter(|top| *top != canonical) {
            return Err(format!("{path} is a directory within a repository: name that one, {}", top.display()));
        }
        let text = canonical.to_str().ok_or_else(|| format!("the path of {path} is not UTF-8"))?;
        Ok(Self::Local(text.to_owned()))
    }

    /// The URL or path for a specification.
    pub fn url(&self) -> &str {
        match self {
            Self::Local(path) => path,
            Self::Remote(url) => url,
        }
    }
}

/// What may be shown of a URL that somebody gave: all but its password.
pub fn shown(url: &str) -> Cow<'_, str> {
    let start = url.find("://").map_or(0, |scheme| scheme + "://".len());
    let authority = url.get(start..).and_then(|rest| rest.split('/').next()).unwrap_or_default();
    match authority.rsplit_once('@').and_then(|(user, host)| Some((user.split_once(':')?.0, host))) {
        None => Cow::Borrowed(url),
        Some((user, host)) => {
            let (before, after) = (url.get(..start), url.get(start + authority.len()..));
            Cow::Owned(format!("{}{user}:…@{host}{}", before.unwrap_or_default(), after.unwrap_or_default()))
        }
    }
}

/// The top of the work tree that `path` lies in; none where that is none of git's, or a bare repository.
fn top(path: &Path) -> Option<PathBuf> {
    let git = Command::new("git")
        .args(["-C", path.to_str()?, "rev-parse", "--show-toplevel"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let top = String::from_utf8(git.stdout).ok().filter(|_| git.status.success())?;
    let top = top.trim_end_matches('\n');
    // Within a bare repository it prints nothing.
    if top.is_empty() { None } else { std::fs::canonicalize(top).ok() }
}

/// How many changes of the work tree at `path` no commit holds; none where git can't say, as in a bare repository.
pub fn uncommitted(path: &str) -> Option<usize> {
    // A repository's own settings must not make this start programs or write to it.
    let git = Command::new("git")
        .args(["--no-optional-locks", "-c", "core.fsmonitor=false", "-C", path, "status", "--porcelain"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    git.status.success().then(|| git.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count())
}

/// Like git: what has a scheme, or a colon before any slash, is remote unless there is such a path.
fn is_remote(text: &str) -> bool {
    let scp = text.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'));
    (text.contains("://") || scp) && !Path::new(text).exists()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{Repo, shown, uncommitted};

    #[test]
    fn a_path_becomes_absolute_and_a_url_stays() {
        let root = std::fs::canonicalize("..").unwrap().to_str().unwrap().to_owned();
        assert_eq!(Repo::find(".."), Ok(Repo::Local(root.clone())));
        assert_eq!(Repo::find(&format!("file://{root}")), Ok(Repo::Local(root.clone())));
        assert_eq!(Repo::find(&format!("file://localhost{root}")), Ok(Repo::Local(root)));
        for url in ["https://host/app.git", "git@host:org/app.git", "ssh://host/app.git"] {
            assert_eq!(Repo::find(url), Ok(Repo::Remote(url.to_owned())));
        }
    }

    #[test]
    fn a_path_that_cannot_be_used_is_named() {
        assert_eq!(Repo::find("/no/such/dir"), Err("there is no directory /no/such/dir".into()));
        assert_eq!(Repo::find("/dev/null"), Err("/dev/null is not a directory".into()));
    }

    #[test]
    fn of_a_url_everything_may_be_shown_but_its_password() {
        for (url, expected) in [
            ("https://user:hunter2@host/app.git", "https://user:…@host/app.git"),
            ("https://user:p@ss:w@host:8443", "https://user:…@host:8443"),
            ("user:hunter2@host:app.git", "user:…@host:app.git"),
            ("https://user@host/a:b@c", "https://user@host/a:b@c"),
            ("git@host:org/app.git", "git@host:org/app.git"),
            ("ssh://host/app.git", "ssh://host/app.git"),
        ] {
            assert_eq!(shown(url), expected);
        }
    }

    #[test]
    fn a_directory_within_a_repository_is_refused_and_its_top_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().canonicalize().unwrap();
        let inside = top.join("src");
        std::fs::create_dir(&inside).unwrap();
        assert_eq!(
            Repo::find(inside.to_str().unwrap()).map(|repo| repo.url().to_owned()),
            Ok(inside.display().to_string())
        );
        assert!(Command::new("git").args(["init", "-q"]).arg(&top).status().unwrap().success());
        let refused = Repo::find(inside.to_str().unwrap()).unwrap_err();
        assert!(refused.ends_with(&format!("name that one, {}", top.display())), "{refused}");
        for found in [&top, &top.join(".git")] {
            assert!(Repo::find(found.to_str().unwrap()).is_ok(), "{}", found.display());
        }
    }

    #[test]
    fn uncommitted_changes_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_str().unwrap();
        assert_eq!(uncommitted(path), None);
        assert!(Command::new("git").args(["init", "-q", path]).status().unwrap().success());
        assert_eq!(uncommitted(path), Some(0));
        std::fs::write(dir.path().join("a"), "").unwrap();
        std::fs::write(dir.path().join("b"), "").unwrap();
        assert_eq!(uncommitted(path), Some(2));
    }
}
