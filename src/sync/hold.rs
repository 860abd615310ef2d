//! Removals that wait for a person: written down by the run that found them, ended by approval, rejection, or a later
//! run. An approval covers what was shown: the rows whose keys the hold lists, and no others.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use futures::TryStreamExt;
use uuid::Uuid;

use super::changelog::attributes;
use super::links::Links;
use super::lock::PublishLock;
use super::publish::Consequences;
use super::publishing::{ChangeSample, Publishing};
use super::report::{Hold, HoldStatus, RunKind, RunReport, RunStatus};
use super::rewrite::{Rewrite, RewriteSource};
use super::{Engine, SyncError};
use crate::diff::compare::{BuildKeyHasher, MAX_SAMPLES};
use crate::diff::index::OldRows;
use crate::diff::spill::SpillFolder;
use crate::diff::state;
use crate::identity::identity_texts;
use crate::identity::resolve::{MAX_ASKED, Resolver};
use crate::store::data_file::{ReadOptions, RollingWriter, read, read_file};
use crate::store::schema::{KEY_HI, KEY_LO, join_hash, records_schema, split_hash};
use crate::store::{Commit, TableId};
use crate::values::objects::ObjectEncoder;

type Keys = HashSet<u128, BuildKeyHasher>;

impl Engine {
    /// Lists the keys of the rows that were not seen.
    pub(super) async fn write_hold(&self, cx: &Publishing, old: &OldRows) -> Result<Hold, SyncError> {
        let schema = Schema::new([KEY_HI, KEY_LO].map(|name| Field::new(name, DataType::Int64, false)).to_vec());
        let schema = Arc::new(schema);
        let mut out = RollingWriter::new(&cx.store, &TableId::Holds, &cx.run_id, schema.clone(), &[], cx.now);
        let mut removed = 0;
        for file in 0..old.files.len() {
            let mut row = old.rows_of(file).start;
            let columns = Some(vec![KEY_HI.to_string(), KEY_LO.to_string()]);
            let options = ReadOptions { columns, ..Default::default() };
            let mut batches = read_file(&cx.store, &cx.table(), &old.files[file], options).await?;
            while let Some(batch) = batches.try_next().await? {
                let unseen: Vec<usize> =
                    (0..batch.num_rows()).filter(|i| old.state(row + i) == state::UNSEEN).collect();
                row += batch.num_rows();
                let pick = |i: usize| {
                    let column = batch.column(i).as_primitive::<Int64Type>();
                    Arc::new(Int64Array::from_iter_values(unseen.iter().map(|row| column.value(*row))))
                };
                removed += unseen.len() as u64;
                out.write(&RecordBatch::try_new(schema.clone(), vec![pick(0), pick(1)])?).await?;
            }
        }
        let samples = self.sample_unseen(cx, old, MAX_SAMPLES).await?;
        Ok(Hold { removed, of: old.len() as u64, files: out.finish().await?, samples })
    }

    /// Some of the rows that were not seen: key and attributes.
    pub(super) async fn sample_unseen(
        &self,
        cx: &Publishing,
        old: &OldRows,
        wanted: usize,
    ) -> Result<Vec<ChangeSample>, SyncError> {
        let mut samples = Vec::new();
        for file in 0..old.files.len() {
            let range = old.rows_of(file);
            if samples.len() >= wanted {
                break;
            }
            if !range.clone().any(|row| old.state(row) == state::UNSEEN) {
                continue;
            }
            let mut row = range.start;
            let mut batches = read_file(&cx.store, &cx.table(), &old.files[file], ReadOptions::default()).await?;
            while let Some(batch) = batches.try_next().await? {
                let unseen = (0..batch.num_rows()).filter(|i| old.state(row + i) == state::UNSEEN);
                let unseen: Vec<usize> = unseen.take(wanted - samples.len()).collect();
                row += batch.num_rows();
                let batch = super::rewrite::reshaped(&batch, &cx.records)?;
                let (texts, schema) = (identity_texts(batch.column(0))?, batch.schema());
                let (fields, columns) = attributes(schema.fields(), batch.columns(), cx.definition.activated);
                let mut objects = ObjectEncoder::new(fields, columns)?;
                for i in unseen {
                    let before = serde_json::from_str(&objects.object(i, |_| true)).ok();
                    samples.push(ChangeSample { key: texts.value(i).into(), before, after: None });
                }
                if samples.len() >= wanted {
                    break;
                }
            }
        }
        Ok(samples)
    }

