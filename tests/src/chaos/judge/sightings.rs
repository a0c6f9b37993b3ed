//! What clients and the subscriber have seen of a job, each with the time within which it was so.

use std::collections::HashMap;

use shared::job::StateName;

use super::index::{Index, Job};
use super::outcomes::Outcome;
use crate::chaos::history::{Ask, At, Call, Id, Key, Seen};

/// Somebody has seen how a job stood, at some moment between asking and being answered.
#[derive(Debug, Clone, Copy)]
pub struct Sighting<'a> {
    pub asked: At,
    pub answered: At,
    pub saw: Saw<'a>,
    /// None of what the subscriber was told.
    pub call: Option<&'a Call>,
}

/// What was seen.
#[derive(Debug, Clone, Copy)]
pub enum Saw<'a> {
    /// State, attempt and outcome.
    Whole(&'a Seen),
    /// What a cancel's answer says.
    Stopped(&'a str),
    /// A cancel by filter has stopped all jobs that hadn't ended.
    Stopping,
    /// It has ended: it was run again.
    Over,
    /// It hasn't: it couldn't be run again.
    Open,
    /// The event of that place in its timeline.
    Event(usize),
}

impl Saw<'_> {
    /// The first place in the job's timeline, from `from` on, at which it could be seen so.
    pub fn place(&self, job: &Job<'_>, from: usize) -> Option<usize> {
        if let Self::Event(place) = *self {
            return Some(place.max(from));
        }
        (from..job.events.len())
            .find(|place| job.stands[*place].seen().is_some_and(|state| self.fits(job, *place, state)))
    }

    fn fits(&self, job: &Job<'_>, place: usize, state: StateName) -> bool {
        match self {
            Self::Whole(seen) => {
                let attempt = seen.attempt.is_none_or(|attempt| attempt == job.events[place].attempt);
                let outcome = || !state.is_terminal() || Outcome::said(seen.outcome.as_ref()) == job.outcome();
                seen.state == state.as_str() && attempt && outcome()
            }
            Self::Stopped(said) => *said == state.as_str(),
            Self::Stopping => state.is_terminal() || state == StateName::Canceling,
            Self::Over => state.is_terminal(),
            Self::Open => !state.is_terminal(),
            Self::Event(_) => false,
        }
    }

    /// Whether it shows the job canceled.
    pub fn is_canceled(&self) -> bool {
        let canceled = StateName::Canceled.as_str();
        match self {
            Self::Whole(seen) => seen.state == canceled,
            Self::Stopped(state) => *state == canceled,
            Self::Stopping | Self::Over | Self::Open | Self::Event(_) => false,
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Whole(seen) => {
                let attempt = seen.attempt.map_or_else(String::new, |attempt| format!(" in attempt {attempt}"));
                let outcome = seen.outcome.as_ref().map_or_else(String::new, |outcome| format!(" with {outcome}"));
                format!("{}{attempt}{outcome}", seen.state)
            }
            Self::Stopped(state) => format!("{state} by a cancel"),
            Self::Stopping => "stopped by a cancel by filter".to_owned(),
            Self::Over => "ended, so that it was run again".to_owned(),
            Self::Open => "not ended, so that it couldn't be run again".to_owned(),
            Self::Event(place) => format!("its event {}", place + 1),
        }
    }
}

/// What the answers to all calls show, by job.
pub fn answered<'a>(index: &Index<'a>) -> Vec<(&'a Id, Sighting<'a>)> {
    let mut found = Vec::new();
    let mut first: HashMap<&Id, At> = HashMap::new();
    for call in &index.history.calls {
        let Some(answer) = &call.answer else { continue };
        let mut see = |job, saw| {
            found.push((job, Sighting { asked: call.asked_at, answered: answer.at, saw, call: Some(call) }));
        };
        match (&call.ask, answer.status) {
            (Ask::Submit { .. }, 200 | 201) | (Ask::Look { .. }, 200) => {
                answer.jobs.iter().for_each(|seen| see(&seen.id, Saw::Whole(seen)));
            }
            (Ask::Retry { job }, 201) => {
                see(job, Saw::Over);
                answer.jobs.iter().for_each(|seen| see(&seen.id, Saw::Whole(seen)));
            }
            (Ask::Retry { job }, 409) => see(job, Saw::Open),
            (Ask::Cancel { job, .. }, 200 | 202) => {
                answer.jobs.iter().for_each(|seen| see(job, Saw::Stopped(&seen.state)));
            }
            _ => {}
        }
    }
    for (job, sighting) in &found {
        let at = first.entry(job).or_insert(sighting.answered);
        *at = (*at).min(sighting.answered);
    }
    found.extend(swept(index, &first));
    found
}

/// What cancels by filter show of the jobs that were there before they were asked for.
fn swept<'a>(index: &Index<'a>, first: &HashMap<&'a Id, At>) -> Vec<(&'a Id, Sighting<'a>)> {
    let mut teams: HashMap<&str, Vec<&Key>> = HashMap::new();
    for (key, asked) in &index.history.jobs {
        if let Some(team) = &asked.team {
            teams.entry(team).or_default().push(key);
        }
    }
    let mut found = Vec::new();
    for call in &index.history.calls {
        let (Ask::CancelTeam { team }, Some(answer)) = (&call.ask, &call.answer) else { continue };
        let sighting = Sighting { asked: call.asked_at, answered: answer.at, saw: Saw::Stopping, call: Some(call) };
        let keys = teams.get(team.as_str()).filter(|_| answer.status == 202).into_iter().flatten();
        let rows = keys.filter_map(|key| index.by_key.get(key)).flatten();
        let there = rows.filter(|row| first.get(&row.id).is_some_and(|first| *first < call.asked_at));
        found.extend(there.map(|row| (&row.id, sighting)));
    }
    found
}

/// Adds what the subscriber was told of a job: the event had been committed by then.
pub fn told(job: &mut Job<'_>) {
    let first = job.first_told.iter().enumerate().filter_map(|(place, told)| Some((place, (*told)?.at)));
    let seen = first.map(|(place, at)| Sighting { asked: at, answered: at, saw: Saw::Event(place), call: None });
    job.sightings.extend(seen);
}
