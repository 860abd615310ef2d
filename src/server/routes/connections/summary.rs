//! A connection at a glance.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use chrono::{DateTime, Days, NaiveDate, NaiveTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::no_such;
use super::view::ConnectionView;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::Path;
use crate::server::state::App;

/// Days that are counted, today included.
const DAYS: u64 = 30;
/// The rest of the summary does not wait longer for the warehouse.
const TABLES_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection at a glance.
#[derive(Debug, Serialize, ToSchema)]
struct ConnectionSummary {
    id: String,
    label: String,
    provider_slug: String,
    /// What the type connects to.
    provider: Option<&'static str>,
    authorizations: Vec<SummaryAuthorization>,
    author_id: Option<String>,
    created: Option<DateTime<Utc>>,
    /// Slugs of models that read through it.
    active_models: Vec<String>,
    inactive_models: Vec<String>,
    /// Tables that it reaches, of up to 30 minutes ago; null when the warehouse does not tell.
    tables: Option<usize>,
    /// Why the tables are not known.
    tables_error: Option<String>,
    /// What its models' runs read, for each of the last 30 days (UTC), today last.
    usage: Vec<UsageDay>,
}

/// An authorization by name.
#[derive(Debug, Serialize, ToSchema)]
struct SummaryAuthorization {
    id: String,
    label: String,
}

/// What was read on a day.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct UsageDay {
    day: NaiveDate,
    runs: u64,
    rows: u64,
}

/// A connection's summary: its models, the tables it reaches, and the rows that were queried each day.
#[utoipa::path(get, path = "/v2/connection/{id}/summary", tag = "connections", params(("id" = String, Path, description = "the connection's name")),
    responses((status = 200, body = Answer<ConnectionSummary>), (status = 404, body = Errors)), security(("token" = ["connections:read"])))]
async fn summary(State(app): State<App>, Path(id): Path<String>) -> Result<Answer<ConnectionSummary>, ApiError> {
    let engine = app.service.engine();
    let stored = engine.catalog.definitions().await?.connections;
    let view = ConnectionView::find(&engine, &stored, &id).ok_or_else(|| no_such(&id))?;
    let models: Vec<_> = engine.project.models.values().filter(|model| model.connection == id).collect();
    let slugs = |active: bool| models.iter().filter(|m| m.active == active).map(|m| m.slug.clone()).collect();
    let today = engine.clock.now().date_naive();
    let first = today - Days::new(DAYS - 1);
    let all: Vec<&str> = models.iter().map(|model| model.slug.as_str()).collect();
    let used = engine.catalog.rows_per_day(&all, first.and_time(NaiveTime::MIN).and_utc()).await?;
    let used: BTreeMap<NaiveDate, (u64, u64)> = used.into_iter().map(|day| (day.day, (day.runs, day.rows))).collect();
    let usage = first.iter_days().take(DAYS as usize).map(|day| {
        let (runs, rows) = used.get(&day).copied().unwrap_or_default();
        UsageDay { day, runs, rows }
    });
    let counted = tokio::time::timeout(TABLES_TIMEOUT, app.connections.schemas.count(&app, &id)).await;
    let (tables, tables_error) = match counted {
        Ok(Ok(count)) => (Some(count), None),
        Ok(Err(error)) => (None, Some(error.message())),
        Err(_) => (None, Some("the warehouse did not answer in time".to_string())),
    };
    let authorizations = view.auth_ids.iter().map(|id| SummaryAuthorization {
        label: engine.project.vault.authorization(id).map_or_else(|| id.clone(), |sealed| sealed.label.clone()),
        id: id.clone(),
    });
    Ok(Answer::of(ConnectionSummary {
        authorizations: authorizations.collect(),
        provider: engine.project.providers.iter().find(|p| p.name == view.provider_slug).map(|p| p.title),
        active_models: slugs(true),
        inactive_models: slugs(false),
        tables,
        tables_error,
        usage: usage.collect(),
        id: view.id,
        label: view.label,
        provider_slug: view.provider_slug,
        author_id: view.author_id,
        created: view.created,
    }))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(summary))
}
