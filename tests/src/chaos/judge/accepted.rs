//! What was accepted is there, once, and nothing else is.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::Rule;
use super::finding::Finding;
use super::index::{CLOCKS_APART, Index, Job, after};
use crate::chaos::history::{Answer, Ask, At, Call, Id, Key, Row, Seen};

pub const RULES: [Rule; 8] = [
    Rule { name: "an answer names as many jobs as were asked for", look: named },
    Rule { name: "an accepted job has one row, under its key", look: stored },
    Rule { name: "a key stands for one job", look: one_job },
    Rule { name: "a key is new once", look: new_once },
    Rule { name: "a retry by hand repeats a job that has ended, under its key", look: repeats },
    Rule { name: "a retry that was answered has a row that names what it repeats", look: retried },
    Rule { name: "a retry makes one job", look: retried_once },
    Rule { name: "no job is there that nobody asked for", look: unasked },
];

/// A submission that was accepted.
struct Accepted<'a> {
    call: &'a Call,
    answer: &'a Answer,
    keys: &'a [Key],
}

impl<'a> Accepted<'a> {
    fn all(index: &Index<'a>) -> impl Iterator<Item = Self> {
        index.history.calls.iter().filter_map(|call| match (&call.ask, &call.answer) {
            (Ask::Submit { keys }, Some(answer)) if matches!(answer.status, 200 | 201) => {
                Some(Self { call, answer, keys })
            }
            _ => None,
        })
    }

    fn jobs(&self) -> impl Iterator<Item = (&'a Key, &'a Seen)> {
        self.keys.iter().zip(&self.answer.jobs)
    }

    fn words(&self, index: &Index<'_>) -> String {
        let (asked, answered) = (index.time(self.call.asked_at), index.time(self.answer.at));
        let replica = self.call.replica;
        format!("asked of coordinator {replica} at {asked}, answered {} at {answered}", self.answer.status)
    }
}

fn named(index: &Index<'_>, finding: &mut Finding) {
    for accepted in Accepted::all(index) {
        let (asked, named) = (accepted.keys.len(), accepted.answer.jobs.len());
        finding.unless(asked == named, || {
            format!("{asked} jobs {:?}, {named} in the answer; {}", accepted.keys, accepted.words(index))
        });
    }
    for call in &index.history.calls {
        let Some(answer) = &call.answer else { continue };
        let one = matches!((&call.ask, answer.status), (Ask::Retry { .. }, 201) | (Ask::Look { .. }, 200))
            || matches!((&call.ask, answer.status), (Ask::Cancel { .. }, 200 | 202));
        let right = match &call.ask {
            Ask::Look { job } | Ask::Cancel { job, .. } => answer.jobs.iter().map(|seen| &seen.id).eq([job]),
            _ => answer.jobs.len() == 1,
        };
        finding.unless(!one || right, || {
            format!("{:?} at {} was answered with {:?}", call.ask, index.time(call.asked_at), answer.jobs)
        });
    }
}

fn stored(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| job.rows.len() > 1) {
        finding.add(|| format!("{} has {} rows", job.name(), job.rows.len()));
    }
    for accepted in Accepted::all(index) {
        for (key, seen) in accepted.jobs() {
            let row = index.job(&seen.id).and_then(Job::row);
            finding.unless(row.is_some_and(|row| row.key == *key), || {
                let there =
                    row.map_or_else(|| "there is no row".to_owned(), |row| format!("its row is of {}", row.key.0));
                format!("job {} ({}): {there}; {}", seen.id.0, key.0, accepted.words(index))
            });
        }
    }
}

fn one_job(index: &Index<'_>, finding: &mut Finding) {
    let mut rows: Vec<(&Key, Vec<&Row>)> = Vec::new();
    for (key, all) in &index.by_key {
        let first: Vec<&Row> = all.iter().copied().filter(|row| row.retry_of.is_none()).collect();
        let ids: HashSet<&Id> = first.iter().map(|row| &row.id).collect();
        if ids.len() > 1 {
            rows.push((key, first));
        }
    }
    rows.sort_by_key(|(key, _)| *key);
    for (key, first) in rows {
        let ids: Vec<&str> = first.iter().map(|row| row.id.0.as_str()).collect();
        finding.add(|| format!("{} has the rows {}", key.0, ids.join(", ")));
    }
    let mut known: HashMap<&Key, &Id> = HashMap::new();
    for accepted in Accepted::all(index) {
        for (key, seen) in accepted.jobs() {
            let first = *known.entry(key).or_insert(&seen.id);
            finding.unless(*first == seen.id, || {
                format!("{} was job {} and is job {}; {}", key.0, first.0, seen.id.0, accepted.words(index))
            });
        }
    }
}

/// Of a batch, 201 says that at least one of its keys was new.
fn new_once(index: &Index<'_>, finding: &mut Finding) {
    let mut answered: HashMap<&Key, At> = HashMap::new();
    for accepted in Accepted::all(index) {
        for key in accepted.keys {
            let first = answered.entry(key).or_insert(accepted.answer.at);
            *first = (*first).min(accepted.answer.at);
        }
    }
    let mut created: HashSet<&[Key]> = HashSet::new();
    for accepted in Accepted::all(index).filter(|accepted| accepted.answer.status == 201) {
        let known = accepted.keys.iter().all(|key| answered[key] < accepted.call.asked_at);
        let again = !created.insert(accepted.keys);
        finding.unless(!known && !again, || format!("{:?} was there before; {}", accepted.keys, accepted.words(index)));
    }
}

