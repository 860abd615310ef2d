//! Dry runs: BigQuery says what a query is, returns and costs, and reads nothing.

use arrow::datatypes::SchemaRef;
use bytesize::ByteSize;
use gcp_bigquery_client::model::job::Job;
use gcp_bigquery_client::model::job_reference::JobReference;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;

use super::api::{Api, Fault};
use super::error::Sent;
use super::job::configuration;
use super::types::{TableSchema, number};
use crate::warehouse::{CostEstimate, WarehouseError};

/// What a dry run tells of a query that reads.
#[derive(Debug)]
pub(super) struct Plan {
    pub schema: SchemaRef,
    pub bytes: Option<u64>,
    /// How exact `bytes` is, in words.
    source: &'static str,
    /// Where the query will run.
    pub location: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Answer {
    job_reference: Reference,
    statistics: Statistics,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Reference {
    location: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Statistics {
    total_bytes_processed: Value,
    query: QueryStatistics,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct QueryStatistics {
    statement_type: Option<String>,
    schema: Option<TableSchema>,
    total_bytes_processed: Value,
    total_bytes_processed_accuracy: Option<String>,
    undeclared_query_parameters: Vec<Value>,
}

impl Plan {
    pub(super) fn estimate(&self) -> CostEstimate {
        CostEstimate { bytes: self.bytes, source: self.source, ..CostEstimate::default() }
    }
}

/// Asks what a query is, returns and costs. Reads nothing and costs nothing. Refuses what does not read, and what would
/// read more than may be billed.
pub(super) async fn dry_run(api: &Api, sql: &str) -> Result<Plan, WarehouseError> {
    let sent = Some(Sent { sql, lines_before: 0 });
    match try_dry_run(api, sql).await {
        Ok(answer) => plan(api, answer),
        Err(fault) => Err(fault.into_error("the dry run", sent, &api.asker().await)),
    }
}

/// The same for a statement of our own, whose faults are told apart by the caller.
pub(super) async fn probe(api: &Api) -> Result<(), Fault> {
    try_dry_run(api, "SELECT 1 AS one").await.map(|_| ())
}

async fn try_dry_run(api: &Api, sql: &str) -> Result<Answer, Fault> {
    let project = &api.config.project;
    let mut asked = configuration(api, sql, true, None);
    if let Some(query) = &mut asked.query {
        // it is compared here, where both numbers can be told
        query.maximum_bytes_billed = None;
    }
    let job = Job {
        configuration: Some(asked),
        job_reference: Some(JobReference {
            job_id: None,
            location: api.config.location.clone(),
            project_id: Some(project.clone()),
        }),
        ..Job::default()
    };
    api.request::<Answer>("the dry run", Method::POST, &[project, "jobs"], &[], Some(&job)).await
}

fn plan(api: &Api, answer: Answer) -> Result<Plan, WarehouseError> {
    let Answer { job_reference, statistics: Statistics { total_bytes_processed, query } } = answer;
    let statement = query.statement_type.as_deref().unwrap_or("UNKNOWN");
    if statement != "SELECT" {
        return Err(WarehouseError::sql(format!(
            "the SQL is a statement of type {statement}, which does not only read rows"
        ))
        .with_hint("a model is one statement that reads: SELECT or WITH … SELECT"));
    }
    if !query.undeclared_query_parameters.is_empty() {
        return Err(WarehouseError::sql("the SQL has parameters (@name or ?)")
            .with_hint("a model takes no parameters; write the value into the SQL"));
    }
    let Some(schema) = query.schema else {
        return Err(WarehouseError::bug("the dry run told no schema"));
    };
    let bytes = number(&query.total_bytes_processed).or(number(&total_bytes_processed));
    if let (Some(bytes), Some(most)) = (bytes, api.config.maximum_bytes_billed)
        && bytes > most
    {
        return Err(WarehouseError::configuration(format!(
            "the query would read {} ({bytes} bytes); `maximum_bytes_billed` allows {} ({most} bytes)",
            ByteSize::b(bytes).display().si(),
            ByteSize::b(most).display().si()
        ))
        .with_hint("narrow the query (columns, partitions), or raise `maximum_bytes_billed` of the connection"));
    }
    Ok(Plan {
        schema: schema.arrow()?,
        bytes,
        source: match query.total_bytes_processed_accuracy.as_deref() {
            Some("UPPER_BOUND") => "dry run: at most",
            Some("LOWER_BOUND") => "dry run: at least",
            _ => "dry run",
        },
        location: job_reference.location,
    })
}
