//! Lookups for a service: thousands a second, while runs go on.
//!
//! ```text
//! data file (Parquet, store) ──once──► serving file (local) ──one small read a row──► profile
//! publication ──► [`ProfileService::keep_fresh`] ──► serving files of the new data files ──► the next [`view::View`]
//! ```
//!
//! Data files never change, so each gets a *serving file* at first use: its rows once more, encoded for answering
//! ([`rows`]) and found by hash ([`segment`]). A [`view::View`] is the serving files of one cut. Serving files lie in the
//! project's local state folder, below `serving/`; they are derived, and can be removed at any time.
//!
//! Actors: lookups ask the view that is current; [`ProfileService::keep_fresh`] replaces it when something was published,
//! by this process ([`ProfileService::published`] says so) or another ([`POLL`] finds out).
//!
//! Invariants:
//! - what computes (queries, serving files, lookups without these) does so on the [`crate::workers`]' threads, so that
//!   lookups do not wait for it;
//! - a lookup answers from one cut, and exactly what [`super::ProfileReader::lookup`] answers from that cut;
//! - a lookup never waits for serving files to be written: until the first view is there it goes through a
//!   [`super::ProfileReader`], and later the view before answers while the next one is prepared. So an answer is as old
//!   as the last publication but for [`POLL`], and the time that writing the serving files of changed data files takes:
//!   about a second for each million changed rows;
//! - memory is 1.5 bytes for each row of a record store and 3 for each identity value, and none before the first lookup
//!   or after [`IDLE`] without one; writing takes one data file at a time;
//! - with `serving_files: false` in the project there are none, and every lookup goes through a [`super::ProfileReader`];
//! - a serving file that is torn, or made of something else, is written anew; one that is not needed is removed.

mod build;
mod folder;
mod rows;
mod segment;
#[cfg(test)]
mod tests;
mod view;

pub use view::View;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use futures::StreamExt;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{Changes, Member, NotAPosition, Position, Profile, ProfileReader, ProfilesError, WantedChanges};
use crate::catalog::{AsOf, CatalogError};
use crate::identity::normalize;
use crate::store::{Cut, Version};
use crate::sync::{Engine, SyncError};
use crate::telemetry::names;
use folder::Folder;

/// How often the catalog is asked whether another process has published something.
pub const POLL: Duration = Duration::from_millis(500);
/// After so long without a lookup, memory is given back; the serving files stay.
pub const IDLE: Duration = Duration::from_secs(15 * 60);
/// So many batches of a query are computed before they are asked for.
const BATCHES_AHEAD: usize = 2;
/// So many publications are looked at for a page of the change log.
const PUBLICATIONS_A_PAGE: u32 = 500;
/// Lookups without serving files at a time: each reads megabytes.
const SCANS: usize = 2;
/// The share of the memory limit that queries may use, one part in so many.
const QUERY_SHARE: u64 = 4;

/// Why profiles could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error(transparent)]
    Profiles(#[from] ProfilesError),
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Position(#[from] NotAPosition),
}

impl ServingError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Profiles(e) => e.hint(),
            Self::Sync(e) => e.hint(),
            Self::Catalog(CatalogError::NoSuchRun(_) | CatalogError::NotAMoment(_)) => {
                Some("a moment is a run's id, or a time such as 2026-11-22T10:00:00Z".into())
            }
            Self::Catalog(CatalogError::AmbiguousRun(_)) => Some("give more of the run's id".into()),
            Self::Catalog(_) | Self::Position(_) => None,
        }
    }
}

/// Where the engine comes from: it is another one after the project's files, or its definitions, have changed.
pub type EngineSource = Box<dyn Fn() -> Arc<Engine> + Send + Sync>;

/// Reads the profiles that are visible now, for a process that goes on.
pub struct ProfileService {
    engine: EngineSource,
    view: RwLock<Option<Arc<Moment<View>>>>,
    reader: Mutex<Option<Moment<Arc<ProfileReader>>>>,
    /// One refresh at a time.
    refreshing: Mutex<()>,
    wake: Notify,
    scans: Semaphore,
    /// How often the view, and how often the reader of now, was asked for.
    lookups: AtomicU64,
    readings: AtomicU64,
}

