//! Where in its timeline a job was each time that somebody saw it, if all of them saw one life of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::index::{CLOCKS_APART, Index, Job, after};
use super::sightings::Sighting;
use crate::chaos::history::At;

/// Where a job was when it was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    At(usize),
    /// It never was so.
    Never,
    /// It was so only before what somebody had seen already, which is at this place.
    Before(usize),
    /// It was so only later, from this place on.
    Later(usize),
}

/// The earliest place of each sighting at which all could have seen the job as they did: what was answered before another
/// asked lies before that.
pub fn of(index: &Index<'_>, job: &Job<'_>) -> Vec<Place> {
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
            Some(place) if is_later(index, job, place, sighting) => Place::Later(place),
            Some(place) => Place::At(place),
            None if floor > 0 && sighting.saw.place(job, 0).is_some() => Place::Before(floor),
            None => Place::Never,
        };
        if let Place::At(place) = place {
            under_way.push(Reverse((sighting.answered, place)));
        }
        places.push(place);
    }
    places
}

/// Whether an event was committed only after somebody is said to have seen it.
fn is_later(index: &Index<'_>, job: &Job<'_>, place: usize, sighting: &Sighting<'_>) -> bool {
    let committed = || index.earliest(job, job.events[place]);
    // What the subscriber was told says the same of itself.
    sighting.call.is_some() && committed().is_some_and(|committed| committed > after(sighting.answered, CLOCKS_APART))
}
