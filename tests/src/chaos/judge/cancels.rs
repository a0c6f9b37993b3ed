//! After a cancel that was answered or told as `canceled` no step begins, unless its attempt is fenced and cut off; and
//! nothing at all of an attempt whose worker has confirmed the cancel.

use shared::job::StateName;
use shared::wire::LEASE;

use super::Rule;
use super::contact;
use super::finding::Finding;
use super::index::{Index, Job, before};
use super::steps::words;
use crate::chaos::history::{At, Note, Noted};

pub const RULES: [Rule; 3] = [
    Rule { name: "no step begins after a cancel", look: after },
    Rule { name: "nothing of an attempt runs after its worker has confirmed its cancel", look: after_confirmed },
    Rule { name: "a job that was canceled before its claim never starts", look: before_claim },
];

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

/// Whether the worker has said that nothing of that attempt is there any more, so that the job could be canceled.
fn is_confirmed(job: &Job<'_>, number: u32) -> bool {
    let end = job.attempt(number).and_then(|attempt| attempt.end);
    end.is_some_and(|end| end.by_worker && matches!(end.event.kind.as_str(), "canceled" | "late_report"))
}

fn after(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| !never_claimed(job)) {
        let Some(known) = known(job) else { continue };
        let begun = job.notes.iter().map(|(_, note)| *note).filter(|note| note.what == Noted::Begin && note.at > known);
        for note in begun.filter(|note| !is_confirmed(job, note.attempt)) {
            finding.unless(is_excused(index, job, note, known), || {
                let around = index.around(before(known, LEASE + contact::HEARS_AFTER), note.at);
                format!("{}; it was known to be canceled at {}{around}", words(index, job, note), index.time(known))
            });
        }
    }
}

fn after_confirmed(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let Some(known) = known(job) else { continue };
        for (_, note) in job.notes.iter().filter(|(_, note)| note.at > known && is_confirmed(job, note.attempt)) {
            finding.add(|| format!("{}; it was known to be gone at {}", words(index, job, note), index.time(known)));
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
    if end.event.kind == "canceled" && !job.outcome().is_confirmed() {
        let canceling = job.events.iter().rfind(|event| event.kind == "canceling");
        let ordered = canceling.and_then(|event| index.earliest(job, event)).unwrap_or(known);
        return contact::was_untold(index, worker, ordered, note.at);
    }
    contact::was_cut_off(index, worker, before(note.at, LEASE + contact::HEARS_AFTER), note.at)
}

fn before_claim(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| never_claimed(job)) {
        for (_, note) in &job.notes {
            finding.add(|| words(index, job, note));
        }
    }
}
