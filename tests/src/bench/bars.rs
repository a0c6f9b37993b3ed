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
];

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
