//! Why a run fails, in words for people.

use arrow::datatypes::{DataType, Schema};

use crate::catalog::CatalogError;
use crate::memory::MemoryPlan;
use crate::store::StoreError;
use crate::values::convert::ConvertError;
use crate::warehouse::WarehouseError;

/// Why a run (or a command about runs) fails. [`SyncError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    #[error("{0}")]
    Warehouse(#[from] WarehouseError),
    #[error("{0}")]
    Connection(#[from] crate::secrets::OpenError),
    #[error("{0}")]
    Convert(ConvertError),
    #[error("the query returns no column `{column}` (it returns: {found})")]
    MissingColumn { column: String, found: String },
    #[error("column `{column}` is {found}, which a profile cannot hold")]
    UnsupportedColumn { column: String, found: String },
    #[error("column `{column}` was {before} and is now {now}")]
    Retyped { column: String, before: String, now: String },
    #[error("the model's key changed from {before} to {now}")]
    KeyChanged { before: String, now: String },
    #[error("`normalize:` of identity field `{field}` changed; values were stored with {before}")]
    Renormalized { field: String, before: String },
    #[error("a run of `{model}` is under way (process {process})")]
    AlreadyRunning { model: String, process: String },
    #[error("no model `{0}`")]
    NoSuchModel(String),
    #[error("model `{0}` is not active")]
    Inactive(String),
    #[error("run `{0}` holds no removals")]
    NothingHeld(String),
    #[error("the removals of run `{run}` were {status} already")]
    HoldEnded { run: String, status: String },
    #[error("{rows} rows{} are too many for a memory limit of {}", if *.more { " and more" } else { "" }, bytesize::ByteSize(*.limit))]
    TooManyRows { rows: u64, more: bool, limit: u64, runs: usize },
    #[error("the result is committed, but not visible yet: {0}")]
    NotVisible(Box<SyncError>),
    #[error("cancelled")]
    Cancelled,
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Catalog(#[from] CatalogError),
    #[error("{0}")]
    Key(#[from] crate::vault::KeyError),
    #[error("local disk: {0}")]
    Io(#[from] std::io::Error),
    #[error("arrow: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("internal error: {0}")]
    Bug(String),
}

impl SyncError {
    pub(super) fn missing_column(column: &str, result: &Schema) -> Self {
        let found: Vec<&str> = result.fields().iter().map(|f| f.name().as_str()).collect();
        Self::MissingColumn { column: column.to_string(), found: found.join(", ") }
    }

    pub(super) fn unsupported_column(column: &str, found: &DataType) -> Self {
        Self::UnsupportedColumn { column: column.to_string(), found: found.to_string() }
    }

    /// Is another try of the whole extraction worth it?
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Warehouse(e) if e.is_retryable())
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Warehouse(e) => return e.hint.clone(),
            Self::Connection(e) => return e.hint(),
            Self::MissingColumn { .. } => {
                "return it from the SQL, or take it out of the model's activated_fields".into()
            }
            Self::Convert(ConvertError::Missing(_)) => {
                "return it from the SQL, or take it out of the model's activated_fields".into()
            }
            Self::Convert(ConvertError::Ambiguous(..)) => "give each column of the result its own name (AS)".into(),
            Self::Convert(ConvertError::Incompatible { .. }) => {
                "cast it in the SQL, or declare another type under `columns:`".into()
            }
            Self::Convert(ConvertError::Arrow(_)) => return None,
            Self::UnsupportedColumn { .. } => "cast it to text in the SQL, for example with CAST(… AS VARCHAR)".into(),
            Self::Retyped { column, before, .. } => format!(
                "if the source changed by accident, mend it there; to keep the type and set aside the values that do \
                 not fit, declare `columns: {{ {column}: {{ type: {before} }} }}` in the model; a change of the SQL \
                 (a CAST, for example) is taken as meant"
            ),
            Self::KeyChanged { .. } => {
                "every membership would end and begin anew: give the model a new slug (rename its files) instead".into()
            }
            Self::Renormalized { field, before } => format!(
                "the stored identities would not be found again, and their profiles would be created anew: set it back to \
                 `normalize: {before}`, or name a new identity field beside `{field}`"
            ),
            Self::Key(e) => e.hint(),
            Self::NotVisible(_) => {
                "the next command of this project makes it visible, `cloud-connect runs` for one".into()
            }
            Self::AlreadyRunning { .. } => "wait for it to end; `cloud-connect runs` shows it".into(),
            Self::Catalog(CatalogError::Database(_) | CatalogError::Migration(_)) => {
                "the catalog is `catalog.db` in the state's directory (`store:`, or .cloud-connect): can it be written, \
                 and is there room? One that is damaged can be deleted: the newest state is taken from the store itself"
                    .into()
            }
            Self::Catalog(CatalogError::Newer(_)) => {
                "use the version that wrote it, or put back the backup of `catalog.db` from before the upgrade".into()
            }
            Self::NoSuchModel(_) => "`cloud-connect models` lists them".into(),
            Self::Inactive(_) => "set `active: true` in the model's file".into(),
            Self::NothingHeld(_) => "`cloud-connect runs` shows which runs are held".into(),
            Self::HoldEnded { status, .. } if status == "superseded" => {
                "a later run compared anew: `cloud-connect runs` shows whether it is held".into()
            }
            Self::TooManyRows { rows, runs, .. } if *rows < u64::from(u32::MAX) => {
                let least = MemoryPlan::limit_for(*rows, *runs).div_ceil(1 << 20);
                format!("give it `--memory-limit {least}MiB` or more (or `memory_limit:` in cloud-connect.yml)")
            }
            Self::TooManyRows { .. } => "split the model: a record store holds less than 4,294,967,295 rows".into(),
            Self::Store(e) => return e.hint().map(String::from),
            Self::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                "free some disk space (the state's directory, which also takes spilled rows) and run it again".into()
            }
            _ => return None,
        })
    }
}

impl From<ConvertError> for SyncError {
    fn from(e: ConvertError) -> Self {
        Self::Convert(e)
    }
}
