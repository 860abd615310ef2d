//! The scheduler's state, and the one way to change it: decide on a copy, write, swap.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use chrono::TimeDelta;
use tokio_util::sync::CancellationToken;

use super::clockwork::{Clockwork, Wake};
use super::files::Watch;
use super::planner::{Note, Planned, Planner, SCHEDULER, Taken};
use super::slots::{Slot, Slots};
use super::{Engines, SchedulerError, SchedulerOptions};
use crate::config::Project;
use crate::events::{Event, Subject, acting_as};
use crate::sync::report::{RunReport, RunStatus};
use crate::sync::{Engine, ServiceLock, SyncError};
use crate::telemetry::{names, runs};

/// How long a model that another process runs is left alone.
const ELSEWHERE: TimeDelta = TimeDelta::seconds(15);

/// A run that is over in this process.
#[derive(Debug, Clone)]
struct Ended {
    taken: Taken,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Its record says how.
    Done,
    /// It did not begin: another process runs the model.
    Elsewhere,
    /// It was cancelled because the service stops.
    Postponed,
}

pub(super) struct Core {
    pub engines: Arc<dyn Engines>,
    pub options: SchedulerOptions,
    pub planner: RwLock<Planner>,
    /// Held while a change is decided and written.
    writer: tokio::sync::Mutex<()>,
    /// Held by the due check.
    ticking: tokio::sync::Mutex<()>,
    /// The project whose models the planner has.
    adopted: Mutex<Option<Arc<Project>>>,
    pub slots: Slots,
    /// Not told to the planner yet. Kept until that is written.
    ended: Mutex<Vec<Ended>>,
    pub stopping: CancellationToken,
    /// The service stops, and did not wait for the runs' own end.
    pub cut_short: CancellationToken,
    pub watch: Watch,
    pub due: Wake,
    pub clockwork: OnceLock<Clockwork>,
    pub lock: Mutex<Option<ServiceLock>>,
}

impl Core {
    pub fn new(engines: Arc<dyn Engines>, options: SchedulerOptions, planner: Planner, lock: ServiceLock) -> Self {
        Self {
            engines,
            options,
            planner: RwLock::new(planner),
            writer: tokio::sync::Mutex::default(),
            ticking: tokio::sync::Mutex::default(),
            adopted: Mutex::default(),
            slots: Slots::default(),
            ended: Mutex::default(),
            stopping: CancellationToken::new(),
            cut_short: CancellationToken::new(),
            watch: Watch::default(),
            due: Wake::default(),
            clockwork: OnceLock::new(),
            lock: Mutex::new(Some(lock)),
        }
    }

