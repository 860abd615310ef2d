//! A query's run: submitted, waited for, read in order, and stopped in the warehouse when nobody wants it any more.
//!
//! ```text
//! query-request -> [in progress -> getResultUrl]* -> inline rows, then files 0, 1, 2 … (bounded prefetch)
//! ```

use std::io::{Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use base64::Engine;
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use futures::StreamExt;
use serde_json::Value;
use tokio::time::Instant;
use uuid::Uuid;

use super::decode::{arrow_batch, json_batch};
use super::error::{Sent, of_stopped};
use super::plan::Plan;
use super::result::Files;
use super::session::Session;
use super::stream::BatchStream;
use super::wire::QueryData;
use crate::warehouse::chunks::bodies;
use crate::warehouse::http::statement_timeout;
use crate::warehouse::statement::ReadingStatement;
use crate::warehouse::task::{self, Batches, End, Enough, StopQuery};
use crate::warehouse::{QueryOptions, RunningQuery, WarehouseError, WarehouseErrorKind};

/// How long after its limit a query may still be stopped by the warehouse itself, whose words are better.
const GRACE: Duration = Duration::from_secs(2);

/// One run of one statement.
struct Run {
    session: Arc<Session>,
    id: Uuid,
    /// The model's SQL.
    model: String,
    /// What is sent.
    sql: String,
    lines_before: usize,
    limit: Option<Duration>,
    submitted: AtomicBool,
    stopped: AtomicBool,
    /// It has a result, or the service has said why not: there is nothing left to stop.
    ended: AtomicBool,
}

/// Starts a query that was described. The session ends with it.
pub(super) fn start(
    session: Session,
    plan: Plan,
    statement: &ReadingStatement,
    options: &QueryOptions,
    limit: Option<Duration>,
) -> RunningQuery {
    let (sql, lines_before) = match options.limit {
        Some(rows) => (statement.limited(rows), ReadingStatement::LINES_BEFORE),
        None => (statement.text.clone(), 0),
    };
    let run = Arc::new(Run {
        session: Arc::new(session),
        id: Uuid::new_v4(),
        model: statement.text.clone(),
        sql,
        lines_before,
        limit,
        submitted: AtomicBool::new(false),
        stopped: AtomicBool::new(false),
        ended: AtomicBool::new(false),
    });
    let (stop, batch_rows) = (run.clone(), options.batch_rows);
    task::start(plan.schema.clone(), options.limit, stop, move |batches| async move {
        let end = run.read(&plan, batches, batch_rows).await;
        if matches!(end, Ok(End::Complete)) {
            run.session.close().await;
        }
        end
    })
}

impl Run {
    async fn read(&self, plan: &Plan, mut batches: Batches, batch_rows: usize) -> Result<End, WarehouseError> {
        self.submitted.store(true, Ordering::SeqCst);
        if self.stopped.load(Ordering::SeqCst) {
            return Err(WarehouseError::new(WarehouseErrorKind::Cancelled, "the query was cancelled"));
        }
        let data = self.result().await?;
        let names = data.rowtype.iter().flatten().map(|column| column.name.as_str());
        // with none the answer says nothing of its columns
        if data.rowtype.as_ref().is_some_and(|columns| !columns.is_empty()) && !plan.has_names(names) {
            return Err(WarehouseError::retry("the result has other columns than the description had")
                .with_hint("a table was changed between the description and the query; try again"));
        }
        let mut sink = Sink { batches: &mut batches, batch_rows };
        match read_result(&self.session, plan, data, &mut sink).await? {
            Flow::All => Ok(End::Complete),
            Flow::Enough => Ok(End::Abandoned),
        }
    }

    /// Runs the statement; it stops at its limit.
    async fn result(&self) -> Result<QueryData, WarehouseError> {
        let sent = Sent { sql: &self.model, lines_before: self.lines_before };
        let began = Instant::now();
        let running = self.session.execute(&self.sql, &self.id, Some(sent));
        let outcome = match self.limit {
            // the warehouse counts for itself; this is for one that does not, or does not answer
            Some(limit) => match tokio::time::timeout(limit + GRACE, running).await {
                Ok(outcome) => outcome,
                Err(_) => return Err(statement_timeout(limit)),
            },
            None => running.await,
        };
        let answered = outcome.as_ref().map_or_else(|(_, code)| !code.is_empty(), |_| true);
        self.ended.store(answered, Ordering::SeqCst);
        outcome.map_err(|(error, code)| of_stopped(error, &code, began.elapsed(), self.limit))
    }
}

#[async_trait]
impl StopQuery for Run {
    async fn stop(&self) -> Result<(), WarehouseError> {
        self.stopped.store(true, Ordering::SeqCst);
        let runs = self.submitted.load(Ordering::SeqCst) && !self.ended.load(Ordering::SeqCst);
        let stopped = if runs { self.session.abort(&self.sql, &self.id).await } else { Ok(()) };
        self.session.close().await;
        stopped
    }
}

/// Runs a statement of our own and reads all of its (bounded) result.
pub(super) async fn collect(session: &Arc<Session>, sql: &str, id: &Uuid) -> Result<Vec<RecordBatch>, WarehouseError> {
    let data = session.execute(sql, id, None).await.map_err(|(e, _)| e)?;
    let plan = Plan::new(data.rowtype.as_deref().unwrap_or_default())?;
    let mut all = Vec::new();
    read_result(session, &plan, data, &mut all).await?;
    Ok(all)
}

/// Where rows go.
#[async_trait]
trait Take: Send {
    async fn take(&mut self, batch: RecordBatch) -> Result<(), Enough>;
}

struct Sink<'a> {
    batches: &'a mut Batches,
    batch_rows: usize,
}

