//! Old files that hold changed or removed rows are written anew, and the change log learns what was and what is.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray, MutableArrayData, RecordBatch, StringArray, make_array, new_null_array};
use arrow::compute::kernels::cmp::distinct;
use arrow::compute::{CastOptions, cast_with_options, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, SchemaRef};
use futures::TryStreamExt;
use uuid::Uuid;

use super::SyncError;
use super::changelog::{ChangeLog, ProfileChange, attributes};
use super::links::Links;
use super::publishing::{ChangeSample, PLAN_SAMPLES, Publishing};
use crate::diff::compare::Differ;
use crate::diff::index::OldRows;
use crate::diff::state;
use crate::identity::identity_texts;
use crate::identity::resolve::Owners;
use crate::store::data_file::{ReadOptions, RollingWriter, read_file};
use crate::store::schema::{KEY_HI, KEY_LO, SINCE, join_hash};
use crate::values::objects::ObjectEncoder;

/// What a rewrite is for.
#[derive(Default)]
pub struct RewriteSource {
    /// Where the new rows of changed keys come from. None when nothing but removals is applied.
    pub differ: Option<Arc<Differ>>,
    /// False: rows that were not seen stay.
    pub remove_unseen: bool,
    /// The owners of all touched keys, when they are few enough to be held.
    pub owners: Option<Owners>,
    /// The columns differ from the old files': every file is written anew.
    pub reshape: bool,
    /// The model names other further identities than before: rows claim them even where their values are the same.
    pub relink: bool,
    /// Small files may be folded together: the run writes anyway.
    pub fold: bool,
}

/// The rewrite of the files that hold touched rows.
pub struct Rewrite {
    cx: Arc<Publishing>,
    links: Arc<Links>,
    old: Arc<OldRows>,
    source: RewriteSource,
    next: AtomicUsize,
    files: Vec<usize>,
    /// The first so many of `files` are written by one task, so that few files come out of many small ones.
    together: usize,
}

impl Rewrite {
    /// Decides which files are written anew.
    pub fn new(cx: &Arc<Publishing>, links: &Arc<Links>, old: &Arc<OldRows>, source: RewriteSource) -> Self {
        let touched = |file: &usize| {
            let dead = |row| match old.state(row) {
                state::CHANGED => true,
                state::UNSEEN => source.remove_unseen,
                _ => false,
            };
            source.reshape || old.rows_of(*file).any(dead)
        };
        let mut files: Vec<usize> = (0..old.files.len()).filter(touched).collect();
        // many runs with few additions leave many small files: fold them together now and then
        let mut small: Vec<usize> =
            (0..old.files.len()).filter(|file| old.files[*file].rows < SMALL_FILE_ROWS).collect();
        let mut together = 0;
        if small.len() > MAX_SMALL_FILES && (source.fold || !files.is_empty()) {
            together = small.len();
            files.retain(|file| old.files[*file].rows >= SMALL_FILE_ROWS);
            small.append(&mut files);
            files = small;
        }
        let (cx, links, old) = (Arc::clone(cx), Arc::clone(links), Arc::clone(old));
        Self { cx, links, old, source, next: AtomicUsize::new(0), files, together }
    }

    /// The files that the commit takes out.
    pub fn files(&self) -> &[usize] {
        &self.files
    }

    /// Works through the files; several tasks may do so at once.
    pub async fn work(self: Arc<Self>) -> Result<(), SyncError> {
        let cx = &self.cx;
        let mut out = RollingWriter::new(&cx.store, &cx.table(), &cx.run_id, cx.records.clone(), &[], cx.now);
        let mut log = ChangeLog::new(&cx.store, &cx.model, &cx.run_id, cx.now, cx.write);
        loop {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let (share, rest) = self.files.split_at(self.together);
            let share = if next == 0 { share } else { &[] };
            let further = next.checked_sub(usize::from(self.together > 0)).and_then(|n| rest.get(n));
            if share.is_empty() && further.is_none() {
                break;
            }
            for file in share.iter().chain(further) {
                self.file(*file, &mut out, &mut log).await?;
            }
        }
        let (entered, exited) = (log.entered, log.exited);
        let (records, changes) = (out.finish().await?, log.finish().await?);
        cx.add(|totals| {
            totals.records.extend(records);
            totals.changes.extend(changes);
            totals.entered += entered;
            totals.exited += exited;
        });
        Ok(())
    }

