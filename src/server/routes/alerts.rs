//! Alerts: what is watched, what lasts, who is told, and what was sent. Channels and rules are written in
//! `cloud-connect.yml`; their addresses and secrets are in no answer.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::alerts::TestError;
use crate::alerts::anomaly::Limits;
use crate::alerts::definition::{Channel, ChannelKind, Condition, Rule};
use crate::catalog::alerts::{Delivery, Incident};
use crate::events::{Subject, SubjectKind};
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, Page, Path, Query};
use crate::server::state::App;

/// A rule, and the conditions that last.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertRule {
    name: String,
    /// Who is told.
    channels: Vec<String>,
    /// Only these models; empty: all.
    models: Vec<String>,
    /// Only models of these connections; empty: all.
    connections: Vec<String>,
    /// `failed`, `held`, `late`, `empty`, `quarantine`, `size`, `change_rate`.
    conditions: Vec<&'static str>,
    /// Seconds after its time from which a model is late.
    late_after: Option<u64>,
    quarantined_percent: Option<f64>,
    size: Option<AlertLimits>,
    change_rate: Option<AlertLimits>,
    /// Is the end of a condition told too?
    recovery: bool,
    /// Seconds after which a condition that lasts is told again.
    remind_every: Option<u64>,
    incidents: Vec<AlertIncident>,
}

/// What a measure has to keep to: rows, or per cent of the rows that changed.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertLimits {
    min: Option<f64>,
    max: Option<f64>,
    /// The farthest from the mean of the last runs, in per cent of that mean.
    variance_percent: Option<f64>,
    runs: usize,
}

/// A condition that began and has not ended.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertIncident {
    id: String,
    /// The model's slug.
    model: String,
    condition: &'static str,
    since: DateTime<Utc>,
    /// When it was last told of.
    told_at: DateTime<Utc>,
    summary: String,
    run_id: Option<String>,
}

/// Where messages go.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertChannel {
    name: String,
    /// `webhook`, `slack`, `teams` or `email`.
    r#type: &'static str,
    /// Rules that use it.
    rules: Vec<String>,
    /// Is what a webhook gets signed?
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    signed: Option<bool>,
}

/// A message to one channel.
#[derive(Debug, Serialize, ToSchema)]
pub struct AlertDelivery {
    /// The receiver sees it too: `webhook-id`, or the beginning of an e-mail's `Message-ID`.
    id: String,
    channel: String,
    /// `alert`, `reminder` or `recovery`.
    kind: &'static str,
    rule: String,
    model: String,
    condition: Option<&'static str>,
    /// The incident that it tells of.
    incident: String,
    title: String,
    /// `owed`, `delivered` or `given_up`.
    status: &'static str,
    attempts: u32,
    /// Of the last attempt.
    error: Option<String>,
    created: DateTime<Utc>,
    /// When the next attempt is due.
    due: Option<DateTime<Utc>>,
    ended: Option<DateTime<Utc>>,
}

/// The rules, and which of their conditions last.
#[utoipa::path(get, path = "/v2/alert", tag = "alerts", responses((status = 200, body = Answer<Vec<AlertRule>>)),
    security(("token" = ["alerts:read"])))]
async fn rules(State(app): State<App>) -> Result<Answer<Vec<AlertRule>>, ApiError> {
    let engine = app.service.engine();
    let incidents = engine.catalog.alert_incidents().await?;
    let rule = |rule: &Rule| AlertRule {
        name: rule.name.clone(),
        channels: rule.channels.clone(),
        models: rule.models.clone(),
        connections: rule.connections.clone(),
        conditions: Condition::ALL.iter().filter(|c| rule.watches(**c)).map(|c| c.as_str()).collect(),
        late_after: rule.late_after.map(|after| after.as_secs()),
        quarantined_percent: rule.quarantined_percent,
        size: rule.size.map(|limits| limits_of(limits, 1.0)),
        change_rate: rule.change_rate.map(|limits| limits_of(limits, 10_000.0)),
        recovery: rule.recovery,
        remind_every: rule.remind_every.map(|every| every.as_secs()),
        incidents: incidents.iter().filter(|incident| incident.rule == rule.name).map(incident_of).collect(),
    };
    Ok(Answer::of(engine.project.alerts.rules.values().map(rule).collect()))
}

fn limits_of(limits: Limits, unit: f64) -> AlertLimits {
    AlertLimits {
        min: limits.min.map(|min| min as f64 / unit),
        max: limits.max.map(|max| max as f64 / unit),
        variance_percent: limits.variance.map(|variance| variance as f64 / 100.0),
        runs: limits.runs,
    }
}

fn incident_of(incident: &Incident) -> AlertIncident {
    AlertIncident {
        id: incident.id.clone(),
        model: incident.model.clone(),
        condition: incident.condition.as_str(),
        since: incident.since,
        told_at: incident.told_at,
        summary: incident.finding.summary.clone(),
        run_id: incident.finding.run.as_ref().map(|run| run.run_id.clone()),
    }
}

