//! What was seen of a job, in answers and events, fits one life of it: nobody saw it back where somebody had seen it
//! further on.

use super::Rule;
use super::finding::Finding;
use super::index::{Index, Job};
use super::places::Place;
use super::sightings::{Saw, Sighting};

pub const RULES: [Rule; 3] = [
    Rule { name: "a job was seen only as it was", look: was },
    Rule { name: "a job was not seen as it was before", look: back },
    Rule { name: "a job was not seen as it was to become", look: ahead },
];

/// What each sighting came to, for the jobs that are there.
fn each(index: &Index<'_>, mut look: impl FnMut(&Job<'_>, &Sighting<'_>, Place)) {
    for job in index.jobs.iter().filter(|job| !job.rows.is_empty()) {
        for (sighting, place) in job.sightings.iter().zip(&job.places) {
            look(job, sighting, *place);
        }
    }
}

fn words(index: &Index<'_>, job: &Job<'_>, sighting: &Sighting<'_>) -> String {
    let (asked, answered) = (index.time(sighting.asked), index.time(sighting.answered));
    let by = sighting.call.map(|call| format!(" by client {} at coordinator {}", call.client, call.replica));
    let by = by.unwrap_or_default();
    format!("{} was {}{by}, asked at {asked}, answered at {answered}", job.name(), sighting.saw.words())
}

fn was(index: &Index<'_>, finding: &mut Finding) {
    each(index, |job, sighting, place| {
        // What a cancel's answer says of the end has rules of its own.
        let never = place == Place::Never && !matches!(sighting.saw, Saw::Stopped(_));
        finding.unless(!never, || words(index, job, sighting));
    });
}

fn back(index: &Index<'_>, finding: &mut Finding) {
    each(index, |job, sighting, place| {
        let Place::Before(floor) = place else { return };
        let event = job.events[floor];
        finding.add(|| {
            let known = format!("event {} ({}, attempt {})", event.seq, event.kind, event.attempt);
            format!("{}; {known} was known before", words(index, job, sighting))
        });
    });
}

fn ahead(index: &Index<'_>, finding: &mut Finding) {
    each(index, |job, sighting, place| {
        let Place::Later(place) = place else { return };
        let event = job.events[place];
        finding.add(|| {
            let committed = index.latest(job, event).map_or_else(String::new, |at| index.time(at));
            format!("{}; event {} was committed at {committed}", words(index, job, sighting), event.seq)
        });
    });
}
