//! The machine that was measured on.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};

/// The machine in a line.
pub fn described() -> String {
    let facts = facts();
    let fact = |name: &str| facts[name].as_str().unwrap_or("unknown").to_owned();
    format!(
        "{} CPUs ({}), {}, Linux {}, {}, {}, commit {}.",
        facts["cpus"],
        fact("cpu"),
        fact("memory"),
        fact("kernel"),
        fact("postgres"),
        fact("nats"),
        fact("commit"),
    )
}

/// What it is, and the versions of what ran.
pub fn facts() -> Value {
    json!({
        "cpus": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        "cpu": field("/proc/cpuinfo", "model name"),
        "memory": field("/proc/meminfo", "MemTotal").map(|total| format!("{} of memory", gib(&total))),
        "kernel": fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
        "postgres": crate::postgres::version(),
        "nats": crate::nats::Version::Installed.program().and_then(|path| said(Command::new(path).arg("--version"))),
        "commit": said(Command::new("git").args(["-C", env!("CARGO_MANIFEST_DIR"), "rev-parse", "--short", "HEAD"])),
    })
}

fn field(file: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn gib(kib: &str) -> String {
    let kib: f64 = kib.trim_end_matches("kB").trim().parse().unwrap_or_default();
    format!("{:.0} GiB", kib / 1024.0 / 1024.0)
}

fn said(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
