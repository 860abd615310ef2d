//! The embedded warehouse: DataFusion over files in a directory or an object store.
//!
//! Everything directly under the connection's `path` that holds data is a table, named after its stem:
//!
//! ```text
//! path/
//!   customers.parquet            customers    parquet
//!   purchases.csv.zst            purchases    csv (also tsv; plain, .gz or .zst)
//!   sessions.ndjson              sessions     ndjson (also jsonl, json; plain, .gz or .zst)
//!   orders/2025/a.parquet …      orders       parquet: a folder of files of one format
//!   events/day=2025-01-01/…      events       … with hive partitions as columns
//!   stock/_delta_log/…           stock        Delta Lake
//! ```
//!
//! Actors: [`location::Location`] opens the store, [`catalog::Catalog`] finds what is there, [`table`] opens one table
//! (asking [`csv`] or [`json`] for its schema), [`session`] plans one reading statement, [`errors`] says what went wrong.
//!
//! Invariants:
//! - nothing outside `path` can be read, and nothing written: the store handed to DataFusion is rooted there, and
//!   read-only;
//! - an operation sees what is there now: nothing but inferred schemas is kept, and those only while the files they
//!   were inferred from are the same;
//! - a table that a query does not name is not opened;
//! - a schema is inferred from every row, so a row cannot break its type half-way through a query;
//! - text columns of Parquet and Delta tables come as `Utf8View`, of the others as `Utf8`.

mod catalog;
mod content;
mod csv;
mod errors;
mod json;
mod json_shape;
mod json_source;
mod location;
mod read_only;
#[cfg(test)]
mod sample_tests;
mod session;
mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{ExecutionPlanProperties, execute_stream};
use futures::StreamExt;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::catalog::{Catalog, SchemaCache};
use self::location::Location;
use self::session::Session;
use super::{
    CancelQuery, ColumnInfo, ConnectionParams, Grade, Maturity, Parameter, ParameterKind, Provider, QueryOptions,
    RunningQuery, TableInfo, TestStep, Warehouse, WarehouseError, WarehouseErrorKind,
};
use crate::values::ValueType;

/// Memory for sorts, joins and aggregates of one query, in bytes, unless `_memory_limit` says otherwise.
const DEFAULT_MEMORY_LIMIT: usize = 256 << 20;

pub const PROVIDER: Provider = Provider {
    name: "local",
    maturity: Maturity {
        grade: Grade::Stable,
        verified: "every test runs against real files and object-store servers",
    },
    title: "Files in a directory or object store (Parquet, CSV, NDJSON, Delta Lake), queried by the embedded engine",
    parameters: &[Parameter {
        name: "path",
        kind: ParameterKind::Location,
        required: true,
        default: None,
        help: "A directory (relative to the project), or an s3://, gs:// or abfss:// URL. Each file or folder directly \
               under it is a table. Object stores take their endpoint and credentials from the environment \
               (AWS_*, GOOGLE_*, AZURE_*).",
    }],
    build,
};

fn build(params: &ConnectionParams) -> Result<Arc<dyn Warehouse>, WarehouseError> {
    let location = Location::parse(params.required("path")?, &params.project_root)?;
    // not a parameter of the file: the command line hands its `--memory-limit` down under this name
    let memory_limit = params.integer("_memory_limit")?.and_then(|n| usize::try_from(n).ok());
    Ok(Arc::new(LocalWarehouse::new(location, memory_limit.unwrap_or(DEFAULT_MEMORY_LIMIT))))
}

/// One `path`.
#[derive(Debug)]
struct LocalWarehouse {
    location: Location,
    memory_limit: usize,
    schemas: Arc<SchemaCache>,
}

impl LocalWarehouse {
    fn new(location: Location, memory_limit: usize) -> Self {
        Self { location, memory_limit, schemas: Arc::default() }
    }

    async fn catalog(&self) -> Result<Arc<Catalog>, WarehouseError> {
        let store = self.location.open().await?;
        Ok(Arc::new(Catalog::list(store, self.location.to_string(), Arc::clone(&self.schemas)).await?))
    }

    async fn session(&self, batch_rows: usize) -> Result<Session, WarehouseError> {
        Session::new(self.catalog().await?, self.memory_limit, batch_rows)
    }

