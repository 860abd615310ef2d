//! Profiles that are handed in: files that are uploaded, and small events that are collected. No model needs to exist.
//!
//! ```text
//!  POST upload   ─► body on local disk ─► rows ──────────────────────┐
//!                   (bounded, unpacked)   (bad ones set aside)       ▼
//!                                                        Engine::upload ─► streams/<stream>, identities, changes
//!  POST collect  ─► journal (SQLite, on disk before the answer) ─────▲      (one commit, sync::upload)
//!                   └── taken by the flusher every few seconds ──────┘
//! ```
//!
//! Rows of a stream add profiles and identity values by the rules of runs. What else a row holds is kept, as text, in the
//! stream's own table, which a model reads like any other (a `local` connection whose `path` is the store's `streams`):
//! so attributes come from models alone, with their limits, contracts, change log and time travel, and an upload does
//! not need a second way of saying what an attribute is.
//!
//! Actors: [`Uploads`] is the service's way in; [`body`] brings a body to disk, [`rows`] reads it; [`journal`] writes the events of several requests at once; the flusher, an
//! idempotent task, woken by a timer and by many events, turns the journal into uploads. Invariants:
//! - an upload is visible whole or not at all, and a body that is sent again under its key adds nothing again;
//! - an event is on disk before it is accepted, and is taken from the journal exactly once;
//! - memory does not depend on the body's size: a few batches and the spill's buffers; so many uploads work at once as
//!   there are slots;
//! - a request that is given up (its client went away) does not stop an upload whose body has arrived.

pub mod body;
mod collect;
mod error;
mod journal;
mod report;
pub mod rows;
#[cfg(test)]
mod tests;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use body::{Body, Encoding};
pub use collect::{Collected, MAX_COLLECT_BYTES, MAX_COLLECT_ROWS, RefusedEvent};
pub use error::UploadError;
pub use journal::Batch;
pub use report::{Fault, FaultyRow, FaultyRows, Source, UploadReport, UploadStatus};
pub use rows::Format;

use crate::config::is_slug;
use crate::diff::spill::SpillFolder;
use crate::sync::{Engine, SyncError, UploadSource, Uploaded};

/// Bodies that may be on their way, or wait for a slot, at once: what bounds the disk that they take.
const MAX_ARRIVING: usize = 16;

/// Gives the engine as it is now: the service opens another when its configuration changes.
pub type CurrentEngine = Arc<dyn Fn() -> Arc<Engine> + Send + Sync>;

/// How uploads are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadOptions {
    /// The largest body, decompressed, in bytes.
    pub max_bytes: u64,
    /// How many bodies are worked through at once; each takes some 100 MiB of memory.
    pub at_once: usize,
    /// Collected events become visible after so long, at the latest.
    pub flush_every: Duration,
    /// So many events are not left to wait.
    pub flush_events: u64,
    /// No more than so many bytes of events wait, about.
    pub max_waiting_bytes: u64,
}

impl Default for UploadOptions {
    fn default() -> Self {
        Self {
            max_bytes: 1 << 30,
            at_once: 2,
            flush_every: Duration::from_secs(5),
            flush_events: 20_000,
            max_waiting_bytes: 1 << 30,
        }
    }
}

/// Takes uploads and collected events. Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    shared: Arc<Shared>,
}

struct Shared {
    engine: CurrentEngine,
    options: UploadOptions,
    /// Bodies that are on their way: slow ones must not keep others from being worked through.
    arriving: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    journal: journal::Journal,
    /// Many events wait.
    wake: Notify,
    /// What came in and was not flushed yet, as far as this process knows.
    waiting_events: AtomicU64,
    waiting_bytes: AtomicU64,
    closing: CancellationToken,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Uploads {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uploads").field("options", &self.shared.options).finish_non_exhaustive()
    }
}

