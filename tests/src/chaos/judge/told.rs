//! What a subscriber was told is what is stored: all of it, in order, and nothing else.

use serde_json::{Map, Value};

use super::Rule;
use super::finding::Finding;
use super::index::Index;
use crate::chaos::history::{Event, Told};

pub const RULES: [Rule; 4] = [
    Rule { name: "nothing is told that isn't stored", look: stored },
    Rule { name: "what is told is what is stored, also when it is told again", look: same },
    Rule { name: "a job's events are told in their order", look: order },
    Rule { name: "whatever is stored is told", look: all },
];

/// What an event says beside what its kind brings along; the store keeps it in columns of their own.
const ENVELOPE: [&str; 5] = ["seq", "at", "kind", "attempt", "actor"];

/// Each told copy with the stored event of its number.
fn copies<'a>(index: &Index<'a>) -> impl Iterator<Item = (&'a Told, Option<&'a Event>)> {
    index
        .jobs
        .iter()
        .flat_map(|job| job.told.iter().map(|told| (*told, job.place(told.seq).map(|place| job.events[place]))))
}

fn stored(index: &Index<'_>, finding: &mut Finding) {
    for (told, event) in copies(index) {
        finding.unless(event.is_some(), || {
            format!("event {} of job {}, {}, told at {}", told.seq, told.job.0, told.kind, index.time(told.at))
        });
    }
}

fn same(index: &Index<'_>, finding: &mut Finding) {
    for (told, event) in copies(index) {
        let Some(event) = event else { continue };
        let same = (&told.kind, told.attempt) == (&event.kind, event.attempt) && same_data(&told.data, &event.data);
        finding.unless(same, || {
            let (at, stored) = (index.time(told.at), format!("{} {}", event.kind, event.data));
            format!(
                "event {} of job {}, told at {at}: {} {}, stored: {stored}",
                told.seq, told.job.0, told.kind, told.data
            )
        });
    }
}

fn same_data(told: &Value, stored: &Value) -> bool {
    let (Some(told), Some(stored)) = (told.as_object(), stored.as_object()) else { return told == stored };
    // One of the two may hold the envelope, and the other not.
    let within = |one: &Map<String, Value>, other: &Map<String, Value>| {
        one.iter().all(|(name, value)| match other.get(name) {
            Some(other) => other == value,
            None => ENVELOPE.contains(&name.as_str()),
        })
    };
    within(told, stored) && within(stored, told)
}

/// Whoever keeps the highest number and skips what isn't higher gets each event after the one before it.
fn order(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let mut comes: Vec<Option<usize>> = vec![None; job.events.len()];
        for (turn, told) in job.told.iter().enumerate() {
            if let Some(place) = job.place(told.seq) {
                comes[place].get_or_insert(turn);
            }
        }
        let comes: Vec<usize> = comes.into_iter().flatten().collect();
        if let Some([late, early]) = comes.windows(2).find(|pair| pair[0] > pair[1]) {
            let (late, early) = (job.told[*late], job.told[*early]);
            finding.add(|| {
                let (late_at, early_at) = (index.time(late.at), index.time(early.at));
                format!("{}: event {} at {late_at}, after event {} at {early_at}", job.name(), late.seq, early.seq)
            });
        }
    }
}

fn all(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for (event, _) in job.events.iter().zip(&job.first_told).filter(|(_, told)| told.is_none()) {
            finding.add(|| format!("{}: event {}, {}, was never told", job.name(), event.seq, event.kind));
        }
    }
}
