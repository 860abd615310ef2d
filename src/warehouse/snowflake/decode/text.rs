//! The service's JSON: every value is a text, in a form of its type.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};

use super::{Marks, broken, moment};
use crate::warehouse::WarehouseError;
use crate::warehouse::snowflake::plan::{Carrier, ColumnPlan};

/// One column of a batch.
pub(super) fn decode(column: &ColumnPlan, cells: StringArray, marks: &mut Marks) -> Result<ArrayRef, WarehouseError> {
    let name = column.field.name();
    Ok(match column.carrier {
        Carrier::Text | Carrier::Json => Arc::new(cells),
        Carrier::Integer => Arc::new(each::<i64, Int64Array>(name, &cells, parsed)?),
        Carrier::Float => Arc::new(each::<f64, Float64Array>(name, &cells, parsed)?),
        // days since 1970
        Carrier::Date => Arc::new(each::<i32, Date32Array>(name, &cells, parsed)?),
        Carrier::Decimal { precision, scale } => {
            let values = each::<i128, Decimal128Array>(name, &cells, |text| decimal(text, scale))?;
            Arc::new(values.with_precision_and_scale(precision, scale).map_err(|e| broken(name, &e.to_string()))?)
        }
        Carrier::Boolean => Arc::new(each::<bool, BooleanArray>(name, &cells, |text| match text {
            "1" | "true" | "TRUE" => Some(true),
            "0" | "false" | "FALSE" => Some(false),
            _ => None,
        })?),
        Carrier::Binary => {
            let bytes: Vec<Option<Vec<u8>>> = (0..cells.len())
                .map(|row| {
                    cells.is_valid(row).then(|| hex(cells.value(row)).ok_or_else(|| unreadable(name))).transpose()
                })
                .collect::<Result<_, _>>()?;
            Arc::new(bytes.into_iter().collect::<BinaryArray>())
        }
        Carrier::Time { .. } => {
            let texts = moments(name, &cells, marks, "is no time of day", |nanos| moment::time_text(nanos, 9))?;
            Arc::new(texts.into_iter().collect::<StringArray>())
        }
        Carrier::Timestamp { .. } => {
            let reason = "is further away than a timestamp can be";
            let micros = moments(name, &cells, marks, reason, |nanos| moment::micros(nanos, 9))?;
            Arc::new(micros.into_iter().collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
    })
}

fn parsed<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn each<T, A: FromIterator<Option<T>>>(
    name: &str,
    cells: &StringArray,
    read: impl Fn(&str) -> Option<T>,
) -> Result<A, WarehouseError> {
    cells.iter().map(|cell| cell.map(|text| read(text).ok_or_else(|| unreadable(name))).transpose()).collect()
}

/// Seconds with a fraction; behind them, of a TIMESTAMP_TZ, the zone, which moves nothing.
fn moments<T>(
    name: &str,
    cells: &StringArray,
    marks: &mut Marks,
    reason: &str,
    read: impl Fn(i128) -> Option<T>,
) -> Result<Vec<Option<T>>, WarehouseError> {
    let mut all = Vec::with_capacity(cells.len());
    for (row, cell) in cells.iter().enumerate() {
        let Some(cell) = cell else {
            all.push(None);
            continue;
        };
        let seconds = cell.split(' ').next().unwrap_or_default();
        let value = read(moment::nanos_of_text(seconds).ok_or_else(|| unreadable(name))?);
        if value.is_none() {
            marks.mark(row, name, reason);
        }
        all.push(value);
    }
    Ok(all)
}

/// The digits of a decimal at that scale; none when there are more.
fn decimal(text: &str, scale: i8) -> Option<i128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let scale = usize::try_from(scale).ok()?;
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > scale || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    format!("{whole}{fraction:0<scale$}").parse().ok()
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

/// The value is not shown: it may be anybody's.
fn unreadable(name: &str) -> WarehouseError {
    broken(name, "a value arrived in another form than its type's")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_keep_every_digit_and_lose_none() {
        assert_eq!(decimal("12.50", 2), Some(1250));
        assert_eq!(decimal("-0.05", 2), Some(-5));
        assert_eq!(decimal("7", 2), Some(700));
        assert_eq!(decimal("1.005", 2), None);
        assert_eq!(decimal("1e3", 2), None);
        assert_eq!(
            decimal("99999999999999999999999999999999999999", 0),
            Some(99_999_999_999_999_999_999_999_999_999_999_999_999)
        );
        assert_eq!(hex("00FFa1"), Some(vec![0, 255, 161]));
        assert_eq!(hex("0"), None);
    }
}
