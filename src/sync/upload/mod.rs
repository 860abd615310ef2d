//! An upload: rows that are handed in rather than queried. They add profiles and identity values, and are themselves
//! appended to their stream's table.
//!
//! ```text
//! body ─► rows ─┬─► streams/<stream> (staged, in the order of the body)
//!               └─► spill, by identity field and hash ─► found or founded ─► further identities ─► COMMIT
//!                                                       └────── under the publish lock ───────┘
//! ```
//!
//! The first configured identity field of which a row has a value finds or founds its profile, the further ones are
//! linked, as in a run. Fields are worked through in the configured order, and what one brought is known to the next, so
//! the order of the rows does not matter.
//!
//! Actors: [`stage`] writes the rows down, [`found`] finds or founds their profiles, [`stream`] is the stream's table.
//!
//! The commit on the stream's table is the commit point, and everything follows from it as from a run's
//! ([`super::publish`]). Invariants:
//! - an upload is visible whole or not at all, and once: repeated under its key it answers with its first report;
//! - an event of the journal is taken once: it leaves the journal with the catalog row that makes its commit visible.

mod found;
mod stage;
mod stream;

use std::sync::Arc;

use uuid::Uuid;

use self::stream::{Folded, OWN, StreamBase};
use super::definition::Definition;
use super::links::Links;
use super::publish::UploadConsequences;
use super::publishing::{Publishing, Totals};
use super::{Engine, SyncError};
use crate::catalog::UploadPublication;
use crate::diff::spill::SpillFolder;
use crate::identity::resolve::Resolver;
use crate::store::{Commit, TableId};
use crate::uploads::rows::{self, Rows};
use crate::uploads::{Body, Format, Source, UploadError, UploadReport, UploadStatus};

/// What is uploaded.
#[derive(Debug)]
pub enum UploadSource {
    Body {
        body: Body,
        format: Format,
        /// What makes a repetition recognizable; none: the body itself.
        key: Option<String>,
    },
    /// The stream's events in the journal: so many, and about so many bytes, at most.
    Journal { limit: u32, max_bytes: usize },
}

/// How an upload ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Uploaded {
    pub report: UploadReport,
    /// It had been done before, and nothing was done now.
    pub replayed: bool,
}

/// Rows that are ready to be staged.
struct Input {
    rows: Box<dyn Rows>,
    /// Of the rows of the journal, by line: when each came in.
    received: Option<Vec<i64>>,
    collected_until: Option<i64>,
    bytes: u64,
}

impl Engine {
    /// Adds what the source holds. None: the journal holds nothing of the stream. The folder takes what does not fit into
    /// memory.
    pub async fn upload(
        &self,
        stream: &str,
        actor: &str,
        source: UploadSource,
        folder: &SpillFolder,
    ) -> Result<Option<Uploaded>, UploadError> {
        let lock = self.stream_lock(stream).await?.ok_or_else(|| UploadError::Busy(stream.to_string()))?;
        self.clean_up_uploads(&lock, stream).await?;
        let (kind, hash) = match &source {
            UploadSource::Body { body, .. } => (Source::Upload, Some(body.hash.clone())),
            UploadSource::Journal { .. } => (Source::Collect, None),
        };
        let key = match &source {
            UploadSource::Body { key: Some(key), .. } => Some(key.clone()),
            UploadSource::Body { body, format, .. } => Some(format!("sha256:{}:{}", body.hash, format.as_str())),
            UploadSource::Journal { .. } => None,
        };
        if let Some(key) = &key
            && let Some((report, known)) = self.catalog.upload_of_key(stream, key).await?
        {
            // nothing of this stream is under way: what is there is done
            return if known == hash {
                Ok(Some(Uploaded { report, replayed: true }))
            } else {
                Err(UploadError::KeyReused)
            };
        }
        let base = self.stream_base(stream).await?;
        let Some(input) = self.open_rows(stream, source, &base, folder).await? else { return Ok(None) };
        self.check_stream(&base, &input.rows.own_columns()).await?;

        let id = Uuid::now_v7().to_string();
        let mut report = UploadReport::new(id, stream.to_string(), kind, actor.to_string(), self.clock.now());
        report.columns = input.rows.own_columns();
        report.bytes = input.bytes;
        self.catalog.begin_upload(&report, key.as_deref(), hash.as_deref()).await?;
        if let Err(error) = Box::pin(self.upload_begun(&base, input, &mut report, folder)).await {
            // still under the stream's lock, so that nobody takes the upload for one whose process died
            return Err(self.record_failed_upload(&mut report, error).await);
        }
        Ok(Some(Uploaded { report, replayed: false }))
    }

