//! A query under way: submitted, waited for, its chunks downloaded and read.
//!
//! ```text
//! POST statement --id--> poll … SUCCEEDED --manifest--> chunk 0, 1, 2 … (each: link, then download)
//!        |                  |  cancelled, dropped or out of time: POST …/cancel
//!        |  cancelled before the id is known: the id is waited for, then cancelled
//! ```

use std::io::Cursor;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow::ipc::reader::StreamReader;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::api::Api;
use super::error::Sent;
use super::plan::{Plan, Wrapped};
use super::wire::{ExternalLink, Manifest, Statement};
use crate::warehouse::chunks::{self, FetchChunk};
use crate::warehouse::http::{self, Failure, is_loopback};
use crate::warehouse::statement::ReadingStatement;
use crate::warehouse::task::{self, Batches, End, StopQuery};
use crate::warehouse::{QueryOptions, RunningQuery, WarehouseError, WarehouseErrorKind};

/// Starts the query.
pub(super) fn start(
    api: Arc<Api>,
    plan: Plan,
    statement: &ReadingStatement,
    options: &QueryOptions,
    limit: Option<Duration>,
) -> RunningQuery {
    let schema = plan.schema.clone();
    let remote = Arc::new(Remote { api, known: watch::Sender::new(Known::Unsent), unwanted: CancellationToken::new() });
    let reading = Reading {
        remote: remote.clone(),
        wrapped: plan.statement(statement, options.limit),
        plan,
        sql: statement.text.clone(),
        limit,
        batch_rows: options.batch_rows,
    };
    task::start(schema, options.limit, remote, move |batches| reading.run(batches))
}

/// The statement in the warehouse, as far as it is known.
struct Remote {
    api: Arc<Api>,
    known: watch::Sender<Known>,
    /// Nobody wants the result any more.
    unwanted: CancellationToken,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Unsent,
    /// Its id is on the way.
    Sending,
    Runs(String),
    /// It has ended, was never begun, or must not be begun any more.
    Over,
}

impl Remote {
    /// Submits the statement and waits until it has succeeded.
    async fn result(self: &Arc<Self>, text: &str, sent: Sent<'_>) -> Result<(String, Statement), WarehouseError> {
        let statement = self.submit(text, sent).await?;
        let outcome = self.api.finished(statement, Some(sent)).await;
        if outcome.as_ref().map_or_else(|e| e.over, |_| true) {
            self.known.send_replace(Known::Over);
        }
        outcome.map_err(|e| e.error)
    }

    /// In a task of its own: when the reading is given up half-way, the id is still heard of, and can be cancelled.
    async fn submit(self: &Arc<Self>, text: &str, sent: Sent<'_>) -> Result<Statement, WarehouseError> {
        let may = self.known.send_if_modified(|known| {
            let may = *known == Known::Unsent;
            if may {
                *known = Known::Sending;
            }
            may
        });
        if !may {
            return Err(WarehouseError::new(WarehouseErrorKind::Cancelled, "the query was cancelled"));
        }
        let remote = self.clone();
        let (text, sql, lines_before) = (text.to_string(), sent.sql.to_string(), sent.lines_before);
        let submission = tokio::spawn(async move {
            let sent = Sent { sql: &sql, lines_before };
            let outcome = remote.api.submit(&text, sent, &remote.unwanted).await;
            let known = match outcome.as_ref().ok().and_then(|statement| statement.statement_id.clone()) {
                // perhaps nobody waits any more who would
                Some(id) if remote.unwanted.is_cancelled() => {
                    if let Err(e) = remote.api.cancel(&id).await {
                        tracing::warn!(error = %e, "a query could not be cancelled in the warehouse");
                    }
                    Known::Over
                }
                Some(id) => Known::Runs(id),
                None => Known::Over,
            };
            remote.known.send_replace(known);
            outcome
        });
        submission.await.unwrap_or_else(|e| Err(WarehouseError::bug(format!("the submission's task ended: {e}"))))
    }
}

#[async_trait]
impl StopQuery for Remote {
    async fn stop(&self) -> Result<(), WarehouseError> {
        // should the id come only when nobody waits for it here any more
        self.unwanted.cancel();
        self.known.send_if_modified(|known| {
            let unsent = *known == Known::Unsent;
            if unsent {
                *known = Known::Over;
            }
            unsent
        });
        let mut known = self.known.subscribe();
        let settled = known.wait_for(|known| matches!(known, Known::Runs(_) | Known::Over)).await;
        let Ok(Known::Runs(id)) = settled.map(|known| known.clone()) else { return Ok(()) };
        self.api.cancel(&id).await
    }
}

struct Reading {
    remote: Arc<Remote>,
    plan: Plan,
    wrapped: Wrapped,
    sql: String,
    limit: Option<Duration>,
    batch_rows: usize,
}