    async fn run(&self, sql: &str, options: &QueryOptions) -> Result<SendableRecordBatchStream, WarehouseError> {
        let session = self.session(options.batch_rows).await?;
        let plan = session.physical_plan(sql, options.limit).await?;
        tracing::debug!(
            partitions = plan.output_partitioning().partition_count(),
            plan = %datafusion::physical_plan::displayable(plan.as_ref()).indent(false),
            "local query"
        );
        let rows = execute_stream(plan, session.task_context()).map_err(|e| errors::from_datafusion(&e))?;
        let schema = rows.schema();
        let rows = rows.map(|batch| batch.map_err(|e| errors::boxed(errors::from_datafusion(&e))));
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}

fn timed_out(limit: Duration) -> WarehouseError {
    WarehouseError::configuration(format!("the query was stopped after its limit of {limit:?}"))
        .with_hint("narrow the query, or raise the model's `timeout`")
}

/// Ends the stream with an error when it is cancelled, or when the deadline passes.
fn guarded(stream: SendableRecordBatchStream, deadline: Option<(Instant, Duration)>) -> RunningQuery {
    let schema = stream.schema();
    let asked = CancellationToken::new();
    let cancel = Arc::new(Cancel(asked.clone()));
    let rows = futures::stream::unfold(Some(stream), move |stream| {
        let asked = asked.clone();
        async move {
            // dropped with its query inside when it is not handed back
            let mut stream = stream?;
            let passed = async {
                match deadline {
                    Some((at, limit)) => {
                        tokio::time::sleep_until(at).await;
                        timed_out(limit)
                    }
                    None => std::future::pending().await,
                }
            };
            let error = tokio::select! {
                biased;
                () = asked.cancelled() => WarehouseError::new(WarehouseErrorKind::Cancelled, "the query was cancelled"),
                error = passed => error,
                batch = stream.next() => return batch.map(|batch| (batch, Some(stream))),
            };
            Some((Err(errors::boxed(error)), None))
        }
    });
    RunningQuery { stream: Box::pin(RecordBatchStreamAdapter::new(schema, rows)), cancel }
}

struct Cancel(CancellationToken);

#[async_trait]
impl CancelQuery for Cancel {
    async fn cancel(&self) {
        self.0.cancel();
    }
}

#[async_trait]
impl Warehouse for LocalWarehouse {
    async fn test(&self) -> Vec<TestStep> {
        let mut steps = Vec::new();
        let mut record = |step: &str, outcome: Result<String, WarehouseError>| {
            let (ok, detail) = match outcome {
                Ok(detail) => (true, detail),
                Err(e) => (false, e.hint.map_or(e.message.clone(), |hint| format!("{}; {hint}", e.message))),
            };
            steps.push(TestStep { step: step.into(), ok, detail });
            ok
        };
        let opened = self.location.open().await;
        if !record("open path", opened.map(|_| self.location.to_string())) {
            return steps;
        }
        let tables = self.tables().await;
        let listed = tables.as_ref().map(|tables| format!("{} tables", tables.len())).map_err(Clone::clone);
        if !record("list tables", listed) {
            return steps;
        }
        let tables = tables.unwrap_or_default();
        let Some(first) = tables.iter().find(|table| table.error.is_none()).or(tables.first()) else {
            record("read", Err(catalog::no_tables(&self.location.to_string())));
            return steps;
        };
        let options = QueryOptions { limit: Some(1), ..QueryOptions::default() };
        let read = async {
            let mut found = self.run(&format!("SELECT * FROM {}", first.name), &options).await?;
            let mut rows = 0;
            while let Some(batch) = found.next().await {
                rows += batch.map_err(|e| errors::from_datafusion(&e))?.num_rows();
            }
            Ok(format!("{rows} row of {}", first.name))
        };
        record("read", read.await);
        steps
    }

    async fn tables(&self) -> Result<Vec<TableInfo>, WarehouseError> {
        let session = self.session(QueryOptions::default().batch_rows).await?;
        session.catalog().tables(session.state()).await
    }

    async fn columns(&self, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
        let session = self.session(QueryOptions::default().batch_rows).await?;
        let schema = session.table(table).await?.schema();
        let columns = schema.fields().iter().map(|field| ColumnInfo {
            name: field.name().clone(),
            warehouse_type: field.data_type().to_string(),
            value_type: ValueType::of(field).map(|t| t.to_string()),
            nullable: field.is_nullable(),
        });
        Ok(columns.collect())
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let session = self.session(QueryOptions::default().batch_rows).await?;
        Ok(session.physical_plan(sql, None).await?.schema())
    }

    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError> {
        let Some(limit) = options.timeout else { return Ok(guarded(self.run(sql, options).await?, None)) };
        let deadline = Instant::now() + limit;
        let rows = tokio::time::timeout_at(deadline, self.run(sql, options)).await.map_err(|_| timed_out(limit))??;
        Ok(guarded(rows, Some((deadline, limit))))
    }
}
