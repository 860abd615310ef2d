//! The audit trail: who did what, when, and what changed.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::connections::EventView;
use crate::catalog::events::EventFilter;
use crate::config;
use crate::events::SubjectKind;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Page, Query};
use crate::server::state::App;

/// Which events are asked for. A filter that is left out lets everything through.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// `connection`, `model`, `authorization`, `user`, `token`, `upload`, `alert` or `project`.
    kind: Option<String>,
    /// The connection's name, the model's slug …
    subject: Option<String>,
    /// `created`, `updated`, `deleted`, `tested`, `run_finished` …
    verb: Option<String>,
    /// At most so many; 100 when left out, at most 1,000.
    limit: Option<u32>,
    /// `_meta.next_cursor` of the page before.
    cursor: Option<String>,
}

/// What happened in the whole project, newest first.
#[utoipa::path(get, path = "/v2/event", tag = "events", params(Wanted),
    responses((status = 200, body = Answer<Vec<EventView>>), (status = 400, body = Errors)), security(("token" = ["events:read"])))]
async fn list(State(app): State<App>, Query(wanted): Query<Wanted>) -> Result<Answer<Vec<EventView>>, ApiError> {
    let kind = wanted.kind.as_deref().map(|word| {
        SubjectKind::parse(word).ok_or_else(|| {
            let known = SubjectKind::ALL.map(SubjectKind::as_str);
            ApiError::bad_request("unknown-kind", format!("there are no events of the kind `{word}`"))
                .with_hint(config::hint(word, &known, "the kinds are"))
                .with_field("kind")
        })
    });
    let filter =
        EventFilter { kind: kind.transpose()?, subject: wanted.subject, verb: wanted.verb, ..EventFilter::default() };
    EventView::page(&app, filter, &Page { limit: wanted.limit, cursor: wanted.cursor }).await
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list))
}
