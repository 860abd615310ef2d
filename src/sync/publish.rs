//! The commit of a run, and what follows from it.
//!
//! ```text
//!  staged files ─► COMMIT records/<slug> ─► identities ─► changes ─► catalog (visible)
//!                  (carries the list of all the rest)   └── rolled forward after a crash ──┘
//! ```
//!
//! The commit on the model's record store is the only point that decides: before it, nothing happened; after it,
//! everything will. Its `commitInfo` carries the run's report and the staged files of the other tables, so rolling
//! forward is copying, not computing. Each step is recognizable as done: the other tables by an application transaction
//! (`records/<slug>`, version), the catalog by its unique (model, version).

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};

use deltalake::kernel::Action;

use super::lock::{PublishLock, StreamLock};
use super::report::{Hold, HoldStatus, RunReport};
use super::{Engine, SyncError};
use crate::catalog::{Publication, UploadPublication};
use crate::store::schema::{changes_schema, identities_schema, with_partition};
use crate::store::{Commit, StagedFile, Store, StoreError, TableId, Version};
use crate::uploads::UploadReport;

/// The key in `commitInfo` that holds [`Consequences`].
const INFO_KEY: &str = "cloudConnect";

/// The key in the `commitInfo` of a stream's table that holds [`UploadConsequences`].
const UPLOAD_INFO_KEY: &str = "cloudConnectUpload";

/// What follows from the commit of an upload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadConsequences {
    pub report: UploadReport,
    pub identities: Vec<StagedFile>,
    pub changes: Vec<StagedFile>,
    /// The last event that it took from the journal.
    pub collected_until: Option<i64>,
}

/// What follows from a commit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Consequences {
    pub report: RunReport,
    pub identities: Vec<StagedFile>,
    pub changes: Vec<StagedFile>,
    pub hold: Option<Hold>,
    pub ends_hold: Option<(String, HoldStatus)>,
}

impl Engine {
    /// Commits a run and makes it visible. The commit point.
    pub(super) async fn publish(
        &self,
        lock: &PublishLock,
        model: &str,
        base: Option<&deltalake::DeltaTable>,
        mut commit: Commit,
        consequences: &Consequences,
    ) -> Result<Version, SyncError> {
        let table = TableId::Records(model.to_string());
        let info = serde_json::to_value(consequences).map_err(|e| SyncError::Bug(e.to_string()))?;
        commit.info.push((INFO_KEY.to_string(), info));
        let next = base.and_then(deltalake::DeltaTable::version).map_or(0, |v| v + 1);
        commit.transaction = Some((format!("run/{}", consequences.report.run_id), next as i64));
        fail::fail_point!("before-commit");
        let version = self.store.commit(&table, base, commit).await?;
        fail::fail_point!("after-commit");
        self.roll_forward(lock, model, version, consequences).await?;
        Ok(version)
    }

    /// Does what follows from version `version` of the model's record store, as far as it is not done yet.
    async fn roll_forward(
        &self,
        _lock: &PublishLock,
        model: &str,
        version: Version,
        consequences: &Consequences,
    ) -> Result<(), SyncError> {
        let table = TableId::Records(model.to_string());
        let Consequences { report, identities, changes, .. } = consequences;
        let versions = self.copy_shared(&table, version, &report.run_id, identities, changes).await?;
        self.finish(&Publication {
            report: &consequences.report,
            records_version: Some(version),
            identities_version: versions[0],
            changes_version: versions[1],
            hold: consequences.hold.as_ref(),
            ends: consequences.ends_hold.as_ref().map(|(run, status)| (run.as_str(), *status)),
        })
        .await?;
        fail::fail_point!("after-catalog");
        Ok(())
    }

    /// Copies the staged files of the shared tables that version `version` of `from` lists into their logs, as far as it
    /// is not done yet. The versions of `identities` and `changes` that have them.
    async fn copy_shared(
        &self,
        from: &TableId,
        version: Version,
        run_id: &str,
        identities: &[StagedFile],
        changes: &[StagedFile],
    ) -> Result<[Option<Version>; 2], SyncError> {
        let application = from.folder();
        let shared = [
            (TableId::Identities, identities, "field", identities_schema()),
            (TableId::Changes, changes, "model", changes_schema()),
        ];
        let mut versions = [None, None];
        for ((id, files, partition, schema), current) in shared.into_iter().zip(&mut versions) {
            let table = self.store.table(&id, None).await?;
            *current = table.as_ref().and_then(deltalake::DeltaTable::version);
            if files.is_empty() {
                continue;
            }
            if let Some(table) = &table {
                let done = self.store.transaction_version(&id, table, &application).await?;
                if done.is_some_and(|done| done >= version as i64) {
                    continue;
                }
            }
            let metadata = match table {
                Some(_) => None,
                None => Some(Store::metadata(&id, &with_partition(&schema, partition), &[partition], &[])?),
            };
            let commit = Commit {
                metadata,
                add: files.to_vec(),
                remove: Vec::new(),
                transaction: Some((application.clone(), version as i64)),
                info: vec![("runId".into(), run_id.into())],
            };
            *current = Some(self.store.commit(&id, table.as_ref(), commit).await?);
            match id {
                TableId::Identities => fail::fail_point!("after-identities"),
                _ => fail::fail_point!("after-changes"),
            }
        }
        Ok(versions)
    }

