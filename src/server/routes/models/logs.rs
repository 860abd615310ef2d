//! What happened to a model: its part of the audit trail.

use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::entry;
use super::shape::DataModelLog;
use crate::catalog::events::EventFilter;
use crate::events::SubjectKind;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Page, Path, Query};
use crate::server::state::App;

/// What happened to a model, newest first; also to one that was deleted.
#[utoipa::path(get, path = "/v2/datamodel/{id}/logs", tag = "data models",
    params(("id" = String, Path, description = "the model's slug"), Page),
    responses((status = 200, body = Answer<Vec<DataModelLog>>), (status = 404, body = Errors)),
    security(("token" = ["models:read", "events:read"])))]
async fn logs(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Answer<Vec<DataModelLog>>, ApiError> {
    let before = page.cursor.as_deref().map(str::parse).transpose().map_err(|_| {
        ApiError::bad_request("invalid-cursor", "the cursor is not one of this list")
            .with_hint("give `_meta.next_cursor` of the page before")
            .with_field("cursor")
    })?;
    let engine = app.service.engine();
    let limit = page.limit();
    let filter = EventFilter {
        kind: Some(SubjectKind::Model),
        subject: Some(id.clone()),
        before,
        // one more tells whether there is another page
        limit: u32::try_from(limit + 1).unwrap_or(u32::MAX),
        ..EventFilter::default()
    };
    let mut events = engine.catalog.events(&filter).await?;
    if events.is_empty() && before.is_none() {
        entry::one(&engine, &id).await?;
    }
    let more = events.len() > limit;
    events.truncate(limit);
    let next = events.last().filter(|_| more).map(|event| event.id.to_string());
    let logs = events.into_iter().map(|event| DataModelLog {
        id: event.id.to_string(),
        verb: event.verb,
        message: event.message,
        timestamp: event.at,
        actor: event.actor,
        details: event.details,
    });
    Ok(Answer::page(logs.collect(), next))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logs))
}
