//! The state: Delta Lake tables under the project's `store:` URL, which any Delta reader can open.
//!
//! | Table | Folder | One row is |
//! |---|---|---|
//! | [`TableId::Records`] | `records/<slug>` | a row of the model's last published result (its *record store*) |
//! | [`TableId::Identities`] | `identities` | an identity value and the profile that it belongs to; never changed, only added |
//! | [`TableId::Changes`] | `changes` | a change of one profile by one model in one run; never changed, only added |
//! | [`TableId::Stream`] | `streams/<stream>` | a row that was uploaded or collected, as it came; never changed, only added |
//!
//! Actors: a run *stages* data files (they exist, nobody sees them) and then *commits* them by one entry in a Delta
//! log. Invariants: a commit lands on exactly the version it was prepared for or not at all; data files live in a
//! folder named after the run, so that what a crash left behind can be found; no reader feature beyond Delta's first
//! protocol is used, since common readers refuse the later ones (`docs/adr/0001-record-stores-are-rewritten-by-file.md`).

pub mod data_file;
pub mod schema;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{
    Action, Add, LogicalFileView, Metadata, Protocol, Remove, StructType, Transaction, new_metadata,
};
use deltalake::logstore::{LogStoreFactory, StorageConfig, default_logstore, logstore_factories};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::{DeltaTable, DeltaTableBuilder, DeltaTableError};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, local::LocalFileSystem};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::StoreLocation;

/// The version of a table, as Delta counts them: from 0.
pub type Version = u64;

/// What can go wrong with the state.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("the store at {url} cannot be opened: {message}")]
    Open { url: String, message: String },
    #[error("delta table `{table}`: {source}")]
    Delta { table: String, source: Box<DeltaTableError> },
    #[error("another run changed `{table}` at the same time (expected version {expected})")]
    Conflict { table: String, expected: Version },
    #[error("store: {0}")]
    Object(#[from] object_store::Error),
    #[error("data file: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("data file: {0}")]
    Arrow(#[from] arrow::error::ArrowError),
    #[error("store: {0}")]
    Io(#[from] std::io::Error),
    #[error("`{table}` holds something this version does not understand: {message}")]
    Corrupt { table: String, message: String },
    #[error("version {published} of `{table}` was published, and the store {}", Self::has(.newest))]
    Behind { table: String, published: Version, newest: Option<Version> },
}

impl StoreError {
    fn has(newest: &Option<Version>) -> String {
        newest.map_or_else(|| "has nothing of it".into(), |newest| format!("has none after version {newest}"))
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Conflict { .. } => Some("nothing was changed: run it again"),
            Self::Behind { .. } => Some(
                "the store is older than `catalog.db`: put back a copy of it that was made after the catalog's. Without \
                 one, put an older catalog back, or none: the state is then taken from the store",
            ),
            _ => None,
        }
    }
}

/// One of the store's tables.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TableId {
    /// The record store of the model with this slug.
    Records(String),
    Identities,
    Changes,
    /// The rows of the stream with this name.
    Stream(String),
    /// Not a Delta table: a folder of files that list removals which wait for a person.
    Holds,
}

impl TableId {
    /// The table's folder below the store.
    pub fn folder(&self) -> String {
        match self {
            Self::Records(slug) => format!("records/{slug}"),
            Self::Identities => "identities".into(),
            Self::Changes => "changes".into(),
            Self::Stream(stream) => format!("{STREAMS}/{stream}"),
            Self::Holds => "holds".into(),
        }
    }

    /// The stream whose table has that folder.
    pub fn stream_of_folder(folder: &str) -> Option<&str> {
        folder.strip_prefix(STREAMS)?.strip_prefix('/')
    }
}

/// The folder of the streams' tables.
const STREAMS: &str = "streams";

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.folder())
    }
}

