//! The timelines in themselves: numbers without gaps, and an order that can be.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Rule;
use super::finding::Finding;
use super::index::{Index, Job};
use super::order::is_terminal;
use crate::chaos::history::Event;

pub const RULES: [Rule; 8] = [
    Rule { name: "a job's events are numbered without a gap", look: numbered },
    Rule { name: "a shard's events are numbered without a gap", look: shards },
    Rule { name: "a job's events follow one another in its shard", look: within_shard },
    Rule { name: "a job's events come in an order that can be", look: order },
    Rule { name: "attempt numbers grow by one with each grant", look: attempts },
    Rule { name: "each attempt is granted to a worker of the cluster", look: granted },
    Rule { name: "a worker tells of an attempt's steps in their order", look: steps },
    Rule { name: "whatever has ended waits for no time, and nothing else waits for none", look: wakes },
];

fn numbered(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let mut expected = 1..;
        let wrong = job.events.iter().zip(&mut expected).find(|(event, number)| event.seq != *number);
        let (last, row) = (job.events.len() as u64, job.row().map(|row| row.seq));
        if let Some((event, number)) = wrong {
            finding.add(|| format!("{}: event {} where {number} should be", job.name(), event.seq));
        } else if row.is_some_and(|row| row != last) {
            finding.add(|| format!("{}: {last} events, and its row says {row:?}", job.name()));
        }
    }
}

fn shards(index: &Index<'_>, finding: &mut Finding) {
    let mut shards: BTreeMap<u32, Vec<(u64, &Event)>> = BTreeMap::new();
    for event in &index.history.events {
        shards.entry(event.shard).or_default().push((event.shard_seq, event));
    }
    for (shard, mut events) in shards {
        events.sort_by_key(|(number, _)| *number);
        let wrong = events.iter().zip(1..).find(|((number, _), expected)| number != expected);
        if let Some(((number, event), expected)) = wrong {
            let (job, seq) = (&event.job.0, event.seq);
            finding
                .add(|| format!("shard {shard}: event {number} (event {seq} of job {job}) where {expected} should be"));
        }
    }
}

fn within_shard(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let shard = job.row().map(|row| row.shard);
        let strange = job.events.iter().find(|event| shard.is_some_and(|shard| shard != event.shard));
        let pairs =
            || job.events.windows(2).find(|pair| pair[0].seq < pair[1].seq && pair[0].shard_seq >= pair[1].shard_seq);
        if let Some(event) = strange {
            finding.add(|| format!("{}: event {} is in shard {}", job.name(), event.seq, event.shard));
        } else if let Some([first, second]) = pairs() {
            finding.add(|| {
                let (before, after) = (first.shard_seq, second.shard_seq);
                format!("{}: events {} and {} are {before} and {after} in the shard", job.name(), first.seq, second.seq)
            });
        }
    }
}

fn order(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for place in &job.misplaced {
            let event = job.events[*place];
            // What follows the end has rules of its own.
            if job.events[..*place].iter().any(|event| is_terminal(&event.kind)) {
                continue;
            }
            finding.add(|| {
                let before = job.events[place.saturating_sub(4)..*place].iter().map(|event| event.kind.as_str());
                let before = before.collect::<Vec<_>>().join(", ");
                format!("{}: event {} is {} after {before}", job.name(), event.seq, event.kind)
            });
        }
    }
}

fn attempts(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let mut last = 0;
        for event in &job.events {
            let expected = if event.kind == "assigned" { last + 1 } else { last };
            finding.unless(event.attempt == expected, || {
                format!(
                    "{}: event {} ({}) is of attempt {}, not {expected}",
                    job.name(),
                    event.seq,
                    event.kind,
                    event.attempt
                )
            });
            last = event.attempt;
        }
        let row = job.row().filter(|row| row.attempt != last && !job.events.is_empty());
        if let Some(row) = row {
            finding.add(|| format!("{}: its row is at attempt {}, its timeline at {last}", job.name(), row.attempt));
        }
    }
}

fn granted(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        for attempt in &job.attempts {
            let known = attempt.worker().is_some_and(|worker| index.workers.contains_key(worker));
            finding.unless(known, || {
                format!("{}: attempt {} is granted to {:?}", job.name(), attempt.number, attempt.worker())
            });
        }
    }
}

fn steps(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        if let Some((event, expected)) = first_strange_step(job) {
            finding.add(|| {
                format!("{}: event {} is {} of {}, not {expected}", job.name(), event.seq, event.kind, event.data)
            });
        }
    }
}

/// The first report of a step that can't follow those before it, and what could.
fn first_strange_step<'a>(job: &Job<'a>) -> Option<(&'a Event, String)> {
    let (mut next, mut under_way) = (0, false);
    for event in &job.events {
        let step = event.data.get("step").and_then(Value::as_u64);
        match event.kind.as_str() {
            "assigned" => (next, under_way) = (0, false),
            "step_started" if under_way || step != Some(next) => {
                let expected = if under_way { format!("the end of step {next}") } else { format!("of step {next}") };
                return Some((event, expected));
            }
            "step_started" => under_way = true,
            "step_finished" if !under_way || step != Some(next) => return Some((event, format!("of step {next}"))),
            "step_finished" => (next, under_way) = (next + 1, false),
            _ => {}
        }
    }
    None
}

fn wakes(index: &Index<'_>, finding: &mut Finding) {
    for row in &index.history.rows {
        finding.unless(row.wakes != is_terminal(&row.state), || {
            let wakes = if row.wakes { "waits for a time" } else { "waits for no time" };
            format!("job {} ({}) is {} and {wakes}", row.id.0, row.key.0, row.state)
        });
    }
}
