//! The requests of the SQL Statement Execution API, logged in.
//!
//! `POST /api/2.0/sql/statements` takes no key that would make a repetition harmless. So it is repeated only where the
//! service cannot have begun the statement (no connection, 401, 429, 503); an answer that was lost is an error. Every
//! other request only reads, or cancels, and is repeated after passing trouble.

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::auth::Auth;
use super::config::DatabricksConfig;
use super::error::{self, Sent};
use super::wire::{self, ExecuteStatement, ExternalLink, QueryTag, ResultData, SqlWarehouse, Statement};
use crate::warehouse::WarehouseError;
use crate::warehouse::http::{self, Failure, Timeouts};

/// The service takes no longer statements (16 MiB).
const LONGEST_STATEMENT: usize = 16 * 1024 * 1024;
/// A small statement is waited for this long in its first request, when the time limits allow it.
const SHORT_WAIT: Duration = Duration::from_secs(10);
/// Between two looks at a statement.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

#[derive(Debug)]
pub(super) struct Api {
    pub config: DatabricksConfig,
    pub http: Client,
    pub auth: Auth,
}

/// What a request is for.
#[derive(Debug, Clone, Copy)]
enum Purpose<'a> {
    /// It may be repeated.
    Read,
    /// It may be repeated, and what it is after exists for some time only.
    ReadResult,
    /// It must not be carried out twice, nor begun when nobody wants it any more.
    Submit(&'a CancellationToken),
}

/// A request, for its errors.
#[derive(Debug, Clone, Copy)]
struct Asked<'a> {
    what: &'static str,
    purpose: Purpose<'a>,
    sent: Option<Sent<'a>>,
}

impl<'a> Asked<'a> {
    fn to(what: &'static str, purpose: Purpose<'a>) -> Self {
        Self { what, purpose, sent: None }
    }
}

/// A statement that did not succeed, as far as is known.
#[derive(Debug)]
pub(super) struct Unfinished {
    pub error: WarehouseError,
    /// It has ended in the warehouse; otherwise the way to it failed, and it may run on.
    pub over: bool,
}

impl Unfinished {
    fn lost(error: WarehouseError) -> Self {
        Self { error, over: false }
    }
}

/// A statement of ours (not of a model), whose small result comes as JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct Small<'a> {
    pub text: &'a str,
    /// Another schema than the connection's.
    pub schema: Option<&'a str>,
    /// The model's SQL inside, for its errors.
    pub sent: Option<Sent<'a>>,
}

impl Api {
    pub(super) fn new(config: DatabricksConfig) -> Result<Self, WarehouseError> {
        let http = http::client(Timeouts { connect: config.connect_timeout, idle: config.idle_timeout })?;
        let auth = Auth::new(&config, http.clone());
        Ok(Self { config, http, auth })
    }

    /// What is known of the SQL warehouse.
    pub(super) async fn warehouse(&self) -> Result<SqlWarehouse, WarehouseError> {
        let request = self.request(Method::GET, &["api", "2.0", "sql", "warehouses", &self.config.warehouse_id])?;
        self.read(request, Asked::to("the question for the SQL warehouse", Purpose::Read)).await
    }

    /// Submits a query whose result is to lie in cloud storage; it runs on after the answer.
    ///
    /// Once it is `unwanted` it is not sent again.
    pub(super) async fn submit(
        &self,
        text: &str,
        sent: Sent<'_>,
        unwanted: &CancellationToken,
    ) -> Result<Statement, WarehouseError> {
        let body = ExecuteStatement {
            wait_timeout: "0s",
            format: "ARROW_STREAM",
            disposition: "EXTERNAL_LINKS",
            ..self.statement(text)
        };
        self.execute(&body, Some(sent), unwanted).await
    }

    fn statement<'a>(&'a self, text: &'a str) -> ExecuteStatement<'a> {
        let config = &self.config;
        // a tag holds 128 characters
        let end = config.connection.char_indices().nth(128).map_or(config.connection.len(), |(at, _)| at);
        let tags = [("application", "cloud-connect"), ("connection", &config.connection[..end])];
        ExecuteStatement {
            warehouse_id: &config.warehouse_id,
            statement: text,
            catalog: config.catalog.as_deref(),
            schema: config.schema.as_deref(),
            wait_timeout: "0s",
            on_wait_timeout: "CONTINUE",
            format: "JSON_ARRAY",
            disposition: "INLINE",
            query_tags: tags.into_iter().map(|(key, value)| QueryTag { key, value }).collect(),
        }
    }

