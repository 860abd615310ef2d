//! Tables, columns and the planner's estimate, by Redshift's own views (which list late-binding views and external
//! tables too).

use std::collections::HashMap;
use std::time::Duration;

use super::dialect::quote_name;
use super::types::{self, Via};
use crate::values::ValueType;
use crate::warehouse::postgres::error::Sent;
use crate::warehouse::postgres::session::Session;
use crate::warehouse::postgres::types::Plan;
use crate::warehouse::{ColumnInfo, CostEstimate, TableInfo, WarehouseError};

const TABLES: &str = include_str!("../../../sql/warehouse/redshift/tables.sql");
const COLUMN_COUNTS: &str = include_str!("../../../sql/warehouse/redshift/column_counts.sql");
/// Late-binding views and external tables are looked at one by one, which may take minutes: the list does without.
const COUNTING: Duration = Duration::from_secs(15);
const COLUMNS: &str = include_str!("../../../sql/warehouse/redshift/columns.sql");

/// The tables and views of this database, by schema.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<TableInfo>, WarehouseError> {
    let rows = session.rows(TABLES, &[]).await?;
    // last: a statement that is given up leaves the session as it is
    let counts = match tokio::time::timeout(COUNTING, session.rows(COLUMN_COUNTS, &[])).await {
        Ok(Ok(counted)) => {
            counted.iter().filter_map(|row| Some((row.try_get(0).ok()?, row.try_get(1).ok()?))).collect()
        }
        other => {
            tracing::debug!(refused = ?other.err().map(|_| COUNTING), "the columns of the tables are not counted");
            HashMap::<String, i64>::new()
        }
    };
    rows.iter()
        .map(|row| {
            let kind: Option<String> = row.try_get(1).map_err(unexpected)?;
            let kind = match kind.as_deref() {
                Some("base table") | None => "table".to_string(),
                Some(other) => other.to_string(),
            };
            let name: String = row.try_get(0).map_err(unexpected)?;
            let columns = counts.get(&name).and_then(|n| u64::try_from(*n).ok());
            Ok(TableInfo { name, kind, columns, error: None })
        })
        .collect()
}

/// The columns of a table, named as in a query (`customers`, `sales.orders`, `"Odd Name"`).
pub(super) async fn columns(
    session: &mut Session,
    table: &str,
    default_schema: &str,
) -> Result<Vec<ColumnInfo>, WarehouseError> {
    let missing = || {
        WarehouseError::sql(format!("there is no table `{table}` that this user can see"))
            .with_hint("`connection tables` lists the tables, as schema.table; names with blanks need double quotes")
    };
    let (schema, name) = match parse_name(table).as_deref() {
        Some([name]) => (default_schema.to_string(), name.clone()),
        Some([schema, name]) => (schema.clone(), name.clone()),
        _ => return Err(missing()),
    };
    let rows = session.rows(COLUMNS, &[&schema, &name]).await?;
    if rows.is_empty() {
        return Err(missing());
    }
    let statement = format!("SELECT * FROM {}.{}", quote_name(&schema), quote_name(&name));
    let prepared = session.prepare(&statement, None).await?;
    let value_types: Vec<_> = prepared
        .columns()
        .iter()
        .zip(session.server_types.last())
        .map(|(column, oid)| {
            let (carrier, rendering) = types::plan(oid, column.type_modifier(), Via::Cursor).ok()?;
            let plan = Plan::of(std::iter::once((column.name(), carrier, rendering)));
            Some((column.name(), ValueType::of(plan.schema.field(0)).map(|t| t.to_string())?))
        })
        .collect();
    rows.iter()
        .map(|row| {
            let name: String = row.try_get(2).map_err(unexpected)?;
            let value_type = value_types.iter().flatten().find(|(n, _)| *n == name).map(|(_, t)| t.clone());
            Ok(ColumnInfo {
                name,
                warehouse_type: row.try_get(3).map_err(unexpected)?,
                value_type,
                nullable: row.try_get(4).map_err(unexpected)?,
            })
        })
        .collect()
}

/// What the planner expects, by the first line of `EXPLAIN`.
pub(super) async fn estimate(session: &mut Session, sql: &str) -> Result<Option<CostEstimate>, WarehouseError> {
    let before = "EXPLAIN\n";
    let sent = Sent { sql, prefix: before.chars().count() };
    let statement = session.prepare(&format!("{before}{sql}"), Some(sent)).await?;
    let rows = session.driver.drive(session.client.query(&statement, &[])).await;
    let rows = rows.map_err(|e| session.failed(&e, Some(sent)))?;
    let line: Option<String> = rows.first().and_then(|row| row.try_get(0).ok());
    Ok(line.as_deref().and_then(parse_estimate))
}

/// `XN Seq Scan on event  (cost=0.00..87.98 rows=8798 width=17)`
fn parse_estimate(line: &str) -> Option<CostEstimate> {
    let inside = line.split_once("(cost=")?.1.split_once(')')?.0;
    let mut words = inside.split(' ');
    let cost = words.next()?;
    let rows = words.find_map(|word| word.strip_prefix("rows="))?.parse().ok();
    Some(CostEstimate { rows, planner_cost: Some(cost.to_string()), source: "EXPLAIN", ..CostEstimate::default() })
}

/// The parts of a name as written in a query: unquoted ones are folded to lower case.
fn parse_name(text: &str) -> Option<Vec<String>> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    loop {
        let (part, after) = match rest.strip_prefix('"') {
            Some(quoted) => {
                let mut name = String::new();
                let mut chars = quoted.char_indices().peekable();
                let end = loop {
                    match chars.next()? {
                        (_, '"') if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                            chars.next();
                            name.push('"');
                        }
                        (at, '"') => break at + 1,
                        (_, c) => name.push(c),
                    }
                };
                (name, &quoted[end..])
            }
            None => {
                let end = rest.find('.').unwrap_or(rest.len());
                (rest[..end].trim().to_lowercase(), &rest[end..])
            }
        };
        if part.is_empty() {
            return None;
        }
        parts.push(part);
        match after.trim_start().strip_prefix('.') {
            Some(next) => rest = next.trim_start(),
            None if after.trim().is_empty() => return Some(parts),
            None => return None,
        }
    }
}

fn unexpected(error: tokio_postgres::Error) -> WarehouseError {
    WarehouseError::bug(format!("the server's catalog answered in another form: {error}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_a_query_would() {
        for (text, want) in [
            ("customers", Some(vec!["customers"])),
            ("Sales.Orders", Some(vec!["sales", "orders"])),
            ("\"Odd Name\"", Some(vec!["Odd Name"])),
            ("sales . \"a\"\"b.c\"", Some(vec!["sales", "a\"b.c"])),
            ("", None),
            ("a.", None),
            ("\"open", None),
            ("\"a\"b", None),
        ] {
            let want = want.map(|parts| parts.into_iter().map(str::to_string).collect::<Vec<_>>());
            assert_eq!(parse_name(text), want, "{text}");
        }
    }

    #[test]
    fn the_first_line_of_a_plan_is_the_estimate() {
        let estimate = parse_estimate("XN Seq Scan on event  (cost=0.00..87.98 rows=8798 width=17)").unwrap();
        assert_eq!((estimate.rows, estimate.planner_cost.as_deref()), (Some(8798), Some("0.00..87.98")));
        assert_eq!(parse_estimate("something else"), None);
    }
}
