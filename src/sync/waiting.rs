//! Rows that waited for a profile: models that do not create profiles pick them up as soon as they exist.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use uuid::Uuid;

use super::additions::{Additions, Source};
use super::changelog::{ChangeLog, ProfileChange, attributes};
use super::definition::Definition;
use super::links::Links;
use super::published::definition_of;
use super::publishing::Publishing;
use super::{Engine, SyncError};
use crate::diff::compare::{BuildKeyHasher, Differ};
use crate::diff::state;
use crate::identity::identity_texts;
use crate::store::data_file::{ReadOptions, read, read_file};
use crate::store::schema::{KEY_HI, KEY_LO, join_hash};
use crate::store::{DataFile, StagedFile, Store, TableId};
use crate::values::objects::ObjectEncoder;

type New = HashMap<u128, Uuid, BuildKeyHasher>;

impl Engine {
    /// Adds the identities that rows claim, and logs the memberships that begin in other models because of new
    /// identities. The rows that waited there claim identities in turn, until there is nothing new.
    /// `own` are the files of the model itself, if its rows wait too.
    pub(super) async fn link_and_enter(
        &self,
        cx: &Arc<Publishing>,
        links: &Links,
        own: &[DataFile],
    ) -> Result<(), SyncError> {
        let mut known = 0;
        loop {
            links.publish().await?;
            let mut new = Vec::new();
            cx.add(|totals| new.extend_from_slice(&totals.identities[known..]));
            // a plan stages nothing, and so does not see what follows in other models
            if new.is_empty() {
                return Ok(());
            }
            known += new.len();
            self.enter_waiting(cx, links, &new).await?;
            enter_files(cx, links, &cx.model, &cx.definition, own, &new).await?;
        }
    }

    async fn enter_waiting(&self, cx: &Arc<Publishing>, links: &Links, staged: &[StagedFile]) -> Result<(), SyncError> {
        for (model, version) in self.catalog.cut(None).await?.records {
            let id = TableId::Records(model.clone());
            if model == cx.model {
                continue;
            }
            let Some(table) = self.store.table(&id, Some(version)).await? else { continue };
            let Some(definition) = definition_of(&id, &table)? else { continue };
            if definition.create_profiles {
                continue;
            }
            enter_files(cx, links, &model, &definition, &Store::files(&id, &table)?, staged).await?;
        }
        Ok(())
    }

    /// The model creates profiles from now on: rows that stay and have none get theirs.
    pub(super) async fn create_for_waiting(
        &self,
        cx: &Arc<Publishing>,
        links: &Arc<Links>,
        differ: &Arc<Differ>,
        remove_unseen: bool,
    ) -> Result<(), SyncError> {
        let mut additions = Additions::new(cx, links, Source::Waiting);
        let width = cx.result.fields().len();
        let without_since: Vec<usize> = (0..width).chain(width + 1..cx.records.fields().len()).collect();
        for file in 0..differ.old.files.len() {
            let mut row = differ.old.rows_of(file).start;
            let mut batches =
                read_file(&cx.store, &cx.table(), &differ.old.files[file], ReadOptions::default()).await?;
            while let Some(batch) = batches.try_next().await? {
                let stays = |row| match differ.old.state(row) {
                    state::CHANGED => false,
                    state::UNSEEN => !remove_unseen,
                    _ => true,
                };
                let mask: arrow::array::BooleanArray =
                    (row..row + batch.num_rows()).map(|row| Some(stays(row))).collect();
                row += batch.num_rows();
                let batch = super::rewrite::reshaped(&batch, &cx.records)?;
                additions.push(filter_record_batch(&batch, &mask)?.project(&without_since)?).await?;
            }
            if let Some((_, changed)) = differ.changed_rows(file)? {
                additions.push(changed).await?;
            }
        }
        additions.finish().await
    }
}

