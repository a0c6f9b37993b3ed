//! How long jobs are out of reach when their coordinator goes: killed (SIGKILL), and asked to end (SIGTERM). Three share the
//! shards; whoever asks speaks to the two that stay, and every command is the cancel of another queued job.
//!
//! - Killed: sixteen jobs of the victim's, each asked for again and again from the kill on. The first that is served counts,
//!   and the last.
//! - Asked to end: commands for jobs of its shards come at a fixed pace, each repeated until it is served, from before the signal
//!   until long after. The longest time without any that is served counts, and the longest that one had to wait.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use shared::clock;

use super::Settings;
use super::cancel::waiting;
use super::results::Results;
use super::rig::Rig;
use crate::dev::DEADLINE;
use crate::http::Client;
use crate::wait;

const NAME: &str = "takeover";
const JSON: &[(&str, &str)] = &[("content-type", "application/json")];
const COORDINATORS: usize = 3;
/// How many jobs are asked for when their coordinator was killed.
const PROBES: u32 = 16;
/// How many commands there are beside a handover, and how far apart they are: 5 s of them.
const COMMANDS: u32 = 2500;
const EVERY: Duration = Duration::from_millis(2);
/// How many of them may wait at a time.
const THREADS: usize = 64;
/// When the signal comes, after the first of them.
const SIGNAL_AFTER: Duration = Duration::from_millis(500);
/// How long a coordinator waits before it declares another dead, from its own start on, and some more.
const STEADY: Duration = Duration::from_secs(5);
/// How soon a command that wasn't served is said again.
const AGAIN_AFTER: Duration = Duration::from_millis(5);
/// How long one answer may take, and how long a command may be repeated.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
const WITHIN: Duration = Duration::from_mins(1);

/// See the module.
pub fn run(settings: &Settings, results: &mut Results) {
    let mut rig = Rig::with_coordinators(COORDINATORS);
    let mut canceled = 0;
    for round in 0..settings.runs as usize {
        wait::pass(STEADY, "the coordinators have been there for a while");
        killed(&mut rig, round % COORDINATORS, results);
        wait::pass(STEADY, "the shards are spread evenly");
        asked_to_end(&mut rig, (round + 1) % COORDINATORS, results);
        canceled += PROBES + COMMANDS;
        let found = rig.number("SELECT count(*)::text FROM jobs WHERE state = 'canceled'");
        assert_eq!(found.to_string(), canceled.to_string(), "jobs that are canceled, each once");
    }
}

/// Kills that coordinator, and starts it again when all is measured.
fn killed(rig: &mut Rig, victim: usize, results: &mut Results) {
    let jobs = jobs_of(rig, victim, PROBES);
    let survivors = survivors(rig, victim);
    let begun = clock::instant();
    rig.cluster.coordinators[victim].server.kill();
    let served: Vec<Instant> = thread::scope(|scope| {
        let each = jobs.iter().zip(survivors.iter().cycle());
        let each: Vec<_> = each.map(|(job, client)| scope.spawn(|| until_served(&connected(client), job))).collect();
        each.into_iter().map(|one| one.join().expect("each command is served")).collect()
    });
    let after = |at: Option<&Instant>| at.map_or(f64::NAN, |at| at.duration_since(begun).as_secs_f64());
    results.add(NAME, "SIGKILL until a command is served", "s", after(served.iter().min()));
    results.add(NAME, "SIGKILL until all commands are served", "s", after(served.iter().max()));
    again(rig, victim);
}

