//! Runs: what ran, what waits for a person, and its approval.
//!
//! Invariants: samples show people's rows, so they take `profiles:query`; an approval goes to its end whether or not its
//! client waits, and carries the name of who gave it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::catalog::CatalogError;
use crate::catalog::history::{RunFilter, RunPlace};
use crate::events::{Subject, acting_as};
use crate::people::Permission;
use crate::scheduler::Stopped;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, Page, Path, Query};
use crate::server::state::App;
use crate::sync::report::{Hold, HoldStatus, RunReport, RunStatus};
use crate::sync::{ChangeSample, Engine, SyncError};

/// How long a client waits for an approval before it is told that it goes on: less than a request may take.
const APPROVAL: Duration = Duration::from_secs(45);

/// Which runs.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Which {
    /// Of this model.
    model: Option<String>,
    /// That stand so.
    #[param(inline)]
    status: Option<RunStatus>,
}

/// A run's whole record.
#[derive(Debug, Serialize, ToSchema)]
pub struct Run {
    #[serde(flatten)]
    report: RunReport,
    /// Removals that it left waiting for a person.
    hold: Option<HeldRemovals>,
    /// How it gets on; null when it has ended, or belongs to another process.
    progress: Option<Progress>,
}

/// How a run gets on that has not ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct Progress {
    /// It waits for a free place, and has not begun.
    queued: bool,
    /// What it is at, for example `querying`.
    stage: Option<&'static str>,
    /// Rows that came in so far.
    rows: u64,
    /// It was asked to end.
    cancelling: bool,
}

/// Removals that wait, or waited, for a person.
#[derive(Debug, Serialize, ToSchema)]
pub struct HeldRemovals {
    run_id: String,
    model: String,
    status: HoldStatus,
    /// Rows to remove.
    removed: u64,
    /// Rows that the record store held.
    of: u64,
    /// Some of the rows; empty without `profiles:query`.
    samples: Vec<ChangeSample>,
}

impl HeldRemovals {
    fn of(run: &RunReport, hold: Hold, status: HoldStatus, caller: &Caller) -> Self {
        let samples = if sees_rows(caller) { hold.samples } else { Vec::new() };
        let (run_id, model) = (run.run_id.clone(), run.model.clone());
        Self { run_id, model, status, removed: hold.removed, of: hold.of, samples }
    }
}

fn sees_rows(caller: &Caller) -> bool {
    caller.may(Permission::ProfilesQuery)
}

/// Leaves out what shows people's rows, for who may not see them.
fn shown(mut run: RunReport, caller: &Caller) -> RunReport {
    if !sees_rows(caller) {
        run.quarantine.samples.clear();
    }
    run
}

/// Runs, newest first.
#[utoipa::path(get, path = "/v2/run", tag = "runs", params(Which, Page),
    responses((status = 200, body = Answer<Vec<RunReport>>), (status = 400, body = Errors)),
    security(("token" = ["runs:read"])))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Query(which): Query<Which>,
    Query(page): Query<Page>,
) -> Result<Answer<Vec<RunReport>>, ApiError> {
    let after = page.cursor.as_deref().map(str::parse::<RunPlace>).transpose().map_err(|()| {
        ApiError::bad_request("invalid-cursor", "the cursor is not one of this list")
            .with_hint("give `_meta.next_cursor` of the page before")
            .with_field("cursor")
    })?;
    let limit = page.limit();
    // one more tells whether there is another page
    let asked = u32::try_from(limit + 1).unwrap_or(u32::MAX);
    let filter = RunFilter { model: which.model, status: which.status, after, limit: asked };
    let mut runs = app.service.catalog().runs_page(&filter).await?;
    let more = runs.len() > limit;
    runs.truncate(limit);
    let next = runs.last().filter(|_| more).map(|run| RunPlace::of(run).to_string());
    Ok(Answer::page(runs.into_iter().map(|run| shown(run, &caller)).collect(), next))
}

