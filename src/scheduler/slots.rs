//! The runs that are under way in this process.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::planner::Taken;
use crate::catalog::schedule::Cause;
use crate::sync::{Progress, Stage};

/// A run that is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningRun {
    pub model: String,
    pub run_id: String,
    pub since: DateTime<Utc>,
    pub cause: Cause,
    /// Who asked for it; `scheduler` when its time came.
    pub actor: String,
    /// None: it has not come to its query yet.
    pub stage: Option<Stage>,
    /// Rows that came in so far.
    pub rows: u64,
    /// It was asked to end.
    pub cancelling: bool,
}

/// One run, and how it gets on.
#[derive(Debug)]
pub(super) struct Slot {
    pub taken: Taken,
    pub since: DateTime<Utc>,
    pub cancel: CancellationToken,
    /// An index into [`STAGES`], from 1.
    stage: AtomicU8,
    rows: AtomicU64,
}

const STAGES: [Stage; 5] = [Stage::Query, Stage::Compare, Stage::Profiles, Stage::Write, Stage::Commit];

impl Progress for Slot {
    fn stage(&self, stage: Stage) {
        if stage == Stage::Query {
            // a new try begins from nothing
            self.rows.store(0, Ordering::Relaxed);
        }
        let number = STAGES.iter().position(|s| *s == stage).map_or(0, |at| at + 1);
        self.stage.store(u8::try_from(number).unwrap_or(0), Ordering::Relaxed);
    }

    fn rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

impl Slot {
    fn running(&self) -> RunningRun {
        let stage = usize::from(self.stage.load(Ordering::Relaxed)).checked_sub(1);
        RunningRun {
            model: self.taken.model.clone(),
            run_id: self.taken.run_id.clone(),
            since: self.since,
            cause: self.taken.cause,
            actor: self.taken.actor.clone(),
            stage: stage.and_then(|at| STAGES.get(at).copied()),
            rows: self.rows.load(Ordering::Relaxed),
            cancelling: self.cancel.is_cancelled(),
        }
    }
}

/// By model.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    emptied: Notify,
}

impl Slots {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn enter(&self, taken: Taken, since: DateTime<Utc>) -> Arc<Slot> {
        let slot = Arc::new(Slot {
            taken,
            since,
            cancel: CancellationToken::new(),
            stage: AtomicU8::new(0),
            rows: AtomicU64::new(0),
        });
        self.lock().insert(slot.taken.model.clone(), Arc::clone(&slot));
        slot
    }

    pub fn leave(&self, model: &str) {
        let mut slots = self.lock();
        slots.remove(model);
        if slots.is_empty() {
            self.emptied.notify_waiters();
        }
    }

    pub fn get(&self, model: &str) -> Option<RunningRun> {
        self.lock().get(model).map(|slot| slot.running())
    }

    /// Those that began first, first.
    pub fn all(&self) -> Vec<RunningRun> {
        let mut all: Vec<RunningRun> = self.lock().values().map(|slot| slot.running()).collect();
        all.sort_by(|a, b| (a.since, &a.model).cmp(&(b.since, &b.model)));
        all
    }

    /// Asks that run to end.
    pub fn cancel(&self, model: &str, run_id: &str) {
        if let Some(slot) = self.lock().get(model).filter(|slot| slot.taken.run_id == run_id) {
            slot.cancel.cancel();
        }
    }

    pub fn cancel_all(&self) {
        for slot in self.lock().values() {
            slot.cancel.cancel();
        }
    }

    /// Waits until nothing runs.
    pub async fn empty(&self) {
        loop {
            let mut emptied = std::pin::pin!(self.emptied.notified());
            // from here on a wake-up is not missed
            emptied.as_mut().enable();
            if self.lock().is_empty() {
                return;
            }
            emptied.await;
        }
    }
}
