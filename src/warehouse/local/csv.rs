//! The schema of CSV files, told by every row.
//!
//! A column is of the first of these types that every value of it reads as, with the very parsers that later read it:
//! boolean (`true`, `false`), whole number, number, date (`2026-01-31`), timestamp (ISO 8601; with an offset anywhere:
//! in UTC), else text. A value that a number would not give back (`007`, `+49…`, more digits than a float holds) makes
//! its column text. Empty values are null. A column with no value at all is text.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format as CsvReader;
use arrow::datatypes::{DataType, Date32Type, Field, Float64Type, Schema, TimeUnit};
use bytes::{Buf, Bytes};
use chrono::Utc;
use datafusion::common::DataFusionError;
use datafusion::common::runtime::SpawnedTask;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::table::{Compression, Inferred, Traits};
use super::{content, errors};
use crate::warehouse::WarehouseError;

/// A header longer than this is no header.
const LONGEST_HEADER: usize = 4 << 20;
/// Rows looked at in one go.
const BATCH_ROWS: usize = 8192;
/// Digits that a 64-bit float always gives back as they were.
const FLOAT_DIGITS: usize = 15;
/// Files read at the same time.
const FILES_AT_ONCE: usize = 4;

/// Reads all files and infers one schema for them. They must have the same header.
///
/// # Errors
/// Configuration when a file is no CSV, headers differ, or a row has more or fewer values than the header.
pub(super) async fn infer(
    store: &Arc<dyn ObjectStore>,
    files: &[ObjectMeta],
    delimiter: u8,
    compression: Compression,
) -> Result<Inferred, WarehouseError> {
    let scans: Vec<BoxFuture<'static, _>> = files
        .iter()
        .filter(|file| file.size > 0)
        .map(|file| scan_task(Arc::clone(store), file.clone(), delimiter, compression).boxed())
        .collect();
    let mut scans = futures::stream::iter(scans).buffered(FILES_AT_ONCE);
    let mut merged: Option<(Path, Scan)> = None;
    while let Some((location, scan)) = scans.try_next().await? {
        match &mut merged {
            None => merged = Some((location, scan)),
            Some((first, all)) if all.names != scan.names => {
                return Err(WarehouseError::configuration(format!("{first} and {location} have different headers"))
                    .with_hint("the files of one table need the same columns in the same order"));
            }
            Some((_, all)) => all.merge(scan),
        }
    }
    let (_, scan) = merged.ok_or_else(|| WarehouseError::configuration("no file has a header"))?;
    let fields: Vec<Field> =
        scan.names.iter().zip(&scan.columns).map(|(name, column)| Field::new(name, column.data_type(), true)).collect();
    let traits = Traits { lines_in_values: scan.lines_in_values, ..Traits::default() };
    Ok(Inferred { schema: Arc::new(Schema::new(fields)), traits })
}

/// The names in a file's header.
pub(super) async fn header(
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    delimiter: u8,
    compression: Compression,
) -> Result<Vec<String>, WarehouseError> {
    let mut chunks = content::read(store, file, compression).await.map_err(|e| errors::from_datafusion(&e))?;
    let (names, _) = read_header(&mut chunks, file, delimiter).await?;
    Ok(names)
}

/// Reads up to the end of the header; returns the names and all bytes read so far.
async fn read_header(
    chunks: &mut content::Chunks,
    file: &ObjectMeta,
    delimiter: u8,
) -> Result<(Vec<String>, Vec<u8>), WarehouseError> {
    let mut start = Vec::new();
    while !ends_a_line(&start) && start.len() < LONGEST_HEADER {
        match chunks.next().await {
            Some(chunk) => start.extend_from_slice(&chunk.map_err(|e| in_file(file, &e))?),
            None => break,
        }
    }
    let format = CsvReader::default().with_header(true).with_delimiter(delimiter);
    let (schema, _) = format.infer_schema(start.as_slice().reader(), Some(0)).map_err(|e| in_file(file, &e.into()))?;
    let mut names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    for (index, name) in names.iter_mut().enumerate() {
        if name.is_empty() {
            *name = format!("column_{}", index + 1);
        }
    }
    let mut sorted: Vec<&String> = names.iter().collect();
    sorted.sort();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(WarehouseError::configuration(format!("{}: column `{}` is there twice", file.location, twice[0]))
            .with_hint("give each column of the header its own name"));
    }
    if names.is_empty() {
        return Err(WarehouseError::configuration(format!("{} has no header", file.location)));
    }
    Ok((names, start))
}

