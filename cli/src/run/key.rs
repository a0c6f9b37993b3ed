//! The deploy key of `windlass run`: one from a file is registered for this job alone and removed afterwards; one that is
//! named must be kept in the data directory already.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coordinator::keys::{self, Must, NewKey, NewPair};
use coordinator::service::Service;
use shared::clock;
use shared::id::Actor;
use shared::secret::Secret;
use shared::spec::key_name_fault;

use crate::exit::Error;
use crate::key::text;
use crate::terminal::say;

/// What the names of keys from files begin with, so that those of an interrupted `run` are known.
const PREFIX: &str = "windlass.run-";
/// The most of them that are removed at a time.
const LEFT_KEYS_MAX: u32 = 1000;
const FLAG: &str = "--deploy-key";
const HOSTS_FLAG: &str = "--known-hosts";

/// A deploy key for one job.
pub enum Key {
    /// It is kept in the data directory under that name.
    Kept(String),
    /// It comes from a file, and goes with the job.
    OfFile { file: String, name: String, private_key: Secret, known_hosts: Secret },
}

/// What stands in texts for the name of a key from a file, which nobody has given it.
pub struct Alias {
    name: String,
    file: String,
}

impl Alias {
    /// `text` with the file in place of the name.
    pub fn plain(&self, text: &str) -> String {
        text.replace(&self.name, &self.file)
    }
}

impl Key {
    /// The key that `given` means: with a `/` a file; else a name where there is a data directory that is `kept`, and a file
    /// where there is none.
    ///
    /// # Errors
    /// Why there is no such key, or why a file can't be used.
    pub fn find(given: &str, known_hosts: Option<&Path>, kept: bool) -> Result<Self, Error> {
        if given.is_empty() {
            return Err(Error::failed(format_args!("{FLAG}: must not be empty")));
        }
        if given == "-" {
            return Err(Error::failed(format_args!(
                "{FLAG}: - is neither a file nor a name: give the file, or keep the key in a data directory, where \
                 `windlass key add NAME --file -` reads it from standard input"
            )));
        }
        if !kept || given.contains('/') {
            return Self::of_file(given, known_hosts);
        }
        if let Some(fault) = key_name_fault(given) {
            return Err(Error::failed(format_args!(
                "{FLAG}: {given}: {fault}; a file is named with a /, like ./{given}"
            )));
        }
        if known_hosts.is_some() {
            return Err(Error::failed(format_args!(
                "{HOSTS_FLAG}: the deploy key {given} has its own host keys; `windlass key rotate {given} --known-hosts F` \
                 changes them (a file is named with a /, like ./{given})"
            )));
        }
        Ok(Self::Kept(given.to_owned()))
    }

    fn of_file(given: &str, known_hosts: Option<&Path>) -> Result<Self, Error> {
        let file = Path::new(given);
        if !file.exists() {
            let name = if given.contains('/') {
                ""
            } else {
                ", and the name of a registered key needs --data-dir D (or WINDLASS_DATA_DIR), where it is kept"
            };
            return Err(Error::failed(format_args!("{FLAG}: there is no file {given}{name}")));
        }
        let (private_key, known_hosts) = (text(FLAG, file)?, host_keys(known_hosts)?);
        if let Some(mode) = openness(file) {
            say(&format!(
                "{FLAG}: {given} can be read by others (mode {mode:o}): `chmod 600 {given}` keeps it private"
            ));
        }
        let (file, name) = (given.to_owned(), format!("{PREFIX}{}", clock::random_uuid()));
        Ok(Self::OfFile { file, name, private_key, known_hosts })
    }

    /// What to show in place of its name, where that is none that people know.
    pub fn alias(&self) -> Option<Alias> {
        match self {
            Self::Kept(_) => None,
            Self::OfFile { file, name, .. } => Some(Alias { name: name.clone(), file: file.clone() }),
        }
    }

    /// What the job calls it.
    pub fn name(&self) -> &str {
        match self {
            Self::Kept(name) | Self::OfFile { name, .. } => name,
        }
    }

    /// Makes sure that it is registered. Nobody else could register it while `run` holds the directory: a job that waited
    /// for it would wait in vain.
    ///
    /// # Errors
    /// When it isn't there, or can't be used.
    pub async fn bring(&self, service: &Service, data_dir: &Path) -> Result<(), Error> {
        match self {
            Self::Kept(name) => match service.deploy_key(name).await {
                Ok(_) => Ok(()),
                Err(keys::Error::Missing) => {
                    let dir = data_dir.display();
                    Err(Error::failed(format_args!(
                        "{FLAG}: no deploy key {name} is registered in {dir}: start `windlass dev --data-dir {dir}` and \
                         register it with `windlass key add {name} --data-dir {dir} --file F --known-hosts F`, or name a file \
                         with a /, like ./{name}"
                    )))
                }
                Err(error) => Err(refused(&error)),
            },
            Self::OfFile { name, private_key, known_hosts, .. } => {
                let pair = Some(NewPair::Given(private_key.clone()));
                let new = NewKey { pair, known_hosts: Some(known_hosts.reveal().to_owned()) };
                service
                    .put_key(&caller().into(), name, &new, Must::BeNew)
                    .await
                    .map(drop)
                    .map_err(|error| refused(&error))
            }
        }
    }

