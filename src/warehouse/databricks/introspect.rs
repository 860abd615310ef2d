//! What can be read, by statements on the SQL warehouse: what they need is what models need too. `information_schema`
//! shows what the login may see; `hive_metastore` has none, so its schemas are asked one by one.
//!
//! The statements hold no names: catalog and schema are fields of their requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::api::{Api, Small};
use super::error::Sent;
use super::plan::Plan;
use crate::values::ValueType;
use crate::warehouse::statement::ReadingStatement;
use crate::warehouse::{ColumnInfo, TableInfo, WarehouseError, WarehouseErrorKind};

const TABLES: &str = include_str!("../../../sql/warehouse/databricks/tables.sql");
const COLUMN_COUNTS: &str = include_str!("../../../sql/warehouse/databricks/column_counts.sql");
const SCHEMAS: &str = include_str!("../../../sql/warehouse/databricks/schemas.sql");
const TABLES_OF_SCHEMA: &str = include_str!("../../../sql/warehouse/databricks/tables_of_schema.sql");

/// In a catalog of many tables the warehouse may take minutes to count all columns: the list does without.
const COUNTING: Duration = Duration::from_secs(15);
/// Of a metastore without `information_schema`, so many schemas are listed.
const MOST_SCHEMAS: usize = 200;

/// The tables and views of the connection's catalog that this login can see.
pub(super) async fn tables(api: &Api, limit: Option<Duration>) -> Result<Vec<TableInfo>, WarehouseError> {
    let catalog = api.config.catalog.as_deref();
    if catalog.is_some_and(|c| c.eq_ignore_ascii_case("hive_metastore") || c.eq_ignore_ascii_case("spark_catalog")) {
        return tables_by_schema(api, limit).await;
    }
    let small = Small { text: TABLES, schema: None, sent: None };
    match api.rows(small, limit).await {
        Ok(rows) => {
            let counts = column_counts(api, limit.map_or(COUNTING, |limit| limit.min(COUNTING))).await;
            let counts = counts.unwrap_or_else(|error| {
                tracing::debug!(%error, "the columns of the tables are not counted");
                HashMap::new()
            });
            let info = |row: &Vec<Option<String>>| {
                let (schema, name) = (text(row, 0)?, text(row, 1)?);
                let columns = counts.get(&(schema.to_string(), name.to_string())).copied();
                Some(TableInfo { columns, ..info(api, schema, name, text(row, 2)) })
            };
            Ok(rows.iter().filter_map(info).collect())
        }
        // the workspace's default catalog may be the old metastore
        Err(e) if e.kind == WarehouseErrorKind::Sql && e.message.contains("NOT_FOUND") && catalog.is_none() => {
            tables_by_schema(api, limit).await
        }
        Err(e) => Err(e),
    }
}

/// The number of columns by schema and table.
async fn column_counts(api: &Api, limit: Duration) -> Result<HashMap<(String, String), u64>, WarehouseError> {
    let rows = api.rows(Small { text: COLUMN_COUNTS, schema: None, sent: None }, Some(limit)).await?;
    let counted = |row: &Vec<Option<String>>| {
        Some(((text(row, 0)?.to_string(), text(row, 1)?.to_string()), text(row, 2)?.parse().ok()?))
    };
    Ok(rows.iter().filter_map(counted).collect())
}

async fn tables_by_schema(api: &Api, limit: Option<Duration>) -> Result<Vec<TableInfo>, WarehouseError> {
    let schemas = match &api.config.schema {
        Some(schema) => vec![schema.clone()],
        None => {
            let rows = api.rows(Small { text: SCHEMAS, schema: None, sent: None }, limit).await?;
            rows.iter().filter_map(|row| text(row, 0)).map(str::to_string).collect()
        }
    };
    if schemas.len() > MOST_SCHEMAS {
        tracing::warn!(
            schemas = schemas.len(),
            listed = MOST_SCHEMAS,
            "set `schema` of the connection to list the others"
        );
    }
    let mut tables = Vec::new();
    for schema in schemas.iter().take(MOST_SCHEMAS) {
        let rows = api.rows(Small { text: TABLES_OF_SCHEMA, schema: Some(schema), sent: None }, limit).await;
        match rows {
            Ok(rows) => tables.extend(
                rows.iter()
                    .filter(|row| text(row, 2) != Some("true"))
                    .filter_map(|row| Some(info(api, schema, text(row, 1)?, None))),
            ),
            // a schema that this login may not use
            Err(e) if e.kind == WarehouseErrorKind::Configuration => tracing::debug!(%schema, error = %e, "left out"),
            Err(e) => return Err(e),
        }
    }
    Ok(tables)
}

fn info(api: &Api, schema: &str, name: &str, kind: Option<&str>) -> TableInfo {
    let is_default = api.config.schema.as_deref().is_some_and(|s| s.eq_ignore_ascii_case(schema));
    let name = if is_default { quoted(name) } else { format!("{}.{}", quoted(schema), quoted(name)) };
    let kind = match kind.unwrap_or_default().to_ascii_uppercase().replace('_', " ").as_str() {
        "VIEW" => "view".to_string(),
        "MATERIALIZED VIEW" => "materialized view".to_string(),
        "STREAMING TABLE" => "streaming table".to_string(),
        "EXTERNAL" | "FOREIGN" => "external table".to_string(),
        _ => "table".to_string(),
    };
    TableInfo { name, kind, columns: None, error: None }
}

