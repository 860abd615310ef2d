//! How often something may happen: at most so many times in any stretch of time.
//!
//! A token bucket that admits ten at once and one more a second admits nineteen in the first ten seconds; where a limit
//! is promised as "ten in ten seconds", the times themselves are kept.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Times by key.
#[derive(Debug)]
pub struct Window {
    most: usize,
    within: Duration,
    times: Mutex<HashMap<String, VecDeque<Instant>>>,
}

impl Window {
    pub fn new(most: usize, within: Duration) -> Self {
        Self { most, within, times: Mutex::default() }
    }

    /// Counts one more for the key; refused, it says how long to wait.
    pub fn admit(&self, key: &str) -> Result<(), Duration> {
        self.admit_at(key, Instant::now())
    }

    fn admit_at(&self, key: &str, now: Instant) -> Result<(), Duration> {
        let mut all = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        // what is over is forgotten, so that the map holds no more keys than are in use
        all.retain(|_, times| {
            while times.front().is_some_and(|at| now.duration_since(*at) >= self.within) {
                times.pop_front();
            }
            !times.is_empty()
        });
        let times = all.entry(key.to_string()).or_default();
        if times.len() >= self.most {
            let oldest = times.front().copied().unwrap_or(now);
            return Err(self.within.saturating_sub(now.duration_since(oldest)));
        }
        times.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stretch_of_time_holds_more_than_was_promised() {
        let window = Window::new(3, Duration::from_secs(10));
        let start = Instant::now();
        let admit = |key: &str, second: u64| window.admit_at(key, start + Duration::from_secs(second));
        for second in [0, 2, 4] {
            assert_eq!(admit("a", second), Ok(()));
        }
        assert_eq!(admit("a", 6), Err(Duration::from_secs(4)));
        assert_eq!(admit("b", 6), Ok(()));
        assert_eq!(admit("a", 10), Ok(()));
        assert_eq!(admit("a", 10), Err(Duration::from_secs(2)));
    }
}