    /// Commits an upload and makes it visible. The commit point.
    pub(super) async fn publish_upload(
        &self,
        lock: &PublishLock,
        base: Option<&deltalake::DeltaTable>,
        mut commit: Commit,
        consequences: &UploadConsequences,
    ) -> Result<Version, SyncError> {
        let table = TableId::Stream(consequences.report.stream.clone());
        let info = serde_json::to_value(consequences).map_err(|e| SyncError::Bug(e.to_string()))?;
        commit.info.push((UPLOAD_INFO_KEY.to_string(), info));
        let next = base.and_then(deltalake::DeltaTable::version).map_or(0, |v| v + 1);
        commit.transaction = Some((format!("upload/{}", consequences.report.id), next as i64));
        fail::fail_point!("before-commit");
        let version = self.store.commit(&table, base, commit).await?;
        fail::fail_point!("after-commit");
        self.roll_upload_forward(lock, version, consequences).await?;
        Ok(version)
    }

    /// Does what follows from version `version` of a stream's table, as far as it is not done yet.
    async fn roll_upload_forward(
        &self,
        _lock: &PublishLock,
        version: Version,
        consequences: &UploadConsequences,
    ) -> Result<(), SyncError> {
        let UploadConsequences { report, identities, changes, collected_until } = consequences;
        let table = TableId::Stream(report.stream.clone());
        let [identities_version, changes_version] =
            self.copy_shared(&table, version, &report.id, identities, changes).await?;
        let publication = UploadPublication {
            report,
            stream_version: Some(version),
            identities_version,
            changes_version,
            collected_until: *collected_until,
        };
        self.catalog.finish_upload(publication).await?;
        fail::fail_point!("after-catalog");
        Ok(())
    }

    /// Records a run's end. The key lists of holds that it supersedes are of no more use.
    pub(super) async fn finish(&self, publication: &Publication<'_>) -> Result<(), SyncError> {
        for run_id in self.catalog.finish(publication).await? {
            if let Err(error) = self.store.discard_staged(&TableId::Holds, &run_id).await {
                tracing::warn!(%error, run = run_id, "the list of a superseded hold could not be removed");
            }
        }
        Ok(())
    }

    /// Finishes every commit whose consequences are not all visible. Called with the publish lock held, when nobody
    /// else can be in the middle of publishing.
    ///
    /// What has ended in the catalog became visible in the same transaction, so it is enough to look at what is under
    /// way there. The first time every table is looked at: the catalog may have been put back from a copy, or be new.
    pub(super) async fn roll_all_forward(&self, lock: &PublishLock) -> Result<u64, SyncError> {
        let looked_at_all = self.looked_at_all.load(Ordering::Relaxed);
        let (models, streams) = if looked_at_all { self.under_way().await? } else { self.all_tables().await? };
        let mut rolled = 0;
        for model in models {
            let table = TableId::Records(model.clone());
            let visible = self.catalog.published_version(&model).await?;
            let Some(newest) = self.store.newest_version(&table, visible).await? else { continue };
            for version in visible.map_or(0, |v| v + 1)..=newest {
                if let Some(consequences) = self.consequences(&table, version, INFO_KEY).await? {
                    self.roll_forward(lock, &model, version, &consequences).await?;
                    tracing::info!(
                        model,
                        version,
                        run = consequences.report.run_id,
                        "finished a run that a crash cut short"
                    );
                    rolled += 1;
                }
            }
        }
        for stream in streams {
            let table = TableId::Stream(stream);
            let visible = self.catalog.published_version(&table.folder()).await?;
            let Some(newest) = self.store.newest_version(&table, visible).await? else { continue };
            for version in visible.map_or(0, |v| v + 1)..=newest {
                let found = self.consequences::<UploadConsequences>(&table, version, UPLOAD_INFO_KEY).await?;
                if let Some(consequences) = found {
                    self.roll_upload_forward(lock, version, &consequences).await?;
                    tracing::info!(%table, version, upload = consequences.report.id, "finished an upload that a crash cut short");
                    rolled += 1;
                }
            }
        }
        self.looked_at_all.store(true, Ordering::Relaxed);
        Ok(rolled)
    }

