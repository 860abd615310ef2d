//! The first half of a run: the query's rows, converted, keyed and compared as they come in.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use backon::{BackoffBuilder, ExponentialBuilder};
use datafusion::error::DataFusionError;
use futures::StreamExt;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::definition::{Definition, DefinitionChange};
use super::{Engine, Progress, Stage, SyncError};
use crate::config::Normalization;
use crate::diff::compare::{DiffWorker, Differ, KeyedBatch, PARTITIONS};
use crate::diff::index::{BYTES_PER_ROW, BYTES_PER_ROW_OF_ALL, HashIndex, OldRows};
use crate::diff::spill::SpillFolder;
use crate::identity::normalized_keys;
use crate::model::Model;
use crate::store::schema::result_schema;
use crate::store::{DataFile, TableId};
use crate::values::ValueType;
use crate::values::convert::Converter;
use crate::warehouse::{QueryOptions, Warehouse, WarehouseError, WarehouseErrorKind};

/// Tries of one extraction, the first included.
const MAX_TRIES: usize = 4;
/// A server that asks for more patience is left to the next run.
const LONGEST_WAIT: Duration = Duration::from_secs(15 * 60);

/// A finished comparison.
pub(super) struct Extracted {
    pub differ: Arc<Differ>,
    pub definition: Definition,
    pub change: DefinitionChange,
    pub result: Schema,
    pub retries: u32,
}

/// What an extraction needs to know.
pub(super) struct Extraction<'a> {
    pub model: &'a Model,
    pub warehouse: Arc<dyn Warehouse>,
    pub before: Option<&'a Definition>,
    pub files: &'a [DataFile],
    pub folder: &'a SpillFolder,
    pub progress: &'a dyn Progress,
    pub cancel: &'a CancellationToken,
}

