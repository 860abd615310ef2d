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

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{ArrayRef, TimestampMicrosecondArray};
use chrono::{DateTime, Utc};

pub use error::SyncError;
pub use plan::Plan;
pub use publishing::{ChangeSample, Samples};
pub use upload::{UploadSource, Uploaded};

use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::config::{Project, StoreLocation};
use crate::memory::MemoryPlan;
use crate::store::Store;

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
    pub project: Arc<Project>,
    pub store: Store,
    pub catalog: Catalog,
    pub clock: Arc<dyn Clock>,
    pub memory: MemoryPlan,
    /// Catalog, locks and spilled rows: local, also when the store is not.
    state: PathBuf,
}

impl Engine {
    /// Opens the project's state, creating it where there is none.
    pub async fn open(project: Project, memory_limit: u64, clock: Arc<dyn Clock>) -> Result<Self, SyncError> {
        let state = match &project.store {
            StoreLocation::Directory(directory) => directory.clone(),
            StoreLocation::ObjectStore(_) => project.root.join(".cloud-connect"),
        };
        std::fs::create_dir_all(&state)?;
        let store = Store::open(&project.store)?;
        let catalog = Catalog::open(&state.join("catalog.db")).await?;
        let memory = MemoryPlan::new(memory_limit, std::thread::available_parallelism().map_or(2, usize::from));
        Ok(Self { project: Arc::new(project), store, catalog, clock, memory, state })
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
