//! BigQuery's types and Arrow's: a schema as the REST API tells it becomes Arrow fields, and rows as the Storage Read
//! API sends them are brought to those, so that what `describe` says is what a query streams.
//!
//! Nothing is rounded or shifted: a DATETIME, which has no zone, is taken as UTC (the same numbers); what does not fit is
//! an error that names the column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, StringArray, StructArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Fields, IntervalMonthDayNanoType, IntervalUnit, Schema, SchemaRef, TimeUnit};
use serde::Deserialize;
use serde_json::Value;

use crate::values::VALUE_TYPE_KEY;
use crate::warehouse::WarehouseError;

/// A table's or a result's columns. Tolerant: unknown attributes are ignored, unknown types are refused by name.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct TableSchema {
    pub fields: Vec<FieldSchema>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct FieldSchema {
    pub name: String,
    pub r#type: String,
    pub mode: Option<String>,
    pub fields: Vec<FieldSchema>,
    /// A number, or (as the API writes its 64-bit numbers) a text.
    precision: Value,
    scale: Value,
    range_element_type: Option<RangeElement>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct RangeElement {
    r#type: String,
}

/// A 64-bit number in either form.
pub(super) fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

impl FieldSchema {
    fn is_repeated(&self) -> bool {
        self.mode.as_deref() == Some("REPEATED")
    }

    pub(super) fn is_required(&self) -> bool {
        self.mode.as_deref() == Some("REQUIRED")
    }

    /// As SQL writes the type.
    pub(super) fn sql_type(&self) -> String {
        let inner = match self.r#type.as_str() {
            "INTEGER" => "INT64".to_string(),
            "FLOAT" => "FLOAT64".to_string(),
            "BOOLEAN" => "BOOL".to_string(),
            "RECORD" | "STRUCT" => {
                let fields: Vec<_> = self.fields.iter().map(|f| format!("{} {}", f.name, f.sql_type())).collect();
                format!("STRUCT<{}>", fields.join(", "))
            }
            "RANGE" => match &self.range_element_type {
                Some(element) => format!("RANGE<{}>", element.r#type),
                None => "RANGE".to_string(),
            },
            other => match (number(&self.precision), number(&self.scale)) {
                (Some(p), Some(s)) if s > 0 => format!("{other}({p}, {s})"),
                (Some(p), _) => format!("{other}({p})"),
                _ => other.to_string(),
            },
        };
        if self.is_repeated() { format!("ARRAY<{inner}>") } else { inner }
    }

    /// The Arrow field that carries the column.
    pub(super) fn arrow(&self) -> Result<Field, WarehouseError> {
        let inner = self.inner_type()?;
        let is_json = self.r#type == "JSON";
        if self.is_repeated() {
            let field = Field::new(&self.name, DataType::new_list(inner, true), true);
            return Ok(field);
        }
        let field = Field::new(&self.name, inner, true);
        Ok(match is_json {
            true => field.with_metadata([(VALUE_TYPE_KEY.to_string(), "json".to_string())].into()),
            false => field,
        })
    }

    fn inner_type(&self) -> Result<DataType, WarehouseError> {
        let decimal = |precision: u8, scale: u8, most: u8| {
            let given = number(&self.precision).and_then(|p| u8::try_from(p).ok());
            let given_scale = number(&self.scale).map_or(Some(0), |s| u8::try_from(s).ok());
            match (given, given_scale) {
                (None, _) => Ok((precision, scale.cast_signed())),
                (Some(p), Some(s)) if p > 0 && p <= most && s <= p => Ok((p, s.cast_signed())),
                _ => Err(WarehouseError::bug(format!("column `{}` is of an impossible type", self.name))),
            }
        };
        Ok(match self.r#type.as_str() {
            "INTEGER" | "INT64" => DataType::Int64,
            "FLOAT" | "FLOAT64" => DataType::Float64,
            "NUMERIC" => {
                let (precision, scale) = decimal(38, 9, 38)?;
                DataType::Decimal128(precision, scale)
            }
            "BIGNUMERIC" => {
                match decimal(76, 38, 76)? {
                    (precision, scale) if precision <= 38 => DataType::Decimal128(precision, scale),
                    // a profile holds no decimal so wide: its exact text
                    _ => DataType::Utf8,
                }
            }
            "STRING" | "GEOGRAPHY" | "JSON" | "TIME" | "INTERVAL" => DataType::Utf8,
            "BYTES" => DataType::Binary,
            "BOOLEAN" | "BOOL" => DataType::Boolean,
            "DATE" => DataType::Date32,
            "DATETIME" | "TIMESTAMP" => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            "RECORD" | "STRUCT" => {
                DataType::Struct(self.fields.iter().map(Self::arrow).collect::<Result<Fields, _>>()?)
            }
            "RANGE" => {
                let element = self.range_element_type.clone().unwrap_or_default().r#type;
                let bound = |name: &str| Self { name: name.into(), r#type: element.clone(), ..Self::default() }.arrow();
                DataType::Struct(Fields::from(vec![bound("start")?, bound("end")?]))
            }
            other => {
                return Err(WarehouseError::sql(format!(
                    "column `{}` is of the type {other}, which is not known here",
                    self.name
                ))
                .with_hint("cast it to one that docs/warehouses/bigquery.md lists, for example to STRING"));
            }
        })
    }
}

impl TableSchema {
    pub(super) fn arrow(&self) -> Result<SchemaRef, WarehouseError> {
        Ok(Arc::new(Schema::new(self.fields.iter().map(FieldSchema::arrow).collect::<Result<Vec<_>, _>>()?)))
    }
}

/// Checks that rows of the schema `sent` can be brought to `wanted`.
pub(super) fn check(wanted: &Schema, sent: &Schema) -> Result<(), WarehouseError> {
    let names = |schema: &Schema| schema.fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    if names(wanted) != names(sent) {
        return Err(WarehouseError::bug(format!(
            "the rows have the columns {:?}, where the dry run told {:?}",
            names(sent),
            names(wanted)
        )));
    }
    for (wanted, sent) in wanted.fields().iter().zip(sent.fields()) {
        if !fits(sent.data_type(), wanted.data_type()) {
            return Err(differs(wanted.name(), sent.data_type(), wanted.data_type()));
        }
    }
    Ok(())
}

fn differs(name: &str, sent: &DataType, wanted: &DataType) -> WarehouseError {
    WarehouseError::bug(format!("column `{name}` comes as {sent}, where the dry run told {wanted}"))
        .with_hint("cast the column in the model's SQL; and tell us")
}

/// Can every value of the one be had as the other, unchanged?
fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Decimal128, Decimal256, Float32, Float64, Int8, Int16, Int32, Int64, Interval,
        LargeBinary, LargeList, LargeUtf8, List, Null, Struct, Time64, Timestamp, Utf8, Utf8View,
    };
    match (from, to) {
        (a, b) if a == b => true,
        (Null, _) | (LargeUtf8 | Utf8View | Time64(_) | Interval(IntervalUnit::MonthDayNano), Utf8) => true,
        (Int8 | Int16 | Int32, Int64) | (Float32, Float64) | (LargeBinary | BinaryView, Binary) => true,
        (Decimal128(_, _) | Decimal256(_, _), Decimal128(_, _) | Decimal256(_, _) | Utf8) => true,
        (Timestamp(_, _) | Date32, Timestamp(TimeUnit::Microsecond, _)) => true,
        (List(a) | LargeList(a), List(b)) => fits(a.data_type(), b.data_type()),
        (Struct(a), Struct(b)) => {
            a.len() == b.len()
                && a.iter().zip(b).all(|(a, b)| a.name() == b.name() && fits(a.data_type(), b.data_type()))
        }
        _ => false,
    }
}