impl Engine {
    /// Runs the query and compares its rows, again after passing trouble. Nothing outside the spill folder changes.
    pub(super) async fn extract(&self, extraction: &Extraction<'_>) -> Result<Extracted, SyncError> {
        self.check_rows(extraction.files.iter().map(|file| file.rows).sum(), false)?;
        let mut waits = ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(500))
            .with_max_delay(Duration::from_secs(30))
            .with_max_times(MAX_TRIES - 1)
            .with_jitter()
            .build();
        let mut retries = 0;
        loop {
            let error = match self.extract_once(extraction).await {
                Ok(extracted) => return Ok(Extracted { retries, ..extracted }),
                Err(error) => error,
            };
            let Some(wait) = waits.next().filter(|_| error.is_retryable()) else { return Err(error) };
            let asked_for = match &error {
                SyncError::Warehouse(WarehouseError {
                    kind: WarehouseErrorKind::Retry { after: Some(after) }, ..
                }) => *after,
                _ => Duration::ZERO,
            };
            if asked_for > LONGEST_WAIT {
                return Err(error);
            }
            let wait = wait.max(asked_for);
            retries += 1;
            tracing::warn!(model = extraction.model.slug, %error, wait_ms = wait.as_millis() as u64, "the warehouse failed, trying again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = extraction.cancel.cancelled() => return Err(SyncError::Cancelled),
            }
        }
    }

    async fn extract_once(&self, extraction: &Extraction<'_>) -> Result<Extracted, SyncError> {
        extraction.progress.stage(Stage::Query);
        let options = QueryOptions { timeout: extraction.model.timeout, ..QueryOptions::default() };
        let mut running = tokio::select! {
            running = extraction.warehouse.query(&extraction.model.sql, &options) => running?,
            () = extraction.cancel.cancelled() => return Err(SyncError::Cancelled),
        };
        let compared = self.compare(extraction, &mut running.stream).await;
        if compared.is_err() {
            running.cancel.cancel().await;
        }
        compared
    }

    async fn compare(
        &self,
        extraction: &Extraction<'_>,
        stream: &mut datafusion::execution::SendableRecordBatchStream,
    ) -> Result<Extracted, SyncError> {
        let model = extraction.model;
        let schema = stream.schema();
        let definition = Definition::of(model, &self.project.identities, &schema, extraction.before)?;
        let change = definition.compare(model, extraction.before)?;
        let targets = definition.targets(model)?;
        let key_type = targets.first().map_or(ValueType::String, |key| key.value_type);
        let typed: Vec<_> = targets.iter().map(|target| (target.name.clone(), target.value_type)).collect();
        let activated = &typed[1..=definition.activated];
        let result = result_schema((&model.primary_key, key_type), activated, &model.identities);
        let converter = Arc::new(Converter::new(&schema, targets)?);

        let old = Arc::new(OldRows::new(extraction.files.to_vec()));
        let resident = self.resident_partitions(old.len() as u64);
        let table = TableId::Records(model.slug.clone());
        let high = if resident == 0 { 0 } else { Differ::partition_range(resident - 1).1 };
        let index = match resident {
            0 => HashIndex::default(),
            _ => HashIndex::load(&self.store, &table, &old, 0, high, self.memory.tasks).await?,
        };
        let reshape = change == DefinitionChange::Shape;
        let differ = Arc::new(Differ::new(old, index, resident, reshape, &result, extraction.folder));
        extraction.progress.stage(Stage::Compare);

        let identity = self.project.identities.iter().find(|identity| identity.field == model.external_key);
        let steps: Arc<[Normalization]> =
            identity.map_or_else(|| [].into(), |identity| identity.normalize.as_slice().into());
        let (sender, receiver) = mpsc::channel::<RecordBatch>(self.memory.tasks);
        let receiver = Arc::new(Mutex::new(receiver));
        let mut workers = JoinSet::new();
        for _ in 0..self.memory.tasks {
            let (receiver, converter, steps) = (receiver.clone(), converter.clone(), steps.clone());
            let mut worker = DiffWorker::new(differ.clone(), self.memory.spill as usize / self.memory.tasks);
            workers.spawn(async move {
                loop {
                    let next = receiver.lock().await.recv().await;
                    let Some(batch) = next else { break };
                    let done = keyed(&converter, &steps, &batch).and_then(|keyed| Ok(worker.push(&keyed)?));
                    if let Err(error) = done {
                        // the feeder notices that nobody listens
                        receiver.lock().await.close();
                        return Err(error);
                    }
                }
                Ok(worker.finish()?)
            });
        }
        drop(receiver);
        let fed = self.feed(stream, sender, extraction).await;
        while let Some(worker) = workers.join_next().await {
            worker.map_err(|e| SyncError::Bug(e.to_string()))??;
        }
        fed?;
        Ok(Extracted { differ, definition, change, result, retries: 0 })
    }

    /// Can the state of so many rows be held?
    fn check_rows(&self, rows: u64, more: bool) -> Result<(), SyncError> {
        // the last number stands for no row
        if rows > self.memory.hashes || rows >= u64::from(u32::MAX) {
            return Err(SyncError::TooManyRows { rows, more, limit: self.memory.limit, runs: self.memory.runs });
        }
        Ok(())
    }

    /// How many partitions' old hashes fit into their share of the memory limit.
    fn resident_partitions(&self, old_rows: u64) -> usize {
        let budget = self.memory.hashes.saturating_sub(old_rows);
        if old_rows * BYTES_PER_ROW_OF_ALL <= budget {
            PARTITIONS
        } else {
            (PARTITIONS as u64 * budget / (old_rows * BYTES_PER_ROW)).min(PARTITIONS as u64 - 1) as usize
        }
    }

    /// Hands the query's batches to the workers.
    async fn feed(
        &self,
        stream: &mut datafusion::execution::SendableRecordBatchStream,
        sender: mpsc::Sender<RecordBatch>,
        extraction: &Extraction<'_>,
    ) -> Result<(), SyncError> {
        let mut rows = 0;
        loop {
            let next = tokio::select! {
                next = stream.next() => next,
                () = extraction.cancel.cancelled() => return Err(SyncError::Cancelled),
            };
            let Some(batch) = next else { return Ok(()) };
            let batch = batch.map_err(warehouse_error)?;
            if batch.num_rows() == 0 {
                continue;
            }
            rows += batch.num_rows() as u64;
            // what is stored now has to be compared with the next time
            self.check_rows(rows, true)?;
            extraction.progress.rows(batch.num_rows() as u64);
            extraction.progress.bytes(batch.get_array_memory_size() as u64);
            fail::fail_point!("extract-batch");
            if sender.send(batch).await.is_err() {
                // a worker failed: its error is the one to report
                return Ok(());
            }
        }
    }
}

fn keyed(converter: &Converter, steps: &[Normalization], batch: &RecordBatch) -> Result<KeyedBatch, SyncError> {
    let mut converted = converter.convert(batch)?;
    let (key, keys) = normalized_keys(&converted.columns[0], steps)?;
    converted.columns[0] = key;
    Ok(KeyedBatch { columns: converted.columns, keys, bad: converted.bad })
}

/// An error of a stream, as the warehouse meant it.
pub fn warehouse_error(error: DataFusionError) -> SyncError {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = source {
        if let Some(known) = error.downcast_ref::<WarehouseError>() {
            return known.clone().into();
        }
        source = error.source();
    }
    match error.find_root() {
        DataFusionError::ResourcesExhausted(message) => WarehouseError::configuration(message.clone())
            .with_hint("the query needs more memory than it may use: raise --memory-limit (or memory_limit:)")
            .into(),
        _ => WarehouseError::sql(error.strip_backtrace()).into(),
    }
}