/// The opened `store:`.
#[derive(Debug, Clone)]
pub struct Store {
    /// Rooted where the URL's path starts from (file system root, bucket, container).
    root: Arc<dyn ObjectStore>,
    base: Url,
    prefix: Path,
    directory: Option<PathBuf>,
}

#[derive(Debug)]
struct PlainLogStore;

impl LogStoreFactory for PlainLogStore {
    fn with_options(
        &self,
        prefixed: Arc<dyn ObjectStore>,
        root: Arc<dyn ObjectStore>,
        location: &Url,
        options: &StorageConfig,
    ) -> deltalake::DeltaResult<Arc<dyn deltalake::logstore::LogStore>> {
        Ok(default_logstore(prefixed, root, location, options))
    }
}

impl Store {
    /// Opens the location. A directory is created; an object store takes its credentials from the environment, by
    /// the names that its own tools use (`AWS_…`, `GOOGLE_…`, `AZURE_…`).
    pub fn open(location: &StoreLocation) -> Result<Self, StoreError> {
        match location {
            StoreLocation::Directory(directory) => {
                std::fs::create_dir_all(directory)?;
                let directory = directory.canonicalize()?;
                let base = Url::from_directory_path(&directory).map_err(|()| StoreError::Open {
                    url: directory.display().to_string(),
                    message: "not an absolute path".into(),
                })?;
                let prefix = Path::from_absolute_path(&directory)
                    .map_err(|e| StoreError::Open { url: base.to_string(), message: e.to_string() })?;
                Ok(Self { root: Arc::new(LocalFileSystem::new()), base, prefix, directory: Some(directory) })
            }
            StoreLocation::ObjectStore(url) => {
                let open_error = |message: String| StoreError::Open { url: url.to_string(), message };
                let variables = std::env::vars()
                    .filter(|(name, _)| ["AWS_", "GOOGLE_", "AZURE_"].iter().any(|prefix| name.starts_with(prefix)));
                let options = variables.map(|(name, value)| (name.to_ascii_lowercase(), value));
                let (root, prefix) =
                    object_store::parse_url_opts(url, options).map_err(|e| open_error(e.to_string()))?;
                let scheme = Url::parse(&format!("{}://", url.scheme())).map_err(|e| open_error(e.to_string()))?;
                logstore_factories().entry(scheme).or_insert_with(|| Arc::new(PlainLogStore));
                let mut base = url.clone();
                if !base.path().ends_with('/') {
                    base.set_path(&format!("{}/", url.path()));
                }
                Ok(Self { root: Arc::from(root), base, prefix, directory: None })
            }
        }
    }

    /// The local directory, when the store is one.
    pub fn directory(&self) -> Option<&std::path::Path> {
        self.directory.as_deref()
    }

    /// Where the table is, for other Delta readers.
    pub fn table_url(&self, table: &TableId) -> Result<Url, StoreError> {
        self.base
            .join(&format!("{}/", table.folder()))
            .map_err(|e| StoreError::Open { url: self.base.to_string(), message: e.to_string() })
    }

