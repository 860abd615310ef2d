//! Scripted servers with the wire formats of the vendors' documentation, for what no stand-in does.

pub mod bigquery;
pub mod databricks;
pub mod redshift;
pub mod snowflake;
