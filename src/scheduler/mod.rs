//! What runs when: the clockwork of `cloud-connect serve`.
//!
//! ```text
//!  clockwork (tokio-cron-scheduler) ─► due check ─► planner ─► catalog (schedules, work) ─► slots ─► Engine::run_as
//!                                      late check     ▲ decides on a copy; what is written counts
//!                                      files ─► reload
//!                                      housekeeping ─► Engine::recover
//! ```
//!
//! Actors: the [`clockwork`] wakes reconcilers; the [`planner`] decides without any I/O; [`core`] writes what it decided
//! and starts runs; [`files`] notices that the project changed.
//!
//! Invariants:
//! - what is due and what waits is in the catalog before anything follows from it, so a process may end at any moment;
//! - a model never runs twice at once: in this process by the planner, among processes by the engine's lock;
//! - an inactive model is never queried; a paused schedule starts nothing, but people may.

pub mod clockwork;
mod core;
mod duties;
pub mod files;
pub mod jitter;
pub mod planner;
mod slots;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

pub use files::ProjectFault;
pub use planner::{Limits, Started, Stopped};
pub use slots::RunningRun;
pub use status::{QueuedRun, ScheduleStatus, UpcomingRun};

use self::clockwork::Clockwork;
use self::core::Core;
use self::planner::Planner;
use crate::catalog::CatalogError;
use crate::events::{Event, Subject};
use crate::sync::{Engine, SyncError};

/// What the scheduler needs of the service.
#[async_trait]
pub trait Engines: Send + Sync + 'static {
    /// The engine of the newest project. Its clock is the scheduler's.
    fn engine(&self) -> Arc<Engine>;

    /// Reads the project's files anew. When they cannot be used, the project stays as it is; the error says why, for
    /// people.
    async fn reload(&self) -> Result<(), String>;

    /// Does the project lack something that the catalog holds, since it could not be taken over?
    fn is_behind(&self) -> bool {
        false
    }
}

/// How the scheduler goes about its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SchedulerOptions {
    /// `max_runs` is also bounded by the engine's memory: see [`Engine::open_for_runs`].
    pub limits: Limits,
}

/// Why the scheduler refuses, or fails.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    #[error("no model `{0}`")]
    NoSuchModel(String),
    #[error("model `{0}` is not active")]
    Inactive(String),
    #[error("run `{0}` neither waits nor runs")]
    NoSuchRun(String),
    #[error("the service is stopping")]
    Stopping,
    #[error("another process serves this project")]
    AnotherService,
    #[error("{0}")]
    Catalog(#[from] CatalogError),
    #[error("{0}")]
    Sync(#[from] SyncError),
    #[error("the clockwork cannot be set up: {0}")]
    Clockwork(#[from] tokio_cron_scheduler::JobSchedulerError),
    #[error("internal error: {0}")]
    Bug(String),
}

impl SchedulerError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoSuchModel(_) => "`cloud-connect models` lists them".into(),
            Self::Inactive(_) => "activate the model first: an inactive model is never queried".into(),
            Self::NoSuchRun(_) => "it may have ended meanwhile: its record says how".into(),
            Self::Stopping => "try again once it is back".into(),
            Self::AnotherService => "stop that one first: one project has one `cloud-connect serve`".into(),
            Self::Sync(error) => return error.hint(),
            Self::Catalog(_) | Self::Clockwork(_) | Self::Bug(_) => return None,
        })
    }
}

/// The scheduler of one project; its clones are one scheduler.
#[derive(Clone)]
pub struct Scheduler {
    core: Arc<Core>,
}

impl std::fmt::Debug for Scheduler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scheduler").field("options", &self.core.options).finish_non_exhaustive()
    }
}

impl Scheduler {
    /// Takes up where an earlier process ended, and goes on by itself.
    pub async fn start(engines: Arc<dyn Engines>, options: SchedulerOptions) -> Result<Self, SchedulerError> {
        let scheduler = Self::open(engines, options).await?;
        scheduler.begin().await?;
        Ok(scheduler)
    }

    /// Lets it go on by itself: starts the clockwork.
    pub async fn begin(&self) -> Result<(), SchedulerError> {
        let clockwork = Clockwork::start().await?;
        duties::assign(&self.core, &clockwork).await?;
        if let Err(second) = self.core.clockwork.set(clockwork) {
            second.stop().await;
        }
        self.core.due.wake();
        // it may have been shut down meanwhile
        if self.core.stopping.is_cancelled()
            && let Some(clockwork) = self.core.clockwork.get()
        {
            clockwork.stop().await;
        }
        Ok(())
    }

