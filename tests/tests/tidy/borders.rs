//! Who may name what: crates, clocks, channels and sleeps.

use super::source::{File, line_of, words};

/// Who must not depend on whom.
const APART: [(&str, &[&str]); 3] = [
    ("shared/Cargo.toml", &["coordinator", "worker", "cli", "windlass", "tests"]),
    ("coordinator/Cargo.toml", &["worker", "cli", "windlass", "tests"]),
    ("worker/Cargo.toml", &["coordinator", "cli", "windlass", "tests"]),
];
/// Where decisions are made: without I/O, without a clock, without randomness.
const PURE: [&str; 4] = ["shared/src/job", "shared/src/spec", "shared/src/time", "shared/src/id"];
const RUNTIMES: [&str; 9] = ["tokio", "actix", "async_trait", "async", "await", "getrandom", "clock", "fs", "tracing"];
/// Reading a clock, however it is called. Tokio's own instants are timers, and fine.
const CLOCKS: [&str; 6] = ["Instant::now", "SystemTime::now", "Timestamp::now", "Utc::now", "Local::now", "Zoned::now"];
/// The one place that reads clocks, and the one that waits in tests.
const CLOCK: &str = "shared/src/clock.rs";
const WAITING: &str = "tests/src/wait.rs";

pub fn dependencies(files: &[File]) -> Vec<String> {
    let each = |(path, others): (&str, &[&str])| {
        let file = files.iter().find(|file| file.path == path);
        let named = file.map(|file| dependencies_of(&file.text)).unwrap_or_default();
        let wrong = named.into_iter().filter(|name| others.contains(&name.as_str()));
        wrong.map(|name| format!("{path}: depends on {name}")).collect::<Vec<_>>()
    };
    APART.into_iter().flat_map(each).collect()
}

/// The names in all dependency tables of a Cargo.toml.
fn dependencies_of(toml: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in toml.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies");
            names.extend(table.split_once("dependencies.").map(|(_, name)| name.to_owned()));
        } else if inside && let Some((name, _)) = line.split_once(['.', '=', ' ']) {
            names.push(name.trim_matches('"').to_owned());
        }
    }
    names
}

pub fn sqlx(files: &[File]) -> Vec<String> {
    only_in(files, "sqlx", &["coordinator/src/store"])
}

pub fn async_nats(files: &[File]) -> Vec<String> {
    only_in(files, "async_nats", &["shared/src/bus/nats"])
}

pub fn actix_web(files: &[File]) -> Vec<String> {
    only_in(files, "actix_web", &["coordinator/src/api", "coordinator/src/web"])
}

fn only_in(files: &[File], name: &str, places: &[&str]) -> Vec<String> {
    let home = |file: &File| places.iter().any(|place| is_inside(&file.path, place));
    let outside = files.iter().filter(|file| file.is_shipped() && !home(file));
    outside.flat_map(|file| places_of(file, &file.code, name)).collect()
}

/// Whether a file is the module at `place` or one of its modules.
fn is_inside(path: &str, place: &str) -> bool {
    path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/') || rest == ".rs")
}

pub fn impure(files: &[File]) -> Vec<String> {
    let pure = |file: &&File| PURE.iter().any(|place| is_inside(&file.path, place));
    let each = |file: &File| RUNTIMES.iter().flat_map(|name| places_of(file, &file.code, name)).collect::<Vec<_>>();
    files.iter().filter(pure).flat_map(each).collect()
}

pub fn clocks(files: &[File]) -> Vec<String> {
    let each = |file: &File| {
        let read = CLOCKS.iter().filter(|clock| !(clock.starts_with("Instant") && has_tokios_instant(&file.code)));
        read.flat_map(|clock| places_of(file, &file.code, clock)).collect::<Vec<_>>()
    };
    files.iter().filter(|file| file.path != CLOCK).flat_map(each).collect()
}

/// Whether `Instant` in this code is the timer's.
fn has_tokios_instant(code: &str) -> bool {
    let mut uses = code.split(';').filter_map(|statement| statement.rsplit_once("use tokio::time::"));
    let named = uses.any(|(_, names)| !words(names, "Instant").is_empty());
    let full = |path: &str| words(code, path).len();
    named || (full("Instant::now") > 0 && full("Instant::now") == full("tokio::time::Instant::now"))
}

pub fn unbounded_channels(files: &[File]) -> Vec<String> {
    let names = ["unbounded_channel", "UnboundedSender", "UnboundedReceiver", "unbounded", "mpsc::channel()"];
    let each = |file: &File| names.iter().flat_map(|name| places_of(file, &file.code, name)).collect::<Vec<_>>();
    files.iter().flat_map(each).collect()
}

pub fn sleeping_tests(files: &[File]) -> Vec<String> {
    let each = |file: &File| places_of(file, file.test_code(), "sleep(");
    files.iter().filter(|file| file.path != WAITING).flat_map(each).collect()
}

/// Where `name` stands in `code`, which is the end of the file's code.
fn places_of(file: &File, code: &str, name: &str) -> Vec<String> {
    let before = line_of(&file.code, file.code.len() - code.len());
    let call = name.strip_suffix(['(', ')']).map(|name| name.trim_end_matches('('));
    let places = match call {
        // The end of a call is no word, so only its beginning is looked at.
        Some(_) => code.match_indices(name).map(|(at, _)| at).collect(),
        None => words(code, name),
    };
    places.into_iter().map(|at| format!("{}:{}: names {name}", file.path, before + line_of(code, at) - 1)).collect()
}
