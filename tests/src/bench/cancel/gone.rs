//! From a cancel's request to the end of the job's process.

use std::fs;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::json;
use shared::clock;

use super::super::percentiles::{P50, P99, Samples};
use super::super::results::Results;
use super::super::rig::Rig;
use super::{NAME, RUNS, WITHIN, cancel, connected};
use crate::http::Client;
use crate::wait::eventually;

/// How many processes are started at the same time at most.
const STARTED_AT_ONCE: usize = 100;

/// A job that runs, and its process.
struct Held {
    job: String,
    process: OwnedFd,
}

/// When a cancel was sent, and when it was answered.
struct Cancelled {
    at: Instant,
    answered: Instant,
}

/// Cancels `count` jobs that run, so many at the same time, and that so often.
pub fn measure(rig: &Rig, in_flight: u32, count: u32, rounds: u32, results: &mut Results) {
    let (mut answered, mut gone) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let held = hold(rig, count);
        let (ends, ended) = mpsc::sync_channel(held.len());
        thread::scope(|scope| {
            scope.spawn(|| watch(&held, &ends));
            for together in (0..held.len()).collect::<Vec<_>>().chunks(in_flight as usize) {
                let cancelled = all_at_once(rig.cluster.client(), &held, together);
                let mut end_of = vec![None; held.len()];
                for _ in together {
                    let (which, at): (usize, Instant) = ended.recv_timeout(WITHIN).expect("each process ends");
                    end_of[which] = Some(at);
                }
                for (which, cancelled) in together.iter().zip(cancelled) {
                    let end = end_of[*which].expect("those that were canceled have ended, and no others");
                    answered.push(cancelled.answered - cancelled.at);
                    gone.push(end.saturating_duration_since(cancelled.at));
                }
            }
        });
    }
    let add = |samples: Vec<Duration>, what: &str, results: &mut Results| {
        let samples: Samples = samples.into_iter().collect();
        samples.add_to(results, NAME, &format!("{what}, {in_flight} in flight"), &[P50, P99]);
    };
    add(answered, "committed of jobs that run", results);
    add(gone, "process gone", results);
}

/// Starts so many jobs and waits until their processes run. They come a few at a time: what is measured is their end.
fn hold(rig: &Rig, count: u32) -> Vec<Held> {
    let notes = rig.cluster.notes();
    let run = format!("echo $$ > {}/$WINDLASS_JOB_ID; exec sleep 600", notes.display());
    let job = json!({"steps": [{"run": run}], "tags": [RUNS], "grace": "0s"});
    let mut all = Vec::new();
    while all.len() < count as usize {
        let more = STARTED_AT_ONCE.min(count as usize - all.len());
        let answer = rig.cluster.client().post("/api/v1/jobs", &json!({"jobs": vec![&job; more]}));
        assert_eq!(answer.status, 201, "{}", answer.text);
        let ids = answer.json["jobs"].as_array().expect("jobs").iter().map(|job| job["id"].as_str().expect("an id"));
        let ids: Vec<String> = ids.map(str::to_owned).collect();
        let pids = eventually(WITHIN, "the jobs run", || {
            ids.iter().map(|job| noted(&notes.join(job))).collect::<Option<Vec<_>>>()
        });
        all.extend(ids.into_iter().zip(pids).map(|(job, pid)| Held { job, process: descriptor(pid) }));
    }
    all
}

/// The number that a process has written down, once it has.
fn noted(note: &Path) -> Option<i32> {
    fs::read_to_string(note).ok()?.strip_suffix('\n')?.parse().ok()
}

/// A descriptor of that process, which is readable once it has ended.
fn descriptor(pid: i32) -> OwnedFd {
    // SAFETY: the call takes two numbers and touches no memory of ours.
    let found = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    let number = i32::try_from(found).ok().filter(|number| *number >= 0);
    let number = number.unwrap_or_else(|| panic!("process {pid}: {}", std::io::Error::last_os_error()));
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Tells of each of these processes when it has ended, until all have.
fn watch(held: &[Held], ends: &mpsc::SyncSender<(usize, Instant)>) {
    let patience = PollTimeout::try_from(WITHIN).expect("minutes at most");
    let mut left: Vec<usize> = (0..held.len()).collect();
    while !left.is_empty() {
        let descriptors = left.iter().map(|which| PollFd::new(held[*which].process.as_fd(), PollFlags::POLLIN));
        let mut descriptors: Vec<PollFd> = descriptors.collect();
        let ready = poll(&mut descriptors, patience).expect("their ends");
        let at = clock::instant();
        assert!(ready > 0, "{} processes haven't ended within {WITHIN:?}", left.len());
        let ended: Vec<bool> = descriptors.iter().map(|descriptor| descriptor.any().unwrap_or(false)).collect();
        for (which, _) in left.iter().zip(&ended).filter(|(_, ended)| **ended) {
            ends.send((*which, at)).expect("somebody waits for it");
        }
        let mut ended = ended.into_iter();
        left.retain(|_| !ended.next().unwrap_or(false));
    }
}

/// Cancels these of the jobs, each over a connection of its own, at the same time; returns them in their order.
fn all_at_once(client: &Client, held: &[Held], which: &[usize]) -> Vec<Cancelled> {
    let (ready, done) = (Barrier::new(which.len()), Mutex::new(Vec::new()));
    let clients: Vec<Client> = which.iter().map(|_| connected(client)).collect();
    thread::scope(|scope| {
        for (which, client) in which.iter().zip(clients) {
            let (ready, done) = (&ready, &done);
            scope.spawn(move || {
                ready.wait();
                let at = clock::instant();
                assert_eq!(cancel(&client, &held[*which].job), 202, "a cancel is committed");
                let answered = clock::instant();
                done.lock().expect("the others haven't panicked").push((*which, Cancelled { at, answered }));
            });
        }
    });
    let mut done = done.into_inner().expect("nobody has panicked");
    done.sort_by_key(|(which, _)| *which);
    done.into_iter().map(|(_, cancelled)| cancelled).collect()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::sync::mpsc;
    use std::thread;

    use shared::clock;

    use super::{Held, WITHIN, descriptor, watch};
    use crate::process::Owned;

    #[test]
    fn the_end_of_each_process_is_seen_when_it_comes() {
        let mut processes: Vec<Owned> =
            (0..3).map(|_| Owned(Command::new("cat").stdin(Stdio::piped()).spawn().expect("cat"))).collect();
        let held = |process: &Owned| Held { job: String::new(), process: descriptor(process.pid()) };
        let held: Vec<Held> = processes.iter().map(held).collect();
        let (ends, ended) = mpsc::sync_channel(processes.len());
        thread::scope(|scope| {
            scope.spawn(|| watch(&held, &ends));
            for which in [1, 0, 2] {
                let before = clock::instant();
                processes[which].0.kill().expect("it can be killed");
                let (seen, at) = ended.recv_timeout(WITHIN).expect("its end");
                assert!(seen == which && at >= before, "{seen} has ended, not {which}");
            }
        });
    }
}
