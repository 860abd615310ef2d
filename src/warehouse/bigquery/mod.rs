//! BigQuery.
//!
//! | Part | What it does |
//! |---|---|
//! | [`parameters`], [`config`] | parameters -> typed settings, pure |
//! | [`credentials`], [`token`] | a key, a consent or the environment -> access tokens, renewed in time |
//! | [`api`] | REST: through `gcp-bigquery-client`, tried again, with a token that is renewed when it is refused |
//! | [`dry_run`] | what a query is, returns and costs |
//! | [`job`] | a query's job: insert, wait, cancel |
//! | [`storage`], [`stream`], [`ipc`] | the Storage Read API (gRPC): sessions, streams that resume; Arrow's messages |
//! | [`types`] | BigQuery's types -> Arrow; rows brought to what the dry run told |
//! | [`sql`], [`names`] | one reading statement; names of tables |
//! | [`introspect`] | tables and columns |
//! | [`error`], [`status`] | reasons and gRPC codes -> who can mend it; the line and caret in the model's SQL |
//!
//! ```text
//! dry run (SELECT? schema, bytes) -> insert job -> wait -> read session on its result table -> streams -> batches
//! ```
//!
//! Invariants: a statement runs only after BigQuery's own dry run called it a SELECT; it runs once (its job has an ID of
//! ours), whatever breaks later; rows are read from the result that it left, so a broken stream costs no second run; a
//! query that is cancelled, dropped or too slow is cancelled in BigQuery.

mod api;
mod config;
mod credentials;
mod dry_run;
mod error;
mod introspect;
mod ipc;
mod job;
mod names;
mod parameters;
mod sql;
mod status;
mod storage;
mod stream;
mod token;
mod types;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::sync::OnceCell;
use tonic::transport::Endpoint;

use self::api::{Api, Fault};
use self::config::BigQueryConfig;
use self::error::Sent;
use self::job::QueryJob;
use self::sql::{is_ordered, reading_statement};
use self::storage::Storage;
use super::statement::ReadingStatement;
use super::steps::Trace;
use super::{
    ColumnInfo, CostEstimate, Grade, Maturity, Provider, QueryOptions, RunningQuery, TableInfo, TestStep, Warehouse,
    WarehouseError, task,
};

/// `type: bigquery`.
pub const PROVIDER: Provider = Provider {
    name: "bigquery",
    title: "Google BigQuery",
    parameters: parameters::PARAMETERS,
    maturity: Maturity {
        grade: Grade::Preview,
        verified: "tests run against local-bigquery (SQL, REST and the Storage Read API) and a scripted server with the \
                   documented wire format (logins, throttling, broken and expired streams, every type); not yet against a \
                   Google account",
    },
    build: |params| Ok(Arc::new(BigQuery::new(BigQueryConfig::from_params(params)?))),
};

/// One project in BigQuery.
struct BigQuery {
    config: Arc<BigQueryConfig>,
    /// Made with the first call.
    services: OnceCell<(Arc<Api>, Endpoint)>,
}

impl std::fmt::Debug for BigQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BigQuery").field("config", &self.config).finish_non_exhaustive()
    }
}

impl BigQuery {
    fn new(config: BigQueryConfig) -> Self {
        Self { config: Arc::new(config), services: OnceCell::new() }
    }

    async fn services(&self) -> Result<&(Arc<Api>, Endpoint), WarehouseError> {
        let made = || async {
            let api = Arc::new(Api::new(self.config.clone()).await?);
            Ok((api, storage::endpoint(&self.config)?))
        };
        self.services.get_or_try_init(made).await
    }