    async fn execute(
        &self,
        body: &ExecuteStatement<'_>,
        sent: Option<Sent<'_>>,
        unwanted: &CancellationToken,
    ) -> Result<Statement, WarehouseError> {
        if body.statement.len() > LONGEST_STATEMENT {
            return Err(WarehouseError::sql("the SQL is longer than the 16 MiB that Databricks takes")
                .with_hint("put what makes it long (lists of values) into a table"));
        }
        let request = self.request(Method::POST, &["api", "2.0", "sql", "statements"])?.json(body);
        self.read(request, Asked { what: "the query", purpose: Purpose::Submit(unwanted), sent }).await
    }

    /// How the statement is doing; with its result once it has succeeded.
    pub(super) async fn state(&self, id: &str) -> Result<Statement, WarehouseError> {
        let request = self.request(Method::GET, &["api", "2.0", "sql", "statements", id])?;
        self.read(request, Asked::to("the question for the query's state", Purpose::ReadResult)).await
    }

    pub(super) async fn cancel(&self, id: &str) -> Result<(), WarehouseError> {
        let request = self.request(Method::POST, &["api", "2.0", "sql", "statements", id, "cancel"])?;
        self.send(request, Asked::to("the cancellation", Purpose::Read)).await.map(drop)
    }

    /// A link to a chunk, fresh.
    pub(super) async fn link(&self, id: &str, chunk: usize) -> Result<ExternalLink, WarehouseError> {
        let chunk_text = chunk.to_string();
        let path = ["api", "2.0", "sql", "statements", id, "result", "chunks", &chunk_text];
        let result = self.result_chunk(&path).await?;
        let links = result.external_links.unwrap_or_default();
        links
            .into_iter()
            .find(|link| link.chunk_index.is_none_or(|index| index == chunk as u64))
            .ok_or_else(|| WarehouseError::retry(format!("the service gives no link to chunk {chunk} of the result")))
    }

    async fn result_chunk(&self, path: &[&str]) -> Result<ResultData, WarehouseError> {
        let request = self.request(Method::GET, path)?;
        self.read(request, Asked::to("the question for the result's next chunk", Purpose::ReadResult)).await
    }

    /// Waits until the statement has succeeded, and returns it with its result.
    pub(super) async fn finished(
        &self,
        mut statement: Statement,
        sent: Option<Sent<'_>>,
    ) -> Result<(String, Statement), Unfinished> {
        let began = Instant::now();
        let id = statement.statement_id.take();
        loop {
            match statement.status.state.as_str() {
                "SUCCEEDED" => return Ok((id.ok_or_else(no_id).map_err(Unfinished::lost)?, statement)),
                "PENDING" | "RUNNING" => {}
                _ => {
                    let said = statement.status.error.as_ref().map(|e| e.message.as_str()).unwrap_or_default();
                    let said = self.auth.redact(said).await;
                    return Err(Unfinished { error: error::of_status(&statement.status, &said, sent), over: true });
                }
            }
            // often at first, seldom for what takes long
            tokio::time::sleep((began.elapsed() / 10).clamp(PAUSES.0, PAUSES.1)).await;
            let known = id.as_deref().ok_or_else(no_id).map_err(Unfinished::lost)?;
            statement = self.state(known).await.map_err(Unfinished::lost)?;
        }
    }

