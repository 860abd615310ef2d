//! Models made, changed and deleted.
//!
//! A change is tried first without holding anybody up (a warehouse may take its time), then once more in turn, stored
//! with its event in one transaction, and taken into use before it is answered.

use serde_json::{Map, Value, json};

use super::definition::{self, Definition};
use super::entry::{self, Entry};
use super::shape::{DataModelChange, DeleteStatus, NewDataModel};
use super::sync;
use super::trial::Trial;
use super::view::{self, period};
use crate::catalog::definitions::{DefinitionKind, StoredDefinition};
use crate::events::{Event, Subject};
use crate::model::Model;
use crate::server::answer::ApiError;
use crate::server::extract::{Caller, IfMatch};
use crate::server::state::App;
use crate::sync::{Engine, SyncError};

/// Longer texts are cut in the audit trail.
const TOLD: usize = 8192;

/// What the definition of a new model would be stored as.
pub fn unsaved(app: &App, caller: &Caller, new: &NewDataModel) -> Result<StoredDefinition, ApiError> {
    let slug = definition::slug_of(new)?;
    let now = app.service.clock().now();
    Ok(StoredDefinition {
        definition: definition::of_new(new, &slug)?,
        id: slug,
        sql: Some(new.sql.clone()),
        label: None,
        description: None,
        auth_ids: Vec::new(),
        created_by: caller.actor.clone(),
        created_at: now,
        updated_by: caller.actor.clone(),
        updated_at: now,
        revision: 0,
    })
}

/// The trial of a new model: its slug is free, and it passes the rules.
pub async fn tried(app: &App, stored: &StoredDefinition, new: &NewDataModel) -> Result<Trial, ApiError> {
    let engine = app.service.engine();
    let definitions = engine.catalog.definitions().await?;
    let slug = &stored.id;
    if let Some(model) = engine.project.models.get(slug).filter(|model| model.in_files) {
        return Err(
            exists(slug).with_hint(format!("it is defined in {}: choose another slug", model.config_file.display()))
        );
    }
    if definitions.models.iter().any(|other| other.id == *slug) {
        return Err(exists(slug).with_hint("change it with PUT, or choose another slug"));
    }
    let trial = Trial::of(&engine, definitions, stored, new.sync_period.is_some())?;
    definition::check_dialect(new.sql_dialect.as_deref(), trial.provider()?)?;
    // a model of that slug may have been deleted: its record store is still there, and has its key for good
    let model = trial.model()?;
    if let Some(store) = app.models.stores.get(&engine, slug).await?
        && let Some((primary_key, external_key)) = store.keys()
        && (primary_key, external_key) != (&model.primary_key, &model.external_key)
    {
        return Err(ApiError::conflict(
            "slug-has-history",
            format!("a model `{slug}` was there before, and matched `{primary_key}` with `{external_key}`"),
        )
        .with_hint("choose another slug, or keep that key to go on with its memberships")
        .with_field("slug"));
    }
    Ok(trial)
}

fn exists(slug: &str) -> ApiError {
    ApiError::conflict("exists", format!("there is a model `{slug}` already")).with_field("slug")
}

/// Makes a model.
pub async fn create(app: &App, caller: &Caller, new: &NewDataModel) -> Result<Entry, ApiError> {
    let stored = unsaved(app, caller, new)?;
    tried(app, &stored, new).await?.ask(&app.service.engine()).await?;
    let _turn = app.connections.change().await;
    tried(app, &stored, new).await?;
    let details = json!({ "definition": stored.definition, "sql": told(new.sql.clone().into()) });
    let event = Event::new(stored.created_at, Subject::model(&stored.id), "created", "the model was created")
        .by(&caller.actor)
        .with(details);
    if !app.service.catalog().add_definition(DefinitionKind::Model, &stored, &event).await? {
        return Err(exists(&stored.id));
    }
    app.service.reload_definitions().await?;
    entry::one(&app.service.engine(), &stored.id).await
}

