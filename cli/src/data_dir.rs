//! A data directory: who holds it, and the secrets that are kept in it.
//!
//! Its lock is the embedded coordinator's lease: one process at a time. The kernel gives it back when the process ends,
//! however it ends.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use coordinator::vault::MasterKeys;
use shared::clock;
use shared::secret::Secret;

use crate::terminal::say;

/// What is said of a holder that hasn't written who it is.
const NO_HOLDER: &str = "unknown";
/// Only its owner may enter.
const DIR_MODE: u32 = 0o700;
/// Only its owner may read.
const FILE_MODE: u32 = 0o600;

/// A data directory that this process holds, until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
    /// Where the database is a file of its own.
    database_lock: Option<File>,
}

impl DataDir {
    /// Makes the directory where it is missing, and takes hold of it.
    ///
    /// # Errors
    /// When another process holds it, or it can't be written.
    pub fn hold(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(path)
            .with_context(|| format!("making the data directory {}", path.display()))?;
        let path = std::fs::canonicalize(path).with_context(|| format!("finding {}", path.display()))?;
        let lock = hold(&path.join("lock"), &path, "name another directory with --data-dir")?;
        if let Some(open) = openness(&path) {
            say(&format!("{} {open}: whoever that is can read its tokens and run jobs as you", path.display()));
        }
        Ok(Self { path, _lock: lock, database_lock: None })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store is: in the directory, or in the file `elsewhere`, which is then held as well.
    ///
    /// # Errors
    /// When another process holds that file.
    pub fn database(&mut self, elsewhere: Option<&Path>) -> anyhow::Result<PathBuf> {
        let Some(file) = elsewhere else { return Ok(self.path.join("windlass.db")) };
        let mut lock = file.as_os_str().to_owned();
        lock.push(".lock");
        self.database_lock = Some(hold(Path::new(&lock), file, "name another file with WINDLASS_DATABASE_URL")?);
        Ok(file.to_owned())
    }

    /// The keys that the secrets in `database` are encrypted under; made at the first start, before there is a database.
    ///
    /// # Errors
    /// When the file can't be read, written, or doesn't hold keys, and when it is missing beside a database: what is stored
    /// there couldn't be read with a new key.
    pub fn master_keys(&self, database: &Path) -> anyhow::Result<MasterKeys> {
        let path = self.path.join("master.key");
        let filled = std::fs::metadata(database).is_ok_and(|found| found.len() > 0);
        if filled && !path.try_exists().with_context(|| format!("looking for {}", path.display()))? {
            bail!(
                "{} is missing, and the secrets in {} are encrypted under the master key in it: put the file back, \
                 or begin anew with another data directory and no database",
                path.display(),
                database.display()
            );
        }
        let text = self.kept(&path, || MasterKeys::generate().1)?;
        MasterKeys::parse(text.reveal()).with_context(|| format!("reading {}", path.display()))
    }

    /// The token that the API asks for; made at the first start.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn token(&self) -> anyhow::Result<Secret> {
        // 256 bits of randomness in all.
        let half = || u128::from_be_bytes(clock::random());
        self.kept(&token_file(&self.path), || Secret::new(format!("{:032x}{:032x}", half(), half())))
    }

    /// Notes where the API listens, for clients on this machine.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn announce(&self, url: &str) -> anyhow::Result<()> {
        self.write(&url_file(&self.path), url)
    }

    /// Takes the note back.
    pub fn withdraw(&self) {
        // A note that stays is harmless: the next start writes it anew.
        let _ = std::fs::remove_file(url_file(&self.path));
    }

    /// The secret in the file `path`, made by `fresh` where there is none.
    fn kept(&self, path: &Path, fresh: impl FnOnce() -> Secret) -> anyhow::Result<Secret> {
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {
                anyhow::bail!("{} is empty: remove it, and the next start makes another", path.display())
            }
            Ok(text) => {
                // Whoever copied it here may have left it open to others.
                std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(FILE_MODE))
                    .with_context(|| format!("closing {} to others", path.display()))?;
                Ok(Secret::new(text.trim().to_owned()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let secret = fresh();
                self.write(path, secret.reveal())?;
                Ok(secret)
            }
            Err(error) => Err(error).with_context(|| format!("reading {}", path.display())),
        }
    }

    /// Writes the file whole or not at all, so that a crash leaves no half of it.
    fn write(&self, path: &Path, text: &str) -> anyhow::Result<()> {
        let mut file = tempfile::Builder::new()
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(FILE_MODE))
            .tempfile_in(&self.path)
            .with_context(|| format!("making a file in {}", self.path.display()))?;
        writeln!(file, "{text}")
            .and_then(|()| file.as_file().sync_all())
            .with_context(|| format!("writing {}", path.display()))?;
        file.persist(path).with_context(|| format!("writing {}", path.display()))?;
        // The file's name must be as durable as what is encrypted under it.
        File::open(&self.path)
            .and_then(|dir| dir.sync_all())
            .with_context(|| format!("syncing {}", self.path.display()))?;
        Ok(())
    }
}

