//! What the SQL Statement Execution API sends and takes, as far as it is used here. Every field may be missing: services
//! leave out what is empty.

use std::collections::HashMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// `POST /api/2.0/sql/statements`.
#[derive(Debug, Serialize)]
pub(super) struct ExecuteStatement<'a> {
    pub warehouse_id: &'a str,
    pub statement: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<&'a str>,
    pub wait_timeout: &'a str,
    pub on_wait_timeout: &'static str,
    pub format: &'static str,
    pub disposition: &'static str,
    pub query_tags: Vec<QueryTag<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct QueryTag<'a> {
    pub key: &'static str,
    pub value: &'a str,
}

/// The state of a statement and, when it has succeeded, its result.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Statement {
    pub statement_id: Option<String>,
    pub status: Status,
    pub manifest: Option<Manifest>,
    pub result: Option<ResultData>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub state: String,
    pub error: Option<ServiceError>,
    pub sql_state: Option<String>,
}

/// In a statement's status, and in the body of a refusal.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServiceError {
    #[serde(deserialize_with = "text")]
    pub error_code: String,
    #[serde(deserialize_with = "text")]
    pub message: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Manifest {
    pub schema: ManifestSchema,
    #[serde(deserialize_with = "count")]
    pub total_chunk_count: Option<u64>,
    #[serde(deserialize_with = "count")]
    pub total_row_count: Option<u64>,
    pub truncated: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ManifestSchema {
    #[serde(deserialize_with = "count")]
    pub column_count: Option<u64>,
    pub columns: Option<Vec<ManifestColumn>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct ManifestColumn {
    pub name: String,
}

/// One chunk, inline or as links.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ResultData {
    pub data_array: Option<Vec<Vec<Value>>>,
    #[serde(deserialize_with = "count")]
    pub next_chunk_index: Option<u64>,
    pub external_links: Option<Vec<ExternalLink>>,
}

/// Where a chunk can be downloaded for some minutes. No `Debug`: the address and the headers are secrets.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ExternalLink {
    #[serde(deserialize_with = "count")]
    pub chunk_index: Option<u64>,
    pub external_link: Option<String>,
    pub http_headers: Option<HashMap<String, String>>,
}

impl std::fmt::Debug for ExternalLink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExternalLink").field("chunk_index", &self.chunk_index).finish_non_exhaustive()
    }
}

/// `GET /api/2.0/sql/warehouses/{id}`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SqlWarehouse {
    pub name: Option<String>,
    pub state: Option<String>,
}

/// `POST /oidc/v1/token`.
#[derive(Deserialize)]
pub(super) struct TokenAnswer {
    pub access_token: String,
    #[serde(default, deserialize_with = "count")]
    pub expires_in: Option<u64>,
}

/// 64-bit numbers are JSON numbers or, as in protocol buffers' JSON, texts.
fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Number(n) => n.as_u64(),
        Value::String(s) => s.parse().ok(),
        _ => None,
    })
}

/// Error codes are texts, or numbers now and then.
fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(cell(&Value::deserialize(deserializer)?).unwrap_or_default())
}

/// A cell of a result in JSON: documented as text or null.
pub(super) fn cell(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(s) => Some(s.clone()),
        other => Some(other.to_string()),
    }
}
