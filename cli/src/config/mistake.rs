//! A mistake in the configuration, and where it was made.

use std::fmt;
use std::path::{Path, PathBuf};

/// A mistake. Shown, it is one line: `file:line: key: what is wrong and the remedy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub place: Place,
    /// The key or the variable; empty where the whole place is wrong.
    pub key: String,
    pub detail: String,
}

/// Where it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    File { path: PathBuf, line: Option<usize> },
    Environment,
}

impl Mistake {
    pub fn of_file(path: &Path, line: Option<usize>, key: &str, detail: String) -> Self {
        Self { place: Place::File { path: path.to_owned(), line }, key: key.to_owned(), detail }
    }

    pub fn of_environment(name: &str, detail: String) -> Self {
        Self { place: Place::Environment, key: name.to_owned(), detail }
    }
}

impl Place {
    /// The line in the file.
    pub fn line(&self) -> Option<usize> {
        match self {
            Self::File { line, .. } => *line,
            Self::Environment => None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "{}:{line}", path.display()),
            Self::File { path, line: None } => write!(f, "{}", path.display()),
            Self::Environment => f.write_str("environment"),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, key, detail } = self;
        if key.is_empty() { write!(f, "{place}: {detail}") } else { write!(f, "{place}: {key}: {detail}") }
    }
}
