//! The service's Arrow. A column's logical type is the plan's; its physical form varies with the values of each chunk:
//! a NUMBER arrives in the smallest integer that holds them, scaled, or as decimal128; a timestamp as a scaled integer
//! or as a struct of seconds, nanoseconds and zone.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Int64Array, StringArray, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Decimal128Type, Field, Int64Type, TimeUnit};

use super::{Marks, broken, moment};
use crate::values::convert::json_texts;
use crate::warehouse::WarehouseError;
use crate::warehouse::snowflake::plan::{Carrier, ColumnPlan};

/// One column of a batch.
pub(super) fn decode(
    column: &ColumnPlan,
    array: &ArrayRef,
    field: &Field,
    marks: &mut Marks,
) -> Result<ArrayRef, WarehouseError> {
    let name = column.field.name();
    if *array.data_type() == DataType::Null {
        return Ok(new_null_array(column.field.data_type(), array.len()));
    }
    match column.carrier {
        Carrier::Integer | Carrier::Decimal { .. } => number(column, array, field),
        Carrier::Text | Carrier::Json if array.data_type().is_nested() => nested(name, array, field),
        Carrier::Time { scale } => {
            let values = integers(name, array)?;
            let scale = scale_of(field).unwrap_or(scale);
            let texts = (0..values.len()).map(|row| {
                let value = values.is_valid(row).then(|| values.value(row))?;
                let text = moment::time_text(i128::from(value), scale);
                if text.is_none() {
                    marks.mark(row, name, "is no time of day");
                }
                text
            });
            Ok(Arc::new(texts.collect::<StringArray>()))
        }
        Carrier::Timestamp { scale } => timestamps(name, array, scale_of(field).unwrap_or(scale), marks),
        Carrier::Float | Carrier::Text | Carrier::Json | Carrier::Binary | Carrier::Boolean | Carrier::Date => {
            cast(name, array, column.field.data_type())
        }
    }
}

/// The scale that the stream itself names.
fn scale_of(field: &Field) -> Option<u8> {
    field.metadata().get("scale").and_then(|s| s.parse().ok()).filter(|s| *s <= 37)
}

fn cast(name: &str, array: &ArrayRef, to: &DataType) -> Result<ArrayRef, WarehouseError> {
    if array.data_type() == to {
        return Ok(array.clone());
    }
    // between layouts of one type; anything else is another type than was described
    let family = |t: &DataType| match t {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => 1,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => 2,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => 3,
        DataType::Date32 | DataType::Date64 => 4,
        _ => 0,
    };
    if family(to) == 0 || family(to) != family(array.data_type()) {
        return Err(broken(name, &format!("arrived as {} where {to} was described", array.data_type())));
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &strict).map_err(|e| broken(name, &e.to_string()))
}

/// Integers of any width.
fn integers(name: &str, array: &ArrayRef) -> Result<Int64Array, WarehouseError> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    if !array.data_type().is_integer() {
        return Err(broken(name, &format!("arrived as {} where an integer was described", array.data_type())));
    }
    let wide = cast_with_options(array, &DataType::Int64, &strict).map_err(|e| broken(name, &e.to_string()))?;
    Ok(wide.as_primitive::<Int64Type>().clone())
}

fn number(column: &ColumnPlan, array: &ArrayRef, field: &Field) -> Result<ArrayRef, WarehouseError> {
    let name = column.field.name();
    let (to, decimal) = match column.carrier {
        Carrier::Decimal { precision, scale } => (u8::try_from(scale).unwrap_or(0), Some((precision, scale))),
        _ => (0, None),
    };
    let inexact = || broken(name, "a number does not fit the column's own declaration");
    let make = |values: Decimal128Array, precision, scale| {
        values.with_precision_and_scale(precision, scale).map_err(|e| broken(name, &e.to_string()))
    };
    if let DataType::Decimal128(_, own) = array.data_type() {
        let from = scale_of(field).unwrap_or(u8::try_from(*own).unwrap_or(0));
        let values = array.as_primitive::<Decimal128Type>();
        let values: Decimal128Array = if from == to {
            values.clone()
        } else {
            values.try_unary(|v| rescaled(v, from, to).ok_or_else(|| arrow_error(&inexact()))).map_err(|_| inexact())?
        };
        return match decimal {
            Some((precision, scale)) => Ok(Arc::new(make(values, precision, scale)?)),
            None => {
                let small =
                    values.try_unary::<_, Int64Type, _>(|v| i64::try_from(v).map_err(|_| arrow_error(&inexact())));
                Ok(Arc::new(small.map_err(|_| inexact())?))
            }
        };
    }
    let values = integers(name, array)?;
    let from = scale_of(field).unwrap_or(to);
    match decimal {
        None if from == 0 => Ok(Arc::new(values)),
        None => {
            let small = values.try_unary::<_, Int64Type, _>(|v| {
                let v = rescaled(i128::from(v), from, 0).and_then(|v| i64::try_from(v).ok());
                v.ok_or_else(|| arrow_error(&inexact()))
            });
            Ok(Arc::new(small.map_err(|_| inexact())?))
        }
        Some((precision, scale)) => {
            let wide = values.try_unary::<_, Decimal128Type, _>(|v| {
                rescaled(i128::from(v), from, to).ok_or_else(|| arrow_error(&inexact()))
            });
            Ok(Arc::new(make(wide.map_err(|_| inexact())?, precision, scale)?))
        }
    }
}

