//! Which connections there are.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::no_such;
use super::view::ConnectionView;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Page, Path, Query};
use crate::server::state::App;

/// All connections, by id: those of the files and those made through the API.
#[utoipa::path(get, path = "/v2/connection", tag = "connections", params(Page),
    responses((status = 200, body = Answer<Vec<ConnectionView>>)), security(("token" = ["connections:read"])))]
async fn list(State(app): State<App>, Query(page): Query<Page>) -> Result<Answer<Vec<ConnectionView>>, ApiError> {
    let engine = app.service.engine();
    let stored = engine.catalog.definitions().await?.connections;
    let ids: std::collections::BTreeSet<&String> =
        engine.files().connections.keys().chain(stored.iter().map(|one| &one.id)).collect();
    let all = ids.into_iter().filter_map(|id| ConnectionView::find(&engine, &stored, id));
    let (views, next) = page.of(all, |view| &view.id);
    Ok(Answer::page(views, next))
}

/// One connection. Its secrets are named and never shown.
#[utoipa::path(get, path = "/v2/connection/{id}", tag = "connections", params(("id" = String, Path, description = "the connection's name")),
    responses((status = 200, body = Answer<ConnectionView>), (status = 404, body = Errors)), security(("token" = ["connections:read"])))]
async fn get(State(app): State<App>, Path(id): Path<String>) -> Result<Answer<ConnectionView>, ApiError> {
    let engine = app.service.engine();
    let stored = engine.catalog.definitions().await?.connections;
    let view = ConnectionView::find(&engine, &stored, &id).ok_or_else(|| no_such(&id))?;
    let revision = view.revision;
    let answer = Answer::of(view);
    Ok(match revision {
        Some(revision) => answer.with_revision(revision),
        None => answer,
    })
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(get))
}
