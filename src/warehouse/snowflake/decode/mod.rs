//! From the service's encodings to the plan's columns. Knows nothing of how rows arrive.

mod encoded;
mod moment;
mod text;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use serde_json::Value;

use super::plan::Plan;
use crate::warehouse::WarehouseError;

/// Why values of a batch could not be carried: row -> `column: reason`, the first of each row.
#[derive(Debug)]
pub(super) struct Marks(Vec<Option<String>>);

impl Marks {
    fn new(rows: usize) -> Self {
        Self(vec![None; rows])
    }

    pub(super) fn mark(&mut self, row: usize, column: &str, reason: &str) {
        if let Some(mark) = self.0.get_mut(row) {
            mark.get_or_insert_with(|| format!("{column}: {reason}"));
        }
    }
}

/// Decodes batches of the service's Arrow.
pub(super) fn arrow_batch(plan: &Plan, batch: &RecordBatch) -> Result<RecordBatch, WarehouseError> {
    if batch.num_columns() != plan.columns.len() {
        return Err(changed(batch.num_columns(), plan.columns.len()));
    }
    let mut marks = Marks::new(batch.num_rows());
    let schema = batch.schema();
    let columns = plan
        .columns
        .iter()
        .zip(batch.columns())
        .zip(schema.fields())
        .map(|((column, array), field)| encoded::decode(column, array, field, &mut marks));
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    assemble(plan, columns, marks, batch.num_rows())
}

/// Decodes rows of the service's JSON.
pub(super) fn json_batch(plan: &Plan, rows: &[Vec<Value>]) -> Result<RecordBatch, WarehouseError> {
    if let Some(row) = rows.iter().find(|row| row.len() != plan.columns.len()) {
        return Err(changed(row.len(), plan.columns.len()));
    }
    let mut marks = Marks::new(rows.len());
    let columns = plan.columns.iter().enumerate().map(|(at, column)| {
        let cells: StringArray = rows
            .iter()
            .map(|row| match row.get(at) {
                None | Some(Value::Null) => None,
                Some(Value::String(text)) => Some(text.clone()),
                Some(other) => Some(other.to_string()),
            })
            .collect();
        text::decode(column, cells, &mut marks)
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    assemble(plan, columns, marks, rows.len())
}

fn assemble(plan: &Plan, mut columns: Vec<ArrayRef>, marks: Marks, rows: usize) -> Result<RecordBatch, WarehouseError> {
    if plan.marks() {
        columns.push(Arc::new(StringArray::from(marks.0)));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(plan.schema.clone(), columns, &options)
        .map_err(|e| WarehouseError::bug(format!("the result does not fit its description: {e}")))
}

fn changed(found: usize, described: usize) -> WarehouseError {
    WarehouseError::retry(format!("the result has {found} columns, its description {described}"))
        .with_hint("a table or view of the query was changed meanwhile; try again")
}

/// A value that breaks the column's own declaration.
fn broken(column: &str, what: &str) -> WarehouseError {
    WarehouseError::bug(format!("column `{column}`: {what}"))
}
