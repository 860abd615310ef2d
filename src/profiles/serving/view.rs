//! Looking profiles up in the serving files of one cut.
//!
//! ```text
//! field, value -> hash -> identity row -> profile id -> all its identity rows -> per model: key hashes -> record row
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Map;
use xxhash_rust::xxh3::xxh3_64;

use super::build::{BY_KEY, BY_PROFILE};
use super::folder::Folder;
use super::rows::{self, IdentityRow, RecordRow, malformed};
use super::segment::Segment;
use crate::diff::row_hash::key_hash;
use crate::profiles::lookup::time;
use crate::profiles::{ModelShape, Profile, ProfilesError};
use crate::store::schema::split_hash;
use crate::store::{Cut, Store, Version};

/// Everything that lookups in one cut need.
#[derive(Debug)]
pub struct View {
    pub(super) identity_fields: Vec<String>,
    /// The table's version; none: it did not exist.
    pub(super) identities_version: Option<Version>,
    pub(super) identities: Vec<Arc<Segment>>,
    /// In slug order.
    pub(super) models: Vec<Arc<ServedModel>>,
}

/// A model's record store.
#[derive(Debug)]
pub struct ServedModel {
    pub slug: String,
    pub version: Version,
    pub external_key: String,
    /// The wide view's names of the attributes, in the order of the rows' values.
    pub attributes: Vec<String>,
    pub segments: Vec<Arc<Segment>>,
}

/// An identity of the profile that is looked up.
struct Identity {
    field: String,
    value: String,
    founder: bool,
    created_at: i64,
    key: (i64, i64),
}

impl View {
    /// The view of a cut, with serving files in that folder; those that are there are used, the others are written.
    pub async fn open(
        store: &Store,
        cut: &Cut,
        models: &[ModelShape],
        identity_fields: &[String],
        folder: &Path,
    ) -> Result<Self, ProfilesError> {
        let folder = Folder::open(folder.to_path_buf())?;
        let identities = folder.identities(store, cut.identities, None).await?;
        let mut served = Vec::with_capacity(models.len());
        for shape in models {
            let Some(version) = cut.records.get(&shape.slug) else { continue };
            served.push(Arc::new(folder.model(store, shape.clone(), *version, None).await?));
        }
        served.sort_by(|a, b| a.slug.cmp(&b.slug));
        let identity_fields = identity_fields.to_vec();
        Ok(Self { identity_fields, identities_version: cut.identities, identities, models: served })
    }

    /// The profile that owns the value, which must be normalized as its field says.
    pub fn by_identity(&self, field: &str, value: &str) -> Result<Option<Profile>, ProfilesError> {
        if !self.identity_fields.iter().any(|known| known == field) {
            return Err(ProfilesError::UnknownField { field: field.into(), known: self.identity_fields.clone() });
        }
        let (_, lo) = split_hash(key_hash(value));
        let mut buffer = Vec::with_capacity(256);
        let mut owner = None;
        for segment in &self.identities {
            find(segment, BY_KEY, lo as u64, &mut buffer, |row| {
                let row = IdentityRow::decode(row)?;
                if row.value == value && field_of(segment, &row)? == field {
                    owner = Some(row.profile_id.to_string());
                }
                Ok(())
            })?;
            if let Some(owner) = owner {
                return self.assemble(owner, buffer);
            }
        }
        Ok(None)
    }

    /// The profile with that id.
    pub fn by_id(&self, profile_id: &str) -> Result<Option<Profile>, ProfilesError> {
        self.assemble(profile_id.to_string(), Vec::with_capacity(256))
    }

    fn assemble(&self, profile_id: String, mut buffer: Vec<u8>) -> Result<Option<Profile>, ProfilesError> {
        let mut found: Vec<Identity> = Vec::with_capacity(4);
        let hash = xxh3_64(profile_id.as_bytes());
        for segment in &self.identities {
            find(segment, BY_PROFILE, hash, &mut buffer, |row| {
                let row = IdentityRow::decode(row)?;
                if row.profile_id == profile_id {
                    found.push(Identity {
                        field: field_of(segment, &row)?.to_string(),
                        value: row.value.to_string(),
                        founder: row.founder,
                        created_at: row.created_at,
                        key: row.key,
                    });
                }
                Ok(())
            })?;
        }
        let Some(founder) = found.iter().find(|identity| identity.founder) else { return Ok(None) };
        let created_at = time(founder.created_at);
        // newest first, as the wide view chooses
        found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.value.cmp(&b.value)));
        let (mut attributes, mut memberships) = (Map::new(), BTreeMap::new());
        for model in &self.models {
            let Some((since, row)) = model.best(&found, &mut buffer)? else { continue };
            memberships.insert(model.slug.clone(), time(since));
            for (name, value) in model.attributes.iter().zip(rows::values(&row)) {
                let value = value.and_then(|value| Ok(serde_json::from_slice(value)?));
                attributes.insert(name.clone(), value.map_err(|e| self.broken(&model.slug, e))?);
            }
        }
        let mut identities: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for identity in found.into_iter().filter(|identity| self.identity_fields.contains(&identity.field)) {
            identities.entry(identity.field).or_default().push(identity.value);
        }
        Ok(Some(Profile { profile_id, created_at, identities, attributes, memberships }))
    }

    fn broken(&self, slug: &str, source: io::Error) -> ProfilesError {
        ProfilesError::ServingFile { file: format!("records/{slug}"), source }
    }

    /// What the indexes take in memory, in bytes.
    pub fn memory(&self) -> u64 {
        self.segments().map(|segment| segment.memory()).sum()
    }

    /// The files that it reads.
    pub(super) fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.segments().map(|segment| segment.path().to_path_buf())
    }

    fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.identities.iter().chain(self.models.iter().flat_map(|model| &model.segments))
    }
}

impl ServedModel {
    /// Of the rows that these identities have in the model, that whose membership began first: when (microseconds), and
    /// the values.
    fn best(&self, identities: &[Identity], buffer: &mut Vec<u8>) -> Result<Option<(i64, Vec<u8>)>, ProfilesError> {
        let mut best: Option<((i64, i64, i64), Vec<u8>)> = None;
        for identity in identities.iter().filter(|identity| identity.field == self.external_key) {
            for segment in &self.segments {
                find(segment, BY_KEY, identity.key.1 as u64, buffer, |row| {
                    let row = RecordRow::decode(row)?;
                    let rank = (row.since.max(identity.created_at), row.key.0, row.key.1);
                    if row.key == identity.key && best.as_ref().is_none_or(|(other, _)| rank < *other) {
                        best = Some((rank, row.values().to_vec()));
                    }
                    Ok(())
                })?;
            }
        }
        Ok(best.map(|((since, ..), values)| (since, values)))
    }
}

fn find(
    segment: &Segment,
    index: usize,
    key: u64,
    buffer: &mut Vec<u8>,
    visit: impl FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), ProfilesError> {
    segment.find(index, key, buffer, visit).map_err(|source| {
        let file = segment.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        ProfilesError::ServingFile { file, source }
    })
}

fn field_of<'a>(segment: &'a Segment, row: &IdentityRow<'_>) -> io::Result<&'a str> {
    let name = segment.about().names.get(usize::from(row.field));
    name.map(String::as_str).ok_or_else(|| malformed("its field has no name"))
}
