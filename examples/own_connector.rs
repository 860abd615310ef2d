//! A connector of one's own: `type: sqlite`, added to the ones that come with the program.
//!
//! ```text
//! cargo run --release --example own_connector -- --project examples/own_connector run
//! ```
//!
//! That is the whole program with one more kind of connection: `check`, `plan`, `run` and `connection …` work on it as on
//! any other, and `connection types` lists its parameters. What a connector has to keep is told in
//! [`cloud_connect::warehouse`], and asked by the conformance suite in `tests/warehouses`, which runs over this one too.
//!
//! | Rule | Here |
//! |---|---|
//! | declare the parameters once | [`PROVIDER`] |
//! | only read | the file is opened read-only, and only one reading statement passes |
//! | stream, with back-pressure | rows become batches of `batch_rows`; [`task::start`] waits while nobody takes them |
//! | change no value in silence | a value that is not of its column's type: null, and the reason in [`UNCONVERTIBLE_COLUMN`] |
//! | stop when asked | the database asks us every thousand steps whether to go on |
//! | say who can mend an error | [`failed`] |

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryBuilder, Float64Builder, Int64Builder, RecordBatch, StringBuilder};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use cloud_connect::values::ValueType;
use cloud_connect::warehouse::statement::reading_statement;
use cloud_connect::warehouse::task::{self, Batches, End, StopQuery};
use cloud_connect::warehouse::{
    self, ColumnInfo, Grade, Maturity, Parameter, ParameterKind, Provider, QueryOptions, RunningQuery, TableInfo,
    TestStep, UNCONVERTIBLE_COLUMN, Warehouse, WarehouseError,
};
use datafusion::sql::sqlparser::dialect::SQLiteDialect;
use futures::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{AssertSqlSafe, Column, ConnectOptions, Executor, Row, SqlSafeStr, Statement, TypeInfo, ValueRef};

/// The program with the built-in connectors and this one.
#[allow(dead_code, reason = "the tests take this file as a module")]
fn main() -> ExitCode {
    let providers = warehouse::registry().iter().copied().chain([PROVIDER]);
    cloud_connect::cli::main_with(providers.collect())
}

/// `type: sqlite`.
pub const PROVIDER: Provider = Provider {
    name: "sqlite",
    title: "A SQLite file",
    parameters: &[
        Parameter {
            name: "file",
            kind: ParameterKind::File,
            required: true,
            default: None,
            help: "The database file, relative to the project",
        },
        Parameter {
            name: "statement_timeout",
            kind: ParameterKind::Duration,
            required: false,
            default: Some("30m"),
            help: "A query is stopped after this long; 0s for no limit",
        },
    ],
    maturity: Maturity { grade: Grade::Preview, verified: "an example; the conformance suite on real files" },
    build: |params| {
        let timeout = params.text("statement_timeout").unwrap_or("30m");
        let timeout = humantime::parse_duration(timeout).map_err(|e| WarehouseError::configuration(e.to_string()))?;
        Ok(Arc::new(Sqlite { file: params.project_root.join(params.required("file")?), timeout }))
    },
};

#[derive(Debug)]
struct Sqlite {
    file: PathBuf,
    timeout: Duration,
}

/// What stops a query: the database looks at it every thousand steps.
#[derive(Default)]
struct Stop(AtomicBool);

#[async_trait]
impl StopQuery for Stop {
    async fn stop(&self) -> Result<(), WarehouseError> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

impl Sqlite {
    async fn open(&self) -> Result<SqliteConnection, WarehouseError> {
        let options = SqliteConnectOptions::new().filename(&self.file).read_only(true).pragma("query_only", "on");
        options.disable_statement_logging().connect().await.map_err(|e| {
            WarehouseError::configuration(format!("`{}` cannot be opened: {e}", self.file.display()))
                .with_hint("check `file` of the connection, and that this user may read it")
        })
    }

