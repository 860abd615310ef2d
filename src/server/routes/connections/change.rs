//! Making, changing and removing connections.

use std::sync::Arc;

use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::define::{self, compose, own_config, provider, validate};
use super::view::ConnectionView;
use super::{Parameters, free_id, no_such};
use crate::catalog::definitions::{DefinitionKind, StoredDefinition, StoredDefinitions};
use crate::config::PROJECT_FILE;
use crate::events::{Event, Subject, SubjectKind};
use crate::people::Permission;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, IfMatch, Json, Path};
use crate::server::state::App;
use crate::sync::Engine;

/// A connection to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewConnection {
    /// For people. The id is made of it.
    #[schema(example = "App DB")]
    label: String,
    #[serde(default)]
    description: String,
    /// Its type; GET /v2/connectionconfig lists them with their parameters.
    #[serde(alias = "connection_config_slug")]
    #[schema(example = "postgres")]
    provider_slug: String,
    /// The authorizations whose credentials it uses. Takes `authorizations:write`: whoever says where a connection leads
    /// says where its credentials are sent.
    #[serde(default)]
    auth_ids: Vec<String>,
    /// Its parameters, but for secrets.
    #[serde(default)]
    #[schema(value_type = Object)]
    config: Parameters,
}

/// What changes of a connection; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ConnectionChange {
    label: Option<String>,
    description: Option<String>,
    /// The type cannot change; it may be repeated.
    #[serde(alias = "connection_config_slug")]
    provider_slug: Option<String>,
    /// All of them. Takes `authorizations:write`.
    auth_ids: Option<Vec<String>>,
    /// All of the parameters. Takes `authorizations:write` where the connection uses an authorization.
    #[schema(value_type = Option<Object>)]
    config: Option<Parameters>,
}

/// What was removed.
#[derive(Debug, serde::Serialize, ToSchema)]
struct RemovedConnection {
    id: String,
    deleted: bool,
}

/// Make a connection.
///
/// Its id is made of the label. Secrets are not taken here: an authorization holds them, and `auth_ids` names it.
/// References to the server's environment and files are refused, as are paths outside the project's directory and HTTP
/// services in private networks: those are for `cloud-connect.yml`.
#[utoipa::path(post, path = "/v2/connection", tag = "connections", request_body = NewConnection,
    responses((status = 201, body = Answer<ConnectionView>), (status = 400, body = Errors), (status = 422, description = "its warehouse cannot be built of it", body = Errors)),
    security(("token" = ["connections:write"])))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewConnection>,
) -> Result<Answer<ConnectionView>, ApiError> {
    define::label(&new.label, &new.description)?;
    if !new.auth_ids.is_empty() {
        may_send_credentials(&caller)?;
    }
    let _alone = app.connections.change().await;
    let engine = app.service.engine();
    let authorizations = engine.catalog.authorizations().await?;
    let stored = engine.catalog.definitions().await?;
    let definition = compose(&engine, &authorizations, &new.provider_slug, &new.config.0, &new.auth_ids)?;
    let taken =
        |id: &str| engine.project.connections.contains_key(id) || stored.connections.iter().any(|one| one.id == id);
    let now = engine.clock.now();
    let made = StoredDefinition {
        id: free_id(&new.label, "connection", taken),
        definition,
        sql: None,
        label: Some(new.label.trim().to_string()),
        description: Some(new.description.clone()),
        auth_ids: new.auth_ids.clone(),
        created_by: caller.actor.clone(),
        created_at: now,
        updated_by: caller.actor.clone(),
        updated_at: now,
        revision: 1,
    };
    validate(&engine, &stored, &made, Arc::clone(&engine.project.vault))?;
    let event = Event::new(now, subject(&made.id), "created", format!("connection `{}` was created", made.id))
        .by(&caller.actor)
        .with(json!({
            "provider_slug": new.provider_slug, "label": made.label, "auth_ids": made.auth_ids,
            "config": own_config(&made.definition),
        }));
    if !engine.catalog.add_definition(DefinitionKind::Connection, &made, &event).await? {
        return Err(ApiError::conflict("name-taken", format!("a connection `{}` was made meanwhile", made.id))
            .with_hint("send the request again"));
    }
    app.service.reload_definitions().await?;
    Ok(Answer::created(ConnectionView::of_stored(&made, &[])).with_revision(made.revision))
}

