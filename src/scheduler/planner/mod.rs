//! What is due, what waits, what may start: decided without any I/O, for a time that is handed in.
//!
//! The [`Planner`] is a value. Whoever changes it works on a copy, writes the copy's [`Planner::take_changes`] to the
//! catalog, and only then puts the copy in the place of the original: what could not be recorded did not happen.
//!
//! Invariants:
//! - a model waits or runs at most once;
//! - a due time is queued once; what was missed (the service was down, the model was paused or still running) counts as
//!   one due time, queued as soon as it can be;
//! - an inactive model is neither queued nor taken.

mod queue;
mod restore;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

pub use queue::{Started, Stopped, Taken};

use super::jitter::{DEFAULT_JITTER, jitter};
use crate::catalog::schedule::{Cause, ScheduleChange, ScheduleRow, WorkRow};
use crate::model::{Model, Schedule};

/// The actor of what happens because its time came.
pub const SCHEDULER: &str = "scheduler";
/// A clock may differ by this much between two readings before it counts as set back.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::minutes(1);

/// What bounds the planner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Runs at once.
    pub max_runs: usize,
    /// Runs at once on one connection.
    pub max_runs_per_connection: usize,
    /// The most that a model waits after its due time; see [`jitter`].
    pub jitter: Duration,
    /// A run that has not started so long after its time is late.
    pub late_after: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_runs: 2,
            max_runs_per_connection: 1,
            jitter: DEFAULT_JITTER,
            late_after: Duration::from_secs(15 * 60),
        }
    }
}

/// What the planner needs to know of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub connection: String,
    pub active: bool,
    pub schedule: Option<Schedule>,
}

impl From<&Model> for Planned {
    fn from(model: &Model) -> Self {
        Self { connection: model.connection.clone(), active: model.active, schedule: model.schedule.clone() }
    }
}

impl Planned {
    /// The schedule, unless the model is inactive.
    fn effective(&self) -> Option<&Schedule> {
        self.schedule.as_ref().filter(|_| self.active)
    }
}

/// A model of the project.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub planned: Planned,
    pub row: ScheduleRow,
}

/// A run that is to be, or is.
#[derive(Debug, Clone)]
pub(super) struct Work {
    pub row: WorkRow,
    /// Not to be taken before: another process runs the model. Not kept over a restart.
    pub not_before: Option<DateTime<Utc>>,
    /// The connection that it was taken for.
    pub connection: Option<String>,
}

/// What is worth telling people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// A due time passed by, and no run has started.
    Late { model: String, due_at: DateTime<Utc>, waits: Waits },
    /// A run was cut short twice in a row.
    GivenUp { model: String, run_id: String },
}

/// Why a late run has not started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Waits {
    /// In the queue.
    Queue,
    /// The run before has not ended.
    PreviousRun,
}

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Planner {
    limits: Limits,
    models: BTreeMap<String, Entry>,
    /// Of models that are not in the project (at the moment).
    absent: BTreeMap<String, ScheduleRow>,
    work: BTreeMap<String, Work>,
    /// When each connection was last given a run, in turns.
    served: HashMap<String, u64>,
    turn: u64,
    place: i64,
    /// When this process began to plan.
    since: DateTime<Utc>,
    changes: Vec<ScheduleChange>,
    notes: Vec<Note>,
}

impl Planner {
    /// Takes the project's models as they are now. `last_starts` are those that the catalog knows of.
    pub fn adopt(
        &mut self,
        models: impl IntoIterator<Item = (String, Planned)>,
        last_starts: &BTreeMap<String, DateTime<Utc>>,
        now: DateTime<Utc>,
    ) {
        let mut before = std::mem::take(&mut self.models);
        let mut adopted = BTreeMap::new();
        for (slug, planned) in models {
            let known = before.remove(&slug).map(|entry| entry.row).or_else(|| self.absent.remove(&slug));
            let mut row = known.clone().unwrap_or_else(|| new_row(&slug, now));
            row.last_started_at = row.last_started_at.max(last_starts.get(&slug).copied());
            let text = planned.effective().map(ToString::to_string);
            if row.schedule != text || (text.is_some() && row.next_due_at.is_none()) {
                row.schedule = text;
                self.reckon(&mut row, &planned, now);
            }
            if known.as_ref() != Some(&row) {
                self.changes.push(ScheduleChange::Schedule(row.clone()));
            }
            adopted.insert(slug, Entry { planned, row });
        }
        self.models = adopted;
        self.absent.extend(before.into_iter().map(|(slug, entry)| (slug, entry.row)));
        // a pause is somebody's word: it outlives files that are away for a moment
        let gone: Vec<String> =
            self.absent.iter().filter(|(_, row)| !row.paused).map(|(slug, _)| slug.clone()).collect();
        for slug in gone {
            self.absent.remove(&slug);
            self.changes.push(ScheduleChange::Forgotten(slug));
        }
        let idle: Vec<String> =
            self.waiting().filter(|work| !self.is_active(&work.row.model)).map(|w| w.row.model.clone()).collect();
        for slug in idle {
            self.remove_work(&slug);
        }
    }

