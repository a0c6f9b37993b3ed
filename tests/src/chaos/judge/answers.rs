//! What clients were answered is true: it can be an answer to what they asked, and what it promised came to pass.

use std::collections::{HashMap, HashSet};

use shared::job::StateName;

use super::Rule;
use super::contact;
use super::finding::Finding;
use super::index::{CLOCKS_APART, Index, Job, after};
use super::order::is_terminal;
use crate::chaos::history::{Answer, Ask, At, Call, Id, Row};

pub const RULES: [Rule; 6] = [
    Rule { name: "an answer has a status that is true of what was asked", look: statuses },
    Rule { name: "a job that was accepted is found", look: found },
    Rule { name: "a cancel that was taken ends its job as canceled", look: taken },
    Rule { name: "a cancel that came too late names how the job has ended", look: late },
    Rule { name: "a cancel by filter counts the jobs that it stops", look: counted },
    Rule { name: "no job is canceled that nobody wanted canceled", look: wanted },
];

fn words(index: &Index<'_>, call: &Call, answer: &Answer) -> String {
    let (asked, at) = (index.time(call.asked_at), index.time(answer.at));
    let problem = answer.problem.as_deref().map_or_else(String::new, |problem| format!(" ({problem})"));
    let replica = call.replica;
    format!("{:?} asked of coordinator {replica} at {asked}, answered {} at {at}{problem}", call.ask, answer.status)
}

fn answered<'a>(index: &Index<'a>) -> impl Iterator<Item = (&'a Call, &'a Answer)> {
    index.history.calls.iter().filter_map(|call| Some((call, call.answer.as_ref()?)))
}

fn about(ask: &Ask) -> Option<&Id> {
    match ask {
        Ask::Cancel { job, .. } | Ask::Retry { job } | Ask::Look { job } => Some(job),
        Ask::Submit { .. } | Ask::CancelTeam { .. } | Ask::PutKey { .. } => None,
    }
}

fn statuses(index: &Index<'_>, finding: &mut Finding) {
    for (call, answer) in answered(index) {
        let fits = match (&call.ask, answer.status) {
            // Nothing is promised by either.
            (_, 429 | 503) => true,
            (Ask::Submit { .. } | Ask::PutKey { .. }, 200 | 201) | (Ask::Cancel { .. }, 200 | 202) => true,
            (Ask::CancelTeam { .. }, 202) | (Ask::Look { .. }, 200) => true,
            // That a job can't be run again is true while it hasn't ended.
            (Ask::Retry { .. }, 201 | 409) => true,
            // A request that comes to a halt on its way isn't waited for.
            (_, 408) => contact::was_slow(index, call.replica, call.asked_at, answer.at),
            (ask, 404) => about(ask).is_some_and(|job| was_accepted(index, job, call.asked_at)),
            _ => false,
        };
        finding.unless(fits, || words(index, call, answer));
    }
}

/// Whether somebody had an answer about the job before that moment.
fn was_accepted(index: &Index<'_>, job: &Id, asked: At) -> bool {
    let sightings = index.job(job).map(|job| &job.sightings);
    sightings.is_some_and(|sightings| sightings.iter().any(|sighting| sighting.answered < asked))
}

fn found(index: &Index<'_>, finding: &mut Finding) {
    for (call, answer) in answered(index).filter(|(_, answer)| answer.status == 404) {
        let accepted = about(&call.ask).is_some_and(|job| was_accepted(index, job, call.asked_at));
        finding.unless(!accepted, || words(index, call, answer));
    }
}

/// The cancels of one job that were answered with that status, the state that they name, and the job's row.
fn cancels<'a>(index: &Index<'a>, status: u16) -> Vec<(&'a Call, &'a Answer, &'a str, Option<&'a Row>)> {
    let all = answered(index).filter(|(_, answer)| answer.status == status);
    let all = all.filter_map(|(call, answer)| match &call.ask {
        Ask::Cancel { job, .. } => {
            let row = index.job(job).and_then(Job::row);
            Some((call, answer, answer.jobs.first()?.state.as_str(), row))
        }
        _ => None,
    });
    all.collect()
}

