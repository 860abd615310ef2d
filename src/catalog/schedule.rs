//! When models are due, and the work that waits or is under way.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Catalog, CatalogError};
use crate::events::Event;
use crate::sync::report::RunStatus;

/// What is known of a model's schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    pub model: String,
    /// The schedule that `next_due_at` was reckoned with; none: the model has none, or is not active.
    pub schedule: Option<String>,
    pub paused: bool,
    /// The due time that was queued last.
    pub last_due_at: Option<DateTime<Utc>>,
    pub next_due_at: Option<DateTime<Utc>>,
    /// How long after its due time the model is queued.
    pub jitter: TimeDelta,
    /// When `next_due_at` was reckoned.
    pub reckoned_at: DateTime<Utc>,
    pub last_started_at: Option<DateTime<Utc>>,
    /// The due time whose lateness was told.
    pub late_for: Option<DateTime<Utc>>,
}

/// Why a run is to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its time came.
    Schedule,
    /// Somebody asked for it.
    Manual,
    /// The run before was cut short.
    Retry,
}

impl Cause {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
            Self::Retry => "retry",
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "manual" => Self::Manual,
            "retry" => Self::Retry,
            _ => Self::Schedule,
        }
    }
}

/// A run that is to be, or is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkRow {
    pub model: String,
    pub run_id: String,
    /// First in, first out.
    pub place: i64,
    pub cause: Cause,
    /// Who asked for it; `scheduler` when its time came.
    pub actor: String,
    /// The due time that it answers.
    pub due_at: Option<DateTime<Utc>>,
    pub queued_at: DateTime<Utc>,
    /// None: it waits.
    pub taken_at: Option<DateTime<Utc>>,
    /// How many processes took it.
    pub attempts: u32,
    /// Somebody asked for its end.
    pub stopped: bool,
}

/// One change of what the scheduler knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScheduleChange {
    Schedule(ScheduleRow),
    /// The model is gone, and nothing of its schedule needs to be kept.
    Forgotten(String),
    Work(WorkRow),
    /// The model's work came to its end, or was taken back.
    Done(String),
}

impl Catalog {
    pub async fn schedules(&self) -> Result<Vec<ScheduleRow>, CatalogError> {
        let rows = sqlx::query("SELECT * FROM schedules ORDER BY model").fetch_all(&self.pool).await?;
        rows.iter().map(schedule_of).collect()
    }

    /// What waits or is under way, first in first.
    pub async fn work(&self) -> Result<Vec<WorkRow>, CatalogError> {
        let rows = sqlx::query("SELECT * FROM work ORDER BY place").fetch_all(&self.pool).await?;
        rows.iter().map(work_of).collect()
    }

    /// Records all of these changes and events, or none.
    pub async fn change_schedule(&self, changes: &[ScheduleChange], events: &[Event]) -> Result<(), CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for change in changes {
            let query = match change {
                ScheduleChange::Schedule(row) => sqlx::query(include_str!("../../sql/catalog/put_schedule.sql"))
                    .bind(&row.model)
                    .bind(&row.schedule)
                    .bind(row.paused)
                    .bind(micros(row.last_due_at))
                    .bind(micros(row.next_due_at))
                    .bind(row.jitter.num_microseconds().unwrap_or_default())
                    .bind(row.reckoned_at.timestamp_micros())
                    .bind(micros(row.last_started_at))
                    .bind(micros(row.late_for)),
                ScheduleChange::Forgotten(model) => sqlx::query("DELETE FROM schedules WHERE model = ?1").bind(model),
                ScheduleChange::Work(row) => sqlx::query(include_str!("../../sql/catalog/put_work.sql"))
                    .bind(&row.model)
                    .bind(&row.run_id)
                    .bind(row.place)
                    .bind(row.cause.as_str())
                    .bind(&row.actor)
                    .bind(micros(row.due_at))
                    .bind(row.queued_at.timestamp_micros())
                    .bind(micros(row.taken_at))
                    .bind(row.attempts)
                    .bind(row.stopped),
                ScheduleChange::Done(model) => sqlx::query("DELETE FROM work WHERE model = ?1").bind(model),
            };
            query.execute(&mut *tx).await?;
        }
        for event in events {
            super::events::insert(&mut tx, event).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// When each model's last comparison began, by whomever.
    pub async fn last_starts(&self) -> Result<BTreeMap<String, DateTime<Utc>>, CatalogError> {
        let rows = sqlx::query("SELECT model, MAX(started_at) AS at FROM runs WHERE kind = 'sync' GROUP BY model")
            .fetch_all(&self.pool)
            .await?;
        let start = |row: &SqliteRow| Ok((row.try_get("model")?, time(row, "at")?.unwrap_or_default()));
        rows.iter().map(start).collect()
    }

    /// The runs that began and neither ended nor were cleaned up after, of all models: (model, run id).
    pub async fn unfinished(&self) -> Result<Vec<(String, String)>, CatalogError> {
        Ok(sqlx::query_as("SELECT model, run_id FROM runs WHERE status = 'running'").fetch_all(&self.pool).await?)
    }

    /// How the run stands, if it ever began.
    pub async fn run_status(&self, run_id: &str) -> Result<Option<RunStatus>, CatalogError> {
        let status: Option<String> = sqlx::query_scalar("SELECT status FROM runs WHERE run_id = ?1")
            .bind(run_id)
            .fetch_optional(&self.pool)
            .await?;
        Ok(status.map(|status| RunStatus::parse(&status)))
    }
}

fn micros(time: Option<DateTime<Utc>>) -> Option<i64> {
    time.map(|time| time.timestamp_micros())
}

fn time(row: &SqliteRow, column: &str) -> Result<Option<DateTime<Utc>>, CatalogError> {
    let micros: Option<i64> = row.try_get(column)?;
    Ok(micros.and_then(DateTime::from_timestamp_micros))
}

fn schedule_of(row: &SqliteRow) -> Result<ScheduleRow, CatalogError> {
    Ok(ScheduleRow {
        model: row.try_get("model")?,
        schedule: row.try_get("schedule")?,
        paused: row.try_get("paused")?,
        last_due_at: time(row, "last_due_at")?,
        next_due_at: time(row, "next_due_at")?,
        jitter: TimeDelta::microseconds(row.try_get("jitter")?),
        reckoned_at: time(row, "reckoned_at")?.unwrap_or_default(),
        last_started_at: time(row, "last_started_at")?,
        late_for: time(row, "late_for")?,
    })
}

fn work_of(row: &SqliteRow) -> Result<WorkRow, CatalogError> {
    Ok(WorkRow {
        model: row.try_get("model")?,
        run_id: row.try_get("run_id")?,
        place: row.try_get("place")?,
        cause: Cause::parse(row.try_get("cause")?),
        actor: row.try_get("actor")?,
        due_at: time(row, "due_at")?,
        queued_at: time(row, "queued_at")?.unwrap_or_default(),
        taken_at: time(row, "taken_at")?,
        attempts: row.try_get("attempts")?,
        stopped: row.try_get("stopped")?,
    })
}
