//! What the figures are aimed at: a first bar and a goal each. Ratios are between figures of the same run of the program.

use std::fmt;

use serde_json::{Value, json};

use super::results::{Results, short};

/// What is aimed at.
pub struct Bar {
    name: &'static str,
    unit: &'static str,
    /// Whether more is better.
    more: bool,
    /// None where the figure is only to be shown at first.
    first: Option<f64>,
    goal: f64,
    value: fn(&Results) -> Option<f64>,
}

/// A bar, and what was measured.
pub struct Measured {
    bar: &'static Bar,
    value: f64,
}

const BARS: &[Bar] = &[
    Bar {
        name: "throughput, as a share of `floor`",
        unit: "",
        more: true,
        first: Some(0.25),
        goal: 0.5,
        value: |results| ratio(results, ("throughput", "jobs"), ("floor", "jobs")),
    },
    Bar {
        name: "throughput against Graphile Worker unbatched",
        unit: "×",
        more: true,
        first: Some(1.5),
        goal: 3.0,
        value: |results| ratio(results, ("throughput", "jobs"), ("peers", "Graphile Worker, unbatched")),
    },
    Bar {
        name: "throughput against Graphile Worker batched",
        unit: "×",
        more: true,
        first: None,
        goal: 0.3,
        value: |results| ratio(results, ("throughput", "jobs"), ("peers", "Graphile Worker, batched")),
    },
    Bar {
        name: "CPU seconds per 1,000 jobs, all processes together",
        unit: "s",
        more: false,
        first: Some(0.5),
        goal: 0.25,
        value: |results| results.median("throughput", "CPU, all processes"),
    },
    Bar {
        name: "submit → started, p50 at 50 jobs/s",
        unit: "ms",
        more: false,
        first: Some(6.0),
        goal: 4.0,
        value: |results| results.median("latency", "submit → started at 50/s, p50"),
    },
    Bar {
        name: "submit → started, p99 at 50 jobs/s",
        unit: "ms",
        more: false,
        first: Some(20.0),
        goal: 10.0,
        value: |results| results.median("latency", "submit → started at 50/s, p99"),
    },
    Bar {
        name: "cancel committed, p99, 100 in flight under load",
        unit: "ms",
        more: false,
        first: Some(10.0),
        goal: 5.0,
        value: |results| results.median("cancel", "committed, 100 in flight, p99"),
    },
    Bar {
        name: "cancel → process gone, grace 0, p99, one in flight",
        unit: "ms",
        more: false,
        first: Some(50.0),
        goal: 20.0,
        value: |results| results.median("cancel", "process gone, 1 in flight, p99"),
    },
    Bar {
        name: "cancel → process gone, grace 0, p99, 100 in flight",
        unit: "ms",
        more: false,
        first: Some(50.0),
        goal: 20.0,
        value: |results| results.median("cancel", "process gone, 100 in flight, p99"),
    },
    Bar {
        name: "cancel of 10,000 queued by filter",
        unit: "s",
        more: false,
        first: Some(2.0),
        goal: 0.5,
        value: |results| results.median("cancel", "10,000 queued jobs by filter"),
    },
    Bar {
        name: "throughput with 1,000,000 queued against empty",
        unit: "",
        more: true,
        first: Some(0.9),
        goal: 0.95,
        value: |results| {
            million(results)?;
            ratio(results, ("backlog", "throughput, filled"), ("backlog", "throughput, empty"))
        },
    },
    Bar {
        name: "coordinator's memory with 1,000,000 queued",
        unit: "MB",
        more: false,
        first: Some(400.0),
        goal: 150.0,
        value: |results| {
            million(results)?;
            let memory = |when: &str| results.median("backlog", &format!("memory, coordinator, {when}"));
            Some(memory("filled")?.max(memory("filled, after a restart")?))
        },
    },
    Bar {
        name: "takeover after SIGKILL",
        unit: "s",
        more: false,
        first: Some(5.0),
        goal: 3.5,
        value: |results| results.median("takeover", "SIGKILL until a command is served"),
    },
    Bar {
        name: "handover at SIGTERM",
        unit: "s",
        more: false,
        first: Some(0.5),
        goal: 0.1,
        value: |results| results.median("takeover", "SIGTERM, the longest time without a command served"),
    },
];

/// Something, if a million jobs wait in `backlog`: fewer say nothing about its bars.
fn million(results: &Results) -> Option<()> {
    results.median("backlog", "jobs that wait").filter(|jobs| *jobs >= 1e6).map(drop)
}

fn ratio(results: &Results, of: (&str, &str), to: (&str, &str)) -> Option<f64> {
    Some(results.median(of.0, of.1)? / results.median(to.0, to.1)?)
}

/// The bars for which everything was measured.
pub fn measured(results: &Results) -> Vec<Measured> {
    BARS.iter().filter_map(|bar| Some(Measured { bar, value: (bar.value)(results)? })).collect()
}

impl Measured {
    fn reached(&self) -> &'static str {
        let meets = |limit: f64| if self.bar.more { self.value >= limit } else { self.value <= limit };
        match (meets(self.bar.goal), self.bar.first.map(meets)) {
            (true, _) => "goal",
            (false, Some(true)) => "first bar",
            (false, Some(false)) => "missed",
            (false, None) => "shown",
        }
    }

    /// It for programs.
    pub fn json(&self) -> Value {
        let Bar { name, unit, first, goal, .. } = self.bar;
        json!({"bar": name, "unit": unit, "value": self.value, "first": first, "goal": goal, "reached": self.reached()})
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Bar { name, unit, more, first, goal, .. } = self.bar;
        let sign = if *more { "≥" } else { "≤" };
        let (value, reached) = (short(self.value), self.reached());
        let first = first.map_or_else(|| "shown".to_owned(), |first| format!("{sign} {first}"));
        write!(f, "| {name} | {value} {unit} | {first} | {sign} {goal} | {reached} |")
    }
}
