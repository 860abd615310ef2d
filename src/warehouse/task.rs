//! A query under way in a remote service: a task reads its batches and hands them through a short channel.
//!
//! ```text
//! warehouse --> reading task --batches--> channel (2) --> stream
//!                    |  stops the query in the warehouse when it is cancelled, times out,
//!                    |  or its stream is dropped
//! ```

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::FutureExt;
use tokio::sync::{Mutex, mpsc};
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
    /// Set once the warehouse was told, or by the query's own end. Held while it is being told: whoever comes second
    /// waits until that is done.
    settled: Mutex<bool>,
    stop: Arc<dyn StopQuery>,
}

impl Canceller {
    async fn stop_once(&self) {
        let mut settled = self.settled.lock().await;
        if std::mem::replace(&mut *settled, true) {
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
    let canceller = Arc::new(Canceller { asked: CancellationToken::new(), settled: Mutex::new(false), stop });
    let (sender, receiver) = mpsc::channel(WAITING_BATCHES);
    let cancel = canceller.clone();
    tokio::spawn(async move {
        // a panic must not look like the end of the rows: what is missing would count as removed
        let reading = AssertUnwindSafe(read(Batches { sender: sender.clone(), left: limit })).catch_unwind();
        let outcome = tokio::select! {
            biased;
            () = canceller.asked.cancelled() => {
                Err(WarehouseError::new(WarehouseErrorKind::Cancelled, "the query was cancelled"))
            }
            // the reader was dropped
            () = sender.closed() => Ok(End::Abandoned),
            outcome = reading => outcome.unwrap_or_else(|_| Err(WarehouseError::bug("reading the result panicked"))),
        };
        match outcome {
            Ok(End::Complete) => *canceller.settled.lock().await = true,
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

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use arrow::datatypes::Schema;
    use futures::StreamExt;

    use super::*;

    /// Takes its time.
    #[derive(Default)]
    struct Slowly {
        stops: AtomicUsize,
    }

    #[async_trait]
    impl StopQuery for Slowly {
        async fn stop(&self) -> Result<(), WarehouseError> {
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.stops.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_reader_that_panics_ends_with_an_error_and_stops_the_query() {
        let stop = Arc::new(Slowly::default());
        let mut running = start(Arc::new(Schema::empty()), None, stop.clone(), |_| async { panic!("odd answer") });
        let error = running.stream.next().await.unwrap().unwrap_err();
        assert!(error.to_string().contains("panicked"), "{error}");
        assert_eq!(stop.stops.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cancel_returns_when_the_warehouse_was_told_whoever_told_it() {
        let stop = Arc::new(Slowly::default());
        let RunningQuery { stream, cancel } =
            start(Arc::new(Schema::empty()), None, stop.clone(), |_| std::future::pending());
        drop(stream);
        cancel.cancel().await;
        assert_eq!(stop.stops.load(Ordering::SeqCst), 1);
    }
}
