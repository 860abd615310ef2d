//! The REST API. `gcp-bigquery-client` asks where its model of the answer holds; two answers it cannot hold are asked for
//! here, with its model of the question: table schemas (it knows no precision, no scale and no RANGE, and fails on an
//! unknown type) and the list of datasets (it fails when there are none).

use std::sync::Arc;
use std::time::Duration;

use gcp_bigquery_client::Client as BigQueryClient;
use gcp_bigquery_client::client_builder::ClientBuilder;
use gcp_bigquery_client::error::BQError;
use reqwest::Method;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::config::BigQueryConfig;
use super::error::{ApiError, Asker, Sent};
use super::token::{CurrentToken, Tokens};
use crate::warehouse::WarehouseError;
use crate::warehouse::http::{self, Failure, Timeouts};

/// Longest wait between two tries; who asks for more gets it from the run, which can be watched and cancelled.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Google asks its clients to wait at least so long after a failure.
const SHORTEST_WAIT: Duration = Duration::from_secs(1);

/// Why a request failed.
#[derive(Debug)]
pub(super) enum Fault {
    /// There is no token.
    Login(WarehouseError),
    /// The service said so.
    Api(ApiError),
    /// There was no (whole) answer.
    Transport(WarehouseError),
    /// There was an answer that the crate cannot read: a proxy's or a front end's page about trouble, which may be that
    /// the token was refused.
    Unreadable(WarehouseError),
}

impl Fault {
    pub(super) fn into_error(self, what: &str, sent: Option<Sent<'_>>, asker: &Asker) -> WarehouseError {
        match self {
            Self::Login(e) | Self::Transport(e) | Self::Unreadable(e) => e,
            Self::Api(e) => e.into_error(what, sent, asker),
        }
    }

    fn passing(&self) -> Option<Duration> {
        match self {
            Self::Login(_) => None,
            Self::Api(e) => e.passing(),
            Self::Transport(e) => e.is_retryable().then_some(Duration::ZERO),
            Self::Unreadable(_) => Some(Duration::ZERO),
        }
    }
}

/// The service, as one connection reaches it.
pub(super) struct Api {
    pub config: Arc<BigQueryConfig>,
    pub tokens: Arc<Tokens>,
    http: reqwest::Client,
    client: BigQueryClient,
}

impl Api {
    pub(super) async fn new(config: Arc<BigQueryConfig>) -> Result<Self, WarehouseError> {
        let http = http::client(Timeouts { connect: config.connect_timeout, idle: config.idle_timeout })?;
        let tokens = Arc::new(Tokens::new(config.clone(), http.clone()));
        let base = config.endpoint.join("/bigquery/v2").map_err(|e| WarehouseError::bug(e.to_string()))?;
        let client = ClientBuilder::new()
            .with_v2_base_url(base.to_string())
            .with_client(http.clone())
            .build_from_authenticator(Arc::new(CurrentToken(tokens.clone())))
            .await
            .map_err(|e| WarehouseError::bug(format!("no BigQuery client can be made: {e}")))?;
        Ok(Self { config, tokens, http, client })
    }

    /// Who asks, for hints.
    pub(super) async fn asker(&self) -> Asker {
        let member = self.tokens.credentials().await.and_then(|c| c.member());
        Asker { project: self.config.project.clone(), member }
    }

    /// One request through the crate, tried again after passing trouble. Only for requests that may be repeated.
    pub(super) async fn through_client<T, F>(&self, what: &str, ask: impl Fn(BigQueryClient) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, BQError>>,
    {
        self.call(what, |_| async {
            ask(self.client.clone()).await.map_err(|error| match error {
                BQError::ResponseError { error } => {
                    let error = error.error;
                    let reason = error.errors.first().and_then(|e| e.get("reason")).cloned();
                    Fault::Api(ApiError {
                        code: u16::try_from(error.code).unwrap_or_default(),
                        reason: reason.unwrap_or(error.status),
                        message: error.message,
                        // the crate drops the answer's headers: the pauses are those that Google's documentation asks for
                        retry_after: None,
                    })
                }
                BQError::RequestError(e) if e.is_decode() => Fault::Unreadable(WarehouseError::retry(format!(
                    "{what} was answered with something else than was asked for"
                ))),
                BQError::RequestError(e) => Fault::Transport(http::of_transport(e, what)),
                BQError::NoToken => Fault::Login(WarehouseError::retry("the login has ended; try again")),
                e => Fault::Transport(WarehouseError::bug(format!("{what} failed: {e}"))),
            })
        })
        .await
    }

    /// One request of ours, tried again after passing trouble. `path` is below the project's.
    pub(super) async fn request<T: DeserializeOwned>(
        &self,
        what: &str,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, Fault> {
        let mut url = self.config.endpoint.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.clear().extend(["bigquery", "v2", "projects"]).extend(path);
        }
        self.call(what, |token| {
            let mut request =
                self.http.request(method.clone(), url.clone()).query(query).bearer_auth(token.expose_secret());
            if let Some(body) = body {
                request = request.json(body);
            }
            async move {
                let response = http::send_once(request, what).await.map_err(|failure| match failure {
                    Failure::Refused(refusal) => Fault::Api(ApiError::of_refusal(refusal)),
                    Failure::Transport(e) => Fault::Transport(e),
                })?;
                let body = http::body(response, what).await.map_err(Fault::Transport)?;
                serde_json::from_slice(&body).map_err(|e| {
                    Fault::Transport(WarehouseError::bug(format!("{what} was answered in another form: {e}")))
                })
            }
        })
        .await
    }

    /// Tries until it succeeds, fails for good, or has failed too often. A token that is refused is renewed once.
    async fn call<T, F>(&self, what: &str, attempt: impl Fn(SecretString) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Fault>>,
    {
        let mut waits = http::waits();
        let mut renewed = false;
        loop {
            let token = self.tokens.token().await.map_err(Fault::Login)?;
            let fault = match attempt(token.clone()).await {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            if matches!(&fault, Fault::Api(e) if e.is_unauthorized()) {
                self.tokens.refused(&token).await;
                if !renewed {
                    renewed = true;
                    continue;
                }
            }
            if matches!(fault, Fault::Unreadable(_)) {
                self.tokens.refused(&token).await;
            }
            let Some(asked_for) = fault.passing() else { return Err(fault) };
            match waits.next() {
                Some(wait) if asked_for <= LONGEST_WAIT => {
                    let wait = wait.max(asked_for).max(SHORTEST_WAIT);
                    tracing::debug!(what, wait_ms = wait.as_millis() as u64, "a request failed, trying again");
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(fault),
            }
        }
    }
}
