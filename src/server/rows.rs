//! Rows of a query's result as JSON; and a sample of them, within bounds: so many rows, and so many bytes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, UInt64Type};
use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use datafusion::execution::SendableRecordBatchStream;
use futures::StreamExt;
use serde_json::Value;

use super::answer::ApiError;
use crate::values::ValueType;
use crate::values::convert::json_texts;
use crate::values::json::cell_to_json;
use crate::warehouse::{UNCONVERTIBLE_COLUMN, WarehouseError};

/// Text of all cells together; an answer is held in memory.
const MAX_BYTES: usize = 8 << 20;

/// The first rows of a result.
#[derive(Debug)]
pub struct Sample {
    /// Of the rows' cells, in order; [`UNCONVERTIBLE_COLUMN`] is not among them.
    pub fields: Vec<Arc<Field>>,
    pub rows: Vec<Vec<Value>>,
    /// Row -> why one of its values could not be carried.
    pub unconvertible: Vec<(usize, String)>,
}

/// Reads at most `limit` rows, and lets go of the stream.
pub async fn sample(mut stream: SendableRecordBatchStream, limit: usize) -> Result<Sample, ApiError> {
    let schema = stream.schema();
    let mut sample = Sample { fields: shown(&schema), rows: Vec::new(), unconvertible: Vec::new() };
    let mut bytes = 0;
    while sample.rows.len() < limit {
        let Some(batch) = stream.next().await else { break };
        let batch = batch.map_err(of_stream)?;
        let batch = batch.slice(0, batch.num_rows().min(limit - sample.rows.len()));
        let cells = Cells::of(&batch).map_err(ApiError::internal)?;
        for row in 0..batch.num_rows() {
            if let Some(why) = cells.unconvertible(row) {
                sample.unconvertible.push((sample.rows.len(), why));
            }
            let row: Vec<Value> = cells.row(row).collect();
            bytes += row.iter().map(weight).sum::<usize>();
            if bytes > MAX_BYTES {
                return Err(ApiError::new(
                    axum::http::StatusCode::UNPROCESSABLE_ENTITY,
                    "too-large",
                    "the rows are too large to be shown",
                )
                .with_hint("select fewer columns, or cut long texts in the query"));
            }
            sample.rows.push(row);
        }
    }
    Ok(sample)
}

/// The warehouse's own error, where the stream carries one.
pub fn of_stream(error: DataFusionError) -> ApiError {
    match error {
        DataFusionError::External(inner) => match inner.downcast::<WarehouseError>() {
            Ok(error) => (*error).into(),
            Err(other) => ApiError::internal(other),
        },
        DataFusionError::Context(_, inner) => of_stream(*inner),
        other => WarehouseError::sql(other.strip_backtrace()).into(),
    }
}

/// The name of a column's type, as the value types are called; Arrow's own name for what a profile cannot hold.
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

fn shown(schema: &Schema) -> Vec<Arc<Field>> {
    schema.fields().iter().filter(|field| field.name() != UNCONVERTIBLE_COLUMN).cloned().collect()
}

/// About how much memory a value takes.
fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 8,
        Value::Array(items) => items.iter().map(weight).sum::<usize>() + 8,
        Value::Object(entries) => entries.iter().map(|(key, value)| key.len() + weight(value)).sum::<usize>() + 8,
        _ => 8,
    }
}

/// The columns of a batch, ready to be written cell by cell as [`cell_to_json`] has it; without [`UNCONVERTIBLE_COLUMN`].
pub struct Cells {
    columns: Vec<(ArrayRef, ValueType)>,
    unconvertible: Option<ArrayRef>,
}

