//! The first rows of a reading query, as the editor of a model shows them.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{open, usable};
use crate::config;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Json, Path, Query};
use crate::server::rows::{self, Sample};
use crate::server::state::App;
use crate::warehouse::QueryOptions;

const DEFAULT_ROWS: u32 = 20;
const MAX_ROWS: u32 = 100;
/// How long the warehouse may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// For the login, and for the warehouse to say itself that it took too long.
const LEEWAY: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct ScanLimit {
    /// At most so many rows; 20 when left out, at most 100.
    limit: Option<u32>,
}

/// What is asked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ScanRequest {
    /// One reading statement in the warehouse's own SQL.
    #[schema(example = "SELECT email, city FROM people")]
    query: String,
    /// Columns that shall identify a row: they have to be in the result, and are checked in the sample.
    #[serde(default)]
    primary_keys: Vec<String>,
}

/// What came back.
#[derive(Debug, Serialize, ToSchema)]
struct ScanResult {
    columns: Vec<ScanColumn>,
    row_count: usize,
    /// Each row's values, in the order of `columns`.
    #[schema(value_type = Vec<Vec<Object>>)]
    rows: Vec<Vec<Value>>,
    /// How the primary keys look in these rows; null when none were named.
    primary_keys: Option<KeyCheck>,
    /// Rows that hold a value which could not be carried, with the reason.
    unconvertible: Vec<UnconvertibleRow>,
}

/// A column of the result.
#[derive(Debug, Serialize, ToSchema)]
struct ScanColumn {
    column_name: String,
    /// The value type that it becomes; the name of another type that a profile cannot hold.
    #[schema(example = "decimal(12,2)")]
    column_datatype: String,
}

/// What is seen of the primary keys in a sample.
#[derive(Debug, PartialEq, Eq, Serialize, ToSchema)]
struct KeyCheck {
    /// Rows in which one of them is null.
    nulls: usize,
    /// Rows whose keys an earlier row has too.
    duplicates: usize,
}

/// A row that a run would set aside.
#[derive(Debug, Serialize, ToSchema)]
struct UnconvertibleRow {
    /// Its place in `rows`, from 0.
    row: usize,
    reason: String,
}

/// Query a connection: the first rows.
///
/// Reads only. The query is stopped in the warehouse after 30 seconds, and when the client goes away. At most 10 in 10
/// seconds for each connection.
#[utoipa::path(post, path = "/v2/connection/{id}/scan", tag = "connections",
    params(("id" = String, Path, description = "the connection's name"), ScanLimit), request_body = ScanRequest,
    responses((status = 200, body = Answer<ScanResult>), (status = 400, body = Errors), (status = 404, body = Errors),
        (status = 422, description = "the warehouse refuses the query", body = Errors), (status = 429, body = Errors), (status = 504, body = Errors)),
    security(("token" = ["connections:query"])))]
async fn scan(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(limit): Query<ScanLimit>,
    Json(request): Json<ScanRequest>,
) -> Result<Answer<ScanResult>, ApiError> {
    let engine = app.service.engine();
    usable(&engine, &id)?;
    let query = request.query.trim().trim_end_matches(';').trim_end();
    if query.is_empty() {
        return Err(ApiError::bad_request("no-query", "`query` is empty").with_field("query"));
    }
    app.connections.ask("scan", &id)?;
    let warehouse = open(&engine, &id)?;
    let limit = limit.limit.unwrap_or(DEFAULT_ROWS).clamp(1, MAX_ROWS) as usize;
    let options = QueryOptions { limit: Some(limit), timeout: Some(TIMEOUT), ..QueryOptions::default() };
    // a stream that is dropped, by the end of the sample, of the time or of the request, stops its query
    let asked = async {
        let running = warehouse.query(query, &options).await?;
        rows::sample(running.stream, limit).await
    };
    let sample = tokio::time::timeout(TIMEOUT + LEEWAY, asked).await.map_err(|_| {
        ApiError::new(StatusCode::GATEWAY_TIMEOUT, "timeout", "the warehouse took too long; the query was stopped")
            .with_hint("narrow the query")
    })??;
    let primary_keys = check_keys(&sample, &request.primary_keys)?;
    let columns = sample
        .fields
        .iter()
        .map(|field| ScanColumn { column_name: field.name().clone(), column_datatype: rows::type_name(field) });
    Ok(Answer::of(ScanResult {
        columns: columns.collect(),
        row_count: sample.rows.len(),
        primary_keys,
        unconvertible: sample.unconvertible.into_iter().map(|(row, reason)| UnconvertibleRow { row, reason }).collect(),
        rows: sample.rows,
    }))
}

fn check_keys(sample: &Sample, keys: &[String]) -> Result<Option<KeyCheck>, ApiError> {
    if keys.is_empty() {
        return Ok(None);
    }
    let mut places = Vec::with_capacity(keys.len());
    for key in keys {
        let place = sample.fields.iter().position(|field| field.name() == key).ok_or_else(|| {
            let known: Vec<&str> = sample.fields.iter().map(|field| field.name().as_str()).collect();
            ApiError::bad_request("unknown-column", format!("the query returns no column `{key}`"))
                .with_hint(config::hint(key, &known, "it returns"))
                .with_field("primary_keys")
        })?;
        places.push(place);
    }
    let mut check = KeyCheck { nulls: 0, duplicates: 0 };
    let mut seen = HashSet::new();
    for row in &sample.rows {
        let key: Vec<&Value> = places.iter().filter_map(|place| row.get(*place)).collect();
        if key.iter().any(|value| value.is_null()) {
            check.nulls += 1;
        } else if !seen.insert(key.iter().map(ToString::to_string).collect::<Vec<_>>()) {
            check.duplicates += 1;
        }
    }
    Ok(Some(check))
}

pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(scan))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Field};
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_of_several_columns_are_compared_as_one() {
        let field = |name: &str| Arc::new(Field::new(name, DataType::Utf8, true));
        let row = |a: Value, b: Value| vec![a, b];
        let sample = Sample {
            fields: vec![field("a"), field("b")],
            rows: vec![
                row(json!("x"), json!(1)),
                row(json!("x"), json!(2)),
                row(json!("x"), json!(1)),
                row(json!(null), json!(1)),
                row(json!(null), json!(1)),
            ],
            unconvertible: Vec::new(),
        };
        let keys = |names: &[&str]| check_keys(&sample, &names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(keys(&[]).unwrap(), None);
        assert_eq!(keys(&["a", "b"]).unwrap(), Some(KeyCheck { nulls: 2, duplicates: 1 }));
        assert_eq!(keys(&["a"]).unwrap(), Some(KeyCheck { nulls: 2, duplicates: 2 }));
        assert_eq!(keys(&["A"]).unwrap_err().status(), 400);
    }
}