/// Change a connection made through the API.
///
/// What is left out stays as it is; `config` and `auth_ids` are replaced as a whole.
#[utoipa::path(put, path = "/v2/connection/{id}", tag = "connections", params(("id" = String, Path, description = "the connection's name")),
    request_body = ConnectionChange,
    responses((status = 200, body = Answer<ConnectionView>), (status = 404, body = Errors), (status = 409, description = "it is defined in the project's files", body = Errors),
        (status = 412, description = "it was changed meanwhile", body = Errors)),
    security(("token" = ["connections:write"])))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    if_match: IfMatch,
    Path(id): Path<String>,
    Json(change): Json<ConnectionChange>,
) -> Result<Answer<ConnectionView>, ApiError> {
    let _alone = app.connections.change().await;
    let engine = app.service.engine();
    let stored = engine.catalog.definitions().await?;
    let old = changeable(&engine, &stored, &id)?;
    if_match.check(old.revision)?;
    let leads_elsewhere = change.config.is_some() && !old.auth_ids.is_empty();
    if change.auth_ids.as_ref().is_some_and(|ids| *ids != old.auth_ids) || leads_elsewhere {
        may_send_credentials(&caller)?;
    }
    let type_of = old.definition.get("type").and_then(Value::as_str).unwrap_or_default();
    if let Some(wanted) = change.provider_slug.as_deref().filter(|wanted| *wanted != type_of) {
        provider(&engine.project, wanted)?;
        return Err(ApiError::bad_request("unchangeable", "a connection's type does not change")
            .with_hint("make another connection")
            .with_field("provider_slug"));
    }
    let mut new = StoredDefinition {
        label: change.label.map(|label| label.trim().to_string()).or_else(|| old.label.clone()),
        description: change.description.or_else(|| old.description.clone()),
        auth_ids: change.auth_ids.unwrap_or_else(|| old.auth_ids.clone()),
        updated_by: caller.actor.clone(),
        updated_at: engine.clock.now(),
        ..old.clone()
    };
    define::label(new.label.as_deref().unwrap_or_default(), new.description.as_deref().unwrap_or_default())?;
    if change.config.is_some() || new.auth_ids != old.auth_ids {
        let config = change.config.map_or_else(|| own_config(&old.definition), |config| config.0);
        let authorizations = engine.catalog.authorizations().await?;
        new.definition = compose(&engine, &authorizations, type_of, &config, &new.auth_ids)?;
        validate(&engine, &stored, &new, Arc::clone(&engine.project.vault))?;
    }
    let changes = differences(old, &new);
    if changes.is_empty() {
        return Ok(Answer::of(shown(&engine, old)).with_revision(old.revision));
    }
    let what: Vec<&str> = changes.keys().map(String::as_str).collect();
    let message = format!("connection `{id}`: {} changed", what.join(", "));
    let event =
        Event::new(new.updated_at, subject(&id), "updated", message).by(&caller.actor).with(Value::Object(changes));
    if !engine.catalog.replace_definition(DefinitionKind::Connection, &new, &event).await? {
        return Err(ApiError::changed_meanwhile());
    }
    new.revision += 1;
    app.service.reload_definitions().await?;
    Ok(Answer::of(shown(&app.service.engine(), &new)).with_revision(new.revision))
}

