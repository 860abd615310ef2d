//! The scheduler with a real engine and a held clock.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use super::{Engines, Limits, Scheduler, SchedulerError, SchedulerOptions, Started, Stopped};
use crate::catalog::events::EventFilter;
use crate::catalog::schedule::Cause;
use crate::clock::{Clock, ManualClock, SystemClock};
use crate::config;
use crate::sync::Engine;
use crate::sync::report::{RunReport, RunStatus};
use crate::warehouse::registry;

/// A project in a directory, and the engine of it as a service holds it.
struct Shop {
    dir: tempfile::TempDir,
    engine: RwLock<Arc<Engine>>,
}

#[async_trait]
impl Engines for Shop {
    fn engine(&self) -> Arc<Engine> {
        self.engine.read().unwrap().clone()
    }

    async fn reload(&self) -> Result<(), String> {
        let project = config::load(self.dir.path(), registry()).map_err(|e| e.errors[0].message.clone())?;
        let engine = self.engine().reloaded(Some(project)).await.map_err(|e| e.to_string())?;
        *self.engine.write().unwrap() = Arc::new(engine);
        Ok(())
    }
}

impl Shop {
    async fn open(clock: Arc<dyn Clock>) -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("data")).unwrap();
        std::fs::create_dir(dir.path().join("models")).unwrap();
        let yml = "profile: { identities: [email] }\nconnections: { files: { type: local, path: data } }\n";
        std::fs::write(dir.path().join("cloud-connect.yml"), yml).unwrap();
        std::fs::write(dir.path().join("data/people.csv"), "email,city\nada@example.com,London\n").unwrap();
        model(dir.path(), "people", "schedule: every 1h");
        let project = config::load(dir.path(), registry()).unwrap();
        let engine = Engine::open_for_runs(project, crate::memory::DEFAULT_MEMORY_LIMIT, 2, clock).await.unwrap();
        Arc::new(Self { dir, engine: RwLock::new(Arc::new(engine)) })
    }

    /// No run publishes while this is held.
    fn hold(&self) -> File {
        self.lock("publish")
    }

    fn lock(&self, name: &str) -> File {
        let folder = self.dir.path().join(".cloud-connect/locks");
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join(format!("{name}.lock"));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(file).unwrap();
        file.lock().unwrap();
        file
    }

    async fn runs(&self) -> Vec<RunReport> {
        self.engine().catalog.runs(None, 100).await.unwrap()
    }

    /// Verb and actor, oldest first.
    async fn events(&self) -> Vec<(String, String)> {
        let filter = EventFilter { limit: 100, ..EventFilter::default() };
        let events = self.engine().catalog.events(&filter).await.unwrap();
        events.into_iter().rev().map(|event| (event.verb, event.actor)).collect()
    }

    async fn scheduler(self: &Arc<Self>) -> Scheduler {
        let limits = Limits { jitter: Duration::ZERO, ..Limits::default() };
        Scheduler::open(Arc::clone(self) as Arc<dyn Engines>, SchedulerOptions { limits }).await.unwrap()
    }
}

fn model(root: &Path, slug: &str, more: &str) {
    let text = format!(
        "name: {slug}\nconnection: files\nprimary_key: email\nexternal_key: email\nactivated_fields: [city]\n{more}\n"
    );
    std::fs::write(root.join(format!("models/{slug}.yml")), text).unwrap();
    std::fs::write(root.join(format!("models/{slug}.sql")), "SELECT email, city FROM people").unwrap();
}

fn clock() -> ManualClock {
    ManualClock::new("2026-03-01T10:00:00Z".parse::<DateTime<Utc>>().unwrap())
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if done().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within 15 s");
}

