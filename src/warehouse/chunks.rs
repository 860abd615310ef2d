//! Results that lie in chunks (files that a warehouse wrote): fetched a few ahead, read in their order.
//!
//! ```text
//! chunk 0  [decode, batch by batch] --> batches
//! chunk 1  [downloaded, waits]
//! chunk 2  [downloading]
//! chunk 3  not asked for yet
//! ```
//!
//! A chunk is downloaded whole, still compressed, before its first row is handed on, so one that breaks off is fetched
//! again without a row being lost or doubled. What is held is [`Prefetch`] chunks, however many the result has.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tokio::task::JoinHandle;

use super::WarehouseError;

/// Chunks that may be downloaded or downloading besides the one being read.
pub(super) const PREFETCH: usize = 2;

/// Fetches the chunks of one result.
#[async_trait]
pub(super) trait FetchChunk: Send + Sync + 'static {
    /// The whole body of chunk `index`. Tries again by itself, with a fresh link when the old one has expired.
    async fn fetch(&self, index: usize) -> Result<Bytes, WarehouseError>;
}

/// The bodies of chunks `first..count`, in order. Downloads go on while a body is being read, and stop when the stream
/// is dropped.
pub(super) fn bodies(
    source: Arc<dyn FetchChunk>,
    first: usize,
    count: usize,
) -> impl futures::Stream<Item = Result<Bytes, WarehouseError>> + Send {
    stream::iter(first..count)
        .map(move |index| {
            let source = source.clone();
            // a task of its own: `buffered` alone would pause a download while its consumer works
            let mut task = Download(tokio::spawn(async move { source.fetch(index).await }));
            async move {
                (&mut task.0)
                    .await
                    .unwrap_or_else(|e| Err(WarehouseError::bug(format!("a download's task ended: {e}"))))
            }
        })
        .buffered(PREFETCH)
}

/// A download's task; it ends with whoever waits for it.
struct Download(JoinHandle<Result<Bytes, WarehouseError>>);

impl Drop for Download {
    fn drop(&mut self) {
        self.0.abort();
    }
}
