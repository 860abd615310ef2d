//! The folder of serving files: what is there is opened, what is missing is written, what is not needed is removed.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use chrono::{DateTime, TimeDelta, Utc};

use super::build::Source;
use super::segment::{About, EXTENSION, Segment};
use super::view::{ServedModel, View};
use crate::profiles::files::TableFiles;
use crate::profiles::tables::ModelTable;
use crate::profiles::{ModelShape, ProfilesError};
use crate::store::{Store, StoreError, TableId, Version};

/// An unfinished file as old as this is what a crash left.
const UNFINISHED: TimeDelta = TimeDelta::hours(1);

/// Where serving files are.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// What the files that were there are made of; read when it is first asked for.
    known: OnceLock<Vec<About>>,
}

impl Folder {
    /// Opens the folder, creating it where there is none.
    pub fn open(path: PathBuf) -> Result<Self, ProfilesError> {
        std::fs::create_dir_all(&path).map_err(StoreError::from)?;
        Ok(Self { path, known: OnceLock::new() })
    }

    /// The serving files of `identities` at that version.
    pub async fn identities(
        &self,
        store: &Store,
        version: Option<Version>,
        before: Option<&View>,
    ) -> Result<Vec<Arc<Segment>>, ProfilesError> {
        let Some(version) = version else { return Ok(Vec::new()) };
        let files = TableFiles::load(store, TableId::Identities, version, Some("field")).await?;
        let open = before.map(|view| view.identities.as_slice());
        self.segments(Source { files: Arc::new(files), attributes: None }, open).await
    }

    /// A model's record store at that version.
    pub async fn model(
        &self,
        store: &Store,
        shape: ModelShape,
        version: Version,
        before: Option<&View>,
    ) -> Result<ServedModel, ProfilesError> {
        let files = TableFiles::load(store, TableId::Records(shape.slug.clone()), version, None).await?;
        let table = ModelTable::new(shape, Some(files));
        let attributes = table.attributes.iter().map(|field| table.attribute_name(field.name())).collect();
        // a model that was not in the view before may have serving files all the same
        let open = before.and_then(|view| view.models.iter().find(|model| model.slug == table.slug));
        let open = open.map(|model| model.segments.as_slice());
        let segments = match table.records {
            Some(files) => self.segments(Source { files, attributes: Some(table.attributes) }, open).await?,
            None => Vec::new(),
        };
        Ok(ServedModel { slug: table.slug, version, external_key: table.external_key, attributes, segments })
    }

    /// The serving files of a table; `open`: those of the version before.
    async fn segments(
        &self,
        source: Source,
        open: Option<&[Arc<Segment>]>,
    ) -> Result<Vec<Arc<Segment>>, ProfilesError> {
        let source = Arc::new(source);
        let plan = match open {
            Some(open) => source.plan(open.iter().map(|segment| segment.about())),
            None => source.plan(self.known.get_or_init(|| self.read_known()).iter()),
        };
        let mut segments = Vec::with_capacity(plan.len());
        for (about, group) in plan {
            let is_open = open.unwrap_or_default().iter().find(|segment| *segment.about() == about);
            if let Some(segment) = is_open {
                segments.push(segment.clone());
                continue;
            }
            let path = self.path.join(about.file_name());
            if let Ok(segment) = Segment::open(&path)
                && *segment.about() == about
            {
                segments.push(Arc::new(segment));
                continue;
            }
            // one at a time, on a thread that may be kept busy: lookups and runs need the others
            let (source, folder, runtime) = (source.clone(), self.path.clone(), tokio::runtime::Handle::current());
            let build = move || runtime.block_on(source.build(&folder, about, &group));
            let built = tokio::task::spawn_blocking(build).await;
            let file = || path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let built = built.map_err(|e| ProfilesError::ServingFile { file: file(), source: io::Error::other(e) })?;
            segments.push(Arc::new(built?));
        }
        Ok(segments)
    }

    fn read_known(&self) -> Vec<About> {
        let files = self.files().into_iter();
        files.filter(|path| is_serving_file(path)).filter_map(|path| Segment::about_of(&path).ok()).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.path).into_iter().flatten();
        entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
    }

    /// Removes the serving files that are not among these, and what crashes left. Whoever has one open reads on.
    pub fn keep_only(&self, used: impl Iterator<Item = PathBuf>, now: DateTime<Utc>) {
        let used: HashSet<PathBuf> = used.collect();
        for path in self.files() {
            let unneeded = if is_serving_file(&path) {
                !used.contains(&path)
            } else {
                let written = path.metadata().and_then(|metadata| metadata.modified());
                written.is_ok_and(|written| now - DateTime::<Utc>::from(written) > UNFINISHED)
            };
            if unneeded && let Err(error) = std::fs::remove_file(&path) {
                tracing::debug!(%error, "a serving file that is not needed stays");
            }
        }
    }
}

fn is_serving_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == EXTENSION)
}