    /// The object store that [`Store::path`] is relative to.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.root
    }

    /// The path of a file of the table (its name as in the Delta log).
    pub fn path(&self, table: &TableId, file: &str) -> Path {
        let mut path = self.prefix.clone();
        for part in table.folder().split('/').chain(file.split('/')) {
            path = path.join(part);
        }
        path
    }

    fn delta_error(table: &TableId, source: DeltaTableError) -> StoreError {
        StoreError::Delta { table: table.folder(), source: Box::new(source) }
    }

    fn builder(&self, table: &TableId) -> Result<DeltaTableBuilder, StoreError> {
        let url = self.table_url(table)?;
        let builder = DeltaTableBuilder::from_url(url.clone()).map_err(|e| Self::delta_error(table, e))?;
        Ok(builder.with_storage_backend(self.root.clone(), url))
    }

    /// The table as of its newest version, or as of `version`; none when it was never written.
    pub async fn table(&self, table: &TableId, version: Option<Version>) -> Result<Option<DeltaTable>, StoreError> {
        if !self.exists(table).await? {
            return Ok(None);
        }
        let builder = self.builder(table)?;
        let loaded = match version {
            Some(version) => builder.with_version(version).load().await,
            None => builder.load().await,
        };
        match (loaded, version) {
            (Ok(loaded), _) => Ok(Some(loaded)),
            (Err(e), Some(published)) => {
                let newest = self.builder(table)?.load().await.ok().and_then(|table| table.version());
                match newest.filter(|newest| *newest < published) {
                    Some(_) => Err(StoreError::Behind { table: table.folder(), published, newest }),
                    None => Err(Self::delta_error(table, e)),
                }
            }
            (Err(e), None) => Err(Self::delta_error(table, e)),
        }
    }

    /// What is committed onto an older store would be taken for what the catalog knows by that version.
    pub fn check_not_behind(
        id: &TableId,
        table: Option<&DeltaTable>,
        published: Option<Version>,
    ) -> Result<(), StoreError> {
        let newest = table.and_then(DeltaTable::version);
        match published.filter(|published| Some(*published) > newest) {
            Some(published) => Err(StoreError::Behind { table: id.folder(), published, newest }),
            None => Ok(()),
        }
    }

    async fn exists(&self, table: &TableId) -> Result<bool, StoreError> {
        use futures::StreamExt;
        // not the folder: a crash during the first commit leaves it behind, empty or with an upload that did not end
        let log = self.path(table, "_delta_log");
        Ok(self.root.list(Some(&log)).next().await.transpose()?.is_some())
    }

    /// The newest version, found without loading the table; `from` is a version known to exist.
    pub async fn newest_version(&self, table: &TableId, from: Option<Version>) -> Result<Option<Version>, StoreError> {
        match from {
            Some(mut version) => {
                // one existence check per later version: mostly exactly one
                while self.root.head(&self.log_entry(table, version + 1)).await.map(|_| true).or_else(not_found)? {
                    version += 1;
                }
                Ok(Some(version))
            }
            None => Ok(self.table(table, None).await?.and_then(|t| t.version())),
        }
    }

    /// The streams that have a folder, found by listing.
    pub async fn list_streams(&self) -> Result<Vec<String>, StoreError> {
        let found = self.root.list_with_delimiter(Some(&self.prefix.clone().join(STREAMS))).await?;
        Ok(found.common_prefixes.iter().filter_map(|folder| folder.filename().map(str::to_string)).collect())
    }

    fn log_entry(&self, table: &TableId, version: Version) -> Path {
        self.path(table, &format!("_delta_log/{version:020}.json"))
    }

    /// The actions of one commit; none when its log entry is gone or never was.
    pub async fn commit_actions(&self, table: &TableId, version: Version) -> Result<Option<Vec<Action>>, StoreError> {
        let bytes = match self.root.get(&self.log_entry(table, version)).await {
            Ok(found) => found.bytes().await?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let actions: Result<Vec<Action>, _> = lines.map(serde_json::from_slice).collect();
        actions.map(Some).map_err(|e| StoreError::Corrupt { table: table.folder(), message: e.to_string() })
    }

    /// The last application transaction that `app` left in the table.
    pub async fn transaction_version(
        &self,
        id: &TableId,
        table: &DeltaTable,
        app: &str,
    ) -> Result<Option<i64>, StoreError> {
        let state = table.snapshot().map_err(|e| Self::delta_error(id, e))?;
        state
            .transaction_version(table.log_store().as_ref(), app.to_string())
            .await
            .map_err(|e| Self::delta_error(id, e))
    }

    /// Commits `commit` on top of `base` (none: creates the table). Lands on exactly the next version, or is a
    /// [`StoreError::Conflict`]; returns that version.
    pub async fn commit(&self, id: &TableId, base: Option<&DeltaTable>, commit: Commit) -> Result<Version, StoreError> {
        let mut actions = Vec::new();
        let expected = base.and_then(DeltaTable::version).map_or(0, |v| v + 1);
        if base.is_none() {
            let protocol = serde_json::json!({ "minReaderVersion": 1, "minWriterVersion": 2 });
            let protocol: Protocol = serde_json::from_value(protocol)
                .map_err(|e| StoreError::Corrupt { table: id.folder(), message: e.to_string() })?;
            actions.push(Action::Protocol(protocol));
        }
        actions.extend(commit.metadata.map(Action::Metadata));
        actions.extend(commit.remove.into_iter().map(Action::Remove));
        actions.extend(commit.add.iter().map(|file| Action::Add(file.add_action())));
        let mut properties = CommitProperties::default()
            .with_max_retries(0)
            .with_create_checkpoint(true)
            .with_cleanup_expired_logs(Some(false))
            .with_metadata(commit.info);
        if let Some((app, version)) = commit.transaction {
            properties = properties.with_application_transaction(Transaction::new(app, version));
        }
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let log_store = match base {
            Some(table) => table.log_store(),
            None => self.builder(id)?.build_storage().map_err(|e| Self::delta_error(id, e))?,
        };
        let reference = match base {
            Some(table) => {
                let state = table.snapshot().map_err(|e| Self::delta_error(id, e))?;
                Some(state as &dyn deltalake::kernel::transaction::TableReference)
            }
            None => None,
        };
        let builder = CommitBuilder::from(properties).with_actions(actions);
        match builder.build(reference, log_store, operation).await {
            Ok(done) if done.version() == expected => Ok(expected),
            Ok(done) => Err(StoreError::Corrupt {
                table: id.folder(),
                message: format!("the commit landed on version {} instead of {expected}", done.version()),
            }),
            Err(DeltaTableError::Transaction { .. }) if self.newest_version(id, None).await? >= Some(expected) => {
                Err(StoreError::Conflict { table: id.folder(), expected })
            }
            Err(e) => Err(Self::delta_error(id, e)),
        }
    }

    /// Metadata for [`Commit::metadata`].
    pub fn metadata(
        id: &TableId,
        schema: &arrow::datatypes::Schema,
        partition_columns: &[&str],
        configuration: &[(&str, String)],
    ) -> Result<Metadata, StoreError> {
        use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
        let kernel: StructType = schema.try_into_kernel()?;
        let configuration = configuration.iter().map(|(k, v)| (k.to_string(), v.clone()));
        new_metadata(&kernel, partition_columns.iter().copied(), configuration)
            .map_err(|e| StoreError::Corrupt { table: id.folder(), message: e.to_string() })
    }

    /// The data files of a loaded table.
    pub fn files(id: &TableId, table: &DeltaTable) -> Result<Vec<DataFile>, StoreError> {
        let state = table.snapshot().map_err(|e| Self::delta_error(id, e))?;
        state.log_data().iter().map(|view| DataFile::new(id, &view)).collect()
    }

    /// Deletes what a run staged and did not commit: everything in the run's folder of that table.
    pub async fn discard_staged(&self, id: &TableId, run_id: &str) -> Result<u64, StoreError> {
        use futures::TryStreamExt;
        let folder = self.path(id, run_id);
        let found: Vec<_> = self.root.list(Some(&folder)).try_collect().await?;
        for object in &found {
            self.root.delete(&object.location).await?;
        }
        if let Some(directory) = &self.directory {
            // unfinished local uploads are not listed; the folder goes with them
            match std::fs::remove_dir_all(directory.join(id.folder()).join(run_id)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
                _ => {}
            }
        }
        Ok(found.len() as u64)
    }
}

