//! Every job ends, once, and everywhere alike.

use std::collections::BTreeSet;

use super::Rule;
use super::finding::Finding;
use super::index::{Index, Job};
use super::order::is_terminal;
use super::outcomes::Outcome;

pub const RULES: [Rule; 5] = [
    Rule { name: "every job ends", look: all_end },
    Rule { name: "a job ends once", look: end_once },
    Rule { name: "nothing but one late report follows the end", look: nothing_follows },
    Rule { name: "a job's row ends as its timeline does", look: row_and_timeline },
    Rule { name: "every replica says of a job what its row says", look: views },
];

fn all_end(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.history.end.unfinished {
        let name = || index.job(job).map_or_else(|| format!("job {}", job.0), Job::name);
        finding.add(|| format!("{} had not ended in time", name()));
    }
    for row in index.history.rows.iter().filter(|row| !is_terminal(&row.state)) {
        finding.unless(index.history.end.unfinished.contains(&row.id), || {
            format!("job {} ({}) is {} in the end", row.id.0, row.key.0, row.state)
        });
    }
}

fn end_once(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let ends: Vec<String> = job
            .events
            .iter()
            .filter(|event| is_terminal(&event.kind))
            .map(|event| format!("{} as event {}", event.kind, event.seq))
            .collect();
        finding.unless(ends.len() < 2, || format!("{}: {}", job.name(), ends.join(", ")));
    }
}

fn nothing_follows(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let mut after = job.events.iter().skip_while(|event| !is_terminal(&event.kind)).skip(1);
        let reports = job.events.iter().filter(|event| event.kind == "late_report").count();
        let strange = after.find(|event| !is_terminal(&event.kind) && event.kind != "late_report");
        if let Some(event) = strange {
            finding.add(|| format!("{}: {} as event {}", job.name(), event.kind, event.seq));
        } else if reports > 1 {
            finding.add(|| format!("{}: {reports} late reports", job.name()));
        }
    }
}

fn row_and_timeline(index: &Index<'_>, finding: &mut Finding) {
    for job in &index.jobs {
        let Some(row) = job.row().filter(|row| is_terminal(&row.state)) else { continue };
        let Some(end) = job.end() else {
            finding.add(|| format!("{} is {}, and its timeline has no end", job.name(), row.state));
            continue;
        };
        let (said, told) = (Outcome::said(row.outcome.as_ref()), job.outcome());
        let same = row.state == end.kind && row.attempt == end.attempt && said == told;
        finding.unless(same, || {
            let row = format!("its row is {} in attempt {} with {said:?}", row.state, row.attempt);
            format!("{}: {row}, event {} is {} in attempt {} with {told:?}", job.name(), end.seq, end.kind, end.attempt)
        });
    }
}

fn views(index: &Index<'_>, finding: &mut Finding) {
    let asked = index.history.calls.iter().map(|call| call.replica);
    let replicas: BTreeSet<usize> = asked.chain(index.history.views.iter().map(|view| view.replica)).collect();
    for job in &index.jobs {
        let Some(row) = job.row() else { continue };
        let said = Outcome::said(row.outcome.as_ref());
        for replica in &replicas {
            let mut views = job.views.iter().filter(|view| view.replica == *replica).peekable();
            finding.unless(views.peek().is_some(), || format!("{}: coordinator {replica} doesn't show it", job.name()));
            for view in views {
                let same = view.state == row.state && view.attempt == row.attempt;
                let same = same && Outcome::said(view.outcome.as_ref()) == said;
                finding.unless(same, || {
                    let shown = format!("{} in attempt {} with {:?}", view.state, view.attempt, view.outcome);
                    let stored = format!("{} in attempt {} with {:?}", row.state, row.attempt, row.outcome);
                    format!("{}: coordinator {replica} shows {shown}, its row is {stored}", job.name())
                });
            }
        }
    }
}
