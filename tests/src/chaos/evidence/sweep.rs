//! Nothing that a job has left behind outlives the run.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::leftovers::left;
use crate::process::Mark;

/// How long it may take: what is killed may have started something just before.
const WITHIN: Duration = Duration::from_secs(10);

/// Kills what carries its mark when it is dropped. It is made before what runs the jobs, so that it is dropped after that.
#[derive(Debug, Default)]
pub struct Sweep {
    mark: Option<Mark>,
}

impl Sweep {
    /// From now on it is about what carries this mark.
    pub fn after(&mut self, mark: &Mark) {
        self.mark = Some(mark.clone());
    }
}

impl Drop for Sweep {
    fn drop(&mut self) {
        let Some(mark) = &self.mark else { return };
        left(WITHIN, || {
            let carriers = mark.carriers();
            for pid in &carriers {
                // It may have ended since.
                let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
            }
            carriers
        });
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::Sweep;
    use crate::process::{Mark, Owned, escape, is_alive, noted};
    use crate::wait::eventually;

    #[test]
    fn what_a_job_left_behind_is_gone_with_the_sweep() {
        let dir = tempfile::tempdir().expect("a directory");
        let (mark, note) = (Mark::fresh(), dir.path().join("note"));
        let (name, value) = mark.entry();
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &escape(&note)]).env(name, value).stdin(Stdio::null());
        let mut job = Owned(shell.spawn().expect("a shell"));
        assert!(job.0.wait().expect("its end").success());
        let (left, mut sweep) = (noted(&note), Sweep::default());
        sweep.after(&mark);
        assert!(is_alive(left));
        drop(sweep);
        eventually(Duration::from_secs(10), "it is gone", || (!is_alive(left)).then_some(()));
        assert!(mark.is_gone());
    }
}
