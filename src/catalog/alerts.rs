//! The tables of the alerts: cursor, incidents, deliveries.
//!
//! Invariant: the cursor moves, incidents begin and end, and messages become owed in one transaction ([`AlertLedger`]),
//! so that a crash neither repeats nor loses one.

use chrono::{DateTime, Utc};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row, Sqlite, Transaction};

use super::{Catalog, CatalogError, run_of, time};
use crate::alerts::definition::Condition;
use crate::alerts::notice::{Finding, Notice};
use crate::sync::report::{Hold, RunKind, RunReport, RunStatus};

/// A condition that lasts.
#[derive(Debug, Clone, PartialEq)]
pub struct Incident {
    pub rule: String,
    pub model: String,
    pub condition: Condition,
    /// Its id; all its messages carry it.
    pub id: String,
    pub since: DateTime<Utc>,
    /// When it was last told of.
    pub told_at: DateTime<Utc>,
    /// The newest.
    pub finding: Finding,
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryStatus {
    Owed,
    Delivered,
    GivenUp,
}

impl DeliveryStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Owed => "owed",
            Self::Delivered => "delivered",
            Self::GivenUp => "given_up",
        }
    }

    fn parse(word: &str) -> Self {
        match word {
            "delivered" => Self::Delivered,
            "given_up" => Self::GivenUp,
            _ => Self::Owed,
        }
    }
}

/// A message to one channel, and how far it got.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    pub id: String,
    pub channel: String,
    pub notice: Notice,
    pub status: DeliveryStatus,
    pub attempts: u32,
    pub created_at: DateTime<Utc>,
    pub due_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub error: Option<String>,
}

/// One reconciliation: everything that it writes becomes visible together.
#[derive(Debug)]
pub struct AlertLedger {
    tx: Transaction<'static, Sqlite>,
}

impl Catalog {
    /// Begins a reconciliation.
    pub async fn alert_ledger(&self) -> Result<AlertLedger, CatalogError> {
        Ok(AlertLedger { tx: self.pool.begin_with("BEGIN IMMEDIATE").await? })
    }

    /// Every condition that lasts.
    pub async fn alert_incidents(&self) -> Result<Vec<Incident>, CatalogError> {
        let rows = sqlx::query("SELECT * FROM alert_incidents ORDER BY since, incident").fetch_all(&self.pool).await?;
        rows.iter().filter_map(|row| incident_of(row).transpose()).collect()
    }

    /// Owed deliveries whose time has come. Of an incident and channel only the oldest: nobody is to hear of an end
    /// before the beginning.
    pub async fn due_deliveries(&self, now: DateTime<Utc>, limit: u32) -> Result<Vec<Delivery>, CatalogError> {
        let rows = sqlx::query(include_str!("../../sql/catalog/alert_deliveries_due.sql"))
            .bind(now.timestamp_micros())
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(delivery_of).collect()
    }

    /// When the next owed delivery is due.
    pub async fn next_delivery(&self) -> Result<Option<DateTime<Utc>>, CatalogError> {
        let due: Option<i64> = sqlx::query_scalar("SELECT MIN(due_at) FROM alert_deliveries WHERE status = 'owed'")
            .fetch_one(&self.pool)
            .await?;
        Ok(due.map(time))
    }

    /// The newest deliveries first; with `before`, those that were made before that moment (and delivery).
    pub async fn alert_deliveries(
        &self,
        before: Option<(DateTime<Utc>, &str)>,
        limit: usize,
    ) -> Result<Vec<Delivery>, CatalogError> {
        let rows = sqlx::query(include_str!("../../sql/catalog/alert_deliveries.sql"))
            .bind(before.map(|(at, _)| at.timestamp_micros()))
            .bind(before.map(|(_, id)| id))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(delivery_of).collect()
    }

