//! Settings, parsed once at the edge from variables. An empty variable counts as unset; a secret may come from the
//! file that its name with `_FILE` names.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// A setting that can't be used, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {detail}")]
pub struct Fault {
    pub name: String,
    pub detail: String,
}

impl Fault {
    /// `name` can't be used because of `detail`.
    pub fn new(name: &str, detail: impl Display) -> Self {
        Self { name: name.to_owned(), detail: detail.to_string() }
    }
}

/// Where settings are looked up: the environment, or a test's own table.
pub struct Settings<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl<'a> Settings<'a> {
    /// Settings that `lookup` finds by their variable's name.
    pub fn new(lookup: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { lookup }
    }

    /// The text of a variable, none where it is unset or empty.
    pub fn text(&self, name: &str) -> Option<String> {
        (self.lookup)(name).filter(|text| !text.is_empty())
    }

    /// A variable's value.
    ///
    /// # Errors
    /// When it is set to something else.
    pub fn parsed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>, Fault> {
        self.text(name).map(|text| text.parse().map_err(|e: T::Err| Fault::new(name, e))).transpose()
    }

    /// What a flag said, or else the variable.
    ///
    /// # Errors
    /// When there is no flag and the variable is set to something else.
    pub fn flag_or<T: FromStr<Err: Display>>(&self, flag: Option<T>, name: &str) -> Result<Option<T>, Fault> {
        flag.map_or_else(|| self.parsed(name), |told| Ok(Some(told)))
    }

    /// A secret from the variable or from the file that the variable `…_FILE` names, without its last newline.
    ///
    /// # Errors
    /// When both are set, or the file can't be read.
    pub fn secret(&self, name: &str) -> Result<Option<String>, Fault> {
        let file_name = format!("{name}_FILE");
        match (self.text(name), self.text(&file_name)) {
            (Some(_), Some(_)) => Err(Fault::new(name, format_args!("is set beside {file_name}: set one of the two"))),
            (Some(text), None) => Ok(Some(text)),
            (None, Some(path)) => {
                let text =
                    std::fs::read_to_string(&path).map_err(|e| Fault::new(&file_name, format_args!("{path}: {e}")))?;
                Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()).filter(|text| !text.is_empty()))
            }
            (None, None) => Ok(None),
        }
    }

    /// `WINDLASS_DATA_DIR`, by default `$XDG_STATE_HOME/windlass` (`~/.local/state/windlass` without that variable).
    ///
    /// # Errors
    /// When there is no home directory to fall back on.
    pub fn data_dir(&self) -> Result<PathBuf, Fault> {
        if let Some(dir) = self.text("WINDLASS_DATA_DIR") {
            return Ok(PathBuf::from(dir));
        }
        if let Some(state) = self.text("XDG_STATE_HOME") {
            return Ok(Path::new(&state).join("windlass"));
        }
        let home = self.text("HOME").ok_or_else(|| {
            Fault::new("WINDLASS_DATA_DIR", "is not set, and neither is HOME: say where the data shall be kept")
        })?;
        Ok(Path::new(&home).join(".local/state/windlass"))
    }
}
