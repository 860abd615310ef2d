//! What was published: the definitions that the record stores themselves hold, whatever the models' files say by now.

use deltalake::DeltaTable;
use futures::{FutureExt, StreamExt, TryStreamExt};

use super::definition::{CONFIGURATION_KEY, Definition};
use super::run::Base;
use super::{Engine, SyncError};
use crate::config::IdentityField;
use crate::model::Model;
use crate::profiles::ModelShape;
use crate::store::{Cut, Store, StoreError, TableId, Version};

/// Tables opened at once to see what they were made from; in an object store each takes several answers.
const LOOKED_AT_ONCE: usize = 16;

/// The definition that a record store was made from.
pub(super) fn definition_of(id: &TableId, table: &DeltaTable) -> Result<Option<Definition>, SyncError> {
    let corrupt = |message: String| StoreError::Corrupt { table: id.folder(), message };
    let state = table.snapshot().map_err(|e| corrupt(e.to_string()))?;
    let text = state.metadata().configuration().get(CONFIGURATION_KEY);
    Ok(text.map(|text| serde_json::from_str(text)).transpose().map_err(|e| corrupt(e.to_string()))?)
}

/// A version of a record store: what it was made from, and how large it is. Versions never change.
#[derive(Debug, Clone)]
pub struct Published {
    pub version: Version,
    pub rows: u64,
    definition: Option<Definition>,
}

impl Published {
    /// Does the model say something else now than what this was made from?
    pub fn is_outdated(&self, model: &Model) -> bool {
        self.definition.as_ref().is_some_and(|definition| definition.is_outdated(model))
    }

    /// Primary key and external key, which a record store keeps for good.
    pub fn keys(&self) -> Option<(&str, &str)> {
        self.definition.as_ref().map(|d| (d.primary_key.as_str(), d.external_key.as_str()))
    }
}

impl Engine {
    /// What reading a cut needs to know of each model: as it was published, whatever its files say by now. Models whose
    /// files are gone are among them only when `gone_too`.
    pub async fn shapes(&self, cut: &Cut, gone_too: bool) -> Result<Vec<ModelShape>, SyncError> {
        let mut shapes: Vec<ModelShape> = Vec::new();
        let gone = cut.records.keys().filter(|slug| gone_too && !self.project.models.contains_key(*slug));
        for slug in self.project.models.keys().chain(gone) {
            shapes.extend(match cut.records.get(slug) {
                Some(version) => self.shape(slug, *version).await?,
                None => self.project.models.get(slug).map(ModelShape::from),
            });
        }
        Ok(shapes)
    }

    /// A version of a model's record store; none when there is no such store.
    pub async fn published(&self, slug: &str, version: Version) -> Result<Option<Published>, SyncError> {
        let id = TableId::Records(slug.to_string());
        let Some(table) = self.store.table(&id, Some(version)).await? else { return Ok(None) };
        let rows = Store::files(&id, &table)?.iter().map(|file| file.rows).sum();
        Ok(Some(Published { version, rows, definition: definition_of(&id, &table)? }))
    }

    /// What reading a model at that version needs to know of it; none: neither the version nor its files tell.
    pub async fn shape(&self, slug: &str, version: Version) -> Result<Option<ModelShape>, SyncError> {
        let id = TableId::Records(slug.to_string());
        let table = self.store.table(&id, Some(version)).await?;
        let published = table.map(|table| definition_of(&id, &table)).transpose()?.flatten();
        let configured = || self.project.models.get(slug).map(ModelShape::from);
        Ok(published.map(|definition| definition.shape(slug)).or_else(configured))
    }

    /// How many rows a model's record store has.
    pub async fn stored_rows(&self, slug: &str) -> Result<u64, SyncError> {
        let version = self.catalog.published_version(slug).await?;
        let id = TableId::Records(slug.to_string());
        let Some(version) = version else { return Ok(0) };
        let Some(table) = self.store.table(&id, Some(version)).await? else { return Ok(0) };
        Ok(Store::files(&id, &table)?.iter().map(|file| file.rows).sum())
    }

    /// Fields that the model has not used before may have been used by others: with the same steps?
    pub(super) async fn check_normalization(&self, model: &Model, base: &Base) -> Result<(), SyncError> {
        let known = base.definition.as_ref().map(|definition| &definition.normalization);
        let used = |field: &&IdentityField| {
            model.uses_identity(&field.field) && !known.is_some_and(|known| known.contains_key(&field.field))
        };
        self.check_steps_elsewhere(&self.project.identities.iter().filter(used).collect::<Vec<_>>()).await
    }

    /// Were values of these fields stored with the same steps by every model and stream that uses them?
    pub(super) async fn check_steps_elsewhere(&self, fields: &[&IdentityField]) -> Result<(), SyncError> {
        if fields.is_empty() {
            return Ok(());
        }
        let cut = self.catalog.cut(None).await?;
        let records = cut.records.into_iter().map(|(slug, version)| (TableId::Records(slug), version));
        let streams = cut.streams.into_iter().map(|(stream, version)| (TableId::Stream(stream), version));
        let looks = records.chain(streams).map(|(id, version)| self.definition_at(id, version).boxed());
        let mut definitions = futures::stream::iter(looks.collect::<Vec<_>>()).buffer_unordered(LOOKED_AT_ONCE);
        while let Some(definition) = definitions.try_next().await? {
            let Some(definition) = definition else { continue };
            for field in fields {
                definition.check_steps(&field.field, &field.normalize)?;
            }
        }
        Ok(())
    }

    async fn definition_at(&self, id: TableId, version: Version) -> Result<Option<Definition>, SyncError> {
        match self.store.table(&id, Some(version)).await? {
            Some(table) => definition_of(&id, &table),
            None => Ok(None),
        }
    }
}
