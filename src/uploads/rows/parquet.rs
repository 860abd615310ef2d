//! Parquet. Its types are known: every value becomes its text, as a model's would (`docs/value-types.md`).

use std::fs::File;
use std::path::Path;

use arrow::array::{Array, ArrayRef, RecordBatch, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Schema};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use super::{Columns, Format, RowBatch, Rows};
use crate::identity::identity_texts;
use crate::uploads::UploadError;
use crate::values::ValueType;
use crate::values::convert::json_texts;

/// A row may be large, and pages are compressed: few at a time.
const ROWS: usize = 1024;
/// What a file may unpack to, as a multiple of its own size (a small one: of a megabyte).
const MAX_RATIO: u64 = 200;

pub(super) struct Parquet {
    reader: ParquetRecordBatchReader,
    columns: Columns,
    own: Vec<String>,
    /// Column of the file -> where it goes.
    positions: Vec<usize>,
    identities: Vec<String>,
    row: u64,
}

impl Parquet {
    pub fn open(path: &Path, known: &[String], identities: &[String]) -> Result<Self, UploadError> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        if size == 0 {
            return Err(UploadError::Empty);
        }
        let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
        let unpacked: i64 = builder.metadata().row_groups().iter().map(|group| group.total_byte_size().max(0)).sum();
        if unpacked as u64 / MAX_RATIO > size.max(1 << 20) {
            let message = format!("it would unpack to more than {MAX_RATIO} times its size");
            return Err(UploadError::NotThatFormat { format: Format::Parquet.as_str(), message });
        }
        let schema = builder.schema().clone();
        let own: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        check(&schema, identities)?;
        let mut columns = Columns::new(known);
        columns
            .admit(own.iter().map(String::as_str))
            .map_err(|(column, message)| UploadError::Column { column, message })?;
        let positions = own.iter().filter_map(|name| columns.position(name)).collect();
        let reader = builder.with_batch_size(ROWS).build().map_err(unreadable)?;
        Ok(Self { reader, columns, own, positions, identities: identities.to_vec(), row: 0 })
    }

    fn texts(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>, UploadError> {
        let nothing: ArrayRef = std::sync::Arc::new(StringArray::new_null(batch.num_rows()));
        let mut columns = vec![nothing; self.columns.names().len()];
        for ((position, name), column) in self.positions.iter().zip(&self.own).zip(batch.columns()) {
            columns[*position] = match column.data_type() {
                nested if nested.is_nested() => std::sync::Arc::new(json_texts(column)?),
                _ if self.identities.contains(name) => std::sync::Arc::new(identity_texts(column)?),
                _ => cast(column, &DataType::Utf8)?,
            };
        }
        Ok(columns)
    }
}

fn unreadable(error: impl std::fmt::Display) -> UploadError {
    UploadError::NotThatFormat { format: Format::Parquet.as_str(), message: error.to_string() }
}

fn check(schema: &Schema, identities: &[String]) -> Result<(), UploadError> {
    for (position, field) in schema.fields().iter().enumerate() {
        let fault = |message: String| UploadError::Column { column: field.name().clone(), message };
        if schema.fields()[..position].iter().any(|other| other.name() == field.name()) {
            return Err(fault("it comes twice".into()));
        }
        let Some(value_type) = ValueType::of(field) else {
            return Err(fault(format!("it is {}, which a profile cannot hold", field.data_type())));
        };
        let identifies =
            matches!(value_type, ValueType::String | ValueType::Int | ValueType::Decimal { .. } | ValueType::Date);
        if identities.contains(field.name()) && !identifies {
            return Err(fault(format!("it is {value_type}, which identifies nobody")));
        }
    }
    Ok(())
}

impl Rows for Parquet {
    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn own_columns(&self) -> Vec<String> {
        self.own.clone()
    }

    fn next_batch(&mut self) -> Result<Option<RowBatch>, UploadError> {
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let batch = batch.map_err(unreadable)?;
        let first = self.row + 1;
        self.row += batch.num_rows() as u64;
        Ok(Some(RowBatch { columns: self.texts(&batch)?, lines: (first..=self.row).collect(), faults: Vec::new() }))
    }
}