fn arrow_error(error: &WarehouseError) -> arrow::error::ArrowError {
    arrow::error::ArrowError::CastError(error.message.clone())
}

/// The same number with another scale; none when digits would be lost.
fn rescaled(value: i128, from: u8, to: u8) -> Option<i128> {
    if to >= from {
        return value.checked_mul(10_i128.checked_pow(u32::from(to - from))?);
    }
    let by = 10_i128.checked_pow(u32::from(from - to))?;
    (value % by == 0).then(|| value / by)
}

fn timestamps(name: &str, array: &ArrayRef, scale: u8, marks: &mut Marks) -> Result<ArrayRef, WarehouseError> {
    let mut beyond = |row: usize, micros: Option<i64>| {
        if micros.is_none() {
            marks.mark(row, name, "is further away than a timestamp can be");
        }
        micros
    };
    let made: TimestampMicrosecondArray = if let DataType::Struct(_) = array.data_type() {
        let parts = array.as_struct();
        let part = |part: &str| parts.column_by_name(part).map(|array| integers(name, array)).transpose();
        let epoch = part("epoch")?.ok_or_else(|| broken(name, "a timestamp arrived without its epoch"))?;
        // the zone moves nothing: the epoch is UTC's
        match part("fraction")? {
            Some(fraction) => (0..array.len())
                .map(|row| {
                    let valid = parts.is_valid(row) && epoch.is_valid(row);
                    valid.then(|| beyond(row, moment::micros_of_parts(epoch.value(row), fraction.value(row))))?
                })
                .collect(),
            None => (0..array.len())
                .map(|row| {
                    let valid = parts.is_valid(row) && epoch.is_valid(row);
                    valid.then(|| beyond(row, moment::micros(i128::from(epoch.value(row)), scale)))?
                })
                .collect(),
        }
    } else {
        let (values, scale) = match array.data_type() {
            DataType::Timestamp(unit, _) => {
                let scale = match unit {
                    TimeUnit::Second => 0,
                    TimeUnit::Millisecond => 3,
                    TimeUnit::Microsecond => 6,
                    TimeUnit::Nanosecond => 9,
                };
                let values = arrow::compute::cast(array, &DataType::Int64).map_err(|e| broken(name, &e.to_string()))?;
                (values.as_primitive::<Int64Type>().clone(), scale)
            }
            _ => (integers(name, array)?, scale),
        };
        (0..values.len())
            .map(|row| {
                values.is_valid(row).then(|| beyond(row, moment::micros(i128::from(values.value(row)), scale)))?
            })
            .collect()
    };
    Ok(Arc::new(made.with_timezone("UTC")))
}

/// Vectors and structured types, as JSON text. Inside them the service's encodings of times and scaled numbers would
/// show through: such columns have to be cast.
fn nested(name: &str, array: &ArrayRef, field: &Field) -> Result<ArrayRef, WarehouseError> {
    if !plain(field, true) {
        return Err(WarehouseError::sql(format!(
            "the column `{name}` is a structured type with dates, times, decimals or binary inside, which cannot be carried"
        ))
        .with_hint(format!("cast it: {name}::VARIANT AS {name}")));
    }
    Ok(Arc::new(json_texts(array).map_err(|e| broken(name, &e.to_string()))?))
}

fn plain(field: &Field, outermost: bool) -> bool {
    let logical = field.metadata().get("logicalType").map(String::as_str).unwrap_or_default();
    if !outermost && (logical.starts_with("TIME") || logical == "DATE" || scale_of(field).is_some_and(|s| s > 0)) {
        return false;
    }
    match field.data_type() {
        DataType::List(f) | DataType::LargeList(f) | DataType::FixedSizeList(f, _) | DataType::Map(f, _) => {
            plain(f, false)
        }
        DataType::Struct(fields) => fields.iter().all(|f| plain(f, false)),
        DataType::Boolean | DataType::Utf8 | DataType::LargeUtf8 | DataType::Null => true,
        t => t.is_integer() || t.is_floating(),
    }
}
