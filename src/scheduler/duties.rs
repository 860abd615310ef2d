//! What the clockwork does: the due check, the late check, the project's files, housekeeping.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use tokio_cron_scheduler::JobSchedulerError;

use super::clockwork::{Clockwork, Reconciler, Wake};
use super::core::Core;
use super::files::ProjectFault;
use crate::events::{Event, Subject, SubjectKind};

/// Files with faults are read again each so many looks: what is wrong may lie outside of them.
const RETRY_EACH: u32 = 15;
/// A request can be repeated with its Idempotency-Key for so long.
const REPEATABLE_FOR: TimeDelta = TimeDelta::days(1);
/// How long the audit trail goes back.
const EVENTS_KEPT_FOR: TimeDelta = TimeDelta::days(400);
/// An event names so many files at most.
const MOST_FILES: usize = 20;

/// Puts all duties on the clockwork.
pub(super) async fn assign(core: &Arc<Core>, clockwork: &Clockwork) -> Result<(), JobSchedulerError> {
    let seconds = Duration::from_secs;
    clockwork.add("* * * * * *", seconds(5), core.due.clone(), Arc::new(DueCheck(Arc::clone(core)))).await?;
    clockwork.add("*/10 * * * * *", seconds(30), Wake::default(), Arc::new(LateCheck(Arc::clone(core)))).await?;
    let files = Files { core: Arc::clone(core), looks: AtomicU32::new(0) };
    clockwork.add("*/2 * * * * *", seconds(10), Wake::default(), Arc::new(files)).await?;
    clockwork.add("30 * * * * *", seconds(180), Wake::default(), Arc::new(Housekeeping(Arc::clone(core)))).await
}

struct DueCheck(Arc<Core>);

#[async_trait]
impl Reconciler for DueCheck {
    fn name(&self) -> &'static str {
        "due check"
    }

    async fn reconcile(&self) {
        if let Err(error) = self.0.tick().await {
            tracing::error!(%error, "the due check failed; it is tried again");
        }
    }
}

struct LateCheck(Arc<Core>);

#[async_trait]
impl Reconciler for LateCheck {
    fn name(&self) -> &'static str {
        "late check"
    }

    async fn reconcile(&self) {
        if let Err(error) = self.0.note_late().await {
            tracing::error!(%error, "the late check failed; it is tried again");
        }
    }
}

struct Files {
    core: Arc<Core>,
    looks: AtomicU32,
}

#[async_trait]
impl Reconciler for Files {
    fn name(&self) -> &'static str {
        "project files"
    }

    async fn reconcile(&self) {
        let look = self.looks.fetch_add(1, Ordering::Relaxed);
        self.core.look_at_files(look.is_multiple_of(RETRY_EACH)).await;
    }
}

struct Housekeeping(Arc<Core>);

#[async_trait]
impl Reconciler for Housekeeping {
    fn name(&self) -> &'static str {
        "housekeeping"
    }

    async fn reconcile(&self) {
        if let Err(error) = self.0.clean_up().await {
            tracing::error!(%error, "cleaning up after ended runs failed; it is tried again");
        }
    }
}

impl Core {
    pub async fn note_late(self: &Arc<Self>) -> Result<(), super::SchedulerError> {
        let now = self.engines.engine().clock.now();
        self.change(move |planner| {
            planner.note_late(now);
            ((), Vec::new())
        })
        .await
    }

    /// Reads the project anew when its files changed, when it is behind the catalog, or when `retry` is asked for and
    /// there were faults. What is wrong is told once.
    pub async fn look_at_files(&self, retry: bool) {
        let engine = self.engines.engine();
        let changed = self.watch.changed(&engine.project.root).await;
        let before = self.watch.fault();
        // a fault keeps it behind: that is tried again as rarely
        let behind = before.is_none() && self.engines.is_behind();
        if changed.is_none() && !behind && !(retry && before.is_some()) {
            return;
        }
        let first = changed.as_ref().is_some_and(|changed| changed.first);
        let mut files = changed.map(|changed| changed.files).unwrap_or_default();
        let of = files.len();
        files.truncate(MOST_FILES);
        let details = serde_json::json!({ "files": files, "changed": of });
        let project = Subject::new(SubjectKind::Project, "project");
        let now = engine.clock.now();
        let event = match self.engines.reload().await {
            Ok(()) => {
                self.watch.set_fault(None);
                self.due.wake();
                tracing::info!(files = of, "the project was read anew");
                // at the start nothing has changed yet, as far as anybody knows
                (!first).then(|| Event::new(now, project, "reloaded", "the project was read anew").with(details))
            }
            Err(message) => {
                let known = before.as_ref().is_some_and(|fault| fault.message == message);
                let since = before.map_or(now, |fault| fault.since);
                let text = format!("the project could not be read anew, and stays as it was: {message}");
                self.watch.set_fault(Some(ProjectFault { since, message }));
                if !known {
                    tracing::error!("{text}");
                }
                (of > 0 || !known).then(|| Event::new(now, project, "reload_failed", text).with(details))
            }
        };
        if let Some(event) = event
            && let Err(error) = self.engines.engine().catalog.record_event(&event).await
        {
            tracing::error!(%error, "an event could not be recorded");
        }
    }

    /// Runs whose end could not be recorded, or whose process is gone, get their end.
    pub async fn clean_up(&self) -> Result<(), super::SchedulerError> {
        let engine = self.engines.engine();
        let own = self.slots.all();
        let unfinished = engine.catalog.unfinished().await?;
        if unfinished.iter().any(|(_, run_id)| own.iter().all(|run| run.run_id != *run_id)) {
            engine.recover().await?;
        }
        let uploads = engine.catalog.unfinished_uploads().await?;
        if !uploads.is_empty() {
            engine.recover_uploads(&uploads).await?;
        }
        let now = engine.clock.now();
        engine.catalog.trim_requests(now - REPEATABLE_FOR).await?;
        let trimmed = engine.catalog.trim_events(now - EVENTS_KEPT_FOR).await?;
        if trimmed > 0 {
            tracing::info!(events = trimmed, "old events were removed from the audit trail");
        }
        Ok(())
    }
}