/// One run: its counts, what it set aside, why it failed, what it holds. As much of its id as tells it apart is enough.
/// A run that waits for a free place is shown too, as one that is `running` with `progress.queued`.
#[utoipa::path(get, path = "/v2/run/{id}", tag = "runs", params(("id" = String, Path, description = "the run's id, or its beginning")),
    responses((status = 200, body = Answer<Run>), (status = 404, body = Errors)),
    security(("token" = ["runs:read"])))]
async fn get(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer<Run>, ApiError> {
    let engine = app.service.engine();
    let report = match engine.catalog.run(&id).await {
        Ok(report) => report,
        Err(CatalogError::NoSuchRun(_)) => return queued(&app, &engine, &id).map(Answer::of),
        Err(error) => return Err(error.into()),
    };
    let hold = engine.catalog.hold(&report.run_id).await?;
    let hold = hold.map(|(hold, status)| HeldRemovals::of(&report, hold, status, &caller));
    // what has ended may not have left its place yet
    let unended = app.scheduler.running().into_iter().find(|run| run.run_id == report.run_id);
    let progress = unended.filter(|_| report.status == RunStatus::Running).map(|run| Progress {
        queued: false,
        stage: run.stage.map(crate::sync::Stage::as_str),
        rows: run.rows,
        cancelling: run.cancelling,
    });
    Ok(Answer::of(Run { report: shown(report, &caller), hold, progress }))
}

/// A run that was asked for and has no record yet.
fn queued(app: &App, engine: &Engine, id: &str) -> Result<Run, ApiError> {
    let waiting = engine.project.models.keys().find_map(|slug| {
        let run = app.scheduler.status(slug)?.queued?;
        (run.run_id == id)
            .then(|| RunReport::new(run.run_id, slug.clone(), crate::sync::report::RunKind::Sync, run.since))
    });
    let report = waiting.ok_or_else(|| ApiError::from(CatalogError::NoSuchRun(id.to_string())))?;
    let progress = Progress { queued: true, stage: None, rows: 0, cancelling: false };
    Ok(Run { report, hold: None, progress: Some(progress) })
}

/// The removals that a run held.
#[utoipa::path(get, path = "/v2/run/{id}/hold", tag = "runs", params(("id" = String, Path, description = "the run's id, or its beginning")),
    responses((status = 200, body = Answer<HeldRemovals>), (status = 404, description = "no such run, or it held nothing", body = Errors)),
    security(("token" = ["runs:read"])))]
async fn hold(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<HeldRemovals>, ApiError> {
    let catalog = app.service.catalog();
    let run = catalog.run(&id).await?;
    let (hold, status) = catalog.hold(&run.run_id).await?.ok_or_else(|| {
        ApiError::not_found(SyncError::NothingHeld(run.run_id.clone()).to_string())
            .with_hint("GET /v2/run?status=held lists the runs that hold some")
    })?;
    Ok(Answer::of(HeldRemovals::of(&run, hold, status, &caller)))
}

/// What became of an approval.
#[derive(Debug, Serialize, ToSchema)]
pub struct Approval {
    /// False: it goes on; the newest run of the model of kind `approve` tells its end.
    done: bool,
    /// The run that removed the rows.
    run: Option<RunReport>,
}

/// Let the removals go that a run held: those that it showed, and no others.
#[utoipa::path(post, path = "/v2/run/{id}/approve", tag = "runs", params(("id" = String, Path, description = "the run's id, or its beginning")),
    responses((status = 200, body = Answer<Approval>), (status = 202, description = "it takes a while, and goes on", body = Answer<Approval>),
        (status = 404, body = Errors), (status = 409, description = "it holds nothing (any more), or a run is under way", body = Errors)),
    security(("token" = ["runs:approve"])))]
