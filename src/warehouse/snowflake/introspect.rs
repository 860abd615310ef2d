//! What can be read, and what a query will cost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::DataType;
use serde::Deserialize;
use uuid::Uuid;

use super::error::Sent;
use super::names::{parse, quoted, written};
use super::plan::{plan_column, shown};
use super::query::collect;
use super::session::Session;
use crate::values::ValueType;
use crate::warehouse::http::statement_timeout;
use crate::warehouse::statement::ReadingStatement;
use crate::warehouse::{ColumnInfo, CostEstimate, TableInfo, WarehouseError};

const TABLES: &str = include_str!("../../../sql/warehouse/snowflake/tables.sql");
const COLUMN_COUNTS: &str = include_str!("../../../sql/warehouse/snowflake/column_counts.sql");
/// In an account of many tables the service may take minutes to count all columns, or refuse: the list does without.
const COUNTING: Duration = Duration::from_secs(15);

/// The tables and views of the connection's database that its role can see.
pub(super) async fn tables(session: &Arc<Session>) -> Result<Vec<TableInfo>, WarehouseError> {
    let rows = texts(session, TABLES).await?;
    let counts = column_counts(session).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "the columns of the tables are not counted");
        HashMap::new()
    });
    let tables = rows.into_iter().filter_map(|row| match row.as_slice() {
        [Some(schema), Some(table), kind] => {
            let kind = match kind.as_deref() {
                Some("VIEW") => "view",
                Some("MATERIALIZED VIEW") => "materialized view",
                Some("EXTERNAL TABLE") => "external table",
                Some("TEMPORARY TABLE" | "LOCAL TEMPORARY") => "temporary table",
                _ => "table",
            };
            let name = format!("{}.{}", written(schema), written(table));
            let columns = counts.get(&(schema.clone(), table.clone())).copied();
            Some(TableInfo { name, kind: kind.to_string(), columns, error: None })
        }
        _ => None,
    });
    Ok(tables.collect())
}

/// The number of columns by schema and table.
async fn column_counts(session: &Arc<Session>) -> Result<HashMap<(String, String), u64>, WarehouseError> {
    let id = Uuid::new_v4();
    let Ok(rows) = tokio::time::timeout(COUNTING, texts_of(session, COLUMN_COUNTS, &id)).await else {
        session.abort(COLUMN_COUNTS, &id).await?;
        return Err(statement_timeout(COUNTING));
    };
    let counts = rows?.into_iter().filter_map(|row| match <[Option<String>; 3]>::try_from(row) {
        Ok([Some(schema), Some(table), Some(count)]) => Some(((schema, table), count.parse().ok()?)),
        _ => None,
    });
    Ok(counts.collect())
}

/// The columns of a table, by the service's description of a read of it: no warehouse has to run for that.
pub(super) async fn columns(session: &Session, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
    let name: Vec<String> = parse(table)?.iter().map(|part| quoted(part)).collect();
    let sql = format!("SELECT * FROM {}", name.join("."));
    let data = session.describe(&sql, Sent { sql: "", lines_before: 0 }).await?;
    let columns = data.rowtype.unwrap_or_default().into_iter().map(|column| ColumnInfo {
        warehouse_type: shown(&column),
        value_type: plan_column(&column).ok().and_then(|c| ValueType::of(&c.field)).map(|t| t.to_string()),
        nullable: column.nullable.unwrap_or(true),
        name: column.name,
    });
    Ok(columns.collect())
}

#[derive(Deserialize)]
struct Explained {
    #[serde(rename = "GlobalStats")]
    stats: Stats,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Stats {
    partitions_total: Option<u64>,
    partitions_assigned: Option<u64>,
    bytes_assigned: Option<u64>,
}

/// What is left to read after the planner's pruning. None where the role may not see it (secure views) or the service
/// does not tell.
pub(super) async fn estimate(
    session: &Arc<Session>,
    statement: &ReadingStatement,
) -> Result<Option<CostEstimate>, WarehouseError> {
    let rows = match texts(session, &format!("EXPLAIN USING JSON\n{}", statement.text)).await {
        Ok(rows) => rows,
        Err(e) if e.is_retryable() => return Err(e),
        Err(e) => {
            tracing::debug!(error = %e, "no estimate");
            return Ok(None);
        }
    };
    let text: String = rows.into_iter().flatten().flatten().collect();
    let Ok(Explained { stats }) = serde_json::from_str(&text) else { return Ok(None) };
    Ok(Some(CostEstimate {
        bytes: stats.bytes_assigned,
        partitions: stats.partitions_assigned.zip(stats.partitions_total),
        source: "EXPLAIN",
        ..CostEstimate::default()
    }))
}

/// A small result as texts.
async fn texts(session: &Arc<Session>, sql: &str) -> Result<Vec<Vec<Option<String>>>, WarehouseError> {
    texts_of(session, sql, &Uuid::new_v4()).await
}

/// The same of a statement that can be aborted by its id.
async fn texts_of(session: &Arc<Session>, sql: &str, id: &Uuid) -> Result<Vec<Vec<Option<String>>>, WarehouseError> {
    let mut rows = Vec::new();
    for batch in collect(session, sql, id).await? {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|c| arrow::compute::cast(c, &DataType::Utf8))
            .collect::<Result<_, _>>()
            .map_err(|e| WarehouseError::bug(format!("the service's catalog answered in another form: {e}")))?;
        let columns: Vec<_> = columns.iter().map(|c| c.as_string::<i32>()).collect();
        rows.extend(
            (0..batch.num_rows()).map(|row| {
                columns.iter().map(|c| c.is_valid(row).then(|| c.value(row).to_string())).collect::<Vec<_>>()
            }),
        );
    }
    Ok(rows)
}

/// Who and where the session is, for `test`.
pub(super) async fn version(session: &Arc<Session>) -> Result<String, WarehouseError> {
    let rows = texts(session, "SELECT CURRENT_VERSION()").await?;
    Ok(rows.into_iter().flatten().flatten().next().unwrap_or_else(|| session.server_version.clone()))
}
