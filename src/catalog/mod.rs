//! The catalog in SQLite: runs, publications and holds; and what the service keeps ([`definitions`],
//! [`authorizations`], [`events`] …).
//!
//! Invariants: a publication row is written in one transaction with its run's end and its hold, so a reader sees all of
//! a run or nothing of it. Where the catalog is lost, the next command takes the newest state from the commits in the
//! store (`sync::publish`); what earlier moments looked like, and holds that waited, are lost with it.

pub mod alerts;
pub mod authorizations;
pub mod definitions;
pub mod events;
pub mod history;
pub mod idempotency;
pub mod people;
mod publications;
pub mod schedule;
mod uploads;
pub mod usage;

use std::path::Path;
use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow, SqliteSynchronous};
use sqlx::{Row, SqlitePool};

pub use publications::Published;
use publications::Versions;

use crate::store::{Cut, TableId, Version};
use crate::sync::report::{Hold, HoldStatus, RunReport, RunStatus};
pub use uploads::{CollectedEvent, Journalled, UploadPublication};

/// What can go wrong in the catalog.
/// Connections to the file, each with a thread.
const CONNECTIONS: u32 = 4;

#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("catalog: {0}")]
    Database(#[from] sqlx::Error),
    #[error("catalog: {0}")]
    Migration(sqlx::migrate::MigrateError),
    #[error("the catalog was written by a newer cloud-connect: its migration {0} is not known here")]
    Newer(i64),
    #[error("catalog: a report cannot be read: {0}")]
    Report(#[from] serde_json::Error),
    #[error("no run `{0}`")]
    NoSuchRun(String),
    #[error("several runs begin with `{0}`")]
    AmbiguousRun(String),
    #[error("`{0}` is neither a run's id nor a time")]
    NotAMoment(String),
}

impl From<sqlx::migrate::MigrateError> for CatalogError {
    fn from(e: sqlx::migrate::MigrateError) -> Self {
        match e {
            sqlx::migrate::MigrateError::VersionMissing(version) => Self::Newer(version),
            other => Self::Migration(other),
        }
    }
}

/// A moment in the past, as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AsOf {
    /// As this run left things.
    Run(String),
    Time(DateTime<Utc>),
}

impl std::str::FromStr for AsOf {
    type Err = CatalogError;

    /// A run's id (or its beginning), an RFC 3339 time, or a date (its first moment, UTC).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(time) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self::Time(time.with_timezone(&Utc)));
        }
        if let Some(midnight) = text.parse::<chrono::NaiveDate>().ok().and_then(|d| d.and_hms_opt(0, 0, 0)) {
            return Ok(Self::Time(midnight.and_utc()));
        }
        let looks_like_an_id = text.len() >= 6 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if looks_like_an_id { Ok(Self::Run(text.to_string())) } else { Err(CatalogError::NotAMoment(text.into())) }
    }
}

/// A publication to record.
#[derive(Debug)]
pub struct Publication<'a> {
    pub report: &'a RunReport,
    /// None: the run published nothing, only its record changes.
    pub records_version: Option<Version>,
    pub identities_version: Option<Version>,
    pub changes_version: Option<Version>,
    /// Removals that the run left waiting.
    pub hold: Option<&'a Hold>,
    /// The hold that this run ends, and how.
    pub ends: Option<(&'a str, HoldStatus)>,
}

impl<'a> Publication<'a> {
    /// The end of a run that made nothing visible.
    pub fn of_nothing(report: &'a RunReport, hold: Option<&'a Hold>) -> Self {
        Self { report, records_version: None, identities_version: None, changes_version: None, hold, ends: None }
    }
}

/// The opened catalog.
#[derive(Debug, Clone)]
pub struct Catalog {
    pool: SqlitePool,
}

