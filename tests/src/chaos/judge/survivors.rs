//! What must be gone, or must hear that it is over: attempts of a worker that was killed, or that was given up and is there again.

use std::time::Duration;

use super::Rule;
use super::attempts::Attempt;
use super::contact;
use super::finding::Finding;
use super::index::{CLOCKS_APART, Index, Job, after};
use super::steps::words;
use crate::chaos::history::{At, Kind, Noted, Target};

pub const RULES: [Rule; 2] = [
    Rule { name: "nothing of an attempt runs on when its worker was killed", look: killed },
    Rule { name: "no step begins in an attempt that was given up when its worker can be told", look: given_up },
];

/// How long a keeper takes at most to end what its worker ran, once their pipe is closed.
const KEEPER: Duration = Duration::from_secs(2);

/// Whether the attempt was certainly granted before that moment, and so to the process that was there then.
fn was_granted_before(index: &Index<'_>, job: &Job<'_>, attempt: &Attempt<'_>, at: At) -> bool {
    let noted = job.notes.iter().any(|(_, note)| note.attempt == attempt.number && note.at < at);
    let told = job.told_at(attempt.granted).is_some_and(|told| told < at);
    let committed = index.latest(job, attempt.granted);
    noted || told || committed.is_some_and(|committed| after(committed, CLOCKS_APART) < at)
}

fn killed(index: &Index<'_>, finding: &mut Finding) {
    let kills: Vec<_> = index.history.troubles.iter().filter(|trouble| trouble.kind == Kind::Kill).collect();
    for job in &index.jobs {
        for (_, note) in &job.notes {
            let Some(attempt) = job.attempt(note.attempt) else { continue };
            let Some(number) = attempt.worker().and_then(|worker| index.workers.get(worker)) else { continue };
            let mut its = kills.iter().filter(|kill| kill.target == Target::Worker(*number));
            let survived = its
                .find(|kill| after(kill.from, KEEPER) < note.at && was_granted_before(index, job, attempt, kill.from));
            if let Some(kill) = survived {
                finding.add(|| {
                    let at = index.time(kill.from);
                    format!("{}; its worker {number} was killed at {at}", words(index, job, note))
                });
            }
        }
    }
}

fn given_up(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for (_, note) in job.notes.iter().filter(|(_, note)| note.what == Noted::Begin) {
            let Some(attempt) = job.attempt(note.attempt) else { continue };
            let lost = attempt.end.map(|end| end.event).filter(|event| event.kind == "worker_lost");
            let (Some(lost), Some(worker)) = (lost.and_then(|lost| job.told_at(lost)), attempt.worker()) else {
                continue;
            };
            let late = after(lost, contact::HEARS_AFTER) < note.at;
            finding.unless(!late || contact::was_untold(index, worker, lost, note.at), || {
                let (at, around) = (index.time(lost), index.around(lost, note.at));
                format!("{}; worker {} was given up by {at}{around}", words(index, job, note), worker.0)
            });
        }
    }
}
