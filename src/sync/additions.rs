//! Added rows: found or founded profiles, record-store rows, identities and `entered` changes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use arrow::datatypes::Int64Type;
use uuid::Uuid;

use super::SyncError;
use super::changelog::{ChangeLog, ProfileChange, attributes};
use super::links::Links;
use super::publishing::{ChangeSample, PLAN_SAMPLES, Publishing};
use super::timestamps;
use crate::identity::{founded_profile, identity_texts};
use crate::store::TableId;
use crate::store::data_file::RollingWriter;
use crate::store::schema::{identities_schema, join_hash};

const FLUSH_ROWS: usize = 32_768;
const FLUSH_BYTES: usize = 8 << 20;

/// What to do with rows that are handed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// They are new: store them.
    Result,
    /// They are in the record store and have waited for a profile: only profiles and changes follow.
    Waiting,
}

/// One task's way of publishing added rows.
pub struct Additions {
    cx: Arc<Publishing>,
    links: Arc<Links>,
    source: Source,
    records: RollingWriter,
    identities: RollingWriter,
    log: ChangeLog,
    buffer: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
}

impl Additions {
    pub fn new(cx: &Arc<Publishing>, links: &Arc<Links>, source: Source) -> Self {
        let field = cx.definition.external_key.as_str();
        let records = RollingWriter::new(&cx.store, &cx.table(), &cx.run_id, cx.records.clone(), &[], cx.now);
        let identities = identities_writer(cx, field);
        let log = ChangeLog::new(&cx.store, &cx.model, &cx.run_id, cx.now, cx.write);
        let (cx, links) = (Arc::clone(cx), Arc::clone(links));
        Self { cx, links, source, records, identities, log, buffer: Vec::new(), rows: 0, bytes: 0 }
    }

    /// Takes rows: the result's columns, then the hash columns.
    pub async fn push(&mut self, batch: RecordBatch) -> Result<(), SyncError> {
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        self.buffer.push(batch);
        if self.rows >= FLUSH_ROWS || self.bytes >= FLUSH_BYTES { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), SyncError> {
        let Some(first) = self.buffer.first() else { return Ok(()) };
        let batch = concat_batches(&first.schema(), &self.buffer)?;
        self.buffer.clear();
        (self.rows, self.bytes) = (0, 0);
        let cx = Arc::clone(&self.cx);
        let width = cx.result.fields().len();
        let hash = |i: usize| batch.column(width + i).as_primitive::<Int64Type>().values();
        let (key_hi, key_lo) = (hash(0), hash(1));
        let key = |row: usize| join_hash(key_hi[row], key_lo[row]);
        let field = cx.definition.external_key.as_str();
        let owners = cx.resolver.owners(field, (0..batch.num_rows()).map(key)).await?;
        let texts = identity_texts(batch.column(0))?;
        let (mut matched, mut created, mut waiting) = (0, 0, 0);
        let mut profiles: Vec<Option<Uuid>> = Vec::with_capacity(batch.num_rows());
        let mut founded: Vec<(usize, Uuid)> = Vec::new();
        for row in 0..batch.num_rows() {
            let owner = owners.get(&key(row)).copied();
            profiles.push(match (owner, cx.definition.create_profiles) {
                (Some(owner), _) => {
                    matched += 1;
                    // a row of the record store whose profile exists is a member already
                    (self.source == Source::Result).then_some(owner)
                }
                (None, true) => {
                    created += 1;
                    let profile = founded_profile(field, texts.value(row));
                    founded.push((row, profile));
                    Some(profile)
                }
                (None, false) => {
                    waiting += 1;
                    None
                }
            });
        }
        if cx.write && !founded.is_empty() {
            let rows: Vec<_> = founded.iter().map(|(row, id)| (texts.value(*row), *id, key(*row))).collect();
            self.identities.write(&identity_rows(&cx, &rows, true)?).await?;
        }
        self.links.claim(&batch, &profiles)?;
        self.enter(&batch, &texts, &profiles)?;
        self.log.flush_full().await?;
        if self.source == Source::Result {
            if cx.write {
                let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
                columns.insert(width, timestamps(cx.now, batch.num_rows()));
                self.records.write(&RecordBatch::try_new(cx.records.clone(), columns)?).await?;
            }
            self.sample(&batch, &texts)?;
        }
        cx.add(|totals| {
            totals.created += created;
            if self.source == Source::Result {
                totals.added += batch.num_rows() as u64;
                totals.matched += matched;
                totals.waiting += waiting;
            }
        });
        Ok(())
    }

    fn enter(&mut self, batch: &RecordBatch, texts: &StringArray, profiles: &[Option<Uuid>]) -> Result<(), SyncError> {
        let schema = batch.schema();
        let mut objects = if self.log.writes() {
            let (fields, columns) = attributes(schema.fields(), batch.columns(), self.cx.definition.activated);
            // one text for all rows at once would double the batch: row by row
            Some(crate::values::objects::ObjectEncoder::new(fields, columns)?)
        } else {
            None
        };
        for (row, profile) in profiles.iter().enumerate() {
            let Some(profile) = profile else { continue };
            let after = objects.as_mut().map(|objects| objects.object(row, |_| true));
            self.log.push(ProfileChange::Entered, *profile, texts.value(row), None, after.as_deref());
        }
        Ok(())
    }

    fn sample(&self, batch: &RecordBatch, texts: &StringArray) -> Result<(), SyncError> {
        if self.cx.write {
            return Ok(());
        }
        let schema = batch.schema();
        let (fields, columns) = attributes(schema.fields(), batch.columns(), self.cx.definition.activated);
        let mut objects = crate::values::objects::ObjectEncoder::new(fields, columns)?;
        self.cx.add(|totals| {
            let missing = PLAN_SAMPLES.saturating_sub(totals.samples.added.len());
            for row in 0..missing.min(texts.len()) {
                let after = serde_json::from_str(&objects.object(row, |_| true)).ok();
                totals.samples.added.push(ChangeSample { key: texts.value(row).into(), before: None, after });
            }
        });
        Ok(())
    }

    /// Publishes what is buffered and adds the staged files to the totals.
    pub async fn finish(mut self) -> Result<(), SyncError> {
        self.flush().await?;
        let (entered, exited) = (self.log.entered, self.log.exited);
        let (records, identities, changes) =
            (self.records.finish().await?, self.identities.finish().await?, self.log.finish().await?);
        self.cx.add(|totals| {
            totals.records.extend(records);
            totals.identities.extend(identities);
            totals.changes.extend(changes);
            totals.entered += entered;
            totals.exited += exited;
        });
        Ok(())
    }
}

/// A writer of identities of one field.
pub fn identities_writer(cx: &Publishing, field: &str) -> RollingWriter {
    RollingWriter::new(&cx.store, &TableId::Identities, &cx.run_id, identities_schema(), &[("field", field)], cx.now)
}

/// Rows of the `identities` table: value, profile, hash of the value.
pub fn identity_rows(
    cx: &Publishing,
    rows: &[(&str, Uuid, u128)],
    founder: bool,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let count = rows.len();
    let split = |row: &(&str, Uuid, u128)| crate::store::schema::split_hash(row.2);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1.to_string()))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(BooleanArray::from(vec![founder; count])),
        Arc::new(StringArray::from_iter_values(std::iter::repeat_n(&cx.run_id, count))),
        timestamps(cx.now, count),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| split(row).0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| split(row).1))),
    ];
    RecordBatch::try_new(identities_schema(), columns)
}