    async fn upload_begun(
        &self,
        base: &StreamBase,
        input: Input,
        report: &mut UploadReport,
        folder: &SpillFolder,
    ) -> Result<(), UploadError> {
        let collected_until = input.collected_until;
        let definition = self.stream_definition(base, &input.rows.own_columns());
        let staged = self.stage_rows(base, input, report, folder).await?;
        if staged.files.is_empty() {
            report.finish(UploadStatus::Unchanged, self.clock.now());
            let publication = UploadPublication {
                report,
                stream_version: None,
                identities_version: None,
                changes_version: None,
                collected_until,
            };
            return Ok(self.catalog.finish_upload(publication).await?);
        }
        let folded: Folded = self.fold(base, &staged.schema, report).await?;

        let lock = self.publish_lock().await?;
        self.roll_all_forward(&lock).await?;
        self.check_shared(&lock).await?;
        let redefine = base.definition.as_ref() != Some(&definition);
        let cx = Arc::new(Publishing {
            store: self.store.clone(),
            run_id: report.id.clone(),
            now: self.clock.now(),
            model: TableId::Stream(report.stream.clone()).folder(),
            identity_fields: self.project.identities.clone(),
            records: staged.schema.clone(),
            result: staged.schema.clone(),
            resolver: Resolver::open(&self.store, self.memory.tasks).await?,
            write: true,
            totals: std::sync::Mutex::default(),
            definition,
        });
        let links = Arc::new(Links::new(&cx, folder));
        found::find_or_found(&cx, &links, &staged.rows).await?;
        self.link_and_enter(&cx, &links, &[]).await?;
        fail::fail_point!("after-additions");

        let totals: Totals = std::mem::take(&mut *cx.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        report.profiles_created = totals.created;
        report.profiles_matched = totals.matched;
        report.identities_linked = totals.linked;
        report.identity_conflicts = totals.conflicts;
        report.entered = totals.entered;
        report.finish(UploadStatus::Published, self.clock.now());
        let id = TableId::Stream(report.stream.clone());
        let grown = staged.schema.fields().len() > OWN.len() + base.columns.len();
        let mut add = staged.files;
        add.extend(folded.add);
        let commit = Commit {
            metadata: stream::metadata(&id, base, &cx, grown || redefine)?,
            add,
            remove: folded.remove,
            ..Commit::default()
        };
        let consequences = UploadConsequences {
            report: report.clone(),
            identities: totals.identities,
            changes: totals.changes,
            collected_until,
        };
        self.publish_upload(&lock, base.table.as_ref(), commit, &consequences).await?;
        Ok(())
    }

    /// Removes what the failed upload staged, unless it was committed after all, and records it.
    async fn record_failed_upload(&self, report: &mut UploadReport, error: UploadError) -> UploadError {
        let recorded: Result<bool, SyncError> = async {
            let id = TableId::Stream(report.stream.clone());
            if let Some(table) = self.store.table(&id, None).await?
                && self.store.transaction_version(&id, &table, &format!("upload/{}", report.id)).await?.is_some()
            {
                return Ok(false);
            }
            self.discard_upload(&report.stream, &report.id).await?;
            report.error = Some(error.to_string());
            report.hint = error.hint();
            report.finish(UploadStatus::Failed, self.clock.now());
            let publication = UploadPublication {
                report,
                stream_version: None,
                identities_version: None,
                changes_version: None,
                collected_until: None,
            };
            self.catalog.finish_upload(publication).await?;
            Ok(true)
        }
        .await;
        match (recorded, error) {
            // the commit stands, only something after it failed, and recovery brings it to its end
            (Ok(false), UploadError::Sync(error)) => SyncError::NotVisible(Box::new(error)).into(),
            (Ok(_), error) => error,
            (Err(unrecorded), error) => {
                tracing::error!(error = %unrecorded, "the failed upload could not be recorded");
                error
            }
        }
    }

    async fn open_rows(
        &self,
        stream: &str,
        source: UploadSource,
        base: &StreamBase,
        folder: &SpillFolder,
    ) -> Result<Option<Input>, UploadError> {
        let (path, format, bytes, received, collected_until) = match source {
            UploadSource::Body { body, format, .. } => (body.path, format, body.bytes, None, None),
            UploadSource::Journal { limit, max_bytes } => {
                let events = self.catalog.journalled_events(stream, limit, max_bytes).await?;
                let Some(last) = events.last().map(|event| event.id) else { return Ok(None) };
                let path = folder.path().join("events");
                let mut text = String::with_capacity(events.iter().map(|event| event.event.len() + 1).sum());
                events.iter().for_each(|event| text.extend([event.event.as_str(), "\n"]));
                let received = events.iter().map(|event| event.received_at).collect();
                let bytes = text.len() as u64;
                tokio::fs::write(&path, text).await?;
                (path, Format::Ndjson, bytes, Some(received), Some(last))
            }
        };
        let identities: Vec<String> = self.project.identities.iter().map(|field| field.field.clone()).collect();
        let (known, is_body) = (base.columns.clone(), collected_until.is_none());
        let opening = tokio::task::spawn_blocking(move || {
            let rows = rows::open(&path, format, &known, &identities)?;
            // what was accepted under another configuration is set aside row by row
            if is_body {
                rows::check_identities(rows.as_ref(), &identities)?;
            }
            Ok::<_, UploadError>(rows)
        });
        let rows = opening.await.map_err(|e| SyncError::Bug(e.to_string()))??;
        Ok(Some(Input { rows, received, collected_until, bytes }))
    }

    /// Were the values of these identity fields stored with the same steps so far?
    async fn check_stream(&self, base: &StreamBase, own: &[String]) -> Result<(), SyncError> {
        let fields: Vec<_> = self.project.identities.iter().filter(|field| own.contains(&field.field)).collect();
        let known = base.definition.as_ref();
        for field in &fields {
            known.map_or(Ok(()), |known| known.check_steps(&field.field, &field.normalize))?;
        }
        let is_new =
            |field: &crate::config::IdentityField| !known.is_some_and(|k| k.normalization.contains_key(&field.field));
        self.check_steps_elsewhere(&fields.into_iter().filter(|field| is_new(field)).collect::<Vec<_>>()).await
    }

    fn stream_definition(&self, base: &StreamBase, own: &[String]) -> Definition {
        let used = self.project.identities.iter().filter(|field| own.contains(&field.field));
        Definition::of_stream(&self.project.identities, used, base.definition.as_ref())
    }
}