    async fn file(&self, file: usize, out: &mut RollingWriter, log: &mut ChangeLog) -> Result<(), SyncError> {
        let cx = &self.cx;
        let changed = match &self.source.differ {
            Some(differ) => differ.changed_rows(file)?,
            None => None,
        };
        let own;
        let owners = match &self.source.owners {
            Some(owners) => owners,
            None => {
                own = self.owners_of(file).await?;
                &own
            }
        };
        let (numbers, new_rows) = match changed {
            Some((numbers, rows)) => (numbers, Some(rows)),
            None => (Vec::new(), None),
        };
        let mut batches = read_file(&cx.store, &cx.table(), &self.old.files[file], ReadOptions::default()).await?;
        let mut first = self.old.rows_of(file).start;
        let mut met = 0;
        while let Some(batch) = batches.try_next().await? {
            let batch = if self.source.reshape { reshaped(&batch, &cx.records)? } else { batch };
            let end = first + batch.num_rows();
            let here = numbers[met..].partition_point(|number| (*number as usize) < end);
            let pairs: Vec<(usize, usize)> =
                (met..met + here).map(|new| (numbers[new] as usize - first, new)).collect();
            met += here;
            let removed: Vec<usize> = match self.source.remove_unseen {
                true => (0..batch.num_rows()).filter(|row| self.old.state(first + row) == state::UNSEEN).collect(),
                false => Vec::new(),
            };
            self.exit(&batch, &removed, owners, log)?;
            log.flush_full().await?;
            let merged = match &new_rows {
                Some(new_rows) if !pairs.is_empty() => {
                    let indices = arrow::array::UInt32Array::from_iter_values(pairs.iter().map(|(_, new)| *new as u32));
                    let new_rows = take_record_batch(new_rows, &indices)?;
                    let old_indices: Vec<usize> = pairs.iter().map(|(old, _)| *old).collect();
                    self.change(&batch, &old_indices, &new_rows, owners, log)?;
                    log.flush_full().await?;
                    self.merge(&batch, &old_indices, &removed, Some(&new_rows))?
                }
                _ if removed.is_empty() => batch,
                _ => self.merge(&batch, &[], &removed, None)?,
            };
            if cx.write {
                out.write(&merged).await?;
            }
            first = end;
        }
        Ok(())
    }

