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
    /// None where there is no such attempt.
    older: Option<&'i Attempt<'a>>,
    /// Whether both are of one job; else one is of a job that the other's repeats by hand.
    of_one_job: bool,
}

impl<'a, 'i> Overlap<'a, 'i> {
    fn all(index: &'i Index<'a>) -> impl Iterator<Item = Self> {
        index.jobs.iter().flat_map(move |job| {
            job.notes.iter().filter_map(move |(_, note)| match note.what {
                Noted::Overlap { holder } => Some(Self::of(index, job, note, holder)),
                Noted::Begin | Noted::End => None,
            })
        })
    }

    fn of(index: &'i Index<'a>, job: &'i Job<'a>, note: &'a Note, holder: u32) -> Self {
        if holder != note.attempt && job.attempt(holder).is_some() {
            let older = job.attempt(holder.min(note.attempt));
            return Self { job, note, older, of_one_job: true };
        }
        // The file that shows it is the key's: what a retry by hand repeats is of the same key.
        let same_key = job.row().and_then(|row| index.by_key.get(&row.key)).into_iter().flatten();
        let others = same_key.filter_map(|row| index.job(&row.id)).filter(|other| other.id != job.id);
        let mut holders = others.filter_map(|other| Some((other, other.attempt(holder)?)));
        let older = holders.next().and_then(|(other, attempt)| {
            let repeats_ours = other.row().is_some_and(|row| row.retry_of.as_ref() == Some(job.id));
            if repeats_ours { job.attempt(note.attempt) } else { Some(attempt) }
        });
        Self { job, note, older, of_one_job: false }
    }

    /// Whether it must never be.
    fn is_forbidden(&self) -> bool {
        self.of_one_job && self.job.asked.is_some_and(|asked| asked.stops_without_contact)
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
            !over && older.worker().is_some_and(|worker| contact::was_cut_off(index, worker, from, at))
        });
        finding.unless(excused, || overlap.words(index));
    }
}
