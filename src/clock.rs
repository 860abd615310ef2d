//! Where the time comes from. Everything that stamps or compares times takes a [`Clock`], so that tests can hold it still.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use chrono::{DateTime, SubsecRound, TimeDelta, Utc};

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

/// A clock that stands still until it is moved; its clones are one clock.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub fn new(now: DateTime<Utc>) -> Self {
        Self(Arc::new(AtomicI64::new(now.timestamp_micros())))
    }

    pub fn set(&self, now: DateTime<Utc>) {
        self.0.store(now.timestamp_micros(), Ordering::SeqCst);
    }

    /// Moves it, forwards or back.
    pub fn advance(&self, by: TimeDelta) {
        self.0.fetch_add(by.num_microseconds().unwrap_or(0), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::SeqCst)).unwrap_or_default()
    }
}

/// The clock of this process: the machine's.
///
/// With the feature `failpoints`, `CLOUD_CONNECT_CLOCK_FILE` may name a file with an RFC 3339 time, which then is the
/// time for as long as the file says so: a test holds the clock of the program that it drives.
pub fn of_process() -> Arc<dyn Clock> {
    #[cfg(feature = "failpoints")]
    if let Some(file) = std::env::var_os("CLOUD_CONNECT_CLOCK_FILE") {
        return Arc::new(file_clock::FileClock::new(file.into()));
    }
    Arc::new(SystemClock)
}

#[cfg(feature = "failpoints")]
mod file_clock {
    use super::{Clock, DateTime, ManualClock, Utc};

    /// Reads a file each time. While it cannot be read (it is being written) the last time stands.
    #[derive(Debug)]
    pub(super) struct FileClock {
        file: std::path::PathBuf,
        last: ManualClock,
    }

    impl FileClock {
        pub(super) fn new(file: std::path::PathBuf) -> Self {
            Self { file, last: ManualClock::new(DateTime::UNIX_EPOCH) }
        }
    }

    impl Clock for FileClock {
        fn now(&self) -> DateTime<Utc> {
            let text = std::fs::read_to_string(&self.file).unwrap_or_default();
            if let Ok(now) = text.trim().parse::<DateTime<Utc>>() {
                self.last.set(now);
            }
            self.last.now()
        }
    }
}
