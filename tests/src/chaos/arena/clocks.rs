//! Wall clocks that jump: one for each process that has one, by way of a small library that is compiled at the start and
//! preloaded.
//!
//! A process sees the jump wherever it reads the wall clock through the C library, which ours and Postgres do. What the
//! kernel does by its own wall clock, like the times of files, stays; so does all that a process starts with a clean
//! environment, like the steps of a job.

use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use shared::clock;
use tempfile::TempDir;

const SOURCE: &str = include_str!("../clock.c");
/// By what setting the library finds the seconds.
const SECONDS: &str = "CHAOS_CLOCK";
/// A jump that no clock makes by itself.
const PROBE: i64 = 1_000_000;

/// The library, and where the seconds stand.
#[derive(Debug)]
pub struct Clocks {
    dir: TempDir,
    /// Why no clock jumps here.
    missing: Option<String>,
}

impl Clocks {
    /// Compiles the library, and tries it.
    pub fn new() -> Self {
        // Postgres may be somebody else, and has to read it.
        let all = fs::Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new().prefix("clocks-").permissions(all).tempdir();
        let mut clocks = Self { dir: dir.expect("a temporary directory"), missing: None };
        clocks.missing = clocks.compile().and_then(|()| clocks.try_out()).err();
        clocks
    }

    /// Why no clock jumps here.
    pub fn missing(&self) -> Option<&str> {
        self.missing.as_deref()
    }

    /// The settings with which a process looks at the clock of that name.
    pub fn environment(&self, name: &str) -> Vec<(String, String)> {
        if self.missing.is_some() {
            return Vec::new();
        }
        if !self.seconds(name).exists() {
            self.jump(name, 0);
        }
        self.settings(name)
    }

    /// Sets that clock so many seconds ahead of the machine's.
    pub fn jump(&self, name: &str, seconds: i64) {
        let file = fs::File::options().create(true).truncate(false).write(true).open(self.seconds(name));
        // Who has it mapped sees all eight bytes at once.
        file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0)).expect("a clock");
    }

    fn settings(&self, name: &str) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("a path of ours").to_owned();
        vec![("LD_PRELOAD".to_owned(), text(&self.library())), (SECONDS.to_owned(), text(&self.seconds(name)))]
    }

    fn compile(&self) -> Result<(), String> {
        let source = self.dir.path().join("clock.c");
        fs::write(&source, SOURCE).expect("a file");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(self.library()).arg(source).stdin(Stdio::null());
        let done = compiler.output().map_err(|error| format!("cc can't be started: {error}"))?;
        if done.status.success() { Ok(()) } else { Err(format!("cc: {}", String::from_utf8_lossy(&done.stderr))) }
    }

    /// Asks another program what time it is.
    fn try_out(&self) -> Result<(), String> {
        self.jump("probe", PROBE);
        let asked = Command::new("date").arg("+%s").envs(self.settings("probe")).output();
        let told = String::from_utf8_lossy(&asked.map_err(|error| format!("date: {error}"))?.stdout).into_owned();
        let now = clock::now().micros() / 1_000_000;
        match told.trim().parse::<i64>() {
            Ok(time) if time > now + PROBE / 2 => Ok(()),
            _ => Err(format!("a program that preloads the library says that it is {told:?}")),
        }
    }

    fn library(&self) -> PathBuf {
        self.dir.path().join("clock.so")
    }

    fn seconds(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.seconds"))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{ChildStdout, Command, Stdio};

    use shared::clock;

    use super::Clocks;
    use crate::process::Owned;

    /// For each line that it reads, the seconds of the wall clock and of the monotonic one.
    const TELLS: &str =
        "import sys, time\nfor _ in sys.stdin: print(int(time.time()), int(time.monotonic()), flush=True)";

    /// A process that tells the time.
    struct Teller {
        process: Owned,
        output: BufReader<ChildStdout>,
    }

    impl Teller {
        fn start(clocks: &Clocks, name: &str) -> Self {
            let mut teller = Command::new("python3");
            teller.args(["-c", TELLS]).envs(clocks.environment(name)).stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut process = Owned(teller.spawn().expect("python3 is installed"));
            let output = BufReader::new(process.0.stdout.take().expect("its output"));
            Self { process, output }
        }

        /// How far ahead its wall clock is, and its monotonic one.
        fn ahead(&mut self) -> [i64; 2] {
            writeln!(self.process.0.stdin.as_mut().expect("its input")).expect("a line");
            let mut line = String::new();
            self.output.read_line(&mut line).expect("a line");
            let told = line.split_whitespace().map(|number| number.parse::<i64>().expect("a number"));
            let monotonic = clock::monotonic(clock::instant()).as_secs();
            let true_times = [clock::now().micros() / 1_000_000, i64::try_from(monotonic).expect("a number")];
            let told: Vec<i64> = told.zip(true_times).map(|(told, is)| told - is).collect();
            told.try_into().expect("two clocks")
        }

        fn is_ahead_by(&mut self, seconds: i64) -> bool {
            let [wall, monotonic] = self.ahead();
            (wall - seconds).abs() <= 1 && monotonic.abs() <= 1
        }
    }

    #[test]
    fn the_wall_clock_of_one_process_jumps_ahead_and_back_while_it_runs() {
        let clocks = Clocks::new();
        assert_eq!(clocks.missing(), None);
        let [mut one, mut other] = ["one", "other"].map(|name| Teller::start(&clocks, name));
        for seconds in [0, 40, -40, 0] {
            clocks.jump("one", seconds);
            assert!(
                one.is_ahead_by(seconds) && other.is_ahead_by(0),
                "{seconds}: {:?} {:?}",
                one.ahead(),
                other.ahead()
            );
        }
    }
}
