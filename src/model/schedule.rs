//! When a model runs by itself.

use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};

use crate::config::suggest;

/// The shortest time between two runs.
pub const MIN_INTERVAL: Duration = Duration::from_secs(60);
/// The longest time between two runs: three weeks.
pub const MAX_INTERVAL: Duration = Duration::from_secs(21 * 24 * 3600);

/// When a model runs by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// `every 1h`; between one minute and three weeks.
    Every(Duration),
    /// A cron expression with an IANA time zone.
    Cron { expression: String, time_zone: Tz },
}

/// Why a text is not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("`{0}` is not a schedule")]
    Form(String),
    #[error("`{text}` is not a duration: {reason}")]
    Duration { text: String, reason: String },
    #[error("a model may run once a minute at most, and once in three weeks at least")]
    OutOfRange,
    #[error("`{expression}` is not a cron expression: {reason}")]
    Cron { expression: String, reason: String },
    #[error("`{0}` is not a time zone")]
    TimeZone(String),
}

impl ScheduleError {
    pub fn hint(&self) -> String {
        let text = match self {
            Self::TimeZone(name) => {
                let zones = chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
                if let Some(zone) = suggest::nearest(name, zones) {
                    return format!("did you mean `{zone}`?");
                }
                "use an IANA name such as `UTC`, `Europe/Berlin` or `America/New_York`"
            }
            Self::Form(_) => "write `every 1h`, or `cron 0 6 * * 1-5 Europe/Berlin`",
            Self::Duration { .. } => "for example `every 15m`, `every 1h`, `every 2d` or `every 1w`",
            Self::OutOfRange => "choose from `every 1m` to `every 3w`",
            Self::Cron { .. } => {
                "five fields: minute, hour, day of month, month, day of week; for example `0 6 * * 1-5`"
            }
        };
        text.to_string()
    }
}

impl Schedule {
    /// Every `text`, for example `15m`, `1h`, `2d`, `1w`.
    pub fn every(text: &str) -> Result<Self, ScheduleError> {
        let interval = humantime::parse_duration(text.trim())
            .map_err(|e| ScheduleError::Duration { text: text.trim().into(), reason: e.to_string() })?;
        if !(MIN_INTERVAL..=MAX_INTERVAL).contains(&interval) {
            return Err(ScheduleError::OutOfRange);
        }
        Ok(Self::Every(interval))
    }

    /// A cron expression of five fields, in that time zone (UTC when there is none).
    pub fn cron(expression: &str, time_zone: Option<&str>) -> Result<Self, ScheduleError> {
        let time_zone = match time_zone {
            Some(name) => name.trim().parse::<Tz>().map_err(|_| ScheduleError::TimeZone(name.trim().into()))?,
            None => Tz::UTC,
        };
        let expression = expression.split_whitespace().collect::<Vec<_>>().join(" ");
        let cron = parse_cron(&expression)?;
        if longest_gap_exceeds(&cron, time_zone, MAX_INTERVAL) {
            return Err(ScheduleError::OutOfRange);
        }
        Ok(Self::Cron { expression, time_zone })
    }

    /// When the model is due next. A time that is not after `now` means: due now, which is also what a model that
    /// never ran gets from `every`; runs that were missed count as one. `last` is when it was last due or started.
    ///
    /// Cron times are those of the wall clock: a fixed time that the spring change skips runs right after the gap, and
    /// one that the autumn change repeats runs once; `every` counts real time.
    pub fn next_after(&self, last: Option<DateTime<Utc>>, now: DateTime<Utc>) -> DateTime<Utc> {
        // a clock that was set back must not silence a model until the clock is there again
        let last = last.map(|last| last.min(now));
        match self {
            Self::Every(interval) => match (last, TimeDelta::from_std(*interval)) {
                (Some(last), Ok(interval)) => last + interval,
                _ => now,
            },
            Self::Cron { expression, time_zone } => {
                let from = last.unwrap_or(now).with_timezone(time_zone);
                parse_cron(expression)
                    .ok()
                    .and_then(|cron| cron.find_next_occurrence(&from, false).ok())
                    // an expression that never comes is refused by `cron`, so only one made by hand gets here
                    .map_or(DateTime::<Utc>::MAX_UTC, |next| next.with_timezone(&Utc))
            }
        }
    }

    /// The first time after `now` among those that follow the due time `due`: what was missed between the two counts
    /// as one, and `every` keeps its rhythm.
    pub fn following(&self, due: DateTime<Utc>, now: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Every(interval) => {
                let interval = TimeDelta::from_std(*interval).unwrap_or(TimeDelta::MAX);
                // intervals are a minute at least and weeks at most, so none of this overflows
                let behind = (now - due).num_microseconds().unwrap_or(0).max(0);
                let step = interval.num_microseconds().unwrap_or(i64::MAX).max(1);
                due + TimeDelta::microseconds((behind / step + 1).saturating_mul(step))
            }
            Self::Cron { .. } => {
                let next = self.next_after(Some(due), now.max(due));
                if next > now { next } else { self.next_after(Some(now), now) }
            }
        }
    }
}

