//! Has the server describe a statement, without running it.

use tokio_postgres::Statement;

use super::error::Sent;
use super::session::Session;
use super::sql::ReadingStatement;
use crate::warehouse::WarehouseError;

/// The prepared statement, once the server has said that it can be read from.
pub(in crate::warehouse) async fn describe(
    session: &mut Session,
    statement: &ReadingStatement,
) -> Result<Statement, WarehouseError> {
    let sql = &statement.text;
    if statement.has_with {
        // a WITH may hide a write, but not inside a subquery: the server refuses it there
        let before = "SELECT * FROM (\n";
        let sent = Sent { sql, prefix: before.chars().count() };
        session.prepare(&format!("{before}{sql}\n) AS q"), Some(sent)).await?;
    }
    let prepared = session.prepare(sql, Some(Sent { sql, prefix: 0 })).await?;
    if !prepared.params().is_empty() {
        return Err(WarehouseError::sql("the SQL has parameters ($1 …)")
            .with_hint("a model takes no parameters; write the value into the SQL"));
    }
    if prepared.columns().is_empty() {
        return Err(WarehouseError::sql("the SQL returns no columns").with_hint("select at least the primary key"));
    }
    Ok(prepared)
}
