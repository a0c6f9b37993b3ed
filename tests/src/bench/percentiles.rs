//! Percentiles of durations, exact: the nearest rank among all samples. Of fewer samples than a percentile can tell apart it
//! is the longest one.

use std::time::Duration;

use super::results::Results;

/// How many thousandths of the samples are no longer than it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percentile {
    per_mille: usize,
    name: &'static str,
}

pub const P50: Percentile = Percentile { per_mille: 500, name: "p50" };
pub const P99: Percentile = Percentile { per_mille: 990, name: "p99" };
pub const P99_9: Percentile = Percentile { per_mille: 999, name: "p99.9" };

/// Durations of one kind.
#[derive(Debug, Clone, Default)]
pub struct Samples(Vec<Duration>);

impl Samples {
    /// The shortest of them that so many are no longer than.
    ///
    /// # Panics
    /// When there are none.
    pub fn at(&self, percentile: Percentile) -> Duration {
        assert!(!self.0.is_empty(), "nothing was measured");
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percentile.per_mille).div_ceil(1000);
        sorted[rank.max(1) - 1]
    }

    /// Adds each of these percentiles to the results, in milliseconds.
    pub fn add_to(&self, results: &mut Results, scenario: &'static str, what: &str, percentiles: &[Percentile]) {
        for percentile in percentiles {
            let milliseconds = self.at(*percentile).as_secs_f64() * 1000.0;
            results.add(scenario, &format!("{what}, {}", percentile.name), "ms", milliseconds);
        }
    }
}

impl FromIterator<Duration> for Samples {
    fn from_iter<I: IntoIterator<Item = Duration>>(durations: I) -> Self {
        Self(durations.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::results::Results;
    use super::{P50, P99, P99_9, Samples};

    /// So many samples: 1 ms, 2 ms and so on, the longest first.
    fn samples(count: u64) -> Samples {
        (1..=count).rev().map(Duration::from_millis).collect()
    }

    #[test]
    fn a_percentile_is_the_sample_at_the_nearest_rank() {
        let of = |count, percentile| samples(count).at(percentile).as_millis();
        assert_eq!([of(1, P50), of(2, P50), of(3, P50), of(1000, P50)], [1, 1, 2, 500]);
        assert_eq!([of(100, P99), of(101, P99), of(1000, P99), of(1001, P99)], [99, 100, 990, 991]);
        assert_eq!([of(1000, P99_9), of(2000, P99_9)], [999, 1998]);
    }

    #[test]
    fn of_too_few_samples_it_is_the_longest() {
        assert_eq!(samples(20).at(P99_9), samples(20).at(P99));
        assert_eq!(samples(20).at(P99).as_millis(), 20);
    }

    #[test]
    fn percentiles_are_told_in_milliseconds() {
        let mut results = Results::default();
        samples(100).add_to(&mut results, "latency", "answer", &[P50, P99]);
        assert_eq!(results.median("latency", "answer, p50"), Some(50.0));
        assert_eq!(results.median("latency", "answer, p99"), Some(99.0));
    }
}
