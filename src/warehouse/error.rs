//! What can go wrong in a warehouse, sorted by who can mend it.

use std::time::Duration;

/// Who can mend an error: nobody has to (try again), the owner of the configuration, the author of the SQL, or us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WarehouseErrorKind {
    /// Passing trouble (network, overload, a restart): worth another try, after this long if the server said so.
    Retry { after: Option<Duration> },
    /// Host, credentials, permissions, limits.
    Configuration,
    /// The model's SQL.
    Sql,
    /// Somebody cancelled it.
    Cancelled,
    /// A fault in this program, or an answer from the server that breaks its own protocol.
    Bug,
}

/// An error from a warehouse. Never holds a secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct WarehouseError {
    pub kind: WarehouseErrorKind,
    /// What happened, with the warehouse's own words (and line, where it gives one).
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl WarehouseError {
    pub fn new(kind: WarehouseErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), hint: None }
    }

    pub fn retry(message: impl Into<String>) -> Self {
        Self::new(WarehouseErrorKind::Retry { after: None }, message)
    }

    pub fn configuration(message: impl Into<String>) -> Self {
        Self::new(WarehouseErrorKind::Configuration, message)
    }

    pub fn sql(message: impl Into<String>) -> Self {
        Self::new(WarehouseErrorKind::Sql, message)
    }

    pub fn bug(message: impl Into<String>) -> Self {
        Self::new(WarehouseErrorKind::Bug, message)
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Is another try worth it?
    pub fn is_retryable(&self) -> bool {
        matches!(self.kind, WarehouseErrorKind::Retry { .. })
    }
}
