//! Where a local warehouse's files are, and the store that reads them and nothing beside them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use url::Url;

use super::errors;
use super::read_only::ReadOnly;
use crate::warehouse::WarehouseError;

/// The variables that an object store's client is configured from.
const STORE_VARIABLES: [&str; 3] = ["AWS_", "GOOGLE_", "AZURE_"];

/// A directory or an object-store prefix. Shown without credentials.
#[derive(Debug, Clone)]
pub(super) enum Location {
    Directory(PathBuf),
    Store {
        /// Rooted at the prefix.
        store: Arc<dyn ObjectStore>,
        shown: String,
    },
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Store { shown, .. } => f.write_str(shown),
        }
    }
}

impl Location {
    /// Reads a `path`: relative to the project, absolute, or a URL. Pure but for the environment.
    pub(super) fn parse(path: &str, project_root: &Path) -> Result<Self, WarehouseError> {
        if !path.contains("://") {
            return Ok(Self::Directory(project_root.join(path)));
        }
        let fault = |what: &str| {
            WarehouseError::configuration(format!("`path` {what}"))
                .with_hint("give a directory, or a URL such as s3://bucket/folder, gs://… or abfss://…")
        };
        let url = Url::parse(path).map_err(|e| fault(&format!("is not a URL: {e}")))?;
        if url.scheme() == "file" {
            return url.to_file_path().map(Self::Directory).map_err(|()| fault("is not the URL of a local directory"));
        }
        if url.password().is_some() {
            return Err(WarehouseError::configuration("`path` holds a password")
                .with_hint("object stores take their credentials from the environment (AWS_*, GOOGLE_*, AZURE_*)"));
        }
        let variables =
            std::env::vars().filter(|(name, _)| STORE_VARIABLES.iter().any(|prefix| name.starts_with(prefix)));
        let (store, prefix) =
            object_store::parse_url_opts(&url, variables).map_err(|e| fault(&format!("cannot be used: {e}")))?;
        let mut shown = url;
        shown.set_query(None);
        let store = Arc::new(PrefixStore::new(store, prefix));
        Ok(Self::Store { store, shown: shown.to_string() })
    }

    /// The store, rooted at this location; nothing can be written to it.
    pub(super) async fn open(&self) -> Result<Arc<dyn ObjectStore>, WarehouseError> {
        let path = match self {
            Self::Store { store, .. } => return Ok(Arc::new(ReadOnly::new(Arc::clone(store), false))),
            Self::Directory(path) => path,
        };
        match tokio::fs::metadata(path).await {
            Ok(found) if found.is_dir() => {
                let store = LocalFileSystem::new_with_prefix(path).map_err(|e| errors::from_object_store(&e))?;
                Ok(Arc::new(ReadOnly::new(Arc::new(store), true)))
            }
            Ok(_) => Err(WarehouseError::configuration(format!("{} is a file, not a directory", path.display()))
                .with_hint("set `path` to the directory that holds it; the file is then a table")),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(WarehouseError::configuration(format!("there is no directory {}", path.display()))
                    .with_hint("check the connection's `path`; it is relative to the project's directory"))
            }
            Err(e) => Err(WarehouseError::configuration(format!("cannot open {}: {e}", path.display()))
                .with_hint("ensure that the directory can be read")),
        }
    }
}