    /// The steps of a connection test; what failed is in the trace.
    async fn test_steps(&self, trace: &mut Trace) -> Result<(), WarehouseError> {
        trace.reach(&self.config.endpoint, self.config.connect_timeout).await?;
        let (api, _) = self.services().await?;
        let login = async {
            api.tokens.token().await?;
            let title = api.tokens.credentials().await.map(|c| c.title()).unwrap_or_default();
            match dry_run::probe(api).await {
                Err(Fault::Api(e)) if e.is_unauthorized() => Err(e.into_error("the login", None, &api.asker().await)),
                Err(Fault::Login(e)) => Err(e),
                probed => Ok((title, probed)),
            }
        };
        let (_, probed) = trace.step("log in", login, |(title, _)| title.clone()).await?;
        let asker = api.asker().await;
        let probed = async { probed.map_err(|fault| fault.into_error("the dry run", None, &asker)) };
        trace.step("dry run", probed, |()| format!("jobs may run in {}", self.config.project)).await?;
        trace.step("read", self.read_one(), |()| "SELECT 1, through the Storage Read API".into()).await?;
        let tables = async {
            let tables = introspect::tables(api).await?;
            match tables.is_empty() {
                true => Err(WarehouseError::configuration("the connection can see no table")
                    .with_hint(error::grant("", &asker))),
                false => Ok(tables.len()),
            }
        };
        trace.step("tables", tables, |count| format!("{count} can be seen")).await?;
        Ok(())
    }

    /// A query of our own from its dry run to its last row.
    async fn read_one(&self) -> Result<(), WarehouseError> {
        use futures::TryStreamExt;
        let running = self.query("SELECT 1 AS one", &QueryOptions::default()).await?;
        let batches: Vec<_> = running.stream.try_collect().await.map_err(|e| match e {
            datafusion::error::DataFusionError::External(e) => match e.downcast::<WarehouseError>() {
                Ok(e) => *e,
                Err(e) => WarehouseError::bug(e.to_string()),
            },
            e => WarehouseError::bug(e.to_string()),
        })?;
        match batches.iter().map(|b| b.num_rows()).sum::<usize>() {
            1 => Ok(()),
            rows => Err(WarehouseError::bug(format!("SELECT 1 returned {rows} rows"))),
        }
    }
}

#[async_trait]
impl Warehouse for BigQuery {
    async fn test(&self) -> Vec<TestStep> {
        let mut trace = Trace::default();
        if let Err(error) = self.test_steps(&mut trace).await
            && trace.steps.last().is_none_or(|step| step.ok)
        {
            trace.failed("set up", &error);
        }
        trace.steps
    }

    async fn tables(&self) -> Result<Vec<TableInfo>, WarehouseError> {
        introspect::tables(&self.services().await?.0).await
    }

    async fn columns(&self, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
        introspect::columns(&self.services().await?.0, table).await
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let statement = reading_statement(sql)?;
        Ok(dry_run::dry_run(&self.services().await?.0, &statement.text).await?.schema)
    }

    async fn estimate(&self, sql: &str) -> Result<Option<CostEstimate>, WarehouseError> {
        let statement = reading_statement(sql)?;
        Ok(Some(dry_run::dry_run(&self.services().await?.0, &statement.text).await?.estimate()))
    }

    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError> {
        let ReadingStatement { text: sql } = reading_statement(sql)?;
        let (api, endpoint) = self.services().await?;
        let plan = dry_run::dry_run(api, &sql).await?;
        let query = Arc::new(QueryJob::new(api.clone(), &plan));
        let (stop, schema) = (query.clone(), plan.schema.clone());
        let storage = Arc::new(Storage::new(api.clone(), endpoint));
        let limit = self.config.limit(options.timeout);
        let &QueryOptions { batch_rows, limit: rows, .. } = options;
        Ok(task::start(plan.schema, rows, stop, move |mut batches| async move {
            let (text, lines_before) = match rows {
                Some(rows) => (ReadingStatement { text: sql.clone() }.limited(rows), ReadingStatement::LINES_BEFORE),
                None => (sql.clone(), 0),
            };
            let table = query.run(&text, Sent { sql: &sql, lines_before }, limit).await?;
            storage.read(&table, schema, is_ordered(&sql), batch_rows, &mut batches).await
        }))
    }
}
