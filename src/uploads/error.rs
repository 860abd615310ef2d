//! Why an upload fails, in words for people.

use crate::catalog::CatalogError;
use crate::sync::SyncError;

/// Why rows that are handed in are not taken. [`UploadError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    #[error("`{0}` cannot be the name of a stream")]
    StreamName(String),
    #[error("the body is larger than {}", bytesize::ByteSize(*.limit))]
    TooLarge { limit: u64 },
    #[error("{rows} rows are more than one request may collect")]
    TooManyRows { rows: usize },
    #[error("the body broke off: {0}")]
    BrokenOff(String),
    #[error("the body is empty")]
    Empty,
    #[error("the body cannot be read as {format}: line {line}, column {column}: {message}")]
    Unreadable { format: &'static str, line: u64, column: u64, message: String },
    #[error("the body cannot be read as {format}: {message}")]
    NotThatFormat { format: &'static str, message: String },
    #[error("column `{column}`: {message}")]
    Column { column: String, message: String },
    #[error("no column is an identity field (there are: {found})")]
    NoIdentity { found: String, wanted: Vec<String> },
    #[error("the idempotency key was used for another body")]
    KeyReused,
    #[error("an idempotency key has 1 to 255 characters")]
    BadKey,
    #[error("another upload to stream `{0}` is under way")]
    Busy(String),
    #[error("{} of collected events wait to be written", bytesize::ByteSize(*.waiting))]
    Full { waiting: u64 },
    #[error("the events could not be written down: {0}")]
    Journal(std::sync::Arc<CatalogError>),
    #[error("too many bodies arrive at once")]
    Crowded,
    #[error("the service is shutting down")]
    Closing,
    #[error("{0}")]
    Sync(#[from] SyncError),
    #[error("local disk: {0}")]
    Io(#[from] std::io::Error),
}

impl UploadError {
    /// Is the request at fault, and not the service?
    pub fn is_request_fault(&self) -> bool {
        !matches!(
            self,
            Self::Busy(_)
                | Self::Full { .. }
                | Self::Crowded
                | Self::Closing
                | Self::Journal(_)
                | Self::Sync(_)
                | Self::Io(_)
        )
    }

    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::StreamName(_) => "invalid-stream",
            Self::TooLarge { .. } => "too-large",
            Self::TooManyRows { .. } => "too-many-rows",
            Self::BrokenOff(_) => "body-broke-off",
            Self::Empty => "empty-body",
            Self::Unreadable { .. } | Self::NotThatFormat { .. } => "unreadable-body",
            Self::Column { .. } => "invalid-column",
            Self::NoIdentity { .. } => "no-identity",
            Self::KeyReused => "idempotency-key-reused",
            Self::BadKey => "invalid-idempotency-key",
            Self::Busy(_) => "busy",
            Self::Full { .. } => "journal-full",
            Self::Journal(_) => "upload-failed",
            Self::Crowded => "too-many-uploads",
            Self::Closing => "shutting-down",
            Self::Sync(_) => "upload-failed",
            Self::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => "disk-full",
            Self::Io(_) => "upload-failed",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::StreamName(_) => {
                "a stream is named with a-z, 0-9 and `_`, begins with a letter, and has at most 64 characters".into()
            }
            Self::TooLarge { .. } => {
                "send it in parts, or raise `--max-upload`; a compressed body counts decompressed".into()
            }
            Self::TooManyRows { .. } => "send at most 1,000 at once; more go to the upload".into(),
            Self::BrokenOff(_) => "nothing was added: send it again".into(),
            Self::Empty => "send at least one row".into(),
            Self::Unreadable { .. } | Self::NotThatFormat { .. } => {
                "does the Content-Type say what the body is?".into()
            }
            Self::Column { .. } => "give the column another name".into(),
            Self::NoIdentity { wanted, .. } => format!("at least one has to be there: {}", wanted.join(", ")),
            Self::BadKey => "a random UUID for each body does".into(),
            Self::KeyReused => "make a new Idempotency-Key for each body, and repeat a body with its own".into(),
            Self::Busy(_) | Self::Crowded | Self::Closing => "nothing was added: try again in a while".into(),
            Self::Full { .. } => {
                "nothing was taken: try again in a while; the service's log says why they are not written".into()
            }
            Self::Sync(e) => return e.hint(),
            Self::Io(e) if e.kind() == std::io::ErrorKind::StorageFull => {
                "free some disk space (the state's directory, which also takes bodies) and send it again".into()
            }
            Self::Journal(_) | Self::Io(_) => return None,
        })
    }
}

impl From<crate::store::StoreError> for UploadError {
    fn from(e: crate::store::StoreError) -> Self {
        SyncError::from(e).into()
    }
}

impl From<CatalogError> for UploadError {
    fn from(e: CatalogError) -> Self {
        SyncError::from(e).into()
    }
}

impl From<arrow::error::ArrowError> for UploadError {
    fn from(e: arrow::error::ArrowError) -> Self {
        SyncError::from(e).into()
    }
}
