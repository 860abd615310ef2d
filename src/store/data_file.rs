//! Writing and reading the data files of the store's tables.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{max, min};
use arrow::datatypes::{DataType, Int64Type, Schema, SchemaRef};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::async_reader::{AsyncFileReader, ParquetRecordBatchStreamBuilder};
use parquet::arrow::{AsyncArrowWriter, ProjectionMask};
use parquet::basic::{Compression, Encoding};
use parquet::errors::ParquetError;
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use std::ops::Range;

use super::schema::{HASHES, KEY_HI, SINCE};
use super::{DataFile, StagedFile, Store, StoreError, TableId};

/// A data file is closed once it has so many rows: small enough that a rewrite for a few changes stays cheap and that
/// several files keep every core busy, large enough that a big table has hundreds of files and not millions.
pub const TARGET_ROWS: u64 = 262_144;
const ROW_GROUP_ROWS: usize = 131_072;
/// A row group is ended early when it takes so much memory.
const ROW_GROUP_BYTES: usize = 8 << 20;
/// A look at one row decodes one page of each column.
const PAGE_ROWS: usize = 4096;
const UPLOAD_BYTES: usize = 4 << 20;

/// Writes one data file of a table into the run's folder.
pub struct DataFileWriter {
    writer: AsyncArrowWriter<BufWriter>,
    staged: StagedFile,
}

impl DataFileWriter {
    /// Begins a file. It exists in the store only after [`DataFileWriter::finish`], and is seen only once committed.
    pub fn new(
        store: &Store,
        table: &TableId,
        run_id: &str,
        schema: SchemaRef,
        partition: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Result<Self, StoreError> {
        // some readers (Polars) take the partition from the path and not from the log
        let folders: String = partition.iter().map(|(column, value)| format!("{column}={value}/")).collect();
        let path = format!("{run_id}/{folders}{}.parquet", uuid::Uuid::new_v4().simple());
        let upload = BufWriter::with_capacity(store.object_store().clone(), store.path(table, &path), UPLOAD_BYTES);
        let writer = AsyncArrowWriter::try_new(upload, schema.clone(), Some(properties(table, &schema)))?;
        let partition = partition.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
        let staged = StagedFile { path, size: 0, rows: 0, hash_range: None, partition, written_at: now };
        Ok(Self { writer, staged })
    }

    /// Appends rows.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        self.staged.rows += batch.num_rows() as u64;
        if let Some(hashes) = batch.column_by_name(KEY_HI) {
            let hashes = hashes.as_primitive::<Int64Type>();
            if let Some((low, high)) = min(hashes).zip(max(hashes)) {
                let range = self.staged.hash_range.get_or_insert((low, high));
                *range = (range.0.min(low), range.1.max(high));
            }
        }
        self.writer.write(batch).await?;
        // what is encoded but not yet flushed stays in memory: bound it
        if self.writer.memory_size() > ROW_GROUP_BYTES {
            self.writer.flush().await?;
        }
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.staged.rows
    }

    /// Completes the file.
    pub async fn finish(mut self) -> Result<StagedFile, StoreError> {
        self.writer.finish().await?;
        self.staged.size = self.writer.bytes_written() as u64;
        Ok(self.staged)
    }
}

fn properties(table: &TableId, schema: &Schema) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_compression(Compression::LZ4_RAW)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_created_by(concat!("cloud-connect ", env!("CARGO_PKG_VERSION")).to_string());
    for (position, field) in schema.fields().iter().enumerate() {
        // a dictionary of values that hardly repeat costs time and is given up in the end; keys never do
        let repeats = match (table, field.data_type()) {
            (TableId::Records(_), DataType::Timestamp(..)) => field.name() == SINCE,
            (TableId::Records(_), DataType::Float64 | DataType::Int64 | DataType::Decimal128(..)) => false,
            (TableId::Records(_), _) => position > 0,
            // whatever was sent: mostly words of a small number, and the upload's id
            (TableId::Stream(_), _) => true,
            // one run and one moment a file, few kinds of change; everything else is of one profile
            (_, DataType::Utf8) => ["run_id", "change"].contains(&field.name().as_str()),
            _ => true,
        };
        if !repeats {
            builder = builder.set_column_dictionary_enabled(ColumnPath::from(field.name().as_str()), false);
        }
    }
    for hash in HASHES {
        // hashes do not compress and do not repeat
        let column = ColumnPath::from(hash);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
            .set_column_encoding(column.clone(), Encoding::PLAIN);
        if hash != KEY_HI {
            builder = builder.set_column_statistics_enabled(column, EnabledStatistics::None);
        }
    }
    builder.build()
}