async fn approve(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer<Approval>, ApiError> {
    let engine = app.service.engine();
    let held = engine.catalog.run(&id).await?.run_id;
    let (service, actor) = (Arc::clone(&app.service), caller.actor.clone());
    // in a task of its own: it is not to be cut short by a client that goes away
    let task = tokio::spawn(async move {
        let report = Box::pin(acting_as(actor.clone(), engine.approve(&held))).await?;
        let message = format!("{} held removals were approved", report.removed);
        let details = json!({ "run_id": held, "approved_by_run": report.run_id, "removed": report.removed });
        service.record(&actor, Subject::model(&report.model), "approved", message, details).await?;
        Ok::<_, SyncError>(report)
    });
    match tokio::time::timeout(APPROVAL, task).await {
        Ok(ended) => {
            let report = ended.map_err(ApiError::internal)??;
            Ok(Answer::of(Approval { done: true, run: Some(shown(report, &caller)) }))
        }
        Err(_) => Ok(Answer::accepted(Approval { done: false, run: None })),
    }
}

/// Keep the rows whose removal a run held. The next run compares anew.
#[utoipa::path(post, path = "/v2/run/{id}/reject", tag = "runs", params(("id" = String, Path, description = "the run's id, or its beginning")),
    responses((status = 200, body = Answer<RunReport>), (status = 404, body = Errors),
        (status = 409, description = "it holds nothing (any more), or a run is under way", body = Errors)),
    security(("token" = ["runs:approve"])))]
async fn reject(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer<RunReport>, ApiError> {
    let report = Box::pin(acting_as(caller.actor.clone(), app.service.engine().reject(&id))).await?;
    let message = format!("{} held removals were rejected: the rows stay", report.removed);
    let details = json!({ "run_id": report.run_id, "removed": report.removed });
    app.service.record(&caller.actor, Subject::model(&report.model), "rejected", message, details).await?;
    Ok(Answer::of(shown(report, &caller)))
}

/// What became of a cancellation.
#[derive(Debug, Serialize, ToSchema)]
pub struct Cancellation {
    run_id: String,
    /// False: it waited, and will not begin. True: it was asked to end, and does so soon.
    begun: bool,
}

/// Cancel a run that waits or is under way in this service.
#[utoipa::path(post, path = "/v2/run/{id}/cancel", tag = "runs", params(("id" = String, Path, description = "the run's id, or its beginning")),
    responses((status = 200, description = "it waited", body = Answer<Cancellation>), (status = 202, description = "it ends soon", body = Answer<Cancellation>),
        (status = 404, body = Errors), (status = 409, description = "it has ended, or belongs to another process", body = Errors)),
    security(("token" = ["models:run"])))]
async fn cancel(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<Cancellation>, ApiError> {
    let engine = app.service.engine();
    let (run_id, status) = match engine.catalog.run(&id).await {
        Ok(run) => (run.run_id, Some(run.status)),
        // it may wait, and have no record yet
        Err(CatalogError::NoSuchRun(_)) => (queued(&app, &engine, &id)?.report.run_id, None),
        Err(error) => return Err(error.into()),
    };
    match status {
        None => {}
        Some(RunStatus::Running) if app.scheduler.running().iter().any(|run| run.run_id == run_id) => {}
        Some(RunStatus::Running) => {
            return Err(ApiError::conflict("another-process", format!("run `{run_id}` belongs to another process"))
                .with_hint("end it there: Ctrl-C in the command that runs it"));
        }
        Some(status) => return Err(ApiError::conflict("run-ended", format!("run `{run_id}` has ended: {status}"))),
    }
    let begun = matches!(app.scheduler.cancel_run(&run_id, &caller.actor).await?, Stopped::Cancelling { .. });
    let answer = Cancellation { run_id, begun };
    Ok(if begun { Answer::accepted(answer) } else { Answer::of(answer) })
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(get))
        .routes(routes!(hold))
        .routes(routes!(approve))
        .routes(routes!(reject))
        .routes(routes!(cancel))
}
