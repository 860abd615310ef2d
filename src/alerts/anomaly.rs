//! Is a number unlike those before it? Whole numbers throughout, so that a limit means exactly what it says.

use serde::{Deserialize, Serialize};

/// Fewer runs than this have no mean worth comparing with.
pub const LEAST_RUNS: usize = 3;
/// How many runs are looked back on, where the rule does not say.
pub const DEFAULT_RUNS: usize = 7;
/// The most that a rule may look back on.
pub const MAX_RUNS: usize = 100;

/// What a measure has to keep to. Sizes are in rows, change rates in millionths (1 % is 10,000).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub min: Option<u64>,
    pub max: Option<u64>,
    /// The farthest from the mean of the last runs, in hundredths of a per cent of that mean.
    pub variance: Option<u64>,
    /// How many runs the mean is of.
    pub runs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { min: None, max: None, variance: None, runs: DEFAULT_RUNS }
    }
}

/// The limit that a value broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breach {
    BelowMin(u64),
    AboveMax(u64),
    /// The mean (rounded to the nearest, halves up), and of how many runs.
    FarFromMean {
        mean: u64,
        runs: usize,
    },
}

impl Limits {
    /// The first limit that `value` breaks: the least, the most, the distance from the mean. `before`: the same measure
    /// of earlier runs, the newest first; no more than `runs` of them count.
    pub fn breach(&self, value: u64, before: &[u64]) -> Option<Breach> {
        if let Some(min) = self.min.filter(|min| value < *min) {
            return Some(Breach::BelowMin(min));
        }
        if let Some(max) = self.max.filter(|max| value > *max) {
            return Some(Breach::AboveMax(max));
        }
        let before = &before[..before.len().min(self.runs)];
        let variance = self.variance?;
        if before.len() < LEAST_RUNS {
            return None;
        }
        // |value - sum/n| > variance/10000 * sum/n, with both sides times 10000 n
        let n = before.len() as u128;
        let sum: u128 = before.iter().map(|v| u128::from(*v)).sum();
        let distance = (u128::from(value) * n).abs_diff(sum);
        let far = distance.saturating_mul(10_000) > sum.saturating_mul(u128::from(variance));
        far.then(|| Breach::FarFromMean { mean: ((2 * sum + n) / (2 * n)) as u64, runs: before.len() })
    }
}

/// Changes over rows, in millionths. Without rows, every change counts whole.
pub fn change_rate(changes: u64, rows: u64) -> u64 {
    match (changes, rows) {
        (0, _) => 0,
        (_, 0) => 1_000_000,
        _ => u64::try_from(u128::from(changes) * 1_000_000 / u128::from(rows)).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The rule as it is documented, in fractions: a number is a numerator and a denominator.
    fn oracle(value: u64, before: &[u64], runs: usize, percent_times_100: u64) -> bool {
        let used: Vec<i128> = before.iter().take(runs).map(|v| i128::from(*v)).collect();
        if used.len() < 3 {
            return false;
        }
        let (mean, n) = (used.iter().sum::<i128>(), used.len() as i128);
        let difference = (i128::from(value) * n - mean).abs(); // over n
        if mean == 0 {
            return difference != 0;
        }
        // difference / mean * 100 > percent
        difference * 100 * 100 > i128::from(percent_times_100) * mean
    }

    proptest! {
        #[test]
        fn the_distance_from_the_mean_is_judged_exactly(
            value in 0_u64..1 << 40, before in prop::collection::vec(0_u64..1 << 40, 0..20),
            runs in 3_usize..12, variance in 0_u64..30_000,
        ) {
            let limits = Limits { variance: Some(variance), runs, ..Limits::default() };
            prop_assert_eq!(limits.breach(value, &before).is_some(), oracle(value, &before, runs, variance));
        }

        #[test]
        fn a_value_at_the_very_limit_passes_and_one_beyond_does_not(mean in 1_u64..1 << 30, percent in 0_u64..100) {
            // a mean that the percentage divides: the limits are whole numbers
            let mean = mean * 100;
            let limits = Limits { variance: Some(percent * 100), ..Limits::default() };
            let before = [mean - 1, mean, mean + 1];
            let distance = mean / 100 * percent;
            prop_assert_eq!(limits.breach(mean + distance, &before), None);
            prop_assert_eq!(limits.breach(mean - distance, &before), None);
            prop_assert!(limits.breach(mean + distance + 1, &before).is_some());
            prop_assert!(limits.breach(mean - distance - 1, &before).is_some());
        }
    }

    #[test]
    fn min_and_max_belong_to_what_is_allowed() {
        let limits = Limits { min: Some(10), max: Some(20), ..Limits::default() };
        assert_eq!(limits.breach(9, &[]), Some(Breach::BelowMin(10)));
        assert_eq!(limits.breach(10, &[]), None);
        assert_eq!(limits.breach(20, &[]), None);
        assert_eq!(limits.breach(21, &[]), Some(Breach::AboveMax(20)));
    }

    #[test]
    fn fewer_than_three_runs_have_no_mean() {
        let limits = Limits { variance: Some(1000), ..Limits::default() };
        assert_eq!(limits.breach(1_000_000, &[1, 1]), None);
        assert_eq!(limits.breach(1_000_000, &[1, 1, 1]), Some(Breach::FarFromMean { mean: 1, runs: 3 }));
    }

    #[test]
    fn from_a_mean_of_zero_everything_is_far() {
        let limits = Limits { variance: Some(u64::MAX), ..Limits::default() };
        assert_eq!(limits.breach(0, &[0, 0, 0]), None);
        assert!(limits.breach(1, &[0, 0, 0]).is_some());
    }

    #[test]
    fn a_change_rate_is_in_millionths_of_the_rows() {
        assert_eq!(change_rate(1, 3), 333_333);
        assert_eq!(change_rate(30, 10), 3_000_000);
        assert_eq!(change_rate(0, 0), 0);
        assert_eq!(change_rate(5, 0), 1_000_000);
        assert_eq!(change_rate(u64::MAX, 1), u64::MAX);
    }
}
