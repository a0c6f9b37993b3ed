//! What is in a worker's spool, also while the worker uses it.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use worker::fuzzed::{self, Entry};

/// The entries in the spool of the worker with that data directory; none where there is no spool.
pub fn spooled(data_dir: &Path) -> Vec<Entry> {
    let dir = data_dir.join("worker/spool");
    loop {
        match fuzzed::spooled(&dir) {
            Ok(entries) => return entries,
            Err(error) if error.kind() == ErrorKind::NotFound && !dir.exists() => return Vec::new(),
            // The worker has just begun another file.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("{}: {error}", dir.display()),
        }
    }
}

/// The same entries by the names of their attempts, and the names of the files that are no journal's.
pub fn names(data_dir: &Path) -> Vec<String> {
    let files = fs::read_dir(data_dir.join("worker/spool")).into_iter().flatten().flatten().map(|file| file.path());
    let others = files.filter(|path| path.extension().is_none_or(|extension| extension != "journal"));
    let entries = spooled(data_dir).into_iter().map(|entry| format!("{}-{}", entry.job, entry.attempt));
    entries.chain(others.filter_map(|path| Some(path.file_name()?.display().to_string()))).collect()
}
