//! What a run would do, and whether a definition would be taken: asked without storing anything.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::datatypes::Field;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::shape::NewDataModel;
use super::{change, entry, trial};
use crate::people::Permission;
use crate::server::answer::{Answer, ApiError, Errors, Fault};
use crate::server::extract::{Caller, Json, Path};
use crate::server::state::App;
use crate::sync::{Engine, Plan, Samples, Silent, SyncError};
use crate::values::ValueType;
use crate::warehouse::CostEstimate;

/// How long a plan may take, with its wait for others: less than a request may take.
const PLAN: Duration = Duration::from_secs(50);

/// Who plans: one plan a caller, and one at a time, since a plan takes the memory of a run.
#[derive(Debug)]
pub struct Plans {
    callers: Arc<Mutex<HashSet<String>>>,
    place: Arc<Semaphore>,
}

impl Default for Plans {
    fn default() -> Self {
        Self { callers: Arc::default(), place: Arc::new(Semaphore::new(1)) }
    }
}

/// A caller's plan, until it is dropped.
struct Planning {
    callers: Arc<Mutex<HashSet<String>>>,
    caller: String,
}

impl Plans {
    fn enter(&self, caller: &Caller) -> Result<Planning, ApiError> {
        let caller = caller.id().to_string();
        if !self.callers.lock().unwrap_or_else(PoisonError::into_inner).insert(caller.clone()) {
            let refused = ApiError::too_many("a plan of yours is under way", Duration::from_secs(5));
            return Err(refused.with_hint("one at a time: wait for its answer"));
        }
        Ok(Planning { callers: Arc::clone(&self.callers), caller })
    }
}

impl Drop for Planning {
    fn drop(&mut self) {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.caller);
    }
}

/// Plans within the time limit; the query is cancelled at its end, and when the client goes away.
async fn planned(app: &App, caller: &Caller, engine: Engine, slug: String) -> Result<Plan, ApiError> {
    let planning = app.models.plans.enter(caller)?;
    let cancel = CancellationToken::new();
    let _on_drop = cancel.clone().drop_guard();
    let within = tokio::time::timeout(PLAN, async {
        let place = Arc::clone(&app.models.plans.place).acquire_owned().await.map_err(ApiError::internal)?;
        // in a task of its own, which keeps its place until it has cleaned up after being cancelled
        let task = tokio::spawn(async move {
            let _keep = (planning, place);
            Box::pin(engine.plan(&slug, &Silent, &cancel)).await
        });
        task.await.map_err(|panic| SyncError::Bug(panic.to_string()))?.map_err(ApiError::from)
    });
    let Ok(plan) = within.await else {
        let message = format!("the plan was not done within {} s", PLAN.as_secs());
        return Err(ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message)
            .with_hint("`cloud-connect plan` takes as long as it needs"));
    };
    let mut plan = plan?;
    if !caller.may(Permission::ProfilesQuery) {
        plan.samples = Samples::default();
        plan.report.quarantine.samples.clear();
    }
    Ok(plan)
}

/// What a run of the model would do: runs its query and the comparison, and writes nothing. Samples of people's rows
/// take `profiles:query`. One plan a caller at a time.
#[utoipa::path(post, path = "/v2/datamodel/{id}/plan", tag = "data models",
    params(("id" = String, Path, description = "the model's slug")),
    responses((status = 200, body = Answer<Plan>), (status = 404, body = Errors),
        (status = 422, description = "the query or the comparison failed", body = Errors),
        (status = 429, description = "a plan of yours is under way", body = Errors),
        (status = 504, description = "it took too long", body = Errors)),
    security(("token" = ["models:run"])))]
async fn plan(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Answer<Plan>, ApiError> {
    let engine = app.service.engine();
    let entry = entry::one(&engine, &id).await?;
    if !entry.faults.is_empty() {
        return Err(ApiError::faults(&entry.faults));
    }
    Ok(Answer::of(planned(&app, &caller, Engine::clone(&engine), id).await?))
}

/// What the first run of a model would do that is not made yet.
#[utoipa::path(post, path = "/v2/datamodel/plan", tag = "data models", request_body = NewDataModel,
    responses((status = 200, body = Answer<Plan>), (status = 400, description = "the definition has faults", body = Errors),
        (status = 409, description = "the slug is taken", body = Errors),
        (status = 422, description = "the query or the comparison failed", body = Errors),
        (status = 429, description = "a plan of yours is under way", body = Errors),
        (status = 504, description = "it took too long", body = Errors)),
    security(("token" = ["connections:query", "models:write"])))]
async fn plan_unsaved(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewDataModel>,
) -> Result<Answer<Plan>, ApiError> {
    let stored = change::unsaved(&app, &caller, &new)?;
    let trial = change::tried(&app, &stored, &new).await?;
    let engine = trial.engine(&app.service.engine());
    Ok(Answer::of(planned(&app, &caller, engine, stored.id).await?))
}

/// Would the definition be taken?
#[derive(Debug, Serialize, ToSchema)]
pub struct Validation {
    pub valid: bool,
    /// All that is wrong.
    pub errors: Vec<Fault>,
    /// What the query returns, as its warehouse describes it; empty when it was not asked.
    pub columns: Vec<ResultColumn>,
    /// What the query costs, where the warehouse tells without running it.
    pub cost: Option<CostEstimate>,
    /// The same for people.
    pub cost_shown: Option<String>,
}

/// A column of a result.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultColumn {
    pub column_name: String,
    /// The value type; null when a profile cannot hold it.
    pub column_datatype: Option<String>,
    pub nullable: bool,
}

impl From<&Field> for ResultColumn {
    fn from(field: &Field) -> Self {
        Self {
            column_name: field.name().clone(),
            column_datatype: ValueType::of(field).map(|value_type| value_type.to_string()),
            nullable: field.is_nullable(),
        }
    }
}

/// Would this definition be taken? Its warehouse describes the query; nothing is stored, and no row is read.
#[utoipa::path(post, path = "/v2/datamodel/validate", tag = "data models", request_body = NewDataModel,
    responses((status = 200, body = Answer<Validation>), (status = 400, description = "it is no definition", body = Errors),
        (status = 502, description = "the warehouse does not answer", body = Errors)),
    security(("token" = ["models:write"])))]
async fn validate(
    State(app): State<App>,
    caller: Caller,
    Json(new): Json<NewDataModel>,
) -> Result<Answer<Validation>, ApiError> {
    let engine = app.service.engine();
    let found = async {
        let trial = change::tried(&app, &change::unsaved(&app, &caller, &new)?, &new).await?;
        let schema = trial.describe(&engine).await?;
        Ok((trial.fit(&schema).err(), trial.cost(&engine).await, schema))
    };
    Ok(Answer::of(match Box::pin(found).await {
        Ok((misfit, cost, schema)) => Validation {
            valid: misfit.is_none(),
            errors: misfit.map(ApiError::into_faults).unwrap_or_default(),
            columns: trial::shown(&schema).map(ResultColumn::from).collect(),
            cost_shown: cost.as_ref().map(ToString::to_string),
            cost,
        },
        Err(error) => {
            let error: ApiError = error;
            // what is wrong with the warehouse says nothing of the definition
            if error.status().is_server_error() {
                return Err(error);
            }
            Validation { valid: false, errors: error.into_faults(), columns: Vec::new(), cost: None, cost_shown: None }
        }
    }))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(plan)).routes(routes!(plan_unsaved)).routes(routes!(validate))
}