/// Where messages go.
#[utoipa::path(get, path = "/v2/alertchannel", tag = "alerts", responses((status = 200, body = Answer<Vec<AlertChannel>>)),
    security(("token" = ["alerts:read"])))]
async fn channels(State(app): State<App>) -> Answer<Vec<AlertChannel>> {
    let engine = app.service.engine();
    let alerts = &engine.project.alerts;
    let channel = |channel: &Channel| AlertChannel {
        name: channel.name.clone(),
        r#type: channel.kind.as_str(),
        rules: alerts.rules.values().filter(|r| r.channels.contains(&channel.name)).map(|r| r.name.clone()).collect(),
        signed: match &channel.kind {
            ChannelKind::Webhook { secret, .. } => Some(secret.is_some()),
            _ => None,
        },
    };
    Answer::of(alerts.channels.values().map(channel).collect())
}

/// Sends a test message to a channel, and waits for what its receiver says.
#[utoipa::path(post, path = "/v2/alertchannel/{name}/test", tag = "alerts",
    params(("name" = String, Path, description = "the channel's name")),
    responses((status = 200, body = Answer<String>), (status = 404, body = Errors),
        (status = 422, description = "the receiver did not take it", body = Errors),
        (status = 429, description = "at most three at once, then one every ten seconds", body = Errors)),
    security(("token" = ["alerts:write"])))]
async fn test(State(app): State<App>, caller: Caller, Path(name): Path<String>) -> Result<Answer<String>, ApiError> {
    let tried = app.alerts.test(&app.service.engine(), &name, &caller.actor).await;
    let (message, details) = match &tried {
        Ok(()) => ("a test message was delivered".to_string(), json!({ "delivered": true })),
        Err(TestError::Send(error)) => {
            (format!("a test message was not delivered: {error}"), json!({ "delivered": false }))
        }
        Err(TestError::NoSuchChannel(_)) => {
            let error = format!("there is no channel `{name}`");
            return Err(ApiError::not_found(error).with_hint("GET /v2/alertchannel lists them"));
        }
        Err(TestError::TooOften { retry_after }) => {
            return Err(ApiError::too_many("the channel was tried too often", *retry_after));
        }
    };
    let subject = Subject::new(SubjectKind::Alert, &name);
    app.service.record(&caller.actor, subject, "tested", message, details).await?;
    match tried {
        Err(TestError::Send(error)) => {
            let refused = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "not-delivered", error.to_string());
            Err(match error.hint {
                Some(hint) => refused.with_hint(hint),
                None => refused,
            })
        }
        _ => Ok(Answer::of("delivered".into())),
    }
}

/// The messages that were owed, the newest first.
#[utoipa::path(get, path = "/v2/alert/delivery", tag = "alerts", params(Page),
    responses((status = 200, body = Answer<Vec<AlertDelivery>>), (status = 400, body = Errors)),
    security(("token" = ["alerts:read"])))]
async fn deliveries(State(app): State<App>, Query(page): Query<Page>) -> Result<Answer<Vec<AlertDelivery>>, ApiError> {
    let limit = page.limit();
    let before = page.cursor.as_deref().map(cursor).transpose()?;
    let found = app.service.catalog().alert_deliveries(before, limit).await?;
    let next = (found.len() == limit).then(|| found.last()).flatten();
    let next = next.map(|last| format!("{}.{}", last.created_at.timestamp_micros(), last.id));
    Ok(Answer::page(found.into_iter().map(delivery_of).collect(), next))
}

/// `MICROSECONDS.ID`
fn cursor(text: &str) -> Result<(DateTime<Utc>, &str), ApiError> {
    let parsed = text
        .split_once('.')
        .and_then(|(micros, id)| Some((DateTime::from_timestamp_micros(micros.parse().ok()?)?, id)));
    parsed.ok_or_else(|| {
        ApiError::bad_request("invalid-cursor", "this is not a cursor")
            .with_hint("give `_meta.next_cursor` of the page before, as it is")
            .with_field("cursor")
    })
}

fn delivery_of(delivery: Delivery) -> AlertDelivery {
    let owed = delivery.ended_at.is_none();
    AlertDelivery {
        channel: delivery.channel,
        kind: delivery.notice.kind.as_str(),
        title: delivery.notice.title(),
        condition: delivery.notice.condition.map(Condition::as_str),
        rule: delivery.notice.rule,
        model: delivery.notice.model,
        incident: delivery.notice.incident,
        id: delivery.id,
        status: delivery.status.as_str(),
        attempts: delivery.attempts,
        error: delivery.error,
        created: delivery.created_at,
        due: owed.then_some(delivery.due_at),
        ended: delivery.ended_at,
    }
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(rules))
        .routes(routes!(channels))
        .routes(routes!(test))
        .routes(routes!(deliveries))
}
