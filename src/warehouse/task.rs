//! A query under way in a remote service: a task reads its batches and hands them through a short channel.
//!
//! ```text
//! warehouse --> reading task --batches--> channel (2) --> stream
//!                    |  stops the query in the warehouse when it is cancelled, times out,
//!                    |  or its stream is dropped
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use super::{CancelQuery, RunningQuery, WarehouseError, WarehouseErrorKind};

/// Batches that may wait for their reader.
const WAITING_BATCHES: usize = 2;
/// How long a stop may take before it is given up.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// Tells a warehouse to stop a query.
#[async_trait]
pub trait StopQuery: Send + Sync + 'static {
    /// Called at most once, and not after the query has ended by itself. May be called before the warehouse has heard
    /// of the query: then whatever submits it must not do so any more.
    async fn stop(&self) -> Result<(), WarehouseError>;
}

/// Where a reading task puts its batches.
pub struct Batches {
    sender: mpsc::Sender<Result<RecordBatch, DataFusionError>>,
    /// Rows that may still be sent.
    left: Option<usize>,
}

/// Nobody wants more rows.
#[derive(Debug)]
pub struct Enough;

impl Batches {
    /// Hands over a batch; waits while the reader is behind.
    pub async fn send(&mut self, batch: RecordBatch) -> Result<(), Enough> {
        let batch = match &mut self.left {
            Some(left) => {
                let take = batch.num_rows().min(*left);
                *left -= take;
                batch.slice(0, take)
            }
            None => batch,
        };
        if batch.num_rows() > 0 && self.sender.send(Ok(batch)).await.is_err() {
            return Err(Enough);
        }
        if self.left == Some(0) { Err(Enough) } else { Ok(()) }
    }

    /// Hands over a batch in slices of at most `rows`.
    pub async fn send_sliced(&mut self, batch: &RecordBatch, rows: usize) -> Result<(), Enough> {
        let mut at = 0;
        while at < batch.num_rows() {
            let take = rows.max(1).min(batch.num_rows() - at);
            self.send(batch.slice(at, take)).await?;
            at += take;
        }
        Ok(())
    }
}

/// How reading ended, when it did not fail.
#[derive(Debug)]
pub enum End {
    /// Every row was read: there is nothing left to stop.
    Complete,
    /// No more rows were wanted while there were more.
    Abandoned,
}

impl From<Enough> for End {
    fn from(_: Enough) -> Self {
        Self::Abandoned
    }
}

struct Canceller {
    asked: CancellationToken,
    /// Set by whoever tells the warehouse, or by the query's own end.
    settled: AtomicBool,
    stop: Arc<dyn StopQuery>,
}

impl Canceller {
    async fn stop_once(&self) {
        if self.settled.swap(true, Ordering::AcqRel) {
            return;
        }
        match tokio::time::timeout(STOP_TIMEOUT, self.stop.stop()).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "a query could not be cancelled in the warehouse"),
            Err(_) => tracing::warn!("a query could not be cancelled in the warehouse: no answer"),
        }
    }
}

#[async_trait]
impl CancelQuery for Canceller {
    async fn cancel(&self) {
        self.asked.cancel();
        self.stop_once().await;
    }
}

/// Starts `read` in a task of its own. What it returns early (an error, [`End::Abandoned`]), a cancel and a dropped
/// stream all stop the query in the warehouse.
pub fn start<R, F>(schema: SchemaRef, limit: Option<usize>, stop: Arc<dyn StopQuery>, read: R) -> RunningQuery
where
    R: FnOnce(Batches) -> F + Send + 'static,
    F: Future<Output = Result<End, WarehouseError>> + Send,
{
    let canceller = Arc::new(Canceller { asked: CancellationToken::new(), settled: AtomicBool::new(false), stop });
    let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
    let cancel = canceller.clone();
    tokio::spawn(async move {
        let reading = read(Batches { sender: sender.clone(), left: limit });
        let outcome = tokio::select! {
            biased;
            () = canceller.asked.cancelled() => {
                Err(WarehouseError::new(WarehouseErrorKind::Cancelled, "the query was cancelled"))
            }
            // the reader was dropped
            () = sender.closed() => Ok(End::Abandoned),
            outcome = reading => outcome,
        };
        match outcome {
            Ok(End::Complete) => canceller.settled.store(true, Ordering::Release),
            Ok(End::Abandoned) => {
                // whoever reads need not wait for the stop
                drop(sender);
                canceller.stop_once().await;
            }
            Err(e) => {
                canceller.stop_once().await;
                let _ = sender.send(Err(DataFusionError::External(Box::new(e)))).await;
            }
        }
    });
    let stream = Box::pin(RecordBatchStreamAdapter::new(schema, ReceiverStream::new(receiver)));
    RunningQuery { stream, cancel }
}
