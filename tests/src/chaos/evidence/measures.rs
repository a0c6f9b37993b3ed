//! What grows if something leaks: counted before the load and after it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use super::leftovers::left;
use super::{Site, stored};
use crate::chaos::history::Measure;
use crate::http::Client;
use crate::process::children;

/// How long it may take until what a load needed is given back: connections and threads that idle are kept for a while.
const SETTLED_WITHIN: Duration = Duration::from_mins(2);

/// How much more of each there may be after the load, by the first word of its name, and why.
const ALLOWANCES: [(&str, u64); 6] = [
    // Each process has one.
    ("connections", 0),
    ("subscriptions", 0),
    ("sessions", 0),
    ("files", 0),
    ("threads", 0),
    ("children", 0),
];

/// Each by its name.
///
/// # Panics
/// When one can't be counted.
pub fn of(site: &Site) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    if let Some(url) = &site.monitoring {
        let page = Client::new(url, "").get("/connz?limit=1024");
        assert_eq!(page.status, 200, "{}", page.text);
        let connections = page.json["connections"].as_array().cloned().unwrap_or_default();
        let subscriptions = connections.iter().filter_map(|connection| connection["subscriptions"].as_u64()).sum();
        all.push(("connections at NATS".to_owned(), connections.len() as u64));
        all.push(("subscriptions at NATS".to_owned(), subscriptions));
    }
    let sessions = "SELECT count(*)::text FROM pg_stat_activity WHERE application_name = 'windlass'";
    let sessions = stored::query(&site.database, sessions)[0][0].parse().expect("a number");
    all.push(("sessions at Postgres".to_owned(), sessions));
    let coordinators = site.coordinators.iter().enumerate().map(|(index, pid)| (format!("coordinator {index}"), *pid));
    let workers = site.workers.iter().enumerate().map(|(index, worker)| (format!("worker {index}"), worker.pid));
    for (name, pid) in coordinators.chain(workers) {
        all.push((format!("files open in {name}"), entries(pid, "fd")));
        all.push((format!("threads of {name}"), entries(pid, "task")));
        all.push((format!("children of {name}"), children(pid).len() as u64));
    }
    all
}

fn entries(pid: i32, directory: &str) -> u64 {
    let path = format!("/proc/{pid}/{directory}");
    let entries = fs::read_dir(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    entries.count() as u64
}

/// Each once more, beside what it was: as soon as nothing is more than it may be, or when that has been waited for in vain.
pub fn compared(before: &[(String, u64)], site: &Site) -> Vec<Measure> {
    let mut measured = Vec::new();
    left("measures that are too high", SETTLED_WITHIN, || {
        measured = joined(before, of(site));
        measured.iter().filter(|measure| measure.after > measure.before + measure.allowance).cloned().collect()
    });
    measured
}

fn joined(before: &[(String, u64)], after: Vec<(String, u64)>) -> Vec<Measure> {
    let before: BTreeMap<&str, u64> = before.iter().map(|(what, count)| (what.as_str(), *count)).collect();
    let measure = |(what, after): (String, u64)| {
        let first = what.split(' ').next();
        let allowance = ALLOWANCES.iter().find(|(word, _)| Some(*word) == first).expect("an allowance").1;
        let before = *before.get(&*what)?;
        Some(Measure { what, before, after, allowance })
    };
    after.into_iter().filter_map(measure).collect()
}
