//! What was seen of a job, in answers and events, fits one life of it: nobody saw it back where somebody had seen it
//! further on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::Rule;
use super::finding::Finding;
use super::index::{Index, Job, after};
use super::sightings::{Saw, Sighting};
use crate::chaos::history::At;

pub const RULES: [Rule; 3] = [
    Rule { name: "a job was seen only as it was", look: was },
    Rule { name: "a job was not seen as it was before", look: back },
    Rule { name: "a job was not seen as it was to become", look: ahead },
];

/// How far a coordinator's idea of the database's clock may be off.
const CLOCKS_APART: Duration = Duration::from_secs(3);

/// Where in its timeline a job was seen.
enum Place {
    At,
    /// Where it was only later.
    Later(usize),
    /// It never was so.
    Never,
    /// It was so only before what somebody had seen already, which is at this place.
    Before(usize),
}

/// The earliest place of each sighting at which all could have seen the job as they did: what was answered before another
/// asked lies before that.
fn places<'a, 'j>(index: &Index<'_>, job: &'j Job<'a>) -> Vec<(&'j Sighting<'a>, Place)> {
    let (mut floor, mut under_way) = (0, BinaryHeap::<Reverse<(At, usize)>>::new());
    let mut places = Vec::with_capacity(job.sightings.len());
    for sighting in &job.sightings {
        while let Some(Reverse((answered, place))) = under_way.peek().copied()
            && answered < sighting.asked
        {
            under_way.pop();
            floor = floor.max(place);
        }
        let place = match sighting.saw.place(job, floor) {
            Some(place) if sighting.call.is_some() && is_later(index, job, place, sighting.answered) => {
                Place::Later(place)
            }
            Some(place) => {
                under_way.push(Reverse((sighting.answered, place)));
                Place::At
            }
            None if floor > 0 && sighting.saw.place(job, 0).is_some() => Place::Before(floor),
            None => Place::Never,
        };
        places.push((sighting, place));
    }
    places
}

/// Whether an event was committed only after that moment.
fn is_later(index: &Index<'_>, job: &Job<'_>, place: usize, answered: At) -> bool {
    index.committed_at(job, job.events[place]).is_some_and(|committed| committed > after(answered, CLOCKS_APART))
}

/// What each sighting came to, for the jobs that are there.
fn each(index: &Index<'_>, mut look: impl FnMut(&Job<'_>, &Sighting<'_>, &Place)) {
    for job in index.jobs.iter().filter(|job| !job.rows.is_empty()) {
        for (sighting, place) in &places(index, job) {
            look(job, sighting, place);
        }
    }
}

fn words(index: &Index<'_>, job: &Job<'_>, sighting: &Sighting<'_>) -> String {
    let (asked, answered) = (index.time(sighting.asked), index.time(sighting.answered));
    let by = sighting
        .call
        .map_or_else(String::new, |call| format!(" by client {} at coordinator {}", call.client, call.replica));
    format!("{} was {}{by}, asked at {asked}, answered at {answered}", job.name(), sighting.saw.words())
}

fn was(index: &Index<'_>, finding: &mut Finding) {
    each(index, |job, sighting, place| {
        // What a cancel's answer says of the end has rules of its own.
        let never = matches!(place, Place::Never) && !matches!(sighting.saw, Saw::Stopped(_));
        finding.unless(!never, || words(index, job, sighting));
    });
}

fn back(index: &Index<'_>, finding: &mut Finding) {
    each(index, |job, sighting, place| {
        if let Place::Before(floor) = place {
            let event = job.events[*floor];
            finding.add(|| {
                let known = format!("event {} ({}, attempt {})", event.seq, event.kind, event.attempt);
                format!("{}; {known} was known before", words(index, job, sighting))
            });
        }
    });
}

fn ahead(index: &Index<'_>, finding: &mut Finding) {
    each(index, |job, sighting, place| {
        let Place::Later(place) = place else { return };
        let event = job.events[*place];
        finding.add(|| {
            let committed = index.known_at(job, event).map_or_else(String::new, |at| index.time(at));
            format!("{}; event {} was committed at {committed}", words(index, job, sighting), event.seq)
        });
    });
}
