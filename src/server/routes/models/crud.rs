//! The endpoints of models as things: list, make, read, change, delete.

use axum::extract::State;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::shape::{DataModel, DataModelChange, DeleteStatus, NewDataModel};
use super::{change, entry, view};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, IfMatch, Json, Page, Path, Query};
use crate::server::state::App;

/// What is shown of models.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Shown {
    /// Add the record store's rows as `size`.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = Option<bool>)]
    sizes: bool,
}

/// As clients write it in a query: `?sizes`, `?sizes=true`, `?sizes=1`.
fn flag<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    match String::deserialize(value)?.as_str() {
        "" | "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(serde::de::Error::custom(format!("`{other}` is neither true nor false"))),
    }
}

/// Which models are meant.
#[derive(Debug, Clone, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Ids {
    /// Slugs, with a comma between.
    ids: String,
}

impl Ids {
    /// Each once, in the order given.
    pub fn each(&self) -> Result<Vec<&str>, ApiError> {
        let mut ids: Vec<&str> = Vec::new();
        for id in self.ids.split(',').map(str::trim).filter(|id| !id.is_empty()) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        match ids.len() {
            0 => Err(ApiError::bad_request("missing-field", "`ids` names no model")
                .with_hint("give slugs with a comma between: ?ids=first,second")
                .with_field("ids")),
            1..=1000 => Ok(ids),
            _ => Err(ApiError::bad_request("too-many", "`ids` names more than 1,000 models").with_field("ids")),
        }
    }
}

/// All models, by slug.
#[utoipa::path(get, path = "/v2/datamodel", tag = "data models", params(Shown, Page),
    responses((status = 200, body = Answer<Vec<DataModel>>)), security(("token" = ["models:read"])))]
async fn list(
    State(app): State<App>,
    Query(shown): Query<Shown>,
    Query(page): Query<Page>,
) -> Result<Answer<Vec<DataModel>>, ApiError> {
    let engine = app.service.engine();
    let all = entry::all(&engine).await?;
    let (entries, next) = page.of(all.values(), |entry| entry.model.slug.as_str());
    let mut models = Vec::with_capacity(entries.len());
    for entry in entries {
        models.push(view::show(&app, &engine, entry, shown.sizes).await?);
    }
    Ok(Answer::page(models, next))
}

/// Make a model. Its warehouse describes the query first; the model starts inactive.
#[utoipa::path(post, path = "/v2/datamodel", tag = "data models", request_body = NewDataModel,
    responses((status = 201, body = Answer<DataModel>), (status = 400, description = "the definition has faults", body = Errors),
        (status = 409, description = "the slug is taken", body = Errors),
        (status = 422, description = "the warehouse refuses the query", body = Errors)),
    security(("token" = ["models:write"])))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewDataModel>,
) -> Result<Answer<DataModel>, ApiError> {
    let entry = Box::pin(change::create(&app, &caller, &new)).await?;
    let revision = entry.stored.as_ref().map_or(0, |stored| stored.revision);
    let model = view::show(&app, &app.service.engine(), &entry, false).await?;
    Ok(Answer::created(model).with_revision(revision))
}

/// Delete several models. Each is answered for.
#[utoipa::path(delete, path = "/v2/datamodel", tag = "data models", params(Ids),
    responses((status = 200, body = Answer<Vec<DeleteStatus>>), (status = 400, body = Errors)),
    security(("token" = ["models:write"])))]
async fn delete_several(
    State(app): State<App>,
    caller: Caller,
    Query(ids): Query<Ids>,
) -> Result<Answer<Vec<DeleteStatus>>, ApiError> {
    let mut done = Vec::new();
    for id in ids.each()? {
        done.push(match change::delete(&app, &caller, id, IfMatch(None)).await {
            Ok(status) => status,
            Err(refused) if refused.status().is_server_error() => return Err(refused),
            Err(refused) => DeleteStatus { id: id.to_string(), deleted: false, reason: Some(refused.message()) },
        });
    }
    Ok(Answer::of(done))
}

/// One model.
#[utoipa::path(get, path = "/v2/datamodel/{id}", tag = "data models",
    params(("id" = String, Path, description = "the model's slug"), Shown),
    responses((status = 200, body = Answer<DataModel>), (status = 404, body = Errors)),
    security(("token" = ["models:read"])))]
async fn get(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(shown): Query<Shown>,
) -> Result<Answer<DataModel>, ApiError> {
    let engine = app.service.engine();
    let entry = entry::one(&engine, &id).await?;
    let answer = Answer::of(view::show(&app, &engine, &entry, shown.sizes).await?);
    // a file has no revision that an update could name
    Ok(match &entry.stored {
        Some(stored) => answer.with_revision(stored.revision),
        None => answer,
    })
}

/// Change a model: what is left out stays. Activating it has its warehouse describe the query.
#[utoipa::path(put, path = "/v2/datamodel/{id}", tag = "data models", request_body = DataModelChange,
    params(("id" = String, Path, description = "the model's slug")),
    responses((status = 200, body = Answer<DataModel>), (status = 400, description = "the definition has faults", body = Errors),
        (status = 404, body = Errors), (status = 409, description = "it is defined in files", body = Errors),
        (status = 412, description = "somebody else changed it", body = Errors),
        (status = 422, description = "the warehouse refuses the query", body = Errors)),
    security(("token" = ["models:write"])))]
async fn put(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
    Json(body): Json<Map<String, Value>>,
) -> Result<Answer<DataModel>, ApiError> {
    let wanted = change::read_change(body)?;
    let entry = Box::pin(change::update(&app, &caller, &id, &wanted, if_match)).await?;
    let revision = entry.stored.as_ref().map_or(0, |stored| stored.revision);
    let model = view::show(&app, &app.service.engine(), &entry, false).await?;
    Ok(Answer::of(model).with_revision(revision))
}

/// Delete a model. Its memberships are shown no more; its record store stays for time travel.
#[utoipa::path(delete, path = "/v2/datamodel/{id}", tag = "data models",
    params(("id" = String, Path, description = "the model's slug")),
    responses((status = 200, body = Answer<DeleteStatus>), (status = 404, body = Errors),
        (status = 409, description = "it is defined in files, or a run is under way", body = Errors),
        (status = 412, description = "somebody else changed it", body = Errors)),
    security(("token" = ["models:write"])))]
async fn delete(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    if_match: IfMatch,
) -> Result<Answer<DeleteStatus>, ApiError> {
    Ok(Answer::of(change::delete(&app, &caller, &id, if_match).await?))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create, delete_several)).routes(routes!(get, put, delete))
}
