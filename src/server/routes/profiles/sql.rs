//! SQL over profiles: one statement that reads, with limits on rows, bytes, time and memory.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use utoipa::ToSchema;

use crate::catalog::AsOf;
use crate::profiles::ProfilesError;
use crate::server::answer::{Answer, ApiError, Errors};
use crate::server::extract::{Caller, Json};
use crate::server::rows::{Cells, empty, type_name};
use crate::server::state::App;
use crate::values::csv::flattened;

/// How long a query may take, its answer included.
const TIMEOUT: Duration = Duration::from_secs(30);
const DEFAULT_ROWS: u64 = 1000;
/// Most rows of an answer that is held in memory …
const MAX_ROWS: u64 = 10_000;
/// … and of one that is streamed.
const MAX_STREAMED_ROWS: u64 = 1_000_000;
/// An answer is cut where its values have taken so much.
const MAX_BYTES: usize = 16 << 20;
/// Rows written before other requests have their turn on this thread.
const ROWS_AT_ONCE: usize = 512;
/// Queries at once.
const QUERIES: usize = 2;
/// When a refused caller may try again.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A query.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SqlQuery {
    /// One SELECT, EXPLAIN, DESCRIBE or SHOW TABLES, over `profiles`, `memberships`, `identities`, `changes` and
    /// `records_<slug>`.
    #[schema(example = "SELECT model, count(*) AS members FROM memberships GROUP BY model")]
    query: String,
    /// At most so many rows: 1,000 when left out, at most 10,000, or 1,000,000 as NDJSON or CSV.
    #[serde(default)]
    limit: Option<u64>,
    /// `json` when left out.
    #[serde(default)]
    format: RowFormat,
    /// As a run (its id) left things, or as of a time.
    #[serde(default)]
    as_of: Option<String>,
}

/// How rows are written.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum RowFormat {
    /// An answer as all others.
    #[default]
    Json,
    /// A stream of lines, an object each. It breaks off where the query fails or takes too long.
    Ndjson,
    /// A stream of lines, with a header.
    Csv,
}

/// A query's result.
#[derive(Debug, Serialize, ToSchema)]
pub struct SqlResult {
    columns: Vec<ResultColumn>,
    row_count: usize,
    /// Each a list of values, in the order of the columns.
    #[schema(value_type = Vec<Vec<Object>>)]
    rows: Vec<Vec<Value>>,
    /// There are more rows than were asked for, or than fit into an answer.
    truncated: bool,
}

/// A column of a result.
#[derive(Debug, Serialize, ToSchema)]
pub struct ResultColumn {
    column_name: String,
    #[schema(example = "decimal(12,2)")]
    column_datatype: String,
}

/// Which queries are under way: one a caller, two in all.
#[derive(Debug)]
pub struct QuerySlots {
    all: Arc<Semaphore>,
    callers: Arc<Mutex<HashSet<String>>>,
}

impl Default for QuerySlots {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(QUERIES)), callers: Arc::default() }
    }
}

impl QuerySlots {
    /// The right to run one, or when to try again.
    pub(super) fn take(&self, caller: &str) -> Result<Slot, ApiError> {
        let busy =
            |message: &str| ApiError::too_many(message, RETRY_AFTER).with_hint("wait as long as Retry-After says");
        let permit = Arc::clone(&self.all).try_acquire_owned().map_err(|_| busy("too many queries are under way"))?;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if !callers.insert(caller.to_string()) {
            return Err(busy("a query of yours is under way"));
        }
        Ok(Slot { callers: Arc::clone(&self.callers), caller: caller.to_string(), _permit: permit })
    }
}

/// The right to run a query, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    callers: Arc<Mutex<HashSet<String>>>,
    caller: String,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.callers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.caller);
    }
}

