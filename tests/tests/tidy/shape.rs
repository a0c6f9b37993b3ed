//! How files, functions, modules and waists look.

use super::source::{File, block_end, has_ending, line_of, words};

/// A hard stop; most files have about 120 lines.
const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
/// The most methods of each waist.
const WAISTS: [(&str, &str, usize); 2] = [("coordinator/src/store.rs", "Store", 20), ("shared/src/bus.rs", "Bus", 12)];
/// Names that say nothing, and the file that has the directory's name instead of its own.
const DRAWERS: [&str; 11] =
    ["mod", "util", "utils", "common", "helper", "helpers", "misc", "types", "models", "shared_types", "utilities"];
/// What is written by hand, line by line.
const WRITTEN: [&str; 6] = ["rs", "sql", "sh", "js", "css", "html"];

pub fn long_files(files: &[File]) -> Vec<String> {
    let written = files.iter().filter(|file| WRITTEN.iter().any(|ending| has_ending(&file.path, ending)));
    let long = written.map(|file| (file, file.text.lines().count())).filter(|(_, lines)| *lines > FILE_LINES_MAX);
    long.map(|(file, lines)| format!("{}: {lines} lines", file.path)).collect()
}

pub fn long_functions(files: &[File]) -> Vec<String> {
    let each = |file: &File| {
        let long = file.functions().into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX);
        long.map(|f| format!("{}:{}: {} has {} lines", file.path, f.line, f.name, f.lines)).collect::<Vec<_>>()
    };
    files.iter().flat_map(each).collect()
}

pub fn drawers(files: &[File]) -> Vec<String> {
    let named = |file: &&File| {
        let parts = file.path.strip_suffix(".rs").unwrap_or(&file.path).split('/');
        parts.into_iter().any(|part| DRAWERS.contains(&part))
    };
    let inline = |file: &File| {
        let declared = words(&file.code, "mod").into_iter().map(|at| file.code[at + 3..].trim_start());
        let bad = declared.filter(|rest| DRAWERS.iter().any(|name| words(rest, name).first() == Some(&0)));
        bad.map(|rest| format!("{}: mod {}", file.path, rest.split([' ', ';']).next().unwrap_or_default())).collect()
    };
    let rust = || files.iter().filter(|file| file.is_rust());
    let modules = rust().filter(named).map(|file| format!("{}: its name is a drawer's", file.path));
    modules.chain(rust().flat_map(|file| -> Vec<String> { inline(file) })).collect()
}

pub fn headless_files(files: &[File]) -> Vec<String> {
    let headless = files.iter().filter(|file| file.is_rust() && !file.text.starts_with("//! "));
    headless.map(|file| format!("{}: doesn't open with //!", file.path)).collect()
}

pub fn leftovers(files: &[File]) -> Vec<String> {
    let notes = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let macros = ["todo!", "unimplemented!", "dbg!"];
    let each = |file: &File| {
        let written =
            notes.iter().flat_map(|note| words(&file.text, note).into_iter().map(|at| line_of(&file.text, at)));
        let called = macros.iter().flat_map(|name| words(&file.code, name)).map(|at| line_of(&file.code, at));
        written.chain(called).map(|line| format!("{}:{line}: left for later", file.path)).collect::<Vec<_>>()
    };
    files.iter().filter(|file| !has_ending(&file.path, "lock")).flat_map(each).collect()
}

pub fn allowed_lints(files: &[File]) -> Vec<String> {
    let each = |file: &File| {
        let places = file.code.match_indices("[allow(").map(|(at, _)| line_of(&file.code, at));
        places.map(|line| format!("{}:{line}: allow", file.path)).collect::<Vec<_>>()
    };
    files.iter().flat_map(each).collect()
}

pub fn wide_waists(files: &[File]) -> Vec<String> {
    let each = |(path, name, most): (&str, &str, usize)| {
        let file = files.iter().find(|file| file.path == path)?;
        let declared = format!("pub trait {name}");
        let Some(start) = words(&file.code, &declared).first().copied() else {
            return Some(format!("{path}: no trait {name}"));
        };
        let open = start + file.code[start..].find('{')?;
        let methods = words(&file.code[open..block_end(&file.code, open)], "fn").len();
        (methods > most).then(|| format!("{path}: {name} has {methods} methods, {most} at most"))
    };
    WAISTS.into_iter().filter_map(each).collect()
}
