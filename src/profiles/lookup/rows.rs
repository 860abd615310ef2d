//! Reading a few rows of a table: at known positions, or by scanning just the columns that tell them.
//!
//! Either way a row costs one page of each column: row groups and pages are chosen by their statistics, rows by their
//! position or by a filter on the key columns, and the other columns are decoded for the chosen rows only.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use arrow::error::ArrowError;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ArrowReaderMetadata, RowFilter, RowSelection};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::statistics::Statistics;

use crate::profiles::ProfilesError;
use crate::profiles::files::{TableFile, TableFiles};
use crate::profiles::tables::FILES_AT_ONCE;
use crate::store::schema::{KEY_HI, KEY_LO};

/// Rows found in one file.
pub struct Found {
    pub file: Arc<TableFile>,
    pub batch: RecordBatch,
}

/// The rows at these positions, ascending; a position counts through the table's files in their order.
pub async fn at(files: &TableFiles, rows: &[u32], columns: &[&str]) -> Result<Vec<Found>, ProfilesError> {
    let mut reads = Vec::new();
    let (mut first, mut rest) = (0u64, rows);
    for file in &files.files {
        let end = first + file.rows;
        let (here, later) = rest.split_at(rest.partition_point(|row| u64::from(*row) < end));
        if !here.is_empty() {
            let here: Vec<u64> = here.iter().map(|row| u64::from(*row) - first).collect();
            reads.push(read_at(files, file, here, columns).boxed());
        }
        (first, rest) = (end, later);
        if rest.is_empty() {
            break;
        }
    }
    all(reads).await
}

async fn read_at(
    files: &TableFiles,
    file: &Arc<TableFile>,
    rows: Vec<u64>,
    columns: &[&str],
) -> Result<Vec<Found>, ProfilesError> {
    let footer = files.footer(file).await?;
    let (mut groups, mut ranges) = (Vec::new(), Vec::<Range<usize>>::new());
    // selections count only through the row groups that are read
    let (mut first, mut selected_first, mut rest) = (0u64, 0usize, rows.as_slice());
    for (group, meta) in footer.metadata().row_groups().iter().enumerate() {
        let length = meta.num_rows() as u64;
        let (here, later) = rest.split_at(rest.partition_point(|row| *row < first + length));
        if !here.is_empty() {
            groups.push(group);
            ranges.extend(here.iter().map(|row| {
                let row = selected_first + (row - first) as usize;
                row..row + 1
            }));
            selected_first += length as usize;
        }
        (first, rest) = (first + length, later);
    }
    let selection = RowSelection::from_consecutive_ranges(ranges.into_iter(), selected_first);
    let scan = Scan { groups, selection: Some(selection), filter: None, batch: rows.len() };
    scan.run(files, file, footer, columns).await
}

/// The rows with one of these split key hashes; `partition`: only in that partition.
pub async fn by_key(
    files: &TableFiles,
    partition: Option<&str>,
    keys: &[(i64, i64)],
    columns: &[&str],
) -> Result<Vec<Found>, ProfilesError> {
    let (Some(low), Some(high)) = (keys.iter().min().map(|k| k.0), keys.iter().max().map(|k| k.0)) else {
        return Ok(Vec::new());
    };
    let mut reads = Vec::new();
    for file in &files.files {
        let in_partition = partition.is_none() || files.partition_value(file) == partition;
        if in_partition && file.known.may_hold(low, high) {
            reads.push(read_keys(files, file, keys, columns).boxed());
        }
    }
    all(reads).await
}

async fn read_keys(
    files: &TableFiles,
    file: &Arc<TableFile>,
    keys: &[(i64, i64)],
    columns: &[&str],
) -> Result<Vec<Found>, ProfilesError> {
    let footer = files.footer(file).await?;
    let Some(key_column) = column_index(footer, KEY_HI) else { return Ok(Vec::new()) };
    let within = |min: i64, max: i64| keys.iter().any(|(hi, _)| (min..=max).contains(hi));
    let (groups, selection) = groups_and_pages(footer.metadata(), key_column, within);
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let keys = keys.to_vec();
    let filter = ArrowPredicateFn::new(mask(footer, &[KEY_HI, KEY_LO]), move |batch: RecordBatch| {
        let (hi, lo) = (long(&batch, KEY_HI)?, long(&batch, KEY_LO)?);
        Ok(hi.iter().zip(lo).map(|key| Some(keys.contains(&(*key.0, *key.1)))).collect::<BooleanArray>())
    });
    let filter = Some(RowFilter::new(vec![Box::new(filter)]));
    Scan { groups, selection, filter, batch: 8192 }.run(files, file, footer, columns).await
}

/// The rows whose string column `name` has this value.
pub async fn by_text(
    files: &TableFiles,
    name: &str,
    value: &str,
    columns: &[&str],
) -> Result<Vec<Found>, ProfilesError> {
    all(files.files.iter().map(|file| read_text(files, file, name, value, columns).boxed()).collect()).await
}