/// Reads a change, leaving out what answers hold beyond it.
pub fn read_change(mut body: Map<String, Value>) -> Result<DataModelChange, ApiError> {
    const ANSWERED: [&str; 17] = [
        "id",
        "health",
        "sync_errors",
        "needs_backfill",
        "is_draft",
        "size",
        "table",
        "record_store",
        "author_id",
        "created",
        "updated",
        "updated_by_user_id",
        "origin",
        "file",
        "current_run",
        "run_id",
        "state",
    ];
    body.retain(|key, _| !ANSWERED.contains(&key.as_str()));
    // as text it is a change; as it is answered it is a report
    if body.get("schedule").is_some_and(Value::is_object) {
        body.remove("schedule");
    }
    crate::server::extract::parse(&serde_json::to_vec(&body).map_err(ApiError::internal)?)
}

/// Changes a model.
pub async fn update(
    app: &App,
    caller: &Caller,
    slug: &str,
    change: &DataModelChange,
    if_match: IfMatch,
) -> Result<Entry, ApiError> {
    let engine = app.service.engine();
    let present = entry::one(&engine, slug).await?;
    let Some(stored) = present.stored.clone() else { return Err(entry::in_files(&present.model)) };
    if_match.check(stored.revision)?;
    let change = without_what_is_as_shown(change, &present.model);
    let schedule = present.model.schedule.as_ref();
    let text = schedule.map(ToString::to_string);
    let now = engine.clock.now();
    let new = StoredDefinition {
        definition: definition::changed(&stored, &change, (text.as_deref(), period(schedule)))?,
        sql: change.sql.clone().or_else(|| stored.sql.clone()),
        updated_by: caller.actor.clone(),
        updated_at: now,
        ..stored.clone()
    };
    if new.definition == stored.definition && new.sql == stored.sql {
        return Ok(present);
    }
    let sent_period = change.sync_period.is_some();
    let trial = Trial::of(&engine, engine.catalog.definitions().await?, &new, sent_period)?;
    definition::check_dialect(change.sql_dialect.as_deref(), trial.provider()?)?;
    if asks_warehouse(&stored, &new) {
        trial.ask(&engine).await?;
    }
    let _turn = app.connections.change().await;
    let engine = app.service.engine();
    Trial::of(&engine, engine.catalog.definitions().await?, &new, sent_period)?;
    if !engine.catalog.replace_definition(DefinitionKind::Model, &new, &told_change(&stored, &new)).await? {
        return Err(ApiError::changed_meanwhile());
    }
    app.service.reload_definitions().await?;
    entry::one(&app.service.engine(), slug).await
}

/// What was sent back as it was read is no change, also where it is stored in other words.
fn without_what_is_as_shown(change: &DataModelChange, model: &Model) -> DataModelChange {
    let mut change = change.clone();
    change.sql = change.sql.filter(|sql| *sql != model.sql);
    change.description = change.description.filter(|text| *text != model.description);
    change.timeout = change.timeout.filter(|timeout| *timeout != view::timeout(model));
    change.guard = change.guard.filter(|guard| *guard != Some(view::guard(model)));
    change.columns = change.columns.filter(|columns| columns.clone().unwrap_or_default() != view::columns(model));
    change
}

/// Could the change make the query's result unfit, or is the query about to be run?
fn asks_warehouse(before: &StoredDefinition, after: &StoredDefinition) -> bool {
    let differs = |key: &str| before.definition.get(key) != after.definition.get(key);
    let activated = differs("active") && is_active(&after.definition);
    activated || before.sql != after.sql || ["activated_fields", "identities", "columns"].into_iter().any(differs)
}

fn is_active(definition: &Definition) -> bool {
    definition.get("active").and_then(Value::as_bool).unwrap_or(true)
}

fn told_change(before: &StoredDefinition, after: &StoredDefinition) -> Event {
    let mut changes = Map::new();
    let keys = before.definition.keys().chain(after.definition.keys().filter(|k| !before.definition.contains_key(*k)));
    for key in keys {
        let (from, to) = (before.definition.get(key), after.definition.get(key));
        if from != to {
            changes.insert(key.clone(), json!({ "from": from, "to": to }));
        }
    }
    if before.sql != after.sql {
        let of = |sql: &Option<String>| told(sql.clone().unwrap_or_default().into());
        changes.insert("sql".into(), json!({ "from": of(&before.sql), "to": of(&after.sql) }));
    }
    let names = changes.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let (verb, message) = match (is_active(&before.definition), is_active(&after.definition)) {
        (false, true) => ("activated", "the model was activated".to_string()),
        (true, false) => ("deactivated", "the model was deactivated".to_string()),
        _ => ("updated", format!("changed: {names}")),
    };
    Event::new(after.updated_at, Subject::model(&after.id), verb, message)
        .by(&after.updated_by)
        .with(json!({ "changes": changes }))
}