    /// The owners of one file's touched keys.
    async fn owners_of(&self, file: usize) -> Result<Owners, SyncError> {
        let columns = Some(vec![KEY_HI.to_string(), KEY_LO.to_string()]);
        let options = ReadOptions { columns, ..Default::default() };
        let mut batches = read_file(&self.cx.store, &self.cx.table(), &self.old.files[file], options).await?;
        let mut row = self.old.rows_of(file).start;
        let mut touched = Vec::new();
        while let Some(batch) = batches.try_next().await? {
            let (hi, lo) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_primitive::<Int64Type>());
            for (hi, lo) in hi.values().iter().zip(lo.values()) {
                if matches!(self.old.state(row), state::UNSEEN | state::CHANGED) {
                    touched.push(join_hash(*hi, *lo));
                }
                row += 1;
            }
        }
        Ok(self.cx.resolver.owners(&self.cx.definition.external_key, touched).await?)
    }

    fn owner(&self, batch: &RecordBatch, row: usize, owners: &Owners) -> Option<Uuid> {
        let width = self.cx.result.fields().len() + 1;
        let hash = |i: usize| batch.column(width + i).as_primitive::<Int64Type>().value(row);
        owners.get(&join_hash(hash(0), hash(1))).copied()
    }

    fn exit(
        &self,
        batch: &RecordBatch,
        removed: &[usize],
        owners: &Owners,
        log: &mut ChangeLog,
    ) -> Result<(), SyncError> {
        if removed.is_empty() {
            return Ok(());
        }
        let texts = identity_texts(batch.column(0))?;
        let schema = batch.schema();
        let (fields, columns) = attributes(schema.fields(), batch.columns(), self.cx.definition.activated);
        let mut objects = ObjectEncoder::new(fields, columns)?;
        for row in removed {
            let Some(owner) = self.owner(batch, *row, owners) else { continue };
            let before = log.writes().then(|| objects.object(*row, |_| true));
            log.push(ProfileChange::Exited, owner, texts.value(*row), before.as_deref(), None);
        }
        if !self.cx.write {
            self.cx.add(|totals| {
                let missing = PLAN_SAMPLES.saturating_sub(totals.samples.removed.len());
                for row in removed.iter().take(missing) {
                    let before = serde_json::from_str(&objects.object(*row, |_| true)).ok();
                    totals.samples.removed.push(ChangeSample { key: texts.value(*row).into(), before, after: None });
                }
            });
        }
        Ok(())
    }

    /// Logs which attributes of each pair differ.
    fn change(
        &self,
        batch: &RecordBatch,
        old_rows: &[usize],
        new_rows: &RecordBatch,
        owners: &Owners,
        log: &mut ChangeLog,
    ) -> Result<(), SyncError> {
        let cx = &self.cx;
        let indices = arrow::array::UInt32Array::from_iter_values(old_rows.iter().map(|row| *row as u32));
        let old = take_record_batch(batch, &indices)?;
        let (old_schema, new_schema) = (old.schema(), new_rows.schema());
        let (fields, before) = attributes(old_schema.fields(), old.columns(), cx.definition.activated);
        let (_, after) = attributes(new_schema.fields(), new_rows.columns(), cx.definition.activated);
        let differs: Vec<_> = before.iter().zip(after).map(|(b, a)| differences(b, a)).collect::<Result<_, _>>()?;
        let mut before = ObjectEncoder::new(fields, before)?;
        let mut after = ObjectEncoder::new(fields, after)?;
        let texts: StringArray = identity_texts(old.column(0))?;
        let mut further_differs = vec![false; old.num_rows()];
        for position in cx.definition.activated + 1..cx.result.fields().len() {
            let differs = differences(old.column(position), new_rows.column(position))?;
            further_differs.iter_mut().enumerate().for_each(|(row, any)| *any |= differs[row]);
        }
        let mut profiles = vec![None; old.num_rows()];
        let (mut changed, mut same, mut matched) = (0, 0, 0);
        let mut samples = Vec::new();
        for row in 0..old.num_rows() {
            let attribute_differs = differs.iter().any(|column| column[row]);
            let row_differs = attribute_differs || further_differs[row];
            let owner = if row_differs || self.source.relink { self.owner(&old, row, owners) } else { None };
            if !row_differs {
                profiles[row] = owner;
                same += 1;
                continue;
            }
            changed += 1;
            matched += u64::from(owner.is_some());
            profiles[row] = owner;
            let wants_sample = !cx.write && samples.len() < PLAN_SAMPLES;
            if !attribute_differs || !(log.writes() || wants_sample) {
                continue;
            }
            let (before, after) =
                (before.object(row, |column| differs[column][row]), after.object(row, |column| differs[column][row]));
            if let Some(owner) = owner {
                log.push(ProfileChange::Changed, owner, texts.value(row), Some(&before), Some(&after));
            }
            if wants_sample {
                let parse = |text: &str| serde_json::from_str(text).ok();
                samples.push(ChangeSample {
                    key: texts.value(row).into(),
                    before: parse(&before),
                    after: parse(&after),
                });
            }
        }
        self.links.claim(new_rows, &profiles)?;
        cx.add(|totals| {
            totals.changed += changed;
            totals.same_by_value += same;
            totals.matched += matched;
            let missing = PLAN_SAMPLES.saturating_sub(totals.samples.changed.len());
            totals.samples.changed.extend(samples.into_iter().take(missing));
        });
        Ok(())
    }

    /// The batch without its removed rows, and with `new_rows` in place of `changed` (both in the batch's order).
    fn merge(
        &self,
        batch: &RecordBatch,
        changed: &[usize],
        removed: &[usize],
        new_rows: Option<&RecordBatch>,
    ) -> Result<RecordBatch, SyncError> {
        // (from the old batch?, start, end), in order
        let mut pieces: Vec<(bool, usize, usize)> = Vec::with_capacity(2 * (changed.len() + removed.len()) + 1);
        let (mut at, mut c, mut r) = (0, 0, 0);
        while at < batch.num_rows() {
            let next_changed = changed.get(c).copied().unwrap_or(usize::MAX);
            let next_removed = removed.get(r).copied().unwrap_or(usize::MAX);
            let stop = next_changed.min(next_removed).min(batch.num_rows());
            if stop > at {
                pieces.push((true, at, stop));
            }
            if stop == next_changed {
                pieces.push((false, c, c + 1));
                c += 1;
            } else if stop == next_removed {
                r += 1;
            }
            at = if stop < batch.num_rows() { stop + 1 } else { stop };
        }
        let width = self.cx.result.fields().len();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
        for (position, old) in batch.columns().iter().enumerate() {
            // a changed row keeps the time at which it entered
            let new = match position.cmp(&width) {
                std::cmp::Ordering::Less => new_rows.map(|rows| rows.column(position).to_data()),
                std::cmp::Ordering::Equal => None,
                std::cmp::Ordering::Greater => new_rows.map(|rows| rows.column(position - 1).to_data()),
            };
            let old = old.to_data();
            let sources = std::iter::once(&old).chain(new.as_ref()).collect();
            let mut data = MutableArrayData::new(sources, false, batch.num_rows());
            for (is_old, start, end) in &pieces {
                match (is_old, position == width) {
                    (true, _) => data.try_extend(0, *start, *end)?,
                    (false, true) => data.try_extend(0, changed[*start], changed[*start] + 1)?,
                    (false, false) => data.try_extend(1, *start, *end)?,
                }
            }
            columns.push(make_array(data.freeze()));
        }
        Ok(RecordBatch::try_new(self.cx.records.clone(), columns)?)
    }
}

