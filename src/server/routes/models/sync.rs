//! Models started, stopped, paused: what the scheduler does for people, and how it stands.

use std::time::Duration;

use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::shape::{CurrentRun, CurrentState, DataModel};
use super::{entry, view};
use crate::people::Means;
use crate::scheduler::{SchedulerError, Started, Stopped};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, Path};
use crate::server::state::App;
use crate::sync::report::RunStatus;

/// How a model's schedule stands.
#[derive(Debug)]
pub struct Standing {
    pub paused: bool,
    /// When the scheduler last began a run.
    pub prev: Option<DateTime<Utc>>,
    pub next: Option<DateTime<Utc>>,
    /// From when on an overdue run is late.
    pub late_after: TimeDelta,
    pub current: Option<CurrentRun>,
}

/// How the scheduler says that the model stands; as one that was never scheduled when it does not know it yet.
pub fn standing(app: &App, slug: &str) -> Standing {
    let late_after = TimeDelta::from_std(app.scheduler.limits().late_after).unwrap_or(TimeDelta::MAX);
    let Some(status) = app.scheduler.status(slug) else {
        return Standing { paused: false, prev: None, next: None, late_after, current: None };
    };
    let running = status.running.map(|run| CurrentRun {
        run_id: run.run_id,
        state: if run.cancelling { CurrentState::Cancelling } else { CurrentState::Running },
        since: run.since,
        actor: run.actor,
        stage: run.stage.map(crate::sync::Stage::as_str),
        rows: run.rows,
    });
    let queued = status.queued.map(|run| CurrentRun {
        run_id: run.run_id,
        state: CurrentState::Queued,
        since: run.since,
        actor: run.actor,
        stage: None,
        rows: 0,
    });
    Standing { paused: status.paused, prev: status.prev, next: status.next, late_after, current: running.or(queued) }
}

impl From<SchedulerError> for ApiError {
    fn from(e: SchedulerError) -> Self {
        let hint = e.hint();
        let error = match e {
            SchedulerError::NoSuchModel(slug) => return entry::no_such(&slug),
            SchedulerError::Sync(e) => return e.into(),
            SchedulerError::Catalog(e) => return e.into(),
            SchedulerError::Inactive(_) => Self::conflict("inactive", e.to_string()),
            SchedulerError::NoSuchRun(_) => Self::conflict("run-ended", e.to_string()),
            SchedulerError::Stopping => Self::unavailable(e.to_string()),
            SchedulerError::AnotherService | SchedulerError::Clockwork(_) | SchedulerError::Bug(_) => {
                return Self::internal(e);
            }
        };
        match hint {
            Some(hint) => error.with_hint(hint),
            None => error,
        }
    }
}

/// To start or to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    Start,
    Stop,
}

/// What became of a start or a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// It waits for a free place, and begins soon.
    Queued,
    /// It waited before.
    AlreadyQueued,
    /// A run was under way before.
    AlreadyRunning,
    /// The run was asked to end, and does so soon.
    Cancelling,
    /// The run waited, and will not begin.
    Dequeued,
    /// Nothing waited or ran.
    Idle,
}

/// The model, and what became of its run.
#[derive(Debug, Serialize, ToSchema)]
pub struct SyncAnswer {
    pub run_id: Option<String>,
    pub state: SyncState,
    #[serde(flatten)]
    pub model: DataModel,
}

/// Between a run's recorded end and its leaving its place there is a moment, which callers need not know of.
pub const MOMENT: Duration = Duration::from_millis(25);
/// After so many moments it is told as it is.
pub const MOMENTS: u32 = 40;

async fn start(app: &App, caller: &Caller, slug: &str) -> Result<Started, ApiError> {
    let catalog = app.service.catalog();
    for _ in 0..MOMENTS {
        let started = app.scheduler.start_now(slug, &caller.actor).await?;
        match &started {
            Started::AlreadyRunning { run_id }
                if catalog.run_status(run_id).await?.is_some_and(|status| status != RunStatus::Running) => {}
            _ => return Ok(started),
        }
        tokio::time::sleep(MOMENT).await;
    }
    Ok(app.scheduler.start_now(slug, &caller.actor).await?)
}

