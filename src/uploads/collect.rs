//! Small events: journalled before they are accepted, and turned into uploads some seconds later, many at once, for a
//! commit to a Delta table is far too much for one of them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::rows::{Columns, json};
use super::{Batch, UploadError, Uploads};
use crate::catalog::Journalled;
use crate::config::{IdentityField, is_slug};
use crate::diff::spill::SpillFolder;
use crate::identity::normalize;
use crate::sync::UploadSource;

/// The most that one request may collect.
pub const MAX_COLLECT_BYTES: usize = 1 << 20;
pub const MAX_COLLECT_ROWS: usize = 1000;
/// Events in one upload at most, and their bytes, which are held in memory once.
const BATCH_EVENTS: u32 = 50_000;
const BATCH_BYTES: usize = 16 << 20;
/// After a failure the flusher waits twice as long each time, up to this.
const LONGEST_WAIT: Duration = Duration::from_secs(5 * 60);
/// Who an upload of collected events is by: they come from many.
const ACTOR: &str = "system";

/// An event that was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct RefusedEvent {
    /// In the body, from 0.
    pub index: usize,
    pub message: String,
}

/// What became of a request's events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Collected {
    pub stream: String,
    /// These are on disk, and will be visible within seconds.
    pub accepted: usize,
    pub refused: Vec<RefusedEvent>,
}

impl Uploads {
    /// Takes the events of a body: one JSON object, a list of them, or NDJSON. When this returns, the accepted ones are
    /// on disk.
    pub async fn collect(&self, stream: &str, body: &[u8]) -> Result<Collected, UploadError> {
        if !is_slug(stream) {
            return Err(UploadError::StreamName(stream.to_string()));
        }
        if self.shared.closing.is_cancelled() {
            return Err(UploadError::Closing);
        }
        if body.len() > MAX_COLLECT_BYTES {
            return Err(UploadError::TooLarge { limit: MAX_COLLECT_BYTES as u64 });
        }
        let events = json::objects(body).map_err(|fault| unreadable(body, fault))?;
        if events.is_empty() {
            return Err(UploadError::Empty);
        }
        if events.len() > MAX_COLLECT_ROWS {
            return Err(UploadError::TooManyRows { rows: events.len() });
        }
        let waiting = self.shared.waiting_bytes.load(Ordering::Relaxed);
        if waiting >= self.shared.options.max_waiting_bytes {
            return Err(UploadError::Full { waiting });
        }
        let engine = self.engine();
        let (mut accepted, mut refused) = (Vec::with_capacity(events.len()), Vec::new());
        for (index, event) in events.into_iter().enumerate() {
            match check(event, &engine.project.identities) {
                // outside of its texts, where it may not stand, a line break is but space
                Ok(()) => accepted.push(event.replace(['\n', '\r'], " ")),
                Err(message) => refused.push(RefusedEvent { index, message }),
            }
        }
        let count = accepted.len();
        if count > 0 {
            let (events, bytes) = (accepted.len() as u64, accepted.iter().map(String::len).sum::<usize>());
            let batch = Batch { stream: stream.to_string(), received_at: engine.clock.now(), events: accepted };
            self.shared.journal.take(engine.catalog.clone(), batch).await?;
            self.shared.waiting_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
            let before = self.shared.waiting_events.fetch_add(events, Ordering::Relaxed);
            if before + events >= self.shared.options.flush_events {
                self.shared.wake.notify_one();
            }
        }
        Ok(Collected { stream: stream.to_string(), accepted: count, refused })
    }

    /// Turns every event that waits into uploads. Harmless at any moment, and when another process does the same.
    pub async fn flush(&self) -> Result<(), UploadError> {
        let engine = self.engine();
        let mut failed = None;
        for Journalled { stream, .. } in engine.catalog.journalled_streams().await? {
            // one stream's trouble does not stop the others
            if let Err(error) = self.flush_stream(&stream).await {
                tracing::warn!(stream, %error, "collected events could not be written; they stay in the journal");
                failed = Some(error);
            }
        }
        let left = engine.catalog.journalled_streams().await?;
        self.shared.waiting_events.store(left.iter().map(|stream| stream.events).sum(), Ordering::Relaxed);
        self.shared.waiting_bytes.store(left.iter().map(|stream| stream.bytes).sum(), Ordering::Relaxed);
        failed.map_or(Ok(()), Err)
    }

    async fn flush_stream(&self, stream: &str) -> Result<(), UploadError> {
        loop {
            if self.shared.closing.is_cancelled() {
                return Ok(());
            }
            let _slot = self.slot().await?;
            let engine = self.engine();
            let folder = SpillFolder::create(&engine.spill_folder(), &format!("collect-{}", uuid::Uuid::now_v7()))?;
            let source = UploadSource::Journal { limit: BATCH_EVENTS, max_bytes: BATCH_BYTES };
            let Some(done) = engine.upload(stream, ACTOR, source, &folder).await? else { return Ok(()) };
            tracing::debug!(stream, upload = done.report.id, rows = done.report.rows, "collected events are visible");
            // what came in meanwhile waits for others
            if done.report.rows < u64::from(BATCH_EVENTS) && done.report.bytes < BATCH_BYTES as u64 {
                return Ok(());
            }
        }
    }

    /// The flusher.
    pub(super) async fn flush_for_ever(self) {
        let every = self.shared.options.flush_every;
        let mut wait = every;
        // at the start too: an earlier process may have left some
        loop {
            wait = match self.flush().await {
                Ok(()) => every,
                Err(_) => (wait * 2).min(LONGEST_WAIT.max(every)),
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // after a failure, haste helps nobody
                () = self.shared.wake.notified(), if wait == every => {}
                () = self.shared.closing.cancelled() => return,
            }
        }
    }
}

/// Why the event cannot be taken.
fn check(event: &str, identities: &[IdentityField]) -> Result<(), String> {
    let fields = json::object(event.as_bytes()).map_err(|fault| format!("byte {}: {}", fault.at + 1, fault.message))?;
    let mut identifies = false;
    for identity in identities {
        let Some((_, cell)) = fields.iter().find(|(name, _)| *name == identity.field) else { continue };
        if let Some(why) = cell.identity_fault() {
            return Err(format!("{}: {why}", identity.field));
        }
        identifies |= cell.text().is_some_and(|text| !normalize(&text, &identity.normalize).is_empty());
    }
    if !identifies {
        let names: Vec<&str> = identities.iter().map(|identity| identity.field.as_str()).collect();
        return Err(format!("no value of {}", names.join(", ")));
    }
    let names = fields.iter().map(|(name, _)| name.as_str());
    Columns::new(&[]).admit(names).map_err(|(name, why)| format!("`{name}`: {why}"))
}

fn unreadable(body: &[u8], fault: json::JsonFault) -> UploadError {
    let before = &body[..fault.at.min(body.len())];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
    UploadError::Unreadable { format: "JSON", line, column, message: fault.message }
}
