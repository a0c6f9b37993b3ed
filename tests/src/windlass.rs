//! The program under test: the binary `windlass` that stands beside the test's own, and what a run of it comes to.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{SigHandler, Signal, killpg, signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::dev::DEADLINE;
use crate::process::Owned;
use crate::wait::eventually;

/// Where the program is.
///
/// # Panics
/// When it was not built.
pub fn path() -> PathBuf {
    let path = beside("windlass");
    let release = if path.parent().is_some_and(|programs| programs.ends_with("release")) { " --release" } else { "" };
    assert!(path.exists(), "there is no {}: run `cargo build -p cli{release}` first", path.display());
    path
}

/// Where a program of that name is, if it was built as this one was.
pub fn beside(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a program knows where it is");
    let place = own.parent().expect("a directory");
    // Tests are built in `deps`, one directory below the programs.
    let programs = if place.ends_with("deps") { place.parent().expect("a target directory") } else { place };
    programs.join(name)
}

/// The program, to be started with more arguments and without the settings of whoever runs the tests.
pub fn windlass() -> Command {
    windlass_at(&path())
}

/// The same for the build at `program`.
pub fn windlass_at(program: &Path) -> Command {
    let mut command = Command::new(program);
    let settings = std::env::vars_os().map(|(name, _)| name);
    for name in settings.filter(|name| name.to_string_lossy().starts_with("WINDLASS_")) {
        command.env_remove(name);
    }
    // An empty file in place of what this machine may have.
    command.env("WINDLASS_CONFIG", "/dev/null");
    command
}

/// Where a command of a story is at home: its HOME, its TMPDIR, and room for what jobs write down.
#[derive(Debug)]
pub struct Place(TempDir);

/// A program that runs in a group of processes of its own, all of which are ended when this is dropped; what it writes is
/// collected.
#[derive(Debug)]
pub struct Running {
    group: Group,
    process: Owned,
    stdout: Collected,
    stderr: Collected,
}

/// How a program ended and what it wrote.
#[derive(Debug)]
pub struct Finished {
    /// Its exit code; none when it died of a signal.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
}

/// The group of a program that hasn't been waited for: until then its number is nobody else's.
#[derive(Debug)]
struct Group(Option<i32>);

#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: JoinHandle<()>,
}

impl Place {
    pub fn new() -> Self {
        let place = Self(tempfile::tempdir().expect("a temporary directory"));
        fs::create_dir(place.path("tmp")).expect("a directory");
        place
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// `windlass run` with these arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = windlass();
        command.arg("run").args(arguments).env("HOME", self.0.path()).env("TMPDIR", self.path("tmp"));
        command
    }

    /// Runs `windlass run` to its end.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Running::start(self.command(arguments)).finish()
    }

    /// What is in its TMPDIR.
    pub fn left(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.path("tmp")).expect("a directory");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

impl Default for Place {
    fn default() -> Self {
        Self::new()
    }
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        // Tests that run in the background of a script have SIGINT ignored, and so would whatever they start.
        // SAFETY: setting a signal's default disposition is safe to do between `fork` and `exec`.
        unsafe {
            command.pre_exec(|| signal(Signal::SIGINT, SigHandler::SigDfl).map(drop).map_err(io::Error::from));
        }
        let mut process = Owned(command.spawn().expect("the program starts"));
        let stdout = Collected::from(process.0.stdout.take().expect("its standard output"));
        let stderr = Collected::from(process.0.stderr.take().expect("its standard error"));
        Self { group: Group(Some(process.pid())), process, stdout, stderr }
    }

    /// Its number, which is its group's as well.
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it doesn't end within [`DEADLINE`].
    pub fn finish(mut self) -> Finished {
        let ended = || self.process.0.try_wait().expect("its state");
        let status = eventually(DEADLINE, "the program has ended", ended);
        self.group.0 = None;
        Finished { code: status.code(), stdout: self.stdout.finish(), stderr: self.stderr.finish() }
    }
}

impl Finished {
    /// Its standard output as text.
    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Its standard error as text.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Whoever of it is still there; the test may be failing already.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

impl Collected {
    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        /// A whole pipe.
        const PIECE_BYTES: usize = 64 * 1024;
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&bytes);
        let reader = thread::spawn(move || {
            let mut piece = vec![0; PIECE_BYTES];
            while let Ok(count @ 1..) = pipe.read(&mut piece) {
                all.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..count]);
            }
        });
        Self { bytes, reader }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    fn finish(self) -> Vec<u8> {
        self.reader.join().expect("the pipe is read to its end");
        std::mem::take(&mut self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Every file below `dir`. What vanishes meanwhile is left out.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let each = |path: PathBuf| if path.is_dir() && !path.is_symlink() { files(&path) } else { vec![path] };
    entries.flat_map(each).collect()
}

/// The files below `dir` in which any of `texts` occurs, each with what was found.
pub fn files_with(dir: &Path, texts: &[String]) -> Vec<(PathBuf, String)> {
    let found = |path: PathBuf| {
        // What is gone by then can't be searched, nor can a socket.
        let bytes = fs::read(&path).unwrap_or_default();
        let inside = texts.iter().filter(|text| contains(&bytes, text.as_bytes()));
        inside.map(|text| (path.clone(), text.clone())).collect::<Vec<_>>()
    };
    files(dir).into_iter().flat_map(found).collect()
}

/// Whether `part` occurs in `bytes`.
pub fn contains(bytes: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && bytes.windows(part.len()).any(|window| window == part)
}
