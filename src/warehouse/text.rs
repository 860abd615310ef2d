//! Texts for people that every provider needs.

use std::time::Duration;

/// `1.5s`, `30m`.
pub(crate) fn human(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds, duration.subsec_millis()) {
        (_, ms) if ms > 0 => format!("{}s", duration.as_secs_f64()),
        (s, _) if s > 0 && s % 3600 == 0 => format!("{}h", s / 3600),
        (s, _) if s > 0 && s % 60 == 0 => format!("{}m", s / 60),
        (s, _) => format!("{s}s"),
    }
}

/// The line of `sql` that holds its character number `at`, with a caret below it.
pub(crate) fn point_at(sql: &str, at: usize) -> Option<String> {
    let mut rest = at;
    for (number, line) in sql.split('\n').enumerate() {
        let length = line.chars().count();
        if rest <= length {
            let lead = format!("LINE {}: ", number + 1);
            // tabs are kept, so that the caret stands below its character whatever a tab's width
            let gap: String = line.chars().take(rest).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
            return Some(format!("{lead}{}\n{}{gap}^", line.trim_end(), " ".repeat(lead.len())));
        }
        rest -= length + 1;
    }
    None
}

/// An error with its causes, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// `500ms`, `30s`, `5m`, `2h`, `1d`; at most 24 days, which servers hold as a signed 32-bit number of milliseconds.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text.trim()).ok().filter(|d| d.as_millis() <= i32::MAX as u128)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn the_caret_stands_below_the_character() {
        let sql = "SELECT email,\n\tnöpe\nFROM customers";
        assert_eq!(point_at(sql, 15).unwrap(), "LINE 2: \tnöpe\n        \t^");
        assert_eq!(point_at(sql, 7).unwrap(), "LINE 1: SELECT email,\n               ^");
        assert_eq!(point_at(sql, 999), None);
    }

    #[test]
    fn durations_read_as_people_write_them() {
        let texts = [250, 1500, 90_000, 1_800_000, 7_200_000].map(|ms| human(Duration::from_millis(ms)));
        assert_eq!(texts, ["0.25s", "1.5s", "90s", "30m", "2h"]);
    }
}