fn taken(index: &Index<'_>, finding: &mut Finding) {
    let canceled = StateName::Canceled.as_str();
    for (call, answer, state, row) in cancels(index, 202) {
        let right = matches!(state, "canceling" | "canceled") && row.is_none_or(|row| row.state == canceled);
        finding.unless(right, || {
            let ended = row.map_or("not there", |row| &row.state);
            format!("{} with {state}; the job is {ended} in the end", words(index, call, answer))
        });
    }
}

fn late(index: &Index<'_>, finding: &mut Finding) {
    for (call, answer, state, row) in cancels(index, 200) {
        let right = is_terminal(state) && row.is_none_or(|row| row.state == state);
        finding.unless(right, || {
            let ended = row.map_or("not there", |row| &row.state);
            format!("{} with {state}; the job is {ended} in the end", words(index, call, answer))
        });
    }
}

/// It counts those that hadn't ended when it came to them, at some moment between being asked for and answered.
fn counted(index: &Index<'_>, finding: &mut Finding) {
    let mut teams: HashMap<&str, Vec<&Job<'_>>> = HashMap::new();
    for job in index.jobs.iter().filter(|job| !job.rows.is_empty()) {
        if let Some(team) = job.asked.and_then(|asked| asked.team.as_deref()) {
            teams.entry(team).or_default().push(job);
        }
    }
    for (call, answer) in answered(index) {
        let (Ask::CancelTeam { team }, Some(matched)) = (&call.ask, answer.matched) else { continue };
        let (asked, at) = (call.asked_at, answer.at);
        let (mut least, mut most) = (0, 0);
        for job in teams.get(team.as_str()).into_iter().flatten() {
            let began = job.events.first().and_then(|event| index.earliest(job, event));
            let ended = job.end().and_then(|event| index.earliest(job, event));
            let told = job.end().and_then(|event| job.told_at(event));
            let was_there = was_accepted(index, job.id, asked);
            least += u64::from(was_there && ended.is_some_and(|ended| ended > after(at, CLOCKS_APART)));
            let unmade = began.is_some_and(|began| began > after(at, CLOCKS_APART));
            most += u64::from(!unmade && told.is_none_or(|told| told >= asked));
        }
        finding.unless((least..=most).contains(&matched), || {
            format!("{}, with {matched}, and there were {least} to {most}", words(index, call, answer))
        });
    }
}

fn wanted(index: &Index<'_>, finding: &mut Finding) {
    let mut by_job: HashMap<&Id, At> = HashMap::new();
    let mut by_team: HashMap<&str, At> = HashMap::new();
    for call in &index.history.calls {
        let first = match &call.ask {
            Ask::Cancel { job, .. } => by_job.entry(job).or_insert(call.asked_at),
            Ask::CancelTeam { team } => by_team.entry(team).or_insert(call.asked_at),
            Ask::Submit { .. } | Ask::Retry { .. } | Ask::Look { .. } | Ask::PutKey { .. } => continue,
        };
        *first = (*first).min(call.asked_at);
    }
    let kinds: HashSet<&str> = ["cancel_requested", "canceling", "canceled"].into();
    for job in &index.jobs {
        let Some(event) = job.events.iter().find(|event| kinds.contains(event.kind.as_str())) else { continue };
        let team = job.asked.and_then(|asked| asked.team.as_deref()).and_then(|team| by_team.get(team));
        let told = job.told_at(event);
        let mut asked = by_job.get(job.id).into_iter().chain(team);
        finding.unless(asked.any(|asked| told.is_none_or(|told| *asked <= told)), || {
            let at = told.map_or_else(|| "never".to_owned(), |told| index.time(told));
            format!("{}: event {}, {}, told at {at}", job.name(), event.seq, event.kind)
        });
    }
}
