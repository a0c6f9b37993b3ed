//! The mirrors: what this host already has of the repositories that its jobs build, one directory a URL.
//!
//! A mirror is held by one attempt at a time, until what works in it has ended. It is a cache and nothing more: whatever
//! is found wrong with it, it is dropped and made anew, and who may read it is decided elsewhere. A job gets copies from
//! it, nothing that it shares with another job. Whoever holds it first lays it out again: of an earlier use only objects
//! and refs count, never hooks, configuration or what a killed git has left.

use std::collections::HashMap;
use std::fs::{self, DirEntry};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sha2::{Digest, Sha256};
use shared::id::CommitId;
use shared::spec::History;
use tokio::sync::OwnedMutexGuard;

use crate::attempt::directories::{private, remove};

/// The most mirrors that are kept; of more the one goes that was used longest ago.
const MIRRORS_MAX: usize = 100;
/// The most packs of one mirror: each fetch leaves one, and too many make every look slow.
const PACKS_MAX: usize = 200;
/// What is kept of a mirror from one use to the next.
const KEPT: [&str; 4] = ["objects", "refs", "packed-refs", "shallow"];

/// All mirrors of one worker.
pub struct Mirrors {
    dir: PathBuf,
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// One mirror, which nobody else uses meanwhile. Every copy keeps it.
#[derive(Clone)]
pub struct Held {
    pub path: PathBuf,
    _lock: Arc<OwnedMutexGuard<()>>,
}

impl Mirrors {
    /// Those in `dir`, which need not be there yet.
    pub fn at(dir: PathBuf) -> Self {
        Self { dir, locks: Mutex::default() }
    }

    /// Waits until nobody else has the mirror of `url`. A shallow one and one with all history are apart.
    pub async fn hold(&self, url: &str, history: History) -> Held {
        let digest = Sha256::digest(url);
        let name = match history {
            History::Shallow => format!("{digest:x}"),
            History::Full => format!("{digest:x}-full"),
        };
        let lock = self.lock(&name).lock_owned().await;
        Held { path: self.dir.join(name), _lock: Arc::new(lock) }
    }

    fn lock(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.retain(|known, lock| known == name || Arc::strong_count(lock) > 1);
        locks.entry(name.to_owned()).or_default().clone()
    }

    /// Makes room for one more mirror than there are, but for those that somebody holds, as far as it can: no checkout
    /// fails for it. It blocks.
    pub fn make_room(&self) {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return tracing::warn!(%error, dir = %self.dir.display(), "the mirrors can't be listed"),
            Ok(entries) => entries.flatten(),
        };
        let mut found: Vec<(SystemTime, DirEntry)> = entries.map(|entry| (used(&entry.path()), entry)).collect();
        found.sort_by_key(|(used, _)| *used);
        let surplus = (found.len() + 1).saturating_sub(MIRRORS_MAX);
        for (_, entry) in found.into_iter().take(surplus) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(_held) = self.lock(&name).try_lock_owned()
                && let Err(error) = remove(&entry.path())
            {
                tracing::warn!(%error, mirror = %entry.path().display(), "a mirror that is to go can't be removed");
            }
        }
    }
}

/// When a mirror was laid out last.
fn used(mirror: &Path) -> SystemTime {
    fs::metadata(mirror.join("config")).and_then(|config| config.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

impl Held {
    /// Whether there is something of it.
    pub fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Makes a bare repository of it that has what it had before, and nothing else. It blocks.
    ///
    /// # Errors
    /// When something in it can't be read or removed: it is to be dropped then.
    pub fn lay_out(&self, commit: &CommitId) -> io::Result<()> {
        if packs(&self.path)? > PACKS_MAX {
            remove(&self.path)?;
        }
        private(&self.path)?;
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let kept = KEPT.iter().any(|name| entry.file_name() == *name) && !entry.file_type()?.is_symlink();
            if !kept {
                discard(&entry)?;
            }
        }
        let (objects, refs) = (self.path.join("objects"), self.path.join("refs"));
        private(&objects.join("pack"))?;
        private(&refs)?;
        clean(&objects)?;
        clean(&refs)?;
        fs::write(self.path.join("HEAD"), "ref: refs/heads/none\n")?;
        fs::write(self.path.join("config"), config(commit))
    }

    /// Drops it, whatever it is. It blocks.
    pub fn remove(&self) -> io::Result<()> {
        remove(&self.path)
    }
}

fn packs(mirror: &Path) -> io::Result<usize> {
    match fs::read_dir(mirror.join("objects/pack")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        entries => {
            let is_pack = |entry: DirEntry| entry.path().extension().is_some_and(|ending| ending == "pack");
            entries?.map(|entry| entry.map(|entry| usize::from(is_pack(entry)))).sum()
        }
    }
}

/// Removes what a git that was killed has left below `dir`, and where else objects would be looked for. Git nests what it
/// keeps there a few levels deep.
fn clean(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let left = path.extension().is_some_and(|ending| ending == "lock")
            || name.starts_with("tmp_")
            || name.starts_with("incoming-");
        let is_info = name == "info" && dir.ends_with("objects");
        let kind = entry.file_type()?;
        if left || is_info || kind.is_symlink() {
            discard(&entry)?;
        } else if kind.is_dir() {
            clean(&path)?;
        }
    }
    Ok(())
}

