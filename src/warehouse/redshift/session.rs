//! A session as Redshift takes it, and what a statement returns.

use std::time::Duration;

use super::config::RedshiftConfig;
use super::dialect;
use super::types::{self, Via};
use crate::warehouse::WarehouseError;
use crate::warehouse::postgres::describe::describe as describe_statement;
use crate::warehouse::postgres::session::Session;
use crate::warehouse::postgres::sql::ReadingStatement;
use crate::warehouse::postgres::types::Plan;

/// How a transaction begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    ReadOnly,
    /// For external tables and datashares: before patch 204, the first look at one writes a note into the catalog,
    /// which a read-only transaction does not allow. What runs in it still only reads: a cursor takes nothing else.
    Plain,
}

/// What a statement returns, and the transaction in which it could be described.
#[derive(Debug)]
pub(super) struct Described {
    columns: Vec<Column>,
    pub way: Way,
}

#[derive(Debug)]
struct Column {
    name: String,
    oid: u32,
    type_modifier: i32,
}

impl Described {
    /// How its rows are read. Both ways give the same schema.
    pub(super) fn plan(&self, via: Via) -> Result<Plan, WarehouseError> {
        let mut planned = Vec::with_capacity(self.columns.len());
        for Column { name, oid, type_modifier } in &self.columns {
            let (carrier, rendering) = types::plan(*oid, *type_modifier, via).map_err(|e| e.of(name))?;
            planned.push((name.as_str(), carrier, rendering));
        }
        Ok(Plan::of(planned.into_iter()))
    }
}

/// Makes the settings of a new session.
pub(super) async fn prepare(
    session: &mut Session,
    config: &RedshiftConfig,
    statement_timeout: Duration,
) -> Result<(), WarehouseError> {
    let (schema, group) = (config.schema.as_deref(), config.query_group.as_deref());
    for setting in dialect::settings(statement_timeout, schema, group) {
        session.execute(&setting, None).await?;
    }
    Ok(())
}

pub(super) async fn begin(session: &mut Session, way: Way) -> Result<(), WarehouseError> {
    let begin = match way {
        Way::ReadOnly => "BEGIN READ ONLY",
        Way::Plain => "BEGIN",
    };
    session.execute(begin, None).await
}

/// Begins the transaction and has the server describe the statement in it, without running it.
pub(super) async fn describe(session: &mut Session, statement: &ReadingStatement) -> Result<Described, WarehouseError> {
    begin(session, Way::ReadOnly).await?;
    let (prepared, way) = match describe_statement(session, statement).await {
        Err(e) if e.message.contains("Failed to incorporate external table") => {
            session.execute("ROLLBACK", None).await?;
            begin(session, Way::Plain).await?;
            (describe_statement(session, statement).await?, Way::Plain)
        }
        prepared => (prepared?, Way::ReadOnly),
    };
    let columns = prepared.columns().iter().zip(session.server_types.last()).map(|(column, oid)| Column {
        name: column.name().to_string(),
        oid,
        type_modifier: column.type_modifier(),
    });
    Ok(Described { columns: columns.collect(), way })
}
