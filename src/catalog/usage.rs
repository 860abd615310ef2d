//! How much the models of a connection read.

use chrono::{DateTime, NaiveDate, Utc};
use sqlx::Row;

use super::{Catalog, CatalogError};

/// What was read on one day (UTC).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayOfUse {
    pub day: NaiveDate,
    /// Runs that began on it.
    pub runs: u64,
    /// Rows that their queries returned.
    pub rows: u64,
}

impl Catalog {
    /// The rows that the queries of these models returned, by the day on which their runs began. Days without a run
    /// are left out.
    pub async fn rows_per_day(&self, models: &[&str], since: DateTime<Utc>) -> Result<Vec<DayOfUse>, CatalogError> {
        let rows = sqlx::query(include_str!("../../sql/catalog/rows_per_day.sql"))
            .bind(serde_json::to_string(models)?)
            .bind(since.timestamp_micros())
            .fetch_all(&self.pool)
            .await?;
        let count = |n: i64| u64::try_from(n).unwrap_or(0);
        rows.iter()
            .map(|row| {
                Ok(DayOfUse {
                    day: row.try_get::<&str, _>("day")?.parse().unwrap_or_default(),
                    runs: count(row.try_get("runs")?),
                    rows: count(row.try_get("rows_queried")?),
                })
            })
            .collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::catalog::Publication;
    use crate::sync::report::{RunKind, RunReport, RunStatus};

    #[tokio::test]
    async fn rows_are_counted_for_the_day_on_which_their_run_began() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).await.unwrap();
        let time = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        for (id, model, at, rows) in [
            ("1", "people", "2026-03-01T23:59:59Z", 5),
            ("2", "people", "2026-03-02T00:00:00Z", 7),
            ("3", "orders", "2026-03-02T10:00:00Z", 11),
            ("4", "others", "2026-03-02T10:00:00Z", 1000),
            ("5", "people", "2026-01-01T00:00:00Z", 1000),
        ] {
            let mut report = RunReport::new(id.into(), model.into(), RunKind::Sync, time(at));
            catalog.begin(&report).await.unwrap();
            report.rows = rows;
            report.finish(RunStatus::Published, time(at));
            catalog.finish(&Publication::of_nothing(&report, None)).await.unwrap();
        }
        let begun = RunReport::new("6".into(), "people".into(), RunKind::Sync, time("2026-03-02T12:00:00Z"));
        catalog.begin(&begun).await.unwrap();
        let days = catalog.rows_per_day(&["people", "orders"], time("2026-02-15T00:00:00Z")).await.unwrap();
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        assert_eq!(
            days,
            [
                DayOfUse { day: day("2026-03-01"), runs: 1, rows: 5 },
                DayOfUse { day: day("2026-03-02"), runs: 3, rows: 18 }
            ]
        );
        assert_eq!(catalog.rows_per_day(&[], time("2026-02-15T00:00:00Z")).await.unwrap(), []);
    }
}
