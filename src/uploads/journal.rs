//! Events on their way into the journal. Each has to be on disk before its answer, and a transaction costs the disk the
//! same for one as for a thousand: whoever comes while one is being written waits, and goes with the next.

use std::sync::{Arc, Mutex, PoisonError};

use chrono::{DateTime, Utc};
use tokio::sync::oneshot;

use super::UploadError;
use crate::catalog::{Catalog, CatalogError};
use crate::sync::SyncError;

/// The events of one request.
#[derive(Debug)]
pub struct Batch {
    pub stream: String,
    pub received_at: DateTime<Utc>,
    /// JSON objects, each in one line.
    pub events: Vec<String>,
}

type Told = oneshot::Sender<Result<(), Arc<CatalogError>>>;

/// The way into the journal.
#[derive(Debug, Default)]
pub struct Journal {
    waiting: Mutex<Vec<(Batch, Told)>>,
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Journal {
    /// Returns once the events are on disk.
    pub async fn take(&self, catalog: Catalog, batch: Batch) -> Result<(), UploadError> {
        let (tell, told) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push((batch, tell));
        let turn = Arc::clone(&self.writing).lock_owned().await;
        // empty when somebody took this one along
        let batches = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if batches.is_empty() {
            drop(turn);
        } else {
            // its own task: others depend on it, whoever goes away
            tokio::spawn(async move {
                let (batches, tell): (Vec<Batch>, Vec<Told>) = batches.into_iter().unzip();
                let written = catalog.journal_events(&batches).await.map_err(Arc::new);
                drop(turn);
                for told in tell {
                    // who went away need not know
                    told.send(written.clone()).ok();
                }
            });
        }
        match told.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(UploadError::Journal(error)),
            Err(_) => Err(SyncError::Bug("the journal's writer ended badly".into()).into()),
        }
    }
}
