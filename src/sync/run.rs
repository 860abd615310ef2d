//! The pipeline of one run, in the order of a row's journey.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use deltalake::DeltaTable;
use deltalake::kernel::MetadataExt;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::additions::{Additions, Source};
use super::definition::{CONFIGURATION_KEY, Definition, DefinitionChange};
use super::extract::{Extracted, Extraction};
use super::links::Links;
use super::publish::Consequences;
use super::published::definition_of;
use super::publishing::{PLAN_SAMPLES, Publishing, Totals};
use super::report::{Hold, RunKind, RunReport, RunStatus};
use super::rewrite::{Rewrite, RewriteSource};
use super::{Engine, Progress, Stage, SyncError};
use crate::catalog::Publication;
use crate::diff::compare::{Differ, PARTITIONS};
use crate::diff::index::HashIndex;
use crate::diff::spill::SpillFolder;
use crate::diff::state;
use crate::identity::resolve::{MAX_ASKED, Owners, Resolver};
use crate::model::{Guard, Model};
use crate::store::schema::records_schema;
use crate::store::{Commit, DataFile, Store, StoreError, TableId};

/// The state of a model's record store before a run.
pub(super) struct Base {
    pub table: Option<DeltaTable>,
    pub definition: Option<Definition>,
    pub files: Vec<DataFile>,
}

/// What the stages after the comparison came to.
pub(super) struct Outcome {
    cx: Arc<Publishing>,
    extracted: Extracted,
    pub(super) rewritten: Vec<usize>,
    pub(super) hold: Option<Hold>,
    removed: u64,
    /// The model's definition or schema has to be written.
    redefine: bool,
}

impl Engine {
    /// Runs a model. What goes wrong is in the report.
    pub async fn run(&self, slug: &str, progress: &dyn Progress, cancel: &CancellationToken) -> RunReport {
        let mut report = RunReport::new(Uuid::now_v7().to_string(), slug.to_string(), RunKind::Sync, self.clock.now());
        if let Err(error) = self.run_recorded(&mut report, progress, cancel).await {
            report.fail(&error, self.clock.now());
        }
        report
    }

