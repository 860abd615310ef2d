//! Databricks, through the SQL Statement Execution API of a SQL warehouse.
//!
//! | Part | What it does |
//! |---|---|
//! | [`config`] | parameters -> typed settings, pure |
//! | [`auth`] | personal access token; OAuth token, kept and renewed |
//! | [`api`], [`wire`] | the requests, logged in; their JSON |
//! | [`types`], [`plan`] | described types -> Arrow, and what the warehouse is asked to render |
//! | [`query`] | the reading task: submit, poll, download; stop |
//! | [`adapt`] | arrays as they come -> arrays as described |
//! | [`introspect`] | tables, columns, the description of a query |
//! | [`error`] | error classes and SQLSTATE -> who can mend it; the line and caret in the model's SQL |
//!
//! Invariants: a statement is submitted at most once, whatever happens to the answer; it is described before it is run, and
//! what comes is what was described; links to results are asked for just before they are used, and no credential is sent to
//! them; a result that the service cut short is an error; a query that is cancelled, dropped or out of time is cancelled in
//! the warehouse.
//!
//! Cost: `EXPLAIN` tells none without statistics, so [`Warehouse::estimate`] is left as it is: none.

mod adapt;
mod api;
mod auth;
mod config;
mod dialect;
mod error;
mod introspect;
mod plan;
mod query;
mod types;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;

use self::api::{Api, Small};
use self::config::DatabricksConfig;
use self::plan::Plan;
use self::wire::SqlWarehouse;
use super::statement::{ReadingStatement, reading_statement};
use super::steps::Trace;
use super::{
    ColumnInfo, Grade, Maturity, Provider, QueryOptions, RunningQuery, TableInfo, TestStep, Warehouse, WarehouseError,
    stricter_timeout,
};

/// `type: databricks`.
pub const PROVIDER: Provider = Provider {
    name: "databricks",
    title: "Databricks SQL warehouses",
    parameters: config::PARAMETERS,
    maturity: Maturity {
        grade: Grade::Preview,
        verified: "the conformance suite against a scripted server with the documented wire format, and against minilake; \
                   not against a real workspace",
    },
    build: |params| Ok(Arc::new(Databricks { api: Arc::new(Api::new(DatabricksConfig::from_params(params)?)?) })),
};

/// One SQL warehouse.
#[derive(Debug)]
struct Databricks {
    api: Arc<Api>,
}

impl Databricks {
    fn limit(&self, asked: Option<Duration>) -> Option<Duration> {
        stricter_timeout(self.api.config.statement_timeout, asked)
    }

    async fn plan(&self, statement: &ReadingStatement, limit: Option<Duration>) -> Result<Plan, WarehouseError> {
        Plan::new(&introspect::describe(&self.api, statement, limit).await?)
    }

    /// The steps of a test; what follows a failed one is not tried.
    async fn try_all(&self, trace: &mut Trace) -> Result<(), WarehouseError> {
        let config = &self.api.config;
        trace.reach(&config.url, config.connect_timeout).await?;
        let logged_in = self.api.auth.token(None).await;
        // a personal access token is checked by the first request that it comes with
        let warehouse = match &logged_in {
            Ok(_) => self.api.warehouse().await,
            Err(e) => Err(e.clone()),
        };
        if config.url.scheme() == "https" {
            match &warehouse {
                Err(e) if e.message.contains("TLS handshake") => {
                    trace.failed("TLS", e);
                    return Err(e.clone());
                }
                Err(e) if e.is_retryable() => {}
                _ => trace.ok("TLS", "the certificate is trusted and names the host"),
            }
        }
        match &warehouse {
            Err(e) if logged_in.is_err() || e.is_retryable() || e.message.starts_with(auth::REFUSED) => {
                trace.failed("log in", e);
                return Err(e.clone());
            }
            _ => trace.ok("log in", self.api.auth.describe()),
        }
        trace.step("SQL warehouse", async { state_of(warehouse?) }, String::clone).await?;
        let read = self.api.rows(Small { text: "SELECT 1", schema: None, sent: None }, self.limit(None));
        trace.step("read", read, |_| "SELECT 1".to_string()).await?;
        let tables = async {
            let tables = introspect::tables(&self.api, self.limit(None)).await?;
            if tables.is_empty() {
                return Err(WarehouseError::configuration("the login can see no table in the catalog").with_hint(
                    "check `catalog`; GRANT USE CATALOG ON CATALOG … TO …; GRANT USE SCHEMA, SELECT ON SCHEMA … TO …; \
                     see docs/warehouses/databricks.md",
                ));
            }
            Ok(tables)
        };
        trace.step("tables", tables, |tables| format!("{} can be seen", tables.len())).await.map(drop)
    }
}

/// What the warehouse's state means for a query.
fn state_of(warehouse: SqlWarehouse) -> Result<String, WarehouseError> {
    let name = warehouse.name.unwrap_or_default();
    let state = warehouse.state.unwrap_or_default();
    match state.as_str() {
        "DELETED" | "DELETING" => Err(WarehouseError::configuration(format!("the SQL warehouse `{name}` is {state}"))
            .with_hint("set `http_path` to a SQL warehouse that exists")),
        "STOPPED" | "STOPPING" | "STARTING" => {
            Ok(format!("`{name}` is {state}: it starts with the first query, which may take minutes"))
        }
        _ => Ok(format!("`{name}` is {state}")),
    }
}

#[async_trait]
impl Warehouse for Databricks {
    async fn test(&self) -> Vec<TestStep> {
        let mut trace = Trace::default();
        // the failed step, if any, is in the trace
        let _ = self.try_all(&mut trace).await;
        trace.steps
    }

    async fn tables(&self) -> Result<Vec<TableInfo>, WarehouseError> {
        introspect::tables(&self.api, self.limit(None)).await
    }

    async fn columns(&self, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
        introspect::columns(&self.api, table, self.limit(None)).await
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let statement = reading_statement(sql, &dialect::Lexical)?;
        Ok(self.plan(&statement, self.limit(None)).await?.schema)
    }

    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError> {
        let statement = reading_statement(sql, &dialect::Lexical)?;
        let limit = self.limit(options.timeout);
        let plan = self.plan(&statement, limit).await?;
        Ok(query::start(self.api.clone(), plan, &statement, options, limit))
    }
}