/// Something that was made for a publication, by an engine.
struct Moment<T> {
    seq: Option<i64>,
    engine: Arc<Engine>,
    made: T,
}

impl<T> Moment<T> {
    fn is(&self, seq: Option<i64>, engine: &Arc<Engine>) -> bool {
        self.seq == seq && Arc::ptr_eq(&self.engine, engine)
    }
}

impl std::fmt::Debug for ProfileService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProfileService").finish_non_exhaustive()
    }
}

impl ProfileService {
    pub fn new(engine: EngineSource) -> Self {
        Self {
            engine,
            view: RwLock::new(None),
            reader: Mutex::new(None),
            refreshing: Mutex::new(()),
            wake: Notify::new(),
            scans: Semaphore::new(SCANS),
            lookups: AtomicU64::new(0),
            readings: AtomicU64::new(0),
        }
    }

    /// The profile that owns this value of an identity field; the value as a person writes it.
    ///
    /// # Errors
    /// [`ProfilesError::UnknownField`] when the field identifies nobody.
    pub async fn lookup(self: &Arc<Self>, field: &str, value: &str) -> Result<Option<Profile>, ServingError> {
        let begin = Instant::now();
        let found = self.find(field, value, None).await;
        metrics::histogram!(names::LOOKUP_SECONDS).record(begin.elapsed());
        let result = match &found {
            Ok(Some(_)) => "found",
            Ok(None) => "missing",
            Err(_) => "failed",
        };
        metrics::counter!(names::LOOKUPS, "result" => result).increment(1);
        found
    }

    /// [`Self::lookup`], as of a moment in the past. Reads the store: slow.
    pub async fn lookup_as_of(
        self: &Arc<Self>,
        field: &str,
        value: &str,
        as_of: &AsOf,
    ) -> Result<Option<Profile>, ServingError> {
        self.find(field, value, Some(as_of)).await
    }

    async fn find(
        self: &Arc<Self>,
        field: &str,
        value: &str,
        as_of: Option<&AsOf>,
    ) -> Result<Option<Profile>, ServingError> {
        let engine = (self.engine)();
        let identity = engine.project.identities.iter().find(|identity| identity.field == field);
        let Some(identity) = identity else {
            let known = engine.project.identities.iter().map(|identity| identity.field.clone()).collect();
            return Err(ProfilesError::UnknownField { field: field.into(), known }.into());
        };
        let value = normalize(value, &identity.normalize);
        self.lookups.fetch_add(u64::from(as_of.is_none()), Ordering::Relaxed);
        // a field that was just configured is not in the view yet
        if as_of.is_none()
            && let Some(current) = self.view()
            && current.made.identity_fields.iter().any(|known| known == field)
        {
            // reads of the page cache, some microseconds each: less than handing them to another thread
            return Ok(current.made.by_identity(field, &value)?);
        }
        if as_of.is_none() {
            self.wake.notify_one();
        }
        // closed never, so whoever waits comes in
        let _turn = self.scans.acquire().await.ok();
        let (service, as_of) = (Arc::clone(self), as_of.cloned());
        let (field, value) = (field.to_string(), value.into_owned());
        self.compute(async move { Ok(service.reader(as_of.as_ref()).await?.lookup(&field, &value).await?) }).await
    }

