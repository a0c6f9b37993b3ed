//! Two attempts of a job at once: never where the job stops without contact, else only while the older one is cut off.

use std::time::Duration;

use shared::wire::LEASE;

use super::Rule;
use super::attempts::Attempt;
use super::contact;
use super::finding::Finding;
use super::index::{Index, Job, before};
use super::steps::words;
use crate::chaos::history::{Note, Noted};

pub const RULES: [Rule; 2] = [
    Rule { name: "attempts of a job that stops without contact never overlap", look: never },
    Rule { name: "attempts overlap only while the older one's worker is cut off", look: cut_off },
];

/// How long after the end of a trouble its worker is told to stop, and has stopped.
const MARGIN: Duration = Duration::from_secs(5);

/// Two attempts that were there at once, as one of them has noted.
struct Overlap<'a, 'i> {
    job: &'i Job<'a>,
    note: &'a Note,
    /// The one that was granted first, which alone may still be there; none where one of the two was never granted.
    older: Option<&'i Attempt<'a>>,
}

impl<'a, 'i> Overlap<'a, 'i> {
    fn all(index: &'i Index<'a>) -> impl Iterator<Item = Self> {
        index.jobs.iter().flat_map(|job| {
            job.notes.iter().filter_map(move |(_, note)| match note.what {
                Noted::Overlap { holder } => {
                    let older = job.attempt(holder).and(job.attempt(holder.min(note.attempt)));
                    Some(Self { job, note, older })
                }
                Noted::Begin | Noted::End => None,
            })
        })
    }

    /// Whether it must never be.
    fn is_forbidden(&self) -> bool {
        self.job.asked.is_some_and(|asked| asked.stops_without_contact)
    }

    fn words(&self, index: &Index<'_>) -> String {
        let around = index.around(before(self.note.at, LEASE + MARGIN), self.note.at);
        let worker = self.older.and_then(Attempt::worker).map_or("nobody", |worker| &worker.0);
        format!("{}; the older one is of worker {worker}{around}", words(index, self.job, self.note))
    }
}

fn never(index: &Index<'_>, finding: &mut Finding) {
    for overlap in Overlap::all(index).filter(Overlap::is_forbidden) {
        finding.add(|| overlap.words(index));
    }
}

fn cut_off(index: &Index<'_>, finding: &mut Finding) {
    for overlap in Overlap::all(index).filter(|overlap| !overlap.is_forbidden()) {
        let at = overlap.note.at;
        let excused = overlap.older.is_some_and(|older| {
            // What its worker has told to be over isn't there, whatever else happened.
            let over = older.end.is_some_and(|end| end.by_worker);
            let from = before(at, LEASE + MARGIN);
            !over && older.worker().is_some_and(|worker| contact::was_cut_off_long(index, worker, from, at))
        });
        finding.unless(excused, || overlap.words(index));
    }
}
