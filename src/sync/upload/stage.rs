//! The rows of an upload, written down: into the stream's staged files, and, by what identifies them, into a spill.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::Input;
use super::stream::{self, StreamBase};
use crate::diff::spill::{Spill, SpillBuffer, SpillFolder};
use crate::identity::normalized_keys;
use crate::store::data_file::RollingWriter;
use crate::store::schema::{KEY_HI, KEY_LO, split_hash};
use crate::store::{StagedFile, TableId};
use crate::sync::{Engine, SyncError};
use crate::uploads::rows::RowBatch;
use crate::uploads::{Fault, FaultyRow, UploadError, UploadReport};

/// Parts of the spill, for each identity field.
const PART_BITS: u32 = 5;
pub(super) const PARTS: usize = 1 << PART_BITS;
/// The normalized text of a row's key in the spill.
const KEY: &str = "_cc_key";

/// What was staged, before anyone looked for profiles.
pub(super) struct Staged {
    pub(super) files: Vec<StagedFile>,
    /// The identity fields as they came, then the text and the hash of the row's key; [`PARTS`] for each field.
    pub(super) rows: Arc<Spill>,
    pub(super) schema: SchemaRef,
}

/// The number of the identity field, its text and its hash.
type RowKey = (usize, String, u128);

impl Engine {
    /// Writes the rows into the stream's staged files, and what identifies them into the spill.
    pub(super) async fn stage_rows(
        &self,
        base: &StreamBase,
        input: Input,
        report: &mut UploadReport,
        folder: &SpillFolder,
    ) -> Result<Staged, UploadError> {
        let Input { mut rows, received, .. } = input;
        let schema = stream::schema(rows.columns().names());
        let positions: Vec<Option<usize>> =
            self.project.identities.iter().map(|field| rows.columns().position(&field.field)).collect();
        debug_assert!(rows.columns().names().starts_with(&base.columns));
        let (sender, mut receiver) = tokio::sync::mpsc::channel::<RowBatch>(2);
        let reading = tokio::task::spawn_blocking(move || {
            while let Some(batch) = rows.next_batch()? {
                // nobody listens any more: the other side says why
                if sender.blocking_send(batch).is_err() {
                    break;
                }
            }
            Ok::<_, UploadError>(())
        });
        let fields = &self.project.identities;
        let mut spilled: Vec<Field> =
            fields.iter().map(|field| Field::new(&field.field, DataType::Utf8, true)).collect();
        spilled.push(Field::new(KEY, DataType::Utf8, false));
        spilled.extend([KEY_HI, KEY_LO].map(|name| Field::new(name, DataType::Int64, false)));
        let spill = Arc::new(Spill::new(folder, "rows", fields.len() * PARTS, Arc::new(Schema::new(spilled))));
        let mut buffer = SpillBuffer::new(spill.clone(), (self.memory.spill as usize).min(16 << 20));
        let id = TableId::Stream(report.stream.clone());
        let now = report.started_at;
        let mut writer = RollingWriter::new(&self.store, &id, &report.id, schema.clone(), &[], now);
        while let Some(batch) = receiver.recv().await {
            report.rows += (batch.lines.len() + batch.faults.len()) as u64;
            batch.faults.into_iter().for_each(|fault| report.quarantine.note(fault));
            let keys = self.keys(&batch.columns, &positions, batch.lines.len())?;
            let good: Vec<u32> = (0..keys.len() as u32).filter(|row| keys[*row as usize].is_some()).collect();
            for row in (0..keys.len()).filter(|row| keys[*row].is_none()) {
                let names: Vec<&str> = fields.iter().map(|field| field.field.as_str()).collect();
                let detail = format!("no value of {}", names.join(", "));
                report.quarantine.note(FaultyRow { line: batch.lines[row], fault: Fault::NoIdentity, detail });
            }
            if good.is_empty() {
                continue;
            }
            let times = good.iter().map(|row| {
                let line = batch.lines[*row as usize] as usize;
                received.as_ref().and_then(|times| times.get(line - 1).copied()).unwrap_or(now.timestamp_micros())
            });
            let times = TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC");
            let lines = good.iter().map(|row| batch.lines[*row as usize] as i64);
            let mut columns: Vec<ArrayRef> = vec![
                Arc::new(times),
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&report.id, good.len()))),
                Arc::new(Int64Array::from_iter_values(lines)),
            ];
            let kept = UInt32Array::from(good);
            for column in &batch.columns {
                columns.push(take(column, &kept, None)?);
            }
            writer.write(&RecordBatch::try_new(schema.clone(), columns)?).await?;
            spill_rows(&mut buffer, &spill, &batch.columns, &positions, &keys)?;
            fail::fail_point!("upload-batch");
        }
        reading.await.map_err(|e| SyncError::Bug(e.to_string()))??;
        buffer.flush()?;
        Ok(Staged { files: writer.finish().await?, rows: spill, schema })
    }

    /// The identity of each row that finds or founds its profile.
    fn keys(
        &self,
        columns: &[ArrayRef],
        positions: &[Option<usize>],
        rows: usize,
    ) -> Result<Vec<Option<RowKey>>, UploadError> {
        let mut keys: Vec<Option<RowKey>> = vec![None; rows];
        for (number, (field, position)) in self.project.identities.iter().zip(positions).enumerate() {
            let Some(position) = position else { continue };
            let (values, hashes) = normalized_keys(&columns[*position], &field.normalize)?;
            let values = values.as_string::<i32>();
            for (row, hash) in hashes.into_iter().enumerate() {
                if let (None, Some(hash)) = (&keys[row], hash) {
                    keys[row] = Some((number, values.value(row).to_string(), hash));
                }
            }
        }
        Ok(keys)
    }
}

/// Sets the identity values of a batch aside, by the field and the hash of each row's key.
fn spill_rows(
    buffer: &mut SpillBuffer,
    spill: &Spill,
    columns: &[ArrayRef],
    positions: &[Option<usize>],
    keys: &[Option<RowKey>],
) -> Result<(), UploadError> {
    let part = |field: usize, hash: u128| field * PARTS + (hash >> (128 - PART_BITS)) as usize;
    let mut order: Vec<(usize, u32)> = Vec::with_capacity(keys.len());
    let mut lengths = vec![0; spill.parts()];
    for (row, key) in keys.iter().enumerate() {
        if let Some((field, _, hash)) = key {
            order.push((part(*field, *hash), row as u32));
            lengths[part(*field, *hash)] += 1;
        }
    }
    order.sort_unstable();
    let indices = UInt32Array::from_iter_values(order.iter().map(|(_, row)| *row));
    let mut spilled: Vec<ArrayRef> = Vec::with_capacity(positions.len() + 3);
    for position in positions {
        spilled.push(match position {
            Some(position) => take(&columns[*position], &indices, None)?,
            None => new_null_array(&DataType::Utf8, indices.len()),
        });
    }
    let sorted = || order.iter().filter_map(|(_, row)| keys[*row as usize].as_ref());
    spilled.push(Arc::new(StringArray::from_iter_values(sorted().map(|(_, text, _)| text))));
    spilled.push(Arc::new(Int64Array::from_iter_values(sorted().map(|(_, _, hash)| split_hash(*hash).0))));
    spilled.push(Arc::new(Int64Array::from_iter_values(sorted().map(|(_, _, hash)| split_hash(*hash).1))));
    buffer.push(&RecordBatch::try_new(spill.schema().clone(), spilled)?, &lengths)?;
    Ok(())
}
