//! The rules by name, the exceptions, and the test that holds the repository against them.

use super::source::{File, repository};
use super::{borders, documents, shape};

/// A rule: what it says of files that break it, each as `path: what is wrong`.
pub type Rule = fn(&[File]) -> Vec<String>;

/// Every rule by its name.
pub const RULES: [(&str, Rule); 19] = [
    ("a file has at most 500 lines", shape::long_files),
    ("a function has at most 70 lines", shape::long_functions),
    ("a module is named for what it owns", shape::drawers),
    ("a file opens by saying what it owns", shape::headless_files),
    ("nothing is left to be done", shape::leftovers),
    ("a lint is expected with a reason, not allowed", shape::allowed_lints),
    ("the waists are narrow", shape::wide_waists),
    ("dependencies point one way", borders::dependencies),
    ("sqlx stays in the store", borders::sqlx),
    ("async_nats stays in its bus", borders::async_nats),
    ("actix_web stays in the API and the page", borders::actix_web),
    ("the pure modules know no runtime", borders::impure),
    ("a clock is read in one module", borders::clocks),
    ("a channel has a bound", borders::unbounded_channels),
    ("no test sleeps for luck", borders::sleeping_tests),
    ("the project speaks of itself alone", documents::foreign_paths),
    ("every invariant names a test that exists", documents::unheld_invariants),
    ("twin migrations have the same numbers", documents::lonely_migrations),
    ("a doc names files that exist", documents::dangling_files),
];

/// What may break a rule: the rule's name, the file's path, and why.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

#[test]
fn the_repository_keeps_every_rule() {
    let files = repository();
    assert!(files.iter().any(|file| file.path == "shared/src/lib.rs"), "the repository's files weren't found");
    let mut faults = Vec::new();
    for (name, rule) in RULES {
        let excepted = |path: &str| EXCEPTIONS.iter().any(|(rule, file, _)| *rule == name && *file == path);
        let path = |fault: &str| fault.split(':').next().unwrap_or_default().to_owned();
        let found = rule(&files);
        for (_, file, reason) in EXCEPTIONS.iter().filter(|(rule, _, _)| *rule == name) {
            if !found.iter().any(|fault| path(fault) == *file) {
                faults.push(format!("{name}: {file}: the exception isn't needed ({reason})"));
            }
        }
        faults.extend(found.iter().filter(|fault| !excepted(&path(fault))).map(|fault| format!("{name}: {fault}")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
