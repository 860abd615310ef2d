//! Snowflake.
//!
//! | Part | What it does |
//! |---|---|
//! | [`config`], [`account`] | parameters -> typed settings and the account's address, pure |
//! | [`transport`] | requests: the crate `snowflake-api` where it has one, through a middleware of ours |
//! | [`wire`] | the answers, tolerant of what they leave out |
//! | [`auth`], [`session`] | log in (password, access token, key pair), renew, ask, abort, close |
//! | [`statement`] | one reading statement, by our tokens and by the service's own word |
//! | [`plan`], [`decode`] | types -> Arrow fields; the service's Arrow or JSON -> those fields |
//! | [`query`], [`result`], [`stream`] | the reading task; the result's files, in order, with fresh links when theirs expire; their Arrow |
//! | [`introspect`], [`names`] | tables, columns, cost; names and their quotes |
//! | [`error`] | error codes -> who can mend it; the line and caret in the model's SQL |
//!
//! Invariants: a statement is described before it runs, and nothing but a SELECT runs; one session serves one call and
//! ends with it; a query runs once, whatever happens to its session, its links or a download; what is cancelled or
//! dropped is aborted in the warehouse; the object store gets no credential of ours.

mod account;
mod auth;
mod config;
mod decode;
mod error;
mod introspect;
mod names;
mod plan;
mod query;
mod result;
mod session;
mod statement;
mod stream;
mod transport;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use self::config::SnowflakeConfig;
use self::error::Sent;
use self::plan::Plan;
use self::session::Session;
use self::statement::{check_described, one_reading};
use self::transport::Transport;
use super::statement::ReadingStatement;
use super::steps::Trace;
use super::{
    ColumnInfo, CostEstimate, Grade, Maturity, Provider, QueryOptions, RunningQuery, TableInfo, TestStep, Warehouse,
    WarehouseError, stricter_timeout,
};

/// `type: snowflake`.
pub const PROVIDER: Provider = Provider {
    name: "snowflake",
    title: "Snowflake",
    parameters: config::PARAMETERS,
    maturity: Maturity {
        grade: Grade::Preview,
        verified: "the stand-in fakesnow (SQL, inline results), and a scripted server after the official drivers' wire format \
                   (chunks, expiry, renewal, cancel, throttling, every type); not a real account",
    },
    build: |params| Ok(Arc::new(Snowflake::new(SnowflakeConfig::from_params(params)?)?)),
};

/// One database of one account.
#[derive(Debug)]
struct Snowflake {
    config: Arc<SnowflakeConfig>,
    transport: Arc<Transport>,
}

impl Snowflake {
    fn new(config: SnowflakeConfig) -> Result<Self, WarehouseError> {
        let transport = Arc::new(Transport::new(&config)?);
        Ok(Self { config: Arc::new(config), transport })
    }

    /// How long a statement may run: a model's own timeout can only be shorter.
    fn limit(&self, timeout: Option<Duration>) -> Option<Duration> {
        stricter_timeout(self.config.statement_timeout, timeout)
    }

    async fn session(&self, timeout: Option<Duration>) -> Result<Session, WarehouseError> {
        Session::open(self.transport.clone(), self.config.clone(), self.limit(timeout)).await
    }

    /// Has the service describe a statement, without running it.
    async fn plan(session: &Session, statement: &ReadingStatement) -> Result<Plan, WarehouseError> {
        let sql = &statement.text;
        let data = session.describe(sql, Sent { sql, lines_before: 0 }).await?;
        check_described(data.statement_type_id, data.number_of_binds)?;
        Plan::new(data.rowtype.as_deref().unwrap_or_default())
    }

    async fn test_traced(&self, trace: &mut Trace) -> Result<(), WarehouseError> {
        trace.reach(&self.config.account.endpoint, self.config.connect_timeout).await?;
        let session = trace.step("log in", self.session(None), |s| self.place(s)).await?;
        let session = Arc::new(session);
        let read = introspect::version(&session);
        let outcome = match trace.step("read", read, |version| format!("Snowflake {version}")).await {
            Ok(_) => self.test_tables(&session, trace).await,
            Err(e) => Err(e),
        };
        session.close().await;
        outcome
    }

    async fn test_tables(&self, session: &Arc<Session>, trace: &mut Trace) -> Result<(), WarehouseError> {
        let listed = async {
            let tables = introspect::tables(session).await?;
            if tables.is_empty() {
                return Err(WarehouseError::configuration(format!("the role can read no table of {}", self.config.database))
                    .with_hint(
                        "GRANT USAGE ON DATABASE … TO ROLE …; GRANT USAGE ON SCHEMA … TO ROLE …; GRANT SELECT ON … TO ROLE …; \
                         see docs/warehouses/snowflake.md",
                    ));
            }
            Ok(tables.len())
        };
        trace.step("tables", listed, |count| format!("{count} can be read")).await.map(|_| ())
    }

    /// Who and where a session is.
    fn place(&self, session: &Session) -> String {
        let info = &session.info;
        let told = [
            ("role", &info.role_name),
            ("warehouse", &info.warehouse_name),
            ("database", &info.database_name),
            ("schema", &info.schema_name),
        ];
        let told = told.into_iter().filter_map(|(what, name)| Some(format!("{what} {}", name.as_ref()?)));
        std::iter::once(format!("as {}", self.config.user)).chain(told).collect::<Vec<_>>().join(", ")
    }
}

#[async_trait]
impl Warehouse for Snowflake {
    async fn test(&self) -> Vec<TestStep> {
        let mut trace = Trace::default();
        // the failed step, if any, is in the trace
        let _ = self.test_traced(&mut trace).await;
        trace.steps
    }

    async fn tables(&self) -> Result<Vec<TableInfo>, WarehouseError> {
        let session = Arc::new(self.session(None).await?);
        let tables = introspect::tables(&session).await;
        session.close().await;
        tables
    }

    async fn columns(&self, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
        let session = self.session(None).await?;
        let columns = introspect::columns(&session, table).await;
        session.close().await;
        columns
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let statement = one_reading(sql)?;
        let session = self.session(None).await?;
        let plan = Self::plan(&session, &statement).await;
        session.close().await;
        plan.map(|p| p.schema)
    }

    async fn estimate(&self, sql: &str) -> Result<Option<CostEstimate>, WarehouseError> {
        let statement = one_reading(sql)?;
        let session = Arc::new(self.session(None).await?);
        let estimate = match Self::plan(&session, &statement).await {
            Ok(_) => introspect::estimate(&session, &statement).await,
            Err(e) => Err(e),
        };
        session.close().await;
        estimate
    }

    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError> {
        let statement = one_reading(sql)?;
        let session = self.session(options.timeout).await?;
        match Self::plan(&session, &statement).await {
            Ok(plan) => Ok(query::start(session, plan, &statement, options, self.limit(options.timeout))),
            Err(e) => {
                session.close().await;
                Err(e)
            }
        }
    }
}
