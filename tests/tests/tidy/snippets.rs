//! Each rule, tried on what breaks it and on what comes close without breaking it.

use std::collections::BTreeSet;

use super::rules::RULES;
use super::source::File;

/// A rule's name, the files, and whether they break it.
type Case = (&'static str, &'static [(&'static str, &'static str)], bool);

const CASES: [Case; 56] = [
    ("a function has at most 70 lines", &[("a.rs", "fn short() {\n}\n")], false),
    ("a module is named for what it owns", &[("shared/src/util.rs", "")], true),
    ("a module is named for what it owns", &[("shared/src/models/job.rs", "")], true),
    ("a module is named for what it owns", &[("shared/src/job/mod.rs", "")], true),
    ("a module is named for what it owns", &[("a.rs", "mod helpers;")], true),
    ("a module is named for what it owns", &[("shared/src/utility.rs", "mod types_of_jobs;")], false),
    ("a file opens by saying what it owns", &[("a.rs", "use std::fmt;\n//! Too late.")], true),
    ("a file opens by saying what it owns", &[("a.rs", "//! What it owns."), ("a.sql", "select 1")], false),
    ("nothing is left to be done", &[("a.rs", concat!("// TO", "DO: the rest"))], true),
    ("nothing is left to be done", &[("a.md", concat!("FIX", "ME"))], true),
    ("nothing is left to be done", &[("a.rs", "fn a() { todo!() }")], true),
    ("nothing is left to be done", &[("a.rs", "// \"todo!\" is a macro\nlet x = \"unimplemented!\";")], false),
    ("a lint is expected with a reason, not allowed", &[("a.rs", "#[allow(dead_code)]")], true),
    ("a lint is expected with a reason, not allowed", &[("a.rs", "#![allow(dead_code)]")], true),
    ("a lint is expected with a reason, not allowed", &[("a.rs", "#[expect(dead_code, reason = \"…\")]")], false),
    ("the waists are narrow", &[("shared/src/bus.rs", "pub trait Bus { fn a(); }")], false),
    ("the waists are narrow", &[("shared/src/bus.rs", "trait Bus {}")], true),
    ("dependencies point one way", &[("shared/Cargo.toml", "[dependencies]\nworker.workspace = true\n")], true),
    (
        "dependencies point one way",
        &[("worker/Cargo.toml", "[dev-dependencies]\ncoordinator = { path = \"…\" }")],
        true,
    ),
    ("dependencies point one way", &[("worker/Cargo.toml", "[dependencies.coordinator]\npath = \"…\"")], true),
    (
        "dependencies point one way",
        &[("worker/Cargo.toml", "[package]\nname = \"worker\"\n[dependencies]\nshared = 1")],
        false,
    ),
    ("sqlx stays in the store", &[("coordinator/src/api/jobs.rs", "use sqlx::Row;")], true),
    ("sqlx stays in the store", &[("coordinator/src/store_like.rs", "use sqlx::Row;")], true),
    ("sqlx stays in the store", &[("coordinator/src/store/sqlite.rs", "use sqlx::Row;"), ("a.rs", "// sqlx")], false),
    ("async_nats stays in its bus", &[("shared/src/bus.rs", "use async_nats::Client;")], true),
    ("async_nats stays in its bus", &[("shared/src/bus/nats.rs", "use async_nats::Client;")], false),
    ("actix_web stays in the API and the page", &[("cli/src/main.rs", "#[actix_web::main]")], true),
    ("actix_web stays in the API and the page", &[("coordinator/src/api.rs", "use actix_web::web;")], false),
    ("the pure modules know no runtime", &[("shared/src/job/apply.rs", "use crate::clock;")], true),
    ("the pure modules know no runtime", &[("shared/src/job.rs", "async fn apply() {}")], true),
    ("the pure modules know no runtime", &[("shared/src/job.rs", "// async\nfn applies() {}")], false),
    ("a clock is read in one module", &[("a.rs", "use std::time::Instant;\nlet a = Instant::now();")], true),
    ("a clock is read in one module", &[("a.rs", "let a = std::time::SystemTime::now();")], true),
    ("a clock is read in one module", &[("a.rs", "jiff::Timestamp::now()")], true),
    ("a clock is read in one module", &[("a.rs", "chrono::Utc::now()")], true),
    ("a clock is read in one module", &[("a.rs", "tokio::time::Instant::now(); std::time::Instant::now()")], true),
    ("a clock is read in one module", &[("a.rs", "use tokio::time::{sleep, Instant};\nInstant::now()")], false),
    ("a clock is read in one module", &[("shared/src/clock.rs", "Instant::now()")], false),
    ("a channel has a bound", &[("a.rs", "let (a, b) = mpsc::unbounded_channel();")], true),
    ("a channel has a bound", &[("a.rs", "let (a, b) = std::sync::mpsc::channel();")], true),
    ("a channel has a bound", &[("a.rs", "let a = futures::channel::mpsc::unbounded();")], true),
    ("a channel has a bound", &[("a.rs", "mpsc::channel(64); \"unbounded_channel\"")], false),
    ("no test sleeps for luck", &[("tests/tests/a.rs", "tokio::time::sleep(second).await;")], true),
    (
        "no test sleeps for luck",
        &[("worker/src/a.rs", "#[cfg(test)]\nmod tests { fn a() { thread::sleep(s) } }")],
        true,
    ),
    (
        "no test sleeps for luck",
        &[("worker/src/a.rs", "tokio::time::sleep(s).await"), ("tests/src/wait.rs", "sleep(s)")],
        false,
    ),
    ("the project speaks of itself alone", &[("README.md", concat!("see /wo", "rk/main"))], true),
    ("the project speaks of itself alone", &[("a.sh", concat!("cd \"/wo", "rk\""))], true),
    ("the project speaks of itself alone", &[("a.md", concat!("/api/v1/wo", "rkers and {dir}/wo", "rk/"))], false),
    ("every invariant names a test that exists", &[("ARCHITECTURE.md", "## Invariants\n- No job is lost.\n")], true),
    (
        "every invariant names a test that exists",
        &[("ARCHITECTURE.md", "## Invariants\n- None is lost — test `a`\n")],
        true,
    ),
    ("every invariant names a test that exists", &[("ARCHITECTURE.md", "## Invariants\n"), ("a.rs", "")], true),
    (
        "every invariant names a test that exists",
        &[("ARCHITECTURE.md", "## Invariants\n- None is lost — test `a`\n"), ("a.rs", "#[test]\nfn b() {}\nfn a() {}")],
        true,
    ),
    (
        "every invariant names a test that exists",
        &[
            (
                "ARCHITECTURE.md",
                "# Map\n- x\n\n## Invariants\n\nWhat is absent:\n1. No job\n   is lost — tests `a`,\n   `b`\n## Next\n- x",
            ),
            ("a.rs", "#[test]\nfn a() {}\n#[actix::test]\nasync fn b() {}"),
        ],
        false,
    ),
    (
        "twin migrations have the same numbers",
        &[("migrations/sqlite/0001_a.sql", ""), ("migrations/postgres/0002_a.sql", "")],
        true,
    ),
    (
        "twin migrations have the same numbers",
        &[("migrations/sqlite/0001_a.sql", ""), ("migrations/sqlite/0001_b.sql", "")],
        true,
    ),
    ("a doc names files that exist", &[("a.rs", "//! `src/gone.rs` has the rest.")], true),
];