/// Asks that coordinator to end while commands for its jobs go on, and starts it again when all is measured.
fn asked_to_end(rig: &mut Rig, victim: usize, results: &mut Results) {
    let jobs = jobs_of(rig, victim, COMMANDS);
    let survivors = survivors(rig, victim);
    let (next, served) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let clients: Vec<Client> = survivors.iter().cycle().take(THREADS).map(connected).collect();
    let begin = clock::instant() + EVERY;
    let signaled = thread::scope(|scope| {
        for client in clients {
            let (jobs, next, served) = (&jobs, &next, &served);
            scope.spawn(move || {
                let mut ours = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(job) = jobs.get(number) else { break };
                    wait::until_instant(begin + EVERY * u32::try_from(number).expect("a small number"));
                    ours.push((clock::instant(), until_served(&client, job)));
                }
                served.lock().expect("the others haven't panicked").extend(ours);
            });
        }
        wait::until_instant(begin + SIGNAL_AFTER);
        let signaled = clock::instant();
        rig.cluster.coordinators[victim].server.signal(Signal::SIGTERM);
        signaled
    });
    rig.cluster.coordinators[victim].server.ended(DEADLINE);
    let served = served.into_inner().expect("nobody has panicked");
    let waited = served.iter().filter(|(_, served)| *served > signaled).map(|(asked, served)| *served - *asked);
    let slowest = waited.max().expect("commands come after the signal");
    results.add(NAME, "SIGTERM, the longest time without a command served", "s", gap(&served, signaled).as_secs_f64());
    results.add(NAME, "SIGTERM, the longest that a command waited", "s", slowest.as_secs_f64());
    again(rig, victim);
}

/// The longest time between one command that was served and the next, of those that were served after `since`.
fn gap(served: &[(Instant, Instant)], since: Instant) -> Duration {
    let mut ends: Vec<Instant> = served.iter().map(|(_, served)| *served).collect();
    ends.sort_unstable();
    let gaps = ends.windows(2).filter(|pair| pair[1] > since).map(|pair| pair[1] - pair[0]);
    gaps.max().expect("commands come after the signal")
}

/// Queued jobs in that coordinator's shards: a job gets a shard of whoever accepts it.
fn jobs_of(rig: &Rig, index: usize, count: u32) -> Vec<String> {
    let owner = &rig.cluster.coordinators[index];
    let jobs = waiting::submit(&owner.client, 1, count, "takeover");
    let first = jobs.first().expect("there are some");
    assert_eq!(rig.cluster.owner(first), index, "the owner of the jobs");
    jobs
}

fn survivors(rig: &Rig, victim: usize) -> Vec<Client> {
    let others = rig.cluster.coordinators.iter().enumerate().filter(|(index, _)| *index != victim);
    others.map(|(_, other)| other.client.clone()).collect()
}

/// A client of the same coordinator whose connection is open.
fn connected(to: &Client) -> Client {
    let client = to.within(ANSWER_WITHIN);
    client.get("/healthz");
    client
}

/// Cancels a job, again and again until that is served; returns when it was.
fn until_served(client: &Client, job: &str) -> Instant {
    let (path, begun) = (format!("/api/v1/jobs/{job}/cancel"), clock::instant());
    loop {
        match client.try_send("POST", &path, JSON, b"{}") {
            // It was canceled already where an answer got lost.
            Ok(answer) if matches!(answer.status, 200 | 202) => return clock::instant(),
            Ok(answer) => assert!(matches!(answer.status, 429 | 503), "a command is answered with {}", answer.text),
            Err(error) => assert!(begun.elapsed() < WITHIN, "a command isn't served: {error}"),
        }
        assert!(begun.elapsed() < WITHIN, "a command isn't served within {WITHIN:?}");
        wait::until_instant(clock::instant() + AGAIN_AFTER);
    }
}

/// Starts that coordinator again and waits until it has its share.
fn again(rig: &mut Rig, index: usize) {
    rig.cluster.restart_coordinator(index, &[]);
    rig.cluster.until_spread();
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shared::clock;

    use super::gap;

    #[test]
    fn the_longest_time_without_a_command_counts_from_the_signal_on() {
        let begun = clock::instant();
        let at = |milliseconds| begun + Duration::from_millis(milliseconds);
        // They come in no order, and when they were asked for says nothing.
        let served = [900, 100, 940, 50, 930].map(|end| (begun, at(end)));
        assert_eq!(gap(&served, at(0)), Duration::from_millis(800));
        assert_eq!(gap(&served, at(500)), Duration::from_millis(800), "one that was open at the signal counts whole");
        assert_eq!(gap(&served, at(901)), Duration::from_millis(30));
    }
}