impl Cells {
    pub fn of(batch: &RecordBatch) -> Result<Self, ArrowError> {
        let mut cells = Self { columns: Vec::with_capacity(batch.num_columns()), unconvertible: None };
        for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
            if field.name() == UNCONVERTIBLE_COLUMN {
                cells.unconvertible = Some(cast(column, &DataType::Utf8)?);
                continue;
            }
            let value_type = ValueType::of(field).unwrap_or(ValueType::String);
            cells.columns.push((plain(column, value_type)?, value_type));
        }
        Ok(cells)
    }

    /// The cells of a row, in the order of the columns.
    pub fn row(&self, row: usize) -> impl Iterator<Item = Value> {
        self.columns.iter().map(move |(column, value_type)| match column.data_type() {
            DataType::UInt64 if column.is_valid(row) => column.as_primitive::<UInt64Type>().value(row).into(),
            _ => cell_to_json(column.as_ref(), row, *value_type),
        })
    }

    fn unconvertible(&self, row: usize) -> Option<String> {
        let reasons = self.unconvertible.as_ref()?.as_string::<i32>();
        reasons.is_valid(row).then(|| reasons.value(row).to_string())
    }
}

/// A column in the layout that [`cell_to_json`] knows, where that loses nothing.
fn plain(column: &ArrayRef, value_type: ValueType) -> Result<ArrayRef, ArrowError> {
    if value_type == ValueType::Json && column.data_type().is_nested() {
        return Ok(Arc::new(json_texts(column)?));
    }
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
        DataType::LargeList(_)
        | DataType::FixedSizeList(_, _)
        | DataType::ListView(_)
        | DataType::LargeListView(_)
        | DataType::List(_) => ValueType::List.arrow_type(),
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::RunEndEncoded(_, values) => values.data_type().clone(),
        _ => return Ok(column.clone()),
    };
    if *column.data_type() == target { Ok(column.clone()) } else { cast(column, &target) }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use arrow::array::{Int32Array, ListArray, StringArray, StructArray, UInt64Array};
    use arrow::datatypes::Int32Type;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use serde_json::json;

    use super::*;

    fn stream(batches: Vec<RecordBatch>) -> SendableRecordBatchStream {
        let schema = batches[0].schema();
        Box::pin(RecordBatchStreamAdapter::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
    }

    #[tokio::test]
    async fn a_sample_ends_at_its_limit_and_says_which_rows_lack_a_value() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
        let reasons: ArrayRef = Arc::new(StringArray::from(vec![None, Some("n: too large"), None]));
        let batch = batch(vec![("n", numbers), (UNCONVERTIBLE_COLUMN, reasons)]);
        let sample = sample(stream(vec![batch.clone(), batch]), 5).await.unwrap();
        assert_eq!(sample.rows, [[json!(1)], [json!(2)], [json!(3)], [json!(1)], [json!(2)]]);
        assert_eq!(sample.unconvertible, [(1, "n: too large".to_string()), (4, "n: too large".to_string())]);
        assert_eq!(sample.fields.len(), 1);
    }

    #[tokio::test]
    async fn every_layout_becomes_the_value_that_a_profile_would_hold() {
        let person: ArrayRef = Arc::new(StructArray::from(vec![(
            Arc::new(Field::new("age", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![30])) as ArrayRef,
        )]));
        let batch = batch(vec![
            ("big", Arc::new(UInt64Array::from(vec![u64::MAX]))),
            ("list", Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None])]))),
            ("person", person),
        ]);
        let sample = sample(stream(vec![batch]), 20).await.unwrap();
        assert_eq!(sample.rows, [vec![json!(u64::MAX), json!(["1", null]), json!({"age": 30})]]);
        let names: Vec<String> = sample.fields.iter().map(|field| type_name(field)).collect();
        assert_eq!(names, ["int", "list", "json"]);
    }

    #[tokio::test]
    async fn rows_that_are_too_large_are_refused_and_not_held() {
        let text: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(3 << 20); 3]));
        let error = sample(stream(vec![batch(vec![("t", text)])]), 20).await.unwrap_err();
        assert_eq!(error.status(), 422);
    }
}
