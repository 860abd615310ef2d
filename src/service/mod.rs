//! The running service: what one process of `cloud-connect serve` holds.
//!
//! ```text
//! files (models/, cloud-connect.yml) ──┐
//! definitions made through the API ────┼─► Engine, swapped as a whole ─► scheduler, API, lookups
//! sealed authorizations ───────────────┘
//! ```
//!
//! Invariants: whoever holds an engine keeps a consistent project, also while a newer one is being used by others;
//! files that cannot be read leave the last good ones in place, and say so.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use tokio::sync::Mutex;

use crate::alerts::Surroundings;
use crate::catalog::{Catalog, CatalogError};
use crate::clock::Clock;
use crate::config::{self, ConfigErrors, Project};
use crate::events::{Event, Subject};
use crate::scheduler::Engines;
use crate::sync::{Engine, SyncError};
use crate::warehouse::Provider;

/// What the service is told at its start.
#[derive(Debug, Clone)]
pub struct ServiceOptions {
    /// The project's directory.
    pub root: PathBuf,
    /// The kinds of connections that there are.
    pub providers: Vec<Provider>,
    /// Bytes, for the whole process.
    pub memory_limit: u64,
    /// Runs at once, which share the memory.
    pub max_runs: usize,
}

/// Why the project was not read anew.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    #[error("{}", .0.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Config(ConfigErrors),
    #[error("`store:` changed, which takes a restart")]
    StoreMoved,
    #[error("{0}")]
    Sync(#[from] SyncError),
}

/// The state of the running process.
pub struct Service {
    engine: RwLock<Arc<Engine>>,
    options: ServiceOptions,
    /// One reload at a time: the later one sees what the earlier one did.
    reloading: Mutex<()>,
    /// What the API changed is stored, and could not be taken over yet.
    behind: AtomicBool,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Service").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Service {
    /// Opens a project's state as it was left. What was cut short gets its end from the scheduler, which knows that no
    /// other service is at it.
    pub async fn open(
        project: Project,
        options: ServiceOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, SyncError> {
        let engine = Engine::open_for_runs(project, options.memory_limit, options.max_runs, clock).await?;
        engine.catalog.open_all_connections().await?;
        Ok(Arc::new(Self {
            engine: RwLock::new(Arc::new(engine)),
            options,
            reloading: Mutex::default(),
            behind: AtomicBool::new(false),
        }))
    }

    /// The engine of the newest project.
    pub fn engine(&self) -> Arc<Engine> {
        self.engine.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn catalog(&self) -> Catalog {
        self.engine().catalog.clone()
    }

    pub fn clock(&self) -> Arc<dyn Clock> {
        self.engine().clock.clone()
    }

    pub fn options(&self) -> &ServiceOptions {
        &self.options
    }

    /// Reads the files anew. When they have faults, the last good ones stay in use.
    pub async fn reload_files(&self) -> Result<(), ReloadError> {
        let _one = self.reloading.lock().await;
        let (root, providers) = (self.options.root.clone(), self.options.providers.clone());
        let loaded = tokio::task::spawn_blocking(move || config::load(&root, &providers))
            .await
            .map_err(|e| SyncError::Bug(e.to_string()))?;
        let project = match loaded {
            Ok(project) if project.store == self.engine().project.store => project,
            Ok(_) => return Err(ReloadError::StoreMoved),
            Err(faults) => return Err(ReloadError::Config(faults)),
        };
        let engine = self.engine().reloaded(Some(project)).await?;
        self.behind.store(false, Ordering::Relaxed);
        self.swap(engine);
        Ok(())
    }

    /// Takes over what the API changed in the catalog. What fails is tried again with the project's files.
    pub async fn reload_definitions(&self) -> Result<(), SyncError> {
        let _one = self.reloading.lock().await;
        let reloaded = self.engine().reloaded(None).await;
        self.behind.store(reloaded.is_err(), Ordering::Relaxed);
        self.swap(reloaded?);
        Ok(())
    }

    fn swap(&self, engine: Engine) {
        *self.engine.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(engine);
    }

    /// Adds to the audit trail.
    pub async fn record(
        &self,
        actor: &str,
        subject: Subject,
        verb: &str,
        message: impl Into<String>,
        details: serde_json::Value,
    ) -> Result<i64, CatalogError> {
        let event = Event::new(self.clock().now(), subject, verb, message).by(actor).with(details);
        self.catalog().record_event(&event).await
    }
}

#[async_trait]
impl Engines for Service {
    fn engine(&self) -> Arc<Engine> {
        Self::engine(self)
    }

    async fn reload(&self) -> Result<(), String> {
        self.reload_files().await.map_err(|e| e.to_string())
    }

    fn is_behind(&self) -> bool {
        self.behind.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl Surroundings for Service {
    fn engine(&self) -> Arc<Engine> {
        Self::engine(self)
    }

    async fn paused(&self) -> Result<BTreeSet<String>, CatalogError> {
        let schedules = self.catalog().schedules().await?;
        Ok(schedules.into_iter().filter(|row| row.paused).map(|row| row.model).collect())
    }
}