impl Reading {
    async fn run(self, mut batches: Batches) -> Result<End, WarehouseError> {
        let sent = Sent { sql: &self.sql, lines_before: self.wrapped.lines_before };
        let result = self.remote.result(&self.wrapped.text, sent);
        // only the work in the warehouse counts: rows may be read as slowly as their reader is
        let (id, statement) = match self.limit {
            None => result.await?,
            Some(limit) => tokio::time::timeout(limit, result).await.map_err(|_| http::statement_timeout(limit))??,
        };
        let manifest = statement.manifest.ok_or_else(|| WarehouseError::bug("the result has no manifest"))?;
        let chunks = self.check(&manifest)?;
        let first = statement
            .result
            .and_then(|r| r.external_links)
            .and_then(|links| links.into_iter().next())
            .filter(|link| link.chunk_index.is_none_or(|index| index == 0));
        let source = Arc::new(Chunks { api: self.remote.api.clone(), id, first: Mutex::new(first) });

        let mut rows = 0u64;
        let mut bodies = pin!(chunks::bodies(source, 0, chunks));
        while let Some(body) = bodies.next().await {
            let reader = StreamReader::try_new(Cursor::new(body?), None).map_err(|e| undecodable(&e))?;
            for batch in reader {
                let batch = batch.map_err(|e| undecodable(&e))?;
                rows += batch.num_rows() as u64;
                let batch = self.plan.adapt(&batch)?;
                if let Err(enough) = batches.send_sliced(&batch, self.batch_rows).await {
                    return Ok(enough.into());
                }
            }
        }
        match manifest.total_row_count {
            Some(total) if total != rows => {
                Err(WarehouseError::bug(format!("the result has {total} rows, of which {rows} came")))
            }
            _ => Ok(End::Complete),
        }
    }

    /// The number of chunks of a result that is whole.
    fn check(&self, manifest: &Manifest) -> Result<usize, WarehouseError> {
        if manifest.truncated == Some(true) {
            return Err(WarehouseError::sql(
                "the result is larger than the 100 GiB that Databricks hands out: it was cut short",
            )
            .with_hint("select fewer columns or rows; or split the model"));
        }
        if let Some(columns) = manifest.schema.column_count
            && columns != self.plan.width() as u64
        {
            return Err(WarehouseError::retry(format!(
                "the result has {columns} columns where the description had {}",
                self.plan.width()
            ))
            .with_hint("a table was changed between the description and the query; try again"));
        }
        let names = manifest.schema.columns.iter().flatten().map(|column| column.name.as_str());
        if manifest.schema.columns.is_some() && !self.plan.may_have(names) {
            return Err(WarehouseError::retry("the result has other columns than the description had")
                .with_hint("a table was changed between the description and the query; try again"));
        }
        let chunks = manifest.total_chunk_count.or_else(|| (manifest.total_row_count == Some(0)).then_some(0));
        chunks
            .and_then(|n| usize::try_from(n).ok())
            .ok_or_else(|| WarehouseError::bug("the result's manifest does not say how many chunks there are"))
    }
}

fn undecodable(error: &arrow::error::ArrowError) -> WarehouseError {
    WarehouseError::bug(format!("a chunk of the result cannot be decoded: {error}"))
}

/// The chunks of a result in cloud storage.
struct Chunks {
    api: Arc<Api>,
    id: String,
    /// The link that came with the result.
    first: Mutex<Option<ExternalLink>>,
}

#[async_trait]
impl FetchChunk for Chunks {
    async fn fetch(&self, index: usize) -> Result<Bytes, WarehouseError> {
        let mut waits = http::waits();
        loop {
            let first =
                if index == 0 { self.first.lock().unwrap_or_else(PoisonError::into_inner).take() } else { None };
            // a link lives for minutes: it is asked for just before it is used, and again when it failed
            let link = match first {
                Some(link) => link,
                None => self.api.link(&self.id, index).await?,
            };
            let error = match self.download(link).await {
                Ok(body) => return Ok(body),
                Err(error) => error,
            };
            match waits.next() {
                Some(wait) if error.is_retryable() => {
                    tracing::debug!(chunk = index, %error, "a download failed, trying again with a new link");
                    tokio::time::sleep(wait).await;
                }
                _ => return Err(error),
            }
        }
    }
}

impl Chunks {
    async fn download(&self, link: ExternalLink) -> Result<Bytes, WarehouseError> {
        const WHAT: &str = "the download of a part of the result";
        let url = link.external_link.as_deref().and_then(|url| Url::parse(url).ok());
        // the address is a secret: it is not shown
        let url = url.ok_or_else(|| WarehouseError::bug("the service gave a link that is no URL"))?;
        let local = url.scheme() == "http" && is_loopback(&url) && is_loopback(&self.api.config.url);
        if url.scheme() != "https" && !local {
            return Err(WarehouseError::bug("the service gave a link that is not https"));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in link.http_headers.iter().flatten() {
            let (Ok(name), Ok(mut value)) =
                (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value.as_str()))
            else {
                return Err(WarehouseError::bug("the service gave a link with headers that HTTP does not know"));
            };
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        // no Authorization header: the link carries its own
        match http::send_once(self.api.http.get(url).headers(headers), WHAT).await {
            Ok(response) => http::body(response, WHAT).await,
            Err(Failure::Transport(e)) => Err(e),
            // an expired link is refused in each cloud's own way, with a body that may repeat its signature
            Err(Failure::Refused(refusal)) if refusal.status.is_client_error() => {
                Err(WarehouseError::retry(format!("{WHAT} was refused with {}", refusal.status)).with_hint(
                    "the storage of the workspace may be closed to this machine: its firewall has to let it in",
                ))
            }
            Err(Failure::Refused(refusal)) => Err(refusal.into_error(WHAT, "")),
        }
    }
}
