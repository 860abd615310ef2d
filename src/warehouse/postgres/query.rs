//! A query under way: one task reads the rows, decodes them and hands batches through a short channel.
//!
//! ```text
//! server --socket--> client --rows--> CopyReader --batches--> channel (3) --> stream
//! ```
//!
//! When nobody takes the batches the task waits, reads nothing from the socket, and so the server waits too. When the
//! stream is dropped the query is cancelled in the server and the session ends with the task.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{FutureExt, Stream};
use tokio::sync::mpsc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{CancelToken, CopyOutStream};
use tokio_stream::wrappers::ReceiverStream;

use super::connect::Connector;
use super::copy::CopyReader;
use super::decode::RowDecoder;
use super::dialect;
use super::error::{self, Sent};
use super::session::{Driver, Session};
use super::types::Plan;
use crate::warehouse::{CancelQuery, QueryOptions, RunningQuery, WarehouseError};

/// Batches that may wait for their reader.
const WAITING_BATCHES: usize = 3;

/// Stops one query.
struct PostgresCancel {
    connector: Arc<Connector>,
    token: CancelToken,
    peer: SocketAddr,
    /// Somebody asked for it: tells our cancel from a timeout.
    asked: AtomicBool,
    ended: AtomicBool,
}

#[async_trait]
impl CancelQuery for PostgresCancel {
    async fn cancel(&self) {
        if !self.ended.load(Ordering::Acquire) {
            self.asked.store(true, Ordering::Release);
            self.connector.cancel(&self.token, self.peer).await;
        }
    }
}

/// What the reading task works with.
struct Reading {
    session: Session,
    statement: String,
    sql: String,
    /// Characters of ours before the model's SQL.
    prefix: usize,
    plan: Plan,
    batch_rows: usize,
    limit: Duration,
    cancel: Arc<PostgresCancel>,
}

/// Starts reading; `session` is inside its read-only transaction.
pub(super) fn start(
    connector: Arc<Connector>,
    session: Session,
    plan: Plan,
    sql: &str,
    options: &QueryOptions,
) -> RunningQuery {
    let (inner, inner_prefix) = plan.statement(sql, options.limit);
    // lines of its own: the SQL may end in a comment
    let before = "COPY (\n";
    let statement = format!("{before}{inner}\n) TO STDOUT (FORMAT binary)");
    let cancel = Arc::new(PostgresCancel {
        token: session.client.cancel_token(),
        peer: session.peer,
        asked: AtomicBool::new(false),
        ended: AtomicBool::new(false),
        connector: connector.clone(),
    });
    let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
    let schema = plan.schema.clone();
    let reading = Reading {
        session,
        statement,
        sql: sql.to_string(),
        prefix: before.chars().count() + inner_prefix,
        plan,
        batch_rows: options.batch_rows,
        limit: connector.statement_timeout(options.timeout),
        cancel: cancel.clone(),
    };
    tokio::spawn(reading.run(sender));
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema, ReceiverStream::new(receiver)));
    RunningQuery { stream, cancel }
}

type Batches = mpsc::Sender<Result<RecordBatch, DataFusionError>>;

/// How reading ended, when it did not fail.
enum End {
    /// Every row was read.
    Complete,
    /// The stream was dropped.
    Abandoned,
}

impl Reading {
    async fn run(mut self, sender: Batches) {
        // a panic must not look like the end of the rows: what is missing would count as removed
        let outcome = AssertUnwindSafe(self.read(&sender)).catch_unwind().await;
        let outcome = outcome.unwrap_or_else(|_| Err(WarehouseError::bug("reading the result panicked")));
        let Self { session, cancel, .. } = self;
        match outcome {
            Ok(End::Complete) => {
                cancel.ended.store(true, Ordering::Release);
                session.close().await;
            }
            Ok(End::Abandoned) => {
                cancel.cancel().await;
                cancel.ended.store(true, Ordering::Release);
            }
            Err(e) => {
                cancel.ended.store(true, Ordering::Release);
                let _ = sender.send(Err(DataFusionError::External(Box::new(e)))).await;
                session.close().await;
            }
        }
    }

    async fn read(&mut self, sender: &Batches) -> Result<End, WarehouseError> {
        let began = Instant::now();
        let Session { client, driver, .. } = &mut self.session;
        let failed = |e: &tokio_postgres::Error, driver: &Driver| match e.as_db_error() {
            Some(db) if *db.code() == SqlState::QUERY_CANCELED => {
                error::of_stopped(db, self.cancel.asked.load(Ordering::Acquire), began.elapsed(), self.limit)
            }
            _ => {
                let sent = Sent { sql: &self.sql, prefix: self.prefix };
                error::of_session(e, driver.failure.as_ref(), Some(sent), &dialect::POSTGRES)
            }
        };

        // The server may work for long before the first row: somebody has to watch for a dropped stream meanwhile.
        let opened = tokio::select! {
            biased;
            opened = driver.drive(client.copy_out(&self.statement)) => opened,
            () = sender.closed() => return Ok(End::Abandoned),
        };
        let mut rows = Box::pin(opened.map_err(|e| failed(&e, driver))?);
        let decoder = RowDecoder::new(self.plan.schema.clone(), self.plan.carriers(), self.batch_rows);
        let mut reader = CopyReader::new(decoder, self.batch_rows);
        let mut ready = Vec::new();
        loop {
            match next(rows.as_mut(), driver, sender).await {
                Next::Chunk(Ok(chunk)) => reader.feed(&chunk, &mut ready)?,
                Next::Chunk(Err(e)) => return Err(failed(&e, driver)),
                Next::End => break,
                Next::Abandoned => return Ok(End::Abandoned),
            }
            for batch in ready.drain(..) {
                if sender.send(Ok(batch)).await.is_err() {
                    return Ok(End::Abandoned);
                }
            }
        }
        if let Some(batch) = reader.finish()? {
            // the rows are all read: if nobody wants the last ones there is nothing left to stop
            let _ = sender.send(Ok(batch)).await;
        }
        Ok(End::Complete)
    }
}

enum Next {
    Chunk(Result<Bytes, tokio_postgres::Error>),
    End,
    Abandoned,
}

/// The next rows. Rows that are here already are taken without looking at the socket.
async fn next(mut rows: Pin<&mut CopyOutStream>, driver: &mut Driver, sender: &Batches) -> Next {
    let mut closed = pin!(sender.closed());
    poll_fn(|cx| {
        for attempt in 0..2 {
            match rows.as_mut().poll_next(cx) {
                Poll::Ready(Some(chunk)) => return Poll::Ready(Next::Chunk(chunk)),
                Poll::Ready(None) => return Poll::Ready(Next::End),
                // once the conversation has ended, the rows end with an error of their own
                Poll::Pending if attempt == 0 => {
                    let _ = driver.poll(cx);
                }
                Poll::Pending => {}
            }
        }
        closed.as_mut().poll(cx).map(|()| Next::Abandoned)
    })
    .await
}
