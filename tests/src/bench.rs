//! Benchmarks of real processes on one machine, and what they are compared with.
//!
//! A scenario is a function that takes [`Settings`] and [`Results`], and adds one value to each of its figures a run. What is
//! compared is measured in one run of the program; [`bars`] says how far the figures are from what was aimed at. Nothing here is a
//! test: a figure never fails anything.

pub mod bars;
pub mod embedded;
pub mod floor;
pub mod load;
pub mod logs;
pub mod machine;
pub mod peers;
pub mod results;
pub mod rig;
pub mod throughput;
pub mod usage;

use results::Results;

/// How much is measured.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How often each figure is measured.
    pub runs: u32,
    /// How many jobs go through their whole life in a run.
    pub jobs: u32,
    /// How many jobs wait in `backlog`.
    pub backlog: u32,
    /// How many jobs one request submits.
    pub jobs_per_request: u32,
    /// How many requests are under way at once.
    pub connections: u32,
    /// How many slots the worker has.
    pub slots: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { runs: 3, jobs: 30_000, backlog: 1_000_000, jobs_per_request: 250, connections: 4, slots: 512 }
    }
}

/// One benchmark.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    /// What it measures, in a line.
    pub about: &'static str,
    pub run: fn(&Settings, &mut Results),
}

/// All of them, in the order in which they are run: what is compared with another comes after it.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "throughput",
        about: "no-op jobs through their whole life, on Postgres and NATS",
        run: throughput::run,
    },
    Scenario {
        name: "floor",
        about: "the machine's own limit: the same rows by the same statements, with nothing around them",
        run: floor::run,
    },
    Scenario {
        name: "peers",
        about: "what a user could pick instead: Graphile Worker and apalis, on Postgres",
        run: peers::run,
    },
    Scenario {
        name: "embedded",
        about: "no-op jobs through their whole life in one process, on SQLite",
        run: embedded::run,
    },
    Scenario { name: "logs", about: "what a step prints, masked and stored", run: logs::run },
];
