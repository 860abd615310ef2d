//! What was published, in order.

use std::collections::BTreeSet;

use sqlx::{Row, SqliteConnection};

use super::{Catalog, CatalogError};
use crate::store::Version;

/// A publication: what one run made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Counts up; never used twice.
    pub seq: i64,
    /// The run's, or the upload's.
    pub run_id: String,
}

/// The tables' versions that a publication makes visible.
#[derive(Debug, Clone, Copy)]
pub(super) struct Versions {
    pub records: Version,
    pub identities: Option<Version>,
    pub changes: Option<Version>,
}

/// Records a publication within a transaction. Repeating it changes nothing. `table`: the model's slug, or a stream's
/// folder; `at`: microseconds.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    run_id: &str,
    table: &str,
    at: i64,
    versions: Versions,
) -> Result<(), CatalogError> {
    sqlx::query(
        "INSERT INTO publications (run_id, model, published_at, records_version, identities_version, changes_version)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT (model, records_version) DO NOTHING",
    )
    .bind(run_id)
    .bind(table)
    .bind(at)
    .bind(versions.records as i64)
    .bind(versions.identities.map(|v| v as i64))
    .bind(versions.changes.map(|v| v as i64))
    .execute(connection)
    .await?;
    Ok(())
}

impl Catalog {
    /// The number of the newest publication: while it stays the same, so does what is visible.
    pub async fn newest_publication(&self) -> Result<Option<i64>, CatalogError> {
        Ok(sqlx::query_scalar("SELECT MAX(seq) FROM publications").fetch_one(&self.pool).await?)
    }

    /// What has ever been published: models by slug, streams by folder.
    pub async fn published_models(&self) -> Result<BTreeSet<String>, CatalogError> {
        let statement = include_str!("../../sql/catalog/published_models.sql");
        let models: Vec<String> = sqlx::query_scalar(statement).fetch_all(&self.pool).await?;
        Ok(models.into_iter().collect())
    }

    /// Publications from one number to another, both included, in order.
    pub async fn publications(&self, from: i64, to: i64, limit: u32) -> Result<Vec<Published>, CatalogError> {
        let rows =
            sqlx::query("SELECT seq, run_id FROM publications WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT ?3")
                .bind(from)
                .bind(to)
                .bind(limit)
                .fetch_all(&self.pool)
                .await?;
        rows.iter().map(|row| Ok(Published { seq: row.try_get("seq")?, run_id: row.try_get("run_id")? })).collect()
    }
}
