//! What happened to a connection: its part of the audit trail.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::no_such;
use crate::catalog::events::EventFilter;
use crate::events::{Event, SubjectKind};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Page, Path, Query};
use crate::server::state::App;

/// One thing that happened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView {
    id: i64,
    timestamp: DateTime<Utc>,
    /// `user:ada@example.com`, `token:ci#…`, `scheduler`, `cli`, `system`.
    actor: String,
    kind: SubjectKind,
    /// The connection's name, the model's slug, the authorization's id …
    subject: String,
    #[schema(example = "updated")]
    verb: String,
    message: String,
    /// What changed. Never a secret.
    #[schema(value_type = Object)]
    details: Value,
}

impl From<Event> for EventView {
    fn from(event: Event) -> Self {
        Self {
            id: event.id,
            timestamp: event.at,
            actor: event.actor,
            kind: event.subject.kind,
            subject: event.subject.id,
            verb: event.verb,
            message: event.message,
            details: event.details,
        }
    }
}

impl EventView {
    /// A page of the events that a filter lets through, newest first.
    pub async fn page(app: &App, filter: EventFilter, page: &Page) -> Result<Answer<Vec<Self>>, ApiError> {
        let before = page.cursor.as_deref().map(str::parse).transpose().map_err(|_| {
            ApiError::bad_request("invalid-cursor", "the cursor is not one of this list")
                .with_hint("give _meta.next_cursor of the page before")
        })?;
        let limit = page.limit();
        // one more tells whether there is a next page
        let wanted = u32::try_from(limit + 1).unwrap_or(u32::MAX);
        let filter = EventFilter { before, limit: wanted, ..filter };
        let mut events = app.service.catalog().events(&filter).await?;
        let more = events.len() > limit;
        events.truncate(limit);
        let next = events.last().filter(|_| more).map(|last| last.id.to_string());
        Ok(Answer::page(events.into_iter().map(Self::from).collect(), next))
    }
}

/// What happened to a connection, newest first: created, updated, deleted, tested.
#[utoipa::path(get, path = "/v2/connection/{id}/logs", tag = "connections", params(("id" = String, Path, description = "the connection's name"), Page),
    responses((status = 200, body = Answer<Vec<EventView>>), (status = 404, body = Errors)), security(("token" = ["connections:read"])))]
async fn logs(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(page): Query<Page>,
) -> Result<Answer<Vec<EventView>>, ApiError> {
    let engine = app.service.engine();
    let filter =
        EventFilter { kind: Some(SubjectKind::Connection), subject: Some(id.clone()), ..EventFilter::default() };
    // one that was deleted has a past all the same
    let newest = engine.catalog.events(&EventFilter { limit: 1, ..filter.clone() }).await?;
    let unknown = !engine.project.connections.contains_key(&id) && !engine.unusable.iter().any(|one| one.id == id);
    if newest.is_empty() && unknown {
        return Err(no_such(&id));
    }
    EventView::page(&app, filter, &page).await
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(logs))
}
