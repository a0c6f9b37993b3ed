//! `windlass config check`: every mistake in the file and the environment, or each setting as it counts.

use std::path::Path;

use serde_json::{Value, json};

use shared::bus::nats;
use shared::settings::Settings;

use super::mistake::{Mistake, Place};
use super::table::{Kind, Role, SETTINGS, Setting};
use super::{Environment, Sources, warnings};
use crate::args::api::Output;
use crate::args::config::CheckArgs;
use crate::client;
use crate::cluster;
use crate::database;
use crate::exit::{self, Error};
use crate::table::layout;
use crate::terminal::{escaped, print, say, width};
use crate::trust;

/// What was found.
struct Report {
    mistakes: Vec<Mistake>,
    warnings: Vec<String>,
    settings: Vec<Effective>,
}

/// A setting as it counts.
struct Effective {
    setting: &'static Setting,
    /// As it may be shown.
    value: String,
    from: String,
}

/// Prints what is found, and returns the code to end with.
///
/// # Errors
/// When standard output can't be written.
pub fn check(args: &CheckArgs, flag: Option<&Path>, environment: Environment) -> Result<u8, Error> {
    let names = std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
    let report = examine(args.role, flag, environment, names);
    match args.output {
        Output::Json => print(&format!("{}\n", document(&report)))?,
        Output::Table => {
            for warning in &report.warnings {
                say(warning);
            }
            print(&text(&report))?;
        }
    }
    Ok(if report.mistakes.is_empty() { 0 } else { exit::FAILED })
}

fn examine(
    role: Option<Role>,
    flag: Option<&Path>,
    environment: Environment,
    names: impl Iterator<Item = String>,
) -> Report {
    let (sources, mut mistakes) = Sources::load(flag, environment);
    let lookup = |name: &str| sources.text(name);
    let settings = Settings::new(&lookup);
    let concerned = || SETTINGS.iter().filter(|setting| role.is_none_or(|role| setting.roles.contains(&role)));
    for setting in concerned() {
        if let Some(mistake) = mistaken(setting, &sources, &settings) {
            mistakes.push(mistake);
        }
    }
    for error in role.map(|role| combined(role, &settings)).into_iter().flatten() {
        let line = error.to_string();
        let (name, detail) = line.split_once(": ").unwrap_or(("", &line));
        // A flag may stand behind the name.
        let mistake = sources.blame(name.split(' ').next().unwrap_or(name), detail);
        let known = |other: &Mistake| (&other.place, &other.key) == (&mistake.place, &mistake.key);
        if !mistakes.iter().any(known) {
            mistakes.push(mistake);
        }
    }
    let settings = concerned().map(|setting| effective(setting, &sources)).collect();
    Report { mistakes, warnings: warnings(names), settings }
}

/// What is wrong with a setting by itself, beyond what was found in the file.
fn mistaken(setting: &Setting, sources: &Sources, settings: &Settings) -> Option<Mistake> {
    let fault = if setting.is_secret() {
        match settings.secret(setting.name) {
            Err(fault) => return Some(sources.blame(&fault.name, &fault.detail)),
            Ok(text) => (setting.check)(&text?),
        }
    } else {
        (setting.check)(&sources.variable(setting.name)?)
    };
    fault.err().map(|detail| sources.blame(setting.name, &detail))
}

/// What is missing for a role, and what doesn't go together there.
fn combined(role: Role, settings: &Settings) -> Vec<Error> {
    let checks = match role {
        Role::Coordinator => cluster::coordinator::faults(settings),
        Role::Worker => vec![cluster::worker::joined(settings), trust::authorities(None, settings).map(drop)],
        Role::Dev => vec![database::of_dev(settings).map(drop)],
        Role::Client => vec![client::named(settings)],
        Role::Run => Vec::new(),
        Role::Migrate => vec![database::of_cluster("migrate", settings).map(drop)],
    };
    checks.into_iter().filter_map(Result::err).collect()
}

fn effective(setting: &'static Setting, sources: &Sources) -> Effective {
    let variable =
        [setting.name.to_owned(), setting.variable()].into_iter().find(|name| sources.variable(name).is_some());
    let (text, from) = match (&variable, sources.entry(&setting.variable())) {
        (Some(name), _) => (sources.variable(name), format!("environment, {name}")),
        (None, Some(entry)) => {
            let place = Place::File { path: sources.file.path.clone(), line: Some(entry.line) };
            (Some(entry.text.clone()), place.to_string())
        }
        (None, None) => (None, "default".to_owned()),
    };
    let value = match (text, setting.kind) {
        (Some(_), Kind::Secret) => "set".to_owned(),
        (Some(text), Kind::Servers) => nats::shown(&text),
        (Some(text), _) => text,
        (None, _) if setting.default.is_empty() => "not set".to_owned(),
        (None, _) => setting.default.replace('`', ""),
    };
    Effective { setting, value, from }
}

fn text(report: &Report) -> String {
    if report.mistakes.is_empty() {
        let row = |found: &Effective| {
            let value = escaped(&found.value).into_owned();
            [found.setting.key().trim_end_matches("_file").to_owned(), value, found.from.clone()]
        };
        let rows: Vec<_> = report.settings.iter().map(row).collect();
        return layout(["SETTING", "VALUE", "FROM"], &rows, width());
    }
    let line = |mistake: &Mistake| format!("{}\n", escaped(&mistake.to_string()));
    report.mistakes.iter().map(line).collect()
}

fn document(report: &Report) -> Value {
    let mistake = |mistake: &Mistake| {
        let file = match &mistake.place {
            Place::File { path, .. } => Some(path.display().to_string()),
            Place::Environment => None,
        };
        json!({"file": file, "line": mistake.place.line(), "key": mistake.key, "detail": mistake.detail})
    };
    let setting = |found: &Effective| {
        let Setting { name, roles, is, .. } = found.setting;
        json!({"variable": name, "value": found.value, "from": found.from, "for": roles, "is": is})
    };
    json!({
        "mistakes": report.mistakes.iter().map(mistake).collect::<Vec<_>>(),
        "warnings": report.warnings,
        "settings": report.settings.iter().map(setting).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests;
