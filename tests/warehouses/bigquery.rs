//! `bigquery`: a scripted fake, and local-bigquery.

mod answers;
mod fake;
mod local;
mod login;
mod program;
