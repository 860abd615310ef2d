//! Reading the change log in the order of its publications, page by page.
//!
//! A [`Position`] names a publication, one of its data files, and a row: none of these ever changes, so a page is read
//! from where the last one ended, whatever was published meanwhile, and what is published later comes after it.

use std::str::FromStr;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection, RowSelector};
use parquet::file::metadata::PageIndexPolicy;
use serde_json::Value;

use super::files::{TableFile, TableFiles};
use super::lookup::time;
use super::{ProfileReader, ProfilesError};
use crate::catalog::Published;

/// Rows decoded at a time.
const BATCH_ROWS: usize = 1024;
/// So many rows are looked at for one page, however few of them are wanted.
const MAX_EXAMINED: u64 = 200_000;

/// A place in the change log: before this row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    /// The number of the publication.
    pub publication: i64,
    /// The number of the data file among those of its run.
    pub file: u32,
    pub row: u64,
}

impl Position {
    /// Before everything from this publication on.
    pub fn of(publication: i64) -> Self {
        Self { publication, file: 0, row: 0 }
    }
}

impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.publication, self.file, self.row)
    }
}

/// A text that is no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no place in the change log")]
pub struct NotAPosition;

impl FromStr for Position {
    type Err = NotAPosition;

    fn from_str(text: &str) -> Result<Self, NotAPosition> {
        let mut parts = text.split('-');
        let (Some(publication), Some(file), Some(row), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(NotAPosition);
        };
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then_some(()).ok_or(NotAPosition);
        [publication, file, row].into_iter().try_for_each(number)?;
        let publication = publication.parse().map_err(|_| NotAPosition)?;
        let file = file.parse().map_err(|_| NotAPosition)?;
        Ok(Self { publication, file, row: row.parse().map_err(|_| NotAPosition)? })
    }
}

/// One change of one profile by one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    pub run_id: String,
    pub at: DateTime<Utc>,
    pub model: String,
    /// `entered`, `exited` or `changed`.
    pub change: String,
    pub profile_id: String,
    pub identity: String,
    /// An object of attributes, or null.
    pub before: Value,
    pub after: Value,
}

/// A page of the change log.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    pub changes: Vec<Change>,
    /// Where the next page begins.
    pub next: Position,
    /// Is there, or may there be, more after it already?
    pub more: bool,
}

impl ProfileReader {
    /// The next changes from that place on: those of these publications, which are in order and of the reader's cut.
    /// `end`: where the log goes on when all of them are read.
    pub async fn changes(
        &self,
        publications: &[Published],
        from: Position,
        wanted: &WantedChanges,
        end: Position,
    ) -> Result<Changes, ProfilesError> {
        let files = &self.tables.changes;
        let mut page = Page { changes: Vec::new(), examined: 0, wanted };
        for publication in publications.iter().filter(|publication| publication.seq >= from.publication) {
            let begin = if publication.seq == from.publication { from } else { Position::of(publication.seq) };
            let folder = format!("{}/", publication.run_id);
            let mut of_run: Vec<&TableFile> =
                files.files.iter().map(AsRef::as_ref).filter(|file| file.known.path.starts_with(&folder)).collect();
            of_run.sort_by(|a, b| a.known.path.cmp(&b.known.path));
            for (number, file) in (0..).zip(of_run).skip(begin.file as usize) {
                let first = if number == begin.file { begin.row } else { 0 };
                // not the publication's: what an upload adds may bring profiles into any model
                let model = files.partition_value(file).unwrap_or_default();
                if wanted.model.as_deref().is_some_and(|wanted| wanted != model) {
                    continue;
                }
                if let Some(row) = page.read(files, file, first, model).await? {
                    let next = Position { publication: publication.seq, file: number, row };
                    return Ok(Changes { changes: page.changes, next, more: true });
                }
            }
        }
        Ok(Changes { changes: page.changes, next: end.max(from), more: false })
    }
}

/// Which changes are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedChanges {
    /// Only of this model.
    pub model: Option<String>,
    /// Only of this kind.
    pub change: Option<String>,
    /// At most so many a page.
    pub limit: usize,
}

struct Page<'a> {
    changes: Vec<Change>,
    examined: u64,
    wanted: &'a WantedChanges,
}

impl Page<'_> {
    fn is_full(&self) -> bool {
        self.changes.len() >= self.wanted.limit || self.examined >= MAX_EXAMINED
    }

    /// Takes rows of a file until it ends, or the page is full: then the row that comes next.
    async fn read(
        &mut self,
        files: &TableFiles,
        file: &TableFile,
        first: u64,
        model: &str,
    ) -> Result<Option<u64>, ProfilesError> {
        if first >= file.rows {
            return Ok(None);
        }
        if self.is_full() {
            return Ok(Some(first));
        }
        // pages before the first row are skipped, not decoded
        let options = ArrowReaderOptions::new().with_offset_index_policy(PageIndexPolicy::Optional);
        let builder = ParquetRecordBatchStreamBuilder::new_with_options(files.reader(file), options);
        let builder = builder.await.map_err(|e| file.error(e))?;
        let rest = (file.rows - first) as usize;
        let selection = RowSelection::from(vec![RowSelector::skip(first as usize), RowSelector::select(rest)]);
        let builder = builder.with_batch_size(BATCH_ROWS.min(self.wanted.limit.max(1))).with_row_selection(selection);
        let mut batches = builder.build().map_err(|e| file.error(e))?;
        let mut row = first;
        while let Some(batch) = batches.try_next().await.map_err(|e| file.error(e))? {
            let columns =
                Columns::of(&batch).map_err(|message| ProfilesError::Corrupt { table: files.id.clone(), message })?;
            for index in 0..batch.num_rows() {
                if self.is_full() {
                    return Ok(Some(row));
                }
                row += 1;
                self.examined += 1;
                if self.wanted.change.as_deref().is_none_or(|kind| columns.change.value(index) == kind) {
                    self.changes.push(columns.row(index, model));
                }
            }
        }
        Ok(None)
    }
}

/// A batch's columns.
struct Columns<'a> {
    run_id: StringArray,
    at: &'a [i64],
    change: StringArray,
    profile_id: StringArray,
    identity: StringArray,
    before: StringArray,
    after: StringArray,
}

impl<'a> Columns<'a> {
    fn of(batch: &'a RecordBatch) -> Result<Self, String> {
        let text = |name: &str| -> Result<StringArray, String> {
            let column = batch.column_by_name(name).ok_or_else(|| format!("no `{name}`"))?;
            let column = arrow::compute::cast(column, &DataType::Utf8).map_err(|e| e.to_string())?;
            Ok(column.as_string::<i32>().clone())
        };
        let at = batch.column_by_name("at").and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        Ok(Self {
            run_id: text("run_id")?,
            at: at.ok_or("no timestamp in `at`")?.values(),
            change: text("change")?,
            profile_id: text("profile_id")?,
            identity: text("identity")?,
            before: text("before")?,
            after: text("after")?,
        })
    }

    fn row(&self, row: usize, model: &str) -> Change {
        let object = |column: &StringArray| match column.is_null(row) {
            true => Value::Null,
            false => serde_json::from_str(column.value(row)).unwrap_or_else(|_| column.value(row).into()),
        };
        Change {
            run_id: self.run_id.value(row).to_string(),
            at: time(self.at[row]),
            model: model.to_string(),
            change: self.change.value(row).to_string(),
            profile_id: self.profile_id.value(row).to_string(),
            identity: self.identity.value(row).to_string(),
            before: object(&self.before),
            after: object(&self.after),
        }
    }
}
