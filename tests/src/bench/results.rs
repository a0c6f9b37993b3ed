//! What was measured: a table for people, JSON for programs.

use std::fmt::Write;

use serde_json::{Value, json};

use super::bars;
use super::machine;

/// What a scenario has measured, one value a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub scenario: &'static str,
    pub name: String,
    pub unit: &'static str,
    pub values: Vec<f64>,
}

/// Everything that was measured in one run of the program.
#[derive(Debug, Default)]
pub struct Results {
    figures: Vec<Figure>,
    skipped: Vec<String>,
}

impl Figure {
    /// The middle one of the values; of an even number the mean of the two middle ones.
    pub fn median(&self) -> f64 {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            count if count % 2 == 0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        }
    }

    fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

impl Results {
    /// One more value of a figure.
    pub fn add(&mut self, scenario: &'static str, name: &str, unit: &'static str, value: f64) {
        println!("{scenario}: {name}: {} {unit}", short(value));
        let known = self.figures.iter_mut().find(|figure| figure.scenario == scenario && figure.name == name);
        match known {
            Some(figure) => figure.values.push(value),
            None => self.figures.push(Figure { scenario, name: name.to_owned(), unit, values: vec![value] }),
        }
    }

    /// Something can't be measured here, and why.
    pub fn skip(&mut self, what: &str, why: &str) {
        println!("SKIPPED: {what}: {why}");
        self.skipped.push(format!("{what}: {why}"));
    }

    /// The median of that figure, if it was measured.
    pub fn median(&self, scenario: &str, name: &str) -> Option<f64> {
        let figure = self.figures.iter().find(|figure| figure.scenario == scenario && figure.name == name);
        figure.map(Figure::median)
    }

    /// The machine, every figure and how far each bar is reached, as Markdown.
    pub fn table(&self) -> String {
        let mut text = format!("{}\n\n| benchmark | figure | median | least | most | unit |\n", machine::described());
        text.push_str("|---|---|---:|---:|---:|---|\n");
        for figure in &self.figures {
            let Figure { scenario, name, unit, .. } = figure;
            let [median, least, most] = [figure.median(), figure.least(), figure.most()].map(short);
            let _ = writeln!(text, "| {scenario} | {name} | {median} | {least} | {most} | {unit} |");
        }
        for skipped in &self.skipped {
            let _ = writeln!(text, "\nSkipped: {skipped}");
        }
        let bars = bars::measured(self);
        if !bars.is_empty() {
            text.push_str("\n| bar | measured | first bar | goal | |\n|---|---:|---:|---:|---|\n");
            for bar in bars {
                let _ = writeln!(text, "{bar}");
            }
        }
        text
    }

    /// The same for programs.
    pub fn json(&self, command: &str) -> Value {
        let figure = |figure: &Figure| {
            let Figure { scenario, name, unit, values } = figure;
            json!({"benchmark": scenario, "figure": name, "unit": unit, "median": figure.median(), "values": values})
        };
        let bars: Vec<Value> = bars::measured(self).iter().map(bars::Measured::json).collect();
        json!({
            "machine": machine::facts(),
            "command": command,
            "figures": self.figures.iter().map(figure).collect::<Vec<_>>(),
            "bars": bars,
            "skipped": self.skipped,
        })
    }
}

/// A number with three digits that matter.
pub fn short(value: f64) -> String {
    let magnitude = value.abs();
    if magnitude >= 100.0 {
        format!("{value:.0}")
    } else if magnitude >= 10.0 {
        format!("{value:.1}")
    } else if magnitude >= 1.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::{Results, short};

    #[test]
    fn the_median_is_the_middle_of_the_runs() {
        let mut results = Results::default();
        for value in [3.0, 1.0, 2.0] {
            results.add("throughput", "jobs", "jobs/s", value);
        }
        assert_eq!(results.median("throughput", "jobs"), Some(2.0));
        results.add("throughput", "jobs", "jobs/s", 5.0);
        assert_eq!(results.median("throughput", "jobs"), Some(2.5));
        assert_eq!(results.median("throughput", "others"), None);
        assert!(results.table().contains("| throughput | jobs | 2.50 | 1.00 | 5.00 | jobs/s |"), "{}", results.table());
        assert_eq!(results.json("bench")["figures"][0]["median"], 2.5);
    }

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!([1234.5, 12.345, 1.2345, 0.12345].map(short), ["1234", "12.3", "1.23", "0.123"]);
    }
}