    /// The result's columns. A column without a declared type (an expression) is text: values of any type fit in.
    async fn schema(connection: &mut SqliteConnection, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let statement = connection.prepare(AssertSqlSafe(sql).into_sql_str()).await.map_err(failed)?;
        let mut fields: Vec<Field> = statement
            .columns()
            .iter()
            .map(|column| Field::new(column.name(), arrow_type(column.type_info().name()), true))
            .collect();
        if fields.is_empty() {
            return Err(WarehouseError::sql("the SQL returns no columns").with_hint("select at least the primary key"));
        }
        fields.push(Field::new(UNCONVERTIBLE_COLUMN, DataType::Utf8, true));
        Ok(Arc::new(Schema::new(fields)))
    }
}

fn arrow_type(declared: &str) -> DataType {
    match declared {
        "INTEGER" | "INT4" | "BOOLEAN" => DataType::Int64,
        "REAL" => DataType::Float64,
        "BLOB" => DataType::Binary,
        _ => DataType::Utf8,
    }
}

/// Who can mend it: here mostly the author of the SQL.
fn failed(error: sqlx::Error) -> WarehouseError {
    match &error {
        sqlx::Error::Database(e) if e.code().as_deref() == Some("5") => {
            WarehouseError::retry("the database is locked by a writer").with_hint("try again")
        }
        sqlx::Error::Database(e) => WarehouseError::sql(e.message().to_string())
            .with_hint("`connection tables` and `connection columns` show what there is"),
        sqlx::Error::Io(e) => WarehouseError::retry(format!("the file could not be read: {e}")),
        _ => WarehouseError::bug(error.to_string()),
    }
}

/// A batch in the making.
struct Builder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    unconvertible: StringBuilder,
    rows: usize,
}

enum ColumnBuilder {
    Int(Int64Builder),
    Float(Float64Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
}

impl Builder {
    fn new(schema: SchemaRef) -> Self {
        let of_result = schema.fields().iter().take(schema.fields().len() - 1);
        let columns = of_result.map(|field| match field.data_type() {
            DataType::Int64 => ColumnBuilder::Int(Int64Builder::new()),
            DataType::Float64 => ColumnBuilder::Float(Float64Builder::new()),
            DataType::Binary => ColumnBuilder::Bytes(BinaryBuilder::new()),
            _ => ColumnBuilder::Text(StringBuilder::new()),
        });
        Self { columns: columns.collect(), schema, unconvertible: StringBuilder::new(), rows: 0 }
    }

    fn push(&mut self, row: &SqliteRow) -> Result<(), WarehouseError> {
        let mut reason = None;
        for (index, column) in self.columns.iter_mut().enumerate() {
            let value = row.try_get_raw(index).map_err(failed)?;
            // a value of SQLite has a type of its own, whatever its column was declared as
            let (kind, null) = (value.type_info().name().to_string(), value.is_null());
            let fits = match column {
                _ if null => false,
                ColumnBuilder::Int(_) => matches!(kind.as_str(), "INTEGER" | "BOOLEAN"),
                ColumnBuilder::Float(_) => kind == "REAL",
                ColumnBuilder::Bytes(_) => kind == "BLOB",
                ColumnBuilder::Text(_) => kind != "BLOB",
            };
            if !null && !fits && reason.is_none() {
                let field = self.schema.field(index);
                reason = Some(format!("{}: {} in a column of {}", field.name(), kind, field.data_type()));
            }
            match column {
                ColumnBuilder::Int(b) => b.append_option(fits.then(|| row.get_unchecked::<i64, _>(index))),
                ColumnBuilder::Float(b) => b.append_option(fits.then(|| row.get_unchecked::<f64, _>(index))),
                ColumnBuilder::Bytes(b) => b.append_option(fits.then(|| row.get_unchecked::<Vec<u8>, _>(index))),
                ColumnBuilder::Text(b) => b.append_option(fits.then(|| match kind.as_str() {
                    "INTEGER" => row.get_unchecked::<i64, _>(index).to_string(),
                    "REAL" => row.get_unchecked::<f64, _>(index).to_string(),
                    _ => row.get_unchecked::<String, _>(index),
                })),
            }
        }
        self.unconvertible.append_option(reason);
        self.rows += 1;
        Ok(())
    }

    fn take(&mut self) -> Result<RecordBatch, WarehouseError> {
        self.rows = 0;
        let columns = self.columns.iter_mut().map(|column| -> ArrayRef {
            match column {
                ColumnBuilder::Int(b) => Arc::new(b.finish()),
                ColumnBuilder::Float(b) => Arc::new(b.finish()),
                ColumnBuilder::Text(b) => Arc::new(b.finish()),
                ColumnBuilder::Bytes(b) => Arc::new(b.finish()),
            }
        });
        let mut columns: Vec<ArrayRef> = columns.collect();
        columns.push(Arc::new(self.unconvertible.finish()));
        RecordBatch::try_new(self.schema.clone(), columns).map_err(|e| WarehouseError::bug(e.to_string()))
    }
}

/// Reads until the end, or until nobody wants more.
async fn read(
    mut connection: SqliteConnection,
    sql: String,
    schema: SchemaRef,
    batch_rows: usize,
    mut batches: Batches,
) -> Result<End, WarehouseError> {
    let mut builder = Builder::new(schema);
    let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut connection);
    while let Some(row) = rows.try_next().await.map_err(failed)? {
        builder.push(&row)?;
        if builder.rows == batch_rows
            && let Err(enough) = batches.send(builder.take()?).await
        {
            return Ok(enough.into());
        }
    }
    let last = builder.take()?;
    // when nobody wants the last rows there is nothing left to stop
    let _ = batches.send(last).await;
    Ok(End::Complete)
}

