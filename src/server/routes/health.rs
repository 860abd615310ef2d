//! Is it up, is it ready, and what can be asked of it.

use axum::extract::{Path as RawPath, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::state::App;

/// How the service stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct Readiness {
    /// `ready`, `degraded` (it works, and something wants attention) or `unavailable`.
    status: &'static str,
    checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize, ToSchema)]
pub struct Check {
    name: &'static str,
    ok: bool,
    /// What is wrong, without anything secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    detail: Option<String>,
}

/// Is the process alive? Asks nothing of anything.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Answer<String>)), security(()))]
async fn healthz() -> Answer<String> {
    Answer::of("ok".into())
}

/// Can it do its work? 503 when it cannot.
#[utoipa::path(get, path = "/readyz", tag = "health",
    responses((status = 200, body = Answer<Readiness>), (status = 503, description = "the catalog does not answer", body = Errors)),
    security(()))]
async fn readyz(State(app): State<App>) -> Result<Answer<Readiness>, ApiError> {
    let engine = app.service.engine();
    if let Err(error) = engine.catalog.is_alive().await {
        tracing::error!(%error, "the catalog does not answer");
        return Err(ApiError::unavailable("the catalog does not answer"));
    }
    let mut checks = vec![Check { name: "catalog", ok: true, detail: None }];
    // anybody may ask: whether there are faults, not what they say
    let fault = app.scheduler.project_fault();
    checks.push(Check {
        name: "files",
        ok: fault.is_none(),
        detail: fault.map(|_| "the project's files have faults; the last good ones are in use".into()),
    });
    let unusable = engine.unusable.len();
    checks.push(Check {
        name: "definitions",
        ok: unusable == 0,
        detail: (unusable > 0).then(|| format!("{unusable} definitions made through the API cannot be used")),
    });
    let status = if checks.iter().all(|check| check.ok) { "ready" } else { "degraded" };
    Ok(Answer::of(Readiness { status, checks }))
}

/// The OpenAPI description of this API.
#[utoipa::path(get, path = "/openapi.json", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json")), security(()))]
async fn openapi(State(app): State<App>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone()).into_response()
}

/// The same, to read and to try.
#[utoipa::path(get, path = "/docs", tag = "health", responses((status = 303, description = "to /docs/")), security(()))]
async fn docs() -> Redirect {
    Redirect::to("/docs/")
}

/// The page's parts.
#[utoipa::path(get, path = "/docs/{*file}", tag = "health", params(("file" = String, Path, description = "a file of the page")),
    responses((status = 200, description = "a part of the page"), (status = 404, body = Errors)), security(()))]
async fn docs_file(RawPath(file): RawPath<String>) -> Result<Response, ApiError> {
    page(&file)
}

/// The page itself.
#[utoipa::path(get, path = "/docs/", tag = "health", responses((status = 200, description = "HTML")), security(()))]
async fn docs_index() -> Result<Response, ApiError> {
    page("index.html")
}

fn page(file: &str) -> Result<Response, ApiError> {
    static CONFIG: std::sync::LazyLock<std::sync::Arc<utoipa_swagger_ui::Config<'static>>> =
        std::sync::LazyLock::new(|| {
            let config = utoipa_swagger_ui::Config::from("/openapi.json").try_it_out_enabled(true);
            std::sync::Arc::new(config.persist_authorization(false))
        });
    let found = utoipa_swagger_ui::serve(file, CONFIG.clone()).map_err(ApiError::internal)?;
    let found = found.ok_or_else(|| ApiError::not_found(format!("the page has no `{file}`")))?;
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::from_str(&found.content_type) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if found.gzpipped {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // Swagger UI sets styles from its script
    let policy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                  font-src 'self'; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
    Ok((StatusCode::OK, headers, found.bytes.into_owned()).into_response())
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(healthz))
        .routes(routes!(readyz))
        .routes(routes!(openapi))
        .routes(routes!(docs))
        .routes(routes!(docs_index))
        .routes(routes!(docs_file))
}
