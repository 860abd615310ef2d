//! The answers of the service. Everything that may be left out is optional: versions, clouds and stand-ins differ.

use std::collections::HashMap;

use secrecy::SecretString;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The session is over; its master token renews it.
pub(super) const SESSION_EXPIRED: &str = "390112";
/// The session and its master token are over: log in anew.
pub(super) const LOGIN_EXPIRED: [&str; 6] = ["390104", "390111", "390113", "390114", "390115", "390195"];
/// The query runs; its result can be asked for at `getResultUrl`.
pub(super) const IN_PROGRESS: [&str; 2] = ["333333", "333334"];
/// To an abort: the query does not run (yet, or any more).
pub(super) const NOT_RUNNING: &str = "000605";

/// The envelope of every answer.
#[derive(Deserialize)]
pub(super) struct Answer<D> {
    #[serde(default)]
    pub success: bool,
    #[serde(default, deserialize_with = "code")]
    pub code: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default = "none")]
    pub data: Option<D>,
}

fn none<D>() -> Option<D> {
    None
}

/// A code, as text or as a number.
fn code<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(format!("{:0>6}", number.to_string())),
        _ => None,
    })
}

impl<D> Answer<D> {
    pub(super) fn has_code(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }
}

/// To `login-request`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct LoginData {
    pub token: Option<SecretString>,
    pub master_token: Option<SecretString>,
    pub server_version: Option<String>,
    pub session_info: Option<SessionInfo>,
}

/// What the session got of what was asked for; null where it got nothing, left out by some servers.
#[derive(Deserialize, Default, Debug, Clone)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct SessionInfo {
    pub role_name: Option<String>,
    pub warehouse_name: Option<String>,
    pub database_name: Option<String>,
    pub schema_name: Option<String>,
}

/// To `token-request`.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct RenewedData {
    pub session_token: Option<SecretString>,
    pub master_token: Option<SecretString>,
}

/// To `query-request` and `getResultUrl`: a result, a query in progress, or what is wrong with it.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct QueryData {
    pub query_id: Option<String>,
    pub get_result_url: Option<String>,
    pub statement_type_id: Option<i64>,
    pub number_of_binds: Option<i64>,
    pub rowtype: Option<Vec<ColumnType>>,
    pub total: Option<i64>,
    /// The first rows, as JSON.
    pub rowset: Option<Vec<Vec<Value>>>,
    /// The first rows, as an Arrow IPC stream.
    pub rowset_base64: Option<String>,
    /// The other rows.
    pub chunks: Option<Vec<Chunk>>,
    pub chunk_headers: Option<HashMap<String, SecretString>>,
    /// The key of chunks without `chunkHeaders`.
    pub qrmk: Option<SecretString>,
    pub query_result_format: Option<String>,
    // of an error
    pub sql_state: Option<String>,
    pub line: Option<i64>,
    pub pos: Option<i64>,
}

/// A column of a result.
#[derive(Deserialize, Default, Debug, Clone)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct ColumnType {
    pub name: String,
    #[serde(rename = "type")]
    pub type_name: String,
    /// A finer name of some types, for example `GEOGRAPHY` of an `object`.
    pub ext_type_name: Option<String>,
    pub precision: Option<i64>,
    pub scale: Option<i64>,
    pub length: Option<i64>,
    pub nullable: Option<bool>,
}

/// A file with rows. Its URL is signed: whoever has it can read it.
#[derive(Deserialize, Clone)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chunk {
    pub url: SecretString,
    pub row_count: i64,
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whatever_they_leave_out() {
        let answer: Answer<QueryData> = serde_json::from_str(r#"{"data":null,"code":390112,"success":false}"#).unwrap();
        assert!(answer.has_code(&[SESSION_EXPIRED]) && answer.data.is_none() && !answer.success);
        let answer: Answer<QueryData> = serde_json::from_str(
            r#"{"success":true,"code":null,"data":{"rowtype":[{"name":"A","type":"fixed","x":1}]}}"#,
        )
        .unwrap();
        assert_eq!(answer.data.unwrap().rowtype.unwrap()[0].name, "A");
        let answer: Answer<LoginData> = serde_json::from_str(r#"{"success":true,"data":{"token":"t"}}"#).unwrap();
        assert!(answer.data.unwrap().master_token.is_none());
        let answer: Answer<QueryData> = serde_json::from_str(r#"{"code":605}"#).unwrap();
        assert_eq!(answer.code.as_deref(), Some(NOT_RUNNING));
    }
}