fn told(text: Value) -> Value {
    match text {
        Value::String(text) if text.len() > TOLD => {
            let cut = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= TOLD).last().unwrap_or(0);
            format!("{}…", &text[..cut]).into()
        }
        other => other,
    }
}

/// Deletes a model. Its record store stays, and is shown to nobody: as it is for a model whose files were deleted.
pub async fn delete(app: &App, caller: &Caller, slug: &str, if_match: IfMatch) -> Result<DeleteStatus, ApiError> {
    let _turn = app.connections.change().await;
    let engine = app.service.engine();
    let stored = engine.catalog.definition(DefinitionKind::Model, slug).await?;
    let in_files = engine.project.models.get(slug).filter(|model| model.in_files);
    let stored = match (stored, in_files) {
        (Some(stored), _) => stored,
        (None, Some(model)) => return Err(entry::in_files(model)),
        (None, None) => return Err(entry::no_such(slug)),
    };
    if_match.check(stored.revision)?;
    // where files of that slug won over it, nothing ever ran from it
    let idle = match in_files {
        Some(_) => None,
        None => Some(kept_idle(app, &engine, slug).await?),
    };
    let event = Event::new(engine.clock.now(), Subject::model(slug), "deleted", "the model was deleted")
        .by(&caller.actor)
        .with(json!({ "definition": stored.definition, "sql": told(stored.sql.unwrap_or_default().into()) }));
    if !engine.catalog.remove_definition(DefinitionKind::Model, slug, &event).await? {
        return Err(entry::no_such(slug));
    }
    app.service.reload_definitions().await?;
    drop(idle);
    let reason = in_files.map(|model| format!("{} defines it all the same", model.config_file.display()));
    Ok(DeleteStatus { id: slug.to_string(), deleted: true, reason })
}

/// Keeps the model from being run, by other processes too, until what is returned is dropped.
async fn kept_idle(app: &App, engine: &Engine, slug: &str) -> Result<impl Send + use<>, ApiError> {
    sync::settle(app, slug).await?;
    if sync::standing(app, slug).current.is_some() {
        return Err(busy(slug));
    }
    engine.model_lock(slug).map_err(|error| match error {
        SyncError::AlreadyRunning { .. } => busy(slug),
        error => error.into(),
    })
}

fn busy(slug: &str) -> ApiError {
    ApiError::conflict("run-under-way", format!("a run of `{slug}` waits or is under way"))
        .with_hint(format!("wait for its end, or POST /v2/datamodel/{slug}/sync/stop"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_model_can_be_read_changed_and_sent_back() {
        let read = json!({
            "id": "m", "name": "M", "slug": "m", "health": { "status": "healthy" }, "sync_errors": [],
            "sync_period": 3600, "schedule": { "sync_period": 3600, "text": "every 1h" }, "guard": { "max_removed": 1 },
        });
        let change = read_change(read.as_object().unwrap().clone()).unwrap();
        assert_eq!((change.name.as_deref(), change.sync_period, &change.schedule), (Some("M"), Some(3600), &None));
        let text = json!({ "schedule": "every 2h" });
        let change = read_change(text.as_object().unwrap().clone()).unwrap();
        assert_eq!(change.schedule, Some(Some("every 2h".into())));
        let unknown = json!({ "sync_perod": 60 });
        assert!(read_change(unknown.as_object().unwrap().clone()).unwrap_err().message().contains("sync_perod"));
    }

    #[test]
    fn long_sql_is_cut_in_the_trail_between_characters() {
        let text = told("ü".repeat(TOLD).into());
        assert_eq!(text.as_str().unwrap().chars().count(), TOLD / 2 + 1);
        assert_eq!(told("short".into()), "short");
    }
}