    /// Queues what is due.
    pub fn queue_due(&mut self, now: DateTime<Utc>) {
        let mut due = Vec::new();
        let limits = self.limits;
        for (slug, entry) in &mut self.models {
            let Some(schedule) = entry.planned.effective() else { continue };
            if entry.row.reckoned_at > now + CLOCK_TOLERANCE {
                tracing::warn!(model = slug, "the clock was set back: the next run is reckoned anew");
                reckon(&mut entry.row, schedule, &limits, now);
                self.changes.push(ScheduleChange::Schedule(entry.row.clone()));
            }
            let Some(at) = entry.row.next_due_at.filter(|_| !entry.row.paused) else { continue };
            let running = self.work.get(slug).is_some_and(|work| work.row.taken_at.is_some());
            if at + entry.row.jitter <= now && !running {
                due.push((at + entry.row.jitter, at, slug.clone()));
            }
        }
        due.sort();
        for (_, at, slug) in due {
            self.queue_one(&slug, at, now);
        }
    }

    fn queue_one(&mut self, slug: &str, due: DateTime<Utc>, now: DateTime<Utc>) {
        if let Some(work) = self.work.get_mut(slug) {
            // one who asked for it by hand was faster: that run answers the due time too
            work.row.due_at.get_or_insert(due);
            self.changes.push(ScheduleChange::Work(work.row.clone()));
        } else {
            self.add_work(slug, Cause::Schedule, SCHEDULER, Some(due), now);
        }
        let limits = self.limits;
        let Some(entry) = self.models.get_mut(slug) else { return };
        let Some(schedule) = entry.planned.effective() else { return };
        entry.row.last_due_at = Some(due);
        set_next(&mut entry.row, schedule, schedule.following(due, now), &limits, now);
        self.changes.push(ScheduleChange::Schedule(entry.row.clone()));
    }

    /// Notes the runs that have not started although their time passed by, each due time once.
    pub fn note_late(&mut self, now: DateTime<Utc>) {
        let grace = TimeDelta::from_std(self.limits.late_after).unwrap_or(TimeDelta::MAX);
        for (slug, entry) in &mut self.models {
            if entry.row.paused || entry.planned.effective().is_none() {
                continue;
            }
            let (due, waits) = match self.work.get(slug).map(|work| &work.row) {
                Some(row) if row.taken_at.is_none() => (row.due_at, Waits::Queue),
                // the first tick after its time queues it
                None => continue,
                Some(_) => (entry.row.next_due_at, Waits::PreviousRun),
            };
            let Some(due) = due else { continue };
            // after a restart, what was missed is first given the chance to be caught up
            let expected = (due + entry.row.jitter).max(self.since);
            if now - expected > grace && entry.row.late_for != Some(due) {
                entry.row.late_for = Some(due);
                self.changes.push(ScheduleChange::Schedule(entry.row.clone()));
                self.notes.push(Note::Late { model: slug.clone(), due_at: due, waits });
            }
        }
    }

    /// Pauses or resumes the schedule. False: it was so already. None: there is no such model.
    ///
    /// A run that waits because its time came is taken back, and is due again once the schedule goes on.
    pub fn set_paused(&mut self, slug: &str, paused: bool) -> Option<bool> {
        let entry = self.models.get_mut(slug)?;
        if entry.row.paused == paused {
            return Some(false);
        }
        entry.row.paused = paused;
        self.changes.push(ScheduleChange::Schedule(entry.row.clone()));
        self.take_back_paused(slug);
        Some(true)
    }

