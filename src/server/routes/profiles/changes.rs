//! The log of what runs changed, page by page.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::profiles::{Change, Position, WantedChanges};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::Query;
use crate::server::state::App;
use crate::values::json::timestamp;

/// The cursor that stands for the end of the log.
const LATEST: &str = "latest";
const KINDS: [&str; 3] = ["entered", "exited", "changed"];
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which changes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Wanted {
    /// Only those by this model.
    model: Option<String>,
    /// Only `entered`, `exited` or `changed`.
    change: Option<String>,
    /// `_meta.next_cursor` of an earlier page: what has come since then. `latest`: nothing, but the cursor for what
    /// comes from now on. Left out: from the beginning.
    cursor: Option<String>,
    /// At most so many; 100 when left out, at most 1,000.
    limit: Option<usize>,
}

/// A page of the log.
#[derive(Debug, Serialize, ToSchema)]
pub struct ChangePage {
    /// In the order of their publication.
    changes: Vec<LoggedChange>,
    /// Are there more already? When not, the same cursor finds what comes later.
    more: bool,
}

/// What one run changed of one profile.
#[derive(Debug, Serialize, ToSchema)]
pub struct LoggedChange {
    run_id: String,
    #[schema(example = "2026-01-31T12:00:00Z")]
    at: String,
    /// The model's slug.
    model: String,
    /// `entered`, `exited` or `changed`.
    change: String,
    profile_id: String,
    /// The external key's value.
    identity: String,
    /// Attributes: all for `exited`, the changed ones for `changed`, null for `entered`.
    #[schema(value_type = Option<Object>)]
    before: Value,
    /// Attributes: all for `entered`, the changed ones for `changed`, null for `exited`.
    #[schema(value_type = Option<Object>)]
    after: Value,
}

impl From<Change> for LoggedChange {
    fn from(change: Change) -> Self {
        let Change { run_id, at, model, change, profile_id, identity, before, after } = change;
        Self { run_id, at: timestamp(at), model, change, profile_id, identity, before, after }
    }
}

/// What runs have changed of profiles.
///
/// `_meta.next_cursor` is always given: it stays good, and finds what is published after it.
#[utoipa::path(get, path = "/v2/changes", tag = "profiles", params(Wanted),
    responses((status = 200, body = Answer<ChangePage>), (status = 400, description = "the cursor or the kind of change is unknown", body = Errors)),
    security(("token" = ["profiles:query"])))]
pub async fn list(State(app): State<App>, Query(wanted): Query<Wanted>) -> Result<Answer<ChangePage>, ApiError> {
    if let Some(kind) = wanted.change.as_deref().filter(|kind| !KINDS.contains(kind)) {
        return Err(ApiError::bad_request("unknown-change", format!("`{kind}` is no kind of change"))
            .with_hint("the kinds are entered, exited and changed")
            .with_field("change"));
    }
    let from = match wanted.cursor.as_deref() {
        None => Position::default(),
        Some(LATEST) => {
            let end = app.profiles.end_of_changes().await?;
            let nothing = ChangePage { changes: Vec::new(), more: false };
            return Ok(Answer::page(nothing, Some(end.to_string())));
        }
        Some(cursor) => cursor.parse().map_err(crate::profiles::serving::ServingError::from)?,
    };
    let limit = wanted.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT);
    let page = app.profiles.changes(from, WantedChanges { model: wanted.model, change: wanted.change, limit }).await?;
    let changes = page.changes.into_iter().map(LoggedChange::from).collect();
    Ok(Answer::page(ChangePage { changes, more: page.more }, Some(page.next.to_string())))
}
