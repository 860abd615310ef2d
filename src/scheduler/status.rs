//! How a model's schedule and its run stand, for people and programs.

use chrono::{DateTime, Utc};

use super::planner::{Entry, Planner};
use super::slots::{RunningRun, Slots};
use crate::catalog::schedule::{Cause, WorkRow};

/// A model's schedule and its run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleStatus {
    /// As text; none: the model has none.
    pub schedule: Option<String>,
    /// An inactive model is never queried.
    pub active: bool,
    pub paused: bool,
    /// Since when a run waits, and which.
    pub queued: Option<QueuedRun>,
    pub running: Option<RunningRun>,
    /// When the last run began.
    pub prev: Option<DateTime<Utc>>,
    /// When the next run is to begin by itself: in the past while it is overdue; none while it never will.
    pub next: Option<DateTime<Utc>>,
    /// The due time that `next` follows; `next` is later by the model's jitter.
    pub next_due: Option<DateTime<Utc>>,
}

impl ScheduleStatus {
    pub fn queued_at(&self) -> Option<DateTime<Utc>> {
        self.queued.as_ref().map(|queued| queued.since)
    }
}

/// A run that waits for a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedRun {
    pub model: String,
    pub run_id: String,
    pub since: DateTime<Utc>,
    pub cause: Cause,
    pub actor: String,
}

impl QueuedRun {
    fn of(row: &WorkRow) -> Self {
        Self {
            model: row.model.clone(),
            run_id: row.run_id.clone(),
            since: row.queued_at,
            cause: row.cause,
            actor: row.actor.clone(),
        }
    }
}

/// A run that is to begin by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpcomingRun {
    pub model: String,
    pub schedule: String,
    /// See [`ScheduleStatus::next`].
    pub next: DateTime<Utc>,
}

pub(super) fn of(planner: &Planner, slots: &Slots, slug: &str) -> Option<ScheduleStatus> {
    let entry = planner.entry(slug)?;
    let row = &entry.row;
    let waiting = planner.work_of(slug).filter(|work| work.row.taken_at.is_none());
    let goes_on = entry.planned.active && !row.paused;
    Some(ScheduleStatus {
        schedule: entry.planned.schedule.as_ref().map(ToString::to_string),
        active: entry.planned.active,
        paused: row.paused,
        queued: waiting.map(|work| QueuedRun::of(&work.row)),
        running: slots.get(slug),
        prev: row.last_started_at,
        next: row.next_due_at.filter(|_| goes_on).map(|due| due + row.jitter),
        next_due: row.next_due_at.filter(|_| goes_on),
    })
}

pub(super) fn queued(planner: &Planner) -> Vec<QueuedRun> {
    let mut waiting: Vec<&WorkRow> = planner.waiting().map(|work| &work.row).collect();
    waiting.sort_by_key(|row| row.place);
    waiting.into_iter().map(QueuedRun::of).collect()
}

pub(super) fn upcoming(planner: &Planner, limit: usize) -> Vec<UpcomingRun> {
    let next = |(slug, entry): (&String, &Entry)| {
        let due = entry.row.next_due_at.filter(|_| entry.planned.active && !entry.row.paused)?;
        let schedule = entry.row.schedule.clone()?;
        Some(UpcomingRun { model: slug.clone(), schedule, next: due + entry.row.jitter })
    };
    let mut upcoming: Vec<UpcomingRun> = planner.entries().filter_map(next).collect();
    upcoming.sort_by(|a, b| (a.next, &a.model).cmp(&(b.next, &b.model)));
    upcoming.truncate(limit);
    upcoming
}
