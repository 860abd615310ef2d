//! The audit trail: who did what to which connection, model, authorization, user or token, and how runs went.
//!
//! Invariants: an event of a run is written in the transaction that begins or ends the run; an event never holds a
//! secret; events are never changed, only trimmed by age.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

tokio::task_local! {
    static ACTOR: String;
}

/// Runs `future` as that actor: events that are recorded inside it carry its name.
pub async fn acting_as<F: Future>(actor: impl Into<String>, future: F) -> F::Output {
    ACTOR.scope(actor.into(), future).await
}

/// Who acts now: `system` when nobody said.
pub fn actor() -> String {
    ACTOR.try_with(Clone::clone).unwrap_or_else(|_| "system".into())
}

/// What an event is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    Connection,
    Model,
    Authorization,
    User,
    Token,
    Upload,
    Alert,
    Project,
}

impl SubjectKind {
    pub const ALL: [Self; 8] = [
        Self::Connection,
        Self::Model,
        Self::Authorization,
        Self::User,
        Self::Token,
        Self::Upload,
        Self::Alert,
        Self::Project,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Model => "model",
            Self::Authorization => "authorization",
            Self::User => "user",
            Self::Token => "token",
            Self::Upload => "upload",
            Self::Alert => "alert",
            Self::Project => "project",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// What an event is about, and which of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    pub kind: SubjectKind,
    /// A connection's name, a model's slug, an authorization's id …
    pub id: String,
}

impl Subject {
    pub fn new(kind: SubjectKind, id: impl Into<String>) -> Self {
        Self { kind, id: id.into() }
    }

    pub fn model(slug: impl Into<String>) -> Self {
        Self::new(SubjectKind::Model, slug)
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Ascending; 0 before it is stored.
    pub id: i64,
    pub at: DateTime<Utc>,
    /// `user:ada@example.com`, `token:ci`, `scheduler`, `cli`, `system`.
    pub actor: String,
    pub subject: Subject,
    /// `created`, `updated`, `deleted`, `activated`, `run_started`, `run_failed` …
    pub verb: String,
    /// One sentence for people.
    pub message: String,
    /// What changed. Never a secret.
    pub details: serde_json::Value,
}

impl Event {
    /// An event of now's actor.
    pub fn new(at: DateTime<Utc>, subject: Subject, verb: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            id: 0,
            at,
            actor: actor(),
            subject,
            verb: verb.into(),
            message: message.into(),
            details: serde_json::json!({}),
        }
    }

    #[must_use]
    pub fn by(mut self, actor: impl Into<String>) -> Self {
        self.actor = actor.into();
        self
    }

    #[must_use]
    pub fn with(mut self, details: serde_json::Value) -> Self {
        self.details = details;
        self
    }
}
