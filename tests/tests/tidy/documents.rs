//! What documents, migrations and comments say of the rest of the repository.

use std::collections::{BTreeMap, BTreeSet};

use super::source::{File, has_ending, line_of};

/// The document that names the invariants, and the heading that they stand under.
const ARCHITECTURE: &str = "ARCHITECTURE.md";
const INVARIANTS: &str = "## Invariants";
/// Where suites list their cases.
const SUITES: &str = "tests/tests/conformance/";

pub fn foreign_paths(files: &[File]) -> Vec<String> {
    let foreign = concat!("/wo", "rk");
    let is_path = |text: &str, at: usize| {
        let part = |c: char| c.is_alphanumeric() || "._-}~)/".contains(c);
        let rest = &text[at + foreign.len()..];
        !text[..at].ends_with(part) && (rest.is_empty() || rest.starts_with(['/', '"', '`', ' ', '\n', '\'']))
    };
    let each = |file: &File| {
        let places = file.text.match_indices(foreign).map(|(at, _)| at).filter(|at| is_path(&file.text, *at));
        places.map(|at| format!("{}:{}: a path of somebody's machine", file.path, line_of(&file.text, at))).collect()
    };
    files.iter().flat_map(|file| -> Vec<String> { each(file) }).collect()
}

/// Each item under the heading ends in "— test `name`", or in several such names.
pub fn unheld_invariants(files: &[File]) -> Vec<String> {
    let Some(document) = files.iter().find(|file| file.path == ARCHITECTURE) else { return Vec::new() };
    let items = invariants(&document.text);
    if items.is_empty() {
        return vec![format!("{ARCHITECTURE}: nothing stands under {INVARIANTS}")];
    }
    let tests: BTreeSet<String> = files.iter().flat_map(tests_of).collect();
    let fault = |item: &String| {
        let Some((_, names)) = item.rsplit_once("— test") else { return Some(format!("no test holds: {item}")) };
        let quoted: Vec<&str> = names.split('`').skip(1).step_by(2).collect();
        let missing: Vec<&&str> = quoted.iter().filter(|name| !tests.contains(**name)).collect();
        let gone = || format!("there is no test {missing:?} for: {item}");
        (quoted.is_empty() || !missing.is_empty()).then(gone)
    };
    items.iter().filter_map(fault).map(|fault| format!("{ARCHITECTURE}: {fault}")).collect()
}

/// The items of the list under the heading, each on one line.
fn invariants(text: &str) -> Vec<String> {
    let lines = text.lines().skip_while(|line| *line != INVARIANTS).skip(1);
    let mut items: Vec<String> = Vec::new();
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        let numbered = line.split_once(". ").is_some_and(|(number, _)| number.parse::<u32>().is_ok());
        if line.starts_with("- ") || numbered {
            items.push(line.trim().to_owned());
        } else if let (Some(item), true) = (items.last_mut(), line.starts_with(' ')) {
            item.push(' ');
            item.push_str(line.trim());
        }
    }
    items
}

/// The functions that are tests: those with a test attribute, those inside `proptest!`, which have theirs inside, and the
/// cases that a suite of the conformance ring lists, each on a line of its own; without such a function it wouldn't
/// compile.
fn tests_of(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.code.lines().collect();
    let is_name = |name: &&str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    let listed = file.path.starts_with(SUITES).then(|| lines.iter().filter_map(|line| line.trim().strip_suffix(',')));
    let cases = listed.into_iter().flatten().filter(is_name).map(str::to_owned);
    let is_test = |line: usize| {
        let above = lines[..line - 1].iter().rev().map(|line| line.trim());
        let mut attributes = above.take_while(|line| line.starts_with("#["));
        attributes.any(|attribute| attribute.contains("test"))
    };
    let functions = file.functions().into_iter().filter(|function| is_test(function.line));
    functions.map(|function| function.name).chain(cases).collect()
}

pub fn lonely_migrations(files: &[File]) -> Vec<String> {
    let mut numbers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("migrations/") && has_ending(&file.path, "sql")) {
        let mut parts = file.path.split('/').skip(1);
        if let (Some(database), Some(name), None) = (parts.next(), parts.next(), parts.next()) {
            let number = name.split('_').next().unwrap_or_default();
            if !numbers.entry(database).or_default().insert(number) {
                faults.push(format!("{}: its number is taken", file.path));
            }
        } else {
            faults.push(format!("{}: stands where no migration does", file.path));
        }
    }
    let all: BTreeSet<&str> = numbers.values().flatten().copied().collect();
    for (database, found) in &numbers {
        let missing = all.difference(found);
        faults.extend(missing.map(|number| format!("migrations/{database}: has no twin of {number}")));
    }
    faults
}

/// A path with a slash and an ending of ours, between backquotes in a comment or a document, leads somewhere.
pub fn dangling_files(files: &[File]) -> Vec<String> {
    let known = |path: &str| files.iter().any(|file| file.path == path || file.path.ends_with(&format!("/{path}")));
    let is_path = |text: &str| {
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        plain && text.contains('/') && [".rs", ".sql", ".toml"].iter().any(|ending| text.ends_with(ending))
    };
    let each = |file: &File| {
        let quoted = file
            .text
            .lines()
            .enumerate()
            .filter(|(_, line)| is_prose(file, line))
            .flat_map(|(number, line)| line.split('`').skip(1).step_by(2).map(move |text| (number + 1, text)));
        let dangling = quoted.filter(|(_, text)| is_path(text) && !text.starts_with('/') && !known(text));
        dangling.map(|(line, text)| format!("{}:{line}: there is no {text}", file.path)).collect::<Vec<_>>()
    };
    files.iter().flat_map(each).collect()
}

fn is_prose(file: &File, line: &str) -> bool {
    has_ending(&file.path, "md") || (file.is_rust() && line.trim_start().starts_with("//"))
}