/// Whether whoever held that data directory is gone. One that was made just now and isn't held yet has no holder's note.
pub fn is_orphaned(dir: &Path) -> bool {
    let Ok(mut file) = File::open(dir.join("lock")) else { return false };
    holder(&mut file) != NO_HOLDER && file.try_lock().is_ok()
}

/// Where `windlass dev` keeps its token.
pub fn token_file(dir: &Path) -> PathBuf {
    dir.join("token")
}

/// Where `windlass dev` notes its address while it serves.
pub fn url_file(dir: &Path) -> PathBuf {
    dir.join("url")
}

/// Why a data directory isn't ours alone, if it isn't.
fn openness(path: &Path) -> Option<String> {
    let found = std::fs::metadata(path).ok()?;
    let owner = found.uid();
    if owner != nix::unistd::geteuid().as_raw() {
        return Some(format!("belongs to another user ({owner})"));
    }
    let mode = found.mode() & 0o777;
    (mode & 0o022 != 0).then(|| format!("can be written by others (mode {mode:03o})"))
}

/// Takes hold of `what` through the file `lock`; `remedy` is for whoever finds it taken.
fn hold(lock: &Path, what: &Path, remedy: &str) -> anyhow::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(lock)
        .with_context(|| format!("opening {}", lock.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!(
            "{} is in use by another windlass (pid {}): stop that one, or {remedy}",
            what.display(),
            holder(&mut file)
        ),
        Err(TryLockError::Error(error)) => return Err(error).context(format!("locking {}", lock.display())),
    }
    file.set_len(0)
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("writing {}", lock.display()))?;
    Ok(file)
}

/// The process id that the holder wrote into its lock.
fn holder(file: &mut File) -> String {
    let mut text = String::new();
    // It may not have written it yet.
    let _ = file.read_to_string(&mut text);
    let pid = text.trim();
    if pid.is_empty() { NO_HOLDER.to_owned() } else { pid.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::{DataDir, openness};

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_has_one_holder_and_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/windlass");
        let held = DataDir::hold(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        let refused = DataDir::hold(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("another windlass (pid {})", std::process::id())), "{refused}");
        drop(held);
        DataDir::hold(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_told_of() {
        let dir = tempfile::tempdir().unwrap();
        let with = |mode| {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            openness(dir.path())
        };
        assert_eq!(with(0o700), None);
        assert_eq!(with(0o755), None);
        assert_eq!(with(0o777).as_deref(), Some("can be written by others (mode 777)"));
        assert!(with(0o720).is_some());
    }

    #[test]
    fn secrets_are_made_once_and_for_the_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::hold(dir.path()).unwrap();
        let token = held.token().unwrap();
        assert_eq!(token.reveal().len(), 64);
        assert_eq!(held.token().unwrap(), token);
        let database = held.path().join("windlass.db");
        held.master_keys(&database).unwrap();
        std::fs::write(&database, "something").unwrap();
        held.master_keys(&database).unwrap();
        for name in ["token", "master.key", "lock"] {
            assert_eq!(mode(&held.path().join(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_key_file_that_is_missing_beside_a_database_is_not_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::hold(dir.path()).unwrap();
        let database = held.path().join("windlass.db");
        std::fs::write(&database, "something").unwrap();
        let refused = held.master_keys(&database).err().unwrap().to_string();
        assert!(refused.contains("master.key is missing") && refused.contains("windlass.db"), "{refused}");
        assert!(!held.path().join("master.key").exists());
    }

    #[test]
    fn a_damaged_key_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::hold(dir.path()).unwrap();
        let path = held.path().join("master.key");
        std::fs::write(&path, "rubbish").unwrap();
        assert!(
            format!("{:#}", held.master_keys(&held.path().join("windlass.db")).err().unwrap()).contains("master.key")
        );
        assert_eq!(std::fs::read_to_string(path).unwrap(), "rubbish");
    }
}
