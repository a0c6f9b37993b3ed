//! Fences: each attempt has one of its own, and a later attempt's is higher.

use std::collections::HashMap;

use super::Rule;
use super::finding::Finding;
use super::index::Index;
use super::steps::words;
use crate::chaos::history::Id;

pub const RULES: [Rule; 2] = [
    Rule { name: "an attempt has one fence, which no other has", look: own },
    Rule { name: "a later attempt's fence is higher", look: grow },
];

fn own(index: &Index<'_>, finding: &mut Finding) {
    let mut holders: HashMap<u64, (&Id, u32)> = HashMap::new();
    for job in &index.jobs {
        let mut of: HashMap<u32, u64> = HashMap::new();
        for (_, note) in &job.notes {
            let first = *of.entry(note.attempt).or_insert(note.fence);
            finding.unless(first == note.fence, || format!("{}; it had {first} before", words(index, job, note)));
            let (other, attempt) = *holders.entry(note.fence).or_insert((job.id, note.attempt));
            finding.unless((other, attempt) == (job.id, note.attempt) || first != note.fence, || {
                format!("{}; attempt {attempt} of job {} has it too", words(index, job, note), other.0)
            });
        }
    }
}

fn grow(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let mut fences: Vec<(u32, u64)> = job.notes.iter().map(|(_, note)| (note.attempt, note.fence)).collect();
        fences.sort_unstable();
        fences.dedup_by_key(|(attempt, _)| *attempt);
        for pair in fences.windows(2).filter(|pair| pair[0].1 > pair[1].1) {
            let [(first, before), (second, after)] = [pair[0], pair[1]];
            finding.add(|| format!("{}: attempt {first} has fence {before}, attempt {second} has {after}", job.name()));
        }
    }
}
