//! Amazon Redshift: provisioned clusters and Serverless workgroups.
//!
//! | Part | What it does |
//! |---|---|
//! | [`config`], [`endpoint`] | parameters -> typed settings, pure |
//! | [`dialect`] | what differs from PostgreSQL: settings, errors |
//! | [`session`] | a session as Redshift takes it: settings after the login, the transaction, the description of a query |
//! | [`types`] | Redshift's types -> decoders, and what the server is asked to render |
//! | [`cursor`] | rows through a cursor: `DECLARE`, then `FETCH` by `FETCH` |
//! | [`unload`] | rows through Parquet files that Redshift writes to S3, when a bucket is configured |
//! | [`introspect`] | tables, columns, cost |
//!
//! Connection, TLS, the conversation, decoders and errors are those of [`super::postgres`].
//!
//! Invariants: nothing is sent that Redshift refuses (no `options` at the start, no `COPY … TO STDOUT`, no
//! `extra_float_digits`, no `pg_range`, no arrays); queries run in a `READ ONLY` transaction; an `UNLOAD` reads the
//! same one checked statement and writes only below a folder of its own, which is removed at its end.

mod config;
mod cursor;
mod dialect;
mod endpoint;
mod introspect;
mod session;
mod types;
mod unload;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use self::config::RedshiftConfig;
use self::session::{Described, Way};
use self::types::Via;
use super::postgres::connect::Connector;
use super::postgres::session::Session;
use super::postgres::sql::{ReadingStatement, Strings, reading_statement};
use super::postgres::types::Plan;
use super::steps::Trace;
use super::{
    ColumnInfo, CostEstimate, Grade, Maturity, Provider, QueryOptions, RunningQuery, TableInfo, TestStep, Warehouse,
    WarehouseError,
};

/// `type: redshift`.
pub const PROVIDER: Provider = Provider {
    name: "redshift",
    title: "Amazon Redshift (provisioned and Serverless)",
    parameters: config::PARAMETERS,
    maturity: Maturity {
        grade: Grade::Preview,
        verified: "against PostgreSQL 15 behind a proxy that refuses what Redshift refuses, and a local S3 server for UNLOAD; not against a Redshift cluster",
    },
    build: |params| Ok(Arc::new(Redshift::new(RedshiftConfig::from_params(params)?)?)),
};

/// One Redshift database.
#[derive(Debug)]
struct Redshift {
    config: Arc<RedshiftConfig>,
    connector: Arc<Connector>,
    /// Where `UNLOAD` writes, when that is configured.
    bucket: Option<Arc<unload::Bucket>>,
}

impl Redshift {
    fn new(config: RedshiftConfig) -> Result<Self, WarehouseError> {
        let bucket = config.unload.as_ref().map(unload::Bucket::new).transpose()?.map(Arc::new);
        let connector = Arc::new(Connector::new(config.server.clone(), &dialect::REDSHIFT));
        Ok(Self { config: Arc::new(config), connector, bucket })
    }

    /// A session inside its read-only transaction.
    async fn session(&self) -> Result<Session, WarehouseError> {
        let mut session = self.connector.open(None).await?;
        session::prepare(&mut session, &self.config, self.connector.statement_timeout(None)).await?;
        session::begin(&mut session, Way::ReadOnly).await?;
        Ok(session)
    }

    /// The steps after the login.
    async fn test_session(&self, session: &mut Session, trace: &mut Trace) -> Result<(), WarehouseError> {
        let begun = async {
            session::prepare(session, &self.config, self.connector.statement_timeout(None)).await?;
            session::begin(session, Way::ReadOnly).await?;
            let rows = session.rows("SELECT version()::varchar", &[]).await?;
            let version = rows.first().and_then(|r| r.try_get::<_, String>(0).ok()).unwrap_or_default();
            // `PostgreSQL 8.0.2 on i686-pc-linux-gnu, …, Redshift 1.0.12345`
            Ok(version.split(", ").find(|part| part.starts_with("Redshift")).map_or(version.clone(), str::to_string))
        };
        trace.step("read-only session", begun, Clone::clone).await?;
        trace.step("read", session.rows("SELECT 1", &[]), |_| "SELECT 1".to_string()).await?;
        let listed = async {
            let tables = introspect::tables(session).await?;
            if tables.is_empty() {
                return Err(WarehouseError::configuration("the user sees no table").with_hint(
                    "GRANT USAGE ON SCHEMA … TO …; GRANT SELECT ON … TO …; see docs/warehouses/redshift.md",
                ));
            }
            Ok(tables.len())
        };
        trace.step("tables", listed, |count| format!("{count} are listed")).await?;
        Ok(())
    }