#[async_trait]
impl Warehouse for Sqlite {
    async fn test(&self) -> Vec<TestStep> {
        let step = |step: &str, outcome: Result<String, WarehouseError>| match outcome {
            Ok(detail) => TestStep { step: step.into(), ok: true, detail },
            Err(e) => {
                let hint = e.hint.clone().unwrap_or_default();
                TestStep { step: step.into(), ok: false, detail: format!("{e}; {hint}") }
            }
        };
        let opened = self.open().await.map(|_| self.file.display().to_string());
        let mut steps = vec![step("open file", opened)];
        if steps[0].ok {
            steps.push(step("tables", self.tables().await.map(|tables| format!("{} can be read", tables.len()))));
        }
        steps
    }

    async fn tables(&self) -> Result<Vec<TableInfo>, WarehouseError> {
        let mut connection = self.open().await?;
        let found = "SELECT t.name, t.type, (SELECT count(*) FROM pragma_table_info(t.name)) AS columns \
                     FROM sqlite_schema t WHERE t.type IN ('table', 'view') AND t.name NOT LIKE 'sqlite_%' ORDER BY 1";
        let rows = sqlx::query(found).fetch_all(&mut connection).await.map_err(failed)?;
        let info = |row: &SqliteRow| TableInfo {
            name: row.get("name"),
            kind: row.get("type"),
            columns: u64::try_from(row.get::<i64, _>("columns")).ok(),
            error: None,
        };
        Ok(rows.iter().map(info).collect())
    }

    async fn columns(&self, table: &str) -> Result<Vec<ColumnInfo>, WarehouseError> {
        let mut connection = self.open().await?;
        // the name is bound, never pasted
        let found = "SELECT name, type, \"notnull\" FROM pragma_table_info(?1)";
        let rows = sqlx::query(found).bind(table).fetch_all(&mut connection).await.map_err(failed)?;
        if rows.is_empty() {
            return Err(WarehouseError::sql(format!("there is no table `{table}`"))
                .with_hint("`connection tables` lists what there is"));
        }
        let quoted = table.replace('"', "\"\"");
        let schema = Self::schema(&mut connection, &format!("SELECT * FROM \"{quoted}\"")).await?;
        let info = |(row, field): (&SqliteRow, &Arc<Field>)| ColumnInfo {
            name: row.get("name"),
            warehouse_type: Some(row.get::<String, _>("type")).filter(|t| !t.is_empty()).unwrap_or("any".into()),
            value_type: ValueType::of(field).map(|t| t.to_string()),
            nullable: row.get::<i64, _>("notnull") == 0,
        };
        Ok(rows.iter().zip(schema.fields()).map(info).collect())
    }

    async fn describe(&self, sql: &str) -> Result<SchemaRef, WarehouseError> {
        let statement = reading_statement(sql, &SQLiteDialect {})?;
        Self::schema(&mut self.open().await?, &statement.text).await
    }

    async fn query(&self, sql: &str, options: &QueryOptions) -> Result<RunningQuery, WarehouseError> {
        let statement = reading_statement(sql, &SQLiteDialect {})?;
        let mut connection = self.open().await?;
        let schema = Self::schema(&mut connection, &statement.text).await?;
        let stop = Arc::new(Stop::default());
        let asked = stop.clone();
        let mut handle = connection.lock_handle().await.map_err(failed)?;
        handle.set_progress_handler(1000, move || !asked.0.load(Ordering::Relaxed));
        drop(handle);

        let batch_rows = options.batch_rows.max(1);
        let sql = match options.limit {
            Some(limit) => statement.limited(limit),
            None => statement.text,
        };
        let limits = warehouse::stricter_timeout(self.timeout, options.timeout);
        let of_batches = schema.clone();
        Ok(task::start(schema, options.limit, stop, move |batches| async move {
            let reading = read(connection, sql, of_batches, batch_rows, batches);
            match limits {
                None => reading.await,
                Some(limit) => tokio::time::timeout(limit, reading).await.unwrap_or_else(|_| {
                    Err(WarehouseError::sql(format!("the query was stopped by its timeout of {limit:?}"))
                        .with_hint("narrow the query, or raise `statement_timeout`"))
                }),
            }
        }))
    }
}
