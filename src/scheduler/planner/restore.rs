//! Taking up where an earlier process ended, in whatever way it did.

use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};

use super::{Limits, Note, Planner, Work, new_run_id};
use crate::catalog::schedule::{Cause, ScheduleChange, ScheduleRow, WorkRow};
use crate::sync::report::RunStatus;

/// A run that was interrupted is taken once more, not again and again.
const MOST_ATTEMPTS: u32 = 2;

impl Planner {
    /// The planner as the catalog knows it. `statuses` says how the runs of the work that was under way stand now that
    /// the engine has cleaned up after them; a run that is not there never began.
    ///
    /// What waited waits on. What was cut short is run again at once, and once: it keeps its old place in the queue.
    pub fn restore(
        limits: Limits,
        schedules: Vec<ScheduleRow>,
        work: Vec<WorkRow>,
        statuses: &BTreeMap<String, RunStatus>,
        now: DateTime<Utc>,
    ) -> Self {
        let mut planner = Self {
            limits,
            models: BTreeMap::new(),
            absent: schedules.into_iter().map(|row| (row.model.clone(), row)).collect(),
            work: BTreeMap::new(),
            served: HashMap::new(),
            turn: 0,
            place: work.iter().map(|row| row.place).max().unwrap_or_default(),
            since: now,
            changes: Vec::new(),
            notes: Vec::new(),
        };
        for row in work {
            planner.restore_work(row, statuses);
        }
        planner
    }

    fn restore_work(&mut self, mut row: WorkRow, statuses: &BTreeMap<String, RunStatus>) {
        if row.taken_at.is_some() {
            let cut_short = match statuses.get(&row.run_id) {
                None | Some(RunStatus::Interrupted | RunStatus::Running) => true,
                Some(_) => false,
            };
            if !cut_short || row.stopped || row.attempts >= MOST_ATTEMPTS {
                if cut_short && !row.stopped {
                    self.notes.push(Note::GivenUp { model: row.model.clone(), run_id: row.run_id.clone() });
                }
                self.changes.push(ScheduleChange::Done(row.model));
                return;
            }
            row.run_id = new_run_id();
            row.cause = Cause::Retry;
            row.taken_at = None;
            self.changes.push(ScheduleChange::Work(row.clone()));
        }
        self.work.insert(row.model.clone(), Work { row, not_before: None, connection: None });
    }
}