fn not_found(error: object_store::Error) -> Result<bool, object_store::Error> {
    match error {
        object_store::Error::NotFound { .. } => Ok(false),
        other => Err(other),
    }
}

/// What one commit changes.
#[derive(Debug, Default)]
pub struct Commit {
    /// New metadata: when the table is created or its schema or configuration changes.
    pub metadata: Option<Metadata>,
    pub add: Vec<StagedFile>,
    pub remove: Vec<Remove>,
    /// Application id and its version: makes repeating the commit recognizable.
    pub transaction: Option<(String, i64)>,
    /// Kept in the commit's `commitInfo`.
    pub info: Vec<(String, serde_json::Value)>,
}

/// A data file that exists but that no commit names yet. Serialized into commits for tables that follow later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StagedFile {
    /// Relative to its table.
    pub path: String,
    pub size: u64,
    pub rows: u64,
    /// Smallest and largest `_cc_key_hi`, when the table has that column and the file has rows.
    pub hash_range: Option<(i64, i64)>,
    /// Partition column -> value.
    pub partition: Vec<(String, String)>,
    pub written_at: DateTime<Utc>,
}

impl StagedFile {
    fn add_action(&self) -> Add {
        let mut stats = serde_json::json!({ "numRecords": self.rows });
        if let Some((low, high)) = self.hash_range {
            stats["minValues"] = serde_json::json!({ schema::KEY_HI: low });
            stats["maxValues"] = serde_json::json!({ schema::KEY_HI: high });
            stats["nullCount"] = serde_json::json!({ schema::KEY_HI: 0 });
        }
        Add {
            path: self.path.clone(),
            partition_values: self.partition.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect(),
            size: self.size as i64,
            modification_time: self.written_at.timestamp_millis(),
            data_change: true,
            stats: Some(stats.to_string()),
            ..Default::default()
        }
    }
}

