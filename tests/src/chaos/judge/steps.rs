//! What steps have noted: each begins and ends at most once in an attempt, in its order, in an attempt that was granted.

use std::collections::HashMap;

use super::Rule;
use super::finding::Finding;
use super::index::{Index, Job};
use crate::chaos::history::{Note, Noted};

pub const RULES: [Rule; 6] = [
    Rule { name: "a step begins at most once in an attempt", look: begin_once },
    Rule { name: "a step ends at most once in an attempt, and after it has begun", look: end_once },
    Rule { name: "a step begins only after the one before it has ended well", look: in_order },
    Rule { name: "whatever runs was granted", look: granted },
    Rule { name: "a job notes under its own key", look: own_key },
    Rule { name: "nothing of an attempt runs after its worker has told its end", look: nothing_after },
];

/// A note in words.
pub fn words(index: &Index<'_>, job: &Job<'_>, note: &Note) -> String {
    let Note { at, what, attempt, step, fence, .. } = note;
    format!("{}: {what:?} of step {step} in attempt {attempt} (fence {fence}) at {}", job.name(), index.time(*at))
}

fn begin_once(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for again in job.steps.0.values().filter_map(|marks| marks.begun.get(1)) {
            finding.add(|| format!("{}, once more", words(index, job, again)));
        }
    }
}

fn end_once(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let mut under_way: HashMap<(u32, u32), bool> = HashMap::new();
        for (_, note) in &job.notes {
            let running = under_way.entry((note.attempt, note.step)).or_default();
            match note.what {
                Noted::Begin => *running = true,
                Noted::End => {
                    let begun = std::mem::replace(running, false);
                    finding.unless(begun, || format!("{}, where none was under way", words(index, job, note)));
                }
                Noted::Overlap { .. } => {}
            }
        }
    }
}

fn in_order(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let mut ended: HashMap<u32, u32> = HashMap::new();
        for (_, note) in &job.notes {
            let done = ended.entry(note.attempt).or_default();
            let exits = job.asked.map(|asked| asked.exits.as_slice());
            match note.what {
                Noted::End => *done = (*done).max(note.step + 1),
                Noted::Begin => {
                    let earlier = usize::try_from(note.step).unwrap_or(usize::MAX);
                    let well = exits.is_none_or(|exits| exits.iter().take(earlier).all(|exit| *exit == 0));
                    finding.unless(well && note.step <= *done, || {
                        format!("{}, when {done} steps had ended; exits asked for: {exits:?}", words(index, job, note))
                    });
                }
                Noted::Overlap { .. } => {}
            }
        }
    }
}

fn granted(index: &Index<'_>, finding: &mut Finding) {
    for job in index.jobs.iter().filter(|job| !super::cancels::never_claimed(job)) {
        for (_, note) in job.notes.iter().filter(|_| !job.rows.is_empty()) {
            finding.unless(job.attempt(note.attempt).is_some(), || {
                format!("{}, of {} attempts that were granted", words(index, job, note), job.attempts.len())
            });
        }
    }
}

fn own_key(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let Some(row) = job.row() else { continue };
        for (key, note) in job.notes.iter().filter(|(key, _)| **key != row.key) {
            finding.add(|| format!("{}, among the notes of {}", words(index, job, note), key.0));
        }
    }
}

fn nothing_after(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for (_, note) in &job.notes {
            let end = job.attempt(note.attempt).and_then(|attempt| attempt.end);
            // After the end of a canceled job that has a rule of its own.
            let told =
                end.filter(|end| end.by_worker && !matches!(end.event.kind.as_str(), "canceled" | "late_report"));
            let late = told.and_then(|end| Some((end, job.told_at(end.event)?))).filter(|(_, told)| *told < note.at);
            if let Some((end, told)) = late {
                finding.add(|| {
                    let told = index.time(told);
                    format!("{}; its end, {}, was told by {told}", words(index, job, note), end.event.kind)
                });
            }
        }
    }
}
