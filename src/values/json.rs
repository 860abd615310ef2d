//! One cell of a batch as a JSON value.
//!
//! | Value type | JSON |
//! |---|---|
//! | `string` | string |
//! | `int` | number |
//! | `float` | number; NaN and the infinities, which JSON lacks, are the strings `NaN`, `Infinity`, `-Infinity` |
//! | `decimal(p,s)` | p at most 15: number (a double holds it exactly); beyond: string with all digits |
//! | `bool` | `true`, `false` |
//! | `timestamp` | string, RFC 3339 in UTC: `2026-01-31T12:00:00Z`, with as many decimals as it needs |
//! | `date` | string, `2026-01-31` |
//! | `list` | array of strings |
//! | `json` | the value itself, embedded; text that is no JSON stays a string |
//! | null of any type | `null` |
//!
//! The form depends on the type alone, never on the value, so a column does not change its JSON type between rows.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::Value;

use super::ValueType;

/// The most decimal digits that a double always keeps.
const DOUBLE_DIGITS: u8 = 15;

/// The cell as JSON; see the module's table. `row` must be within the array.
pub fn cell_to_json(array: &dyn Array, row: usize, value_type: ValueType) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match (value_type, array.data_type()) {
        (ValueType::Json, _) => match text(array, row) {
            Some(text) => serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)),
            None => displayed(array, row),
        },
        (_, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) => text(array, row).into(),
        (_, DataType::Int64) => array.as_primitive::<Int64Type>().value(row).into(),
        (_, DataType::Boolean) => array.as_boolean().value(row).into(),
        (_, DataType::Float64) => float(array.as_primitive::<Float64Type>().value(row)),
        (_, DataType::Decimal128(precision, _)) => {
            let exact = array.as_primitive::<Decimal128Type>().value_as_string(row);
            match exact.parse::<f64>() {
                Ok(number) if *precision <= DOUBLE_DIGITS => number.into(),
                _ => exact.into(),
            }
        }
        (_, DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, _)) => {
            match DateTime::from_timestamp_micros(array.as_primitive::<TimestampMicrosecondType>().value(row)) {
                Some(time) => timestamp(time).into(),
                None => displayed(array, row),
            }
        }
        (_, DataType::Date32) => match array.as_primitive::<Date32Type>().value_as_date(row) {
            Some(date) => date.to_string().into(),
            None => displayed(array, row),
        },
        (_, DataType::List(_)) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|item| cell_to_json(items.as_ref(), item, ValueType::String)).collect()
        }
        _ => displayed(array, row),
    }
}

/// A time as every JSON output writes it.
pub fn timestamp(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::AutoSi, true)
}

fn text(array: &dyn Array, row: usize) -> Option<&str> {
    match array.data_type() {
        DataType::Utf8 => Some(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => Some(array.as_string::<i64>().value(row)),
        DataType::Utf8View => Some(array.as_string_view().value(row)),
        _ => None,
    }
}

fn float(value: f64) -> Value {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        (if value > 0.0 { "Infinity" } else { "-Infinity" }).into()
    } else {
        value.into()
    }
}

/// Any other type, as Arrow displays it.
fn displayed(array: &dyn Array, row: usize) -> Value {
    match ArrayFormatter::try_new(array, &FormatOptions::default()) {
        Ok(formatter) => formatter.value(row).try_to_string().map_or(Value::Null, Value::from),
        Err(_) => Value::Null,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array, ListBuilder, StringArray, StringBuilder,
        TimestampMicrosecondArray,
    };
    use serde_json::json;

    #[test]
    fn each_type_has_its_documented_form() {
        let decimal = |p, s| Decimal128Array::from(vec![1_234_500]).with_precision_and_scale(p, s).unwrap();
        let mut list = ListBuilder::new(StringBuilder::new());
        list.append_value([Some("a"), None]);
        let time = TimestampMicrosecondArray::from(vec![1_769_860_800_250_000]).with_timezone("UTC");
        let cases: Vec<(Box<dyn Array>, ValueType, Value)> = vec![
            (Box::new(StringArray::from(vec!["x"])), ValueType::String, json!("x")),
            (Box::new(Int64Array::from(vec![i64::MAX])), ValueType::Int, json!(i64::MAX)),
            (Box::new(Int64Array::from(vec![None])), ValueType::Int, Value::Null),
            (Box::new(Float64Array::from(vec![0.1])), ValueType::Float, json!(0.1)),
            (Box::new(Float64Array::from(vec![f64::NEG_INFINITY])), ValueType::Float, json!("-Infinity")),
            (Box::new(decimal(12, 2)), ValueType::Decimal { precision: 12, scale: 2 }, json!(12345.0)),
            (Box::new(decimal(38, 9)), ValueType::Decimal { precision: 38, scale: 9 }, json!("0.001234500")),
            (Box::new(BooleanArray::from(vec![true])), ValueType::Bool, json!(true)),
            (Box::new(time), ValueType::Timestamp, json!("2026-01-31T12:00:00.250Z")),
            (Box::new(Date32Array::from(vec![20_484])), ValueType::Date, json!("2026-01-31")),
            (Box::new(list.finish()), ValueType::List, json!(["a", null])),
            (Box::new(StringArray::from(vec![r#"{"a":[1,2]}"#])), ValueType::Json, json!({"a": [1, 2]})),
            (Box::new(StringArray::from(vec!["{"])), ValueType::Json, json!("{")),
        ];
        for (array, value_type, expected) in cases {
            assert_eq!(cell_to_json(array.as_ref(), 0, value_type), expected, "{value_type}");
        }
    }
}