async fn idle(scheduler: &Scheduler) {
    until("all runs end", async || scheduler.running().is_empty()).await;
    scheduler.tick().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_runs_and_shows_its_times() {
    let clock = clock();
    let shop = Shop::open(Arc::new(clock.clone())).await;
    let scheduler = shop.scheduler().await;
    scheduler.tick().await.unwrap();
    idle(&scheduler).await;
    let runs = shop.runs().await;
    assert_eq!((runs.len(), runs[0].status), (1, RunStatus::Published));
    let status = scheduler.status("people").unwrap();
    assert_eq!((status.prev, status.next), (Some(clock.now()), Some(clock.now() + TimeDelta::hours(1))));
    assert!(status.running.is_none() && status.queued.is_none());
    assert_eq!(scheduler.status("nobody"), None);

    clock.advance(TimeDelta::minutes(59));
    scheduler.tick().await.unwrap();
    idle(&scheduler).await;
    assert_eq!(shop.runs().await.len(), 1);
    clock.advance(TimeDelta::minutes(1));
    scheduler.tick().await.unwrap();
    idle(&scheduler).await;
    let runs = shop.runs().await;
    assert_eq!((runs.len(), runs[0].status), (2, RunStatus::Unchanged));
    let events = shop.events().await;
    assert!(events.iter().all(|(_, actor)| actor == "scheduler"), "{events:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manual_start_a_second_one_and_a_cancel() {
    let shop = Shop::open(Arc::new(clock())).await;
    model(shop.dir.path(), "idle", "active: false");
    shop.reload().await.unwrap();
    let scheduler = shop.scheduler().await;
    scheduler.tick().await.unwrap();
    idle(&scheduler).await;
    assert!(matches!(scheduler.start_now("idle", "cli").await, Err(SchedulerError::Inactive(_))));
    assert!(matches!(scheduler.start_now("nobody", "cli").await, Err(SchedulerError::NoSuchModel(_))));

    let hold = shop.hold();
    let Started::Queued { run_id } = scheduler.start_now("people", "user:ada").await.unwrap() else { panic!() };
    assert_eq!(scheduler.queue_depth(), 1);
    assert_eq!(scheduler.status("people").unwrap().queued.unwrap().actor, "user:ada");
    scheduler.tick().await.unwrap();
    assert_eq!(scheduler.queue_depth(), 0);
    until("the row is read", async || scheduler.running()[0].rows == 1).await;
    let running = scheduler.status("people").unwrap().running.unwrap();
    assert_eq!((&running.run_id, running.cause), (&run_id, Cause::Manual));
    let again = scheduler.start_now("people", "user:bob").await.unwrap();
    assert_eq!(again, Started::AlreadyRunning { run_id: run_id.clone() });

    assert!(matches!(scheduler.cancel_run("other", "user:bob").await, Err(SchedulerError::NoSuchRun(_))));
    let stopped = scheduler.cancel_run(&run_id, "user:bob").await.unwrap();
    assert_eq!(stopped, Stopped::Cancelling { run_id: run_id.clone() });
    assert!(scheduler.running()[0].cancelling);
    drop(hold);
    idle(&scheduler).await;
    let run = shop.engine().catalog.run(&run_id).await.unwrap();
    assert_eq!(run.status, RunStatus::Cancelled);
    assert_eq!(scheduler.stop("people", "user:bob").await.unwrap(), Stopped::Idle);
    assert!(shop.engine().catalog.work().await.unwrap().is_empty());
    let told = |verb: &str, actor: &str| (verb.to_string(), actor.to_string());
    let expected = [
        told("run_requested", "user:ada"),
        told("run_started", "user:ada"),
        told("run_stopped", "user:bob"),
        told("run_cancelled", "user:ada"),
    ];
    assert_eq!(shop.events().await[2..], expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_waits_for_runs_within_its_grace() {
    let shop = Shop::open(Arc::new(clock())).await;
    let scheduler = shop.scheduler().await;
    let hold = shop.hold();
    scheduler.tick().await.unwrap();
    let stopping = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.shutdown(Duration::from_secs(30)).await }
    });
    until("the scheduler refuses", async || {
        matches!(scheduler.start_now("people", "cli").await, Err(SchedulerError::Stopping))
    })
    .await;
    drop(hold);
    stopping.await.unwrap();
    assert_eq!(shop.runs().await[0].status, RunStatus::Published);
    assert!(shop.engine().catalog.work().await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_outlasts_the_grace_is_cancelled_and_run_again_at_the_next_start() {
    let shop = Shop::open(Arc::new(clock())).await;
    let scheduler = shop.scheduler().await;
    let hold = shop.hold();
    scheduler.tick().await.unwrap();
    until("the row is read", async || scheduler.running()[0].rows == 1).await;
    assert!(matches!(
        Scheduler::open(Arc::clone(&shop) as Arc<dyn Engines>, SchedulerOptions::default()).await,
        Err(SchedulerError::AnotherService)
    ));
    let stopping = tokio::spawn({
        let scheduler = scheduler.clone();
        async move { scheduler.shutdown(Duration::from_millis(50)).await }
    });
    until("the run is cancelled", async || scheduler.running().iter().all(|run| run.cancelling)).await;
    drop(hold);
    stopping.await.unwrap();
    assert_eq!(shop.runs().await[0].status, RunStatus::Cancelled);

    let scheduler = shop.scheduler().await;
    scheduler.tick().await.unwrap();
    idle(&scheduler).await;
    let runs = shop.runs().await;
    assert_eq!((runs.len(), runs.iter().filter(|run| run.status == RunStatus::Published).count()), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_another_process_runs_waits_for_that_run() {
    let clock = clock();
    let shop = Shop::open(Arc::new(clock.clone())).await;
    let scheduler = shop.scheduler().await;
    let elsewhere = shop.lock("model-people");
    scheduler.tick().await.unwrap();
    idle(&scheduler).await;
    assert!(shop.runs().await.is_empty());
    assert_eq!(scheduler.queue_depth(), 1);
    drop(elsewhere);
    clock.advance(TimeDelta::seconds(15));
    scheduler.tick().await.unwrap();
    idle(&scheduler).await;
    assert_eq!(shop.runs().await[0].status, RunStatus::Published);
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_files_are_read_anew_and_faulty_ones_keep_the_last_good_project() {
    let shop = Shop::open(Arc::new(clock())).await;
    let scheduler = shop.scheduler().await;
    let look = async || scheduler.core.look_at_files(false).await;
    look().await;
    assert!(shop.events().await.is_empty(), "at the start nothing has changed");
    model(shop.dir.path(), "second", "schedule: cron 0 12 * * *");
    look().await;
    scheduler.tick().await.unwrap();
    let noon: DateTime<Utc> = "2026-03-01T12:00:00Z".parse().unwrap();
    assert_eq!(scheduler.status("second").unwrap().next, Some(noon));
    idle(&scheduler).await;

    std::fs::write(shop.dir.path().join("models/second.yml"), "name: [").unwrap();
    look().await;
    look().await;
    let fault = scheduler.project_fault().unwrap();
    assert!(shop.engine().project.models.contains_key("second"));
    // read again, and nothing new to tell
    scheduler.core.look_at_files(true).await;
    assert_eq!(scheduler.project_fault(), Some(fault));
    model(shop.dir.path(), "second", "schedule: cron 0 13 * * *");
    look().await;
    scheduler.tick().await.unwrap();
    assert_eq!(scheduler.project_fault(), None);
    assert_eq!(scheduler.status("second").unwrap().next, Some(noon + TimeDelta::hours(1)));
    let verbs: Vec<String> = shop.events().await.into_iter().map(|(verb, _)| verb).collect();
    let reloads: Vec<&String> = verbs.iter().filter(|verb| verb.starts_with("relo")).collect();
    assert_eq!(reloads, ["reloaded", "reload_failed", "reloaded"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clockwork_starts_what_is_due_and_what_is_asked_for() {
    let shop = Shop::open(Arc::new(SystemClock)).await;
    let limits = Limits { jitter: Duration::ZERO, ..Limits::default() };
    let scheduler = Scheduler::start(Arc::clone(&shop) as Arc<dyn Engines>, SchedulerOptions { limits }).await.unwrap();
    let ended = async |n: usize| {
        let runs = shop.runs().await;
        runs.len() == n && runs.iter().all(|run| run.status != RunStatus::Running)
    };
    until("the first run", async || ended(1).await).await;
    assert!(scheduler.pause("people", "user:ada").await.unwrap());
    assert!(!scheduler.pause("people", "user:ada").await.unwrap());
    assert_eq!(scheduler.status("people").unwrap().next, None);
    assert!(scheduler.resume("people", "user:ada").await.unwrap());
    assert!(matches!(scheduler.pause("nobody", "user:ada").await, Err(SchedulerError::NoSuchModel(_))));
    until("the slot is free", async || {
        matches!(scheduler.start_now("people", "user:ada").await.unwrap(), Started::Queued { .. })
    })
    .await;
    until("the second run", async || ended(2).await).await;
    scheduler.shutdown(Duration::from_secs(10)).await;
    assert!(shop.engine().catalog.work().await.unwrap().is_empty());
}
