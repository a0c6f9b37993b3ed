//! `chaos`: breaks a cluster of real processes in every way that its schedule knows, and judges what came of it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tests::build;
use tests::chaos::arena;
use tests::chaos::run::{self, Round};
use tests::chaos::schedule::Size;

const EXAMPLES: &str = "\
Examples:
  An hour, in rounds of two minutes, each with a seed and a cluster of its own:
    cargo run --release -p tests --bin chaos -- --minutes 60 --seed 1
  One round again, as a failing one is reported:
    cargo run --release -p tests --bin chaos -- --seconds 120 --seed 17
  What that round would do, and nothing done:
    cargo run --release -p tests --bin chaos -- --seconds 120 --seed 17 --schedule
  A round that is over, judged again:
    cargo run --release -p tests --bin chaos -- --judge target/chaos/seed-17/history.json

It ends with 0 when no promise was broken, with 1 when one was, and with 2 when it couldn't be carried out.";

/// Kill, stop, cut off and confuse a cluster of real processes under a load, and judge what came of it.
#[derive(Parser)]
#[command(after_help = EXAMPLES)]
struct Arguments {
    /// The first round's seed; each further round has the next one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long in all, in minutes
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: Option<u64>,
    /// How long in all, in seconds [default: 40]
    #[arg(long, value_parser = clap::value_parser!(u64).range(5..=600_000))]
    seconds: Option<u64>,
    /// How long a round lasts at most, in seconds; the way to a calm end and the judging come on top
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(u64).range(5..=3_600))]
    round: u64,
    /// How many coordinators there are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    coordinators: u8,
    /// How many workers there are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    workers: u8,
    /// How many jobs are submitted a second
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    jobs_per_second: u32,
    /// Where a round that found something leaves its history and the logs of all processes
    #[arg(long, default_value = "target/chaos", value_name = "DIR")]
    keep: PathBuf,
    /// Keep those of every round
    #[arg(long)]
    keep_all: bool,
    /// Print what would go wrong and when, and do nothing
    #[arg(long)]
    schedule: bool,
    /// Judge a history that was kept, and do nothing else
    #[arg(long, value_name = "FILE", conflicts_with_all = ["minutes", "seconds", "schedule"])]
    judge: Option<PathBuf>,
}

impl Arguments {
    /// The rounds, as long as asked for in all.
    fn rounds(&self) -> Vec<Round> {
        let seconds = self.minutes.map(|minutes| minutes * 60).or(self.seconds).unwrap_or(40);
        let size = Size { coordinators: self.coordinators.into(), workers: self.workers.into() };
        let lengths = (0..seconds).step_by(usize::try_from(self.round).unwrap_or(usize::MAX));
        let round = |(seed, begun): (u64, u64)| Round {
            seed,
            lasts: Duration::from_secs(self.round.min(seconds - begun)),
            size,
            jobs_per_second: self.jobs_per_second,
            keep: self.keep.join(format!("seed-{seed}")),
            keep_all: self.keep_all,
        };
        (self.seed..).zip(lengths).map(round).collect()
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(path) = &arguments.judge {
        return run::judge_again(path);
    }
    let rounds = arguments.rounds();
    if arguments.schedule {
        rounds.iter().for_each(run::print_schedule);
        return ExitCode::SUCCESS;
    }
    if let Err(error) = build::program("windlass", &[]) {
        eprintln!("chaos: {error}");
        return ExitCode::from(run::NOT_DONE);
    }
    // Before there is a second thread: a mount is then gone with this process.
    arena::own_mounts();
    run::all(&rounds)
}