/// Files below a quarter of the target are small; so many may stand.
const SMALL_FILE_ROWS: u64 = crate::store::data_file::TARGET_ROWS / 4;
const MAX_SMALL_FILES: usize = 8;

/// Row by row: do these differ? Null equals null.
fn differences(before: &ArrayRef, after: &ArrayRef) -> Result<Vec<bool>, SyncError> {
    if matches!(before.data_type(), DataType::List(_)) {
        let (before, after) = (before.as_list::<i32>(), after.as_list::<i32>());
        let cell = |list: &arrow::array::ListArray, row| list.is_valid(row).then(|| list.value(row));
        return Ok((0..before.len()).map(|row| cell(before, row) != cell(after, row)).collect());
    }
    let differs = distinct(before, after)?;
    Ok((0..differs.len()).map(|row| differs.value(row)).collect())
}

/// The old rows in the new columns: a column of another type is cast where it can be, a column that is new is null.
pub(super) fn reshaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, SyncError> {
    let safe = CastOptions { safe: true, ..Default::default() };
    let column = |field: &arrow::datatypes::FieldRef| match batch.column_by_name(field.name()) {
        Some(old) if old.data_type() == field.data_type() => Ok(old.clone()),
        Some(old) if arrow::compute::can_cast_types(old.data_type(), field.data_type()) => {
            cast_with_options(old, field.data_type(), &safe)
        }
        _ => Ok(new_null_array(field.data_type(), batch.num_rows())),
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>()?;
    debug_assert!(schema.index_of(SINCE).is_ok());
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}
