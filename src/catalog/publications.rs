//! What was published, in order.

use sqlx::Row;

use super::{Catalog, CatalogError};

/// A publication: what one run made visible.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Counts up; never used twice.
    pub seq: i64,
    /// The run's, or the upload's.
    pub run_id: String,
}

impl Catalog {
    /// The number of the newest publication: while it stays the same, so does what is visible.
    pub async fn newest_publication(&self) -> Result<Option<i64>, CatalogError> {
        Ok(sqlx::query_scalar("SELECT MAX(seq) FROM publications").fetch_one(&self.pool).await?)
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