/// Brings a column to its field's type.
pub(super) fn adapt(column: &ArrayRef, field: &Field) -> Result<ArrayRef, WarehouseError> {
    convert(column, field.data_type()).map_err(|why| {
        WarehouseError::bug(format!("column `{}` cannot be read: {why}", field.name()))
            .with_hint("cast the column in the model's SQL; and tell us")
    })
}

fn convert(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    if column.data_type() == to {
        return Ok(column.clone());
    }
    let text = |e: arrow::error::ArrowError| e.to_string();
    let exact = CastOptions { safe: false, ..Default::default() };
    match (column.data_type(), to) {
        (DataType::List(_), DataType::List(item)) => {
            let list = column.as_list::<i32>();
            let values = convert(list.values(), item.data_type())?;
            let made = ListArray::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(made.map_err(text)?))
        }
        (DataType::Struct(_), DataType::Struct(fields)) => {
            let parts = column.as_struct();
            let columns = parts.columns().iter().zip(fields).map(|(column, field)| convert(column, field.data_type()));
            let columns = columns.collect::<Result<Vec<_>, _>>()?;
            let made = StructArray::try_new_with_length(fields.clone(), columns, parts.nulls().cloned(), parts.len());
            Ok(Arc::new(made.map_err(text)?))
        }
        (DataType::Interval(IntervalUnit::MonthDayNano), DataType::Utf8) => {
            let intervals = column.as_primitive::<IntervalMonthDayNanoType>();
            let texts = intervals.iter().map(|v| v.map(|v| interval(v.months, v.days, v.nanoseconds)));
            Ok(Arc::new(texts.collect::<StringArray>()))
        }
        (from, DataType::Utf8) if from.is_decimal() => {
            let texts = cast_with_options(column, to, &exact).map_err(text)?;
            Ok(Arc::new(texts.as_string::<i32>().iter().map(|t| t.map(plain)).collect::<StringArray>()))
        }
        (from, _) if fits(from, to) => {
            let made = cast_with_options(column, to, &exact).map_err(text)?;
            if from.is_decimal() {
                let back = cast_with_options(&made, from, &exact).map_err(text)?;
                let same = arrow::compute::kernels::cmp::not_distinct(&back, column).map_err(text)?;
                if same.false_count() > 0 {
                    return Err(format!("a value has more digits than {to}"));
                }
            }
            Ok(made)
        }
        (from, _) => Err(format!("it comes as {from}, where the dry run told {to}")),
    }
}

