//! What a run says of itself: the record that people, programs and the catalog read.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::{ChangeSample, SyncError};
use crate::diff::compare::Quarantine;
use crate::store::StagedFile;

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal),+ $(,)? } else $fallback:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The inverse of `as_str`.
            pub fn parse(word: &str) -> Self {
                match word { $($word => Self::$variant,)+ _ => Self::$fallback }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

words! {
    /// How a run stands.
    RunStatus {
        Running = "running",
        /// Its changes are visible.
        Published = "published",
        /// The result is what it was: nothing was written.
        Unchanged = "unchanged",
        /// Removals wait for a person; everything else is visible.
        Held = "held",
        /// Nothing was changed.
        Failed = "failed",
        Cancelled = "cancelled",
        /// Its process ended before it did; nothing was changed.
        Interrupted = "interrupted",
    } else Interrupted
}

words! {
    /// What kind of run.
    RunKind {
        /// The model's query, compared.
        Sync = "sync",
        /// Held removals, approved.
        Approve = "approve",
    } else Sync
}

words! {
    /// How a hold stands.
    HoldStatus {
        Waiting = "waiting",
        Approved = "approved",
        Rejected = "rejected",
        /// A later run compared anew.
        Superseded = "superseded",
    } else Superseded
}

/// Removals that wait for a person.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Rows to remove.
    pub removed: u64,
    /// Rows that the record store held.
    pub of: u64,
    /// Files that list the keys' hashes.
    pub files: Vec<StagedFile>,
    /// Some of the rows.
    #[serde(default)]
    pub samples: Vec<ChangeSample>,
}

/// A run's record. The first fields, up to `error`, are what `run --output json` promises.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct RunReport {
    pub model: String,
    pub run_id: String,
    pub status: RunStatus,
    /// Rows that the query returned.
    pub rows: u64,
    pub added: u64,
    pub changed: u64,
    /// Rows that left; while a run is held, those that would.
    pub removed: u64,
    pub unchanged: u64,
    /// Rows set aside.
    pub quarantined: u64,
    pub profiles_created: u64,
    /// Added and changed rows whose profile existed already.
    pub profiles_matched: u64,
    pub duration_ms: u64,
    pub error: Option<String>,
    /// What to do about the error, or next.
    #[serde(default)]
    pub hint: Option<String>,
    #[serde(default = "sync_kind")]
    pub kind: RunKind,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    /// Memberships that began, over all models (a new profile may pick up rows that waited for it).
    #[serde(default)]
    pub entered: u64,
    /// Memberships that ended.
    #[serde(default)]
    pub exited: u64,
    /// Added rows that wait for their profile (`create_profiles: false`).
    #[serde(default)]
    pub waiting: u64,
    /// Identity values that were added to a profile beside the one that founded it.
    #[serde(default)]
    pub identities_linked: u64,
    /// Identity values that already belong to another profile, and so were not added.
    #[serde(default)]
    pub identity_conflicts: u64,
    /// The model's SQL, fields or connection differ from the last run's.
    #[serde(default)]
    pub definition_changed: bool,
    #[serde(default)]
    pub quarantine: Quarantine,
    /// The run whose held removals this one applied.
    #[serde(default)]
    pub approves: Option<String>,
    /// How often the warehouse was asked again after passing trouble.
    #[serde(default)]
    pub retries: u32,
}

fn sync_kind() -> RunKind {
    RunKind::Sync
}

impl RunReport {
    pub fn new(run_id: String, model: String, kind: RunKind, started_at: DateTime<Utc>) -> Self {
        Self {
            model,
            run_id,
            status: RunStatus::Running,
            rows: 0,
            added: 0,
            changed: 0,
            removed: 0,
            unchanged: 0,
            quarantined: 0,
            profiles_created: 0,
            profiles_matched: 0,
            duration_ms: 0,
            error: None,
            hint: None,
            kind,
            started_at,
            finished_at: None,
            entered: 0,
            exited: 0,
            waiting: 0,
            identities_linked: 0,
            identity_conflicts: 0,
            definition_changed: false,
            quarantine: Quarantine::default(),
            approves: None,
            retries: 0,
        }
    }

    /// Ends it as failed, or as cancelled.
    pub fn fail(&mut self, error: &SyncError, at: DateTime<Utc>) {
        self.error = Some(error.to_string());
        self.hint = error.hint();
        self.finish(if matches!(error, SyncError::Cancelled) { RunStatus::Cancelled } else { RunStatus::Failed }, at);
    }

    /// Notes the end and how long it took.
    pub fn finish(&mut self, status: RunStatus, now: DateTime<Utc>) {
        self.status = status;
        self.finished_at = Some(now);
        self.duration_ms = (now - self.started_at).num_milliseconds().max(0) as u64;
        self.quarantined = self.quarantine.total();
    }
}