/// A body to be uploaded.
#[derive(Debug, Clone)]
pub struct UploadRequest {
    pub stream: String,
    pub format: Format,
    pub encoding: Encoding,
    /// The `Idempotency-Key`; without one, the body's content stands for it.
    pub key: Option<String>,
    /// Who hands it in.
    pub actor: String,
}

impl Uploads {
    /// Opens the way in. Collected events are written only once the flusher is started.
    pub fn open(engine: CurrentEngine, options: UploadOptions) -> Self {
        let shared = Shared {
            engine,
            options,
            arriving: Arc::new(Semaphore::new(MAX_ARRIVING)),
            slots: Arc::new(Semaphore::new(options.at_once.max(1))),
            journal: journal::Journal::default(),
            wake: Notify::new(),
            waiting_events: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            closing: CancellationToken::new(),
            flusher: Mutex::new(None),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Starts the flusher, which first takes what an earlier process left in the journal.
    pub fn start(&self) {
        let mut flusher = self.shared.flusher.lock().unwrap_or_else(PoisonError::into_inner);
        flusher.get_or_insert_with(|| tokio::spawn(self.clone().flush_for_ever()));
    }

    pub fn options(&self) -> UploadOptions {
        self.shared.options
    }

    fn engine(&self) -> Arc<Engine> {
        (self.shared.engine)()
    }

    async fn slot(&self) -> Result<OwnedSemaphorePermit, UploadError> {
        Arc::clone(&self.shared.slots).acquire_owned().await.map_err(|_| UploadError::Closing)
    }

    /// Uploads a body.
    ///
    /// # Errors
    /// [`UploadError::is_request_fault`] tells those that the request is to blame for. After any of them nothing was
    /// added, but after [`SyncError::NotVisible`], which says that the next upload or command brings it to its end.
    pub async fn upload<S, E>(&self, request: UploadRequest, body: S) -> Result<Uploaded, UploadError>
    where
        S: Stream<Item = Result<Bytes, E>> + Send,
        E: std::fmt::Display,
    {
        if !is_slug(&request.stream) {
            return Err(UploadError::StreamName(request.stream));
        }
        if request.key.as_ref().is_some_and(|key| key.is_empty() || key.len() > 255) {
            return Err(UploadError::BadKey);
        }
        if self.shared.closing.is_cancelled() {
            return Err(UploadError::Closing);
        }
        let arriving = self.shared.arriving.try_acquire().map_err(|_| UploadError::Crowded)?;
        let engine = self.engine();
        let folder = SpillFolder::create(&engine.spill_folder(), &format!("upload-{}", uuid::Uuid::now_v7()))?;
        let body = body::receive(folder.path(), body, request.encoding, self.shared.options.max_bytes).await?;
        if body.bytes == 0 {
            return Err(UploadError::Empty);
        }
        let slot = self.slot().await?;
        // the project may have changed while the body came in
        let engine = self.engine();
        drop(arriving);
        let UploadRequest { stream, format, key, actor, .. } = request;
        // its own task: whoever asked for it may go away meanwhile
        let working = tokio::spawn(async move {
            let _slot = slot;
            let source = UploadSource::Body { body, format, key };
            let done = engine.upload(&stream, &actor, source, &folder).await?;
            done.ok_or_else(|| SyncError::Bug("a body that holds nothing was not refused".into()).into())
        });
        working.await.map_err(|e| SyncError::Bug(e.to_string()))?
    }

    /// Ends the flusher, and waits for uploads that are under way. New ones are refused. Events that wait stay in the
    /// journal for the next process.
    pub async fn shutdown(&self) {
        self.shared.closing.cancel();
        let flusher = self.shared.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(flusher) = flusher
            && let Err(error) = flusher.await
        {
            tracing::error!(%error, "the flusher of collected events ended badly");
        }
        let all = u32::try_from(self.shared.options.at_once.max(1)).unwrap_or(u32::MAX);
        let drained = Arc::clone(&self.shared.slots).acquire_many_owned(all).await;
        self.shared.slots.close();
        drop(drained);
    }
}
