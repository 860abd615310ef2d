//! What requests and answers look like.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

/// The only table that models are joined to.
pub const PROFILES: &str = "user";

/// May a model be queried?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelStatus {
    Active,
    /// Never queried.
    Inactive,
}

impl ModelStatus {
    pub fn of(active: bool) -> Self {
        if active { Self::Active } else { Self::Inactive }
    }
}

/// How rows find their profiles.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinedTo {
    /// The result column that holds the identity: the entry of `primary_keys`. May be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "email")]
    pub primary_key: Option<String>,
    /// The profile identity that it is matched with.
    #[schema(example = "email")]
    pub foreign_key: String,
    /// Always `user`: the profiles. May be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "user")]
    pub foreign_table: Option<String>,
}

/// Removals beyond both limits wait for a person.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RemovalGuard {
    /// Rows; 1,000 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_removed: Option<u64>,
    /// Per cent of the rows that the record store holds; 10 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_removed_percent: Option<f64>,
}

/// What a result column has to be; a row that breaks it is set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ColumnRule {
    /// `string`, `int`, `float`, `decimal(12,2)`, `bool`, `timestamp`, `date`, `list` or `json`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub value_type: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_null: bool,
}

/// A model to make.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewDataModel {
    /// What people call it; the slug when left out.
    #[schema(example = "Holiday buyers")]
    pub name: Option<String>,
    /// Its id, and a part of its fields' names; made from the name when left out. Does not change.
    #[schema(example = "holiday_buyers")]
    pub slug: Option<String>,
    pub description: Option<String>,
    /// Does not change.
    pub connection_id: String,
    /// One reading statement.
    #[schema(example = "SELECT email, brand FROM purchases")]
    pub sql: String,
    /// The connection's type; it may be left out.
    pub sql_dialect: Option<String>,
    /// Exactly one: the result column that identifies a row. Does not change.
    pub primary_keys: Vec<String>,
    /// Does not change.
    pub joined_to: JoinedTo,
    /// Result columns that become profile attributes; at most 25.
    #[serde(default)]
    pub activated_fields: Vec<String>,
    /// False: only profiles that exist are updated. True when left out.
    pub create_profiles: Option<bool>,
    /// A new model is `inactive`.
    pub status: Option<ModelStatus>,
    /// Seconds from one run to the next: 60 to 1,814,400.
    #[serde(default, deserialize_with = "seconds")]
    #[schema(value_type = Option<u64>)]
    pub sync_period: Option<u64>,
    /// In place of `sync_period`: `every 15m`, or `cron 0 6 * * 1-5 Europe/Berlin`.
    pub schedule: Option<String>,
    /// Further profile identities that the result carries, in columns of the same name.
    #[serde(default)]
    pub identities: Vec<String>,
    pub guard: Option<RemovalGuard>,
    /// By column.
    pub columns: Option<BTreeMap<String, ColumnRule>>,
    /// The query's limit in the warehouse, for example `30m`.
    pub timeout: Option<String>,
}

/// What to change of a model; what is left out stays. What an answer holds beyond these is ignored, so that a model can
/// be read, changed and sent back.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DataModelChange {
    pub name: Option<String>,
    /// Null removes it.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub description: Option<Option<String>>,
    pub sql: Option<String>,
    /// At most 25.
    pub activated_fields: Option<Vec<String>>,
    pub create_profiles: Option<bool>,
    /// `active` lets the model run, once its warehouse has described the query; `inactive` stops it from being queried.
    pub status: Option<ModelStatus>,
    /// Seconds from one run to the next: 60 to 1,814,400.
    #[serde(default, deserialize_with = "seconds")]
    #[schema(value_type = Option<u64>)]
    pub sync_period: Option<u64>,
    /// In place of `sync_period`: `every 15m`, or `cron 0 6 * * 1-5 Europe/Berlin`. Null: the model runs only when asked.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub schedule: Option<Option<String>>,
    pub identities: Option<Vec<String>>,
    /// Null sets the default.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<RemovalGuard>)]
    pub guard: Option<Option<RemovalGuard>>,
    /// By column. Null removes them.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<BTreeMap<String, ColumnRule>>)]
    pub columns: Option<Option<BTreeMap<String, ColumnRule>>>,
    /// Null: the connection's.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub timeout: Option<Option<String>>,
    /// Only as it is: it does not change.
    pub slug: Option<String>,
    /// Only as it is: it does not change.
    pub connection_id: Option<String>,
    /// Only as it is: it does not change.
    pub primary_keys: Option<Vec<String>>,
    /// Only as it is: it does not change.
    pub joined_to: Option<JoinedTo>,
    /// The connection's type.
    pub sql_dialect: Option<String>,
}

/// Tells null (`Some(None)`) from left out (`None`).
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(value: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(value).map(Some)
}