/// Logs the rows of these files whose key is among the staged identities.
async fn enter_files(
    cx: &Arc<Publishing>,
    links: &Links,
    model: &str,
    definition: &Definition,
    files: &[DataFile],
    staged: &[StagedFile],
) -> Result<(), SyncError> {
    let own = [("field".to_string(), definition.external_key.clone())];
    let table = TableId::Records(model.to_string());
    let mut log = ChangeLog::new(&cx.store, model, &cx.run_id, cx.now, cx.write);
    for identities in staged.iter().filter(|file| !files.is_empty() && file.partition == own) {
        let new = new_identities(&cx.store, identities).await?;
        for file in files {
            enter_file(&cx.store, &table, file, &new, definition, links, &mut log).await?;
        }
    }
    let entered = log.entered;
    let changes = log.finish().await?;
    cx.add(|totals| {
        totals.entered += entered;
        totals.changes.extend(changes);
    });
    Ok(())
}

async fn new_identities(store: &Store, file: &StagedFile) -> Result<New, SyncError> {
    let columns = Some(["profile_id", KEY_HI, KEY_LO].map(String::from).to_vec());
    let options = ReadOptions { columns, ..Default::default() };
    let mut batches = read(store, &TableId::Identities, &file.path, file.size, options).await?;
    let mut new = New::default();
    while let Some(batch) = batches.try_next().await? {
        let ids = batch.column(0).as_string::<i32>();
        let hash = |i: usize| batch.column(i).as_primitive::<Int64Type>().values();
        let (hi, lo) = (hash(1), hash(2));
        for (row, id) in ids.iter().enumerate() {
            let id = Uuid::parse_str(id.unwrap_or_default()).map_err(|e| SyncError::Bug(e.to_string()))?;
            new.insert(join_hash(hi[row], lo[row]), id);
        }
    }
    Ok(new)
}

/// Logs the rows of one file whose key is among the new identities.
async fn enter_file(
    store: &Store,
    table: &TableId,
    file: &DataFile,
    new: &New,
    definition: &Definition,
    links: &Links,
    log: &mut ChangeLog,
) -> Result<(), SyncError> {
    let columns = Some(vec![KEY_HI.to_string(), KEY_LO.to_string()]);
    let mut batches = read_file(store, table, file, ReadOptions { columns, ..Default::default() }).await?;
    let (mut selectors, mut profiles, mut row, mut end) = (Vec::new(), Vec::new(), 0, 0);
    while let Some(batch) = batches.try_next().await? {
        let hash = |i: usize| batch.column(i).as_primitive::<Int64Type>().values();
        for (hi, lo) in hash(0).iter().zip(hash(1)) {
            if let Some(profile) = new.get(&join_hash(*hi, *lo)) {
                selectors.extend((row > end).then(|| RowSelector::skip(row - end)));
                selectors.push(RowSelector::select(1));
                profiles.push(*profile);
                end = row + 1;
            }
            row += 1;
        }
    }
    if profiles.is_empty() {
        return Ok(());
    }
    let options = ReadOptions { selection: Some(RowSelection::from(selectors)), ..Default::default() };
    let batches: Vec<RecordBatch> = read_file(store, table, file, options).await?.try_collect().await?;
    let Some(first) = batches.first() else { return Ok(()) };
    let rows = concat_batches(&first.schema(), &batches)?;
    let texts = identity_texts(rows.column(0))?;
    let schema = rows.schema();
    let (fields, columns) = attributes(schema.fields(), rows.columns(), definition.activated);
    let owners: Vec<Option<Uuid>> = profiles.iter().copied().map(Some).collect();
    links.claim_of(definition, &rows, &owners)?;
    {
        // ends before the next wait: it cannot go to another thread
        let mut objects = ObjectEncoder::new(fields, columns)?;
        for (row, profile) in profiles.into_iter().enumerate() {
            let after = objects.object(row, |_| true);
            log.push(ProfileChange::Entered, profile, texts.value(row), None, Some(&after));
        }
    }
    Ok(log.flush_full().await?)
}
