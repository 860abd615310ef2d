//! What the record stores hold, remembered: a version of a table never changes, and opening one takes milliseconds.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::server::answer::ApiError;
use crate::sync::{Engine, Published};

/// The last look at each record store.
#[derive(Debug, Default)]
pub struct RecordStores(Mutex<HashMap<String, Arc<Published>>>);

impl RecordStores {
    /// The model's record store as last published; none before that.
    pub async fn get(&self, engine: &Engine, slug: &str) -> Result<Option<Arc<Published>>, ApiError> {
        let Some(version) = engine.catalog.published_version(slug).await? else { return Ok(None) };
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(slug).cloned();
        if let Some(known) = known.filter(|known| known.version == version) {
            return Ok(Some(known));
        }
        let Some(published) = engine.published(slug, version).await?.map(Arc::new) else { return Ok(None) };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(slug.to_string(), Arc::clone(&published));
        Ok(Some(published))
    }
}
