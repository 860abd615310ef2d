//! What is directly under a local warehouse's path: one listing, from which tables are opened when a query names them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::utils::datafusion_strsim::levenshtein;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::DFParser;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore};

use super::errors;
use super::table::{self, Format, Inferred};
use crate::warehouse::{TableInfo, WarehouseError};

/// Tables opened at the same time to be listed.
const LISTED_AT_ONCE: usize = 8;

/// Inferred schemas by table, each good for exactly the files that it was inferred from.
#[derive(Debug, Default)]
pub(super) struct SchemaCache(Mutex<HashMap<String, Known>>);

/// A schema and the files that it is of.
type Known = (Vec<ObjectMeta>, Arc<Inferred>);

impl SchemaCache {
    pub(super) fn get(&self, table: &str, files: &[ObjectMeta]) -> Option<Arc<Inferred>> {
        let cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.get(table).filter(|(of, _)| of == files).map(|(_, inferred)| Arc::clone(inferred))
    }

    pub(super) fn put(&self, table: &str, files: &[ObjectMeta], inferred: Arc<Inferred>) {
        let mut cache = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cache.insert(table.to_owned(), (files.to_vec(), inferred));
    }
}

/// A thing under the path that may be a table.
#[derive(Debug, Clone)]
pub(super) enum Entry {
    File(ObjectMeta, Format),
    /// May turn out to hold no data at all.
    Folder(Path),
}

impl Entry {
    fn location(&self) -> &Path {
        match self {
            Self::File(meta, _) => &meta.location,
            Self::Folder(path) => path,
        }
    }
}

/// One listing of the path.
#[derive(Debug)]
pub(super) struct Catalog {
    store: Arc<dyn ObjectStore>,
    /// The path, for messages.
    shown: String,
    entries: BTreeMap<String, Vec<Entry>>,
    schemas: Arc<SchemaCache>,
}

impl Catalog {
    pub(super) async fn list(
        store: Arc<dyn ObjectStore>,
        shown: String,
        schemas: Arc<SchemaCache>,
    ) -> Result<Self, WarehouseError> {
        let listed = store.list_with_delimiter(None).await.map_err(|e| errors::from_object_store(&e))?;
        let mut entries: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for meta in listed.objects {
            let Some(name) = meta.location.filename().filter(|name| !table::is_hidden(name)) else { continue };
            if let Some((stem, format)) = Format::of(name) {
                entries.entry(stem.to_owned()).or_default().push(Entry::File(meta, format));
            }
        }
        for folder in listed.common_prefixes {
            if let Some(name) = folder.filename().filter(|name| !table::is_hidden(name)) {
                entries.entry(name.to_owned()).or_default().push(Entry::Folder(folder));
            }
        }
        Ok(Self { store, shown, entries, schemas })
    }

    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    pub(super) fn schemas(&self) -> &SchemaCache {
        &self.schemas
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The one thing of that name that holds data.
    async fn entry(&self, name: &str) -> Result<Option<(&Entry, Format)>, WarehouseError> {
        let mut found = Vec::new();
        for entry in self.entries.get(name).into_iter().flatten() {
            let format = match entry {
                Entry::File(_, format) => Some(*format),
                Entry::Folder(path) => table::folder_format(self.store.as_ref(), path).await?,
            };
            found.extend(format.map(|format| (entry, format)));
        }
        match found.as_slice() {
            [] => Ok(None),
            [only] => Ok(Some(*only)),
            several => {
                let places: Vec<&str> = several.iter().map(|(entry, _)| entry.location().as_ref()).collect();
                Err(WarehouseError::configuration(format!(
                    "table `{name}` could be any of {} in {}",
                    places.join(", "),
                    self.shown
                ))
                .with_hint("rename all but one, or put files of one format into one folder"))
            }
        }
    }

    /// Opens a table by its exact name.
    pub(super) async fn table(
        &self,
        session: &dyn Session,
        name: &str,
    ) -> Result<Option<Arc<dyn TableProvider>>, WarehouseError> {
        match self.entry(name).await? {
            Some((entry, format)) => table::open(self, session, name, entry, format).await.map(Some),
            None => Ok(None),
        }
    }

    /// Every table. One that cannot be opened is listed all the same, with the reason.
    pub(super) async fn tables(&self, session: &SessionState) -> Result<Vec<TableInfo>, WarehouseError> {
        let listed: Vec<BoxFuture<'_, _>> =
            self.entries.keys().map(|name| self.described(session, name).boxed()).collect();
        let listed: Vec<Option<TableInfo>> =
            futures::stream::iter(listed).buffered(LISTED_AT_ONCE).try_collect().await?;
        Ok(listed.into_iter().flatten().collect())
    }

    async fn described(&self, session: &SessionState, name: &str) -> Result<Option<TableInfo>, WarehouseError> {
        let (kind, counted) = match self.entry(name).await {
            Ok(Some((entry, format))) => (format.kind(), table::column_count(self, session, name, entry, format).await),
            Ok(None) => return Ok(None),
            Err(e) if e.is_retryable() => return Err(e),
            Err(e) => ("unknown", Err(e)),
        };
        let (columns, error) = match counted {
            Ok(columns) => (columns, None),
            Err(e) => (None, Some(e.message)),
        };
        Ok(Some(TableInfo { name: quoted(name), kind: kind.into(), columns, error }))
    }

    /// There is no such table: says which there are.
    pub(super) fn unknown(&self, name: &str) -> WarehouseError {
        let error = WarehouseError::sql(format!("there is no table `{name}` in {}", self.shown));
        let wanted = name.to_lowercase();
        let nearest = self.entries.keys().map(|known| (levenshtein(&wanted, &known.to_lowercase()), known)).min();
        match nearest {
            Some((distance, known)) if distance <= known.len().max(3) / 3 => {
                error.with_hint(format!("did you mean {}?", quoted(known)))
            }
            Some(_) => {
                let known: Vec<String> = self.entries.keys().take(20).map(|name| quoted(name)).collect();
                error.with_hint(format!("there are: {}", known.join(", ")))
            }
            None => no_tables(&self.shown),
        }
    }
}

pub(super) fn no_tables(shown: &str) -> WarehouseError {
    WarehouseError::configuration(format!("there are no tables in {shown}")).with_hint(
        "put files there that end in .parquet, .csv, .tsv, .ndjson, .jsonl or .json (the text ones may be .gz or \
         .zst), or folders of such files, or Delta tables",
    )
}

/// A table's name as a query has to write it. Bare where the parser reads it as that very name.
pub(super) fn quoted(name: &str) -> String {
    let simple = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let bare = simple && DFParser::parse_sql(&format!("SELECT * FROM {name} WHERE {name} = 1")).is_ok();
    if bare { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The catalog as DataFusion asks it: a table is opened when a statement names it.
#[derive(Debug)]
pub(super) struct LocalSchema {
    catalog: Arc<Catalog>,
    session: SessionState,
}

impl LocalSchema {
    pub(super) fn new(catalog: Arc<Catalog>, session: SessionState) -> Self {
        Self { catalog, session }
    }
}

#[async_trait]
impl SchemaProvider for LocalSchema {
    fn table_names(&self) -> Vec<String> {
        self.catalog.entries.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, datafusion::common::DataFusionError> {
        self.catalog.table(&self.session, name).await.map_err(errors::boxed)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.catalog.has(name)
    }
}