/// `every 1h`, `cron 0 6 * * 1-5 Europe/Berlin`, or the five fields of a cron expression with or without a time zone.
impl FromStr for Schedule {
    type Err = ScheduleError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let fields = match words.as_slice() {
            ["every", rest @ ..] if !rest.is_empty() => return Self::every(&rest.join(" ")),
            ["cron", fields @ ..] => fields,
            fields => fields,
        };
        match fields {
            [_, _, _, _, _] => Self::cron(&fields.join(" "), None),
            [expression @ .., time_zone] if expression.len() == 5 => Self::cron(&expression.join(" "), Some(time_zone)),
            _ if words.first() == Some(&"cron") => {
                Err(ScheduleError::Cron { expression: fields.join(" "), reason: "it has to have five fields".into() })
            }
            _ => Err(ScheduleError::Form(text.trim().into())),
        }
    }
}

/// What [`Schedule::from_str`] reads.
impl std::fmt::Display for Schedule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Every(interval) => {
                write!(f, "every {}", humantime::format_duration(*interval).to_string().replace(' ', ""))
            }
            Self::Cron { expression, time_zone } => write!(f, "cron {expression} {time_zone}"),
        }
    }
}

fn parse_cron(expression: &str) -> Result<Cron, ScheduleError> {
    let reason = |reason: String| ScheduleError::Cron { expression: expression.into(), reason };
    if expression.split_whitespace().count() != 5 {
        return Err(reason("it has to have five fields".into()));
    }
    CronParser::builder()
        .seconds(Seconds::Disallowed)
        .year(Year::Disallowed)
        .build()
        .parse(expression)
        .map_err(|e| reason(e.to_string().trim_end_matches('.').to_string()))
}

