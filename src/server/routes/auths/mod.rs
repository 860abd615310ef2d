//! Authorizations: credentials that connections use. They go in, are sealed, and never come out.
//!
//! ```text
//! request ─► values (declared by the provider, of their kind) ─► seal (crate::vault) ─► catalog, with its event
//! ```
//!
//! Actors: [`values`] judges what a request gives; [`sealing`] seals it and stores it; this file is the endpoints.
//!
//! Invariants: a value is in no answer, event, error or log line; what is stored can be opened with a key that was there
//! while it was stored; an authorization that a connection uses is not removed.

mod sealing;
mod values;
mod view;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::connections::{Parameters, label, users_of};
use crate::catalog::authorizations::SealedAuthorization;
use crate::events::{Event, Subject, SubjectKind};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, IfMatch, Json, Page, Path, Query};
use crate::server::state::App;
use sealing::New;
use view::AuthorizationView;

/// An authorization to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewAuthorization {
    /// For people.
    #[schema(example = "App DB, reader")]
    label: String,
    #[serde(default)]
    description: String,
    /// The type of connection that it is for, where the path does not say it.
    #[serde(rename = "type")]
    #[schema(example = "postgres")]
    type_of: Option<String>,
    /// The same.
    provider_slug: Option<String>,
    /// The parameters that it holds: secrets, and others that belong to them, such as a user's name. A host in here binds
    /// the credentials to it.
    #[schema(value_type = Object)]
    config: Parameters,
}

impl NewAuthorization {
    /// The type, which body and path have to agree on.
    fn type_of(&self, path: Option<&str>) -> Result<String, ApiError> {
        let mut all = [path, self.type_of.as_deref(), self.provider_slug.as_deref()].into_iter().flatten();
        let first = all.next().ok_or_else(|| {
            ApiError::bad_request("no-type", "there is no `type`")
                .with_hint("for example `\"type\": \"postgres\"`; GET /v2/connectionconfig lists the types")
                .with_field("type")
        })?;
        if all.any(|other| other != first) {
            return Err(
                ApiError::bad_request("types-differ", "the request names more than one type").with_field("type")
            );
        }
        Ok(first.to_string())
    }
}

/// What changes of an authorization; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct AuthorizationChange {
    label: Option<String>,
    description: Option<String>,
    /// The type cannot change; it may be repeated.
    #[serde(rename = "type")]
    type_of: Option<String>,
    /// The same.
    provider_slug: Option<String>,
    /// The values given replace those of the same name, null removes one; the others stay.
    #[serde(default)]
    #[schema(value_type = Object)]
    config: Parameters,
}

/// What was removed.
#[derive(Debug, Serialize, ToSchema)]
struct RemovedAuthorization {
    id: String,
    deleted: bool,
}

/// All authorizations, by id, without what they hold.
#[utoipa::path(get, path = "/v2/auth", tag = "authorizations", params(Page),
    responses((status = 200, body = Answer<Vec<AuthorizationView>>)), security(("token" = ["authorizations:read"])))]
async fn list(State(app): State<App>, Query(page): Query<Page>) -> Result<Answer<Vec<AuthorizationView>>, ApiError> {
    let engine = app.service.engine();
    let stored = engine.catalog.definitions().await?;
    let (keyring, all) = sealing::present(&engine).await?;
    let (shown, next) = page.of(all, |one| &one.id);
    let views = shown.into_iter().map(|one| AuthorizationView::of(&engine, &keyring, &stored, one));
    Ok(Answer::page(views.collect(), next))
}

/// Make an authorization: its values are sealed, and never come out again.
#[utoipa::path(post, path = "/v2/auth", tag = "authorizations", request_body = NewAuthorization,
    responses((status = 201, body = Answer<AuthorizationView>), (status = 400, body = Errors)), security(("token" = ["authorizations:write"])))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewAuthorization>,
) -> Result<Answer<AuthorizationView>, ApiError> {
    make(&app, &caller, None, None, new).await
}

/// Make an authorization of that type.
#[utoipa::path(post, path = "/v2/auth/{type}", tag = "authorizations", params(("type" = String, Path, description = "the type of connection")),
    request_body = NewAuthorization,
    responses((status = 201, body = Answer<AuthorizationView>), (status = 400, body = Errors)), security(("token" = ["authorizations:write"])))]
async fn create_of_type(
    State(app): State<App>,
    caller: Caller,
    Path(type_of): Path<String>,
    Json(new): Json<NewAuthorization>,
) -> Result<Answer<AuthorizationView>, ApiError> {
    make(&app, &caller, Some(&type_of), None, new).await
}

/// Make an authorization of that type with an id of your own.
#[utoipa::path(post, path = "/v2/auth/{type}/{id}", tag = "authorizations",
    params(("type" = String, Path, description = "the type of connection"), ("id" = String, Path, description = "letters, digits, `_` and `-`, 64 at most")),
    request_body = NewAuthorization,
    responses((status = 201, body = Answer<AuthorizationView>), (status = 400, body = Errors), (status = 409, description = "there is one of that id", body = Errors)),
    security(("token" = ["authorizations:write"])))]
async fn create_with_id(
    State(app): State<App>,
    caller: Caller,
    Path((type_of, id)): Path<(String, String)>,
    Json(new): Json<NewAuthorization>,
) -> Result<Answer<AuthorizationView>, ApiError> {
    make(&app, &caller, Some(&type_of), Some(id), new).await
}

