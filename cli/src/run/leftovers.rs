//! The directories of earlier `run`s that were killed and could not remove them: the next `run` does it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::data_dir::is_orphaned;

/// What the names of these directories begin with.
pub const PREFIX: &str = "windlass-run-";

/// Removes from `place` the directories of ours whose `run` is gone. What can't be removed stays for the next one.
pub fn sweep(place: &Path) {
    let own = nix::unistd::geteuid().as_raw();
    for entry in fs::read_dir(place).into_iter().flatten().flatten() {
        let is_named = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // A symbolic link leads to somebody else's directory.
        let is_ours = || entry.metadata().is_ok_and(|found| found.is_dir() && found.uid() == own);
        if is_named && is_ours() && is_orphaned(&entry.path()) {
            tracing::debug!(path = %entry.path().display(), "removing what a killed run has left");
            // It may still be written to, or hold what only its owner can remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{PREFIX, sweep};
    use crate::data_dir::DataDir;

    #[test]
    fn what_a_killed_run_has_left_is_removed_and_what_is_in_use_or_new_or_foreign_stays() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(format!("{PREFIX}{name}"));
        drop(DataDir::hold(&path("killed")).unwrap());
        let held = DataDir::hold(&path("in-use")).unwrap();
        std::fs::create_dir(path("just-made")).unwrap();
        std::fs::create_dir(path("not-held-yet")).unwrap();
        std::fs::write(path("not-held-yet").join("lock"), "").unwrap();
        let elsewhere = place.path().join("elsewhere");
        drop(DataDir::hold(&elsewhere).unwrap());
        std::os::unix::fs::symlink(&elsewhere, path("link")).unwrap();
        sweep(place.path());
        assert!(!path("killed").exists());
        for name in ["in-use", "just-made", "not-held-yet", "link"] {
            assert!(path(name).exists(), "{name}");
        }
        assert!(elsewhere.exists());
        drop(held);
    }
}
