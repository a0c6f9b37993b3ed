//! `bench`: measures Windlass on this machine, beside the machine's own limit and what a user might pick instead.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::PossibleValuesParser;
use tests::bench::results::Results;
use tests::bench::{SCENARIOS, Settings, rig};
use tests::build;

const EXAMPLES: &str = "\
Examples:
  Everything that the README shows, the median of three runs each:
    cargo run --release -p tests --bin bench
  One benchmark, quickly:
    cargo run --release -p tests --bin bench -- throughput --runs 1 --jobs 5000
  Two that are compared, with the figures for a program:
    cargo run --release -p tests --bin bench -- throughput floor --json target/bench.json

Figures are only worth something on a machine that does nothing else.";

/// Measure Windlass on this machine
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// Which benchmarks to run [default: all]
    #[arg(value_parser = PossibleValuesParser::new(SCENARIOS.iter().map(|scenario| scenario.name)))]
    scenarios: Vec<String>,
    /// Say what each benchmark measures, and measure nothing
    #[arg(long)]
    list: bool,
    /// How often each figure is measured; the median counts
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    runs: u32,
    /// How many jobs go through their whole life in a run
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    jobs: u32,
    /// How many jobs wait in `backlog`
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1000..=100_000_000))]
    backlog: u32,
    /// How many jobs one request submits
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(1..=1000))]
    jobs_per_request: u32,
    /// How many requests are under way at once
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    connections: u32,
    /// How many slots the worker has
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=4096))]
    slots: u32,
    /// Write all figures to this file too, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        for scenario in SCENARIOS {
            println!("{:<12} {}", scenario.name, scenario.about);
        }
        return ExitCode::SUCCESS;
    }
    if let Err(error) = build::program(rig::PROGRAM, &["bench"]) {
        eprintln!("bench: {error}");
        return ExitCode::FAILURE;
    }
    if cfg!(debug_assertions) {
        eprintln!("bench: this is no release build: the figures say nothing (use cargo run --release)");
    }
    let settings = Settings {
        runs: arguments.runs,
        jobs: arguments.jobs,
        backlog: arguments.backlog,
        jobs_per_request: arguments.jobs_per_request,
        connections: arguments.connections,
        slots: arguments.slots,
    };
    let mut results = Results::default();
    for scenario in SCENARIOS {
        if arguments.scenarios.is_empty() || arguments.scenarios.iter().any(|name| name == scenario.name) {
            println!("== {}: {}", scenario.name, scenario.about);
            (scenario.run)(&settings, &mut results);
        }
    }
    println!("\n{}", results.table());
    let command = std::env::args().skip(1).collect::<Vec<_>>().join(" ");
    let json = results.json(&format!("bench {command}"));
    match arguments.json.map(|path| (fs::write(&path, format!("{json:#}\n")), path)) {
        Some((Err(error), path)) => {
            eprintln!("bench: {}: {error}", path.display());
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