    /// [`Scheduler::start`] that does nothing by itself yet: see [`Scheduler::begin`] and [`Scheduler::tick`].
    pub async fn open(engines: Arc<dyn Engines>, options: SchedulerOptions) -> Result<Self, SchedulerError> {
        let engine = engines.engine();
        let lock = engine.service_lock()?.ok_or(SchedulerError::AnotherService)?;
        if engine.memory.runs < options.limits.max_runs {
            let (memory, asked) = (engine.memory.runs, options.limits.max_runs);
            tracing::warn!("the memory limit has room for {memory} runs at once, not for {asked}");
        }
        // what was cut short gets its end first, so that its record can be asked how it stands
        engine.recover().await?;
        let work = engine.catalog.work().await?;
        let mut statuses = BTreeMap::new();
        for row in work.iter().filter(|row| row.taken_at.is_some()) {
            if let Some(status) = engine.catalog.run_status(&row.run_id).await? {
                statuses.insert(row.run_id.clone(), status);
            }
        }
        let schedules = engine.catalog.schedules().await?;
        let planner = Planner::restore(options.limits, schedules, work, &statuses, engine.clock.now());
        Ok(Self { core: Arc::new(Core::new(engines, options, planner, lock)) })
    }

    /// The due check, which the clockwork does each second: takes over what changed in the project, queues what is due,
    /// starts what there are slots for.
    pub async fn tick(&self) -> Result<(), SchedulerError> {
        self.core.tick().await
    }

    /// Queues a model at once, whatever its schedule says.
    pub async fn start_now(&self, slug: &str, actor: &str) -> Result<Started, SchedulerError> {
        self.refuse_if_stopping()?;
        let engine = self.core.engines.engine();
        let model = engine.project.models.get(slug).ok_or_else(|| SchedulerError::NoSuchModel(slug.to_string()))?;
        if !model.active {
            return Err(SchedulerError::Inactive(slug.to_string()));
        }
        let (slug, actor, now) = (slug.to_string(), actor.to_string(), engine.clock.now());
        let decide = move |planner: &mut Planner| {
            let started = planner.start_now(&slug, &actor, now);
            let mut events = Vec::new();
            if let Started::Queued { run_id } = &started {
                let event = Event::new(now, Subject::model(&slug), "run_requested", "a run was asked for");
                events.push(event.by(&actor).with(serde_json::json!({ "run_id": run_id })));
            }
            (started, events)
        };
        let started = self.core.change(decide).await?;
        self.core.due.wake();
        Ok(started)
    }

    /// Cancels the model's run, or takes it back from the queue. A run that is being cancelled ends a little later.
    pub async fn stop(&self, slug: &str, actor: &str) -> Result<Stopped, SchedulerError> {
        let engine = self.core.engines.engine();
        // the model of a run that goes on may be gone from the project
        if self.core.slots.get(slug).is_none() && !engine.project.models.contains_key(slug) {
            return Err(SchedulerError::NoSuchModel(slug.to_string()));
        }
        self.stop_run(slug, None, actor).await
    }

    /// [`Scheduler::stop`] for the run of this id.
    pub async fn cancel_run(&self, run_id: &str, actor: &str) -> Result<Stopped, SchedulerError> {
        let slug = self.read(|planner| planner.model_of_run(run_id).map(str::to_string));
        let slug = slug.ok_or_else(|| SchedulerError::NoSuchRun(run_id.to_string()))?;
        match self.stop_run(&slug, Some(run_id), actor).await? {
            Stopped::Idle => Err(SchedulerError::NoSuchRun(run_id.to_string())),
            stopped => Ok(stopped),
        }
    }

    async fn stop_run(&self, slug: &str, run_id: Option<&str>, actor: &str) -> Result<Stopped, SchedulerError> {
        let now = self.core.engines.engine().clock.now();
        let (model, run_id, actor) = (slug.to_string(), run_id.map(str::to_string), actor.to_string());
        let decide = move |planner: &mut Planner| {
            if run_id.is_some_and(|id| planner.model_of_run(&id) != Some(&model)) {
                return (Stopped::Idle, Vec::new());
            }
            let stopped = planner.stop(&model);
            let (run_id, message) = match &stopped {
                Stopped::Cancelling { run_id } => (run_id, "the run was asked to end"),
                Stopped::Dequeued { run_id } => (run_id, "the run was taken back from the queue"),
                Stopped::Idle => return (stopped, Vec::new()),
            };
            let event = Event::new(now, Subject::model(&model), "run_stopped", message).by(&actor);
            let event = event.with(serde_json::json!({ "run_id": run_id }));
            (stopped, vec![event])
        };
        let stopped = self.core.change(decide).await?;
        if let Stopped::Cancelling { run_id } = &stopped {
            self.core.slots.cancel(slug, run_id);
        }
        Ok(stopped)
    }