    /// Does it on the threads that may be kept busy.
    async fn compute<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, ServingError>> + Send + 'static,
    ) -> Result<T, ServingError> {
        let done = (self.engine)().workers.spawn(Box::pin(work)).await;
        done.unwrap_or_else(|e| Err(SyncError::Bug(e.to_string()).into()))
    }

    /// A query's rows; see [`ProfileReader::sql`]. It ends when the stream is dropped.
    pub async fn sql(
        self: &Arc<Self>,
        query: String,
        as_of: Option<AsOf>,
    ) -> Result<SendableRecordBatchStream, ServingError> {
        let service = Arc::clone(self);
        self.compute(async move {
            let reader = service.reader(as_of.as_ref()).await?;
            let mut rows = reader.sql(&query).await?;
            let mut stream = RecordBatchReceiverStream::builder(rows.schema(), BATCHES_AHEAD);
            let sender = stream.tx();
            stream.spawn(async move {
                while let Some(batch) = rows.next().await {
                    // nobody waits for it any more
                    if sender.send(batch).await.is_err() {
                        break;
                    }
                }
                Ok(())
            });
            Ok(stream.build())
        })
        .await
    }

    /// Reads as of now, or of a moment in the past. The one of now is kept, with what it learnt, until something is
    /// published; its queries share a quarter of the memory limit.
    pub async fn reader(&self, as_of: Option<&AsOf>) -> Result<Arc<ProfileReader>, ServingError> {
        match as_of {
            Some(_) => Ok(Arc::new(open_reader(&(self.engine)(), as_of).await?)),
            None => Ok(self.reader_of_now().await?.1),
        }
    }

    /// Reads as of now, and the number of the newest publication that is certainly seen.
    async fn reader_of_now(&self) -> Result<(Option<i64>, Arc<ProfileReader>), ServingError> {
        self.readings.fetch_add(1, Ordering::Relaxed);
        let engine = (self.engine)();
        let mut kept = self.reader.lock().await;
        let seq = engine.catalog.newest_publication().await?;
        if let Some(reader) = kept.as_ref().filter(|moment| moment.is(seq, &engine)) {
            return Ok((seq, reader.made.clone()));
        }
        let made = Arc::new(open_reader(&engine, None).await?);
        *kept = Some(Moment { seq, engine, made: made.clone() });
        Ok((seq, made))
    }

    /// A page of the change log, from that place on.
    pub async fn changes(self: &Arc<Self>, from: Position, wanted: WantedChanges) -> Result<Changes, ServingError> {
        let service = Arc::clone(self);
        self.compute(async move { service.read_changes(from, &wanted).await }).await
    }

    async fn read_changes(&self, from: Position, wanted: &WantedChanges) -> Result<Changes, ServingError> {
        let (newest, reader) = self.reader_of_now().await?;
        let newest = newest.unwrap_or(0);
        if from.publication > newest + 1 {
            // of another project, or of a catalog that was lost since
            return Err(NotAPosition.into());
        }
        let catalog = &(self.engine)().catalog;
        let publications = catalog.publications(from.publication, newest, PUBLICATIONS_A_PAGE).await?;
        // where the log goes on: behind the last publication that was looked at, or behind all
        let cut = publications.len() == PUBLICATIONS_A_PAGE as usize;
        let last = publications.last().filter(|_| cut).map_or(newest, |last| last.seq);
        let mut page = reader.changes(&publications, from, wanted, Position::of(last + 1)).await?;
        page.more |= cut;
        Ok(page)
    }

    /// A page of a model's members; see [`ProfileReader::members_after`].
    pub async fn members_after(
        self: &Arc<Self>,
        slug: String,
        after: Option<String>,
        limit: usize,
    ) -> Result<Vec<Member>, ServingError> {
        let service = Arc::clone(self);
        self.compute(
            async move { Ok(service.reader(None).await?.members_after(&slug, after.as_deref(), limit).await?) },
        )
        .await
    }

    /// Behind the newest change.
    pub async fn end_of_changes(&self) -> Result<Position, ServingError> {
        let newest = (self.engine)().catalog.newest_publication().await?;
        Ok(Position::of(newest.map_or(0, |seq| seq + 1)))
    }

    /// Something was published: see to it now.
    pub fn published(&self) {
        self.wake.notify_one();
    }

    /// Prepares the view of what is visible now, if it is not there; its memory in bytes.
    pub async fn warm(self: &Arc<Self>) -> Result<u64, ServingError> {
        self.lookups.fetch_add(1, Ordering::Relaxed);
        let service = Arc::clone(self);
        self.compute(async move { service.refresh().await }).await?;
        Ok(self.view().map_or(0, |current| current.made.memory()))
    }

    /// Replaces the view when something was published, until `stop`. Run it once, as a task of its own.
    pub async fn keep_fresh(self: &Arc<Self>, stop: CancellationToken) {
        let (mut lookups, mut readings) = (Use::new(), Use::new());
        let mut failing = false;
        while stop.run_until_cancelled(tokio::time::timeout(POLL, self.wake.notified())).await.is_some() {
            // what nobody has asked for in a while gives its memory back
            if readings.ended(&self.readings) {
                *self.reader.lock().await = None;
            }
            if lookups.ended(&self.lookups) {
                *self.view.write().unwrap_or_else(PoisonError::into_inner) = None;
                continue;
            }
            let service = Arc::clone(self);
            let refreshed = self.compute(async move { service.refresh().await });
            match stop.run_until_cancelled(refreshed).await {
                None => return,
                Some(Ok(())) => failing = false,
                // said once: it is tried again at every poll, and lookups go on in the view that is there
                Some(Err(error)) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!(%error, "profiles are looked up as they were: the newest could not be prepared");
                    }
                }
            }
        }
    }

    fn view(&self) -> Option<Arc<Moment<View>>> {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn refresh(&self) -> Result<(), ServingError> {
        let _one = self.refreshing.lock().await;
        let engine = (self.engine)();
        if !engine.project.service.serving_files {
            *self.view.write().unwrap_or_else(PoisonError::into_inner) = None;
            return Ok(());
        }
        let seq = engine.catalog.newest_publication().await?;
        let before = self.view();
        if before.as_ref().is_some_and(|current| current.is(seq, &engine)) {
            return Ok(());
        }
        let cut = engine.catalog.cut(None).await?;
        let folder = Folder::open(engine.serving_folder())?;
        let made = Box::pin(next_view(&engine, &cut, &folder, before.as_ref().map(|current| &current.made))).await?;
        let next = Arc::new(Moment { seq, engine, made });
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Some(next.clone());
        folder.keep_only(next.made.paths(), next.engine.clock.now());
        Ok(())
    }
}

