//! A model as it is known: from the files or from the catalog, usable or not.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use crate::catalog::definitions::{DefinitionKind, StoredDefinition};
use crate::config::{ConfigError, Spans};
use crate::model::{Guard, Model};
use crate::server::answer::ApiError;
use crate::sync::Engine;

/// One model.
#[derive(Debug, Clone)]
pub struct Entry {
    pub model: Model,
    /// What the catalog holds of it; none for a model of the files.
    pub stored: Option<StoredDefinition>,
    /// Why it cannot be used.
    pub faults: Vec<ConfigError>,
}

/// All models by slug.
pub async fn all(engine: &Engine) -> Result<BTreeMap<String, Entry>, ApiError> {
    let mut stored: BTreeMap<String, StoredDefinition> =
        engine.catalog.definitions().await?.models.into_iter().map(|d| (d.id.clone(), d)).collect();
    let mut entries = BTreeMap::new();
    for model in engine.project.models.values() {
        let stored = stored.remove(&model.slug).filter(|_| !model.in_files);
        entries.insert(model.slug.clone(), Entry { model: model.clone(), stored, faults: Vec::new() });
    }
    // what is left cannot be used (or was stored a moment ago)
    for (slug, definition) in stored.into_iter().filter(|(slug, _)| !engine.project.models.contains_key(slug)) {
        entries.insert(slug, unusable(engine, definition));
    }
    Ok(entries)
}

/// The model of that slug.
pub async fn one(engine: &Engine, slug: &str) -> Result<Entry, ApiError> {
    if let Some(model) = engine.project.models.get(slug).filter(|model| model.in_files) {
        return Ok(Entry { model: model.clone(), stored: None, faults: Vec::new() });
    }
    let stored = engine.catalog.definition(DefinitionKind::Model, slug).await?.ok_or_else(|| no_such(slug))?;
    Ok(match engine.project.models.get(slug) {
        Some(model) => Entry { model: model.clone(), stored: Some(stored), faults: Vec::new() },
        None => unusable(engine, stored),
    })
}

pub fn no_such(slug: &str) -> ApiError {
    ApiError::not_found(format!("no model `{slug}`")).with_hint("GET /v2/datamodel lists them")
}

/// 409: it is in the project's files.
pub fn in_files(model: &Model) -> ApiError {
    let file = model.config_file.display();
    ApiError::conflict("defined-in-files", format!("`{}` is defined in {file}", model.slug))
        .with_hint(format!("change {file}: the service reads it anew by itself"))
}

fn unusable(engine: &Engine, stored: StoredDefinition) -> Entry {
    let known = engine.unusable.iter().find(|u| u.kind == DefinitionKind::Model.as_str() && u.id == stored.id);
    let faults = known.map(|known| known.faults.clone()).unwrap_or_default();
    Entry { model: as_far_as_it_can_be_read(&stored), stored: Some(stored), faults }
}

/// What a definition says, faults or not: to be shown, never to be run.
fn as_far_as_it_can_be_read(stored: &StoredDefinition) -> Model {
    let text = |key: &str| stored.definition.get(key).and_then(Value::as_str).map(String::from);
    let texts = |key: &str| {
        let list = stored.definition.get(key).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
    };
    let flag = |key: &str, default| stored.definition.get(key).and_then(Value::as_bool).unwrap_or(default);
    Model {
        slug: stored.id.clone(),
        name: text("name").unwrap_or_else(|| stored.id.clone()),
        description: text("description"),
        connection: text("connection").unwrap_or_default(),
        primary_key: text("primary_key").unwrap_or_default(),
        external_key: text("external_key").unwrap_or_default(),
        activated_fields: texts("activated_fields"),
        identities: texts("identities"),
        schedule: text("schedule").and_then(|text| text.parse().ok()),
        create_profiles: flag("create_profiles", true),
        active: flag("active", true),
        guard: Guard::default(),
        columns: BTreeMap::new(),
        timeout: None,
        sql: stored.sql.clone().unwrap_or_default(),
        sql_file: PathBuf::new(),
        config_file: PathBuf::new(),
        spans: Spans::default(),
        in_files: false,
    }
}