async fn act(app: &App, caller: &Caller, slug: &str, wanted: Wanted) -> Result<Answer<SyncAnswer>, ApiError> {
    let engine = app.service.engine();
    let entry = entry::one(&engine, slug).await?;
    let (run_id, state) = match wanted {
        Wanted::Start if !entry.faults.is_empty() => {
            return Err(ApiError::conflict("unusable", format!("model `{slug}` has faults"))
                .with_hint(format!("GET /v2/datamodel/{slug} says which, under `health`")));
        }
        Wanted::Start => match start(app, caller, slug).await? {
            Started::Queued { run_id } => (Some(run_id), SyncState::Queued),
            Started::AlreadyQueued { run_id } => (Some(run_id), SyncState::AlreadyQueued),
            Started::AlreadyRunning { run_id } => (Some(run_id), SyncState::AlreadyRunning),
        },
        Wanted::Stop => match app.scheduler.stop(slug, &caller.actor).await? {
            Stopped::Cancelling { run_id } => (Some(run_id), SyncState::Cancelling),
            Stopped::Dequeued { run_id } => (Some(run_id), SyncState::Dequeued),
            Stopped::Idle => (None, SyncState::Idle),
        },
    };
    let model = view::show(app, &engine, &entry, false).await?;
    let answer = SyncAnswer { run_id, state, model };
    Ok(match state {
        SyncState::Idle | SyncState::Dequeued => Answer::of(answer),
        _ => Answer::accepted(answer),
    })
}

/// Run a model now, or cancel its run.
#[utoipa::path(post, path = "/v2/datamodel/{id}/sync/{state}", tag = "data models",
    params(("id" = String, Path, description = "the model's slug"), ("state" = Wanted, Path)),
    responses((status = 200, description = "nothing is left to do", body = Answer<SyncAnswer>),
        (status = 202, description = "it was taken on", body = Answer<SyncAnswer>), (status = 404, body = Errors),
        (status = 409, description = "the model is inactive", body = Errors)),
    security(("token" = ["models:run"])))]
async fn post_sync(
    State(app): State<App>,
    caller: Caller,
    Path((id, wanted)): Path<(String, Wanted)>,
) -> Result<Answer<SyncAnswer>, ApiError> {
    act(&app, &caller, &id, wanted).await
}

/// The same for clients that send GET. Use POST: what GET asks for may be repeated on the way.
#[utoipa::path(get, path = "/v2/datamodel/{id}/sync/{state}", tag = "data models",
    params(("id" = String, Path, description = "the model's slug"), ("state" = Wanted, Path)),
    responses((status = 200, description = "nothing is left to do", body = Answer<SyncAnswer>),
        (status = 202, description = "it was taken on", body = Answer<SyncAnswer>), (status = 404, body = Errors),
        (status = 409, description = "the model is inactive", body = Errors)),
    security(("token" = ["models:run"])))]
#[deprecated = "POST"]
async fn get_sync(
    State(app): State<App>,
    caller: Caller,
    Path((id, wanted)): Path<(String, Wanted)>,
) -> Result<Answer<SyncAnswer>, ApiError> {
    // another site can make a browser send a GET
    if caller.means == Means::Session {
        return Err(ApiError::forbidden("a browser's session may not do this with GET").with_hint("send POST"));
    }
    act(&app, &caller, &id, wanted).await
}

/// Keep the schedule from starting a model, until it is resumed. People may start it all the same.
#[utoipa::path(post, path = "/v2/datamodel/{id}/pause", tag = "data models",
    params(("id" = String, Path, description = "the model's slug")),
    responses((status = 200, body = Answer<DataModel>), (status = 404, body = Errors)),
    security(("token" = ["models:run"])))]
async fn pause(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer<DataModel>, ApiError> {
    let engine = app.service.engine();
    let entry = entry::one(&engine, &id).await?;
    app.scheduler.pause(&id, &caller.actor).await?;
    Ok(Answer::of(view::show(&app, &engine, &entry, false).await?))
}

/// Let the schedule start a model again. What was missed meanwhile is caught up once.
#[utoipa::path(post, path = "/v2/datamodel/{id}/resume", tag = "data models",
    params(("id" = String, Path, description = "the model's slug")),
    responses((status = 200, body = Answer<DataModel>), (status = 404, body = Errors)),
    security(("token" = ["models:run"])))]
async fn resume(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer<DataModel>, ApiError> {
    let engine = app.service.engine();
    let entry = entry::one(&engine, &id).await?;
    app.scheduler.resume(&id, &caller.actor).await?;
    Ok(Answer::of(view::show(&app, &engine, &entry, false).await?))
}

pub fn router() -> OpenApiRouter<App> {
    #[expect(deprecated, reason = "for clients that know it")]
    let sync = routes!(post_sync, get_sync);
    OpenApiRouter::new().routes(sync).routes(routes!(pause)).routes(routes!(resume))
}