/// A decimal without the zeros at its end, as BigQuery itself writes it.
fn plain(decimal: &str) -> &str {
    if decimal.contains('.') { decimal.trim_end_matches('0').trim_end_matches('.') } else { decimal }
}

/// As BigQuery itself writes an interval: `Y-M D H:M:S[.F]`.
fn interval(months: i32, days: i32, nanoseconds: i64) -> String {
    let sign = |negative: bool| if negative { "-" } else { "" };
    let (m, n) = (months.unsigned_abs(), nanoseconds.unsigned_abs());
    let (seconds, fraction) = (n / 1_000_000_000, n % 1_000_000_000);
    let mut text = format!(
        "{}{}-{} {days} {}{}:{}:{}",
        sign(months < 0),
        m / 12,
        m % 12,
        sign(nanoseconds < 0),
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    );
    if fraction > 0 {
        text.push('.');
        text.push_str(format!("{fraction:09}").trim_end_matches('0'));
    }
    text
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, IntervalMonthDayNanoArray, Time64MicrosecondArray, TimestampMicrosecondArray};
    use arrow::datatypes::IntervalMonthDayNano;

    fn schema(json: &str) -> TableSchema {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_type_has_its_arrow_type_and_its_name() {
        let schema = schema(
            r#"{"fields": [
                {"name": "i", "type": "INTEGER", "mode": "REQUIRED"}, {"name": "n", "type": "NUMERIC"},
                {"name": "p", "type": "NUMERIC", "precision": "10", "scale": "2"}, {"name": "b", "type": "BIGNUMERIC"},
                {"name": "q", "type": "BIGNUMERIC", "precision": "40", "scale": "4"}, {"name": "w", "type": "NUMERIC", "precision": 7},
                {"name": "s", "type": "RECORD", "fields": [{"name": "x", "type": "FLOAT"}, {"name": "j", "type": "JSON"}]},
                {"name": "a", "type": "STRING", "mode": "REPEATED"},
                {"name": "r", "type": "RANGE", "rangeElementType": {"type": "DATE"}}
            ]}"#,
        );
        let arrow = schema.arrow().unwrap();
        let types: Vec<_> = arrow.fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(
            types[..6],
            [
                DataType::Int64,
                DataType::Decimal128(38, 9),
                DataType::Decimal128(10, 2),
                DataType::Utf8,
                DataType::Utf8,
                DataType::Decimal128(7, 0)
            ]
        );
        let names: Vec<_> = schema.fields.iter().map(FieldSchema::sql_type).collect();
        assert_eq!(
            names,
            [
                "INT64",
                "NUMERIC",
                "NUMERIC(10, 2)",
                "BIGNUMERIC",
                "BIGNUMERIC(40, 4)",
                "NUMERIC(7)",
                "STRUCT<x FLOAT64, j JSON>",
                "ARRAY<STRING>",
                "RANGE<DATE>"
            ]
        );
    }

    #[test]
    fn an_unknown_type_is_refused_by_name() {
        let error = schema(r#"{"fields": [{"name": "x", "type": "HOLOGRAM"}]}"#).arrow().unwrap_err();
        assert!(error.message.contains("`x`") && error.message.contains("HOLOGRAM"), "{error}");
    }

    #[test]
    fn datetimes_times_and_intervals_are_neither_shifted_nor_rounded() {
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let datetime: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![1_772_296_215_123_456]));
        let made = convert(&datetime, &utc).unwrap();
        let values = made.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
        assert_eq!((values.value(0), values.data_type()), (1_772_296_215_123_456, &utc));

        let time: ArrayRef = Arc::new(Time64MicrosecondArray::from(vec![Some(45_296_000_007), Some(0), None]));
        let made = convert(&time, &DataType::Utf8).unwrap();
        let texts = made.as_string::<i32>();
        assert_eq!((texts.value(0), texts.value(1), texts.is_null(2)), ("12:34:56.000007", "00:00:00", true));

        let intervals: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![
            IntervalMonthDayNano::new(14, 3, 14_706_789_000_000),
            IntervalMonthDayNano::new(-1, 0, -1_000_000_000),
        ]));
        let made = convert(&intervals, &DataType::Utf8).unwrap();
        assert_eq!(made.as_string::<i32>().value(0), "1-2 3 4:5:6.789");
        assert_eq!(made.as_string::<i32>().value(1), "-0-1 0 -0:0:1");
    }

    #[test]
    fn a_decimal_that_would_be_rounded_is_an_error() {
        let made = |value| -> ArrayRef {
            Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(38, 9).unwrap())
        };
        assert!(convert(&made(12_500_000_000), &DataType::Decimal128(10, 2)).is_ok());
        assert!(convert(&made(12_500_000_001), &DataType::Decimal128(10, 2)).is_err());
    }

    #[test]
    fn rows_of_other_columns_are_refused() {
        let wanted = Schema::new(vec![Field::new("a", DataType::Int64, true)]);
        let other = Schema::new(vec![Field::new("b", DataType::Int64, true)]);
        let text = Schema::new(vec![Field::new("a", DataType::Utf8, true)]);
        assert!(check(&wanted, &wanted).is_ok());
        assert!(check(&wanted, &other).unwrap_err().message.contains("columns"));
        assert!(check(&wanted, &text).unwrap_err().message.contains("Utf8"));
    }
}
