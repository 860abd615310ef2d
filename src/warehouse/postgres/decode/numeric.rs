//! PostgreSQL's binary `numeric`: a header of four 16-bit words (digit groups, weight, sign, display scale), then groups
//! of four decimal digits. The first group stands for multiples of 10000^weight.

use super::Fault;

const POSITIVE: u16 = 0x0000;
const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

const MALFORMED: Fault = Fault::Broken("a malformed numeric");
const TOO_LARGE: Fault = Fault::Unconvertible("the number has more digits than the column declares");

struct Numeric<'a> {
    weight: i32,
    sign: u16,
    display_scale: usize,
    groups: &'a [u8],
}

impl<'a> Numeric<'a> {
    fn parse(field: &'a [u8]) -> Result<Self, Fault> {
        let (header, groups) = field.split_first_chunk::<8>().ok_or(MALFORMED)?;
        let word = |i: usize| u16::from_be_bytes([header[i * 2], header[i * 2 + 1]]);
        if groups.len() != usize::from(word(0)) * 2 {
            return Err(MALFORMED);
        }
        // two's complement
        let weight = i32::from(word(1).cast_signed());
        Ok(Self { weight, sign: word(2), display_scale: usize::from(word(3)), groups })
    }

    fn groups(&self) -> impl Iterator<Item = u16> + '_ {
        self.groups.chunks_exact(2).map(|g| u16::from_be_bytes([g[0], g[1]]))
    }

    /// The group that stands for multiples of 10000^weight.
    fn group_at(&self, weight: i32) -> u16 {
        let index = usize::try_from(self.weight - weight).ok();
        index.and_then(|i| self.groups.get(i * 2..i * 2 + 2)).map_or(0, |g| u16::from_be_bytes([g[0], g[1]]))
    }
}

/// The number times 10^scale, exactly. `precision` bounds its digits.
pub(super) fn to_i128(field: &[u8], precision: u8, scale: i8) -> Result<i128, Fault> {
    let number = Numeric::parse(field)?;
    match number.sign {
        POSITIVE | NEGATIVE => {}
        NAN => return Err(Fault::Unconvertible("the number is NaN")),
        INFINITY => return Err(Fault::Unconvertible("the number is Infinity")),
        NEGATIVE_INFINITY => return Err(Fault::Unconvertible("the number is -Infinity")),
        _ => return Err(MALFORMED),
    }

    let mut value: i128 = 0;
    // the power of ten that the last digit of the group stands for, in units of the result
    let mut exponent = 4 * number.weight + i32::from(scale);
    let mut last = exponent;
    for group in number.groups() {
        let group = i128::from(group);
        if exponent >= 0 {
            value = value.checked_mul(10_000).and_then(|v| v.checked_add(group)).ok_or(TOO_LARGE)?;
            last = exponent;
        } else {
            // some of its digits lie beyond the scale: they have to be zeros
            let dropped = 10_i128.pow(exponent.unsigned_abs().min(4));
            if group % dropped != 0 {
                return Err(Fault::Unconvertible("the number has more decimal places than the column declares"));
            }
            let kept = 10_000 / dropped;
            value = value.checked_mul(kept).and_then(|v| v.checked_add(group / dropped)).ok_or(TOO_LARGE)?;
            last = 0;
        }
        exponent -= 4;
    }
    if value != 0 && last > 0 {
        let zeros = 10_i128.checked_pow(last.unsigned_abs()).ok_or(TOO_LARGE)?;
        value = value.checked_mul(zeros).ok_or(TOO_LARGE)?;
    }
    if value >= 10_i128.pow(u32::from(precision.min(38))) {
        return Err(TOO_LARGE);
    }
    Ok(if number.sign == NEGATIVE { -value } else { value })
}