#[test]
fn every_rule_finds_what_breaks_it_and_leaves_the_rest() {
    for (name, files, breaks) in CASES {
        let faults = faults(name, files);
        assert_eq!(!faults.is_empty(), breaks, "{name}: {files:?}: {faults:?}");
    }
}

#[test]
fn every_rule_is_tried_on_something_that_breaks_it() {
    // Those with long snippets have tests of their own below.
    let own = ["a file has at most 500 lines", "a function has at most 70 lines"];
    let tried: BTreeSet<&str> =
        CASES.iter().filter(|(_, _, breaks)| *breaks).map(|(name, _, _)| *name).chain(own).collect();
    let rules: BTreeSet<&str> = RULES.iter().map(|(name, _)| *name).collect();
    assert_eq!(tried, rules);
}

#[test]
fn a_file_or_function_with_one_line_too_many_is_found() {
    for (lines, found) in [(500, 0), (501, 1)] {
        let text = "//! x\n".repeat(lines);
        assert_eq!(faults("a file has at most 500 lines", &[("a.rs", &text)]).len(), found);
    }
    for (lines, found) in [(70, 0), (71, 1)] {
        let text = format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2));
        assert_eq!(faults("a function has at most 70 lines", &[("a.rs", &text)]).len(), found);
    }
}

#[test]
fn a_waist_with_one_method_too_many_is_found() {
    for (methods, found) in [(12, 0), (13, 1)] {
        let text =
            format!("pub trait Bus: Send {{\n{}}}\nfn beyond() {{}}", "    async fn a(&self);\n".repeat(methods));
        assert_eq!(faults("the waists are narrow", &[("shared/src/bus.rs", &text)]).len(), found);
    }
}

fn faults(name: &str, files: &[(&str, &str)]) -> Vec<String> {
    let files: Vec<File> = files.iter().map(|(path, text)| File::new(path, text)).collect();
    let (_, rule) = RULES.iter().find(|(rule, _)| *rule == name).unwrap_or_else(|| panic!("no rule {name:?}"));
    rule(&files)
}