/// Rolls over to a new file whenever one is full.
pub struct RollingWriter {
    store: Store,
    table: TableId,
    run_id: String,
    schema: SchemaRef,
    partition: Vec<(String, String)>,
    now: DateTime<Utc>,
    open: Option<DataFileWriter>,
    done: Vec<StagedFile>,
}

impl RollingWriter {
    pub fn new(
        store: &Store,
        table: &TableId,
        run_id: &str,
        schema: SchemaRef,
        partition: &[(&str, &str)],
        now: DateTime<Utc>,
    ) -> Self {
        let partition = partition.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect();
        let (store, table, run_id) = (store.clone(), table.clone(), run_id.to_string());
        Self { store, table, run_id, schema, partition, now, open: None, done: Vec::new() }
    }

    /// Appends rows.
    pub async fn write(&mut self, batch: &RecordBatch) -> Result<(), StoreError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let writer = match &mut self.open {
            Some(writer) => writer,
            None => {
                let partition: Vec<_> = self.partition.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
                let schema = self.schema.clone();
                let new = DataFileWriter::new(&self.store, &self.table, &self.run_id, schema, &partition, self.now)?;
                self.open.insert(new)
            }
        };
        writer.write(batch).await?;
        if writer.rows() >= TARGET_ROWS {
            self.close().await?;
        }
        Ok(())
    }

    /// Closes the file that is open, so that the next row starts another.
    pub async fn close(&mut self) -> Result<(), StoreError> {
        if let Some(full) = self.open.take() {
            self.done.push(full.finish().await?);
        }
        Ok(())
    }

    /// Completes the last file and returns all.
    pub async fn finish(mut self) -> Result<Vec<StagedFile>, StoreError> {
        self.close().await?;
        Ok(self.done)
    }
}

/// Reads a Parquet file of the store.
#[derive(Debug, Clone)]
pub struct ObjectReader {
    store: Arc<dyn ObjectStore>,
    location: Path,
    size: u64,
}

impl ObjectReader {
    /// `location` as of [`Store::path`]; `size` in bytes.
    pub fn new(store: &Arc<dyn ObjectStore>, location: Path, size: u64) -> Self {
        Self { store: Arc::clone(store), location, size }
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes, ParquetError>> {
        async move { self.store.get_range(&self.location, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>, ParquetError>> {
        async move { self.store.get_ranges(&self.location, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>, ParquetError>> {
        async move {
            let reader =
                ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(FOOTER_BYTES));
            let size = self.size;
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// Enough for the footer of most data files, so that it takes one request.
const FOOTER_BYTES: usize = 64 << 10;

/// What to read of a data file.
#[derive(Debug, Default)]
pub struct ReadOptions {
    /// Only these columns, in the file's order; none: all.
    pub columns: Option<Vec<String>>,
    /// Only these rows.
    pub selection: Option<RowSelection>,
    pub batch_rows: Option<usize>,
}

/// Streams a data file's rows in their order.
pub async fn read(
    store: &Store,
    table: &TableId,
    path: &str,
    size: u64,
    options: ReadOptions,
) -> Result<BoxStream<'static, Result<RecordBatch, StoreError>>, StoreError> {
    let location = store.path(table, path);
    let reader = ObjectReader::new(store.object_store(), location, size);
    // where few rows are wanted, the page index says which pages can be skipped
    let index = if options.selection.is_some() { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let metadata = ArrowReaderOptions::new().with_offset_index_policy(index);
    let mut builder = ParquetRecordBatchStreamBuilder::new_with_options(reader, metadata).await?;
    if let Some(columns) = &options.columns {
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(String::as_str));
        builder = builder.with_projection(mask);
    }
    if let Some(selection) = options.selection {
        builder = builder.with_row_selection(selection);
    }
    builder = builder.with_batch_size(options.batch_rows.unwrap_or(8192));
    Ok(builder.build()?.map_err(StoreError::from).boxed())
}

/// [`read`] of a committed file.
pub async fn read_file(
    store: &Store,
    table: &TableId,
    file: &DataFile,
    options: ReadOptions,
) -> Result<BoxStream<'static, Result<RecordBatch, StoreError>>, StoreError> {
    read(store, table, &file.path, file.size, options).await
}