    /// Removes it, where it was this job's alone.
    pub async fn take_away(&self, service: &Service) {
        if let Self::OfFile { name, .. } = self {
            remove(service, name).await;
        }
    }
}

/// Removes the keys that an interrupted `run` left.
///
/// # Errors
/// When they can't be looked for.
pub async fn clear(service: &Service) -> Result<(), Error> {
    let left = service.deploy_keys(Some(PREFIX), LEFT_KEYS_MAX).await.map_err(|error| refused(&error))?;
    for key in left.iter().take_while(|key| key.name.starts_with(PREFIX)) {
        remove(service, &key.name).await;
    }
    Ok(())
}

async fn remove(service: &Service, name: &str) {
    match service.remove_key(&caller().into(), name).await {
        Ok(()) | Err(keys::Error::Missing) => {}
        Err(error) => say(&format!("the deploy key from the file stays behind, encrypted, as {name}: {error}")),
    }
}

/// The mode of a key's file that somebody beside its owner can read.
fn openness(file: &Path) -> Option<u32> {
    let metadata = std::fs::metadata(file).ok().filter(std::fs::Metadata::is_file)?;
    let mode = metadata.permissions().mode() & 0o777;
    (mode & 0o044 != 0).then_some(mode)
}

/// The host keys in that file, or in the one that ssh itself goes by.
fn host_keys(file: Option<&Path>) -> Result<Secret, Error> {
    let usual = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".ssh/known_hosts"));
    let remedy = "name a file with the host's keys (`ssh-keyscan HOST` gets them; compare their fingerprints)";
    match (file, usual()) {
        (Some(file), _) => text(HOSTS_FLAG, file),
        (None, Some(usual)) if usual.exists() => text(HOSTS_FLAG, &usual),
        (None, Some(usual)) => {
            Err(Error::failed(format_args!("{HOSTS_FLAG}: there is no {}: {remedy}", usual.display())))
        }
        (None, None) => Err(Error::failed(format_args!("{HOSTS_FLAG}: HOME is not set: {remedy}"))),
    }
}

/// What is wrong with a key, by the flag that it came from.
fn refused(error: &keys::Error) -> Error {
    let keys::Error::Refused(fields) = error else { return Error::failed(format_args!("{FLAG}: {error}")) };
    let flag = |field: &str| if field == "known_hosts" { HOSTS_FLAG } else { FLAG };
    Error::Failed(fields.iter().map(|error| format!("{}: {}", flag(&error.field), error.detail)).collect())
}

fn caller() -> Actor {
    Actor::Client("run".to_owned())
}

#[cfg(test)]
mod tests {
    use super::Key;
    use crate::exit::Error;

    fn refused(given: &str, known_hosts: Option<&str>, kept: bool) -> String {
        match Key::find(given, known_hosts.map(std::path::Path::new), kept) {
            Err(Error::Failed(lines)) => lines.join("; "),
            Err(other) => panic!("{other}"),
            Ok(key) => panic!("found {}", key.name()),
        }
    }

    #[test]
    fn what_has_a_slash_is_a_file_and_a_name_needs_a_directory_that_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        std::fs::write(&file, "x").unwrap();
        let text = file.to_str().unwrap();
        assert!(matches!(Key::find(text, Some(&file), false), Ok(Key::OfFile { .. })));
        assert!(matches!(Key::find("app", None, true), Ok(Key::Kept(name)) if name == "app"));
        // Tests run in the crate's own directory.
        assert!(matches!(Key::find("Cargo.toml", Some(&file), false), Ok(Key::OfFile { .. })));
        assert!(matches!(Key::find("Cargo.toml", None, true), Ok(Key::Kept(name)) if name == "Cargo.toml"));
        assert!(refused("app", None, false).contains("needs --data-dir"));
        assert!(refused("-", None, true).contains("is neither a file nor a name"));
        assert!(refused("./app", None, true).contains("there is no file ./app"));
        assert!(refused("app", Some(text), true).contains("windlass key rotate app --known-hosts F"));
        assert!(refused(text, Some("/no/hosts"), false).starts_with("--known-hosts: /no/hosts:"));
    }
}