impl Catalog {
    /// Opens the catalog, creating or migrating it.
    pub async fn open(file: &Path) -> Result<Self, CatalogError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(30));
        // kept for good: see [`Catalog::open_all_connections`]
        let pool = SqlitePoolOptions::new().max_connections(CONNECTIONS).idle_timeout(None).max_lifetime(None);
        let pool = pool.connect_with(options).await?;
        sqlx::migrate!("sql/catalog/migrations").run(&pool).await?;
        Ok(Self { pool })
    }

    /// Opens all connections now. Each has a thread of its own, which stands as high as the thread that first wanted it:
    /// one opened for a run would keep those waiting who want an answer ([`crate::workers`]).
    pub async fn open_all_connections(&self) -> Result<(), CatalogError> {
        futures::future::try_join_all((0..CONNECTIONS).map(|_| self.pool.acquire())).await?;
        Ok(())
    }

    /// A catalog that is there, as it is: to read, and nothing else.
    pub async fn look_into(file: &Path) -> Result<Self, CatalogError> {
        let options = SqliteConnectOptions::new().filename(file).read_only(true).busy_timeout(Duration::from_secs(30));
        Ok(Self { pool: SqlitePoolOptions::new().max_connections(1).connect_with(options).await? })
    }

    /// Does it answer?
    pub async fn is_alive(&self) -> Result<(), CatalogError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Records that a run began.
    pub async fn begin(&self, report: &RunReport) -> Result<(), CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("INSERT INTO runs (run_id, model, kind, status, started_at) VALUES (?1, ?2, ?3, 'running', ?4)")
            .bind(&report.run_id)
            .bind(&report.model)
            .bind(report.kind.as_str())
            .bind(report.started_at.timestamp_micros())
            .execute(&mut *tx)
            .await?;
        events::insert(&mut tx, &events::run_ended(report)).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Records a run's end and what it made visible, in one transaction. Repeating it changes nothing.
    /// Returns the runs whose holds it superseded.
    pub async fn finish(&self, publication: &Publication<'_>) -> Result<Vec<String>, CatalogError> {
        let report = publication.report;
        let finished = report.finished_at.unwrap_or(report.started_at).timestamp_micros();
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        // repeated by recovery: the trail tells an end once
        let known: Option<String> = sqlx::query_scalar("SELECT status FROM runs WHERE run_id = ?1")
            .bind(&report.run_id)
            .fetch_optional(&mut *tx)
            .await?;
        if known.as_deref() != Some(report.status.as_str()) {
            events::insert(&mut tx, &events::run_ended(report)).await?;
        }
        sqlx::query(
            "INSERT INTO runs (run_id, model, kind, status, started_at, finished_at, report) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT (run_id) DO UPDATE SET status = ?4, finished_at = ?6, report = ?7",
        )
        .bind(&report.run_id)
        .bind(&report.model)
        .bind(report.kind.as_str())
        .bind(report.status.as_str())
        .bind(report.started_at.timestamp_micros())
        .bind(finished)
        .bind(serde_json::to_string(report)?)
        .execute(&mut *tx)
        .await?;
        if let Some(version) = publication.records_version {
            let versions = Versions {
                records: version,
                identities: publication.identities_version,
                changes: publication.changes_version,
            };
            publications::insert(&mut tx, &report.run_id, &report.model, finished, versions).await?;
        }
        let compared = matches!(report.status, RunStatus::Published | RunStatus::Unchanged | RunStatus::Held);
        let mut superseded = Vec::new();
        if let Some((run_id, status)) = publication.ends {
            sqlx::query("UPDATE holds SET status = ?2, ended_at = ?3 WHERE run_id = ?1 AND status = 'waiting'")
                .bind(run_id)
                .bind(status.as_str())
                .bind(finished)
                .execute(&mut *tx)
                .await?;
        } else if compared {
            // a newer comparison says anew what is to be removed
            superseded = sqlx::query_scalar(
                "UPDATE holds SET status = 'superseded', ended_at = ?3 WHERE model = ?1 AND status = 'waiting' AND run_id <> ?2
                 RETURNING run_id",
            )
            .bind(&report.model)
            .bind(&report.run_id)
            .bind(finished)
            .fetch_all(&mut *tx)
            .await?;
        }
        if let Some(hold) = publication.hold {
            sqlx::query(
                "INSERT INTO holds (run_id, model, status, hold, held_at) VALUES (?1, ?2, 'waiting', ?3, ?4)
                 ON CONFLICT (run_id) DO NOTHING",
            )
            .bind(&report.run_id)
            .bind(&report.model)
            .bind(serde_json::to_string(hold)?)
            .bind(finished)
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(superseded)
    }

    /// Ends a waiting hold without a run.
    pub async fn end_hold(&self, run_id: &str, status: HoldStatus, now: DateTime<Utc>) -> Result<(), CatalogError> {
        sqlx::query("UPDATE holds SET status = ?2, ended_at = ?3 WHERE run_id = ?1 AND status = 'waiting'")
            .bind(run_id)
            .bind(status.as_str())
            .bind(now.timestamp_micros())
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The newest record-store version that is visible.
    pub async fn published_version(&self, model: &str) -> Result<Option<Version>, CatalogError> {
        let version: Option<i64> = sqlx::query_scalar("SELECT MAX(records_version) FROM publications WHERE model = ?1")
            .bind(model)
            .fetch_one(&self.pool)
            .await?;
        Ok(version.map(|v| v as Version))
    }

    /// Runs that began and neither ended nor were cleaned up after.
    pub async fn running(&self, model: &str) -> Result<Vec<String>, CatalogError> {
        Ok(sqlx::query_scalar("SELECT run_id FROM runs WHERE model = ?1 AND status = 'running'")
            .bind(model)
            .fetch_all(&self.pool)
            .await?)
    }

    /// Every model that has a run.
    pub async fn models(&self) -> Result<Vec<String>, CatalogError> {
        Ok(sqlx::query_scalar("SELECT DISTINCT model FROM runs ORDER BY model").fetch_all(&self.pool).await?)
    }

    /// Marks a run whose process is gone.
    pub async fn interrupted(&self, run_id: &str, now: DateTime<Utc>) -> Result<(), CatalogError> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "UPDATE runs SET status = 'interrupted', finished_at = ?2 WHERE run_id = ?1 AND status = 'running' RETURNING *",
        )
        .bind(run_id)
        .bind(now.timestamp_micros())
        .fetch_optional(&mut *tx)
        .await?;
        if let Some(row) = row {
            events::insert(&mut tx, &events::run_ended(&run_of(&row)?)).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The newest runs first, of one model or of all.
    pub async fn runs(&self, model: Option<&str>, limit: u32) -> Result<Vec<RunReport>, CatalogError> {
        let rows = sqlx::query(
            "SELECT * FROM runs WHERE ?1 IS NULL OR model = ?1 ORDER BY started_at DESC, run_id DESC LIMIT ?2",
        )
        .bind(model)
        .bind(limit)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(run_of).collect()
    }

    /// One run, by its id or an unambiguous beginning of it.
    pub async fn run(&self, run_id: &str) -> Result<RunReport, CatalogError> {
        let rows = sqlx::query("SELECT * FROM runs WHERE run_id = ?1 OR substr(run_id, 1, length(?1)) = ?1 LIMIT 2")
            .bind(run_id)
            .fetch_all(&self.pool)
            .await?;
        match rows.as_slice() {
            [row] => run_of(row),
            [_, _] => Err(CatalogError::AmbiguousRun(run_id.into())),
            _ => Err(CatalogError::NoSuchRun(run_id.into())),
        }
    }

    /// The hold that a run left, with its state.
    pub async fn hold(&self, run_id: &str) -> Result<Option<(Hold, HoldStatus)>, CatalogError> {
        let row = sqlx::query("SELECT hold, status FROM holds WHERE run_id = ?1")
            .bind(run_id)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| hold_of(&row)).transpose()
    }

    /// The removals of a model that wait for a person: the run that found them, and the hold.
    pub async fn waiting_hold(&self, model: &str) -> Result<Option<(String, Hold)>, CatalogError> {
        let row = sqlx::query("SELECT run_id, hold, status FROM holds WHERE model = ?1 AND status = 'waiting'")
            .bind(model)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok((row.try_get("run_id")?, hold_of(&row)?.0))).transpose()
    }

    /// The cut that is visible now, or was at a moment.
    pub async fn cut(&self, as_of: Option<&AsOf>) -> Result<Cut, CatalogError> {
        let seq: Option<i64> = match as_of {
            None => sqlx::query_scalar("SELECT MAX(seq) FROM publications").fetch_one(&self.pool).await?,
            Some(AsOf::Time(time)) => {
                sqlx::query_scalar("SELECT MAX(seq) FROM publications WHERE published_at <= ?1")
                    .bind(time.timestamp_micros())
                    .fetch_one(&self.pool)
                    .await?
            }
            Some(AsOf::Run(run_id)) => {
                // an upload publishes as a run does
                let run = match self.upload(run_id).await? {
                    Some(upload) => (upload.id, upload.finished_at.unwrap_or(upload.started_at)),
                    None => {
                        let run = self.run(run_id).await?;
                        (run.run_id, run.finished_at.unwrap_or(run.started_at))
                    }
                };
                let own: Option<i64> = sqlx::query_scalar("SELECT MAX(seq) FROM publications WHERE run_id = ?1")
                    .bind(&run.0)
                    .fetch_one(&self.pool)
                    .await?;
                match own {
                    Some(seq) => Some(seq),
                    None => {
                        sqlx::query_scalar("SELECT MAX(seq) FROM publications WHERE published_at <= ?1")
                            .bind(run.1.timestamp_micros())
                            .fetch_one(&self.pool)
                            .await?
                    }
                }
            }
        };
        let Some(seq) = seq else { return Ok(Cut::default()) };
        let mut cut = Cut::default();
        let rows = sqlx::query(include_str!("../../sql/catalog/cut.sql")).bind(seq).fetch_all(&self.pool).await?;
        for row in rows {
            let (name, version) = (row.try_get::<String, _>("model")?, row.try_get::<i64, _>("records_version")?);
            match TableId::stream_of_folder(&name) {
                Some(stream) => cut.streams.insert(stream.to_string(), version as Version),
                None => cut.records.insert(name, version as Version),
            };
        }
        let shared =
            sqlx::query(include_str!("../../sql/catalog/shared_versions.sql")).bind(seq).fetch_one(&self.pool).await?;
        cut.identities = shared.try_get::<Option<i64>, _>("identities_version")?.map(|v| v as Version);
        cut.changes = shared.try_get::<Option<i64>, _>("changes_version")?.map(|v| v as Version);
        Ok(cut)
    }
}

/// A time as stored: microseconds since 1970 UTC.
fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or_default()
}

fn hold_of(row: &SqliteRow) -> Result<(Hold, HoldStatus), CatalogError> {
    let hold = serde_json::from_str(row.try_get("hold")?)?;
    Ok((hold, HoldStatus::parse(row.try_get("status")?)))
}

fn run_of(row: &SqliteRow) -> Result<RunReport, CatalogError> {
    let status = RunStatus::parse(row.try_get("status")?);
    let report: Option<String> = row.try_get("report")?;
    if let Some(report) = report {
        return Ok(RunReport { status, ..serde_json::from_str(&report)? });
    }
    let time = |column: &str| -> Result<Option<DateTime<Utc>>, CatalogError> {
        let micros: Option<i64> = row.try_get(column)?;
        Ok(micros.and_then(DateTime::from_timestamp_micros))
    };
    let started = time("started_at")?.unwrap_or_default();
    let kind = crate::sync::report::RunKind::parse(row.try_get("kind")?);
    let mut report = RunReport::new(row.try_get("run_id")?, row.try_get("model")?, kind, started);
    report.status = status;
    report.finished_at = time("finished_at")?;
    Ok(report)
}