async fn read_text(
    files: &TableFiles,
    file: &Arc<TableFile>,
    name: &str,
    value: &str,
    columns: &[&str],
) -> Result<Vec<Found>, ProfilesError> {
    let footer = files.footer(file).await?;
    let Some(index) = column_index(footer, name) else { return Ok(Vec::new()) };
    let may_hold = |group: &usize| match footer.metadata().row_group(*group).column(index).statistics() {
        Some(Statistics::ByteArray(values)) => {
            // a shortened bound is still a bound
            let above = values.min_opt().is_none_or(|min| min.data() <= value.as_bytes());
            above && values.max_opt().is_none_or(|max| max.data() >= value.as_bytes())
        }
        _ => true,
    };
    let groups: Vec<usize> = (0..footer.metadata().num_row_groups()).filter(may_hold).collect();
    if groups.is_empty() {
        return Ok(Vec::new());
    }
    let value = StringArray::new_scalar(value);
    let filter = ArrowPredicateFn::new(mask(footer, &[name]), move |batch: RecordBatch| {
        let texts = arrow::compute::cast(batch.column(0), &DataType::Utf8)?;
        arrow::compute::kernels::cmp::eq(&texts, &value)
    });
    let filter = Some(RowFilter::new(vec![Box::new(filter)]));
    Scan { groups, selection: None, filter, batch: 8192 }.run(files, file, footer, columns).await
}

/// What all these reads find, some at a time.
async fn all(reads: Vec<BoxFuture<'_, Result<Vec<Found>, ProfilesError>>>) -> Result<Vec<Found>, ProfilesError> {
    let mut found = Vec::new();
    let mut reads = futures::stream::iter(reads).buffer_unordered(FILES_AT_ONCE);
    while let Some(more) = reads.try_next().await? {
        found.extend(more);
    }
    Ok(found)
}

struct Scan {
    groups: Vec<usize>,
    selection: Option<RowSelection>,
    filter: Option<RowFilter>,
    batch: usize,
}

impl Scan {
    async fn run(
        self,
        files: &TableFiles,
        file: &Arc<TableFile>,
        footer: &ArrowReaderMetadata,
        columns: &[&str],
    ) -> Result<Vec<Found>, ProfilesError> {
        let mut builder = ParquetRecordBatchStreamBuilder::new_with_metadata(files.reader(file), footer.clone())
            .with_projection(mask(footer, columns))
            .with_row_groups(self.groups)
            .with_batch_size(self.batch);
        if let Some(selection) = self.selection {
            builder = builder.with_row_selection(selection);
        }
        if let Some(filter) = self.filter {
            builder = builder.with_row_filter(filter);
        }
        let batches = builder.build().map_err(|e| file.error(e))?;
        let found = batches.map_ok(|batch| Found { file: file.clone(), batch });
        found.try_collect().await.map_err(|e| file.error(e))
    }
}

/// Those of the columns that the file has.
pub fn mask(footer: &ArrowReaderMetadata, columns: &[&str]) -> ProjectionMask {
    let fields = footer.schema().fields().iter().enumerate();
    let roots = fields.filter(|(_, field)| columns.contains(&field.name().as_str())).map(|(root, _)| root);
    ProjectionMask::roots(footer.parquet_schema(), roots)
}

/// The index of a plain column among the file's leaves.
fn column_index(footer: &ArrowReaderMetadata, name: &str) -> Option<usize> {
    footer.parquet_schema().columns().iter().position(|column| column.path().parts() == [name])
}

/// The row groups that may hold a wanted value of a long column, and the rows of their pages that may.
fn groups_and_pages(
    file: &ParquetMetaData,
    column: usize,
    within: impl Fn(i64, i64) -> bool,
) -> (Vec<usize>, Option<RowSelection>) {
    let (mut groups, mut ranges, mut total) = (Vec::new(), Vec::new(), 0);
    for (group, meta) in file.row_groups().iter().enumerate() {
        if let Some(Statistics::Int64(values)) = meta.column(column).statistics()
            && let (Some(min), Some(max)) = (values.min_opt(), values.max_opt())
            && !within(*min, *max)
        {
            continue;
        }
        groups.push(group);
        let rows = meta.num_rows() as usize;
        match (file.column_index().map(|i| &i[group][column]), file.offset_index().map(|i| &i[group][column])) {
            (Some(ColumnIndexMetaData::INT64(pages)), Some(places)) => {
                let places = places.page_locations();
                for (page, place) in places.iter().enumerate() {
                    let bounds = pages.min_value(page).zip(pages.max_value(page));
                    if bounds.is_none_or(|(min, max)| within(*min, *max)) {
                        let end = places.get(page + 1).map_or(rows, |next| next.first_row_index as usize);
                        ranges.push(total + place.first_row_index as usize..total + end);
                    }
                }
            }
            _ => ranges.push(total..total + rows),
        }
        total += rows;
    }
    (groups, Some(RowSelection::from_consecutive_ranges(ranges.into_iter(), total)))
}

/// The values of a long column.
pub fn long<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a [i64], ArrowError> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>());
    column.map(|values| values.values().as_ref()).ok_or_else(|| ArrowError::SchemaError(format!("no long `{name}`")))
}
