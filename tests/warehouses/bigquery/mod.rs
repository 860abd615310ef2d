//! `bigquery`: a scripted fake, and local-bigquery.

mod answers;
pub mod fake;
mod local;
mod login;
mod program;