/// Is there a line end outside quotes?
fn ends_a_line(text: &[u8]) -> bool {
    let mut quoted = false;
    text.iter().any(|byte| {
        quoted ^= *byte == b'"';
        *byte == b'\n' && !quoted
    })
}

/// A task of its own: files are read on all cores. It ends when the future is dropped.
async fn scan_task(
    store: Arc<dyn ObjectStore>,
    file: ObjectMeta,
    delimiter: u8,
    compression: Compression,
) -> Result<(Path, Scan), WarehouseError> {
    let location = file.location.clone();
    let task = SpawnedTask::spawn(async move { scan(&store, &file, delimiter, compression).await });
    let scan = task.await.map_err(|e| WarehouseError::bug(format!("reading {location}: {e}")))??;
    Ok((location, scan))
}

/// What one file told.
struct Scan {
    names: Vec<String>,
    columns: Vec<Column>,
    lines_in_values: bool,
}

impl Scan {
    fn merge(&mut self, other: Self) {
        self.lines_in_values |= other.lines_in_values;
        for (mine, theirs) in self.columns.iter_mut().zip(other.columns) {
            mine.merge(theirs);
        }
    }
}

async fn scan(
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    delimiter: u8,
    compression: Compression,
) -> Result<Scan, WarehouseError> {
    let fault = |e: DataFusionError| in_file(file, &e);
    let mut chunks = content::read(store, file, compression).await.map_err(fault)?;
    let (names, start) = read_header(&mut chunks, file, delimiter).await?;
    let text = Schema::new(names.iter().map(|name| Field::new(name, DataType::Utf8, true)).collect::<Vec<_>>());
    let mut decoder = ReaderBuilder::new(Arc::new(text))
        .with_header(true)
        .with_delimiter(delimiter)
        .with_batch_size(BATCH_ROWS)
        .build_decoder();
    let mut scan = Scan { columns: vec![Column::default(); names.len()], names, lines_in_values: false };
    let mut chunk = Bytes::from(start);
    let mut ended = false;
    loop {
        // an empty slice tells the decoder that the file has ended
        let used = decoder.decode(&chunk).map_err(|e| fault(e.into()))?;
        chunk.advance(used);
        if decoder.capacity() == 0 || ended && used == 0 {
            match decoder.flush().map_err(|e| fault(e.into()))? {
                Some(batch) => {
                    for (column, values) in scan.columns.iter_mut().zip(batch.columns()) {
                        let values: &StringArray = values.as_string();
                        scan.lines_in_values |= values.value_data().contains(&b'\n');
                        column.look_at(values);
                    }
                }
                None => return Ok(scan),
            }
        } else if chunk.is_empty() && !ended {
            match chunks.next().await {
                Some(next) => chunk = next.map_err(fault)?,
                None => ended = true,
            }
        }
    }
}

fn in_file(file: &ObjectMeta, error: &DataFusionError) -> WarehouseError {
    let mut error = errors::from_datafusion(error);
    error.message = format!("{}: {}", file.location, error.message);
    error
}

/// Which types every value of a column reads as, so far.
#[derive(Debug, Clone)]
struct Column {
    seen: bool,
    boolean: bool,
    int: bool,
    float: bool,
    date: bool,
    timestamp: bool,
    /// A timestamp had an offset.
    zoned: bool,
}

impl Default for Column {
    fn default() -> Self {
        Self { seen: false, boolean: true, int: true, float: true, date: true, timestamp: true, zoned: false }
    }
}

impl Column {
    fn data_type(&self) -> DataType {
        match self {
            Self { seen: false, .. } => DataType::Utf8,
            Self { boolean: true, .. } => DataType::Boolean,
            Self { int: true, .. } => DataType::Int64,
            Self { float: true, .. } => DataType::Float64,
            Self { date: true, .. } => DataType::Date32,
            Self { timestamp: true, .. } => {
                DataType::Timestamp(TimeUnit::Microsecond, self.zoned.then(|| Arc::from("UTC")))
            }
            _ => DataType::Utf8,
        }
    }

    fn merge(&mut self, other: Self) {
        self.seen |= other.seen;
        self.boolean &= other.boolean;
        self.int &= other.int;
        self.float &= other.float;
        self.date &= other.date;
        self.timestamp &= other.timestamp;
        self.zoned |= other.zoned;
    }

