//! A model's own small delay after its due time, so that a thousand hourly models do not start in one second.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use xxhash_rust::xxh3::xxh3_64;

use crate::model::Schedule;

/// The most that a model waits after its due time, unless set otherwise.
pub const DEFAULT_JITTER: Duration = Duration::from_secs(60);

/// How long after `due` the model is queued: less than `most`, and less than a tenth of the time until the due time
/// after that. It depends on the slug alone, so it is the same each time and after a restart.
pub fn jitter(slug: &str, schedule: &Schedule, due: DateTime<Utc>, most: Duration) -> TimeDelta {
    let most = TimeDelta::from_std(most).unwrap_or(TimeDelta::zero());
    let tenth = (schedule.following(due, due) - due) / 10;
    let bound = most.min(tenth).num_microseconds().unwrap_or(0).max(0);
    // the hash as a fraction of 2^64, so that one model keeps its place among others whatever the bound
    let share = (u128::from(xxh3_64(slug.as_bytes())) * bound.unsigned_abs() as u128) >> 64;
    TimeDelta::microseconds(i64::try_from(share).unwrap_or(0))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn it_is_stable_bounded_and_spreads_a_thousand_models_over_the_minute() {
        let due: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        let hourly: Schedule = "every 1h".parse().unwrap();
        let mut seconds = [0; 60];
        for n in 0..1000 {
            let slug = format!("model_{n}");
            let delay = jitter(&slug, &hourly, due, DEFAULT_JITTER);
            assert_eq!(delay, jitter(&slug, &hourly, due + TimeDelta::hours(5), DEFAULT_JITTER));
            seconds[usize::try_from(delay.num_seconds()).unwrap()] += 1;
        }
        assert!(seconds.iter().all(|n| (3..40).contains(n)), "{seconds:?}");
    }

    #[test]
    fn it_is_below_a_tenth_of_the_interval_and_may_be_turned_off() {
        let due: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        for schedule in ["every 1m", "cron * * * * *"] {
            let schedule: Schedule = schedule.parse().unwrap();
            for n in 0..100 {
                assert!(jitter(&n.to_string(), &schedule, due, DEFAULT_JITTER) < TimeDelta::seconds(6));
            }
        }
        let daily: Schedule = "every 1d".parse().unwrap();
        assert_eq!(jitter("people", &daily, due, Duration::ZERO), TimeDelta::zero());
    }
}