#[async_trait]
impl Take for Sink<'_> {
    async fn take(&mut self, batch: RecordBatch) -> Result<(), Enough> {
        self.batches.send_sliced(&batch, self.batch_rows).await
    }
}

#[async_trait]
impl Take for Vec<RecordBatch> {
    async fn take(&mut self, batch: RecordBatch) -> Result<(), Enough> {
        self.push(batch);
        Ok(())
    }
}

enum Flow {
    All,
    Enough,
}

/// Rows of one part, given on.
enum Part {
    Rows(i64),
    Enough,
}

async fn read_result(
    session: &Arc<Session>,
    plan: &Plan,
    mut data: QueryData,
    sink: &mut dyn Take,
) -> Result<Flow, WarehouseError> {
    let json = data.query_result_format.as_deref().is_some_and(|f| f.eq_ignore_ascii_case("json"));
    if lacks_inline(&data, json)
        && let Some(id) = data.query_id.clone()
    {
        // seen of the service: an answer that promises rows and holds none; the result itself is whole
        data = session.result_again(&id).await?;
    }
    let mut read = match inline(plan, &mut data, json, sink).await? {
        Part::Rows(rows) => rows,
        Part::Enough => return Ok(Flow::Enough),
    };
    let files = Arc::new(Files::new(session.clone(), &mut data));
    let count = files.rows().len();
    let mut arriving = std::pin::pin!(bodies(files.clone(), 0, count));
    let mut index = 0;
    while let Some(body) = arriving.next().await {
        match decoded(plan, body?, json, sink).await? {
            Part::Rows(rows) if files.rows().get(index) == Some(&rows) => read += rows,
            Part::Rows(rows) => {
                return Err(WarehouseError::retry(format!(
                    "file {} of the result has {rows} rows, others than announced",
                    index + 1
                )));
            }
            Part::Enough => return Ok(Flow::Enough),
        }
        index += 1;
    }
    match data.total {
        Some(total) if total != read => {
            Err(WarehouseError::retry(format!("the result has {read} rows, and was announced with {total}")))
        }
        _ => Ok(Flow::All),
    }
}

fn lacks_inline(data: &QueryData, json: bool) -> bool {
    let in_files = data.chunks.iter().flatten().fold(0_i64, |sum, c| sum.saturating_add(c.row_count));
    let promised = data.total.unwrap_or_default().saturating_sub(in_files);
    let none = if json {
        data.rowset.as_ref().is_none_or(Vec::is_empty)
    } else {
        data.rowset_base64.as_ref().is_none_or(String::is_empty) && data.rowset.as_ref().is_none_or(Vec::is_empty)
    };
    promised > 0 && none
}

/// The first rows, which come with the answer.
async fn inline(plan: &Plan, data: &mut QueryData, json: bool, sink: &mut dyn Take) -> Result<Part, WarehouseError> {
    if let Some(rows) = data.rowset.take().filter(|rows| json || !rows.is_empty()) {
        return give(json_batch(plan, &rows)?, sink).await;
    }
    match data.rowset_base64.take().filter(|text| !text.is_empty()) {
        Some(text) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = bytes.map_err(|_| WarehouseError::bug("the result's first rows are not base64"))?;
            decoded(plan, bytes.into(), false, sink).await
        }
        None => Ok(Part::Rows(0)),
    }
}

async fn give(batch: RecordBatch, sink: &mut dyn Take) -> Result<Part, WarehouseError> {
    let rows = i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
    Ok(match sink.take(batch).await {
        Ok(()) => Part::Rows(rows),
        Err(Enough) => Part::Enough,
    })
}

/// A file's rows, batch by batch: what is compressed is inflated only as far as it is read.
async fn decoded(plan: &Plan, body: Bytes, json: bool, sink: &mut dyn Take) -> Result<Part, WarehouseError> {
    let broken = |e: &dyn std::fmt::Display| WarehouseError::bug(format!("a part of the result cannot be read: {e}"));
    if body.is_empty() {
        return Ok(Part::Rows(0));
    }
    let compressed = body.starts_with(&[0x1f, 0x8b]);
    let body = Cursor::new(body);
    let body: Box<dyn Read + Send> = if compressed { Box::new(MultiGzDecoder::new(body)) } else { Box::new(body) };
    if json {
        // rows with commas between them, without the brackets around
        let whole = Cursor::new(&b"["[..]).chain(body).chain(Cursor::new(&b"]"[..]));
        let rows: Vec<Vec<Value>> = serde_json::from_reader(std::io::BufReader::new(whole))
            .map_err(|e| broken(&format_args!("line {}, column {}", e.line(), e.column())))?;
        return give(json_batch(plan, &rows)?, sink).await;
    }
    let mut read = 0;
    for batch in BatchStream::new(std::io::BufReader::new(body)) {
        match give(arrow_batch(plan, &batch.map_err(|e| broken(&e))?)?, sink).await? {
            Part::Rows(rows) => read += rows,
            Part::Enough => return Ok(Part::Enough),
        }
    }
    Ok(Part::Rows(read))
}
