//! Replacing the key that seals.
//!
//! ```text
//! file: old            file: new, old            file: new, old            file: new
//! sealed with old  ─►  sealed with old       ─►  sealed with new       ─►  sealed with new
//!                 (1)  new key, on disk     (2)  one transaction      (3)  old keys dropped
//! ```
//!
//! Invariants: after each step, and after a crash in it, everything opens; a key is dropped only when the catalog has
//! just been seen to hold nothing that it sealed.

use std::collections::BTreeSet;
use std::path::Path;

use chrono::{DateTime, Utc};
use serde_json::json;

use super::{Custody, KeyError, Keyring, VaultError, open, seal};
use crate::catalog::{Catalog, CatalogError};
use crate::events::{Event, Subject, SubjectKind};

/// Why keys could not be replaced. What was sealed opens as before.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    #[error("the keys come from the environment (CLOUD_CONNECT_KEYS), where they cannot be replaced from here")]
    Environment,
    #[error("there is no key yet")]
    NoKey,
    #[error("{0}")]
    Key(#[from] KeyError),
    #[error("{0}")]
    Vault(#[from] VaultError),
    #[error("{0}")]
    Catalog(#[from] CatalogError),
    #[error("the lock of the keys cannot be had: {0}")]
    Lock(#[from] std::io::Error),
}

impl RotationError {
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Environment => Some(
                "`cloud-connect key generate` prints a new key: put it before the old one, separated by a comma, restart the \
                 service, run `cloud-connect key reseal`, and take the old one out"
                    .into(),
            ),
            Self::NoKey => Some(
                "a key is made with the first authorization; `cloud-connect key generate` prints one to keep elsewhere"
                    .into(),
            ),
            Self::Key(error) => Some(error.hint()),
            Self::Vault(error) => Some(error.hint().into()),
            Self::Catalog(_) | Self::Lock(_) => None,
        }
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resealed {
    /// The key that seals now.
    pub key: String,
    /// Authorizations that another key had sealed.
    pub authorizations: usize,
    /// Keys that were taken out of the file.
    pub dropped: Vec<String>,
}

/// Puts a new key first, seals everything with it, and drops the others.
pub async fn rotate(catalog: &Catalog, state: &Path, now: DateTime<Utc>) -> Result<Resealed, RotationError> {
    let file = Keyring::file(state).ok_or(RotationError::Environment)?;
    let _alone = Custody::take(state).await?;
    let present = Keyring::load(state, false)?;
    if present.is_empty() {
        return Err(RotationError::NoKey);
    }
    // a key that is lacking is told of before anything is changed
    for sealed in catalog.authorizations().await? {
        open(&present, &sealed)?;
    }
    let keyring = present.with_new_key()?;
    keyring.replace_file(&file)?;
    fail::fail_point!("key-added");
    let authorizations = reseal_with(catalog, &keyring, now).await?;
    fail::fail_point!("key-resealed");
    let used: BTreeSet<String> = catalog.authorizations().await?.into_iter().map(|one| one.key_id).collect();
    let kept = keyring.only(&used);
    kept.replace_file(&file)?;
    let dropped = keyring.ids().filter(|id| kept.key(id).is_none()).map(String::from).collect();
    Ok(Resealed { key: first(&keyring)?, authorizations, dropped })
}

/// Seals everything with the first key. The keys stay as they are.
pub async fn reseal(catalog: &Catalog, state: &Path, now: DateTime<Utc>) -> Result<Resealed, RotationError> {
    let _alone = Custody::take(state).await?;
    let keyring = Keyring::load(state, false)?;
    let key = first(&keyring)?;
    let authorizations = reseal_with(catalog, &keyring, now).await?;
    Ok(Resealed { key, authorizations, dropped: Vec::new() })
}

fn first(keyring: &Keyring) -> Result<String, RotationError> {
    keyring.first().map(|key| key.id().to_string()).ok_or(RotationError::NoKey)
}

async fn reseal_with(catalog: &Catalog, keyring: &Keyring, now: DateTime<Utc>) -> Result<usize, RotationError> {
    let key = first(keyring)?;
    let mut resealed = Vec::new();
    for mut one in catalog.authorizations().await? {
        if one.key_id != key {
            let values = open(keyring, &one)?;
            seal(keyring, &mut one, &values)?;
            resealed.push(one);
        }
    }
    if !resealed.is_empty() {
        let subject = Subject::new(SubjectKind::Project, "keys");
        let message = format!("{} authorizations were sealed with the key `{key}`", resealed.len());
        let ids: Vec<&str> = resealed.iter().map(|one| one.id.as_str()).collect();
        let event = Event::new(now, subject, "resealed", message).with(json!({ "key": key, "authorizations": ids }));
        catalog.reseal(&resealed, &event).await?;
    }
    Ok(resealed.len())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::collections::BTreeMap;

    use secrecy::{ExposeSecret, SecretString};

    use super::*;
    use crate::catalog::authorizations::SealedAuthorization;
    use crate::catalog::events::EventFilter;

    async fn project() -> (tempfile::TempDir, Catalog) {
        let dir = tempfile::tempdir().unwrap();
        let catalog = Catalog::open(&dir.path().join("catalog.db")).await.unwrap();
        let keyring = Keyring::load(dir.path(), true).unwrap();
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        for id in ["one", "two"] {
            let mut new = SealedAuthorization::new(id.into(), "postgres".into(), id.into(), "cli", now);
            let values = BTreeMap::from([("password".to_string(), SecretString::from(format!("secret of {id}")))]);
            seal(&keyring, &mut new, &values).unwrap();
            let event = Event::new(now, Subject::new(SubjectKind::Authorization, id), "created", "made");
            assert!(catalog.add_authorization(&new, &event).await.unwrap());
        }
        (dir, catalog)
    }

    async fn all_open(catalog: &Catalog, state: &Path) {
        let keyring = Keyring::load(state, false).unwrap();
        for sealed in catalog.authorizations().await.unwrap() {
            let values = open(&keyring, &sealed).unwrap();
            assert_eq!(values["password"].expose_secret(), format!("secret of {}", sealed.id));
        }
    }

    #[tokio::test]
    async fn a_rotation_leaves_one_new_key_that_opens_everything() {
        let (dir, catalog) = project().await;
        let before = first(&Keyring::load(dir.path(), false).unwrap()).unwrap();
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let done = rotate(&catalog, dir.path(), now).await.unwrap();
        assert_eq!((done.authorizations, &done.dropped), (2, &vec![before.clone()]));
        let after = Keyring::load(dir.path(), false).unwrap();
        assert_eq!(after.ids().collect::<Vec<_>>(), [done.key.as_str()]);
        all_open(&catalog, dir.path()).await;
        let events = catalog.events(&EventFilter { limit: 1, ..EventFilter::default() }).await.unwrap();
        assert_eq!((events[0].verb.as_str(), events[0].subject.kind), ("resealed", SubjectKind::Project));
    }

    #[tokio::test]
    async fn an_interrupted_rotation_opens_everything_and_is_finished_by_the_next() {
        let (dir, catalog) = project().await;
        let now = "2026-01-02T00:00:00Z".parse().unwrap();
        let file = Keyring::file(dir.path()).unwrap();
        // it died after the first step
        let both = Keyring::load(dir.path(), false).unwrap().with_new_key().unwrap();
        both.replace_file(&file).unwrap();
        all_open(&catalog, dir.path()).await;
        // and another one after the second
        assert_eq!(reseal(&catalog, dir.path(), now).await.unwrap().authorizations, 2);
        all_open(&catalog, dir.path()).await;
        assert_eq!(reseal(&catalog, dir.path(), now).await.unwrap().authorizations, 0);
        let done = rotate(&catalog, dir.path(), now).await.unwrap();
        assert_eq!(done.dropped.len(), 2);
        all_open(&catalog, dir.path()).await;
    }

    #[tokio::test]
    async fn a_lacking_key_stops_a_rotation_before_anything_changes() {
        let (dir, catalog) = project().await;
        let file = Keyring::file(dir.path()).unwrap();
        Keyring::generate().unwrap().replace_file(&file).unwrap();
        let before = std::fs::read(&file).unwrap();
        let error = rotate(&catalog, dir.path(), "2026-01-02T00:00:00Z".parse().unwrap()).await.unwrap_err();
        assert!(matches!(error, RotationError::Vault(VaultError::NoKey { .. })), "{error}");
        assert_eq!(std::fs::read(&file).unwrap(), before);
    }
}