    /// Tries the way over S3: one row there, back, and away.
    async fn test_unload(&self, trace: &mut Trace) {
        let Some(bucket) = &self.bucket else { return };
        let attempt = async {
            let statement = reading_statement("SELECT 1 AS one", Strings::Escapes)?;
            let (session, described) = self.describe_for_reading(&statement, None).await?;
            let plan = unload::plan(&described, &statement, &QueryOptions::default())?
                .ok_or_else(|| WarehouseError::bug("one row cannot be unloaded"))?;
            let reading = unload::Unloading::new(self.connector.clone(), bucket.clone(), session, plan);
            unload::test(reading).await
        };
        let _ = trace.step("unload", attempt, |()| format!("a row through {}", bucket.url())).await;
    }

    /// Both ways of reading, as far as they are open.
    #[expect(clippy::type_complexity, reason = "of one use")]
    fn plan(
        &self,
        described: &Described,
        statement: &ReadingStatement,
        options: &QueryOptions,
    ) -> Result<(Plan, Option<(Arc<unload::Bucket>, unload::UnloadPlan)>), WarehouseError> {
        let cursor = described.plan(Via::Cursor)?;
        let Some(bucket) = &self.bucket else { return Ok((cursor, None)) };
        Ok((cursor, unload::plan(described, statement, options)?.map(|plan| (bucket.clone(), plan))))
    }

    /// A session, and what the statement returns. Inside its transaction.
    async fn describe_for_reading(
        &self,
        statement: &ReadingStatement,
        timeout: Option<std::time::Duration>,
    ) -> Result<(Session, Described), WarehouseError> {
        let mut session = self.connector.open(timeout).await?;
        let described = async {
            session::prepare(&mut session, &self.config, self.connector.statement_timeout(timeout)).await?;
            session::describe(&mut session, statement).await
        };
        match described.await {
            Ok(described) => Ok((session, described)),
            Err(e) => {
                session.close().await;
                Err(e)
            }
        }
    }
}

#[async_trait]
impl Warehouse for Redshift {
    async fn test(&self) -> Vec<TestStep> {
        let mut trace = Trace::default();
        // the failed step, if any, is in the trace
        if let Ok(mut session) = self.connector.open_traced(None, &mut trace).await {
            let tested = self.test_session(&mut session, &mut trace).await;
            session.close().await;
            if tested.is_ok() {
                self.test_unload(&mut trace).await;
            }
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
        let columns = introspect::columns(&mut session, table, self.config.default_schema()).await;
        session.close().await;
        columns
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let statement = reading_statement(sql, Strings::Escapes)?;
        let (session, described) = self.describe_for_reading(&statement, None).await?;
        session.close().await;
        Ok(described.plan(Via::Cursor)?.schema)
    }

    async fn estimate(&self, sql: &str) -> Result<Option<CostEstimate>, WarehouseError> {
        let statement = reading_statement(sql, Strings::Escapes)?;
        let (mut session, _) = self.describe_for_reading(&statement, None).await?;
        let estimate = introspect::estimate(&mut session, &statement.text).await;
        session.close().await;
        estimate
    }

    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError> {
        let statement = reading_statement(sql, Strings::Escapes)?;
        let (session, described) = self.describe_for_reading(&statement, options.timeout).await?;
        let (cursor, unload) = match self.plan(&described, &statement, options) {
            Ok(plans) => plans,
            Err(e) => {
                session.close().await;
                return Err(e);
            }
        };
        if let Some((bucket, plan)) = unload {
            let reading = unload::Unloading::new(self.connector.clone(), bucket, session, plan);
            return Ok(unload::start(reading, options));
        }
        let connector = self.connector.clone();
        Ok(cursor::start(connector, &self.config, session, cursor, described.way, &statement.text, options))
    }
}
