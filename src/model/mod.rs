//! A data model as authored: SQL, key, activated fields, schedule, and what protects it.
//!
//! Made by [`crate::config::load`] from `models/<slug>.yml` and `models/<slug>.sql`. What only the warehouse can tell
//! (does the query return these columns, of these types?) is judged by [`check_columns`] once it has described the query.

pub mod check;
mod schedule;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use check::check_columns;
pub use schedule::{MAX_INTERVAL, MIN_INTERVAL, Schedule, ScheduleError};

use crate::config::Spans;
use crate::values::ValueType;

/// The most fields that a model may activate.
pub const MAX_ACTIVATED_FIELDS: usize = 25;

/// One data model.
#[derive(Debug, Clone)]
pub struct Model {
    /// From the file name; `[a-z][a-z0-9_]*`, at most 64 characters.
    pub slug: String,
    pub name: String,
    pub description: Option<String>,
    /// The connection's name.
    pub connection: String,
    /// The result column that identifies a row.
    pub primary_key: String,
    /// The identity field that the primary key is matched with.
    pub external_key: String,
    /// Result columns that become profile attributes, in order. At most [`MAX_ACTIVATED_FIELDS`].
    pub activated_fields: Vec<String>,
    /// Further identity fields that the result carries (column of the same name): they are added to the row's profile.
    pub identities: Vec<String>,
    pub schedule: Option<Schedule>,
    /// False: only profiles that exist are updated.
    pub create_profiles: bool,
    /// An inactive model is never queried.
    pub active: bool,
    pub guard: Guard,
    /// The optional contract, by column.
    pub columns: BTreeMap<String, ColumnContract>,
    /// The query's limit in the warehouse.
    pub timeout: Option<Duration>,
    /// The SQL as authored: one statement, without the `;` that may end it. It may end in a line comment.
    pub sql: String,
    /// Relative to the project's directory.
    pub sql_file: PathBuf,
    /// Relative to the project's directory.
    pub config_file: PathBuf,
    /// Where its parts stand in `config_file`.
    pub spans: Spans,
    /// False: it was made through the API.
    pub in_files: bool,
}

impl Model {
    /// Is the field among those that the model finds profiles by, or adds to them?
    pub fn uses_identity(&self, field: &str) -> bool {
        self.external_key == field || self.identities.iter().any(|identity| identity == field)
    }

    /// The type that the contract gives a column.
    pub fn declared_type(&self, column: &str) -> Option<ValueType> {
        self.columns.get(column).and_then(|contract| contract.value_type)
    }
}

/// Removals beyond both limits wait for a person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard {
    /// Rows.
    pub max_removed: u64,
    /// Per cent of the rows that the record store holds.
    pub max_removed_percent: f64,
}

impl Default for Guard {
    fn default() -> Self {
        Self { max_removed: 1000, max_removed_percent: 10.0 }
    }
}

/// What a column has to be. A value that breaks it is quarantined with its row.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ColumnContract {
    pub value_type: Option<ValueType>,
    pub not_null: bool,
}