/// A committed data file.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// Relative to its table.
    pub path: String,
    pub size: u64,
    pub rows: u64,
    /// Smallest and largest `_cc_key_hi`, where known.
    pub hash_range: Option<(i64, i64)>,
    pub partition: HashMap<String, Option<String>>,
    /// The action that takes it out of the table.
    pub remove: Remove,
}

impl DataFile {
    fn new(id: &TableId, view: &LogicalFileView) -> Result<Self, StoreError> {
        let corrupt = |message: &str| StoreError::Corrupt { table: id.folder(), message: message.into() };
        let stats = view.stats().ok_or_else(|| corrupt("a data file without statistics"))?;
        let stats: serde_json::Value = serde_json::from_str(&stats).map_err(|e| corrupt(&e.to_string()))?;
        let rows = stats["numRecords"].as_u64().ok_or_else(|| corrupt("a data file without a row count"))?;
        let bound = |name: &str| stats[name][schema::KEY_HI].as_i64();
        let remove = view.remove_action(true);
        Ok(Self {
            path: view.path().into_owned(),
            size: view.size() as u64,
            rows,
            hash_range: bound("minValues").zip(bound("maxValues")),
            partition: remove.partition_values.clone().unwrap_or_default(),
            remove,
        })
    }

    /// A file that no commit names yet.
    pub fn of_staged(file: &StagedFile) -> Self {
        let partition = file.partition.iter().map(|(k, v)| (k.clone(), Some(v.clone()))).collect();
        Self {
            path: file.path.clone(),
            size: file.size,
            rows: file.rows,
            hash_range: file.hash_range,
            partition,
            remove: Remove { path: file.path.clone(), ..Remove::default() },
        }
    }

    /// May the file hold a key whose `_cc_key_hi` lies within these bounds (both included)?
    pub fn may_hold(&self, low: i64, high: i64) -> bool {
        self.hash_range.is_none_or(|(min, max)| min <= high && max >= low)
    }
}

/// A consistent cut through the store: the version of each table that was current at one moment. A table that is
/// missing did not exist then. Taken from the catalog, whose publication row is what makes a commit visible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cut {
    /// By slug.
    pub records: std::collections::BTreeMap<String, Version>,
    /// By stream.
    pub streams: std::collections::BTreeMap<String, Version>,
    pub identities: Option<Version>,
    pub changes: Option<Version>,
}
