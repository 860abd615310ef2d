//! An upload: rows that are handed in rather than queried. They add profiles and identity values, and are themselves
//! appended to their stream's table.
//!
//! ```text
//! body ─► rows ─┬─► streams/<stream> (staged, in the order of the body)
//!               └─► spill, by identity field and hash ─► found or founded ─► further identities ─► COMMIT
//!                                                       └────── under the publish lock ───────┘
//! ```
//!
//! The first configured identity field of which a row has a value finds or founds its profile, the further ones are
//! linked, as in a run. Fields are worked through in the configured order, and what one brought is known to the next, so
//! the order of the rows does not matter.
//!
//! The commit on the stream's table is the commit point, and everything follows from it as from a run's
//! ([`super::publish`]). Invariants:
//! - an upload is visible whole or not at all, and once: repeated under its key it answers with its first report;
//! - an event of the journal is taken once: it leaves the journal with the catalog row that makes its commit visible.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array};
use arrow::array::{TimestampMicrosecondArray, new_null_array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use deltalake::kernel::MetadataExt;
use futures::TryStreamExt;
use uuid::Uuid;

use super::additions::{identities_writer, identity_rows};
use super::definition::{CONFIGURATION_KEY, Definition};
use super::links::Links;
use super::publish::UploadConsequences;
use super::published::definition_of;
use super::publishing::{Publishing, Totals};
use super::{Engine, SyncError};
use crate::catalog::UploadPublication;
use crate::diff::compare::BuildKeyHasher;
use crate::diff::spill::{Spill, SpillBuffer, SpillFolder};
use crate::identity::resolve::{MAX_ASKED, Owners, Resolver};
use crate::identity::{founded_profile, normalized_keys};
use crate::store::data_file::{ReadOptions, RollingWriter, TARGET_ROWS, read_file};
use crate::store::schema::{KEY_HI, KEY_LO, join_hash, split_hash, value_field};
use crate::store::{Commit, DataFile, StagedFile, Store, TableId};
use crate::uploads::rows::{self, RowBatch, Rows};
use crate::uploads::{Body, Fault, FaultyRow, Format, Source, UploadError, UploadReport, UploadStatus};
use crate::values::ValueType;

/// When the row came in.
pub const RECEIVED_AT: &str = "_cc_received_at";
/// The upload that it came with.
pub const UPLOAD_ID: &str = "_cc_upload_id";
/// Its line in the body.
pub const LINE: &str = "_cc_line";
/// The service's own columns of a stream's table, in front of what was sent.
const OWN: [&str; 3] = [RECEIVED_AT, UPLOAD_ID, LINE];

/// Parts of the spill, for each identity field.
const PART_BITS: u32 = 5;
const PARTS: usize = 1 << PART_BITS;
/// The normalized text of a row's key in the spill.
const KEY: &str = "_cc_key";

/// Files below a quarter of the target are small; so many may stand.
const SMALL_FILE_ROWS: u64 = TARGET_ROWS / 4;
const MAX_SMALL_FILES: usize = 16;

/// What is uploaded.
#[derive(Debug)]
pub enum UploadSource {
    Body {
        body: Body,
        format: Format,
        /// What makes a repetition recognizable; none: the body itself.
        key: Option<String>,
    },
    /// The stream's events in the journal: so many, and about so many bytes, at most.
    Journal { limit: u32, max_bytes: usize },
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Uploaded {
    pub report: UploadReport,
    /// It had been done before, and nothing was done now.
    pub replayed: bool,
}

/// The state of a stream's table before an upload.
struct StreamBase {
    table: Option<deltalake::DeltaTable>,
    definition: Option<Definition>,
    files: Vec<DataFile>,
    /// Without the service's own.
    columns: Vec<String>,
}

/// Rows that are ready to be staged.
struct Input {
    rows: Box<dyn Rows>,
    /// Of the rows of the journal, by line: when each came in.
    received: Option<Vec<i64>>,
    collected_until: Option<i64>,
    bytes: u64,
}

/// What was staged, before anyone looked for profiles.
struct Staged {
    files: Vec<StagedFile>,
    rows: Arc<Spill>,
    schema: SchemaRef,
}

impl Engine {
    /// Adds what the source holds. None: the journal holds nothing of the stream. The folder takes what does not fit into
    /// memory.
    pub async fn upload(
        &self,
        stream: &str,
        actor: &str,
        source: UploadSource,
        folder: &SpillFolder,
    ) -> Result<Option<Uploaded>, UploadError> {
        let lock = self.stream_lock(stream).await?.ok_or_else(|| UploadError::Busy(stream.to_string()))?;
        self.clean_up_uploads(&lock, stream).await?;
        let (kind, hash) = match &source {
            UploadSource::Body { body, .. } => (Source::Upload, Some(body.hash.clone())),
            UploadSource::Journal { .. } => (Source::Collect, None),
        };
        let key = match &source {
            UploadSource::Body { key: Some(key), .. } => Some(key.clone()),
            UploadSource::Body { body, format, .. } => Some(format!("sha256:{}:{}", body.hash, format.as_str())),
            UploadSource::Journal { .. } => None,
        };
        if let Some(key) = &key
            && let Some((report, known)) = self.catalog.upload_of_key(stream, key).await?
        {
            // nothing of this stream is under way: what is there is done
            return if known == hash {
                Ok(Some(Uploaded { report, replayed: true }))
            } else {
                Err(UploadError::KeyReused)
            };
        }
        let base = self.stream_base(stream).await?;
        let Some(input) = self.open_rows(stream, source, &base, folder).await? else { return Ok(None) };
        self.check_stream(&base, &input.rows.own_columns()).await?;

        let id = Uuid::now_v7().to_string();
        let mut report = UploadReport::new(id, stream.to_string(), kind, actor.to_string(), self.clock.now());
        report.columns = input.rows.own_columns();
        report.bytes = input.bytes;
        self.catalog.begin_upload(&report, key.as_deref(), hash.as_deref()).await?;
        if let Err(error) = Box::pin(self.upload_begun(&base, input, &mut report, folder)).await {
            // still under the stream's lock, so that nobody takes the upload for one whose process died
            return Err(self.record_failed_upload(&mut report, error).await);
        }
        Ok(Some(Uploaded { report, replayed: false }))
    }

    async fn upload_begun(
        &self,
        base: &StreamBase,
        input: Input,
        report: &mut UploadReport,
        folder: &SpillFolder,
    ) -> Result<(), UploadError> {
        let collected_until = input.collected_until;
        let definition = self.stream_definition(base, &input.rows.own_columns());
        let staged = self.stage_rows(base, input, report, folder).await?;
        if staged.files.is_empty() {
            report.finish(UploadStatus::Unchanged, self.clock.now());
            let publication = UploadPublication {
                report,
                stream_version: None,
                identities_version: None,
                changes_version: None,
                collected_until,
            };
            return Ok(self.catalog.finish_upload(publication).await?);
        }
        let folded = self.fold(base, &staged, report).await?;

        let lock = self.publish_lock().await?;
        self.roll_all_forward(&lock).await?;
        let redefine = base.definition.as_ref() != Some(&definition);
        let cx = Arc::new(Publishing {
            store: self.store.clone(),
            run_id: report.id.clone(),
            now: self.clock.now(),
            model: TableId::Stream(report.stream.clone()).folder(),
            identity_fields: self.project.identities.clone(),
            records: staged.schema.clone(),
            result: staged.schema.clone(),
            resolver: Resolver::open(&self.store, self.memory.tasks).await?,
            write: true,
            totals: std::sync::Mutex::default(),
            definition,
        });
        let links = Arc::new(Links::new(&cx, folder));
        find_or_found(&cx, &links, &staged.rows).await?;
        self.link_and_enter(&cx, &links, &[]).await?;
        fail::fail_point!("after-additions");

        let totals: Totals = std::mem::take(&mut *cx.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        report.profiles_created = totals.created;
        report.profiles_matched = totals.matched;
        report.identities_linked = totals.linked;
        report.identity_conflicts = totals.conflicts;
        report.entered = totals.entered;
        report.finish(UploadStatus::Published, self.clock.now());
        let id = TableId::Stream(report.stream.clone());
        let grown = staged.schema.fields().len() > OWN.len() + base.columns.len();
        let mut add = staged.files;
        add.extend(folded.add);
        let commit = Commit {
            metadata: stream_metadata(&id, base, &cx, grown || redefine)?,
            add,
            remove: folded.remove,
            ..Commit::default()
        };
        let consequences = UploadConsequences {
            report: report.clone(),
            identities: totals.identities,
            changes: totals.changes,
            collected_until,
        };
        self.publish_upload(&lock, base.table.as_ref(), commit, &consequences).await?;
        Ok(())
    }

    /// Removes what the failed upload staged, unless it was committed after all, and records it.
    async fn record_failed_upload(&self, report: &mut UploadReport, error: UploadError) -> UploadError {
        let recorded: Result<bool, SyncError> = async {
            let id = TableId::Stream(report.stream.clone());
            if let Some(table) = self.store.table(&id, None).await?
                && self.store.transaction_version(&id, &table, &format!("upload/{}", report.id)).await?.is_some()
            {
                return Ok(false);
            }
            self.discard_upload(&report.stream, &report.id).await?;
            report.error = Some(error.to_string());
            report.hint = error.hint();
            report.finish(UploadStatus::Failed, self.clock.now());
            let publication = UploadPublication {
                report,
                stream_version: None,
                identities_version: None,
                changes_version: None,
                collected_until: None,
            };
            self.catalog.finish_upload(publication).await?;
            Ok(true)
        }
        .await;
        match (recorded, error) {
            // the commit stands, only something after it failed, and recovery brings it to its end
            (Ok(false), UploadError::Sync(error)) => SyncError::NotVisible(Box::new(error)).into(),
            (Ok(_), error) => error,
            (Err(unrecorded), error) => {
                tracing::error!(error = %unrecorded, "the failed upload could not be recorded");
                error
            }
        }
    }

    async fn stream_base(&self, stream: &str) -> Result<StreamBase, SyncError> {
        let id = TableId::Stream(stream.to_string());
        let Some(table) = self.store.table(&id, None).await? else {
            return Ok(StreamBase { table: None, definition: None, files: Vec::new(), columns: Vec::new() });
        };
        let corrupt = |message: String| crate::store::StoreError::Corrupt { table: id.folder(), message };
        let state = table.snapshot().map_err(|e| corrupt(e.to_string()))?;
        let columns = state.schema().fields().map(|field| field.name().clone()).collect::<Vec<_>>();
        if columns.iter().take(OWN.len()).ne(OWN.iter()) {
            return Err(corrupt(format!("its columns do not begin with {}", OWN.join(", "))).into());
        }
        let (files, definition) = (Store::files(&id, &table)?, definition_of(&id, &table)?);
        Ok(StreamBase { table: Some(table), definition, files, columns: columns[OWN.len()..].to_vec() })
    }

    async fn open_rows(
        &self,
        stream: &str,
        source: UploadSource,
        base: &StreamBase,
        folder: &SpillFolder,
    ) -> Result<Option<Input>, UploadError> {
        let (path, format, bytes, received, collected_until) = match source {
            UploadSource::Body { body, format, .. } => (body.path, format, body.bytes, None, None),
            UploadSource::Journal { limit, max_bytes } => {
                let events = self.catalog.journalled_events(stream, limit, max_bytes).await?;
                let Some(last) = events.last().map(|event| event.id) else { return Ok(None) };
                let path = folder.path().join("events");
                let mut text = String::with_capacity(events.iter().map(|event| event.event.len() + 1).sum());
                events.iter().for_each(|event| text.extend([event.event.as_str(), "\n"]));
                let received = events.iter().map(|event| event.received_at).collect();
                let bytes = text.len() as u64;
                tokio::fs::write(&path, text).await?;
                (path, Format::Ndjson, bytes, Some(received), Some(last))
            }
        };
        let identities: Vec<String> = self.project.identities.iter().map(|field| field.field.clone()).collect();
        let (known, is_body) = (base.columns.clone(), collected_until.is_none());
        let opening = tokio::task::spawn_blocking(move || {
            let rows = rows::open(&path, format, &known, &identities)?;
            // what was accepted under another configuration is set aside row by row
            if is_body {
                rows::check_identities(rows.as_ref(), &identities)?;
            }
            Ok::<_, UploadError>(rows)
        });
        let rows = opening.await.map_err(|e| SyncError::Bug(e.to_string()))??;
        Ok(Some(Input { rows, received, collected_until, bytes }))
    }

    /// Were the values of these identity fields stored with the same steps so far?
    async fn check_stream(&self, base: &StreamBase, own: &[String]) -> Result<(), SyncError> {
        let fields: Vec<_> = self.project.identities.iter().filter(|field| own.contains(&field.field)).collect();
        let known = base.definition.as_ref();
        for field in &fields {
            known.map_or(Ok(()), |known| known.check_steps(&field.field, &field.normalize))?;
        }
        let is_new =
            |field: &crate::config::IdentityField| !known.is_some_and(|k| k.normalization.contains_key(&field.field));
        self.check_steps_elsewhere(&fields.into_iter().filter(|field| is_new(field)).collect::<Vec<_>>()).await
    }

    fn stream_definition(&self, base: &StreamBase, own: &[String]) -> Definition {
        let used = self.project.identities.iter().filter(|field| own.contains(&field.field));
        Definition::of_stream(&self.project.identities, used, base.definition.as_ref())
    }

    /// Writes the rows into the stream's staged files, and what identifies them into the spill.
    async fn stage_rows(
        &self,
        base: &StreamBase,
        input: Input,
        report: &mut UploadReport,
        folder: &SpillFolder,
    ) -> Result<Staged, UploadError> {
        let Input { mut rows, received, .. } = input;
        let schema = stream_schema(rows.columns().names());
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

    /// The identity of each row that finds or founds its profile: the number of the field, its text and its hash.
    fn keys(
        &self,
        columns: &[ArrayRef],
        positions: &[Option<usize>],
        rows: usize,
    ) -> Result<Vec<Option<(usize, String, u128)>>, UploadError> {
        let mut keys: Vec<Option<(usize, String, u128)>> = vec![None; rows];
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

    /// Many small uploads leave many small files: they are folded together now and then.
    async fn fold(&self, base: &StreamBase, staged: &Staged, report: &UploadReport) -> Result<Folded, UploadError> {
        let small: Vec<&DataFile> = base.files.iter().filter(|file| file.rows < SMALL_FILE_ROWS).collect();
        if small.len() < MAX_SMALL_FILES {
            return Ok(Folded::default());
        }
        let id = TableId::Stream(report.stream.clone());
        let now = report.started_at;
        let mut writer = RollingWriter::new(&self.store, &id, &report.id, staged.schema.clone(), &[], now);
        for file in &small {
            let mut batches = read_file(&self.store, &id, file, ReadOptions::default()).await?;
            while let Some(batch) = batches.try_next().await? {
                let column = |field: &arrow::datatypes::FieldRef| match batch.column_by_name(field.name()) {
                    Some(column) => column.clone(),
                    None => new_null_array(field.data_type(), batch.num_rows()),
                };
                let columns = staged.schema.fields().iter().map(column).collect();
                writer.write(&RecordBatch::try_new(staged.schema.clone(), columns)?).await?;
            }
        }
        Ok(Folded { add: writer.finish().await?, remove: small.iter().map(|file| file.remove.clone()).collect() })
    }
}

/// Small files that became large ones.
#[derive(Default)]
struct Folded {
    add: Vec<StagedFile>,
    remove: Vec<deltalake::kernel::Remove>,
}

fn stream_schema(columns: &[String]) -> SchemaRef {
    let mut fields = vec![
        value_field(RECEIVED_AT, ValueType::Timestamp),
        value_field(UPLOAD_ID, ValueType::String),
        value_field(LINE, ValueType::Int),
    ];
    fields.extend(columns.iter().map(|name| value_field(name, ValueType::String)));
    Arc::new(Schema::new(fields))
}

fn stream_metadata(
    id: &TableId,
    base: &StreamBase,
    cx: &Publishing,
    changed: bool,
) -> Result<Option<deltalake::kernel::Metadata>, SyncError> {
    let bug = |e: String| SyncError::Bug(e);
    let definition = serde_json::to_string(&cx.definition).map_err(|e| bug(e.to_string()))?;
    Ok(match &base.table {
        None => Some(Store::metadata(id, &cx.records, &[], &[(CONFIGURATION_KEY, definition)])?),
        Some(table) if changed => {
            use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
            let schema: deltalake::kernel::StructType = cx.records.as_ref().try_into_kernel()?;
            let metadata = table.snapshot().map_err(|e| bug(e.to_string()))?.metadata().clone();
            let metadata = metadata.with_schema(&schema).map_err(|e| bug(e.to_string()))?;
            Some(metadata.add_config_key(CONFIGURATION_KEY.into(), definition).map_err(|e| bug(e.to_string()))?)
        }
        Some(_) => None,
    })
}

/// Sets the identity values of a batch aside, by the field and the hash of each row's key.
fn spill_rows(
    buffer: &mut SpillBuffer,
    spill: &Spill,
    columns: &[ArrayRef],
    positions: &[Option<usize>],
    keys: &[Option<(usize, String, u128)>],
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

/// Finds or founds the profile of each row, and notes what else identifies it.
async fn find_or_found(cx: &Arc<Publishing>, links: &Links, rows: &Spill) -> Result<(), SyncError> {
    let width = cx.identity_fields.len();
    for (number, field) in cx.identity_fields.iter().enumerate() {
        let mut staged = Vec::new();
        cx.add(|totals| staged.clone_from(&totals.identities));
        let resolver = cx.resolver.with_staged(&staged);
        let mut writer = identities_writer(cx, &field.field);
        for part in number * PARTS..(number + 1) * PARTS {
            // hashes alone first: asking for all at once passes the table once
            let Some(reader) = rows.read(part, Some(vec![width + 1, width + 2]))? else { continue };
            let mut asked: HashMap<u128, (), BuildKeyHasher> = HashMap::default();
            for batch in reader {
                asked.extend(hashes(&batch?, 0).map(|hash| (hash, ())));
            }
            let asked: Vec<u128> = asked.into_keys().collect();
            let mut owners = Owners::default();
            for some in asked.chunks(MAX_ASKED) {
                owners.extend(resolver.owners(&field.field, some.iter().copied()).await?);
            }
            let (matched, created) = (owners.len() as u64, (asked.len() - owners.len()) as u64);
            let Some(reader) = rows.read(part, None)? else { continue };
            for batch in reader {
                found_batch(cx, links, &field.field, &batch?, &mut owners, &mut writer).await?;
            }
            rows.drop_part(part);
            cx.add(|totals| {
                totals.matched += matched;
                totals.created += created;
            });
        }
        let files = writer.finish().await?;
        cx.add(|totals| totals.identities.extend(files));
        // the next field's rows may be known by what this one's rows brought
        links.publish().await?;
    }
    Ok(())
}

async fn found_batch(
    cx: &Arc<Publishing>,
    links: &Links,
    field: &str,
    batch: &RecordBatch,
    owners: &mut Owners,
    writer: &mut RollingWriter,
) -> Result<(), SyncError> {
    let width = cx.identity_fields.len();
    let texts = batch.column(width).as_string::<i32>();
    let mut founded: Vec<(&str, Uuid, u128)> = Vec::new();
    let mut profiles: Vec<Option<Uuid>> = Vec::with_capacity(batch.num_rows());
    for (row, hash) in hashes(batch, width + 1).enumerate() {
        let profile = owners.entry(hash).or_insert_with(|| {
            let profile = founded_profile(field, texts.value(row));
            founded.push((texts.value(row), profile, hash));
            profile
        });
        profiles.push(Some(*profile));
    }
    if !founded.is_empty() {
        writer.write(&identity_rows(cx, &founded, true)?).await?;
    }
    let fields: Vec<usize> = (0..width).collect();
    Ok(links.claim(&batch.project(&fields)?, &profiles)?)
}

/// The hashes in two columns of the batch.
fn hashes(batch: &RecordBatch, first: usize) -> impl Iterator<Item = u128> + '_ {
    let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().iter();
    column(first).zip(column(first + 1)).map(|(hi, lo)| join_hash(*hi, *lo))
}