/// The columns of a table, named as in a query (`customers`, `sales.orders`, `` `odd name` ``).
pub(super) async fn columns(
    api: &Arc<Api>,
    table: &str,
    limit: Option<Duration>,
) -> Result<Vec<ColumnInfo>, WarehouseError> {
    let name = requoted(table).ok_or_else(|| {
        WarehouseError::sql(format!("`{table}` is no name of a table"))
            .with_hint("write `table`, `schema.table` or `catalog.schema.table`; odd names stand between backticks")
    })?;
    let statement = ReadingStatement { text: format!("SELECT * FROM {name}") };
    let described = describe(api, &statement, limit).await?;
    Ok(described
        .into_iter()
        .map(|(name, warehouse_type)| {
            let plan = Plan::new(&[(name.clone(), warehouse_type.clone())]).ok();
            let value_type = plan.and_then(|p| p.schema.fields().first().and_then(|f| ValueType::of(f)));
            // a description of a query does not tell
            ColumnInfo { name, warehouse_type, value_type: value_type.map(|t| t.to_string()), nullable: true }
        })
        .collect())
}

/// Name and type of each column that a query returns. It is analysed, not run.
pub(super) async fn describe(
    api: &Api,
    statement: &ReadingStatement,
    limit: Option<Duration>,
) -> Result<Vec<(String, String)>, WarehouseError> {
    let sql = &statement.text;
    let text = format!("{}\n{sql}", if is_plain_select(sql) { "DESCRIBE" } else { "DESCRIBE QUERY" });
    let small = Small { text: &text, schema: None, sent: Some(Sent { sql, lines_before: 1 }) };
    let rows = api.rows(small, limit).await?;
    rows.iter()
        .map(|row| match (self::text(row, 0), self::text(row, 1)) {
            (Some(name), Some(data_type)) => Ok((name.to_string(), data_type.to_string())),
            _ => Err(WarehouseError::bug("the warehouse described the query in another form")),
        })
        .collect()
}

/// `QUERY` may be left out, except where what follows could be a table's name (`TABLE t`, `FROM t SELECT …`).
fn is_plain_select(sql: &str) -> bool {
    let start = sql.trim_start();
    ["select", "with"].iter().any(|word| {
        start.get(..word.len()).is_some_and(|s| s.eq_ignore_ascii_case(word))
            && start[word.len()..].starts_with(|c: char| c.is_whitespace())
    })
}

fn text(row: &[Option<String>], at: usize) -> Option<&str> {
    row.get(at)?.as_deref()
}

/// The name between backticks, where it has to be.
fn quoted(name: &str) -> String {
    let plain =
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    if plain && !name.is_empty() { name.to_string() } else { always_quoted(name) }
}

fn always_quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Up to three parts of a name, each between backticks; none when it is no name.
fn requoted(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    let mut rest = name.trim();
    loop {
        let part = match rest.strip_prefix('`') {
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                let (part, after) = rest.split_at(end);
                rest = after;
                if part.is_empty() || part.contains(['`', ' ', ';', '(', ')', '\n']) {
                    return None;
                }
                part.to_string()
            }
            Some(mut inside) => {
                let mut part = String::new();
                loop {
                    let end = inside.find('`')?;
                    part.push_str(&inside[..end]);
                    inside = &inside[end + 1..];
                    match inside.strip_prefix('`') {
                        Some(more) => {
                            part.push('`');
                            inside = more;
                        }
                        None => break,
                    }
                }
                rest = inside;
                part
            }
        };
        parts.push(always_quoted(&part));
        match rest.strip_prefix('.') {
            Some(after) => rest = after,
            None => break,
        }
    }
    (rest.is_empty() && parts.len() <= 3).then(|| parts.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_part_by_part() {
        for (name, want) in [
            ("people", Some("`people`")),
            ("shop.people", Some("`shop`.`people`")),
            ("main.`odd name`.`a``b.c`", Some("`main`.`odd name`.`a``b.c`")),
            ("a b", None),
            ("a; drop table b", None),
            ("a.b.c.d", None),
            ("`open", None),
            ("", None),
        ] {
            assert_eq!(requoted(name).as_deref(), want, "{name}");
        }
        assert_eq!(
            (quoted("people").as_str(), quoted("a`b").as_str(), quoted("1a").as_str()),
            ("people", "`a``b`", "`1a`")
        );
    }

    #[test]
    fn what_could_be_a_tables_name_is_described_as_a_query() {
        assert!(is_plain_select("  select 1") && is_plain_select("WITH a AS (SELECT 1) SELECT * FROM a"));
        for sql in ["TABLE t", "FROM t SELECT *", "VALUES (1)", "(SELECT 1)", "selected"] {
            assert!(!is_plain_select(sql), "{sql}");
        }
    }
}