/// Read-only SQL over profiles, memberships, identities, changes and record stores.
///
/// One query of a caller at a time, two in all, at most 30 seconds; it may use a quarter of the service's memory limit.
#[utoipa::path(post, path = "/v2/sql", tag = "profiles", request_body = SqlQuery,
    responses((status = 200, description = "as JSON; with `format`, `application/x-ndjson` or `text/csv` instead", body = Answer<SqlResult>),
        (status = 400, description = "it is no query", body = Errors),
        (status = 422, description = "the query is wrong, or takes too much memory", body = Errors),
        (status = 429, description = "another query is under way", body = Errors), (status = 504, description = "it took too long (`query-timeout`)", body = Errors)),
    security(("token" = ["profiles:query"])))]
pub async fn query(State(app): State<App>, caller: Caller, Json(query): Json<SqlQuery>) -> Result<Response, ApiError> {
    let slot = app.queries.take(caller.id())?;
    let deadline = Instant::now() + TIMEOUT;
    let as_of = query.as_of.as_deref().map(str::parse::<AsOf>).transpose()?;
    let begin = app.profiles.sql(query.query, as_of);
    let stream = tokio::time::timeout_at(deadline, begin).await.map_err(|_| too_long())??;
    let most = if query.format == RowFormat::Json { MAX_ROWS } else { MAX_STREAMED_ROWS };
    let limit = query.limit.unwrap_or(DEFAULT_ROWS).min(most);
    let content_type = match query.format {
        RowFormat::Json => {
            let collected = tokio::time::timeout_at(deadline, collect(stream, limit as usize)).await;
            return Ok(Answer::of(collected.map_err(|_| too_long())??).into_response());
        }
        RowFormat::Ndjson => "application/x-ndjson",
        RowFormat::Csv => "text/csv; charset=utf-8",
    };
    let lines = lines(Lines { stream, rest: None, format: query.format, left: limit, begun: false });
    let mut response = Response::new(Body::from_stream(within(deadline, slot, lines)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    Ok(response)
}

fn too_long() -> ApiError {
    let message = format!("the query took more than {} seconds", TIMEOUT.as_secs());
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "query-timeout", message)
        .with_hint("ask for fewer models and columns at once, or filter by an identity")
}

async fn collect(mut stream: SendableRecordBatchStream, limit: usize) -> Result<SqlResult, ApiError> {
    let schema = stream.schema();
    let column = |field: &arrow::datatypes::FieldRef| ResultColumn {
        column_name: field.name().clone(),
        column_datatype: type_name(field),
    };
    let columns = schema.fields().iter().map(column).collect();
    let (mut rows, mut bytes, mut truncated) = (Vec::new(), 0, false);
    'all: while let Some(batch) = stream.try_next().await.map_err(ProfilesError::from)? {
        let cells = Cells::of(&batch).map_err(ApiError::internal)?;
        for row in 0..batch.num_rows() {
            if rows.len() == limit || bytes > MAX_BYTES {
                truncated = true;
                break 'all;
            }
            if row % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let row: Vec<Value> = cells.row(row).collect();
            bytes += row.iter().map(size).sum::<usize>();
            rows.push(row);
        }
    }
    Ok(SqlResult { columns, row_count: rows.len(), rows, truncated })
}

/// What a value takes in an answer, roughly.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 3,
        Value::Array(items) => 2 + items.iter().map(size).sum::<usize>(),
        Value::Object(members) => 2 + members.iter().map(|(name, value)| name.len() + 4 + size(value)).sum::<usize>(),
        _ => 8,
    }
}

/// A result on its way out.
struct Lines {
    stream: SendableRecordBatchStream,
    /// What of a batch is not written yet.
    rest: Option<RecordBatch>,
    format: RowFormat,
    left: u64,
    begun: bool,
}