fn discard(entry: &DirEntry) -> io::Result<()> {
    if entry.file_type()?.is_dir() { remove(&entry.path()) } else { fs::remove_file(entry.path()) }
}

/// What a mirror is configured with: it packs all that it gets, tidies nothing by itself, and gives what is asked for by id.
fn config(commit: &CommitId) -> String {
    let (version, format) = match commit.object_format() {
        "sha1" => (0, String::new()),
        format => (1, format!("[extensions]\n\tobjectFormat = {format}\n")),
    };
    format!(
        "[core]\n\trepositoryFormatVersion = {version}\n\tbare = true\n\thooksPath = /dev/null\n{format}\
         [gc]\n\tauto = 0\n[maintenance]\n\tauto = false\n[transfer]\n\tunpackLimit = 1\n\
         [uploadpack]\n\tallowAnySHA1InWant = true\n"
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn commit() -> CommitId {
        CommitId::try_from("0".repeat(40)).unwrap()
    }

    #[tokio::test]
    async fn a_mirror_is_held_once_until_its_last_copy_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Arc::new(Mirrors::at(dir.path().to_owned()));
        let held = mirrors.hold("git@h:r", History::Shallow).await;
        let copy = held.clone();
        drop(held);
        let other = mirrors.hold("git@h:r", History::Full).await;
        assert_ne!(other.path, copy.path);
        let waiting = mirrors.clone();
        let waiting = tokio::spawn(async move { waiting.hold("git@h:r", History::Shallow).await.path });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        let path = copy.path.clone();
        drop(copy);
        assert_eq!(waiting.await.unwrap(), path);
    }

    #[tokio::test]
    async fn only_objects_and_refs_outlive_a_use() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::at(dir.path().to_owned());
        let held = mirrors.hold("git@h:r", History::Shallow).await;
        held.lay_out(&commit()).unwrap();
        let gone = [
            "hooks/post-checkout",
            "shallow.lock",
            "objects/pack/tmp_pack_x",
            "objects/info/alternates",
            "refs/a.lock",
            "objects/incoming-x/pack",
            "config.worktree",
            "info/attributes",
        ];
        let stays = ["objects/pack/pack-1.pack", "refs/windlass/1", "shallow", "packed-refs"];
        for file in gone.iter().chain(&stays) {
            let file = held.path.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        fs::write(held.path.join("config"), "[core]\n\tfsmonitor = touch x\n").unwrap();
        held.lay_out(&commit()).unwrap();
        assert_eq!(gone.map(|file| held.path.join(file).exists()), gone.map(|_| false));
        assert_eq!(stays.map(|file| held.path.join(file).exists()), stays.map(|_| true));
        assert!(!fs::read_to_string(held.path.join("config")).unwrap().contains("fsmonitor"));
        for pack in 0..=PACKS_MAX {
            fs::write(held.path.join(format!("objects/pack/pack-{pack}x.pack")), "x").unwrap();
        }
        held.lay_out(&commit()).unwrap();
        assert_eq!(packs(&held.path).unwrap(), 0);
    }

    #[tokio::test]
    async fn the_mirrors_used_longest_ago_make_room_but_none_that_is_held() {
        let dir = tempfile::tempdir().unwrap();
        let mirrors = Mirrors::at(dir.path().to_owned());
        let mut kept = Vec::new();
        let epoch = SystemTime::UNIX_EPOCH;
        for number in 0..=MIRRORS_MAX {
            let held = mirrors.hold(&format!("git@h:{number}"), History::Shallow).await;
            held.lay_out(&commit()).unwrap();
            let config = fs::File::options().write(true).open(held.path.join("config")).unwrap();
            config.set_modified(epoch + Duration::from_secs(u64::try_from(number).unwrap() + 1)).unwrap();
            kept.push((held.path.clone(), (number == 0).then_some(held)));
        }
        // What can't be removed, as this can't, keeps nothing else.
        fs::write(dir.path().join("no-mirror"), "").unwrap();
        mirrors.make_room();
        let exists: Vec<bool> = kept.iter().map(|(path, _)| path.exists()).collect();
        assert_eq!(exists[..3], [true, false, true]);
        assert!(dir.path().join("no-mirror").exists());
    }
}
