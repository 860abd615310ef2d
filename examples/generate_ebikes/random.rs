//! Random numbers that stay the same for a seed, whatever the version of any crate: a hash of a counter.

use xxhash_rust::xxh3::xxh3_64_with_seed;

pub struct Random {
    seed: u64,
    drawn: u64,
}

impl Random {
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    /// At least 0, less than 1.
    pub fn unit(&mut self) -> f64 {
        self.drawn += 1;
        (xxh3_64_with_seed(&self.drawn.to_le_bytes(), self.seed) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// At least `low`, less than `high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + (self.unit() * (high - low) as f64) as i64
    }

    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.between(0, from.len() as i64) as usize]
    }

    /// An index, as likely as its weight.
    pub fn weighted(&mut self, weights: &Weights) -> usize {
        let at = self.unit() * weights.total();
        weights.sums.partition_point(|sum| *sum <= at).min(weights.sums.len() - 1)
    }
}

/// Weights, summed up so that drawing takes a binary search.
pub struct Weights {
    sums: Vec<f64>,
}

impl Weights {
    pub fn new(weights: impl IntoIterator<Item = f64>) -> Self {
        let running = |sum: &mut f64, weight: f64| {
            *sum += weight;
            Some(*sum)
        };
        Self { sums: weights.into_iter().scan(0.0, running).collect() }
    }

    fn total(&self) -> f64 {
        self.sums.last().copied().unwrap_or_default()
    }
}
