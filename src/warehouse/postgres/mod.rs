//! PostgreSQL.
//!
//! | Part | What it does |
//! |---|---|
//! | [`config`] | parameters -> typed settings, pure |
//! | [`connect`], [`tls`] | resolve, connect, encrypt, log in; cancel |
//! | [`session`] | one session and the conversation that it drives |
//! | [`dialect`], [`known_types`] | what differs between PostgreSQL and Redshift, which is built of these parts too |
//! | [`sql`] | tells one reading statement from the rest, before a server is asked |
//! | [`describe`] | has the server describe a statement, without running it |
//! | [`types`] | result columns -> Arrow fields, and what the server is asked to render |
//! | [`query`], [`copy`] | the reading task; the framing of binary `COPY` |
//! | [`decode`] | binary fields -> Arrow; knows nothing of the framing |
//! | [`introspect`] | tables and columns |
//! | [`error`] | SQLSTATE -> who can mend it; the line and caret in the model's SQL |
//!
//! Invariants: a session begins read-only (`default_transaction_read_only`) and everything happens in a `READ ONLY`
//! transaction; one session serves one call and ends with it; rows are decoded as they come, and the server waits when
//! nobody takes them; a query that is cancelled or dropped is cancelled in the server.

pub(in crate::warehouse) mod config;
pub(in crate::warehouse) mod connect;
mod copy;
pub(in crate::warehouse) mod decode;
pub(in crate::warehouse) mod describe;
pub(in crate::warehouse) mod dialect;
pub(in crate::warehouse) mod error;
mod introspect;
mod known_types;
mod query;
pub(in crate::warehouse) mod session;
pub(in crate::warehouse) mod sql;
#[cfg(test)]
mod tests;
mod tls;
pub(in crate::warehouse) mod types;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use self::config::PostgresConfig;
use self::connect::Connector;
use self::describe::describe;
use self::session::Session;
use self::sql::{ReadingStatement, reading_statement};
use self::types::Plan;
use super::steps::Trace;
use super::{
    ColumnInfo, Grade, Maturity, Provider, QueryOptions, RunningQuery, TableInfo, TestStep, Warehouse, WarehouseError,
};

/// `type: postgres`.
pub const PROVIDER: Provider = Provider {
    name: "postgres",
    title: "PostgreSQL (12 or later) and what speaks its protocol",
    parameters: config::PARAMETERS,
    maturity: Maturity { grade: Grade::Stable, verified: "every test runs against a real PostgreSQL 15" },
    build: |params| Ok(Arc::new(Postgres::new(PostgresConfig::from_params(params)?))),
};

/// One PostgreSQL database.
#[derive(Debug)]
struct Postgres {
    connector: Arc<Connector>,
}

impl Postgres {
    fn new(config: PostgresConfig) -> Self {
        Self { connector: Arc::new(Connector::new(config, &dialect::POSTGRES)) }
    }

    /// A session inside its read-only transaction.
    async fn session(&self) -> Result<Session, WarehouseError> {
        let mut session = self.connector.open(None).await?;
        session.begin().await?;
        Ok(session)
    }

    /// The steps after the login.
    async fn test_session(session: &mut Session, trace: &mut Trace) {
        if let Err(e) = session.begin().await {
            return trace.failed("read-only session", &e);
        }
        // pg_stat_ssl shows everybody their own session
        let facts = "SELECT version, cipher FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
        match session.rows(facts, &[]).await {
            Ok(rows) => {
                let text = |i| rows.first().and_then(|r| r.try_get::<_, Option<String>>(i).ok().flatten());
                if let (Some(version), Some(cipher)) = (text(0), text(1))
                    && let Some(step) = trace.steps.iter_mut().find(|s| s.step == "TLS")
                {
                    step.detail = format!("{version}, {cipher}");
                }
            }
            Err(e) => return trace.failed("read-only session", &e),
        }
        match session.rows("SHOW transaction_read_only", &[]).await {
            Ok(rows) if rows.first().and_then(|r| r.try_get::<_, String>(0).ok()).as_deref() == Some("on") => {
                trace.ok("read-only session", format!("PostgreSQL {}", session.driver.server_version));
            }
            Ok(_) => {
                let e = WarehouseError::configuration("the server did not make the session read-only");
                return trace.failed("read-only session", &e);
            }
            Err(e) => return trace.failed("read-only session", &e),
        }
        match session.rows("SELECT 1", &[]).await {
            Ok(_) => trace.ok("read", "SELECT 1"),
            Err(e) => return trace.failed("read", &e),
        }
        match introspect::tables(session).await {
            Ok(tables) if tables.is_empty() => {
                let e = WarehouseError::configuration("the user can read no table")
                    .with_hint("GRANT USAGE ON SCHEMA … TO …; GRANT SELECT ON … TO …; see docs/warehouses/postgres.md");
                trace.failed("tables", &e);
            }
            Ok(tables) => trace.ok("tables", format!("{} can be read", tables.len())),
            Err(e) => trace.failed("tables", &e),
        }
    }

    async fn plan(session: &mut Session, statement: &ReadingStatement) -> Result<Plan, WarehouseError> {
        let prepared = describe(session, statement).await?;
        Ok(Plan::new(prepared.columns(), session.driver.server_encoding != "SQL_ASCII"))
    }
}

#[async_trait]
impl Warehouse for Postgres {
    async fn test(&self) -> Vec<TestStep> {
        let mut trace = Trace::default();
        // the failed step, if any, is in the trace
        if let Ok(mut session) = self.connector.open_traced(None, &mut trace).await {
            Self::test_session(&mut session, &mut trace).await;
            session.close().await;
        }
        trace.steps
    }

    async fn tables(&self) -> Result<Vec<TableInfo>, WarehouseError> {
        let mut session = self.session().await?;
        let tables = introspect::tables(&mut session).await;
        session.close().await;
        tables
    }

    async fn columns(&self, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
        let mut session = self.session().await?;
        let columns = introspect::columns(&mut session, table).await;
        session.close().await;
        columns
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let statement = reading_statement(sql, dialect::POSTGRES.strings)?;
        let mut session = self.session().await?;
        let plan = Self::plan(&mut session, &statement).await;
        session.close().await;
        plan.map(|p| p.schema)
    }

    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError> {
        let statement = reading_statement(sql, dialect::POSTGRES.strings)?;
        let mut session = self.connector.open(options.timeout).await?;
        session.begin().await?;
        let plan = match Self::plan(&mut session, &statement).await {
            Ok(plan) => plan,
            Err(e) => {
                session.close().await;
                return Err(e);
            }
        };
        Ok(query::start(self.connector.clone(), session, plan, &statement.text, options))
    }
}