/// How something is used, as far as a count tells that is looked at now and then.
struct Use {
    count: u64,
    since: Instant,
}

impl Use {
    fn new() -> Self {
        Self { count: 0, since: Instant::now() }
    }

    /// Was it never used, or not for [`IDLE`]?
    fn ended(&mut self, count: &AtomicU64) -> bool {
        let count = count.load(Ordering::Relaxed);
        if count != self.count {
            *self = Self { count, since: Instant::now() };
        }
        count == 0 || self.since.elapsed() > IDLE
    }
}

async fn open_reader(engine: &Engine, as_of: Option<&AsOf>) -> Result<ProfileReader, ServingError> {
    let cut = engine.catalog.cut(as_of).await?;
    let shapes = engine.shapes(&cut, as_of.is_some()).await?;
    let fields = identity_fields(engine);
    Ok(ProfileReader::open(&engine.store, &cut, &shapes, &fields, engine.memory.limit / QUERY_SHARE).await?)
}

fn identity_fields(engine: &Engine) -> Vec<String> {
    engine.project.identities.iter().map(|identity| identity.field.clone()).collect()
}

/// The view of a cut: what has not changed is taken from the one before.
async fn next_view(engine: &Engine, cut: &Cut, folder: &Folder, before: Option<&View>) -> Result<View, ServingError> {
    let unchanged = before.filter(|before| before.identities_version == cut.identities);
    let identities = match unchanged {
        Some(before) => before.identities.clone(),
        None => folder.identities(&engine.store, cut.identities, before).await?,
    };
    let mut models = Vec::new();
    for slug in engine.project.models.keys() {
        let Some(version) = cut.records.get(slug) else { continue };
        let same = |before: &View| before.models.iter().find(|model| is_version(model, slug, *version)).cloned();
        if let Some(model) = before.and_then(same) {
            models.push(model);
        } else if let Some(shape) = engine.shape(slug, *version).await? {
            models.push(Arc::new(folder.model(&engine.store, shape, *version, before).await?));
        }
    }
    models.sort_by(|a, b| a.slug.cmp(&b.slug));
    Ok(View { identity_fields: identity_fields(engine), identities_version: cut.identities, identities, models })
}

fn is_version(model: &view::ServedModel, slug: &str, version: Version) -> bool {
    model.slug == slug && model.version == version
}