/// The number that `text` writes (`-12.30`) times 10^scale, exactly. `precision` bounds its digits.
pub(super) fn of_text(text: &[u8], precision: u8, scale: i8) -> Result<i128, Fault> {
    const NO_NUMBER: Fault = Fault::Broken("a malformed decimal text");
    if text == b"NaN" {
        return Err(Fault::Unconvertible("the number is NaN"));
    }
    let (digits, negative) = match text.split_first() {
        Some((b'-', digits)) => (digits, true),
        _ => (text, false),
    };
    let (mut value, mut seen, mut places) = (0_i128, 0, None);
    for byte in digits {
        match (byte, places) {
            (b'.', None) => places = Some(0_i8),
            (b'0'..=b'9', _) => {
                let digit = i128::from(byte - b'0');
                seen += 1;
                if let Some(places) = &mut places {
                    if *places == scale {
                        if digit != 0 {
                            return Err(Fault::Unconvertible(
                                "the number has more decimal places than the column declares",
                            ));
                        }
                        continue;
                    }
                    *places += 1;
                }
                value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(TOO_LARGE)?;
            }
            _ => return Err(NO_NUMBER),
        }
    }
    if seen == 0 {
        return Err(NO_NUMBER);
    }
    let missing = u32::from(scale.cast_unsigned()) - u32::from(places.unwrap_or(0).cast_unsigned());
    value = 10_i128.checked_pow(missing).and_then(|zeros| value.checked_mul(zeros)).ok_or(TOO_LARGE)?;
    if value >= 10_i128.pow(u32::from(precision.min(38))) {
        return Err(TOO_LARGE);
    }
    Ok(if negative { -value } else { value })
}

/// The number as the server writes it, with all its decimal places.
pub(super) fn write_text(field: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
    let number = Numeric::parse(field)?;
    match number.sign {
        POSITIVE => {}
        NEGATIVE => out.push(b'-'),
        NAN => {
            out.extend_from_slice(b"NaN");
            return Ok(());
        }
        INFINITY => {
            out.extend_from_slice(b"Infinity");
            return Ok(());
        }
        NEGATIVE_INFINITY => {
            out.extend_from_slice(b"-Infinity");
            return Ok(());
        }
        _ => return Err(MALFORMED),
    }

    if number.weight < 0 {
        out.push(b'0');
    }
    for weight in (0..=number.weight).rev() {
        let digits = digits_of(number.group_at(weight))?;
        // zeros lead in no number
        let skip = if weight == number.weight { digits.iter().take(3).take_while(|d| **d == b'0').count() } else { 0 };
        out.extend_from_slice(&digits[skip..]);
    }
    if number.display_scale > 0 {
        out.push(b'.');
        let mut left = number.display_scale;
        let mut weight = -1;
        while left > 0 {
            let digits = digits_of(number.group_at(weight))?;
            let take = left.min(4);
            out.extend_from_slice(&digits[..take]);
            left -= take;
            weight -= 1;
        }
    }
    Ok(())
}

