//! The files of a result: read in order, a few at a time.
//!
//! ```text
//! file 0  [row group, decoded batch by batch] --> batches
//! file 1  [first row group waits]
//! file 2  [first row group downloading]
//! file 3  not opened yet
//! ```
//!
//! What is held is a row group (Redshift writes them with 32 MB) and two batches for each of [`AT_ONCE`] files, however
//! large the result is.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStoreExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::Type as Physical;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::adapt::Adapter;
use super::bucket::{Bucket, File};
use crate::warehouse::WarehouseError;
use crate::warehouse::postgres::types::Plan;
use crate::warehouse::task::Batches;

/// Files under way, with the one being read.
const AT_ONCE: usize = 3;
/// Batches of wide rows end about here, whatever their number of rows.
const BATCH_BYTES: usize = 4 << 20;

/// How reading ended.
pub(super) enum Read {
    All {
        rows: u64,
    },
    /// Nobody wants more.
    Enough,
}

/// Hands over the rows of all files, in order.
pub(super) async fn read(
    bucket: &Arc<Bucket>,
    files: Vec<File>,
    plan: &Plan,
    batch_rows: usize,
    batches: &mut Batches,
) -> Result<Read, WarehouseError> {
    let adapter = Arc::new(Adapter::new(plan));
    let mut left = files.into_iter();
    let mut open = VecDeque::with_capacity(AT_ONCE);
    let mut rows = 0;
    loop {
        while open.len() < AT_ONCE {
            let Some(file) = left.next() else { break };
            open.push_back(OpenFile::start(bucket.clone(), file, adapter.clone(), batch_rows));
        }
        let Some(mut file) = open.pop_front() else { return Ok(Read::All { rows }) };
        while let Some(batch) = file.batches.recv().await {
            let batch = batch?;
            rows += batch.num_rows() as u64;
            if batches.send(batch).await.is_err() {
                return Ok(Read::Enough);
            }
        }
        file.ended().await?;
    }
}

/// A file that a task of its own reads.
struct OpenFile {
    batches: mpsc::Receiver<Result<RecordBatch, WarehouseError>>,
    task: JoinHandle<()>,
}

impl OpenFile {
    fn start(bucket: Arc<Bucket>, file: File, adapter: Arc<Adapter>, batch_rows: usize) -> Self {
        let (sender, batches) = mpsc::channel(1);
        let task = tokio::spawn(async move {
            if let Err(e) = read_file(&bucket, &file, &adapter, batch_rows, &sender).await {
                let _ = sender.send(Err(e)).await;
            }
        });
        Self { batches, task }
    }

    /// A task that ended badly has said nothing more: its rows must not be missed in silence.
    async fn ended(&mut self) -> Result<(), WarehouseError> {
        (&mut self.task).await.map_err(|e| WarehouseError::bug(format!("the reading of a file ended: {e}")))
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read_file(
    bucket: &Bucket,
    file: &File,
    adapter: &Adapter,
    batch_rows: usize,
    sender: &mpsc::Sender<Result<RecordBatch, WarehouseError>>,
) -> Result<(), WarehouseError> {
    let failed = |e: ParquetError| of_parquet(bucket, file, &e);
    let mut source = Source { store: bucket.store.clone(), file: file.clone() };
    let options = || ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let found = ArrowReaderMetadata::load_async(&mut source, options()).await.map_err(failed)?;
    let metadata = found.metadata().clone();
    let readable = match in_microseconds(&metadata, found.schema()) {
        Some(schema) => {
            ArrowReaderMetadata::try_new(metadata.clone(), options().with_schema(schema)).map_err(failed)?
        }
        None => found,
    };
    let mut stream = ParquetRecordBatchStreamBuilder::new_with_metadata(source, readable)
        .with_batch_size(rows_in_a_batch(&metadata, batch_rows))
        .build()
        .map_err(failed)?;
    while let Some(group) = stream.next_row_group().await.map_err(failed)? {
        for batch in group {
            let batch = adapter.adapt(&batch.map_err(|e| failed(e.into()))?)?;
            if sender.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Timestamps of 96 bits are nanoseconds by default, which end in the year 2262: read as microseconds, they all fit.
fn in_microseconds(metadata: &ParquetMetaData, schema: &SchemaRef) -> Option<SchemaRef> {
    let types = metadata.file_metadata().schema_descr();
    let is_96 = |index: usize| index < types.num_columns() && types.column(index).physical_type() == Physical::INT96;
    (0..types.num_columns()).any(is_96).then(|| {
        let fields = schema.fields().iter().enumerate().map(|(i, field)| match field.data_type() {
            DataType::Timestamp(_, zone) if is_96(i) => {
                Field::new(field.name(), DataType::Timestamp(TimeUnit::Microsecond, zone.clone()), field.is_nullable())
            }
            _ => field.as_ref().clone(),
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    })
}

fn rows_in_a_batch(metadata: &ParquetMetaData, batch_rows: usize) -> usize {
    let bytes: i64 = metadata.row_groups().iter().map(|g| g.total_byte_size().max(0)).sum();
    let rows = usize::try_from(metadata.file_metadata().num_rows()).unwrap_or_default();
    let width = usize::try_from(bytes).unwrap_or(usize::MAX) / rows.max(1);
    batch_rows.min(BATCH_BYTES / width.max(1)).max(1)
}

/// Where the Parquet reader gets its bytes.
struct Source {
    store: Arc<dyn object_store::ObjectStore>,
    file: File,
}

impl AsyncFileReader for Source {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, ParquetResult<Bytes>> {
        async move { Ok(self.store.get_range(&self.file.path, range).await?) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, ParquetResult<Vec<Bytes>>> {
        async move { Ok(self.store.get_ranges(&self.file.path, &ranges).await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        _: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, ParquetResult<Arc<ParquetMetaData>>> {
        async move {
            let size = self.file.size;
            Ok(Arc::new(ParquetMetaDataReader::new().load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

fn of_parquet(bucket: &Bucket, file: &File, error: &ParquetError) -> WarehouseError {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(cause) = next {
        if let Some(store) = cause.downcast_ref::<object_store::Error>() {
            return bucket.failed(store);
        }
        next = cause.source();
    }
    WarehouseError::bug(format!("the file {} that Redshift wrote cannot be read: {error}", file.path))
}
