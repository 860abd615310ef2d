//! Against a real server of their own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

#[path = "../../../../tests/support/postgres.rs"]
#[expect(clippy::expect_used, clippy::panic, reason = "test support")]
mod support;

mod failures;
mod introspection;
mod reading;
mod tls;
mod types;

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use datafusion::error::DataFusionError;
use futures::TryStreamExt;

use self::support::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::warehouse::{ConnectionParams, QueryOptions, RunningQuery, Warehouse, WarehouseError};

/// The parameters of a reader of that server.
fn params(server: &PostgresServer) -> ConnectionParams {
    let mut params = ConnectionParams::new("shop", server.authority().parent().unwrap());
    let port = server.port.to_string();
    for (name, value) in [
        ("host", "127.0.0.1"),
        ("port", port.as_str()),
        ("database", DATABASE),
        ("user", "reader"),
        ("password", READER_PASSWORD),
        ("sslmode", "disable"),
    ] {
        params.set(name, value);
    }
    params
}

fn params_with(server: &PostgresServer, values: &[(&str, &str)]) -> ConnectionParams {
    let mut params = params(server);
    for (name, value) in values {
        params.set(*name, *value);
    }
    params
}

fn open(params: &ConnectionParams) -> Arc<dyn Warehouse> {
    (super::PROVIDER.build)(params).unwrap()
}

/// The shared server with the sample tables, and a connection to it.
fn shop() -> (Arc<PostgresServer>, Arc<dyn Warehouse>) {
    let server = PostgresServer::shared(false, |server| {
        server.psql(DATABASE, include_str!("shop.sql"));
    });
    let warehouse = open(&params(&server));
    (server, warehouse)
}

/// What went wrong inside a stream.
fn cause(error: &DataFusionError) -> WarehouseError {
    match error {
        DataFusionError::External(inner) => inner.downcast_ref::<WarehouseError>().cloned().unwrap(),
        other => WarehouseError::bug(other.to_string()),
    }
}

async fn drain(running: RunningQuery) -> Result<RecordBatch, WarehouseError> {
    let schema = running.stream.schema();
    let batches: Vec<RecordBatch> = running.stream.try_collect().await.map_err(|e| cause(&e))?;
    Ok(concat_batches(&schema, &batches).unwrap())
}

/// All rows of a query, as one batch.
async fn read(warehouse: &dyn Warehouse, sql: &str) -> Result<RecordBatch, WarehouseError> {
    drain(warehouse.query(sql, &QueryOptions::default()).await?).await
}
