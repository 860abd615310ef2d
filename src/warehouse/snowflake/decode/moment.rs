//! Points in time, in integers only: a float of seconds would shift them.

/// Microseconds of `value` units of 10^-scale seconds; finer digits are cut, downwards also before 1970.
pub(super) fn micros(value: i128, scale: u8) -> Option<i64> {
    let micros = match scale {
        0..=6 => value.checked_mul(10_i128.pow(u32::from(6 - scale)))?,
        _ => value.div_euclid(10_i128.pow(u32::from(scale - 6))),
    };
    i64::try_from(micros).ok()
}

/// Microseconds of whole seconds and nanoseconds after them.
pub(super) fn micros_of_parts(seconds: i64, nanos: i64) -> Option<i64> {
    let nanos = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    micros(nanos, 9)
}

/// A number with a fraction, as in `-1.250000000`, in units of 10^-9.
pub(super) fn nanos_of_text(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 24 || fraction.len() > 9 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let nanos = format!("{whole}{fraction:0<9}").parse::<i128>().ok()?;
    Some(if negative { -nanos } else { nanos })
}

/// `HH:MM:SS` of units of 10^-scale seconds since midnight, with its fraction where it has one.
pub(super) fn time_text(value: i128, scale: u8) -> Option<String> {
    let unit = 10_i128.pow(u32::from(scale));
    let (seconds, fraction) = (value.div_euclid(unit), value.rem_euclid(unit));
    if !(0..86_400).contains(&seconds) {
        return None;
    }
    let mut text = format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction > 0 {
        let digits = format!("{fraction:0width$}", width = usize::from(scale));
        text.push('.');
        text.push_str(digits.trim_end_matches('0'));
    }
    Some(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn times_are_cut_downwards_on_both_sides_of_1970() {
        assert_eq!(micros(1_772_296_215_123_456_789, 9), Some(1_772_296_215_123_456));
        assert_eq!(micros(-1, 9), Some(-1));
        assert_eq!(micros(-1_500, 3), Some(-1_500_000));
        assert_eq!(micros_of_parts(-1, 999_999_999), Some(-1));
        // the years 1 and 9999, and one that Arrow cannot hold
        assert_eq!(micros(-62_135_596_800, 0), Some(-62_135_596_800_000_000));
        assert_eq!(micros(253_402_300_799_999_999, 6), Some(253_402_300_799_999_999));
        assert_eq!(micros(i128::from(i64::MAX), 0), None);
        assert_eq!(micros_of_parts(i64::MAX, 0), None);
    }

    #[test]
    fn texts_of_seconds_are_read_to_the_last_digit() {
        assert_eq!(nanos_of_text("1772296215.123456789").unwrap(), 1_772_296_215_123_456_789);
        assert_eq!(nanos_of_text("-0.5").unwrap(), -500_000_000);
        assert_eq!(nanos_of_text("7").unwrap(), 7_000_000_000);
        for bad in ["", "-", "1e3", "1.0000000001", "x", ".5"] {
            assert_eq!(nanos_of_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_of_day_show_their_fraction_where_they_have_one() {
        assert_eq!(time_text(0, 9).unwrap(), "00:00:00");
        assert_eq!(time_text(86_399, 0).unwrap(), "23:59:59");
        assert_eq!(time_text(45_296_007_000_000, 9).unwrap(), "12:34:56.007");
        assert_eq!(time_text(86_400, 0), None);
        assert_eq!(time_text(-1, 3), None);
    }
}