    /// Decides on a copy of the planner, records what that changed together with the events that it tells, and swaps.
    /// Goes to its end also when the caller does not wait for it.
    pub async fn change<T: Send + 'static>(
        self: &Arc<Self>,
        decide: impl FnOnce(&mut Planner) -> (T, Vec<Event>) + Send + 'static,
    ) -> Result<T, SchedulerError> {
        let core = Arc::clone(self);
        let done = tokio::spawn(async move {
            let _writing = core.writer.lock().await;
            let engine = core.engines.engine();
            let now = engine.clock.now();
            let mut planner = core.planner.read().unwrap_or_else(PoisonError::into_inner).clone();
            let ended = core.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
            for Ended { taken, how } in &ended {
                match how {
                    How::Done => planner.ended(&taken.model, &taken.run_id),
                    How::Elsewhere => planner.put_back(&taken.model, &taken.run_id, now + ELSEWHERE),
                    How::Postponed => planner.postpone(&taken.model, &taken.run_id),
                }
            }
            let (decided, mut events) = decide(&mut planner);
            events.extend(planner.take_notes().into_iter().map(|note| told(note, now)));
            let changes = planner.take_changes();
            if !changes.is_empty() || !events.is_empty() {
                engine.catalog.change_schedule(&changes, &events).await?;
            }
            metrics::gauge!(names::QUEUE_DEPTH).set(planner.waiting().count() as f64);
            metrics::gauge!(names::RUNS_RUNNING).set(planner.running().count() as f64);
            *core.planner.write().unwrap_or_else(PoisonError::into_inner) = planner;
            core.ended.lock().unwrap_or_else(PoisonError::into_inner).drain(..ended.len());
            Ok(decided)
        });
        done.await.map_err(|e| SchedulerError::Bug(e.to_string()))?
    }

    /// The due check: takes over what changed in the project, queues what is due, starts what there are slots for.
    pub async fn tick(self: &Arc<Self>) -> Result<(), SchedulerError> {
        let _one = self.ticking.lock().await;
        let engine = self.engines.engine();
        let now = engine.clock.now();
        let project = Arc::clone(&engine.project);
        let adopt = self.adopted().is_none_or(|adopted| !Arc::ptr_eq(&adopted, &project));
        let models: Option<(Vec<(String, Planned)>, _)> = if adopt {
            let planned = project.models.iter().map(|(slug, model)| (slug.clone(), Planned::from(model))).collect();
            Some((planned, engine.catalog.last_starts().await?))
        } else {
            None
        };
        let max_runs = self.options.limits.max_runs.min(engine.memory.runs).max(1);
        let stopping = self.stopping.clone();
        let decide = move |planner: &mut Planner| {
            if let Some((models, last_starts)) = models {
                planner.set_max_runs(max_runs);
                planner.adopt(models, &last_starts, now);
            }
            planner.queue_due(now);
            (if stopping.is_cancelled() { Vec::new() } else { planner.take(now) }, Vec::new())
        };
        let taken = self.change(decide).await?;
        if adopt {
            *self.adopted.lock().unwrap_or_else(PoisonError::into_inner) = Some(project);
        }
        for taken in taken {
            self.launch(&engine, taken);
        }
        Ok(())
    }

    fn adopted(&self) -> Option<Arc<Project>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until no due check is under way.
    pub async fn ticked(&self) {
        drop(self.ticking.lock().await);
    }

    fn launch(self: &Arc<Self>, engine: &Arc<Engine>, taken: Taken) {
        let slot = self.slots.enter(taken, engine.clock.now());
        // somebody may have asked for its end before there was a slot to cancel
        let planner = self.planner.read().unwrap_or_else(PoisonError::into_inner);
        if planner.work_of(&slot.taken.model).is_none_or(|work| work.row.stopped) {
            slot.cancel.cancel();
        }
        drop(planner);
        tokio::spawn(Arc::clone(self).drive(Arc::clone(engine), slot));
    }

    async fn drive(self: Arc<Self>, engine: Arc<Engine>, slot: Arc<Slot>) {
        let running = {
            let (engine, slot) = (Arc::clone(&engine), Arc::clone(&slot));
            // in a task of its own: a panic ends the run, not the bookkeeping
            let workers = engine.workers.clone();
            workers.spawn(async move {
                let Taken { model, run_id, actor, .. } = &slot.taken;
                let run = runs::run(&engine, run_id.clone(), model, &*slot, &slot.cancel);
                Box::pin(acting_as(actor.clone(), run)).await
            })
        };
        let outcome = running.await.unwrap_or_else(|panic| Err(SyncError::Bug(panic.to_string())));
        let how = self.how_it_ended(&engine, &slot, outcome).await;
        let ended = Ended { taken: slot.taken.clone(), how };
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
        self.slots.leave(&slot.taken.model);
        self.due.wake();
    }

    async fn how_it_ended(&self, engine: &Engine, slot: &Slot, outcome: Result<RunReport, SyncError>) -> How {
        let Taken { model, run_id, actor, .. } = &slot.taken;
        match outcome {
            Ok(report) if report.status == RunStatus::Cancelled && self.cut_short.is_cancelled() => How::Postponed,
            Ok(_) => How::Done,
            Err(_) if self.cut_short.is_cancelled() => How::Postponed,
            Err(SyncError::AlreadyRunning { process, .. }) => {
                tracing::info!(model, process, "another process runs the model: its turn comes after that");
                How::Elsewhere
            }
            // the files changed since it was queued
            Err(error @ (SyncError::NoSuchModel(_) | SyncError::Inactive(_))) => {
                tracing::info!(model, %error, "the run did not begin");
                How::Done
            }
            Err(error) => {
                tracing::error!(model, run = run_id, %error, "the run did not begin");
                let event = Event::new(engine.clock.now(), Subject::model(model), "run_failed", error.to_string())
                    .by(actor.clone())
                    .with(serde_json::json!({ "run_id": run_id, "hint": error.hint() }));
                if let Err(error) = engine.catalog.record_event(&event).await {
                    tracing::error!(model, %error, "that could not be recorded");
                }
                How::Done
            }
        }
    }
}

fn told(note: Note, now: chrono::DateTime<chrono::Utc>) -> Event {
    match note {
        Note::Late { model, due_at, waits } => {
            let why = match waits {
                super::planner::Waits::Queue => "it still waits for a free slot",
                super::planner::Waits::PreviousRun => "the run before has not ended",
            };
            let message = format!("due at {}, and not started yet: {why}", due_at.format("%Y-%m-%d %H:%M:%S UTC"));
            Event::new(now, Subject::model(model), "run_late", message)
                .with(serde_json::json!({ "due_at": due_at, "waits": waits }))
        }
        Note::GivenUp { model, run_id } => {
            let message = "the run was cut short twice, and waits for its next time";
            Event::new(now, Subject::model(model), "run_given_up", message)
                .with(serde_json::json!({ "run_id": run_id }))
        }
    }
    .by(SCHEDULER)
}