    /// The held run of that id and its hold, which must still be waiting.
    async fn waiting(&self, run_id: &str) -> Result<(RunReport, Hold), SyncError> {
        let run = self.catalog.run(run_id).await?;
        match self.catalog.hold(&run.run_id).await? {
            None => Err(SyncError::NothingHeld(run.run_id)),
            Some((hold, HoldStatus::Waiting)) => Ok((run, hold)),
            Some((_, status)) => Err(SyncError::HoldEnded { run: run.run_id, status: status.to_string() }),
        }
    }

    /// Keeps the rows whose removal a run held. The next run compares anew.
    pub async fn reject(&self, run_id: &str) -> Result<RunReport, SyncError> {
        let (run, _) = self.waiting(run_id).await?;
        let _lock = self.model_lock(&run.model)?;
        let (run, _) = self.waiting(&run.run_id).await?;
        self.catalog.end_hold(&run.run_id, HoldStatus::Rejected, self.clock.now()).await?;
        self.store.discard_staged(&TableId::Holds, &run.run_id).await?;
        Ok(self.catalog.run(&run.run_id).await?)
    }

    /// Removes the rows whose removal a run held.
    pub async fn approve(&self, run_id: &str) -> Result<RunReport, SyncError> {
        let (held_run, _) = self.waiting(run_id).await?;
        let model_lock = self.model_lock(&held_run.model)?;
        self.clean_up_after(&model_lock, &held_run.model).await?;
        let publish_lock = self.publish_lock().await?;
        self.roll_all_forward(&publish_lock).await?;
        self.check_shared(&publish_lock).await?;
        let (held_run, hold) = self.waiting(&held_run.run_id).await?;

        let id = Uuid::now_v7().to_string();
        let mut report = RunReport::new(id, held_run.model.clone(), RunKind::Approve, self.clock.now());
        report.approves = Some(held_run.run_id.clone());
        self.catalog.begin(&report).await?;
        if let Err(error) = self.approve_begun(&publish_lock, &held_run, &hold, &mut report).await {
            return Err(self.record_failure(&mut report, error).await);
        }
        Ok(report)
    }