/// Whole seconds; some clients write `3600.0`.
fn seconds<'de, D: Deserializer<'de>>(value: D) -> Result<Option<u64>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(value)? else { return Ok(None) };
    let whole = number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|f| f.fract() == 0.0 && (0.0..=u32::MAX.into()).contains(f))?;
        Some(float as u64)
    });
    whole.map(Some).ok_or_else(|| serde::de::Error::custom("has to be a whole number of seconds"))
}

/// A data model.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DataModel {
    /// The slug.
    #[schema(example = "holiday_buyers")]
    pub id: String,
    pub name: String,
    pub slug: String,
    pub description: Option<String>,
    pub connection_id: String,
    pub sql: String,
    /// The connection's type; null when there is no such connection.
    pub sql_dialect: Option<String>,
    pub primary_keys: Vec<String>,
    pub joined_to: JoinedTo,
    pub activated_fields: Vec<String>,
    pub create_profiles: bool,
    pub status: ModelStatus,
    /// Seconds; null when the model follows a cron expression, or runs only when asked.
    pub sync_period: Option<u64>,
    pub schedule: SyncSchedule,
    pub health: Health,
    /// The last ten failures, newest first.
    pub sync_errors: Vec<SyncFailure>,
    /// The definition changed since the last run that published: the next one compares everything with it.
    pub needs_backfill: bool,
    /// Made through the API, inactive, and never run.
    pub is_draft: bool,
    /// Rows of the record store; only with `?sizes=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false)]
    pub size: Option<u64>,
    /// What it is joined to: always `user`, the profiles.
    pub table: &'static str,
    /// The record store's table in SQL over profiles.
    #[schema(example = "records_holiday_buyers")]
    pub record_store: String,
    /// Who made it; null for a model of the project's files.
    pub author_id: Option<String>,
    pub created: Option<DateTime<Utc>>,
    pub updated: Option<DateTime<Utc>>,
    /// Who changed it last.
    pub updated_by_user_id: Option<String>,
    pub identities: Vec<String>,
    pub guard: RemovalGuard,
    pub columns: BTreeMap<String, ColumnRule>,
    pub timeout: Option<String>,
    pub origin: Origin,
    /// The file that defines it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(required = false, example = "models/holiday_buyers.yml")]
    pub file: Option<String>,
    /// The run that waits or is under way in this service.
    pub current_run: Option<CurrentRun>,
}

/// Where a model is defined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// In the project's files, and changed there.
    Files,
    Api,
}

/// When a model runs.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SyncSchedule {
    /// Seconds; null as above.
    pub sync_period: Option<u64>,
    /// When the last run began.
    pub prev_sync_time: Option<DateTime<Utc>>,
    /// When the next one begins by itself; in the past while it is overdue, null when it never does.
    pub next_sync_time: Option<DateTime<Utc>>,
    /// As it is written in files.
    #[schema(example = "cron 0 6 * * 1-5 Europe/Berlin")]
    pub text: Option<String>,
    /// The schedule starts nothing until it is resumed.
    pub paused: bool,
}

/// How a model does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Health {
    pub status: HealthStatus,
    /// For people.
    pub details: String,
}

/// How a model does, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    Healthy,
    /// The last run failed.
    Failing,
    /// Removals wait for a person.
    Held,
    /// Its time came a while ago, and it has not started.
    Late,
    Paused,
    Inactive,
    NeverRun,
    /// Its definition has faults.
    Unusable,
}

/// A run that failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SyncFailure {
    pub error: String,
    pub time: DateTime<Utc>,
    pub run_id: String,
}

/// A run that waits or is under way.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CurrentRun {
    pub run_id: String,
    pub state: CurrentState,
    pub since: DateTime<Utc>,
    /// Who asked for it; `scheduler` when its time came.
    pub actor: String,
    /// What it is at, for example `querying`.
    pub stage: Option<&'static str>,
    /// Rows that came in so far.
    pub rows: u64,
}

/// Where a run stands that has not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CurrentState {
    /// It waits for a free place.
    Queued,
    Running,
    /// It was asked to end.
    Cancelling,
}

/// What became of one model that was to be deleted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeleteStatus {
    pub id: String,
    pub deleted: bool,
    /// Why not; or what is left.
    pub reason: Option<String>,
}

/// The rows of a record store.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DataModelSize {
    pub id: String,
    pub name: String,
    pub slug_name: String,
    /// As last published; 0 before that.
    pub record_store_size: u64,
}

/// One entry of a model's log.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DataModelLog {
    pub id: String,
    /// `created`, `updated`, `activated`, `run_started`, `run_finished`, `run_failed`, `run_held` …
    pub verb: String,
    pub message: String,
    pub timestamp: DateTime<Utc>,
    /// Who did it.
    pub actor: String,
    /// What changed.
    pub details: serde_json::Value,
}
