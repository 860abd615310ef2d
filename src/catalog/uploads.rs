//! Uploads, and collected events that wait to become part of one.
//!
//! Invariants: an upload's end, its publication and the end of the events that it took are one transaction, so an event
//! is in the journal or in a visible commit, never in both and never in neither; of the uploads of a stream with one
//! idempotency key at most one is under way or done.

use chrono::{DateTime, Utc};
use futures::TryStreamExt;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::publications::{self, Versions};
use super::{Catalog, CatalogError, events};
use crate::events::{Event, Subject, SubjectKind};
use crate::store::{TableId, Version};
use crate::uploads::{Batch, Source, UploadReport, UploadStatus};

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CollectedEvent {
    pub id: i64,
    /// Microseconds.
    pub received_at: i64,
    /// One JSON object, in one line.
    pub event: String,
}

/// What waits in the journal for one stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Journalled {
    pub stream: String,
    pub events: u64,
    pub bytes: u64,
}

/// What an upload made visible.
#[derive(Debug, Clone, Copy)]
pub struct UploadPublication<'a> {
    pub report: &'a UploadReport,
    /// None: it published nothing, only its record changes.
    pub stream_version: Option<Version>,
    pub identities_version: Option<Version>,
    pub changes_version: Option<Version>,
    /// The last event that it took from the journal.
    pub collected_until: Option<i64>,
}

