//! What can be read, by the server's own catalog (`information_schema` leaves materialized views out).

use crate::values::ValueType;
use crate::warehouse::{ColumnInfo, TableInfo, WarehouseError};

use super::session::Session;
use super::types::Plan;

const TABLES: &str = include_str!("../../../sql/warehouse/postgres/tables.sql");
const RESOLVE: &str = include_str!("../../../sql/warehouse/postgres/resolve.sql");
const COLUMNS: &str = include_str!("../../../sql/warehouse/postgres/columns.sql");

/// The tables and views that this user can read.
pub(super) async fn tables(session: &mut Session) -> Result<Vec<TableInfo>, WarehouseError> {
    let rows = session.rows(TABLES, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(TableInfo {
                name: row.try_get(0).map_err(unexpected)?,
                kind: row.try_get(1).map_err(unexpected)?,
                columns: u64::try_from(row.try_get::<_, i64>(2).map_err(unexpected)?).ok(),
                error: None,
            })
        })
        .collect()
}

/// The columns of a table, named as in a query (`customers`, `sales.orders`, `"Odd Name"`).
pub(super) async fn columns(session: &mut Session, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
    let missing = || {
        WarehouseError::sql(format!("there is no table `{table}` that this user can see"))
            .with_hint("`connection tables` lists the tables; names with capitals or blanks need double quotes")
    };
    let found = session.rows(RESOLVE, &[&table]).await?;
    let Some(name) = found.first().map(|row| row.try_get::<_, Option<String>>(0)) else { return Err(missing()) };
    // written by the server, so it is quoted as it has to be
    let Some(name) = name.map_err(unexpected)? else { return Err(missing()) };

    let statement = session.prepare(&format!("SELECT * FROM {name}"), None).await?;
    let plan = Plan::new(statement.columns(), true);
    let rows = session.rows(COLUMNS, &[&table]).await?;
    rows.iter()
        .zip(plan.schema.fields())
        .map(|(row, field)| {
            Ok(ColumnInfo {
                name: row.try_get(0).map_err(unexpected)?,
                warehouse_type: row.try_get(1).map_err(unexpected)?,
                value_type: ValueType::of(field).map(|t| t.to_string()),
                nullable: row.try_get(2).map_err(unexpected)?,
            })
        })
        .collect()
}

fn unexpected(error: tokio_postgres::Error) -> WarehouseError {
    WarehouseError::bug(format!("the server's catalog answered in another form: {error}"))
}
