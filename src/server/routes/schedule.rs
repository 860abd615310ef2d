//! What runs, what waits, and what is next: the scheduler at a glance.

use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::catalog::schedule::Cause;
use crate::scheduler::{QueuedRun, RunningRun, UpcomingRun};
use crate::server::answer::{Answer, ApiError};
use crate::server::extract::Query;
use crate::server::state::App;
use crate::sync::Stage;

/// The scheduler at one moment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Agenda {
    /// Runs at once.
    max_runs: usize,
    /// Of these, at once on one connection.
    max_runs_per_connection: usize,
    /// How many runs wait.
    queue_depth: usize,
    /// What runs; those that began first, first.
    running: Vec<Running>,
    /// What waits, in the order in which it was queued.
    queued: Vec<Queued>,
    /// When models are to begin by themselves, the next one first.
    upcoming: Vec<Upcoming>,
}

/// A run that is under way.
#[derive(Debug, Serialize, ToSchema)]
pub struct Running {
    model: String,
    run_id: String,
    since: DateTime<Utc>,
    cause: Cause,
    /// Who asked for it; `scheduler` when its time came.
    actor: String,
    stage: Option<&'static str>,
    /// Rows that came in so far.
    rows: u64,
    /// It was asked to end.
    cancelling: bool,
}

/// A run that waits for a free place.
#[derive(Debug, Serialize, ToSchema)]
pub struct Queued {
    model: String,
    run_id: String,
    since: DateTime<Utc>,
    cause: Cause,
    actor: String,
}

/// A run that is to begin by itself.
#[derive(Debug, Serialize, ToSchema)]
pub struct Upcoming {
    model: String,
    schedule: String,
    /// In the past while the run before has not ended.
    next: DateTime<Utc>,
}

impl From<RunningRun> for Running {
    fn from(run: RunningRun) -> Self {
        let RunningRun { model, run_id, since, cause, actor, stage, rows, cancelling } = run;
        Self { model, run_id, since, cause, actor, stage: stage.map(Stage::as_str), rows, cancelling }
    }
}

impl From<QueuedRun> for Queued {
    fn from(run: QueuedRun) -> Self {
        let QueuedRun { model, run_id, since, cause, actor } = run;
        Self { model, run_id, since, cause, actor }
    }
}

impl From<UpcomingRun> for Upcoming {
    fn from(run: UpcomingRun) -> Self {
        let UpcomingRun { model, schedule, next } = run;
        Self { model, schedule, next }
    }
}

/// How much to show.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Shown {
    /// At most so many that wait, and so many that are next; 100 when left out, at most 1,000.
    limit: Option<u32>,
}

/// What runs, what waits, and what is next.
#[utoipa::path(get, path = "/v2/schedule", tag = "runs", params(Shown), responses((status = 200, body = Answer<Agenda>)),
    security(("token" = ["runs:read"])))]
async fn agenda(State(app): State<App>, Query(shown): Query<Shown>) -> Result<Answer<Agenda>, ApiError> {
    let limit = shown.limit.unwrap_or(100).clamp(1, 1000) as usize;
    let scheduler = &app.scheduler;
    let limits = scheduler.options().limits;
    let queued = scheduler.queued();
    Ok(Answer::of(Agenda {
        max_runs: limits.max_runs,
        max_runs_per_connection: limits.max_runs_per_connection,
        queue_depth: queued.len(),
        running: scheduler.running().into_iter().map(Running::from).collect(),
        queued: queued.into_iter().take(limit).map(Queued::from).collect(),
        upcoming: scheduler.upcoming(limit).into_iter().map(Upcoming::from).collect(),
    }))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(agenda))
}
