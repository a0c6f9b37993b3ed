//! Who goes first where a host runs short of memory or of CPU: the worker and its keepers before the jobs.
//!
//! A worker that the kernel kills for its jobs' hunger takes all of them along, so it and its keepers ask to be among the
//! last (`oom_score_adj`, where they may), and a job's processes are made the likelier choice. A job that keeps every CPU
//! busy must not keep its worker from a heartbeat either: its processes yield by [`NICE`], which still gives them a CPU
//! that nobody else wants, and a third of what others get where all want it. Where the kernel groups processes by session
//! before it looks at that, the job's sessions yield as groups.

use std::fs;

use nix::libc;

/// What the worker and its keepers ask for, of −1000 to 1000.
const PROTECTED: i32 = -900;
/// How far above the worker's own a job's score is, and the least that it is.
const EXPOSED: i32 = 500;
const SCORE_MAX: i32 = 1000;
/// How far a job's processes yield the CPU, of 19.
const NICE: i32 = 5;

const SCORE_FILE: &str = "/proc/self/oom_score_adj";
const SESSION_FILE: &str = "/proc/self/autogroup";

/// How a job's processes stand behind their worker.
#[derive(Debug, Clone)]
pub struct Behind {
    score: String,
    nice: String,
}

impl Behind {
    /// Behind this process, before it is protected itself.
    pub fn this_process() -> Self {
        Self { score: exposed(score().unwrap_or(0)).to_string(), nice: NICE.to_string() }
    }

    /// Puts the calling process there, which must be a session's first. What isn't allowed is left as it is.
    pub fn step_back(&self) {
        let _ = fs::write(SCORE_FILE, &self.score);
        let _ = fs::write(SESSION_FILE, &self.nice);
        // SAFETY: the call takes a number and changes nothing but the process's own priority.
        unsafe { libc::nice(NICE) };
    }
}

/// Asks that this process is among the last that a host short of memory kills. Not allowed to most; then it stays as
/// killable as it was.
pub fn protect() {
    if score().is_some_and(|score| score > PROTECTED) {
        let _ = fs::write(SCORE_FILE, PROTECTED.to_string());
    }
}

fn score() -> Option<i32> {
    fs::read_to_string(SCORE_FILE).ok()?.trim().parse().ok()
}

fn exposed(own: i32) -> i32 {
    own.saturating_add(EXPOSED).clamp(EXPOSED, SCORE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_killed_before_its_worker_however_that_was_started() {
        assert_eq!([-1000, -900, 0, 300, 900, 1000].map(exposed), [500, 500, 500, 800, 1000, 1000]);
    }
}
