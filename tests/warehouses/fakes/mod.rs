//! Scripted servers with the wire formats of the vendors' documentation, for what no stand-in does.

pub mod snowflake;