/// Remove a connection made through the API. Refused while a model uses it.
#[utoipa::path(delete, path = "/v2/connection/{id}", tag = "connections", params(("id" = String, Path, description = "the connection's name")),
    responses((status = 200, body = Answer<RemovedConnection>), (status = 404, body = Errors), (status = 409, description = "a model uses it, or it is defined in the project's files", body = Errors)),
    security(("token" = ["connections:write"])))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    if_match: IfMatch,
    Path(id): Path<String>,
) -> Result<Answer<RemovedConnection>, ApiError> {
    let _alone = app.connections.change().await;
    let engine = app.service.engine();
    let stored = engine.catalog.definitions().await?;
    let shadowed = engine.files().connections.contains_key(&id);
    let old = match stored.connections.iter().find(|one| one.id == id) {
        // the files have one of that name: this one is not in use
        Some(old) if shadowed => old,
        _ => changeable(&engine, &stored, &id)?,
    };
    if_match.check(old.revision)?;
    if !shadowed {
        let users = models_of(&engine, &stored, &id);
        if !users.is_empty() {
            let shown = users.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(ApiError::conflict("in-use", format!("{} models use connection `{id}`: {shown}", users.len()))
                .with_hint("remove the models first"));
        }
    }
    let event = Event::new(engine.clock.now(), subject(&id), "deleted", format!("connection `{id}` was deleted"))
        .by(&caller.actor)
        .with(json!({ "label": old.label, "auth_ids": old.auth_ids, "config": own_config(&old.definition) }));
    if !engine.catalog.remove_definition(DefinitionKind::Connection, &id, &event).await? {
        return Err(no_such(&id));
    }
    app.service.reload_definitions().await?;
    Ok(Answer::of(RemovedConnection { id, deleted: true }))
}

/// A connection that the API may change.
fn changeable<'a>(engine: &Engine, stored: &'a StoredDefinitions, id: &str) -> Result<&'a StoredDefinition, ApiError> {
    if engine.files().connections.contains_key(id) {
        return Err(ApiError::conflict("defined-in-files", format!("connection `{id}` is defined in {PROJECT_FILE}"))
            .with_hint(format!("change it there: `connections:`, `{id}:`")));
    }
    stored.connections.iter().find(|one| one.id == id).ok_or_else(|| no_such(id))
}

/// Whoever says where a connection leads, says where its credentials are sent: that takes the permission of those who
/// manage them.
fn may_send_credentials(caller: &Caller) -> Result<(), ApiError> {
    if caller.may(Permission::AuthorizationsWrite) {
        return Ok(());
    }
    Err(ApiError::forbidden(format!(
        "{} may not say where credentials are used: it lacks {}",
        caller.actor,
        Permission::AuthorizationsWrite
    ))
    .with_hint("ask for a token with authorizations:write, or leave auth_ids out"))
}

/// The models that read through a connection, usable or not.
fn models_of(engine: &Engine, stored: &StoredDefinitions, connection: &str) -> Vec<String> {
    let used = engine.project.models.values().filter(|model| model.connection == connection);
    let mut users: Vec<String> = used.map(|model| model.slug.clone()).collect();
    let named = |one: &&StoredDefinition| {
        one.definition.get("connection").and_then(Value::as_str) == Some(connection) && !users.contains(&one.id)
    };
    let unusable: Vec<String> = stored.models.iter().filter(named).map(|one| one.id.clone()).collect();
    users.extend(unusable);
    users
}

fn shown(engine: &Engine, stored: &StoredDefinition) -> ConnectionView {
    let unusable = engine.unusable.iter().find(|one| one.kind == "connection" && one.id == stored.id);
    ConnectionView::of_stored(stored, unusable.map_or(&[], |unusable| &unusable.faults))
}

/// What changed, from what to what. A definition's own values hold no secret: those are refused on their way in.
fn differences(old: &StoredDefinition, new: &StoredDefinition) -> Map<String, Value> {
    let mut changes = Map::new();
    let mut note = |name: &str, from: Value, to: Value| {
        if from != to {
            changes.insert(name.to_string(), json!({ "from": from, "to": to }));
        }
    };
    note("label", json!(old.label), json!(new.label));
    note("description", json!(old.description), json!(new.description));
    note("auth_ids", json!(old.auth_ids), json!(new.auth_ids));
    let (from, to) = (own_config(&old.definition), own_config(&new.definition));
    let names: std::collections::BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    for name in names {
        note(&format!("config.{name}"), json!(from.get(name)), json!(to.get(name)));
    }
    changes
}

fn subject(id: &str) -> Subject {
    Subject::new(SubjectKind::Connection, id)
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(create)).routes(routes!(update, remove))
}
