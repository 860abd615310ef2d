//! Prometheus' metrics.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::server::answer::{ApiError, Errors};
use crate::server::state::App;
use crate::telemetry::CONTENT_TYPE;

/// The metrics, in Prometheus' text format. `docs/metrics.md` lists them.
#[utoipa::path(get, path = "/metrics", tag = "health",
    responses((status = 200, description = "Prometheus' text format 0.0.4", content_type = "text/plain"),
        (status = 401, body = Errors), (status = 403, body = Errors)),
    security(("token" = ["operations:read"])))]
async fn metrics(State(app): State<App>) -> Result<Response, ApiError> {
    let holds = app.service.catalog().holds_waiting().await?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], app.telemetry.render(Some(holds))).into_response())
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(metrics))
}
