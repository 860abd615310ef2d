//! Rows of a body, whatever its format: batches of text columns, and the rows that cannot be read.
//!
//! Every value is kept as text, as it was sent: a model that reads the stream says by its contract what it shall be.
//! Invariants: a row that cannot be read never stops the ones after it; a batch holds a few thousand rows or a few
//! megabytes, whatever the body holds.

mod columns;
mod csv;
pub mod json;
mod lines;
mod ndjson;
mod parquet;

use std::path::Path;

use arrow::array::{ArrayRef, StringBuilder};

pub use columns::{Columns, MAX_COLUMNS};

use super::UploadError;
use super::report::{Fault, FaultyRow};

/// What a body is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Ndjson,
    /// With a line of names first; RFC 4180.
    Csv,
    Parquet,
}

impl Format {
    /// The format of a media type (parameters such as `charset` aside).
    pub fn of_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
                Some(Self::Ndjson)
            }
            "text/csv" => Some(Self::Csv),
            "application/vnd.apache.parquet" => Some(Self::Parquet),
            _ => None,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ndjson => "NDJSON",
            Self::Csv => "CSV",
            Self::Parquet => "Parquet",
        }
    }
}

/// Some rows, in order.
#[derive(Debug)]
pub struct RowBatch {
    /// A text column for each of [`Rows::columns`].
    pub columns: Vec<ArrayRef>,
    /// The line of each row, from 1.
    pub lines: Vec<u64>,
    /// Rows that could not be read; they are not among the others.
    pub faults: Vec<FaultyRow>,
}

/// Reads a body.
pub trait Rows: Send {
    /// The stream's columns: those that it had, then those that the body adds.
    fn columns(&self) -> &Columns;

    /// Which of them the body itself has, in its order.
    fn own_columns(&self) -> Vec<String>;

    /// The next rows; none at the end.
    fn next_batch(&mut self) -> Result<Option<RowBatch>, UploadError>;
}

/// Opens a body. `known` are the columns of the stream's table, `identities` the project's identity fields.
///
/// # Errors
/// When nothing of it can be read, when it is empty, or (CSV, Parquet) when one of its names cannot be a column.
pub fn open(
    path: &Path,
    format: Format,
    known: &[String],
    identities: &[String],
) -> Result<Box<dyn Rows>, UploadError> {
    Ok(match format {
        Format::Ndjson => Box::new(ndjson::Ndjson::open(path, known, identities)?),
        Format::Csv => Box::new(csv::Csv::open(path, known)?),
        Format::Parquet => Box::new(parquet::Parquet::open(path, known, identities)?),
    })
}

/// Is a column of the body an identity field?
pub fn check_identities(rows: &dyn Rows, identities: &[String]) -> Result<(), UploadError> {
    let own = rows.own_columns();
    if own.iter().any(|name| identities.contains(name)) {
        return Ok(());
    }
    Err(UploadError::NoIdentity { found: own.join(", "), wanted: identities.to_vec() })
}

/// A batch is full at so many rows or bytes.
const BATCH_ROWS: usize = 8192;
const BATCH_BYTES: usize = 4 << 20;

/// Gathers rows into a batch.
struct BatchBuilder {
    columns: Vec<StringBuilder>,
    lines: Vec<u64>,
    faults: Vec<FaultyRow>,
    bytes: usize,
}

impl BatchBuilder {
    fn new(columns: usize) -> Self {
        let columns = std::iter::repeat_with(StringBuilder::new).take(columns).collect();
        Self { columns, lines: Vec::new(), faults: Vec::new(), bytes: 0 }
    }

    /// Adds a row: the given columns' texts, the others null.
    fn push<'a>(&mut self, line: u64, cells: impl Iterator<Item = (usize, Option<std::borrow::Cow<'a, str>>)>) {
        for (column, text) in cells {
            self.bytes += text.as_ref().map_or(0, |text| text.len());
            self.columns[column].append_option(text);
        }
        self.lines.push(line);
        // a column that the row does not have
        let rows = self.lines.len();
        for column in &mut self.columns {
            if arrow::array::ArrayBuilder::len(column) < rows {
                column.append_null();
            }
        }
        self.bytes += 8 * self.columns.len();
    }

    fn fault(&mut self, line: u64, fault: Fault, detail: impl Into<String>) {
        self.faults.push(FaultyRow { line, fault, detail: detail.into() });
        self.bytes += 64;
    }

    fn is_full(&self) -> bool {
        self.lines.len() + self.faults.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// What was gathered, if anything.
    fn take(&mut self) -> Option<RowBatch> {
        if self.lines.is_empty() && self.faults.is_empty() {
            return None;
        }
        self.bytes = 0;
        Some(RowBatch {
            columns: self.columns.iter_mut().map(|column| std::sync::Arc::new(column.finish()) as ArrayRef).collect(),
            lines: std::mem::take(&mut self.lines),
            faults: std::mem::take(&mut self.faults),
        })
    }
}