    /// Are the tables that all share as new as the catalog says? Asked once, before the first commit.
    pub(super) async fn check_shared(&self, _lock: &PublishLock) -> Result<(), SyncError> {
        if !self.checked_shared.load(Ordering::Relaxed) {
            let cut = self.catalog.cut(None).await?;
            for (id, published) in [(TableId::Identities, cut.identities), (TableId::Changes, cut.changes)] {
                Store::check_not_behind(&id, self.store.table(&id, None).await?.as_ref(), published)?;
            }
            self.checked_shared.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The models and the streams that have a run or an upload under way, as far as the catalog knows.
    async fn under_way(&self) -> Result<(BTreeSet<String>, Vec<String>), SyncError> {
        let mut models: BTreeSet<String> =
            self.catalog.unfinished().await?.into_iter().map(|(model, _)| model).collect();
        // the catalog may have been lost, and the model come back after the first look
        let known = self.catalog.published_models().await?;
        models.extend(self.project.models.keys().filter(|slug| !known.contains(*slug)).cloned());
        Ok((models, self.catalog.unfinished_uploads().await?))
    }

    /// The models and the streams that may have a table.
    async fn all_tables(&self) -> Result<(BTreeSet<String>, Vec<String>), SyncError> {
        let mut models: BTreeSet<String> = self.catalog.models().await?.into_iter().collect();
        models.extend(self.project.models.keys().cloned());
        // where the catalog was lost, the store knows
        Ok((models, self.store.list_streams().await?))
    }

    /// What a commit said would follow; none when it is not one of ours (a table maintained by another tool).
    async fn consequences<C: serde::de::DeserializeOwned>(
        &self,
        table: &TableId,
        version: Version,
        key: &str,
    ) -> Result<Option<C>, SyncError> {
        let Some(actions) = self.store.commit_actions(table, version).await? else { return Ok(None) };
        let info = actions.into_iter().find_map(|action| match action {
            Action::CommitInfo(mut info) => info.info.remove(key),
            _ => None,
        });
        let parse = |value| serde_json::from_value(value).map_err(|e| e.to_string());
        info.map(parse).transpose().map_err(|message| {
            StoreError::Corrupt { table: table.folder(), message: format!("version {version}: {message}") }.into()
        })
    }

    /// Brings the state to a consistent one after whatever happened to earlier processes. Cheap when nothing did.
    /// Skips what another process is working on.
    pub async fn recover(&self) -> Result<(), SyncError> {
        crate::diff::spill::clean(&self.spill_folder())?;
        if let Some(lock) = self.try_publish_lock()? {
            self.roll_all_forward(&lock).await?;
        }
        for model in self.catalog.models().await? {
            if self.catalog.running(&model).await?.is_empty() {
                continue;
            }
            if let Ok(lock) = self.model_lock(&model) {
                self.clean_up_after(&lock, &model).await?;
            }
        }
        self.recover_uploads(&self.catalog.streams().await?).await
    }

    /// [`Engine::recover`] of these streams alone: an upload that goes on holds its stream's lock.
    pub async fn recover_uploads(&self, streams: &[String]) -> Result<(), SyncError> {
        for stream in streams {
            if let Some(lock) = self.try_stream_lock(stream)? {
                self.clean_up_uploads(&lock, stream).await?;
            }
        }
        Ok(())
    }

    /// Removes what dead uploads of the stream staged. Called with the stream's lock held, so any upload that is still
    /// marked as running is dead.
    pub(super) async fn clean_up_uploads(&self, _lock: &StreamLock, stream: &str) -> Result<(), SyncError> {
        if self.catalog.running_uploads(stream).await?.is_empty() {
            return Ok(());
        }
        let lock = self.publish_lock().await?;
        self.roll_all_forward(&lock).await?;
        for id in self.catalog.running_uploads(stream).await? {
            self.discard_upload(stream, &id).await?;
            self.catalog.interrupted_upload(&id, self.clock.now()).await?;
            tracing::info!(stream, upload = id, "cleaned up after an upload that was interrupted");
        }
        Ok(())
    }

    /// Removes everything that an upload staged.
    pub(super) async fn discard_upload(&self, stream: &str, id: &str) -> Result<(), SyncError> {
        for table in [TableId::Stream(stream.to_string()), TableId::Identities, TableId::Changes] {
            self.store.discard_staged(&table, id).await?;
        }
        Ok(())
    }

    /// Removes what dead runs of the model staged. Called with the model's lock held, so any run that is still marked
    /// as running is dead.
    pub(super) async fn clean_up_after(&self, _lock: &super::lock::ModelLock, model: &str) -> Result<(), SyncError> {
        // a commit first gets its consequences, so that what it refers to is not taken for a leftover
        if self.catalog.running(model).await?.is_empty() {
            return Ok(());
        }
        let lock = self.publish_lock().await?;
        self.roll_all_forward(&lock).await?;
        for run_id in self.catalog.running(model).await? {
            self.discard(model, &run_id).await?;
            self.catalog.interrupted(&run_id, self.clock.now()).await?;
            tracing::info!(model, run = run_id, "cleaned up after a run that was interrupted");
        }
        Ok(())
    }

    /// Removes everything that a run staged.
    pub(super) async fn discard(&self, model: &str, run_id: &str) -> Result<(), SyncError> {
        for table in [TableId::Records(model.to_string()), TableId::Identities, TableId::Changes, TableId::Holds] {
            self.store.discard_staged(&table, run_id).await?;
        }
        Ok(())
    }
}
