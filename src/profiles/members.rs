//! The members of a model, page by page.

use arrow::array::AsArray;
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::lit;
use futures::TryStreamExt;

use super::lookup::time;
use super::tables::column;
use super::{ProfileReader, ProfilesError};
use crate::store::TableId;

/// A profile in a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub profile_id: String,
    /// The normalized external key.
    pub identity: String,
    pub since: DateTime<Utc>,
}

impl ProfileReader {
    /// The first `limit` members behind that profile, by profile id. Reads the keys of all members.
    ///
    /// # Errors
    /// [`ProfilesError::UnknownModel`] when there is no such model.
    pub async fn members_after(
        &self,
        slug: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Member>, ProfilesError> {
        let model = self.tables.model(slug)?;
        let Some(mut plan) = self.tables.members(model, &[], None).await? else { return Ok(Vec::new()) };
        if let Some(after) = after {
            plan = plan.filter(column("profile_id").gt(lit(after)))?;
        }
        let plan = plan.sort(vec![column("profile_id").sort(true, false)])?.limit(0, Some(limit))?.build()?;
        let mut rows = Box::pin(self.session.execute_logical_plan(plan)).await?.execute_stream().await?;
        let mut members = Vec::new();
        while let Some(batch) = rows.try_next().await? {
            let text = |at: usize| cast(batch.column(at), &DataType::Utf8).map_err(DataFusionError::from);
            let (ids, identities) = (text(0)?, text(1)?);
            let (ids, identities) = (ids.as_string::<i32>(), identities.as_string::<i32>());
            let since = batch.column(2).as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(|| {
                let message = "no timestamp in `since`".to_string();
                ProfilesError::Corrupt { table: TableId::Records(slug.to_string()), message }
            })?;
            members.extend((0..batch.num_rows()).map(|row| Member {
                profile_id: ids.value(row).to_string(),
                identity: identities.value(row).to_string(),
                since: time(since.value(row)),
            }));
        }
        Ok(members)
    }
}