/// Is there a longer time than `limit` between two occurrences within a leap year?
///
/// Looked for from each of its days: a longer gap than `limit` (which is longer than a day) holds the start of one.
fn longest_gap_exceeds(cron: &Cron, time_zone: Tz, limit: Duration) -> bool {
    // a clock change may make a gap an hour longer
    let limit = TimeDelta::from_std(limit).unwrap_or(TimeDelta::MAX) + TimeDelta::hours(1);
    let Some(start) = Utc.with_ymd_and_hms(2028, 1, 1, 0, 0, 0).single() else { return false };
    (0..366).any(|day| {
        let from = (start + TimeDelta::days(day)).with_timezone(&time_zone);
        match (cron.find_previous_occurrence(&from, true), cron.find_next_occurrence(&from, false)) {
            (Ok(previous), Ok(next)) => next - previous > limit,
            _ => true,
        }
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn next(schedule: &str, after: &str) -> DateTime<Utc> {
        schedule.parse::<Schedule>().unwrap().next_after(Some(utc(after)), utc("2030-01-01T00:00:00Z"))
    }

    #[test]
    fn every_accepts_one_minute_to_three_weeks() {
        for good in ["every 1m", "every 15m", "every 1h", "every 2d", "every 1w", "every 3w", "every 1h 30m"] {
            assert!(good.parse::<Schedule>().is_ok(), "{good}");
        }
        for bad in ["every 59s", "every 22d", "every 4w", "every 0s"] {
            assert_eq!(bad.parse::<Schedule>(), Err(ScheduleError::OutOfRange), "{bad}");
        }
        assert!(matches!("every hour".parse::<Schedule>(), Err(ScheduleError::Duration { .. })));
        assert!(matches!("hourly".parse::<Schedule>(), Err(ScheduleError::Form(_))));
        assert!(matches!("every".parse::<Schedule>(), Err(ScheduleError::Form(_))));
    }

    #[test]
    fn display_reads_back() {
        for text in ["every 15m", "every 1h", "every 7days", "every 1h30m", "cron 0 6 * * 1-5 Europe/Berlin"] {
            let schedule: Schedule = text.parse().unwrap();
            assert_eq!(schedule.to_string(), text);
            assert_eq!(schedule.to_string().parse::<Schedule>().unwrap(), schedule);
        }
        assert_eq!("0 6 * * 1-5".parse::<Schedule>().unwrap().to_string(), "cron 0 6 * * 1-5 UTC");
    }

    #[test]
    fn a_cron_expression_has_five_fields_a_known_zone_and_no_gap_beyond_three_weeks() {
        assert!("cron */15 * * * *".parse::<Schedule>().is_ok());
        assert!("cron 0 6 1,15 * * UTC".parse::<Schedule>().is_ok());
        assert!(matches!("cron 0 0 6 * * 1-5 UTC".parse::<Schedule>(), Err(ScheduleError::Cron { .. })));
        assert!(matches!("cron 61 * * * *".parse::<Schedule>(), Err(ScheduleError::Cron { .. })));
        assert_eq!(
            "cron 0 6 * * * Europe/Berlim".parse::<Schedule>(),
            Err(ScheduleError::TimeZone("Europe/Berlim".into()))
        );
        for rare in ["cron 0 0 1 * *", "cron 0 0 30 2 *", "cron 0 0 29 2 *", "cron 0 6 * 1-11 *"] {
            assert_eq!(rare.parse::<Schedule>(), Err(ScheduleError::OutOfRange), "{rare}");
        }
    }

    #[test]
    fn a_time_that_the_spring_change_skips_runs_right_after_the_gap() {
        // 2026-03-29, Berlin: 02:00 CET becomes 03:00 CEST, so 02:30 does not exist; 03:00 CEST is 01:00 UTC
        let schedule = "cron 30 2 * * * Europe/Berlin";
        assert_eq!(next(schedule, "2026-03-28T01:30:00Z"), utc("2026-03-29T01:00:00Z"));
        assert_eq!(next(schedule, "2026-03-29T01:00:00Z"), utc("2026-03-30T00:30:00Z"));
    }

    #[test]
    fn a_time_that_the_autumn_change_repeats_runs_once() {
        // 2026-10-25, Berlin: 03:00 CEST becomes 02:00 CET, so 02:30 comes at 00:30 and at 01:30 UTC
        let schedule = "cron 30 2 * * * Europe/Berlin";
        assert_eq!(next(schedule, "2026-10-24T00:30:00Z"), utc("2026-10-25T00:30:00Z"));
        assert_eq!(next(schedule, "2026-10-25T00:30:00Z"), utc("2026-10-26T01:30:00Z"));
    }

    #[test]
    fn a_daily_time_keeps_its_wall_clock_across_both_changes() {
        let schedule = "cron 0 6 * * * Europe/Berlin";
        assert_eq!(next(schedule, "2026-03-28T05:00:00Z"), utc("2026-03-29T04:00:00Z"));
        assert_eq!(next(schedule, "2026-10-24T04:00:00Z"), utc("2026-10-25T05:00:00Z"));
    }

    #[test]
    fn every_counts_real_time_and_a_new_model_is_due_at_once() {
        assert_eq!(next("every 1d", "2026-03-28T12:00:00Z"), utc("2026-03-29T12:00:00Z"));
        let hourly: Schedule = "every 1h".parse().unwrap();
        let now = utc("2026-01-01T00:00:00Z");
        assert_eq!(hourly.next_after(None, now), now);
        let daily: Schedule = "cron 0 6 * * *".parse().unwrap();
        assert_eq!(daily.next_after(None, now), utc("2026-01-01T06:00:00Z"));
    }

    #[test]
    fn what_was_missed_counts_as_one_and_every_keeps_its_rhythm() {
        let following =
            |schedule: &str, due: &str, now: &str| schedule.parse::<Schedule>().unwrap().following(utc(due), utc(now));
        let due = "2026-01-01T00:05:00Z";
        assert_eq!(following("every 1h", due, due), utc("2026-01-01T01:05:00Z"));
        assert_eq!(following("every 1h", due, "2026-01-01T07:30:00Z"), utc("2026-01-01T08:05:00Z"));
        assert_eq!(following("every 1h", due, "2026-01-01T08:05:00Z"), utc("2026-01-01T09:05:00Z"));
        assert_eq!(following("every 1h", due, "2025-06-01T00:00:00Z"), utc("2026-01-01T01:05:00Z"));
        assert_eq!(
            following("cron 0 6 * * *", "2026-01-01T06:00:00Z", "2026-01-09T07:00:00Z"),
            utc("2026-01-10T06:00:00Z")
        );
        // Berlin, 2026-10-25: 02:30 comes twice and counts once
        let berlin = "cron 30 2 * * * Europe/Berlin";
        assert_eq!(following(berlin, "2026-10-25T00:30:00Z", "2026-10-25T00:30:04Z"), utc("2026-10-26T01:30:00Z"));
        // the clock stood between the two 02:30 when the missed one was caught up: it is not due again
        assert_eq!(following(berlin, "2026-10-25T00:30:00Z", "2026-10-25T00:50:00Z"), utc("2026-10-26T01:30:00Z"));
    }

    #[test]
    fn a_missed_run_is_due_now_and_a_last_run_in_the_future_does_not_silence_a_model() {
        let now = utc("2026-01-10T00:00:00Z");
        for schedule in ["every 1h", "cron 0 * * * *"] {
            let schedule: Schedule = schedule.parse().unwrap();
            assert!(schedule.next_after(Some(utc("2026-01-01T00:00:00Z")), now) <= now);
            assert!(schedule.next_after(Some(utc("2027-01-01T00:00:00Z")), now) <= now + TimeDelta::hours(1));
        }
    }
}
