//! Connections into warehouses.
//!
//! A provider is one module and one line in [`registry`]: it declares its parameters once ([`Provider`]), from which
//! configuration is validated, help is printed and, later, forms are drawn; and it builds a [`Warehouse`].
//!
//! Invariants that every provider keeps:
//! - it only ever reads: the session is read-only where the warehouse offers that;
//! - results are Arrow streams with back-pressure: nothing on the path holds a whole result;
//! - no secret appears in an error, in `Debug`, or in a log line;
//! - a query that is cancelled (or whose stream is dropped) is cancelled in the warehouse too;
//! - a value that cannot be carried faithfully is not changed in silence: its row is marked in
//!   [`UNCONVERTIBLE_COLUMN`] and ends in quarantine.

pub mod bigquery;
mod chunks;
pub mod databricks;
pub mod error;
#[cfg(test)]
mod guides;
pub(crate) mod http;
pub mod local;
pub mod params;
pub mod postgres;
pub mod redshift;
pub mod snowflake;
pub mod statement;
mod steps;
pub mod task;
mod text;

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::execution::SendableRecordBatchStream;

pub use error::{WarehouseError, WarehouseErrorKind};
pub use params::{ConnectionParams, Parameter, ParameterKind};

/// An optional, nullable `Utf8` column that a provider may append to its batches. A row where it is not null holds a
/// value that could not be carried (its cell is null); the text is `column: reason`.
pub const UNCONVERTIBLE_COLUMN: &str = "_cc_unconvertible";

/// What a provider is: its name, its parameters, and how to build it. The built-in ones are listed in [`registry`]; a
/// program of one's own can hand more of them to [`crate::cli::main_with`].
#[derive(Debug, Clone, Copy)]
pub struct Provider {
    /// The `type:` of a connection, for example `postgres`.
    pub name: &'static str,
    /// What it connects to, for people.
    pub title: &'static str,
    /// Its parameters, in the order in which help shows them.
    pub parameters: &'static [Parameter],
    /// How far it can be relied on.
    pub maturity: Maturity,
    /// Builds the warehouse; pure (no I/O), so a faulty parameter is found without a network.
    pub build: fn(&ConnectionParams) -> Result<Arc<dyn Warehouse>, WarehouseError>,
}

/// How far a provider can be relied on, by what it was verified against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Maturity {
    pub grade: Grade,
    /// What the conformance suite and the end-to-end tests ran against, and what they did not.
    pub verified: &'static str,
}

/// The grades of maturity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// Every test runs against the real thing.
    Stable,
    /// Tested against stand-ins and the vendor's documented wire format, not against a real account.
    Preview,
}

impl Grade {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stable => "stable",
            Self::Preview => "preview",
        }
    }
}

/// Every built-in provider.
pub fn registry() -> &'static [Provider] {
    static PROVIDERS: &[Provider] = &[
        local::PROVIDER,
        postgres::PROVIDER,
        bigquery::PROVIDER,
        databricks::PROVIDER,
        redshift::PROVIDER,
        snowflake::PROVIDER,
    ];
    PROVIDERS
}

/// The provider of that name.
pub fn provider(name: &str) -> Option<&'static Provider> {
    registry().iter().find(|p| p.name == name)
}

/// A table that a connection can read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TableInfo {
    /// The name as it can be written in a query of that warehouse, quoted where it has to be.
    pub name: String,
    /// `table`, `view`, `parquet`, `csv` …
    pub kind: String,
    /// Number of columns, when it is known without a scan.
    pub columns: Option<u64>,
    /// Why it cannot be read as it is, where asking for its columns tells.
    pub error: Option<String>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ColumnInfo {
    pub name: String,
    /// The warehouse's own name of the type.
    pub warehouse_type: String,
    /// The profile value type that it maps to (see `docs/value-types.md`), or none when it cannot be held.
    pub value_type: Option<String>,
    pub nullable: bool,
}

/// One step of a connection test: what was tried, and how it went.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct TestStep {
    /// `resolve name`, `connect`, `TLS`, `log in`, `read` …
    pub step: String,
    pub ok: bool,
    /// What was found, or what went wrong and what to do.
    pub detail: String,
}

/// What a query will cost, as far as its warehouse tells without running it.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, utoipa::ToSchema)]
pub struct CostEstimate {
    /// Bytes that the warehouse will read (for BigQuery: bill).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Micro-partitions that will be read, and how many the tables have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partitions: Option<(u64, u64)>,
    /// Rows that the planner expects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// The planner's own unit of cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub planner_cost: Option<String>,
    /// Where it comes from, for example `dry run`.
    pub source: &'static str,
}

impl std::fmt::Display for CostEstimate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        if let Some(bytes) = self.bytes {
            // decimal units, as warehouses bill
            parts.push(format!("{} to be read", bytesize::ByteSize(bytes).display().si()));
        }
        if let Some((read, of)) = self.partitions {
            parts.push(format!("{read} of {of} partitions"));
        }
        if let Some(rows) = self.rows {
            parts.push(format!("about {rows} rows"));
        }
        if let Some(cost) = &self.planner_cost {
            parts.push(format!("planner cost {cost}"));
        }
        write!(f, "cost: {} ({})", parts.join(", "), self.source)
    }
}

/// Limits of one query.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// The warehouse is told to stop the query after this long.
    pub timeout: Option<Duration>,
    /// Rows in a batch, about.
    pub batch_rows: usize,
    /// Stop after so many rows (samples).
    pub limit: Option<usize>,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self { timeout: None, batch_rows: 8192, limit: None }
    }
}

/// The stricter of a connection's limit and a query's own. Zero is no limit.
pub fn stricter_timeout(connection: Duration, query: Option<Duration>) -> Option<Duration> {
    [Some(connection), query].into_iter().flatten().filter(|timeout| !timeout.is_zero()).min()
}

/// A query under way: its rows, and the way to stop it.
pub struct RunningQuery {
    /// The rows. Errors inside are [`WarehouseError`] boxed in `DataFusionError::External` where the warehouse raised them.
    pub stream: SendableRecordBatchStream,
    /// Stops the query in the warehouse. Harmless after its end.
    pub cancel: Arc<dyn CancelQuery>,
}

/// Stops a running query in its warehouse.
#[async_trait]
pub trait CancelQuery: Send + Sync {
    /// Returns when the warehouse was told (or could not be reached within a few seconds).
    async fn cancel(&self);
}

/// A way into one warehouse.
#[async_trait]
pub trait Warehouse: Send + Sync + std::fmt::Debug {
    /// Tries what a run needs, step by step; stops at the first step that fails.
    async fn test(&self) -> Vec<TestStep>;

    /// The tables that can be read.
    async fn tables(&self) -> Result<Vec<TableInfo>, WarehouseError>;

    /// The columns of a table, named as [`TableInfo::name`] (or as a person would write it in a query).
    async fn columns(&self, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError>;

    /// The columns that a query returns, by the warehouse's own description, without reading rows.
    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError>;

    /// What the query will cost; none when the warehouse does not tell without running it. Reads no rows.
    async fn estimate(&self, _sql: &str) -> Result<Option<CostEstimate>, WarehouseError> {
        Ok(None)
    }

    /// Runs one reading statement and streams its rows. Anything but one reading statement is refused.
    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError>;
}
