//! Where settings come from: the environment, and below it one file. Flags are above both, and stay with their commands;
//! defaults are below, and stay with whoever uses the value.
//!
//! The file is the one that `--config` or `WINDLASS_CONFIG` names; else the user's own, else the machine's, whichever is
//! there first. Two files are never mixed. A mistake anywhere in it ends every command, before it does anything.

use std::path::{Path, PathBuf};

pub mod check;
mod file;
mod mistake;
pub mod table;
mod value;

use file::{ConfigFile, Entry};
use mistake::{Mistake, Place};
use table::{CONFIG, PREFIX, SETTINGS};

/// The machine's file.
const MACHINES: &str = "/etc/windlass/windlass.toml";
/// The user's, below `$XDG_CONFIG_HOME`.
const USERS: &str = "windlass/windlass.toml";
/// What a step finds in its environment: no settings.
const OF_STEPS: [&str; 7] = ["JOB_ID", "ATTEMPT", "FENCE", "COMMIT", "REF", "REPOSITORY", "STEP"];

/// A lookup of variables.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The environment and the file.
pub struct Sources<'a> {
    environment: Environment<'a>,
    file: ConfigFile,
}

impl<'a> Sources<'a> {
    /// The environment above the file that `flag` names, or else the environment, or else that is there; and all that is
    /// wrong with that file.
    pub fn load(flag: Option<&Path>, environment: Environment<'a>) -> (Self, Vec<Mistake>) {
        let set = |name: &str| environment(name).filter(|text| !text.is_empty());
        let named = flag.map(Path::to_owned).or_else(|| set(CONFIG).map(PathBuf::from));
        let (file, mistakes) = match named.or_else(|| found(&set)) {
            Some(path) => ConfigFile::read(&path),
            None => (ConfigFile::default(), Vec::new()),
        };
        (Self { environment, file }, mistakes)
    }

    /// What a variable is, or what the file says in its place.
    pub fn text(&self, name: &str) -> Option<String> {
        self.variable(name).or_else(|| self.entry(name).map(|entry| entry.text.clone()))
    }

    /// `line`, which begins with the variable that it refuses: with file, line and key where that is where it came from.
    pub fn traced(&self, line: &str) -> String {
        let known = |name: &str| table::named(name).or_else(|| table::secret_behind(name)).is_some();
        match line.split_once(": ").filter(|(name, _)| known(name)) {
            Some((name, detail)) => match self.blame(name, detail) {
                mistake @ Mistake { place: Place::File { .. }, .. } => mistake.to_string(),
                _ => line.to_owned(),
            },
            None => line.to_owned(),
        }
    }

    /// What is wrong with the setting `name`, where it was set.
    fn blame(&self, name: &str, detail: &str) -> Mistake {
        let file = format!("{name}_FILE");
        let set = [name, &file].into_iter().find(|name| self.variable(name).is_some());
        match self.entry(name).or_else(|| self.entry(&file)) {
            Some(entry) if set.is_none() => {
                Mistake::of_file(&self.file.path, Some(entry.line), &entry.key, detail.to_owned())
            }
            _ => Mistake::of_environment(set.unwrap_or(name), detail.to_owned()),
        }
    }

    /// What the environment says, if that isn't nothing.
    fn variable(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|text| !text.is_empty())
    }

    /// What the file says in place of a variable. A secret that the environment holds is above a file that is named for it.
    fn entry(&self, name: &str) -> Option<&Entry> {
        let hidden = table::secret_behind(name).is_some_and(|secret| self.variable(secret.name).is_some());
        if hidden { None } else { self.file.entry(name) }
    }
}

/// The file that is read when none is named.
fn found(set: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let users = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(|| Some(Path::new(&set("HOME")?).join(".config")));
    let places = users.map(|place| place.join(USERS)).into_iter().chain([PathBuf::from(MACHINES)]);
    // One that is there and can't be read is told, not passed over.
    let mut there = places.filter(|path| !matches!(path.try_exists(), Ok(false)));
    there.next()
}

/// The same of our own environment.
pub fn warnings_here() -> Vec<String> {
    warnings(std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned()))
}

/// What to say of variables that look like settings and are none.
pub fn warnings(names: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<String> = known().collect();
    let mut unknown: Vec<String> = names.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unknown.retain(|name| !is_of_others(name.trim_start_matches(PREFIX)));
    unknown.sort();
    let told = |name: &String| match table::nearest(name, known.iter().map(String::as_str)) {
        Some(near) => {
            format!("environment: {name}: is not a setting and counts for nothing: {near} is the nearest one")
        }
        None => format!("environment: {name}: is not a setting and counts for nothing"),
    };
    unknown.iter().map(told).collect()
}

fn known() -> impl Iterator<Item = String> {
    let each = SETTINGS.iter().flat_map(|setting| [setting.name.to_owned(), setting.variable()]);
    each.chain([CONFIG.to_owned()])
}

/// Whether somebody sets such a variable who means no setting: a worker for its steps, or Kubernetes for a service that is
/// called `windlass` or like it.
fn is_of_others(rest: &str) -> bool {
    let ports = rest.split("_PORT").nth(1).is_some_and(|end| end.is_empty() || end.starts_with('_'));
    let port = rest == "PORT" || rest.starts_with("PORT_");
    OF_STEPS.contains(&rest) || rest.ends_with("SERVICE_HOST") || rest.contains("SERVICE_PORT") || ports || port
}

#[cfg(test)]
mod tests;
