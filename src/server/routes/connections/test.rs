//! Trying a connection, step by step.

use std::time::Duration;

use axum::extract::State;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{open, usable};
use crate::events::{Subject, SubjectKind};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, Path};
use crate::server::state::App;

const TIMEOUT: Duration = Duration::from_secs(45);

/// How a test went.
#[derive(Debug, Serialize, ToSchema)]
struct ConnectionTest {
    /// Did every step go well?
    ok: bool,
    /// In their order; what follows a failed one was not tried.
    steps: Vec<ConnectionTestStep>,
}

/// One thing that was tried.
#[derive(Debug, Serialize, ToSchema)]
struct ConnectionTestStep {
    #[schema(example = "log in")]
    step: String,
    ok: bool,
    /// What was found, or what went wrong and what to do.
    detail: String,
}

/// Try a connection step by step: name, network, encryption, login, reading.
///
/// The answer is 200 also when a step fails: `ok` tells. At most 10 in 10 seconds for each connection.
#[utoipa::path(post, path = "/v2/connection/{id}/test", tag = "connections", params(("id" = String, Path, description = "the connection's name")),
    responses((status = 200, body = Answer<ConnectionTest>), (status = 404, body = Errors), (status = 429, body = Errors)),
    security(("token" = ["connections:query"])))]
async fn test(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Answer<ConnectionTest>, ApiError> {
    let engine = app.service.engine();
    usable(&engine, &id)?;
    app.connections.ask("test", &id)?;
    let warehouse = open(&engine, &id)?;
    let mut steps: Vec<ConnectionTestStep> = match tokio::time::timeout(TIMEOUT, warehouse.test()).await {
        Ok(steps) => {
            let step = |tried: crate::warehouse::TestStep| ConnectionTestStep {
                step: tried.step,
                ok: tried.ok,
                detail: tried.detail,
            };
            steps.into_iter().map(step).collect()
        }
        Err(_) => Vec::new(),
    };
    if steps.is_empty() {
        let detail = format!("no answer within {} seconds", TIMEOUT.as_secs());
        steps.push(ConnectionTestStep { step: "test".into(), ok: false, detail });
    }
    let failed = steps.iter().find(|step| !step.ok);
    let message = failed.map_or_else(
        || format!("connection `{id}` works"),
        |step| format!("connection `{id}`: the step `{}` failed", step.step),
    );
    let ok = failed.is_none();
    let details =
        json!({ "ok": ok, "failed": failed.map(|step| &step.step), "detail": failed.map(|step| &step.detail) });
    let subject = Subject::new(SubjectKind::Connection, &id);
    app.service.record(&caller.actor, subject, "tested", message, details).await?;
    Ok(Answer::of(ConnectionTest { ok, steps }))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(test))
}