    /// Stops the schedule from starting the model, until it is resumed; also over restarts. False: it was paused.
    pub async fn pause(&self, slug: &str, actor: &str) -> Result<bool, SchedulerError> {
        self.set_paused(slug, true, actor).await
    }

    /// Lets the schedule start the model again. What was missed meanwhile is caught up once. False: it was not paused.
    pub async fn resume(&self, slug: &str, actor: &str) -> Result<bool, SchedulerError> {
        self.set_paused(slug, false, actor).await
    }

    async fn set_paused(&self, slug: &str, paused: bool, actor: &str) -> Result<bool, SchedulerError> {
        // a model that was made a moment ago is known to the planner from the next due check on
        self.core.tick().await?;
        let now = self.core.engines.engine().clock.now();
        let (model, actor) = (slug.to_string(), actor.to_string());
        let decide = move |planner: &mut Planner| {
            let changed = planner.set_paused(&model, paused);
            let mut events = Vec::new();
            if changed == Some(true) {
                let (verb, message) = match paused {
                    true => ("paused", "the schedule was paused"),
                    false => ("resumed", "the schedule was resumed"),
                };
                events.push(Event::new(now, Subject::model(&model), verb, message).by(&actor));
            }
            (changed, events)
        };
        let changed = self.core.change(decide).await?;
        self.core.due.wake();
        changed.ok_or_else(|| SchedulerError::NoSuchModel(slug.to_string()))
    }

    /// How the model's schedule and its run stand. None: there is no such model.
    pub fn status(&self, slug: &str) -> Option<ScheduleStatus> {
        self.read(|planner| status::of(planner, &self.core.slots, slug))
    }

    /// What bounds it.
    pub fn limits(&self) -> Limits {
        self.core.options.limits
    }

    /// How many runs wait.
    pub fn queue_depth(&self) -> usize {
        self.read(|planner| planner.waiting().count())
    }

    /// What runs; those that began first, first.
    pub fn running(&self) -> Vec<RunningRun> {
        self.core.slots.all()
    }

    /// What waits, in the order in which it was queued.
    pub fn queued(&self) -> Vec<QueuedRun> {
        self.read(status::queued)
    }

    /// When models are to begin by themselves, the next one first.
    pub fn upcoming(&self, limit: usize) -> Vec<UpcomingRun> {
        self.read(|planner| status::upcoming(planner, limit))
    }

    /// What is wrong with the project's files, while the project as it was before is in use.
    pub fn project_fault(&self) -> Option<ProjectFault> {
        self.core.watch.fault()
    }

    pub fn options(&self) -> &SchedulerOptions {
        &self.core.options
    }

    /// Looks at what is due without waiting for the next second: the project changed, for one.
    pub fn wake(&self) {
        self.core.due.wake();
    }

    /// Starts nothing more, gives what runs so long to end, cancels what has not, and waits for it. What was cancelled
    /// so is run again when the service is back.
    pub async fn shutdown(&self, grace: Duration) {
        self.core.stopping.cancel();
        // nothing is started from here on
        self.core.ticked().await;
        if tokio::time::timeout(grace, self.core.slots.empty()).await.is_err() {
            tracing::warn!(runs = self.running().len(), "the runs did not end in time, and are cancelled");
            self.core.cut_short.cancel();
            self.core.slots.cancel_all();
            self.core.slots.empty().await;
        }
        if let Some(clockwork) = self.core.clockwork.get() {
            clockwork.stop().await;
        }
        // the last ends are written down
        if let Err(error) = self.core.tick().await {
            tracing::error!(%error, "how the last runs ended could not be recorded; the next start finds out");
        }
        self.core.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn refuse_if_stopping(&self) -> Result<(), SchedulerError> {
        if self.core.stopping.is_cancelled() { Err(SchedulerError::Stopping) } else { Ok(()) }
    }

    fn read<T>(&self, look: impl FnOnce(&Planner) -> T) -> T {
        look(&self.core.planner.read().unwrap_or_else(PoisonError::into_inner))
    }
}
