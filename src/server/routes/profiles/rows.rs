//! Rows of a query's result as JSON.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use serde_json::Value;

use crate::values::ValueType;
use crate::values::json::cell_to_json;

/// The columns of a batch, ready to be written cell by cell as [`cell_to_json`] has it.
pub struct Cells {
    columns: Vec<(ArrayRef, ValueType)>,
}

impl Cells {
    pub fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let schema = batch.schema();
        let columns = schema.fields().iter().zip(batch.columns()).map(|(field, column)| {
            let value_type = ValueType::of(field).unwrap_or(ValueType::String);
            Ok((plain(column)?, value_type))
        });
        Ok(Self { columns: columns.collect::<Result<_, ArrowError>>()? })
    }

    /// The cells of a row, in the order of the columns.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Value> {
        self.columns.iter().map(move |(column, value_type)| match column.data_type() {
            DataType::UInt64 if column.is_valid(row) => column.as_primitive::<UInt64Type>().value(row).into(),
            _ => cell_to_json(column.as_ref(), row, *value_type),
        })
    }
}

/// A column of a type that a query may have computed, as the type that a profile would hold it in, where that loses
/// nothing.
fn plain(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let target = match column.data_type() {
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => {
            DataType::Int64
        }
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::Timestamp(unit, _) if *unit != TimeUnit::Microsecond => {
            DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        }
        DataType::Date64 => DataType::Date32,
        DataType::LargeList(item) | DataType::FixedSizeList(item, _) => DataType::List(item.clone()),
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        _ => return Ok(column.clone()),
    };
    cast(column, &target)
}

/// The name of a column's type, as the value types are called; Arrow's own name for the others.
pub fn type_name(field: &Field) -> String {
    match field.data_type() {
        DataType::Null => "null".into(),
        _ => ValueType::of(field).map_or_else(|| field.data_type().to_string(), |value_type| value_type.to_string()),
    }
}

/// A batch without rows.
pub fn empty(schema: &Arc<Schema>) -> RecordBatch {
    RecordBatch::new_empty(schema.clone())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{Float32Array, Int32Array, StringArray, TimestampSecondArray, UInt64Array};
    use serde_json::json;

    #[test]
    fn what_a_query_computes_is_shown_as_a_profile_would_hold_it() {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]))),
            ("b", Arc::new(Int32Array::from(vec![-1, 2]))),
            ("c", Arc::new(Float32Array::from(vec![0.5, f32::NAN]))),
            ("d", Arc::new(TimestampSecondArray::from(vec![0, 1]))),
            ("e", Arc::new(StringArray::from(vec![Some("x"), None]))),
        ];
        let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();
        let cells = Cells::of(&batch).unwrap();
        let rows: Vec<Value> = (0..2).map(|row| cells.row(row).collect()).collect();
        assert_eq!(rows[0], json!([u64::MAX, -1, 0.5, "1970-01-01T00:00:00Z", "x"]));
        assert_eq!(rows[1], json!([null, 2, "NaN", "1970-01-01T00:00:01Z", null]));
        let names: Vec<String> = batch.schema().fields().iter().map(|field| type_name(field)).collect();
        assert_eq!(names, ["int", "int", "float", "timestamp", "string"]);
    }
}