    /// Notes that a delivery arrived.
    pub async fn delivered(&self, id: &str, now: DateTime<Utc>) -> Result<(), CatalogError> {
        sqlx::query(
            "UPDATE alert_deliveries SET status = 'delivered', attempts = attempts + 1, ended_at = ?2, error = NULL
             WHERE delivery_id = ?1",
        )
        .bind(id)
        .bind(now.timestamp_micros())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Notes a failed attempt, and when the next is due; without one the delivery is given up.
    pub async fn delivery_failed(
        &self,
        id: &str,
        error: &str,
        again_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Result<(), CatalogError> {
        sqlx::query(
            "UPDATE alert_deliveries SET attempts = attempts + 1, error = ?2, due_at = coalesce(?3, due_at),
                    status = CASE WHEN ?3 IS NULL THEN 'given_up' ELSE status END,
                    ended_at = CASE WHEN ?3 IS NULL THEN ?4 END
             WHERE delivery_id = ?1",
        )
        .bind(id)
        .bind(error)
        .bind(again_at.map(|at| at.timestamp_micros()))
        .bind(now.timestamp_micros())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Forgets deliveries that ended before `before`.
    pub async fn trim_deliveries(&self, before: DateTime<Utc>) -> Result<u64, CatalogError> {
        let done = sqlx::query("DELETE FROM alert_deliveries WHERE status <> 'owed' AND ended_at < ?1")
            .bind(before.timestamp_micros())
            .execute(&self.pool)
            .await?;
        Ok(done.rows_affected())
    }

    /// How many models have removals that wait for a person.
    pub async fn holds_waiting(&self) -> Result<u64, CatalogError> {
        let count: i64 =
            sqlx::query_scalar("SELECT count(*) FROM holds WHERE status = 'waiting'").fetch_one(&self.pool).await?;
        Ok(count.unsigned_abs())
    }
}

#[cfg(test)]
impl Catalog {
    pub(crate) fn pool(&self) -> &sqlx::SqlitePool {
        &self.pool
    }
}

impl AlertLedger {
    /// The runs that ended since the last look, oldest first, and the event to look from next time. The very first look
    /// finds none: what happened before there were alerts is nobody's news.
    pub async fn ended_runs(&mut self, limit: u32) -> Result<(Vec<RunReport>, i64, bool), CatalogError> {
        let cursor: Option<i64> =
            sqlx::query_scalar("SELECT event FROM alert_cursor").fetch_optional(&mut *self.tx).await?;
        let Some(cursor) = cursor else {
            let newest: i64 =
                sqlx::query_scalar("SELECT coalesce(max(id), 0) FROM events").fetch_one(&mut *self.tx).await?;
            return Ok((Vec::new(), newest, false));
        };
        let rows = sqlx::query(include_str!("../../sql/catalog/alert_ended_runs.sql"))
            .bind(cursor)
            .bind(limit)
            .fetch_all(&mut *self.tx)
            .await?;
        let newest = rows.last().map_or(Ok(cursor), |row| row.try_get("event"))?;
        let more = rows.len() as u64 == u64::from(limit);
        let runs = rows.iter().map(ended_of).collect::<Result<_, _>>()?;
        Ok((runs, newest, more))
    }

    pub async fn move_cursor(&mut self, event: i64) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT INTO alert_cursor (only, event) VALUES (1, ?1)
             ON CONFLICT (only) DO UPDATE SET event = ?1 WHERE event <> ?1",
        )
        .bind(event)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// The runs of a model before that one which compared a result, newest first.
    pub async fn runs_before(&mut self, run: &RunReport, limit: usize) -> Result<Vec<RunReport>, CatalogError> {
        let rows = sqlx::query(include_str!("../../sql/catalog/alert_runs_before.sql"))
            .bind(&run.model)
            .bind(run.started_at.timestamp_micros())
            .bind(&run.run_id)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(run_of).collect()
    }

    /// The removals that wait: the run that found them, since when, and how many.
    pub async fn waiting(&mut self) -> Result<Vec<(RunReport, DateTime<Utc>, Hold)>, CatalogError> {
        let rows = sqlx::query(
            "SELECT runs.*, holds.hold AS hold, holds.held_at AS held_at
             FROM holds JOIN runs ON runs.run_id = holds.run_id WHERE holds.status = 'waiting'",
        )
        .fetch_all(&mut *self.tx)
        .await?;
        let hold = |row: &SqliteRow| -> Result<Hold, CatalogError> { Ok(serde_json::from_str(row.try_get("hold")?)?) };
        rows.iter().map(|row| Ok((run_of(row)?, time(row.try_get("held_at")?), hold(row)?))).collect()
    }

    /// When a run of each model began last.
    pub async fn last_starts(&mut self) -> Result<Vec<(String, DateTime<Utc>)>, CatalogError> {
        let rows = sqlx::query("SELECT model, max(started_at) AS at FROM runs WHERE kind = 'sync' GROUP BY model")
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| Ok((row.try_get("model")?, time(row.try_get("at")?)))).collect()
    }

    pub async fn incidents(&mut self) -> Result<Vec<Incident>, CatalogError> {
        let rows = sqlx::query("SELECT * FROM alert_incidents").fetch_all(&mut *self.tx).await?;
        rows.iter().filter_map(|row| incident_of(row).transpose()).collect()
    }

    /// Writes an incident as it is now.
    pub async fn put_incident(&mut self, incident: &Incident) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT INTO alert_incidents (rule, model, condition, incident, since, told_at, finding)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (rule, model, condition) DO UPDATE SET incident = ?4, since = ?5, told_at = ?6, finding = ?7",
        )
        .bind(&incident.rule)
        .bind(&incident.model)
        .bind(incident.condition.as_str())
        .bind(&incident.id)
        .bind(incident.since.timestamp_micros())
        .bind(incident.told_at.timestamp_micros())
        .bind(serde_json::to_string(&incident.finding)?)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    pub async fn remove_incident(&mut self, rule: &str, model: &str, condition: Condition) -> Result<(), CatalogError> {
        sqlx::query("DELETE FROM alert_incidents WHERE rule = ?1 AND model = ?2 AND condition = ?3")
            .bind(rule)
            .bind(model)
            .bind(condition.as_str())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Owes a message to a channel.
    pub async fn owe(&mut self, channel: &str, notice: &Notice) -> Result<(), CatalogError> {
        sqlx::query(
            "INSERT INTO alert_deliveries (delivery_id, channel, incident, notice, status, created_at, due_at)
             VALUES (?1, ?2, ?3, ?4, 'owed', ?5, ?5)",
        )
        .bind(&notice.id)
        .bind(channel)
        .bind(&notice.incident)
        .bind(serde_json::to_string(notice)?)
        .bind(notice.at.timestamp_micros())
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    pub async fn commit(self) -> Result<(), CatalogError> {
        Ok(self.tx.commit().await?)
    }
}

/// The run that an event tells the end of.
fn ended_of(row: &SqliteRow) -> Result<RunReport, CatalogError> {
    if row.try_get::<Option<&str>, _>("run_id")?.is_some() {
        return run_of(row);
    }
    let (id, at) = (row.try_get::<Option<String>, _>("id")?.unwrap_or_default(), time(row.try_get("at")?));
    let mut report = RunReport::new(id, row.try_get("subject")?, RunKind::Sync, at);
    report.error = Some(row.try_get("message")?);
    report.hint = row.try_get("hint")?;
    report.finish(RunStatus::Failed, at);
    Ok(report)
}

/// None: of a condition that this version does not know.
fn incident_of(row: &SqliteRow) -> Result<Option<Incident>, CatalogError> {
    let Some(condition) = Condition::parse(row.try_get("condition")?) else { return Ok(None) };
    Ok(Some(Incident {
        rule: row.try_get("rule")?,
        model: row.try_get("model")?,
        condition,
        id: row.try_get("incident")?,
        since: time(row.try_get("since")?),
        told_at: time(row.try_get("told_at")?),
        finding: serde_json::from_str(row.try_get("finding")?)?,
    }))
}

fn delivery_of(row: &SqliteRow) -> Result<Delivery, CatalogError> {
    Ok(Delivery {
        id: row.try_get("delivery_id")?,
        channel: row.try_get("channel")?,
        notice: serde_json::from_str(row.try_get("notice")?)?,
        status: DeliveryStatus::parse(row.try_get("status")?),
        attempts: row.try_get("attempts")?,
        created_at: time(row.try_get("created_at")?),
        due_at: time(row.try_get("due_at")?),
        ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(time),
        error: row.try_get("error")?,
    })
}
