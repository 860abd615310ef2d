//! A query's job: insert, wait, cancel. It has an ID of our own, so that an answer that gets lost is no second run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use gcp_bigquery_client::model::dataset_reference::DatasetReference;
use gcp_bigquery_client::model::job::Job;
use gcp_bigquery_client::model::job_configuration::JobConfiguration;
use gcp_bigquery_client::model::job_configuration_query::JobConfigurationQuery;
use gcp_bigquery_client::model::job_reference::JobReference;
use gcp_bigquery_client::model::table_reference::TableReference;
use tokio::time::Instant;

use super::api::{Api, Fault};
use super::dry_run::Plan;
use super::error::{ApiError, Sent};
use crate::warehouse::task::StopQuery;
use crate::warehouse::{WarehouseError, http};

/// Between two looks at a job: the first and the longest.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// A job is asked to stop until it has, so many times,
const CANCELS: usize = 8;
/// and so long apart.
const AGAIN: Duration = Duration::from_millis(500);

/// A job's settings, dry or not.
pub(super) fn configuration(api: &Api, sql: &str, dry_run: bool, limit: Option<Duration>) -> JobConfiguration {
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
        // a job that has only just come can miss its cancel, and one that is on its way is not known yet
        for _ in 0..CANCELS {
            let asked =
                self.api
                    .through_client("the cancel", |client| async move {
                        client.job().cancel_job(project, id, location).await
                    })
                    .await;
            match asked {
                Ok(answer) => {
                    let state = answer.job.and_then(|job| job.status).and_then(|status| status.state);
                    if state.as_deref() == Some("DONE") {
                        return Ok(());
                    }
                }
                Err(Fault::Api(e)) if e.code == 404 => {}
                Err(fault) => return Err(fault.into_error("the cancel", None, &self.api.asker().await)),
            }
            tokio::time::sleep(AGAIN).await;
        }
        Ok(())
    }
}