fn repeats(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let Some(row) = job.row() else { continue };
        let told = job.events.first().and_then(|event| event.data.get("retry_of")).and_then(Value::as_str);
        let stored = row.retry_of.as_ref().map(|id| id.0.as_str());
        finding.unless(told == stored || job.events.is_empty(), || {
            format!("{} repeats {stored:?} by its row, and {told:?} by its first event", job.name())
        });
        let Some(first) = &row.retry_of else { continue };
        let found = index.job(first).and_then(Job::row);
        let right = found.is_some_and(|found| found.key == row.key && is_terminal(found));
        finding.unless(right, || {
            let what = found.map_or_else(|| "isn't there".to_owned(), |f| format!("is {} under {}", f.state, f.key.0));
            format!("{} repeats job {}, which {what}", job.name(), first.0)
        });
        let (began, ended) = (began(index, job), index.job(first).and_then(|first| ended(index, first)));
        let early = began.zip(ended).filter(|(began, ended)| after(*began, CLOCKS_APART) < *ended);
        if let Some((began, ended)) = early {
            let (began, ended) = (index.time(began), index.time(ended));
            finding.add(|| format!("{} was made at {began}, job {} ended at {ended}", job.name(), first.0));
        }
    }
}

/// When a job was made, at the latest.
fn began(index: &Index<'_>, job: &Job<'_>) -> Option<At> {
    job.events.first().and_then(|event| index.latest(job, event))
}

/// When a job ended, at the earliest.
fn ended(index: &Index<'_>, job: &Job<'_>) -> Option<At> {
    job.end().and_then(|event| index.earliest(job, event))
}

fn is_terminal(row: &Row) -> bool {
    super::order::is_terminal(&row.state)
}

/// What was answered to each call for a retry: the call, the job that it repeats, and the new one.
fn retries<'a>(index: &Index<'a>) -> impl Iterator<Item = (&'a Call, &'a Id, &'a Seen)> {
    index.history.calls.iter().filter_map(|call| match (&call.ask, &call.answer) {
        (Ask::Retry { job }, Some(answer)) if answer.status == 201 => Some((call, job, answer.jobs.first()?)),
        _ => None,
    })
}

fn retried(index: &Index<'_>, finding: &mut Finding) {
    for (call, first, seen) in retries(index) {
        let row = index.job(&seen.id).and_then(Job::row);
        let right = row.is_some_and(|row| row.retry_of.as_ref() == Some(first))
            && seen.retry_of.as_ref().is_none_or(|said| said == first);
        finding.unless(right, || {
            let row =
                row.map_or_else(|| "has no row".to_owned(), |row| format!("has a row that repeats {:?}", row.retry_of));
            let at = index.time(call.asked_at);
            format!("job {} was answered as the retry of job {} asked for at {at}, and {row}", seen.id.0, first.0)
        });
    }
}

fn retried_once(index: &Index<'_>, finding: &mut Finding) {
    let mut known: HashMap<&Id, &Call> = HashMap::new();
    for (call, first, seen) in retries(index) {
        if let Some(other) = known.insert(&seen.id, call) {
            let (at, before) = (index.time(call.asked_at), index.time(other.asked_at));
            finding
                .add(|| format!("job {} is the retry of job {} asked for at {before} and at {at}", seen.id.0, first.0));
        }
    }
    let mut asked: HashMap<&Id, usize> = HashMap::new();
    for call in &index.history.calls {
        if let Ask::Retry { job } = &call.ask
            && call.answer.as_ref().is_none_or(|answer| matches!(answer.status, 201 | 503))
        {
            *asked.entry(job).or_default() += 1;
        }
    }
    let mut made: HashMap<&Id, usize> = HashMap::new();
    for first in index.history.rows.iter().filter_map(|row| row.retry_of.as_ref()) {
        *made.entry(first).or_default() += 1;
    }
    for job in &index.jobs {
        let (made, asked) = (made.get(job.id).copied().unwrap_or(0), asked.get(job.id).copied().unwrap_or(0));
        finding.unless(made <= asked, || {
            format!("{} was to be run again {asked} times, and {made} jobs repeat it", job.name())
        });
    }
}

fn unasked(index: &Index<'_>, finding: &mut Finding) {
    let submitted = index.history.calls.iter().filter_map(|call| match &call.ask {
        Ask::Submit { keys } => Some(keys),
        _ => None,
    });
    let submitted: HashSet<&Key> = submitted.flatten().collect();
    for row in &index.history.rows {
        finding.unless(submitted.contains(&row.key), || format!("job {} ({})", row.id.0, row.key.0));
    }
    for job in index.jobs.iter().filter(|job| job.rows.is_empty()) {
        // An answer that names it has a rule of its own, and so has what was told.
        let said = [("events", job.events.len()), ("notes", job.notes.len()), ("views", job.views.len())];
        let said: Vec<String> = said.iter().filter(|(_, n)| *n > 0).map(|(what, n)| format!("{n} {what}")).collect();
        finding.unless(said.is_empty(), || format!("job {} has no row, and {}", job.id.0, said.join(", ")));
    }
}