    /// [`Engine::run`] under this id. An error says why the run did not begin, and left no record; what goes wrong
    /// after that is in the report.
    pub async fn run_as(
        &self,
        run_id: String,
        slug: &str,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<RunReport, SyncError> {
        let mut report = RunReport::new(run_id, slug.to_string(), RunKind::Sync, self.clock.now());
        self.run_recorded(&mut report, progress, cancel).await?;
        Ok(report)
    }

    /// An error: the run did not begin.
    async fn run_recorded(
        &self,
        report: &mut RunReport,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<(), SyncError> {
        let model = self.model(&report.model)?;
        if !model.active {
            return Err(SyncError::Inactive(model.slug.clone()));
        }
        let lock = self.model_lock(&model.slug)?;
        self.clean_up_after(&lock, &model.slug).await?;
        self.catalog.begin(report).await?;
        if let Err(error) = self.run_begun(model, report, progress, cancel).await {
            // still under the model's lock, so that nobody takes the run for one whose process died
            self.record_failure(report, error).await;
        }
        Ok(())
    }

    async fn run_begun(
        &self,
        model: &Model,
        report: &mut RunReport,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<(), SyncError> {
        let folder = SpillFolder::create(&self.spill_folder(), &report.run_id)?;
        let base = self.base(&model.slug).await?;
        self.check_normalization(model, &base).await?;
        let extracted = self.extracted(model, &base, &folder, progress, cancel).await?;
        if cancel.is_cancelled() {
            return Err(SyncError::Cancelled);
        }
        let publish_lock = self.publish_lock().await?;
        self.roll_all_forward(&publish_lock).await?;
        self.check_shared(&publish_lock).await?;
        let outcome = self.stages(model, &base, extracted, &folder, report, true, progress).await?;
        if cancel.is_cancelled() {
            return Err(SyncError::Cancelled);
        }
        progress.stage(Stage::Commit);
        let totals = outcome.take_totals();
        outcome.fill(report, &totals);
        let nothing = totals.records.is_empty()
            && totals.identities.is_empty()
            && totals.changes.is_empty()
            && outcome.rewritten.is_empty();
        report.finish(outcome.status(nothing), self.clock.now());
        if let Some(hold) = &outcome.hold {
            report.hint = Some(format!(
                "{} of {} rows would be removed: `cloud-connect approve {}` lets them go, `reject` keeps them",
                hold.removed, hold.of, report.run_id
            ));
        }
        if nothing && !outcome.redefine {
            return self.finish(&Publication::of_nothing(report, outcome.hold.as_ref())).await;
        }
        let commit = outcome.commit(&base, &totals)?;
        let consequences = Consequences {
            report: report.clone(),
            identities: totals.identities,
            changes: totals.changes,
            hold: outcome.hold,
            ends_hold: None,
        };
        self.publish(&publish_lock, &model.slug, base.table.as_ref(), commit, &consequences).await?;
        Ok(())
    }

    /// Removes what the failed run staged, unless it was committed after all, and records it. Called with the model's
    /// lock held. Returns what to tell.
    pub(super) async fn record_failure(&self, report: &mut RunReport, error: SyncError) -> SyncError {
        report.fail(&error, self.clock.now());
        match self.record_failed(report).await {
            Ok(true) => error,
            Ok(false) => {
                let error = SyncError::NotVisible(Box::new(error));
                report.fail(&error, self.clock.now());
                error
            }
            Err(unrecorded) => {
                tracing::error!(error = %unrecorded, "the failed run could not be recorded");
                error
            }
        }
    }

    /// False: the commit stands, only something after it failed, and recovery brings it to its end.
    async fn record_failed(&self, report: &RunReport) -> Result<bool, SyncError> {
        if !self.catalog.running(&report.model).await?.contains(&report.run_id) {
            return Ok(true);
        }
        if self.is_committed(&report.model, &report.run_id).await? {
            return Ok(false);
        }
        self.discard(&report.model, &report.run_id).await?;
        self.finish(&Publication::of_nothing(report, None)).await?;
        Ok(true)
    }

    /// The model of that slug.
    pub fn model(&self, slug: &str) -> Result<&Model, SyncError> {
        self.project.models.get(slug).ok_or_else(|| SyncError::NoSuchModel(slug.to_string()))
    }

    pub(super) async fn base(&self, slug: &str) -> Result<Base, SyncError> {
        let id = TableId::Records(slug.to_string());
        let Some(table) = self.table_to_change(&id, slug).await? else {
            return Ok(Base { table: None, definition: None, files: Vec::new() });
        };
        let files = Store::files(&id, &table)?;
        let definition = definition_of(&id, &table)?;
        Ok(Base { table: Some(table), definition, files })
    }

    /// The table as it is now. `published_as`: its name in the catalog.
    pub(super) async fn table_to_change(
        &self,
        id: &TableId,
        published_as: &str,
    ) -> Result<Option<DeltaTable>, SyncError> {
        // before the table, so that what is published meanwhile is in it
        let published = self.catalog.published_version(published_as).await?;
        let table = self.store.table(id, None).await?;
        Store::check_not_behind(id, table.as_ref(), published)?;
        Ok(table)
    }

    pub(super) async fn extracted(
        &self,
        model: &Model,
        base: &Base,
        folder: &SpillFolder,
        progress: &dyn Progress,
        cancel: &CancellationToken,
    ) -> Result<Extracted, SyncError> {
        let warehouse = self.project.open_connection(&model.connection, self.memory.query)?;
        let before = base.definition.as_ref();
        let extraction = Extraction { model, warehouse, before, files: &base.files, folder, progress, cancel };
        self.extract(&extraction).await
    }

    /// Everything between the comparison and the commit.
    #[expect(clippy::too_many_arguments, reason = "the run's whole situation, used once for runs and once for plans")]
    pub(super) async fn stages(
        &self,
        model: &Model,
        base: &Base,
        mut extracted: Extracted,
        folder: &SpillFolder,
        report: &RunReport,
        write: bool,
        progress: &dyn Progress,
    ) -> Result<Outcome, SyncError> {
        progress.stage(Stage::Profiles);
        let result = Arc::new(extracted.result.clone());
        let cx = Arc::new(Publishing {
            store: self.store.clone(),
            run_id: report.run_id.clone(),
            now: self.clock.now(),
            model: model.slug.clone(),
            definition: extracted.definition.clone(),
            identity_fields: self.project.identities.clone(),
            records: records_schema(&result),
            result,
            resolver: Resolver::open(&self.store, self.memory.tasks).await?,
            write,
            totals: std::sync::Mutex::default(),
        });
        let links = Arc::new(Links::new(&cx, folder));

        // added rows, one partition after another
        let mut early = early_owners(&cx, &extracted.differ);
        let touched = self.add(&cx, &links, &extracted.differ, early.is_empty()).await?;
        if let Some(differ) = Arc::get_mut(&mut extracted.differ) {
            differ.drop_index();
        }
        fail::fail_point!("after-additions");

        // removals, unless they are too many
        let old = Arc::clone(&extracted.differ.old);
        let removed = old.count()[state::UNSEEN as usize];
        let held = exceeds(&model.guard, removed, old.len() as u64);
        let hold = match (held, write) {
            (false, _) => None,
            (true, false) => {
                let samples = self.sample_unseen(&cx, &old, PLAN_SAMPLES).await?;
                cx.add(|totals| totals.samples.removed.clone_from(&samples));
                Some(Hold { removed, of: old.len() as u64, files: Vec::new(), samples })
            }
            (true, true) => Some(self.write_hold(&cx, &old).await?),
        };

        // changed and removed rows: their files are written anew
        progress.stage(Stage::Write);
        let reshape = extracted.change == DefinitionChange::Shape;
        let owners = match (early.join_next().await, touched) {
            (Some(early), _) => Some(early.map_err(|e| SyncError::Bug(e.to_string()))??),
            (None, Some(touched)) => Some(cx.resolver.owners(&model.external_key, touched).await?),
            (None, None) => None,
        };
        let mut fold = false;
        cx.add(|totals| fold = !totals.records.is_empty());
        let source = RewriteSource {
            differ: Some(Arc::clone(&extracted.differ)),
            remove_unseen: !held,
            owners,
            reshape,
            relink: base.definition.as_ref().is_some_and(|before| before.identities != extracted.definition.identities),
            fold,
        };
        let rewrite = Arc::new(Rewrite::new(&cx, &links, &old, source));
        self.in_tasks(|| Arc::clone(&rewrite).work()).await?;
        fail::fail_point!("after-rewrite");

        // further identities, and the rows that waited for a profile
        let may_create = base.definition.as_ref().is_some_and(|before| !before.create_profiles);
        if may_create && model.create_profiles {
            self.create_for_waiting(&cx, &links, &extracted.differ, !held).await?;
        }
        let mut own = Vec::new();
        if !model.create_profiles {
            own.extend((0..base.files.len()).filter(|n| !rewrite.files().contains(n)).map(|n| base.files[n].clone()));
            cx.add(|totals| own.extend(totals.records.iter().map(DataFile::of_staged)));
        }
        self.link_and_enter(&cx, &links, &own).await?;
        let redefine = base.definition.as_ref() != Some(&extracted.definition);
        Ok(Outcome { rewritten: rewrite.files().to_vec(), cx, extracted, hold, removed, redefine })
    }

    /// Publishes added rows. Returns the key hashes of changed and removed rows, if they are asked for and not too many.
    async fn add(
        &self,
        cx: &Arc<Publishing>,
        links: &Arc<Links>,
        differ: &Arc<Differ>,
        tell_touched: bool,
    ) -> Result<Option<Vec<u128>>, SyncError> {
        let next = Arc::new(AtomicUsize::new(0));
        let touched = Arc::new(std::sync::Mutex::new(Some(Vec::new())));
        self.in_tasks(|| {
            let (cx, links, differ, next, touched) =
                (Arc::clone(cx), Arc::clone(links), Arc::clone(differ), Arc::clone(&next), Arc::clone(&touched));
            async move {
                let mut additions = Additions::new(&cx, &links, Source::Result);
                loop {
                    let partition = next.fetch_add(1, Ordering::Relaxed);
                    if partition >= PARTITIONS {
                        break;
                    }
                    let index = if differ.needs_index(partition) && !differ.old.is_empty() {
                        let (low, high) = Differ::partition_range(partition);
                        Some(HashIndex::load(&cx.store, &cx.table(), &differ.old, low, high, 1).await?)
                    } else {
                        None
                    };
                    let (sender, mut receiver) = tokio::sync::mpsc::channel(2);
                    let worker = Arc::clone(&differ);
                    let finished = tokio::task::spawn_blocking(move || {
                        let gone = |_| arrow::error::ArrowError::ComputeError("the run was given up".into());
                        let send = |batch| sender.blocking_send(batch).map_err(gone);
                        worker.finish_partition(partition, index.as_ref(), send).map(|()| index)
                    });
                    while let Some(batch) = receiver.recv().await {
                        additions.push(batch).await?;
                    }
                    let index = finished.await.map_err(|e| SyncError::Bug(e.to_string()))??;
                    if let Some(index) = index {
                        note_touched(&touched, differ.touched_keys(&index));
                    }
                }
                additions.finish().await
            }
        })
        .await?;
        if !tell_touched {
            return Ok(None);
        }
        note_touched(&touched, differ.touched_keys(differ.resident_index()));
        let mut touched = touched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(touched.take())
    }

    /// Runs a job as often as there are tasks, at once.
    pub(super) async fn in_tasks<F>(&self, job: impl Fn() -> F) -> Result<(), SyncError>
    where
        F: Future<Output = Result<(), SyncError>> + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for _ in 0..self.memory.tasks {
            tasks.spawn(job());
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(|e| SyncError::Bug(e.to_string()))??;
        }
        Ok(())
    }

    /// Did the run's commit land?
    async fn is_committed(&self, model: &str, run_id: &str) -> Result<bool, SyncError> {
        let id = TableId::Records(model.to_string());
        let Some(table) = self.store.table(&id, None).await? else { return Ok(false) };
        Ok(self.store.transaction_version(&id, &table, &format!("run/{run_id}")).await?.is_some())
    }
}

/// Where all old hashes are resident the changed and removed keys are known before the additions: unless they are many,
/// their owners are looked for meanwhile. At most one task.
fn early_owners(cx: &Arc<Publishing>, differ: &Differ) -> JoinSet<Result<Owners, StoreError>> {
    let mut tasks = JoinSet::new();
    if differ.needs_index(PARTITIONS - 1) {
        return tasks;
    }
    let touched: Vec<u128> = differ.touched_keys(differ.resident_index()).take(MAX_ASKED / 4 + 1).collect();
    if touched.len() > MAX_ASKED / 4 {
        return tasks;
    }
    let (resolver, field) = (cx.resolver.clone(), cx.definition.external_key.clone());
    tasks.spawn(async move { resolver.owners(&field, touched).await });
    tasks
}

fn note_touched(touched: &std::sync::Mutex<Option<Vec<u128>>>, keys: impl Iterator<Item = u128>) {
    let mut guard = touched.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    for key in keys {
        let Some(list) = guard.as_mut() else { return };
        list.push(key);
        if list.len() > MAX_ASKED {
            *guard = None;
        }
    }
}

fn exceeds(guard: &Guard, removed: u64, of: u64) -> bool {
    removed > guard.max_removed && removed as f64 * 100.0 > guard.max_removed_percent * of as f64
}

impl Outcome {
    pub(super) fn status(&self, nothing: bool) -> RunStatus {
        match (&self.hold, nothing) {
            (Some(_), _) => RunStatus::Held,
            (None, true) => RunStatus::Unchanged,
            (None, false) => RunStatus::Published,
        }
    }

    pub(super) fn take_totals(&self) -> Totals {
        std::mem::take(&mut *self.cx.totals.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    /// The counts.
    pub(super) fn fill(&self, report: &mut RunReport, totals: &Totals) {
        let differ = &self.extracted.differ;
        let counts = differ.old.count();
        // a plan looks at values only where it has to
        let (changed, same) = match self.extracted.change {
            DefinitionChange::Shape => (totals.changed, totals.same_by_value),
            _ => (counts[state::CHANGED as usize], 0),
        };
        report.rows = differ.rows();
        report.added = totals.added;
        report.changed = changed;
        report.removed = self.removed;
        report.unchanged = counts[state::UNCHANGED as usize] + same;
        report.quarantine = differ.quarantine();
        report.quarantined = report.quarantine.total();
        report.profiles_created = totals.created;
        report.profiles_matched = totals.matched;
        report.waiting = totals.waiting;
        report.entered = totals.entered;
        report.exited = totals.exited;
        report.identities_linked = totals.linked;
        report.identity_conflicts = totals.conflicts;
        report.definition_changed = self.extracted.change != DefinitionChange::None;
        report.retries = self.extracted.retries;
    }

    fn commit(&self, base: &Base, totals: &Totals) -> Result<Commit, SyncError> {
        let id = self.cx.table();
        let definition = serde_json::to_string(&self.cx.definition).map_err(|e| SyncError::Bug(e.to_string()))?;
        let metadata = match &base.table {
            None => Some(Store::metadata(&id, &self.cx.records, &[], &[(CONFIGURATION_KEY, definition)])?),
            Some(table) if self.redefine => {
                use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
                let bug = |e: String| SyncError::Bug(e);
                let schema: deltalake::kernel::StructType = self.cx.records.as_ref().try_into_kernel()?;
                let metadata = table.snapshot().map_err(|e| bug(e.to_string()))?.metadata().clone();
                let metadata = metadata.with_schema(&schema).map_err(|e| bug(e.to_string()))?;
                Some(metadata.add_config_key(CONFIGURATION_KEY.into(), definition).map_err(|e| bug(e.to_string()))?)
            }
            Some(_) => None,
        };
        let remove = self.rewritten.iter().map(|file| base.files[*file].remove.clone()).collect();
        Ok(Commit { metadata, add: totals.records.clone(), remove, transaction: None, info: Vec::new() })
    }
}
