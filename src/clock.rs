//! Where the time comes from. Everything that stamps or compares times takes a [`Clock`], so that tests can hold it still.

use chrono::{DateTime, SubsecRound, Utc};

/// A source of the current time.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Now, in UTC, in whole microseconds (the resolution of every stored timestamp).
    fn now(&self) -> DateTime<Utc>;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
        Utc::now().trunc_subsecs(6)
    }
}
