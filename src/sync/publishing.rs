//! What the stages of one run share once its comparison is done: where they write, and what they add up.

use std::sync::{Mutex, PoisonError};

use arrow::datatypes::SchemaRef;
use chrono::{DateTime, Utc};

use crate::config::IdentityField;
use crate::identity::resolve::Resolver;
use crate::store::{StagedFile, Store, TableId};
use crate::sync::definition::Definition;

/// At most so many samples of each kind are kept for a plan.
pub const PLAN_SAMPLES: usize = 5;

/// One sample of a planned change.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct ChangeSample {
    pub key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<serde_json::Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<serde_json::Value>,
}

/// Samples of what a run would do.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, utoipa::ToSchema)]
pub struct Samples {
    pub added: Vec<ChangeSample>,
    pub changed: Vec<ChangeSample>,
    pub removed: Vec<ChangeSample>,
}

/// What the stages found and staged.
#[derive(Debug, Default)]
pub struct Totals {
    pub records: Vec<StagedFile>,
    pub identities: Vec<StagedFile>,
    pub changes: Vec<StagedFile>,
    pub added: u64,
    pub changed: u64,
    /// Rows that only a comparison by value could tell to be the same.
    pub same_by_value: u64,
    pub created: u64,
    pub matched: u64,
    pub waiting: u64,
    pub entered: u64,
    pub exited: u64,
    pub linked: u64,
    pub conflicts: u64,
    pub samples: Samples,
}

/// The run that is being published.
#[derive(Debug)]
pub struct Publishing {
    pub store: Store,
    pub run_id: String,
    pub now: DateTime<Utc>,
    pub model: String,
    pub definition: Definition,
    pub identity_fields: Vec<IdentityField>,
    /// Key, activated fields, further identities.
    pub result: SchemaRef,
    /// The record store's columns.
    pub records: SchemaRef,
    pub resolver: Resolver,
    /// False: a plan, which counts and samples but writes nothing.
    pub write: bool,
    pub totals: Mutex<Totals>,
}

impl Publishing {
    pub fn table(&self) -> TableId {
        TableId::Records(self.model.clone())
    }

    /// Adds to the totals.
    pub fn add(&self, f: impl FnOnce(&mut Totals)) {
        f(&mut self.totals.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
