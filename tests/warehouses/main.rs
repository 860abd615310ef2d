//! One conformance suite over every warehouse, and models on them through the whole pipeline.
//!
//! | Warehouse | Real server | Stand-in | Scripted fake |
//! |---|---|---|---|
//! | `local` | files | | |
//! | `postgres` | PostgreSQL | | |
//! | `redshift` | | PostgreSQL | a proxy before it that refuses what Redshift refuses and knows `UNLOAD` |
//! | `snowflake` | | fakesnow | `fakes::snowflake` |
//! | `bigquery` | | local-bigquery | `fakes::bigquery` |
//! | `databricks` | | minilake | `fakes::databricks` |

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bigquery;
mod databricks;
mod embedded;
mod fakes;
mod own_connector;
mod process;
mod redshift;
mod snowflake;
mod suite;

#[path = "../cli/project.rs"]
#[allow(dead_code, reason = "each test binary uses its part")]
mod project;

#[path = "../support/postgres.rs"]
mod postgres_server;
