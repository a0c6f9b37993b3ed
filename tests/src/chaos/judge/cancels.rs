//! After a cancel that was answered or told as `canceled` no step begins, unless its attempt is fenced and cut off.

use std::time::Duration;

use shared::job::StateName;
use shared::wire::LEASE;

use super::Rule;
use super::contact;
use super::finding::Finding;
use super::index::{Index, Job, before};
use super::steps::words;
use crate::chaos::history::{At, Note, Noted};

pub const RULES: [Rule; 2] = [
    Rule { name: "no step begins after a cancel", look: after },
    Rule { name: "a job that was canceled before its claim never starts", look: before_claim },
];

/// How long after the end of a trouble a worker hears that an attempt of its is over.
const MARGIN: Duration = Duration::from_secs(5);

/// Whether the job was canceled before any worker had it.
pub fn never_claimed(job: &Job<'_>) -> bool {
    job.ended(StateName::Canceled) && job.attempts.is_empty()
}

/// When anybody first knew that the job is canceled.
fn known(job: &Job<'_>) -> Option<At> {
    let canceled = job.events.iter().find(|event| event.kind == "canceled")?;
    let seen = job.sightings.iter().filter(|sighting| sighting.saw.is_canceled()).map(|sighting| sighting.answered);
    seen.chain(job.told_at(canceled)).min()
}

fn after(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| !never_claimed(job)) {
        let Some(known) = known(job) else { continue };
        let begun = job.notes.iter().map(|(_, note)| *note);
        for note in begun.filter(|note| note.what == Noted::Begin && note.at > known) {
            finding.unless(is_excused(index, job, note, known), || {
                let around = index.around(before(known, LEASE + MARGIN), note.at);
                format!("{}; it was known to be canceled at {}{around}", words(index, job, note), index.time(known))
            });
        }
    }
}

/// Whether the attempt is one that nobody could stop: an older one that was given up, or the last one where its worker
/// hasn't confirmed the cancel; in either case while that worker could not be reached.
fn is_excused(index: &Index<'_>, job: &Job<'_>, note: &Note, known: At) -> bool {
    let Some(attempt) = job.attempt(note.attempt) else { return false };
    let (Some(worker), Some(end)) = (attempt.worker(), attempt.end) else { return false };
    if end.by_worker {
        return false;
    }
    let unconfirmed = end.event.kind == "canceled" && !job.outcome().is_confirmed();
    let from = before(note.at, LEASE + MARGIN);
    if unconfirmed {
        // The few seconds that were waited for its word lie before what was known.
        return contact::was_late(index, worker, from.min(before(known, LEASE + MARGIN)), note.at);
    }
    contact::was_cut_off(index, worker, from, note.at)
}

fn before_claim(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| never_claimed(job)) {
        for (_, note) in &job.notes {
            finding.add(|| words(index, job, note));
        }
    }
}
