//! One run of a model, from its query to visible profiles.
//!
//! Actors: the [`Engine`] holds what a process needs; [`run`] is the pipeline, in the order of a row's journey;
//! [`publish`] is the commit point and what follows from it; [`hold`] ends waiting removals; [`upload`] takes rows that are
//! handed in instead of queried.
//!
//! Invariants:
//! - before its commit a run changes nothing that anyone can see; after it, everything follows, by this process or by
//!   the next command after a crash;
//! - one run of a model at a time, one publishing run in a project at a time, across processes;
//! - no step holds a whole result.

mod additions;
mod changelog;
mod definition;
mod error;
mod extract;
mod hold;
mod links;
mod lock;
mod plan;
mod publish;
mod published;
mod publishing;
pub mod report;
mod rewrite;
mod run;
#[cfg(test)]
mod tests;
mod upload;
mod waiting;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use chrono::{DateTime, Utc};

pub use error::SyncError;
pub use lock::ServiceLock;
pub use plan::Plan;
pub use published::Published;
pub use publishing::{ChangeSample, Samples};
pub use upload::{UploadSource, Uploaded};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Project, StoreLocation, Unusable, with_stored};
use crate::memory::MemoryPlan;
use crate::store::Store;
use crate::vault::{Custody, Keyring, Vault};
use crate::workers::Workers;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Query,
    Compare,
    Profiles,
    Write,
    Commit,
}

impl Stage {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Query => "querying",
            Self::Compare => "comparing",
            Self::Profiles => "matching profiles",
            Self::Write => "writing",
            Self::Commit => "publishing",
        }
    }
}

/// Told how a run gets on.
pub trait Progress: Send + Sync {
    fn stage(&self, stage: Stage);
    /// So many more rows came in.
    fn rows(&self, rows: u64);
    /// They took so many bytes in memory.
    fn bytes(&self, _bytes: u64) {}
}

/// Tells nobody.
#[derive(Debug, Clone, Copy)]
pub struct Silent;

impl Progress for Silent {
    fn stage(&self, _: Stage) {}
    fn rows(&self, _: u64) {}
}

/// An opened project: everything that runs and questions need.
#[derive(Debug, Clone)]
pub struct Engine {
    /// The files' connections and models, and those made through the API.
    pub project: Arc<Project>,
    /// What the files alone say.
    files: Arc<Project>,
    /// Definitions made through the API that cannot be used now.
    pub unusable: Arc<[Unusable]>,
    pub store: Store,
    pub catalog: Catalog,
    pub clock: Arc<dyn Clock>,
    pub memory: MemoryPlan,
    /// Where runs and queries compute, in a process that also answers requests.
    pub workers: Workers,
    /// Catalog, locks and spilled rows: local, also when the store is not.
    state: PathBuf,
    /// Every table was looked at for commits that a crash cut short.
    looked_at_all: Arc<AtomicBool>,
    /// The tables that all share are as new as the catalog says.
    checked_shared: Arc<AtomicBool>,
}

/// The local folder of the catalog, the locks and spilled rows.
fn state_of(project: &Project) -> PathBuf {
    match &project.store {
        StoreLocation::Directory(directory) => directory.clone(),
        StoreLocation::ObjectStore(_) => project.root.join(".cloud-connect"),
    }
}

/// The authorizations that a project's files may name, from its state as it is: nothing is made or migrated.
pub async fn vault_of(project: &Project) -> Result<Vault, SyncError> {
    let state = state_of(project);
    let file = state.join("catalog.db");
    if !file.try_exists()? {
        return Ok(Vault::default());
    }
    let catalog = Catalog::look_into(&file).await?;
    // of an older version, perhaps: `check` comes before the upgrade
    if catalog.knows_authorizations().await? { open_vault(&state, &catalog).await } else { Ok(Vault::default()) }
}

async fn open_vault(state: &Path, catalog: &Catalog) -> Result<Vault, SyncError> {
    // keys and what they sealed, from the same moment
    let custody = Custody::share(state).await?;
    let sealed = catalog.authorizations().await?;
    let keyring = Keyring::load(state, false)?;
    drop(custody);
    Ok(Vault::new(keyring, sealed))
}

impl Engine {
    /// Opens the project's state, creating it where there is none, for one run at a time.
    pub async fn open(project: Project, memory_limit: u64, clock: Arc<dyn Clock>) -> Result<Self, SyncError> {
        Self::open_for_runs(project, memory_limit, 1, clock).await
    }

    /// [`Engine::open`] for so many runs at once, which share the memory limit. `memory.runs` says how many it allows.
    pub async fn open_for_runs(
        project: Project,
        memory_limit: u64,
        runs: usize,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SyncError> {
        let state = state_of(&project);
        std::fs::create_dir_all(&state)?;
        let store = Store::open(&project.store)?;
        let catalog = Catalog::open(&state.join("catalog.db")).await?;
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let memory = MemoryPlan::for_runs(memory_limit, cores, runs);
        let files = Arc::new(project);
        let mut engine = Self {
            project: files.clone(),
            files,
            unusable: Arc::default(),
            store,
            catalog,
            clock,
            memory,
            workers: Workers::default(),
            state,
            looked_at_all: Arc::default(),
            checked_shared: Arc::default(),
        };
        engine.reread(None).await?;
        Ok(engine)
    }

    /// The same engine with the definitions and authorizations that the catalog holds now, and (when the files were
    /// read anew) with these files' connections and models. The store stays the one that was opened.
    pub async fn reloaded(&self, files: Option<Project>) -> Result<Self, SyncError> {
        let mut engine = self.clone();
        engine.reread(files).await?;
        Ok(engine)
    }

    async fn reread(&mut self, files: Option<Project>) -> Result<(), SyncError> {
        if let Some(files) = files {
            self.files = Arc::new(files);
        }
        let vault = open_vault(&self.state, &self.catalog).await?;
        let (mut project, unusable) = with_stored(&self.files, &self.catalog.definitions().await?);
        project.vault = Arc::new(vault);
        (self.project, self.unusable) = (Arc::new(project), unusable.into());
        Ok(())
    }

    /// What the files alone say, without the definitions made through the API.
    pub fn files(&self) -> &Project {
        &self.files
    }

    /// The local folder of the catalog, the locks and spilled rows.
    pub fn state_folder(&self) -> &std::path::Path {
        &self.state
    }

    /// Files that make lookups fast, derived from the store: local, and free to be removed.
    pub fn serving_folder(&self) -> PathBuf {
        self.state.join("serving")
    }

    /// Where rows that do not fit into memory are set aside; each user makes a folder of its own below it.
    pub(crate) fn spill_folder(&self) -> PathBuf {
        self.state.join("spill")
    }

    fn lock_folder(&self) -> PathBuf {
        self.state.join("locks")
    }
}

/// The same moment, `rows` times.
fn timestamps(at: DateTime<Utc>, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(vec![at.timestamp_micros(); rows]).with_timezone("UTC"))
}
