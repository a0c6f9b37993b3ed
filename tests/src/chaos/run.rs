//! A run from its seeds to its judgement: one round after the other, each with a cluster of its own, and what is said of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use shared::clock;

use super::arena::{self, Arena};
use super::evidence::measures::{self, Counts};
use super::evidence::subscriber::Subscriber;
use super::evidence::sweep::Sweep;
use super::evidence::{self, Patience, Site, WorkerSite};
use super::history::{Ask, History, Id, Noted, Row, Trouble};
use super::judge::{Violation, judge};
use super::load::{Load, Pace};
use super::schedule::{Size, schedule};
use crate::process::Mark;

/// A promise was broken.
const BROKEN: u8 = 1;
/// A round couldn't be carried out.
pub const NOT_DONE: u8 = 2;

/// A round.
#[derive(Debug, Clone)]
pub struct Round {
    pub seed: u64,
    /// How long troubles befall the cluster.
    pub lasts: Duration,
    pub size: Size,
    pub jobs_per_second: u32,
    /// Where its history and its logs are left, if it finds something.
    pub keep: PathBuf,
    /// Leaves them there whatever it finds.
    pub keep_all: bool,
}

/// Carries all rounds out and says what each did and found.
pub fn all(rounds: &[Round]) -> ExitCode {
    let begun = clock::instant();
    let (mut broken, mut not_done) = (Vec::new(), Vec::new());
    for round in rounds {
        match catch_unwind(AssertUnwindSafe(|| one(round))) {
            Ok(violations) if violations.is_empty() => {}
            Ok(_) => broken.push(round.seed),
            Err(_) => not_done.push(round.seed),
        }
    }
    let length: Duration = rounds.iter().map(|round| round.lasts).sum();
    println!(
        "{} rounds, {} s of troubles in {} s: {} with broken promises {broken:?}, {} not carried out {not_done:?}",
        rounds.len(),
        length.as_secs(),
        begun.elapsed().as_secs(),
        broken.len(),
        not_done.len()
    );
    match (broken.is_empty(), not_done.is_empty()) {
        (false, _) => ExitCode::from(BROKEN),
        (true, false) => ExitCode::from(NOT_DONE),
        (true, true) => ExitCode::SUCCESS,
    }
}

/// Carries one round out and judges it.
pub fn one(round: &Round) -> Vec<Violation> {
    let schedule = schedule(round.seed, round.lasts, round.size);
    println!("seed {}: {} troubles in {} s", round.seed, schedule.len(), round.lasts.as_secs());
    let mut sweep = Sweep::default();
    let mut arena = Arena::start(round.size);
    for reason in arena.not_allowed() {
        println!("LEFT OUT: {reason}");
    }
    let before = measures::at_rest(&site(&arena, Mark::fresh()));
    let (clients, notes) = (arena.clients(), arena.notes());
    let subscriber = Subscriber::of(arena.nats_url().to_owned());
    let pace = Pace { jobs_per_second: round.jobs_per_second.into(), ..Pace::default() };
    let load = Load::at(pace, round.seed, &clients, &notes);
    sweep.after(load.mark());
    let troubles = arena.trouble(&schedule);
    let under_way = UnderWay { load, troubles, subscriber, before, notes };
    let gathered = catch_unwind(AssertUnwindSafe(|| gathered_and_judged(round, &mut arena, under_way)));
    let (history, violations) = gathered.unwrap_or_else(|panic| {
        // What couldn't be asked or judged, the logs may tell.
        arena.logs_to(&round.keep);
        println!("it couldn't be gathered or judged: the logs of all processes are in {}", round.keep.display());
        resume_unwind(panic)
    });
    if round.keep_all || !violations.is_empty() {
        if let Err(error) = keep(&round.keep, &history) {
            println!("its history couldn't be kept: {error}");
        }
        arena.logs_to(&round.keep);
        println!("its history and the logs of all processes are in {}", round.keep.display());
    }
    if !violations.is_empty() {
        let (seed, seconds) = (round.seed, round.lasts.as_secs());
        println!("the same schedule again: --seconds {seconds} --round {seconds} --seed {seed}");
    }
    violations
}

/// What a round has begun before its troubles are over.
struct UnderWay {
    load: Load,
    troubles: Vec<Trouble>,
    subscriber: Subscriber,
    before: Counts,
    notes: PathBuf,
}

/// Waits until the cluster is whole again, and judges what is found then.
fn gathered_and_judged(round: &Round, arena: &mut Arena, under_way: UnderWay) -> (History, Vec<Violation>) {
    let UnderWay { load, troubles, subscriber, before, notes } = under_way;
    let calming = clock::instant();
    let calm = arena.until_calm();
    let said = load.enough();
    let site = site(arena, said.mark.clone());
    let mut history = evidence::gather(&site, said, &notes, subscriber, &before, Patience::default());
    println!("calm and gathered after {} s", calming.elapsed().as_secs());
    (history.seed, history.troubles) = (round.seed, troubles);
    history.end.workers = arena.worker_ids();
    history.end.deaths = calm.err().into_iter().chain(arena.deaths()).collect();
    let violations = judge(&history);
    tell(&history, &violations);
    (history, violations)
}

