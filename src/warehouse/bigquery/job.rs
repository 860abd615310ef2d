//! Jobs: a dry run, which says what a query is, returns and costs; and the run itself, under an ID of our own, so that an
//! answer that gets lost is no second run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytesize::ByteSize;
use gcp_bigquery_client::model::dataset_reference::DatasetReference;
use gcp_bigquery_client::model::job::Job;
use gcp_bigquery_client::model::job_configuration::JobConfiguration;
use gcp_bigquery_client::model::job_configuration_query::JobConfigurationQuery;
use gcp_bigquery_client::model::job_reference::JobReference;
use gcp_bigquery_client::model::table_reference::TableReference;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use super::api::{Api, Fault};
use super::error::{ApiError, Sent};
use super::types::{TableSchema, number};
use crate::warehouse::task::StopQuery;
use crate::warehouse::{CostEstimate, WarehouseError, http};

/// Between two looks at a job: the first and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// What a dry run tells of a query that reads.
#[derive(Debug)]
pub(super) struct Plan {
    pub schema: SchemaRef,
    pub bytes: Option<u64>,
    /// How exact `bytes` is, in words.
    source: &'static str,
    /// Where the query will run.
    location: Option<String>,
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

fn configuration(api: &Api, sql: &str, dry_run: bool, limit: Option<Duration>) -> JobConfiguration {
    let config = &api.config;
    let dataset = config.dataset.clone();
    JobConfiguration {
        dry_run: Some(dry_run),
        job_timeout_ms: limit.map(|limit| limit.as_millis().max(1).to_string()),
        labels: Some(config.labels.clone().into_iter().collect()),
        query: Some(JobConfigurationQuery {
            query: sql.to_string(),
            use_legacy_sql: Some(false),
            use_query_cache: Some(config.use_query_cache),
            maximum_bytes_billed: config.maximum_bytes_billed.map(|bytes| bytes.to_string()),
            default_dataset: dataset.map(|(project_id, dataset_id)| DatasetReference { dataset_id, project_id }),
            ..JobConfigurationQuery::default()
        }),
        ..JobConfiguration::default()
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
    let statement = query.statement_type.as_deref().unwrap_or("SELECT");
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

/// A query that runs in BigQuery, or is about to.
pub(super) struct QueryJob {
    api: Arc<Api>,
    id: String,
    /// A job outside of the US and EU is found by its location only.
    location: Option<String>,
    /// It may have reached BigQuery.
    submitted: AtomicBool,
}

impl QueryJob {
    pub(super) fn new(api: Arc<Api>, plan: &Plan) -> Self {
        let location = api.config.location.clone().or_else(|| plan.location.clone());
        let id = format!("cloud_connect_{}", uuid::Uuid::new_v4().simple());
        Self { api, id, location, submitted: AtomicBool::new(false) }
    }

    /// Runs `text`, which holds the model's SQL `sent`, to its end; the rows then lie in the table that is returned.
    pub(super) async fn run(
        &self,
        text: &str,
        sent: Sent<'_>,
        limit: Option<Duration>,
    ) -> Result<TableReference, WarehouseError> {
        let began = Instant::now();
        let end = limit.map(|limit| began + limit);
        let api = &self.api;
        let asker = api.asker().await;
        let timed_out = || limit.filter(|limit| began.elapsed() >= *limit).map(http::statement_timeout);
        let outcome = async {
            let mut job = self.insert(text, limit).await.map_err(|f| f.into_error("the query", Some(sent), &asker))?;
            let mut pause = FIRST_LOOK;
            loop {
                let status = job.status.take().unwrap_or_default();
                if let Some(error) = status.error_result {
                    let error = ApiError {
                        reason: error.reason.unwrap_or_default(),
                        message: error.message.unwrap_or_default(),
                        ..ApiError::default()
                    };
                    return Err(error.into_error("the query", Some(sent), &asker));
                }
                if status.state.as_deref() == Some("DONE") {
                    return destination(job);
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_LOOK);
                job = self.look().await.map_err(|f| f.into_error("the query's state", None, &asker))?;
            }
        };
        let outcome = match end {
            Some(end) => tokio::time::timeout_at(end, outcome).await.unwrap_or_else(|_| {
                Err(timed_out().unwrap_or_else(|| WarehouseError::retry("the query did not end in time")))
            }),
            None => outcome.await,
        };
        // BigQuery's clock may end the job a moment before ours does
        outcome.map_err(|e| timed_out().filter(|_| !e.is_retryable()).unwrap_or(e))
    }

    /// Submits the job. That it exists already means that an answer got lost.
    async fn insert(&self, text: &str, limit: Option<Duration>) -> Result<Job, Fault> {
        let project = &self.api.config.project;
        let job = Job {
            configuration: Some(configuration(&self.api, text, false, limit)),
            job_reference: Some(JobReference {
                job_id: Some(self.id.clone()),
                location: self.location.clone(),
                project_id: Some(project.clone()),
            }),
            ..Job::default()
        };
        self.submitted.store(true, Ordering::Release);
        let inserted = self
            .api
            .through_client("the query", |client| {
                let job = job.clone();
                async move { client.job().insert(project, job).await }
            })
            .await;
        match inserted {
            Err(Fault::Api(e)) if e.code == 409 => self.look().await,
            other => other,
        }
    }

    async fn look(&self) -> Result<Job, Fault> {
        let (project, id, location) = (&self.api.config.project, &self.id, self.location.as_deref());
        self.api
            .through_client(
                "the query's state",
                |client| async move { client.job().get_job(project, id, location).await },
            )
            .await
    }
}

fn destination(job: Job) -> Result<TableReference, WarehouseError> {
    let query = job.configuration.and_then(|c| c.query);
    query
        .and_then(|q| q.destination_table)
        .ok_or_else(|| WarehouseError::bug("BigQuery did not tell where the result lies"))
}

#[async_trait]
impl StopQuery for QueryJob {
    async fn stop(&self) -> Result<(), WarehouseError> {
        if !self.submitted.load(Ordering::Acquire) {
            return Ok(());
        }
        let (project, id, location) = (&self.api.config.project, &self.id, self.location.as_deref());
        loop {
            let asked =
                self.api
                    .through_client("the cancel", |client| async move {
                        client.job().cancel_job(project, id, location).await
                    })
                    .await;
            match asked {
                Ok(_) => return Ok(()),
                // the job may still be on its way; whoever called ends this loop
                Err(Fault::Api(e)) if e.code == 404 => tokio::time::sleep(Duration::from_millis(500)).await,
                Err(fault) => return Err(fault.into_error("the cancel", None, &self.api.asker().await)),
            }
        }
    }
}