    async fn approve_begun(
        &self,
        publish_lock: &PublishLock,
        held_run: &RunReport,
        hold: &Hold,
        report: &mut RunReport,
    ) -> Result<(), SyncError> {
        let base = self.base(&held_run.model).await?;
        let Some(definition) = base.definition.clone() else {
            return Err(SyncError::Bug("a record store without a definition".into()));
        };
        let old = Arc::new(OldRows::new(base.files.clone()));
        let touched = self.mark_held(&held_run.model, &old, hold).await?;

        let folder = SpillFolder::create(&self.spill_folder(), &report.run_id)?;
        let mut columns = Vec::with_capacity(definition.columns.len());
        for (name, value_type) in &definition.columns {
            columns.push((name.clone(), value_type.parse().map_err(SyncError::Bug)?));
        }
        let result = arrow::datatypes::Schema::new(
            columns.iter().map(|(name, t)| crate::store::schema::value_field(name, *t)).collect::<Vec<_>>(),
        );
        let cx = Arc::new(Publishing {
            store: self.store.clone(),
            run_id: report.run_id.clone(),
            now: self.clock.now(),
            model: held_run.model.clone(),
            records: records_schema(&result),
            result: Arc::new(result),
            identity_fields: self.project.identities.clone(),
            resolver: Resolver::open(&self.store, self.memory.tasks).await?,
            write: true,
            totals: std::sync::Mutex::default(),
            definition,
        });
        let links = Arc::new(Links::new(&cx, &folder));
        let removed = old.count()[state::UNSEEN as usize];
        let owners = match touched {
            Some(touched) => Some(cx.resolver.owners(&cx.definition.external_key, touched).await?),
            None => None,
        };
        let source = RewriteSource { remove_unseen: true, owners, fold: true, ..RewriteSource::default() };
        let rewrite = Arc::new(Rewrite::new(&cx, &links, &old, source));
        self.in_tasks(|| Arc::clone(&rewrite).work()).await?;
        fail::fail_point!("after-rewrite");

        let totals = std::mem::take(&mut *cx.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        report.removed = removed;
        report.unchanged = old.len() as u64 - removed;
        report.exited = totals.exited;
        report.finish(RunStatus::Published, self.clock.now());
        let remove = rewrite.files().iter().map(|file| base.files[*file].remove.clone()).collect();
        let commit = Commit { add: totals.records, remove, ..Commit::default() };
        let consequences = Consequences {
            report: report.clone(),
            identities: Vec::new(),
            changes: totals.changes,
            hold: None,
            ends_hold: Some((held_run.run_id.clone(), HoldStatus::Approved)),
        };
        self.publish(publish_lock, &held_run.model, base.table.as_ref(), commit, &consequences).await?;
        self.store.discard_staged(&TableId::Holds, &held_run.run_id).await?;
        Ok(())
    }

    /// Leaves only the held rows as not seen. Returns their key hashes, unless they are too many.
    async fn mark_held(&self, model: &str, old: &OldRows, hold: &Hold) -> Result<Option<Vec<u128>>, SyncError> {
        for row in 0..old.len() {
            old.set_state(row, state::UNCHANGED);
        }
        let (mut keys, mut touched) = (Keys::default(), Some(Vec::new()));
        for file in &hold.files {
            let mut batches = read(&self.store, &TableId::Holds, &file.path, file.size, ReadOptions::default()).await?;
            while let Some(batch) = batches.try_next().await? {
                let hash = |i: usize| batch.column(i).as_primitive::<Int64Type>().values();
                keys.extend(hash(0).iter().zip(hash(1)).map(|(hi, lo)| join_hash(*hi, *lo)));
                if keys.len() >= MAX_ASKED {
                    self.mark_some(model, old, &keys, &mut touched).await?;
                    keys.clear();
                }
            }
        }
        self.mark_some(model, old, &keys, &mut touched).await?;
        Ok(touched)
    }

    /// Marks the rows with these keys as not seen.
    async fn mark_some(
        &self,
        model: &str,
        old: &OldRows,
        keys: &Keys,
        touched: &mut Option<Vec<u128>>,
    ) -> Result<(), SyncError> {
        let (Some(low), Some(high)) = (keys.iter().min(), keys.iter().max()) else { return Ok(()) };
        let (low, high) = (split_hash(*low).0, split_hash(*high).0);
        let table = TableId::Records(model.to_string());
        for file in (0..old.files.len()).filter(|file| old.files[*file].may_hold(low, high)) {
            let mut row = old.rows_of(file).start;
            let columns = Some(vec![KEY_HI.to_string(), KEY_LO.to_string()]);
            let options = ReadOptions { columns, ..Default::default() };
            let mut batches = read_file(&self.store, &table, &old.files[file], options).await?;
            while let Some(batch) = batches.try_next().await? {
                let hash = |i: usize| batch.column(i).as_primitive::<Int64Type>().values();
                for (hi, lo) in hash(0).iter().zip(hash(1)) {
                    let key = join_hash(*hi, *lo);
                    if keys.contains(&key) {
                        old.set_state(row, state::UNSEEN);
                        match touched {
                            Some(list) if list.len() < MAX_ASKED => list.push(key),
                            _ => *touched = None,
                        }
                    }
                    row += 1;
                }
            }
        }
        Ok(())
    }
}
