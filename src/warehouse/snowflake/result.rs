//! A result's files in the object store: their links, and fresh links when those have expired.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use secrecy::SecretString;
use tokio::sync::Mutex;

use super::session::Session;
use super::wire::{Chunk, QueryData};
use crate::warehouse::WarehouseError;
use crate::warehouse::chunks::FetchChunk;
use crate::warehouse::http::{Failure, Refusal, waits};

/// Times that one file's link is replaced before the store is taken at its word.
const MAX_REFRESHES: usize = 3;

/// The files of one result.
pub(super) struct Files {
    session: Arc<Session>,
    query_id: Option<String>,
    rows: Vec<i64>,
    links: Mutex<Links>,
}

struct Links {
    /// Grows with each refresh, so that of several downloads that fail together one asks.
    generation: usize,
    chunks: Vec<Chunk>,
    headers: Arc<HashMap<String, SecretString>>,
}

impl Files {
    pub(super) fn new(session: Arc<Session>, data: &mut QueryData) -> Self {
        let headers = Arc::new(headers(data));
        let chunks = data.chunks.take().unwrap_or_default();
        let rows = chunks.iter().map(|c| c.row_count).collect();
        let links = Mutex::new(Links { generation: 0, chunks, headers });
        Self { session, query_id: data.query_id.clone(), rows, links }
    }

    /// The rows that each file holds, by the service's word.
    pub(super) fn rows(&self) -> &[i64] {
        &self.rows
    }

    /// Fresh links, without the query being run again: its result is kept for a day. (Official drivers ask for it at the
    /// same address when the first answer lacks its rows.)
    async fn refresh(&self, stale: usize) -> Result<(), WarehouseError> {
        let mut links = self.links.lock().await;
        if links.generation != stale {
            return Ok(());
        }
        let Some(id) = &self.query_id else {
            return Err(WarehouseError::retry("the result's links have expired, and the service named no query"));
        };
        let mut data = self.session.result_again(id).await?;
        let headers = headers(&data);
        let chunks = data.chunks.take().unwrap_or_default();
        if !chunks.iter().map(|c| c.row_count).eq(self.rows.iter().copied()) {
            return Err(WarehouseError::retry("the result's links have expired, and its new ones are of other files"));
        }
        tracing::debug!(files = chunks.len(), "a result's links were replaced");
        *links = Links { generation: stale + 1, chunks, headers: Arc::new(headers) };
        Ok(())
    }
}

/// What a file's request needs besides its link.
fn headers(data: &QueryData) -> HashMap<String, SecretString> {
    if let Some(headers) = &data.chunk_headers {
        return headers.clone();
    }
    let Some(key) = &data.qrmk else { return HashMap::new() };
    HashMap::from([
        ("x-amz-server-side-encryption-customer-algorithm".to_string(), "AES256".to_string().into()),
        ("x-amz-server-side-encryption-customer-key".to_string(), key.clone()),
    ])
}

/// S3 and Azure say 403, Google's store 400, when a signature's time is over.
fn is_expired(refusal: &Refusal) -> bool {
    matches!(refusal.status.as_u16(), 400 | 401 | 403)
}

#[async_trait]
impl FetchChunk for Files {
    async fn fetch(&self, index: usize) -> Result<Bytes, WarehouseError> {
        let what = "a file of the result";
        let (mut waits, mut refreshes) = (waits(), 0);
        loop {
            let (generation, url, headers) = {
                let links = self.links.lock().await;
                let chunk = links.chunks.get(index).ok_or_else(|| WarehouseError::bug("a result lacks a file"))?;
                (links.generation, chunk.url.clone(), links.headers.clone())
            };
            match self.session.transport.file(&url, &headers, what).await {
                Ok(Ok(body)) => return Ok(body),
                // broke off on the way
                Ok(Err(error)) if error.is_retryable() => match waits.next() {
                    Some(wait) => {
                        tracing::debug!(index, error = %error, "a file of the result broke off, trying again");
                        tokio::time::sleep(wait).await;
                    }
                    None => return Err(error),
                },
                Err(Failure::Refused(refusal)) if is_expired(&refusal) && refreshes < MAX_REFRESHES => {
                    refreshes += 1;
                    self.refresh(generation).await?;
                }
                // its body may repeat the link
                Err(Failure::Refused(refusal)) => {
                    let expired = is_expired(&refusal);
                    let error = refusal.into_error(what, "");
                    return Err(if expired {
                        error.with_hint(
                            "the object store refuses this machine: let it reach the hosts that SELECT SYSTEM$ALLOWLIST() lists, \
                             past proxies and firewalls that change requests",
                        )
                    } else {
                        error
                    });
                }
                Ok(Err(error)) | Err(Failure::Transport(error)) => return Err(error),
            }
        }
    }
}