    /// Takes back what waits although its schedule is paused, and makes it due again for when the schedule goes on.
    fn take_back_paused(&mut self, slug: &str) {
        let (Some(entry), Some(work)) = (self.models.get_mut(slug), self.work.get(slug)) else { return };
        if !entry.row.paused || work.row.taken_at.is_some() || work.row.cause == Cause::Manual {
            return;
        }
        // a retry that no due time asked for is due when the schedule goes on, too
        entry.row.next_due_at = work.row.due_at.or(Some(work.row.queued_at)).filter(|_| entry.row.schedule.is_some());
        self.changes.push(ScheduleChange::Schedule(entry.row.clone()));
        self.remove_work(slug);
    }

    /// There is memory for so many runs at once.
    pub fn set_max_runs(&mut self, max_runs: usize) {
        self.limits.max_runs = max_runs;
    }

    /// What to write since the last call, in order.
    pub fn take_changes(&mut self) -> Vec<ScheduleChange> {
        std::mem::take(&mut self.changes)
    }

    /// What to tell since the last call.
    pub fn take_notes(&mut self) -> Vec<Note> {
        std::mem::take(&mut self.notes)
    }

    pub(super) fn entry(&self, slug: &str) -> Option<&Entry> {
        self.models.get(slug)
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.models.iter()
    }

    pub(super) fn work_of(&self, slug: &str) -> Option<&Work> {
        self.work.get(slug)
    }

    /// What waits, in no order.
    pub(super) fn waiting(&self) -> impl Iterator<Item = &Work> {
        self.work.values().filter(|work| work.row.taken_at.is_none())
    }

    /// What runs.
    pub(super) fn running(&self) -> impl Iterator<Item = &Work> {
        self.work.values().filter(|work| work.row.taken_at.is_some())
    }

    fn is_active(&self, slug: &str) -> bool {
        self.models.get(slug).is_some_and(|entry| entry.planned.active)
    }

    fn reckon(&self, row: &mut ScheduleRow, planned: &Planned, now: DateTime<Utc>) {
        match planned.effective() {
            Some(schedule) => reckon(row, schedule, &self.limits, now),
            None => (row.next_due_at, row.jitter, row.reckoned_at) = (None, TimeDelta::zero(), now),
        }
    }

    fn add_work(&mut self, slug: &str, cause: Cause, actor: &str, due_at: Option<DateTime<Utc>>, now: DateTime<Utc>) {
        self.place += 1;
        let row = WorkRow {
            model: slug.to_string(),
            run_id: new_run_id(),
            place: self.place,
            cause,
            actor: actor.to_string(),
            due_at,
            queued_at: now,
            taken_at: None,
            attempts: 0,
            stopped: false,
        };
        self.changes.push(ScheduleChange::Work(row.clone()));
        self.work.insert(slug.to_string(), Work { row, not_before: None, connection: None });
    }

    fn remove_work(&mut self, slug: &str) {
        if self.work.remove(slug).is_some() {
            self.changes.push(ScheduleChange::Done(slug.to_string()));
        }
    }
}

fn new_run_id() -> String {
    Uuid::now_v7().to_string()
}

fn new_row(slug: &str, now: DateTime<Utc>) -> ScheduleRow {
    ScheduleRow {
        model: slug.to_string(),
        schedule: None,
        paused: false,
        last_due_at: None,
        next_due_at: None,
        jitter: TimeDelta::zero(),
        reckoned_at: now,
        last_started_at: None,
        late_for: None,
    }
}

/// The next time of a schedule that is new to the model. `every` counts from the last run; a time on the wall clock
/// that passed by before the model had this schedule was not missed.
fn reckon(row: &mut ScheduleRow, schedule: &Schedule, limits: &Limits, now: DateTime<Utc>) {
    let last = match schedule {
        Schedule::Every(_) => row.last_started_at,
        Schedule::Cron { .. } => None,
    };
    set_next(row, schedule, schedule.next_after(last, now), limits, now);
}

fn set_next(row: &mut ScheduleRow, schedule: &Schedule, next: DateTime<Utc>, limits: &Limits, now: DateTime<Utc>) {
    row.next_due_at = Some(next);
    row.jitter = jitter(&row.model, schedule, next, limits.jitter);
    row.reckoned_at = now;
}
