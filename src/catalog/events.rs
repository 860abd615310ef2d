//! The audit trail's table.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::{Catalog, CatalogError};
use crate::events::{Event, Subject, SubjectKind};
use crate::sync::report::{RunReport, RunStatus};

/// Which events are asked for.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    pub kind: Option<SubjectKind>,
    pub subject: Option<String>,
    pub verb: Option<String>,
    /// Only those with a smaller id.
    pub before: Option<i64>,
    pub limit: u32,
}

impl Catalog {
    /// Adds an event, and returns its id.
    pub async fn record_event(&self, event: &Event) -> Result<i64, CatalogError> {
        let mut connection = self.pool.acquire().await?;
        insert(&mut connection, event).await
    }

    /// The events that a filter lets through, newest first.
    pub async fn events(&self, filter: &EventFilter) -> Result<Vec<Event>, CatalogError> {
        let rows = sqlx::query(include_str!("../../sql/catalog/events.sql"))
            .bind(filter.kind.map(SubjectKind::as_str))
            .bind(&filter.subject)
            .bind(&filter.verb)
            .bind(filter.before)
            .bind(filter.limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(event_of).collect()
    }

    /// Forgets events older than `before`. Returns how many.
    pub async fn trim_events(&self, before: DateTime<Utc>) -> Result<u64, CatalogError> {
        let done =
            sqlx::query("DELETE FROM events WHERE at < ?1").bind(before.timestamp_micros()).execute(&self.pool).await?;
        Ok(done.rows_affected())
    }
}

/// Adds an event within a transaction.
pub(super) async fn insert(connection: &mut sqlx::SqliteConnection, event: &Event) -> Result<i64, CatalogError> {
    let done = sqlx::query(
        "INSERT INTO events (at, actor, kind, subject, verb, message, details) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(event.at.timestamp_micros())
    .bind(&event.actor)
    .bind(event.subject.kind.as_str())
    .bind(&event.subject.id)
    .bind(&event.verb)
    .bind(&event.message)
    .bind(event.details.to_string())
    .execute(connection)
    .await?;
    Ok(done.last_insert_rowid())
}

/// Commits a change with its event; false, and nothing happens, when there was nothing to change.
pub(super) async fn commit_if(
    changed: bool,
    mut tx: Transaction<'_, Sqlite>,
    event: &Event,
) -> Result<bool, CatalogError> {
    if changed {
        insert(&mut tx, event).await?;
        tx.commit().await?;
    }
    Ok(changed)
}

/// What the trail says of a run's end.
pub(super) fn run_ended(report: &RunReport) -> Event {
    let (verb, message) = match report.status {
        RunStatus::Running => ("run_started", "the run began".to_string()),
        RunStatus::Published => {
            ("run_finished", format!("{} added, {} changed, {} removed", report.added, report.changed, report.removed))
        }
        RunStatus::Unchanged => ("run_finished", "nothing changed".to_string()),
        RunStatus::Held => ("run_held", format!("{} removals wait for a person", report.removed)),
        RunStatus::Failed => ("run_failed", report.error.clone().unwrap_or_default()),
        RunStatus::Cancelled => ("run_cancelled", "the run was cancelled".to_string()),
        RunStatus::Interrupted => ("run_interrupted", "the process ended before the run did".to_string()),
    };
    Event::new(report.finished_at.unwrap_or(report.started_at), Subject::model(&report.model), verb, message).with(
        serde_json::json!({
            "run_id": report.run_id, "kind": report.kind, "status": report.status, "rows": report.rows,
            "added": report.added, "changed": report.changed, "removed": report.removed,
            "unchanged": report.unchanged, "quarantined": report.quarantined, "duration_ms": report.duration_ms,
        }),
    )
}

fn event_of(row: &SqliteRow) -> Result<Event, CatalogError> {
    let kind: &str = row.try_get("kind")?;
    Ok(Event {
        id: row.try_get("id")?,
        at: super::time(row.try_get("at")?),
        actor: row.try_get("actor")?,
        subject: Subject::new(
            SubjectKind::parse(kind).unwrap_or(SubjectKind::Project),
            row.try_get::<String, _>("subject")?,
        ),
        verb: row.try_get("verb")?,
        message: row.try_get("message")?,
        details: serde_json::from_str(row.try_get("details")?)?,
    })
}
