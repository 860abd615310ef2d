//! Further identities: values that a row carries beside its external key are added to its profile, unless another
//! profile owns them. Profiles are never merged: an owned value is counted as a conflict.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};
use uuid::Uuid;

use super::SyncError;
use super::additions::{identities_writer, identity_rows};
use super::publishing::Publishing;
use crate::diff::spill::{Spill, SpillFolder};
use crate::identity::normalized_keys;
use crate::identity::resolve::MAX_ASKED;
use crate::store::schema::{KEY_HI, KEY_LO, join_hash, split_hash};

const PARTS: usize = 32;

/// Identity values that rows of this run claim for their profiles, set aside by hash until all are known.
#[derive(Debug)]
pub struct Links {
    cx: Arc<Publishing>,
    spill: Spill,
}

impl Links {
    pub fn new(cx: &Arc<Publishing>, folder: &SpillFolder) -> Self {
        let schema = Schema::new(vec![
            Field::new("field", DataType::UInt32, false),
            Field::new("value", DataType::Utf8, false),
            Field::new("profile_id", DataType::Utf8, false),
            Field::new(KEY_HI, DataType::Int64, false),
            Field::new(KEY_LO, DataType::Int64, false),
        ]);
        Self { cx: Arc::clone(cx), spill: Spill::new(folder, "links", PARTS, Arc::new(schema)) }
    }

    /// Notes the further identities of rows that have a profile. `batch` begins with the result's columns.
    pub fn claim(&self, batch: &RecordBatch, profiles: &[Option<Uuid>]) -> Result<(), SyncError> {
        for (position, field) in self.cx.further_identities() {
            let (values, hashes) = normalized_keys(batch.column(position), &field.normalize)?;
            let values = values.as_string::<i32>();
            let mut rows: Vec<(usize, usize, u128)> = Vec::new();
            for (row, hash) in hashes.iter().enumerate() {
                if let (Some(hash), Some(_)) = (hash, profiles[row]) {
                    rows.push(((hash >> 123) as usize, row, *hash));
                }
            }
            if rows.is_empty() {
                continue;
            }
            rows.sort_unstable();
            let split = |i: usize| split_hash(rows[i].2);
            let ids = rows.iter().map(|(_, row, _)| profiles[*row].unwrap_or_default().to_string());
            let claims = RecordBatch::try_new(
                self.spill.schema().clone(),
                vec![
                    Arc::new(UInt32Array::from(vec![position as u32; rows.len()])),
                    Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, row, _)| values.value(*row)))),
                    Arc::new(StringArray::from_iter_values(ids)),
                    Arc::new(Int64Array::from_iter_values((0..rows.len()).map(|i| split(i).0))),
                    Arc::new(Int64Array::from_iter_values((0..rows.len()).map(|i| split(i).1))),
                ],
            )?;
            for chunk in rows.chunk_by(|a, b| a.0 == b.0) {
                let start = rows.partition_point(|row| row.0 < chunk[0].0);
                self.spill.append(chunk[0].0, &claims.slice(start, chunk.len()))?;
            }
        }
        Ok(())
    }

    /// Adds the values that nobody owns. The first claim wins, in the order of value and profile.
    pub async fn publish(&self) -> Result<(), SyncError> {
        for (position, field) in self.cx.further_identities() {
            let mut writer = identities_writer(&self.cx, &field.field);
            let (mut linked, mut conflicts) = (0, 0);
            for part in 0..PARTS {
                let Some(reader) = self.spill.read(part, None)? else { continue };
                let mut kept = Vec::new();
                for batch in reader {
                    let batch = batch?;
                    let of_field = batch.column(0).as_primitive::<UInt32Type>().values();
                    let rows = (0..batch.num_rows() as u32).filter(|row| of_field[*row as usize] == position as u32);
                    kept.push(take_record_batch(&batch, &UInt32Array::from_iter_values(rows))?);
                }
                let claims = arrow::compute::concat_batches(self.spill.schema(), &kept)?;
                let (new, refused) = self.decide(&field.field, &claims).await?;
                (linked, conflicts) = (linked + new.len() as u64, conflicts + refused);
                if self.cx.write && !new.is_empty() {
                    let values = claims.column(1).as_string::<i32>();
                    let rows: Vec<_> = new.iter().map(|(row, id, hash)| (values.value(*row), *id, *hash)).collect();
                    writer.write(&identity_rows(&self.cx, &rows, false)?).await?;
                }
            }
            let files = writer.finish().await?;
            self.cx.add(|totals| {
                totals.identities.extend(files);
                totals.linked += linked;
                totals.conflicts += conflicts;
            });
        }
        Ok(())
    }

    /// The claims that hold (row, profile, hash), and how many do not.
    async fn decide(&self, field: &str, claims: &RecordBatch) -> Result<(Vec<(usize, Uuid, u128)>, u64), SyncError> {
        let ids = claims.column(2).as_string::<i32>();
        let hash = |i: usize| claims.column(i).as_primitive::<Int64Type>().values();
        let (hi, lo) = (hash(3), hash(4));
        let mut rows: Vec<(u128, Uuid, usize)> = Vec::with_capacity(ids.len());
        for row in 0..ids.len() {
            let id = Uuid::parse_str(ids.value(row)).map_err(|e| SyncError::Bug(e.to_string()))?;
            rows.push((join_hash(hi[row], lo[row]), id, row));
        }
        rows.sort_unstable();
        let (mut new, mut refused) = (Vec::new(), 0);
        for chunk in rows.chunks(MAX_ASKED) {
            let owners = self.cx.resolver.owners(field, chunk.iter().map(|row| row.0)).await?;
            for (hash, id, row) in chunk {
                let claimed = new.last().filter(|last: &&(usize, Uuid, u128)| last.2 == *hash).map(|last| last.1);
                match owners.get(hash).copied().or(claimed) {
                    None => new.push((*row, *id, *hash)),
                    Some(owner) => refused += u64::from(owner != *id),
                }
            }
        }
        Ok((new, refused))
    }
}
