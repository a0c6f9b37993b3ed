//! The program under test: the binary `windlass` that stands beside the test's own.

use std::path::PathBuf;
use std::process::Command;

/// Where the program is.
///
/// # Panics
/// When it was not built.
pub fn path() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    // Tests are built in `deps`, one directory below the program.
    let path = test.ancestors().nth(2).expect("a target directory").join("windlass");
    assert!(path.exists(), "there is no {}: run `cargo build -p cli` first", path.display());
    path
}

/// The program, to be started with more arguments and without the settings of whoever runs the tests.
pub fn windlass() -> Command {
    let mut command = Command::new(path());
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    command
}
