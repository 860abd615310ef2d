//! What ran, read page by page.

use std::str::FromStr;

use super::{Catalog, CatalogError, run_of};
use crate::sync::report::{RunReport, RunStatus};

/// The place of a run in the list of all, newest first: a page goes on after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPlace {
    started_at: i64,
    run_id: String,
}

impl RunPlace {
    pub fn of(run: &RunReport) -> Self {
        Self { started_at: run.started_at.timestamp_micros(), run_id: run.run_id.clone() }
    }
}

impl std::fmt::Display for RunPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}_{}", self.started_at, self.run_id)
    }
}

/// What [`RunPlace`] writes.
impl FromStr for RunPlace {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (started_at, run_id) = text.split_once('_').ok_or(())?;
        Ok(Self { started_at: started_at.parse().map_err(|_| ())?, run_id: run_id.to_string() })
    }
}

/// Which runs are asked for.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    pub model: Option<String>,
    pub status: Option<RunStatus>,
    /// Only those after it in the list.
    pub after: Option<RunPlace>,
    pub limit: u32,
}

impl Catalog {
    /// The runs that a filter lets through, newest first.
    pub async fn runs_page(&self, filter: &RunFilter) -> Result<Vec<RunReport>, CatalogError> {
        // two statements: an index cannot be used for a condition that may not be there
        let query = match &filter.model {
            Some(model) => sqlx::query(include_str!("../../sql/catalog/runs_of_model.sql")).bind(model),
            None => sqlx::query(include_str!("../../sql/catalog/runs_of_all.sql")),
        };
        let newest = RunPlace { started_at: i64::MAX, run_id: String::new() };
        let after = filter.after.as_ref().unwrap_or(&newest);
        let rows = query
            .bind(filter.status.map(RunStatus::as_str))
            .bind(after.started_at)
            .bind(&after.run_id)
            .bind(filter.limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(run_of).collect()
    }

    /// A model's last runs that failed, or whose process ended before them; newest first.
    pub async fn failed_runs(&self, model: &str, limit: u32) -> Result<Vec<RunReport>, CatalogError> {
        let rows = sqlx::query(include_str!("../../sql/catalog/failed_runs.sql"))
            .bind(model)
            .bind(limit)
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(run_of).collect()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use chrono::{DateTime, Utc};

    use super::*;
    use crate::sync::report::RunKind;

    #[tokio::test]
    async fn pages_show_every_run_once_also_those_that_began_in_the_same_moment() {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).await.unwrap();
        let at: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
        for n in 0..25_i64 {
            let model = if n % 5 == 0 { "a" } else { "b" };
            let started = at + chrono::TimeDelta::seconds(n / 4);
            let mut run = RunReport::new(format!("run-{n:02}"), model.into(), RunKind::Sync, started);
            catalog.begin(&run).await.unwrap();
            if n % 2 == 0 {
                run.finish(if n % 10 == 0 { RunStatus::Failed } else { RunStatus::Published }, started);
                catalog.finish(&crate::catalog::Publication::of_nothing(&run, None)).await.unwrap();
            }
        }
        let all = async |model: Option<&str>, status| {
            let mut filter = RunFilter { model: model.map(Into::into), status, after: None, limit: 3 };
            let mut seen = Vec::new();
            loop {
                let page = catalog.runs_page(&filter).await.unwrap();
                let Some(last) = page.last() else { break seen };
                filter.after = Some(RunPlace::of(last).to_string().parse().unwrap());
                seen.extend(page.into_iter().map(|run| run.run_id));
            }
        };
        let newest_first: Vec<String> = (0..25).rev().map(|n| format!("run-{n:02}")).collect();
        assert_eq!(all(None, None).await, newest_first);
        assert_eq!(all(Some("a"), None).await, ["run-20", "run-15", "run-10", "run-05", "run-00"]);
        assert_eq!(all(None, Some(RunStatus::Failed)).await, ["run-20", "run-10", "run-00"]);
        assert_eq!(all(Some("b"), Some(RunStatus::Failed)).await, Vec::<String>::new());
        let failed = catalog.failed_runs("a", 2).await.unwrap();
        assert_eq!(failed.iter().map(|run| run.run_id.as_str()).collect::<Vec<_>>(), ["run-20", "run-10"]);
        assert!("12".parse::<RunPlace>().is_err() && "x_y".parse::<RunPlace>().is_err());
    }
}
