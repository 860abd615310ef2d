//! Tokens that were just checked, so that thousands of requests a second do not each ask the catalog.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use chrono::{DateTime, TimeDelta, Utc};

use crate::people::caller::Identity;
use crate::people::secret::Digest;

/// How long a check is good for: the longest that another process's revocation takes to be heeded.
pub const LIFETIME: TimeDelta = TimeDelta::seconds(5);
/// Only valid tokens get in, so this many are in use at once; more are checked each time.
const CAPACITY: usize = 10_000;

struct Entry {
    identity: Arc<Identity>,
    until: DateTime<Utc>,
}

/// When a check began. What was forgotten since must not come back by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked(u64);

#[derive(Default)]
pub struct Cache {
    /// By the digest of the token's text, which tells nobody anything about the token.
    entries: RwLock<HashMap<[u8; 32], Entry>>,
    /// Counts how often everything was forgotten.
    epoch: Mutex<u64>,
}

impl Cache {
    pub fn get(&self, digest: &Digest, now: DateTime<Utc>) -> Option<Arc<Identity>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(digest.bytes())?;
        // a clock that was set back must not lengthen a life
        (now < entry.until && entry.until - now <= LIFETIME).then(|| Arc::clone(&entry.identity))
    }

    /// Call before the catalog is asked.
    pub fn ask(&self) -> Asked {
        Asked(*self.epoch.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Keeps what the catalog said, unless a token was ended meanwhile.
    pub fn put(
        &self,
        asked: Asked,
        digest: Digest,
        identity: Arc<Identity>,
        expires_at: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) {
        let until = expires_at.map_or(now + LIFETIME, |at| at.min(now + LIFETIME));
        let epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if Asked(*epoch) != asked {
            return;
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= CAPACITY {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() < CAPACITY {
            entries.insert(*digest.bytes(), Entry { identity, until });
        }
    }

    /// Something ended: every token is checked anew.
    pub fn forget(&self) {
        let mut epoch = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        *epoch += 1;
        self.entries.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
