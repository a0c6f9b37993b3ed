//! Nothing is left over in the end.

use super::Rule;
use super::finding::Finding;
use super::index::Index;
use crate::chaos::history::{Id, Kind, Target, Trouble};

pub const RULES: [Rule; 9] = [
    Rule { name: "no process of a job is left", look: processes },
    Rule { name: "no file of a job is left", look: files },
    Rule { name: "no process under test ends by itself", look: deaths },
    Rule { name: "every event is published", look: published },
    Rule { name: "each shard counts as many events as it numbered", look: counted },
    Rule { name: "no offer is left", look: offers },
    Rule { name: "no row is left of what isn't there any more", look: rows },
    Rule { name: "nothing grows with what was done", look: measures },
    Rule { name: "every slot can be taken, once", look: slots },
];

fn each(finding: &mut Finding, left: &[String]) {
    for what in left {
        finding.add(|| what.clone());
    }
}

fn processes(index: &Index<'_>, finding: &mut Finding) {
    each(finding, &index.history.end.processes);
}

fn files(index: &Index<'_>, finding: &mut Finding) {
    each(finding, &index.history.end.files);
}

/// A worker that can't write to its disk can't start, and says so.
fn deaths(index: &Index<'_>, finding: &mut Finding) {
    let full = |death: &&String| {
        let worker = death.strip_prefix("worker-").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
        let is_full = |worker| {
            move |trouble: &Trouble| (trouble.kind, trouble.target) == (Kind::FullDisk, Target::Worker(worker))
        };
        let was_full = worker.is_some_and(|worker| index.history.troubles.iter().any(is_full(worker)));
        was_full && death.contains("windlass: starting the worker: ") && death.contains("No space left on device")
    };
    index.history.end.deaths.iter().filter(|death| !full(death)).for_each(|death| finding.add(|| death.clone()));
}

fn published(index: &Index<'_>, finding: &mut Finding) {
    for (shard, cursor, last) in &index.history.end.unpublished {
        finding.add(|| format!("shard {shard} is published up to {cursor} of {last}"));
    }
}

fn counted(index: &Index<'_>, finding: &mut Finding) {
    for (shard, count, last) in &index.history.end.gaps {
        finding.add(|| format!("shard {shard} has {count} events, and the last one has number {last}"));
    }
}

/// A server of NATS that is killed may bring back what was acknowledged just before, or still wait for the acknowledgement of what it
/// has no more: it keeps apart which messages a consumer is past and which the stream has, and writes them at different times (seen with
/// 2.9.10). Nobody is given such an offer again, its age removes it, and it harms nothing as long as its attempt was granted or its job
/// is over.
fn offers(index: &Index<'_>, finding: &mut Finding) {
    for offer in &index.history.end.offers {
        let waits_for_nothing = offer.contains(" has 0 to deliver, ") && killed(index).next().is_some();
        if !waits_for_nothing && !was_brought_back(index, offer) {
            finding.add(|| offer.clone());
        }
    }
}

fn killed<'a>(index: &Index<'a>) -> impl Iterator<Item = &'a Trouble> {
    index.history.troubles.iter().filter(|trouble| trouble.kind == Kind::Kill && trouble.target == Target::Nats)
}

fn was_brought_back(index: &Index<'_>, offer: &str) -> bool {
    let mut words = offer.rsplit('.');
    let (Some(Ok(attempt)), Some(job)) = (words.next().map(str::parse::<u32>), words.next()) else { return false };
    let Some(job) = index.job(&Id(job.to_owned())) else { return false };
    let done_with = job.attempt(attempt).map(|attempt| attempt.granted).or_else(|| job.end());
    let Some(done_with) = done_with else { return false };
    let done_with = index.earliest(job, done_with).unwrap_or_default();
    killed(index).any(|kill| kill.to >= done_with)
}

fn rows(index: &Index<'_>, finding: &mut Finding) {
    each(finding, &index.history.end.rows);
}

fn measures(index: &Index<'_>, finding: &mut Finding) {
    let measures = &index.history.end.measures;
    finding.unless(!measures.is_empty(), || "nothing was measured".to_owned());
    for measure in measures.iter().filter(|measure| measure.after > measure.before + measure.allowance) {
        let (before, after) = (measure.before, measure.after);
        finding.add(|| format!("{}: {before} before, {after} after, {} more allowed", measure.what, measure.allowance));
    }
}

fn slots(index: &Index<'_>, finding: &mut Finding) {
    match index.history.end.slots {
        None => finding.add(|| "it was not measured".to_owned()),
        Some(slots) => finding.unless(slots.ran_at_once == slots.there, || {
            format!("{} ran at once where {} slots are there", slots.ran_at_once, slots.there)
        }),
    }
}
