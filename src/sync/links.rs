//! Further identities: values that a row carries beside its external key are added to its profile, unless another
//! profile owns them. Profiles are never merged: an owned value is counted as a conflict.

use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, UInt32Type};
use uuid::Uuid;

use super::SyncError;
use super::additions::{identities_writer, identity_rows};
use super::definition::Definition;
use super::publishing::Publishing;
use crate::config::IdentityField;
use crate::diff::spill::{Spill, SpillFolder};
use crate::identity::resolve::{MAX_ASKED, Resolver};
use crate::identity::{identity_texts, normalized_keys};
use crate::store::schema::{KEY_HI, KEY_LO, join_hash, split_hash};

/// One part at a time is in memory, with its owners.
const PART_BITS: u32 = 8;
const PARTS: usize = 1 << PART_BITS;

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
        self.claim_of(&self.cx.definition, batch, profiles)
    }

    /// [`Links::claim`] for rows of another model.
    pub fn claim_of(
        &self,
        definition: &Definition,
        batch: &RecordBatch,
        profiles: &[Option<Uuid>],
    ) -> Result<(), SyncError> {
        for (number, field) in self.fields(|field| definition.identities.contains(&field.field)) {
            let Some(column) = batch.column_by_name(&field.field) else { continue };
            let steps = definition.normalization.get(&field.field).unwrap_or(&field.normalize);
            let (values, hashes) = normalized_keys(column, steps)?;
            // an activated field may be a number
            let values = identity_texts(&values)?;
            let mut rows: Vec<(usize, usize, u128)> = Vec::new();
            for (row, hash) in hashes.iter().enumerate() {
                if let (Some(hash), Some(_)) = (hash, profiles[row]) {
                    rows.push(((hash >> (128 - PART_BITS)) as usize, row, *hash));
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
                    Arc::new(UInt32Array::from(vec![number as u32; rows.len()])),
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

    /// The project's identity fields that are wanted, with their numbers.
    fn fields<'a>(&'a self, wanted: impl Fn(&IdentityField) -> bool + 'a) -> Vec<(usize, &'a IdentityField)> {
        self.cx.identity_fields.iter().enumerate().filter(|(_, field)| wanted(field)).collect()
    }

    /// Adds the values that nobody owns. The first claim wins, in the order of value and profile. What was claimed until
    /// now is done with: it may be called again after further claims.
    pub async fn publish(&self) -> Result<(), SyncError> {
        let mut staged = Vec::new();
        self.cx.add(|totals| staged.clone_from(&totals.identities));
        let resolver = self.cx.resolver.with_staged(&staged);
        let (mut linked, mut conflicts) = (0, 0);
        let mut writers: Vec<_> =
            self.cx.identity_fields.iter().map(|field| identities_writer(&self.cx, &field.field)).collect();
        for part in 0..PARTS {
            let Some(reader) = self.spill.read(part, None)? else { continue };
            let batches = reader.collect::<Result<Vec<_>, _>>()?;
            for (number, field) in self.fields(|_| true) {
                let of_field = |batch: &RecordBatch| {
                    let numbers = batch.column(0).as_primitive::<UInt32Type>().values();
                    let rows = (0..batch.num_rows() as u32).filter(|row| numbers[*row as usize] == number as u32);
                    take_record_batch(batch, &UInt32Array::from_iter_values(rows))
                };
                let kept = batches.iter().map(of_field).collect::<Result<Vec<_>, _>>()?;
                let claims = arrow::compute::concat_batches(self.spill.schema(), &kept)?;
                let (new, refused) = self.decide(&resolver, &field.field, &claims).await?;
                (linked, conflicts) = (linked + new.len() as u64, conflicts + refused);
                if self.cx.write && !new.is_empty() {
                    let values = claims.column(1).as_string::<i32>();
                    let rows: Vec<_> = new.iter().map(|(row, id, hash)| (values.value(*row), *id, *hash)).collect();
                    writers[number].write(&identity_rows(&self.cx, &rows, false)?).await?;
                }
            }
            self.spill.drop_part(part);
        }
        let mut files = Vec::new();
        for writer in writers {
            files.extend(writer.finish().await?);
        }
        self.cx.add(|totals| {
            totals.identities.extend(files);
            totals.linked += linked;
            totals.conflicts += conflicts;
        });
        Ok(())
    }

    /// The claims that hold (row, profile, hash), and how many do not.
    async fn decide(
        &self,
        resolver: &Resolver,
        field: &str,
        claims: &RecordBatch,
    ) -> Result<(Vec<(usize, Uuid, u128)>, u64), SyncError> {
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
            let owners = resolver.owners(field, chunk.iter().map(|row| row.0)).await?;
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