/// Where to look for what is there, once the cluster is whole again.
fn site(arena: &Arena, mark: Mark) -> Site {
    let addresses = arena.coordinator_urls();
    let workers = arena.worker_pids().into_iter().zip(arena.data_dirs());
    Site {
        replicas: arena.clients(),
        addresses,
        coordinators: arena.coordinator_pids(),
        slots: (arena.data_dirs().len() * arena::SLOTS) as u64,
        workers: workers.map(|(pid, data_dir)| WorkerSite { pid, data_dir }).collect(),
        database: arena.database().url(),
        nats: arena.nats_url().to_owned(),
        monitoring: Some(arena.nats_monitoring_url().to_owned()),
        mark,
    }
}

/// Judges a history that was kept.
pub fn judge_again(path: &Path) -> ExitCode {
    let read = fs::read(path).and_then(|bytes| serde_json::from_slice::<History>(&bytes).map_err(io::Error::from));
    match read {
        Ok(history) => {
            let violations = judge(&history);
            tell(&history, &violations);
            if violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(BROKEN) }
        }
        Err(error) => {
            println!("{}: {error}", path.display());
            ExitCode::from(NOT_DONE)
        }
    }
}

/// Says what a round would do.
pub fn print_schedule(round: &Round) {
    println!("seed {}, {} s:", round.seed, round.lasts.as_secs());
    for planned in schedule(round.seed, round.lasts, round.size) {
        let (at, lasts) = (planned.at.as_secs_f32(), planned.lasts.as_secs_f32());
        let by = if planned.by.is_zero() { String::new() } else { format!(" by {} ms", planned.by.as_millis()) };
        println!("{at:7.1} s  {:?} {:?}{by} for {lasts:.1} s", planned.kind, planned.target);
    }
}

fn keep(dir: &Path, history: &History) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    fs::write(dir.join("history.json"), serde_json::to_vec(history)?)
}

/// Says what was done, and what was found.
fn tell(history: &History, violations: &[Violation]) {
    let counted = |counts: BTreeMap<String, usize>| {
        counts.into_iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    };
    println!("troubles: {}", counted(counts(&history.troubles, |Trouble { kind, .. }| format!("{kind:?}"))));
    let reason = |row: &super::history::Row| {
        let reason = row.outcome.as_ref().and_then(|outcome| outcome["reason"].as_str());
        reason.filter(|_| row.state == "failed").map_or_else(|| row.state.clone(), |reason| format!("failed {reason}"))
    };
    println!("{} jobs: {}", history.rows.len(), counted(counts(&history.rows, reason)));
    let answered = |call: &super::history::Call| {
        let ask = match &call.ask {
            Ask::Submit { .. } => "submissions",
            Ask::Cancel { .. } => "cancels",
            Ask::CancelTeam { .. } => "cancels by filter",
            Ask::Retry { .. } => "retries",
            Ask::Look { .. } => "looks",
            Ask::PutKey { .. } => "keys",
        };
        let answer = call.answer.as_ref().map_or_else(|| "unanswered".to_owned(), |answer| answer.status.to_string());
        format!("{ask} {answer}")
    };
    println!("{} calls: {}", history.calls.len(), counted(counts(&history.calls, answered)));
    let notes = || history.notes.values().flatten();
    let begun = notes().filter(|note| note.what == Noted::Begin).count();
    let overlaps = notes().filter(|note| matches!(note.what, Noted::Overlap { .. })).count();
    let lost = history.events.iter().filter(|event| event.kind == "worker_lost").count();
    println!(
        "{begun} steps begun, {} attempts granted, {lost} lost their workers, {overlaps} overlaps; {} events, told {} times",
        history.events.iter().filter(|event| event.kind == "assigned").count(),
        history.events.len(),
        history.told.len()
    );
    println!("{} attempts of jobs that stop without contact granted again", granted_again(history));
    for violation in violations {
        println!("BROKEN: {violation}");
    }
    if violations.is_empty() {
        println!("seed {}: no promise was broken", history.seed);
    }
}

/// How many attempts were granted of jobs that stop without contact, after the worker of the one before was lost.
fn granted_again(history: &History) -> usize {
    let stops = |row: &&Row| history.jobs.get(&row.key).is_some_and(|asked| asked.stops_without_contact);
    let stopping: BTreeSet<&Id> = history.rows.iter().filter(stops).map(|row| &row.id).collect();
    let (mut lost, mut count) = (BTreeSet::new(), 0);
    for event in history.events.iter().filter(|event| stopping.contains(&event.job)) {
        match &*event.kind {
            "worker_lost" => drop(lost.insert(&event.job)),
            "assigned" => count += usize::from(lost.remove(&event.job)),
            _ => {}
        }
    }
    count
}

/// How often each name comes.
fn counts<T>(all: &[T], name: impl Fn(&T) -> String) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(name(one)).or_default() += 1;
    }
    counts
}