async fn make(
    app: &App,
    caller: &Caller,
    type_of: Option<&str>,
    id: Option<String>,
    new: NewAuthorization,
) -> Result<Answer<AuthorizationView>, ApiError> {
    let provider = new.type_of(type_of)?;
    label(&new.label, &new.description)?;
    let _alone = app.connections.change().await;
    let new =
        New { id, provider, label: new.label.trim().to_string(), description: new.description, config: new.config };
    let made = sealing::make(app, caller, new).await?;
    let revision = made.revision;
    Ok(Answer::created(taken_over(app, made).await?).with_revision(revision))
}

/// Lets the service use what was stored, and shows it.
async fn taken_over(app: &App, stored: SealedAuthorization) -> Result<AuthorizationView, ApiError> {
    app.service.reload_definitions().await?;
    let engine = app.service.engine();
    let definitions = engine.catalog.definitions().await?;
    Ok(AuthorizationView::of(&engine, engine.project.vault.keyring(), &definitions, stored))
}

/// One authorization, without what it holds.
#[utoipa::path(get, path = "/v2/auth/{type}/{id}", tag = "authorizations",
    params(("type" = String, Path, description = "the type of connection"), ("id" = String, Path, description = "its id")),
    responses((status = 200, body = Answer<AuthorizationView>), (status = 404, body = Errors)), security(("token" = ["authorizations:read"])))]
async fn get(
    State(app): State<App>,
    Path((type_of, id)): Path<(String, String)>,
) -> Result<Answer<AuthorizationView>, ApiError> {
    let engine = app.service.engine();
    let (keyring, all) = sealing::present(&engine).await?;
    let found = find(all, &type_of, &id)?;
    let stored = engine.catalog.definitions().await?;
    let revision = found.revision;
    Ok(Answer::of(AuthorizationView::of(&engine, &keyring, &stored, found)).with_revision(revision))
}

/// Change an authorization: the values given are replaced, the others stay.
#[utoipa::path(put, path = "/v2/auth/{type}/{id}", tag = "authorizations",
    params(("type" = String, Path, description = "the type of connection"), ("id" = String, Path, description = "its id")),
    request_body = AuthorizationChange,
    responses((status = 200, body = Answer<AuthorizationView>), (status = 400, body = Errors), (status = 404, body = Errors),
        (status = 412, description = "it was changed meanwhile", body = Errors)),
    security(("token" = ["authorizations:write"])))]
async fn update(
    State(app): State<App>,
    caller: Caller,
    if_match: IfMatch,
    Path((type_of, id)): Path<(String, String)>,
    Json(change): Json<AuthorizationChange>,
) -> Result<Answer<AuthorizationView>, ApiError> {
    let _alone = app.connections.change().await;
    let old = find(app.service.catalog().authorizations().await?, &type_of, &id)?;
    if_match.check(old.revision)?;
    let types = [change.type_of.as_deref(), change.provider_slug.as_deref()];
    if types.into_iter().flatten().any(|wanted| wanted != old.provider) {
        return Err(ApiError::bad_request("unchangeable", "an authorization's type does not change")
            .with_hint("make another authorization")
            .with_field("type"));
    }
    let new_label = change.label.map_or_else(|| old.label.clone(), |label| label.trim().to_string());
    let description = change.description.unwrap_or_else(|| old.description.clone());
    label(&new_label, &description)?;
    let changed = sealing::change(&app, &caller, old, new_label, description, &change.config).await?;
    let revision = changed.revision;
    Ok(Answer::of(taken_over(&app, changed).await?).with_revision(revision))
}

/// Remove an authorization. Refused while a connection uses it.
#[utoipa::path(delete, path = "/v2/auth/{type}/{id}", tag = "authorizations",
    params(("type" = String, Path, description = "the type of connection"), ("id" = String, Path, description = "its id")),
    responses((status = 200, body = Answer<RemovedAuthorization>), (status = 404, body = Errors), (status = 409, description = "a connection uses it", body = Errors)),
    security(("token" = ["authorizations:write"])))]
async fn remove(
    State(app): State<App>,
    caller: Caller,
    if_match: IfMatch,
    Path((type_of, id)): Path<(String, String)>,
) -> Result<Answer<RemovedAuthorization>, ApiError> {
    let _alone = app.connections.change().await;
    let engine = app.service.engine();
    let old = find(engine.catalog.authorizations().await?, &type_of, &id)?;
    if_match.check(old.revision)?;
    let users = users_of(&engine, &engine.catalog.definitions().await?, &id);
    if !users.is_empty() {
        let message = format!("{} connections use the authorization `{id}`: {}", users.len(), users.join(", "));
        return Err(ApiError::conflict("in-use", message).with_hint("take it out of their auth_ids first"));
    }
    let event = Event::new(engine.clock.now(), subject(&id), "deleted", format!("authorization `{id}` was deleted"))
        .by(&caller.actor)
        .with(json!({ "type": old.provider, "label": old.label, "parameters": old.parameters }));
    if !engine.catalog.remove_authorization(&id, &event).await? {
        return Err(no_such(&id));
    }
    app.service.reload_definitions().await?;
    Ok(Answer::of(RemovedAuthorization { id, deleted: true }))
}

fn find(all: Vec<SealedAuthorization>, type_of: &str, id: &str) -> Result<SealedAuthorization, ApiError> {
    all.into_iter().find(|one| one.id == id && one.provider == type_of).ok_or_else(|| no_such(id))
}

fn no_such(id: &str) -> ApiError {
    ApiError::not_found(format!("no authorization `{id}` of that type")).with_hint("GET /v2/auth lists them")
}

fn subject(id: &str) -> Subject {
    Subject::new(SubjectKind::Authorization, id)
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(create_of_type)).routes(routes!(
        get,
        create_with_id,
        update,
        remove
    ))
}
