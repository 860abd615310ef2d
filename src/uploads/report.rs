//! What an upload says of itself: the record that people, programs and the catalog read.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::values::convert::shorten;

/// Samples of rows set aside that a report keeps.
pub const MAX_SAMPLES: usize = 20;

/// How an upload stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum UploadStatus {
    Running,
    /// What it brought is visible.
    Published,
    /// Every row was set aside: nothing was written.
    Unchanged,
    /// Nothing was changed.
    Failed,
    /// Its process ended before it did; nothing was changed.
    Interrupted,
}

impl UploadStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Published => "published",
            Self::Unchanged => "unchanged",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
        }
    }

    /// The inverse of `as_str`.
    pub fn parse(word: &str) -> Self {
        match word {
            "running" => Self::Running,
            "published" => Self::Published,
            "unchanged" => Self::Unchanged,
            "failed" => Self::Failed,
            _ => Self::Interrupted,
        }
    }
}

/// Where the rows came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A file.
    Upload,
    /// Events that were collected.
    Collect,
}

impl Source {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Collect => "collect",
        }
    }

    /// The inverse of `as_str`.
    pub fn parse(word: &str) -> Self {
        if word == "collect" { Self::Collect } else { Self::Upload }
    }
}

/// Why a row was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It is not what the format says: broken JSON, too few fields, no UTF-8, too long.
    Unreadable,
    /// No identity field of it has a value.
    NoIdentity,
    /// An identity field holds what identifies nobody: a list, an object, a fraction, true or false.
    BadIdentity,
    /// A field's name cannot be a column.
    BadColumn,
}

/// A row that was set aside, for the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FaultyRow {
    /// From 1; of a Parquet file the row, not the line.
    pub line: u64,
    pub fault: Fault,
    pub detail: String,
}

/// The rows that were set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FaultyRows {
    pub counts: BTreeMap<Fault, u64>,
    /// At most [`MAX_SAMPLES`].
    pub samples: Vec<FaultyRow>,
}

impl FaultyRows {
    pub fn total(&self) -> u64 {
        self.counts.values().sum()
    }

    pub fn note(&mut self, row: FaultyRow) {
        *self.counts.entry(row.fault).or_default() += 1;
        if self.samples.len() < MAX_SAMPLES {
            self.samples.push(FaultyRow { detail: shorten(&row.detail), ..row });
        }
    }
}

/// An upload's record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct UploadReport {
    pub id: String,
    pub stream: String,
    pub source: Source,
    pub status: UploadStatus,
    /// Who handed it in.
    pub actor: String,
    /// Rows that came, the ones set aside among them.
    pub rows: u64,
    /// Rows set aside.
    pub quarantined: u64,
    pub quarantine: FaultyRows,
    /// Profiles that did not exist before.
    pub profiles_created: u64,
    /// Profiles that existed and are named by at least one row.
    pub profiles_matched: u64,
    /// Identity values that were added to a profile beside the one that founded it.
    pub identities_linked: u64,
    /// Identity values that already belong to another profile, and so were not added.
    pub identity_conflicts: u64,
    /// Memberships that began: rows of models that waited for these profiles.
    pub entered: u64,
    /// The columns that came, in order: identity fields, and what the stream's table keeps beside them.
    pub columns: Vec<String>,
    /// Bytes of the body, decompressed.
    pub bytes: u64,
    pub started_at: DateTime<Utc>,
    pub finished_at: Option<DateTime<Utc>>,
    pub duration_ms: u64,
    pub error: Option<String>,
    /// What to do about the error, or next.
    pub hint: Option<String>,
}

impl UploadReport {
    pub fn new(id: String, stream: String, source: Source, actor: String, started_at: DateTime<Utc>) -> Self {
        Self {
            id,
            stream,
            source,
            status: UploadStatus::Running,
            actor,
            rows: 0,
            quarantined: 0,
            quarantine: FaultyRows::default(),
            profiles_created: 0,
            profiles_matched: 0,
            identities_linked: 0,
            identity_conflicts: 0,
            entered: 0,
            columns: Vec::new(),
            bytes: 0,
            started_at,
            finished_at: None,
            duration_ms: 0,
            error: None,
            hint: None,
        }
    }

    /// Notes the end and how long it took.
    pub fn finish(&mut self, status: UploadStatus, now: DateTime<Utc>) {
        self.status = status;
        self.finished_at = Some(now);
        self.duration_ms = (now - self.started_at).num_milliseconds().max(0) as u64;
        self.quarantined = self.quarantine.total();
    }
}