/// The lines until the deadline, written by a task of their own: a client that does not read holds neither the query nor
/// the slot longer than that, and one that is gone neither. Lines that were cut short end with an error, so that nobody takes them for whole.
fn within(
    deadline: Instant,
    slot: Slot,
    lines: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> impl Stream<Item = std::io::Result<Bytes>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(2);
    let whole = Arc::new(AtomicBool::new(false));
    let written = Arc::clone(&whole);
    tokio::spawn(async move {
        let _slot = slot;
        let mut lines = std::pin::pin!(lines);
        let all = async {
            while let Some(line) = lines.next().await {
                if sender.send(line?).await.is_err() {
                    return Err(std::io::Error::from(std::io::ErrorKind::BrokenPipe));
                }
            }
            Ok(())
        };
        tokio::select! {
            done = tokio::time::timeout_at(deadline, all) => {
                if matches!(done, Ok(Ok(()))) {
                    written.store(true, Ordering::Release);
                }
            }
            // also while no line comes
            () = sender.closed() => {}
        }
    });
    let end = futures::stream::once(async move {
        if whole.load(Ordering::Acquire) { None } else { Some(Err(std::io::Error::from(std::io::ErrorKind::TimedOut))) }
    });
    ReceiverStream::new(receiver).map(Ok).chain(end.filter_map(std::future::ready))
}

/// Each batch as text. An error ends the connection before the end of the body, so that nobody takes it for whole.
fn lines(lines: Lines) -> impl Stream<Item = std::io::Result<Bytes>> {
    futures::stream::try_unfold(lines, |mut lines| async move {
        let next = match lines.rest.take() {
            _ if lines.left == 0 => None,
            Some(rest) => Some(rest),
            None => lines.stream.try_next().await.map_err(|error| {
                tracing::info!(%error, "a streamed query failed");
                std::io::Error::other("the query failed")
            })?,
        };
        let batch = match next {
            Some(batch) => {
                let left = usize::try_from(lines.left).unwrap_or(usize::MAX);
                let now = batch.num_rows().min(left).min(ROWS_AT_ONCE);
                if now < batch.num_rows() {
                    lines.rest = Some(batch.slice(now, batch.num_rows() - now));
                }
                batch.slice(0, now)
            }
            None if lines.begun => return Ok(None),
            // no rows: CSV has its header all the same
            None => empty(&lines.stream.schema()),
        };
        lines.left -= batch.num_rows() as u64;
        let text = match lines.format {
            RowFormat::Csv => csv(&batch, !lines.begun),
            RowFormat::Json | RowFormat::Ndjson => ndjson(&batch),
        };
        lines.begun = true;
        Ok(Some((Bytes::from(text.map_err(std::io::Error::other)?), lines)))
    })
}

fn csv(batch: &RecordBatch, header: bool) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let mut text = Vec::new();
    arrow::csv::WriterBuilder::new().with_header(header).build(&mut text).write(&flattened(batch)?)?;
    Ok(text)
}

fn ndjson(batch: &RecordBatch) -> Result<Vec<u8>, arrow::error::ArrowError> {
    let (schema, cells) = (batch.schema(), Cells::of(batch)?);
    let mut text = Vec::new();
    for row in 0..batch.num_rows() {
        let names = schema.fields().iter().map(|field| field.name().clone());
        let object: Map<String, Value> = names.zip(cells.row(row)).collect();
        serde_json::to_writer(&mut text, &object).map_err(|e| arrow::error::ArrowError::JsonError(e.to_string()))?;
        text.push(b'\n');
    }
    Ok(text)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_caller_runs_one_query_and_all_together_two() {
        let slots = QuerySlots::default();
        let first = slots.take("a").unwrap();
        assert_eq!(slots.take("a").unwrap_err().status(), StatusCode::TOO_MANY_REQUESTS);
        let second = slots.take("b").unwrap();
        assert!(slots.take("c").is_err());
        drop(first);
        let third = slots.take("c").unwrap();
        assert!(slots.take("a").is_err());
        drop((second, third));
        assert!(slots.take("a").is_ok());
    }
}