    fn look_at(&mut self, values: &StringArray) {
        self.seen |= values.null_count() < values.len();
        for value in values.iter().flatten() {
            if !(self.boolean || self.float || self.int || self.timestamp) {
                return;
            }
            self.boolean &= value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false");
            if self.int || self.float {
                let int = is_int(value);
                self.int &= int;
                self.float &= is_float(value);
            }
            if self.timestamp {
                let shaped = value.len() >= 10 && value.as_bytes()[4] == b'-';
                self.date &= shaped && value.len() == 10 && Date32Type::parse(value).is_some();
                self.timestamp &= shaped && string_to_datetime(&Utc, value).is_ok();
                self.zoned |= self.timestamp && has_offset(value);
            }
        }
    }
}

fn is_int(value: &str) -> bool {
    let digits = value.strip_prefix('-').unwrap_or(value);
    canonical(digits) && value != "-0" && digits.bytes().all(|b| b.is_ascii_digit()) && value.parse::<i64>().is_ok()
}

fn is_float(value: &str) -> bool {
    let unsigned = value.strip_prefix('-').unwrap_or(value);
    let mantissa = unsigned.split(['e', 'E']).next().unwrap_or_default();
    let digits = mantissa.bytes().filter(u8::is_ascii_digit).count();
    let leading = mantissa.bytes().take_while(|b| matches!(b, b'0' | b'.')).filter(|b| *b == b'0').count();
    let faithful = digits - leading <= FLOAT_DIGITS || round_trips(value);
    canonical(mantissa) && digits > 0 && faithful && Float64Type::parse(value).is_some_and(f64::is_finite)
}

/// Is this text how the float that it reads as is written?
fn round_trips(value: &str) -> bool {
    value.parse::<f64>().is_ok_and(|number| number.to_string() == value.trim_end_matches(".0"))
}

/// Starts as numbers are written: with a digit or a point, and with no zero before another digit.
fn canonical(unsigned: &str) -> bool {
    let mut bytes = unsigned.bytes();
    match (bytes.next(), bytes.next()) {
        (Some(b'0'), Some(b'0'..=b'9')) => false,
        (Some(b'0'..=b'9' | b'.'), _) => true,
        _ => false,
    }
}

/// `2026-01-31T10:00:00Z`, `… +02:00`, `… Europe/Paris`: is there anything after the time?
fn has_offset(value: &str) -> bool {
    value.get(10..).is_some_and(|rest| {
        let time = rest.trim_start_matches(['T', ' ']);
        !time.bytes().all(|b| b.is_ascii_digit() || matches!(b, b':' | b'.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inferred(values: &[&str]) -> DataType {
        let mut column = Column::default();
        column.look_at(&StringArray::from_iter(values.iter().map(|v| (!v.is_empty()).then_some(*v))));
        column.data_type()
    }

    #[test]
    fn a_column_is_of_the_narrowest_type_that_every_value_reads_as() {
        let timestamp = |zone: Option<&str>| DataType::Timestamp(TimeUnit::Microsecond, zone.map(Arc::from));
        let cases: &[(&[&str], DataType)] = &[
            (&["", ""], DataType::Utf8),
            (&["true", "", "FALSE"], DataType::Boolean),
            (&["1", "", "-20", "0"], DataType::Int64),
            (&["9223372036854775807"], DataType::Int64),
            (&["1", "2.50", "-1e3", ".5"], DataType::Float64),
            (&["2025-12-31", "2024-02-29"], DataType::Date32),
            (&["2025-12-31", "2025-12-31T10:11:12.5"], timestamp(None)),
            (&["2025-12-31 10:11:12", "2025-12-31T10:11:12+02:00"], timestamp(Some("UTC"))),
            (&["1", "true"], DataType::Utf8),
            (&["1", "n/a"], DataType::Utf8),
        ];
        for (values, expected) in cases {
            assert_eq!(inferred(values), *expected, "{values:?}");
        }
    }

    #[test]
    fn what_a_number_or_a_date_would_not_give_back_stays_text() {
        for value in
            ["007", "+491701", "9223372036854775808", "0.12345678901234567890", "1e999", "nan", "inf", "2025-02-30"]
        {
            assert_eq!(inferred(&[value]), DataType::Utf8, "{value}");
        }
    }
}
