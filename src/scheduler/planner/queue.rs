//! The queue: who asked, what may start, what ended.

use chrono::{DateTime, Utc};

use super::{Planner, new_run_id};
use crate::catalog::schedule::{Cause, ScheduleChange};

/// A run that may start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    pub model: String,
    pub run_id: String,
    pub cause: Cause,
    pub actor: String,
}

/// What became of a manual start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Started {
    /// It waits for a free slot, and has this id then.
    Queued { run_id: String },
    /// It waited already.
    AlreadyQueued { run_id: String },
    /// A run is under way.
    AlreadyRunning { run_id: String },
}

/// What became of a stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The run is being cancelled, and ends soon.
    Cancelling { run_id: String },
    /// It waited, and will not run.
    Dequeued { run_id: String },
    /// Nothing waits or runs.
    Idle,
}

impl Planner {
    /// Queues a model that somebody wants to run now. Whether it may be is the caller's to say.
    pub fn start_now(&mut self, slug: &str, actor: &str, now: DateTime<Utc>) -> Started {
        if let Some(work) = self.work.get(slug) {
            let run_id = work.row.run_id.clone();
            return match work.row.taken_at {
                Some(_) => Started::AlreadyRunning { run_id },
                None => Started::AlreadyQueued { run_id },
            };
        }
        self.add_work(slug, Cause::Manual, actor, None, now);
        let run_id = self.work.get(slug).map(|work| work.row.run_id.clone()).unwrap_or_default();
        Started::Queued { run_id }
    }

    /// Takes what waits back, or marks what runs as not to be run again.
    pub fn stop(&mut self, slug: &str) -> Stopped {
        let Some(work) = self.work.get_mut(slug) else { return Stopped::Idle };
        let run_id = work.row.run_id.clone();
        if work.row.taken_at.is_none() {
            self.remove_work(slug);
            return Stopped::Dequeued { run_id };
        }
        work.row.stopped = true;
        self.changes.push(ScheduleChange::Work(work.row.clone()));
        Stopped::Cancelling { run_id }
    }

    /// The model whose run, waiting or under way, has this id.
    pub fn model_of_run(&self, run_id: &str) -> Option<&str> {
        self.work.values().find(|work| work.row.run_id == run_id).map(|work| work.row.model.as_str())
    }

    /// Takes as many runs as there are slots for.
    ///
    /// The connection with the fewest runs under way comes first, and among equals the one that was served least
    /// recently, so that a connection with hundreds of models cannot shut out one with a few; within a connection it is
    /// first in, first out.
    pub fn take(&mut self, now: DateTime<Utc>) -> Vec<Taken> {
        let mut taken = Vec::new();
        while self.running().count() < self.limits.max_runs {
            let Some(slug) = self.next_up(now) else { break };
            let Some((entry, work)) = self.models.get_mut(&slug).zip(self.work.get_mut(&slug)) else { break };
            let connection = entry.planned.connection.clone();
            self.turn += 1;
            self.served.insert(connection.clone(), self.turn);
            work.connection = Some(connection);
            work.not_before = None;
            work.row.taken_at = Some(now);
            work.row.attempts += 1;
            entry.row.last_started_at = Some(now);
            self.changes.push(ScheduleChange::Work(work.row.clone()));
            self.changes.push(ScheduleChange::Schedule(entry.row.clone()));
            let row = &work.row;
            let (run_id, actor) = (row.run_id.clone(), row.actor.clone());
            taken.push(Taken { model: slug, run_id, cause: row.cause, actor });
        }
        taken
    }

    fn next_up(&self, now: DateTime<Utc>) -> Option<String> {
        let runs_on = |connection: &str| self.running().filter(|w| w.connection.as_deref() == Some(connection)).count();
        let candidates = self.waiting().filter(|work| work.not_before.is_none_or(|time| time <= now));
        let ranked = candidates.filter_map(|work| {
            let planned = &self.models.get(&work.row.model)?.planned;
            let runs = runs_on(&planned.connection);
            let served = self.served.get(&planned.connection).copied().unwrap_or_default();
            (planned.active && runs < self.limits.max_runs_per_connection)
                .then_some(((runs, served, work.row.place), &work.row.model))
        });
        ranked.min().map(|(_, model)| model.clone())
    }

    /// The run ended, whichever way.
    pub fn ended(&mut self, slug: &str, run_id: &str) {
        if self.work.get(slug).is_some_and(|work| work.row.run_id == run_id) {
            self.remove_work(slug);
        }
    }

    /// The run did not begin, because another process runs the model: it waits on, until then at least.
    pub fn put_back(&mut self, slug: &str, run_id: &str, not_before: DateTime<Utc>) {
        let Some(work) = self.work.get_mut(slug).filter(|work| work.row.run_id == run_id) else { return };
        if work.row.stopped || !self.models.get(slug).is_some_and(|entry| entry.planned.active) {
            return self.remove_work(slug);
        }
        work.row.taken_at = None;
        work.row.attempts = work.row.attempts.saturating_sub(1);
        work.connection = None;
        work.not_before = Some(not_before);
        self.changes.push(ScheduleChange::Work(work.row.clone()));
        // its schedule may have been paused meanwhile
        self.take_back_paused(slug);
    }

    /// The run was cancelled because the service stops: it is run again when the service is back.
    pub fn postpone(&mut self, slug: &str, run_id: &str) {
        let Some(work) = self.work.get_mut(slug).filter(|work| work.row.run_id == run_id) else { return };
        if work.row.stopped {
            return self.remove_work(slug);
        }
        work.row.run_id = new_run_id();
        work.row.cause = Cause::Retry;
        work.row.taken_at = None;
        work.row.attempts = work.row.attempts.saturating_sub(1);
        work.connection = None;
        self.changes.push(ScheduleChange::Work(work.row.clone()));
    }
}
