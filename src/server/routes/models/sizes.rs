//! How large record stores are.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::crud::Ids;
use super::entry::{self, Entry};
use super::shape::DataModelSize;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Path, Query};
use crate::server::state::App;
use crate::sync::Engine;

async fn size_of(app: &App, engine: &Engine, entry: &Entry) -> Result<DataModelSize, ApiError> {
    let slug = &entry.model.slug;
    let store = app.models.stores.get(engine, slug).await?;
    Ok(DataModelSize {
        id: slug.clone(),
        name: entry.model.name.clone(),
        slug_name: slug.clone(),
        record_store_size: store.map_or(0, |store| store.rows),
    })
}

/// The rows of several models' record stores.
#[utoipa::path(get, path = "/v2/data/datamodel/size", tag = "data models", params(Ids),
    responses((status = 200, body = Answer<Vec<DataModelSize>>), (status = 404, body = Errors)),
    security(("token" = ["models:read"])))]
async fn sizes(State(app): State<App>, Query(ids): Query<Ids>) -> Result<Answer<Vec<DataModelSize>>, ApiError> {
    let engine = app.service.engine();
    let mut sizes = Vec::new();
    for id in ids.each()? {
        let entry = entry::one(&engine, id).await?;
        sizes.push(size_of(&app, &engine, &entry).await?);
    }
    Ok(Answer::of(sizes))
}

/// The rows of a model's record store.
#[utoipa::path(get, path = "/v2/data/datamodel/{id}/size", tag = "data models",
    params(("id" = String, Path, description = "the model's slug")),
    responses((status = 200, body = Answer<DataModelSize>), (status = 404, body = Errors)),
    security(("token" = ["models:read"])))]
async fn size(State(app): State<App>, Path(id): Path<String>) -> Result<Answer<DataModelSize>, ApiError> {
    let engine = app.service.engine();
    let entry = entry::one(&engine, &id).await?;
    Ok(Answer::of(size_of(&app, &engine, &entry).await?))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(sizes)).routes(routes!(size))
}