impl Catalog {
    /// Records that an upload began.
    pub async fn begin_upload(
        &self,
        report: &UploadReport,
        key: Option<&str>,
        content_hash: Option<&str>,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT INTO uploads (upload_id, stream, source, status, idempotency_key, content_hash, started_at, report)
             VALUES (?1, ?2, ?3, 'running', ?4, ?5, ?6, ?7)",
        )
        .bind(&report.id)
        .bind(&report.stream)
        .bind(report.source.as_str())
        .bind(key)
        .bind(content_hash)
        .bind(report.started_at.timestamp_micros())
        .bind(serde_json::to_string(report)?)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Records an upload's end and what it made visible, in one transaction. Repeating it changes nothing.
    pub async fn finish_upload(&self, publication: UploadPublication<'_>) -> Result<(), CatalogError> {
        let report = publication.report;
        let finished = report.finished_at.unwrap_or(report.started_at).timestamp_micros();
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let ended: bool =
            sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM uploads WHERE upload_id = ?1 AND status <> 'running')")
                .bind(&report.id)
                .fetch_one(&mut *tx)
                .await?;
        // events of a journal are too many to be told one by one; that they failed is told
        if !ended && (report.source == Source::Upload || report.status == UploadStatus::Failed) {
            events::insert(&mut tx, &upload_ended(report)).await?;
        }
        sqlx::query(
            "INSERT INTO uploads (upload_id, stream, source, status, started_at, finished_at, report)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (upload_id) DO UPDATE SET status = ?4, finished_at = ?6, report = ?7",
        )
        .bind(&report.id)
        .bind(&report.stream)
        .bind(report.source.as_str())
        .bind(report.status.as_str())
        .bind(report.started_at.timestamp_micros())
        .bind(finished)
        .bind(serde_json::to_string(report)?)
        .execute(&mut *tx)
        .await?;
        if let Some(version) = publication.stream_version {
            let table = TableId::Stream(report.stream.clone()).folder();
            let versions = Versions {
                records: version,
                identities: publication.identities_version,
                changes: publication.changes_version,
            };
            publications::insert(&mut tx, &report.id, &table, finished, versions).await?;
        }
        if let Some(until) = publication.collected_until {
            sqlx::query("DELETE FROM collected WHERE stream = ?1 AND id <= ?2")
                .bind(&report.stream)
                .bind(until)
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// Marks an upload whose process is gone.
    pub async fn interrupted_upload(&self, id: &str, now: DateTime<Utc>) -> Result<(), CatalogError> {
        sqlx::query(
            "UPDATE uploads SET status = 'interrupted', finished_at = ?2 WHERE upload_id = ?1 AND status = 'running'",
        )
        .bind(id)
        .bind(now.timestamp_micros())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The upload of that key which is done or under way, and its content's hash.
    pub async fn upload_of_key(
        &self,
        stream: &str,
        key: &str,
    ) -> Result<Option<(UploadReport, Option<String>)>, CatalogError> {
        let row = sqlx::query(
            "SELECT * FROM uploads WHERE stream = ?1 AND idempotency_key = ?2 AND status IN ('running', 'published', 'unchanged')",
        )
        .bind(stream)
        .bind(key)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok((upload_of(&row)?, row.try_get("content_hash")?))).transpose()
    }

    /// One upload.
    pub async fn upload(&self, id: &str) -> Result<Option<UploadReport>, CatalogError> {
        let row = sqlx::query("SELECT * FROM uploads WHERE upload_id = ?1").bind(id).fetch_optional(&self.pool).await?;
        row.as_ref().map(upload_of).transpose()
    }

    /// The newest uploads first, of one stream or of all; `before` is the id of the last one that was seen.
    pub async fn uploads(
        &self,
        stream: Option<&str>,
        before: Option<&str>,
        limit: u32,
    ) -> Result<Vec<UploadReport>, CatalogError> {
        // ids are made in the order of time
        let rows = sqlx::query(
            "SELECT * FROM uploads WHERE (?1 IS NULL OR stream = ?1) AND (?2 IS NULL OR upload_id < ?2)
             ORDER BY upload_id DESC LIMIT ?3",
        )
        .bind(stream)
        .bind(before)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(upload_of).collect()
    }

    /// Uploads of the stream that began and neither ended nor were cleaned up after.
    pub async fn running_uploads(&self, stream: &str) -> Result<Vec<String>, CatalogError> {
        Ok(sqlx::query_scalar("SELECT upload_id FROM uploads WHERE stream = ?1 AND status = 'running'")
            .bind(stream)
            .fetch_all(&self.pool)
            .await?)
    }

    /// The streams whose uploads began and neither ended nor were cleaned up after.
    pub async fn unfinished_uploads(&self) -> Result<Vec<String>, CatalogError> {
        Ok(sqlx::query_scalar("SELECT DISTINCT stream FROM uploads WHERE status = 'running'")
            .fetch_all(&self.pool)
            .await?)
    }

    /// Every stream that has an upload.
    pub async fn streams(&self) -> Result<Vec<String>, CatalogError> {
        Ok(sqlx::query_scalar("SELECT DISTINCT stream FROM uploads ORDER BY stream").fetch_all(&self.pool).await?)
    }

    /// Takes events into the journal; they are on disk when this returns.
    pub async fn journal_events(&self, batches: &[Batch]) -> Result<(), CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for batch in batches {
            for event in &batch.events {
                sqlx::query("INSERT INTO collected (stream, received_at, event) VALUES (?1, ?2, ?3)")
                    .bind(&batch.stream)
                    .bind(batch.received_at.timestamp_micros())
                    .bind(event)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// The oldest events of a stream: so many, and so many bytes (the last one may exceed them), at most.
    pub async fn journalled_events(
        &self,
        stream: &str,
        limit: u32,
        max_bytes: usize,
    ) -> Result<Vec<CollectedEvent>, CatalogError> {
        let mut rows =
            sqlx::query("SELECT id, received_at, event FROM collected WHERE stream = ?1 ORDER BY id LIMIT ?2")
                .bind(stream)
                .bind(limit)
                .fetch(&self.pool);
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < max_bytes
            && let Some(row) = rows.try_next().await?
        {
            let event: String = row.try_get("event")?;
            bytes += event.len();
            events.push(CollectedEvent { id: row.try_get("id")?, received_at: row.try_get("received_at")?, event });
        }
        Ok(events)
    }

    /// The streams whose events wait.
    pub async fn journalled_streams(&self) -> Result<Vec<Journalled>, CatalogError> {
        let statement = "SELECT stream, COUNT(*) AS events, SUM(LENGTH(CAST(event AS BLOB))) AS bytes FROM collected
                         GROUP BY stream ORDER BY stream";
        let rows = sqlx::query(statement).fetch_all(&self.pool).await?;
        let number = |row: &SqliteRow, name: &str| row.try_get::<i64, _>(name).map(|n| n as u64);
        let stream = |row: &SqliteRow| {
            Ok(Journalled {
                stream: row.try_get("stream")?,
                events: number(row, "events")?,
                bytes: number(row, "bytes")?,
            })
        };
        rows.iter().map(stream).collect()
    }
}

/// What the trail says of an upload's end.
fn upload_ended(report: &UploadReport) -> Event {
    let (verb, message) = match &report.error {
        Some(error) => ("upload_failed", format!("the upload to stream `{}` failed: {error}", report.stream)),
        None => ("upload_finished", format!("{} rows were uploaded to stream `{}`", report.rows, report.stream)),
    };
    let details = serde_json::json!({
        "stream": report.stream,
        "status": report.status,
        "rows": report.rows,
        "quarantined": report.quarantined,
        "profiles_created": report.profiles_created,
        "profiles_matched": report.profiles_matched,
    });
    let at = report.finished_at.unwrap_or(report.started_at);
    Event::new(at, Subject::new(SubjectKind::Upload, &report.id), verb, message).by(&report.actor).with(details)
}

fn upload_of(row: &SqliteRow) -> Result<UploadReport, CatalogError> {
    let report: UploadReport = serde_json::from_str(row.try_get("report")?)?;
    let finished: Option<i64> = row.try_get("finished_at")?;
    Ok(UploadReport {
        status: UploadStatus::parse(row.try_get("status")?),
        source: Source::parse(row.try_get("source")?),
        finished_at: finished.and_then(DateTime::from_timestamp_micros),
        ..report
    })
}