    /// Runs a statement of ours and returns its rows as texts; cancels it when it takes longer than `limit`.
    pub(super) async fn rows(
        &self,
        small: Small<'_>,
        limit: Option<Duration>,
    ) -> Result<Vec<Vec<Option<String>>>, WarehouseError> {
        let until = limit.map(|limit| (Instant::now() + limit, limit));
        let wait = if self.config.idle_timeout >= SHORT_WAIT * 2 && limit.is_none_or(|l| l >= SHORT_WAIT) {
            "10s"
        } else {
            "0s"
        };
        let mut body = ExecuteStatement { wait_timeout: wait, ..self.statement(small.text) };
        if small.schema.is_some() {
            body.schema = small.schema;
        }
        let statement = self.execute(&body, small.sent, &CancellationToken::new()).await?;
        let id = statement.statement_id.clone();
        let finished = async { self.finished(statement, small.sent).await.map_err(|e| e.error) };
        let (id, statement) = match until {
            None => finished.await?,
            Some((until, limit)) => match tokio::time::timeout_at(until, finished).await {
                Ok(finished) => finished?,
                Err(_) => {
                    if let Some(id) = id
                        && let Err(e) = self.cancel(&id).await
                    {
                        tracing::warn!(error = %e, "a statement could not be cancelled in the warehouse");
                    }
                    return Err(http::statement_timeout(limit));
                }
            },
        };
        if statement.manifest.as_ref().is_some_and(|m| m.truncated == Some(true)) {
            return Err(WarehouseError::bug("the service cut a small result short"));
        }
        let mut rows = Vec::new();
        let mut chunk = statement.result.unwrap_or_default();
        loop {
            rows.extend(chunk.data_array.unwrap_or_default().iter().map(|row| row.iter().map(wire::cell).collect()));
            let Some(next) = chunk.next_chunk_index else { return Ok(rows) };
            chunk = self
                .result_chunk(&["api", "2.0", "sql", "statements", &id, "result", "chunks", &next.to_string()])
                .await?;
        }
    }

    fn request(&self, method: Method, path: &[&str]) -> Result<RequestBuilder, WarehouseError> {
        let mut url = self.config.url.clone();
        url.path_segments_mut()
            .map_err(|()| WarehouseError::bug("the host takes no path"))?
            .pop_if_empty()
            .extend(path);
        Ok(self.http.request(method, url))
    }

    async fn read<T: DeserializeOwned>(&self, request: RequestBuilder, asked: Asked<'_>) -> Result<T, WarehouseError> {
        let response = self.send(request, asked).await?;
        let body = http::body(response, asked.what).await;
        let body = if matches!(asked.purpose, Purpose::Submit(_)) { body.map_err(http::lost)? } else { body? };
        // the parser's words may quote a link
        serde_json::from_slice(&body).map_err(|e| {
            let at = format!("at line {} column {}", e.line(), e.column());
            WarehouseError::bug(format!("{} was answered in another form ({at})", asked.what))
                .with_hint("check that `host` is a Databricks workspace")
        })
    }

    /// Sends a request as who the connection is; once more with a new token when the service refuses the first.
    async fn send(&self, request: RequestBuilder, asked: Asked<'_>) -> Result<Response, WarehouseError> {
        let mut refused = None;
        loop {
            let token = self.auth.token(refused.as_ref()).await?;
            let Some(attempt) = request.try_clone() else {
                return Err(WarehouseError::bug(format!("{} cannot be repeated", asked.what)));
            };
            let attempt = attempt.bearer_auth(token.expose_secret());
            let outcome = match asked.purpose {
                Purpose::Submit(unwanted) => http::send_unrepeatable(attempt, asked.what, unwanted).await,
                Purpose::Read | Purpose::ReadResult => http::send(attempt, asked.what).await,
            };
            let refusal = match outcome {
                Ok(response) => return Ok(response),
                Err(Failure::Transport(e)) => return Err(e),
                Err(Failure::Refused(refusal)) => refusal,
            };
            let is_login = error::is_login(&refusal);
            if is_login && self.auth.renews() && refused.is_none() {
                tracing::debug!(what = asked.what, "the token was refused, renewing it");
                refused = Some(token);
                continue;
            }
            let said = self.auth.redact(&error::said(&refusal.body)).await;
            let said = said.replace(token.expose_secret(), "[secret]");
            return Err(match asked.purpose {
                _ if is_login => self.auth.refused(&said),
                Purpose::ReadResult if refusal.status == StatusCode::NOT_FOUND => error::gone(),
                _ => error::of_refusal(refusal, asked.what, &said, asked.sent),
            });
        }
    }
}

fn no_id() -> WarehouseError {
    WarehouseError::bug("the service gave the statement no id")
}