/// The four digits of a group.
fn digits_of(group: u16) -> Result<[u8; 4], Fault> {
    if group > 9999 {
        return Err(MALFORMED);
    }
    let digit = |divisor: u16| b'0' + (group / divisor % 10) as u8;
    Ok([digit(1000), digit(100), digit(10), digit(1)])
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The binary form of a decimal text, made by the book: groups of four digits around the point, zeros cut off.
    fn binary(text: &str) -> Vec<u8> {
        let (sign, digits) = text.strip_prefix('-').map_or((POSITIVE, text), |t| (NEGATIVE, t));
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let whole = format!("{}{whole}", "0".repeat((4 - whole.len() % 4) % 4));
        let padded = format!("{fraction}{}", "0".repeat((4 - fraction.len() % 4) % 4));
        let all = format!("{whole}{padded}");
        let mut groups: Vec<u16> =
            all.as_bytes().chunks(4).map(|g| std::str::from_utf8(g).unwrap().parse().unwrap()).collect();
        let mut weight = (whole.len() / 4) as i16 - 1;
        while groups.first() == Some(&0) {
            groups.remove(0);
            weight -= 1;
        }
        while groups.last() == Some(&0) {
            groups.pop();
        }
        if groups.is_empty() {
            weight = 0;
        }
        let header = [groups.len() as u16, weight as u16, sign, fraction.len() as u16];
        header.into_iter().chain(groups).flat_map(u16::to_be_bytes).collect()
    }

    fn text(field: &[u8]) -> String {
        let mut out = Vec::new();
        write_text(field, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn decimals_are_exact_to_the_last_digit() {
        let nines = "9".repeat(38);
        for (number, precision, scale, want) in [
            ("0", 10, 2, 0),
            ("12.30", 10, 2, 1230),
            ("-0.01", 10, 2, -1),
            ("0.00001", 38, 5, 1),
            ("10000", 10, 2, 1_000_000),
            ("1", 38, 30, 10_i128.pow(30)),
            (nines.as_str(), 38, 0, 10_i128.pow(38) - 1),
            ("9999999999999999999.9999999999999999999", 38, 19, 10_i128.pow(38) - 1),
        ] {
            assert_eq!(to_i128(&binary(number), precision, scale), Ok(want), "{number}");
        }
    }

    #[test]
    fn a_decimal_is_never_rounded_or_cut() {
        assert!(matches!(to_i128(&binary("0.001"), 10, 2), Err(Fault::Unconvertible(_))));
        assert!(matches!(to_i128(&binary("0.00000001"), 10, 2), Err(Fault::Unconvertible(_))));
        assert_eq!(to_i128(&binary("100"), 4, 2), Err(TOO_LARGE));
        assert_eq!(to_i128(&binary(&"9".repeat(60)), 38, 0), Err(TOO_LARGE));
        for sign in [NAN, INFINITY, NEGATIVE_INFINITY] {
            let field: Vec<u8> = [0, 0, sign, 0].into_iter().flat_map(u16::to_be_bytes).collect();
            assert!(matches!(to_i128(&field, 10, 2), Err(Fault::Unconvertible(_))));
        }
    }

    #[test]
    fn a_decimal_text_is_taken_exactly_or_not_at_all() {
        for (text, want) in [("12.3", 1230), ("-0.05", -5), (".5", 50), ("7", 700), ("1.500", 150)] {
            assert_eq!(of_text(text.as_bytes(), 10, 2), Ok(want), "{text}");
        }
        for text in ["0.001", "123456789.00", "NaN"] {
            assert!(matches!(of_text(text.as_bytes(), 10, 2), Err(Fault::Unconvertible(_))), "{text}");
        }
        for text in ["", "-", ".", "1e3", "1.2.3", "+1", " 1"] {
            assert!(matches!(of_text(text.as_bytes(), 10, 2), Err(Fault::Broken(_))), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_numeric_are_refused() {
        for field in [&[][..], &[0, 1, 0, 0, 0, 0, 0, 0], &[0, 0, 0, 0, 0x12, 0, 0, 0]] {
            assert_eq!(to_i128(field, 10, 2), Err(MALFORMED));
            assert_eq!(write_text(field, &mut Vec::new()), Err(MALFORMED));
        }
    }

    proptest! {
        #[test]
        fn text_keeps_every_digit(whole in "(0|[1-9][0-9]{0,40})", fraction in "([0-9]{1,40})?") {
            let number = if fraction.is_empty() { whole } else { format!("{whole}.{fraction}") };
            prop_assert_eq!(text(&binary(&number)), number);
        }

        #[test]
        fn decimals_match_their_text(units in -(10_i128.pow(38) - 1)..10_i128.pow(38), scale in 0_i8..=38) {
            let digits = format!("{:0>width$}", units.abs(), width = scale as usize + 1);
            let (whole, fraction) = digits.split_at(digits.len() - scale as usize);
            let sign = if units < 0 { "-" } else { "" };
            let number = if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
            prop_assert_eq!(to_i128(&binary(&number), 38, scale), Ok(units));
            prop_assert_eq!(of_text(number.as_bytes(), 38, scale), Ok(units));
        }
    }
}
