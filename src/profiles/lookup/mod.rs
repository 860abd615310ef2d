//! One profile by an identity value, or by its id, without planning a query.
//!
//! ```text
//! field, value -> hash -> identity row -> profile id -> all its identity rows -> per model: key hashes -> record row
//! ```
//!
//! Rows are found either through in-memory indexes (for a service: one read of a page a column and row) or, for a
//! single look from the command line, by statistics and a scan of the key columns of what these leave.

mod index;
mod rows;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use chrono::{DateTime, Utc};
use futures::FutureExt;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use super::ProfilesError;
use super::tables::{ModelTable, Tables, value_type};
use crate::diff::row_hash::key_hash;
use crate::store::TableId;
use crate::store::schema::{KEY_HI, KEY_LO, SINCE, split_hash};
use crate::values::json::{cell_to_json, timestamp};
use index::{HashIndex, IDENTITY_ROW_BYTES, IdentityIndex, RECORD_ROW_BYTES, key_entry};
use rows::{Found, long};

/// How profiles are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupOptions {
    /// Build indexes at the first lookup and keep them: for many lookups. They take 28 bytes for each identity value
    /// and 12 for each row of a record store.
    pub index: bool,
    /// The most that the indexes may take, in bytes; when they would take more, lookups go without.
    pub max_index_bytes: u64,
}

impl Default for LookupOptions {
    /// No index.
    fn default() -> Self {
        Self { index: false, max_index_bytes: 512 << 20 }
    }
}

/// Everything known of one profile. Serializes as `profile --output json` prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Profile {
    pub profile_id: String,
    #[serde(serialize_with = "rfc3339")]
    pub created_at: DateTime<Utc>,
    /// Identity field -> its values, newest first. One value serializes as a string, several as a list.
    #[serde(serialize_with = "identities")]
    pub identities: BTreeMap<String, Vec<String>>,
    /// `cc_<slug>_<column>` of each model that the profile is in, in the wide view's order; nulls included.
    pub attributes: Map<String, Value>,
    /// Slug -> when the membership began.
    #[serde(serialize_with = "memberships")]
    pub memberships: BTreeMap<String, DateTime<Utc>>,
}

fn rfc3339<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&timestamp(*time))
}

fn identities<S: Serializer>(fields: &BTreeMap<String, Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(fields.iter().map(|(field, values)| match values.as_slice() {
        [value] => (field, Value::from(value.as_str())),
        values => (field, Value::from(values)),
    }))
}

fn memberships<S: Serializer>(models: &BTreeMap<String, DateTime<Utc>>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(models.iter().map(|(slug, since)| (slug, timestamp(*since))))
}

/// Looks profiles up in the tables of one cut.
#[derive(Debug)]
pub(super) struct Lookup {
    tables: Arc<Tables>,
    options: LookupOptions,
    indexes: OnceCell<Option<Indexes>>,
}

#[derive(Debug)]
struct Indexes {
    identities: IdentityIndex,
    /// In the order of the models; none for a model that was never published.
    records: Vec<Option<HashIndex>>,
}

/// A row of `identities`.
#[derive(Debug)]
struct Identity {
    field: String,
    profile_id: String,
    value: String,
    founder: bool,
    /// Microseconds.
    created_at: i64,
    key: (i64, i64),
}

const IDENTITY_COLUMNS: [&str; 6] = ["profile_id", "value", "founder", "created_at", KEY_HI, KEY_LO];

impl Lookup {
    pub fn new(tables: Arc<Tables>, options: LookupOptions) -> Self {
        Self { tables, options, indexes: OnceCell::new() }
    }

    /// The profile that owns the value, which must be normalized as its field says.
    pub async fn by_identity(&self, field: &str, value: &str) -> Result<Option<Profile>, ProfilesError> {
        self.known_field(field)?;
        let key = split_hash(key_hash(value));
        if let Some(indexes) = self.indexes().await? {
            // hashes that agree without their values agreeing are all but impossible, so the first row mostly ends this
            for row in indexes.identities.by_value.find(key_entry(key.0)) {
                let found = self.identities_at(indexes.identities.siblings(*row)).await?;
                let owner = found.iter().find(|identity| identity.field == field && identity.value == value);
                if let Some(owner) = owner.map(|identity| identity.profile_id.clone()) {
                    return self.assemble(owner, found).await;
                }
            }
            return Ok(None);
        }
        match self.owner(field, value).await? {
            Some(owner) => self.by_id(&owner).await,
            None => Ok(None),
        }
    }

    /// The profile with that id.
    pub async fn by_id(&self, profile_id: &str) -> Result<Option<Profile>, ProfilesError> {
        let found = match self.indexes().await? {
            Some(indexes) => self.identities_at(indexes.identities.of_profile(profile_id)).await?,
            None => {
                let table = &self.tables.identities;
                self.identities(rows::by_text(table, "profile_id", profile_id, &IDENTITY_COLUMNS).await?)?
            }
        };
        self.assemble(profile_id.to_string(), found).await
    }

    /// The id of the profile that owns the value, found without an index.
    pub async fn owner(&self, field: &str, value: &str) -> Result<Option<String>, ProfilesError> {
        self.known_field(field)?;
        let table = &self.tables.identities;
        let key = split_hash(key_hash(value));
        let found = self.identities(rows::by_key(table, Some(field), &[key], &IDENTITY_COLUMNS).await?)?;
        Ok(found.into_iter().find(|identity| identity.value == value).map(|identity| identity.profile_id))
    }

    /// Builds the indexes now, if they are wanted; their memory in bytes.
    pub async fn warm(&self) -> Result<u64, ProfilesError> {
        let Some(indexes) = self.indexes().await? else { return Ok(0) };
        let records = indexes.records.iter().flatten().map(HashIndex::bytes).sum::<u64>();
        Ok(indexes.identities.bytes() + records)
    }

    fn known_field(&self, field: &str) -> Result<(), ProfilesError> {
        if self.tables.identity_fields.iter().any(|known| known == field) {
            return Ok(());
        }
        Err(ProfilesError::UnknownField { field: field.into(), known: self.tables.identity_fields.clone() })
    }

    async fn indexes(&self) -> Result<Option<&Indexes>, ProfilesError> {
        if !self.options.index {
            return Ok(None);
        }
        self.indexes.get_or_try_init(|| Box::pin(self.build_indexes())).await.map(Option::as_ref)
    }

    async fn build_indexes(&self) -> Result<Option<Indexes>, ProfilesError> {
        let tables = &self.tables;
        let records = || tables.models.iter().flat_map(|model| &model.records);
        let bytes = tables.identities.rows * IDENTITY_ROW_BYTES
            + records().map(|table| table.rows * RECORD_ROW_BYTES).sum::<u64>();
        let countable = |rows: u64| rows <= u64::from(u32::MAX);
        if bytes > self.options.max_index_bytes
            || !countable(tables.identities.rows)
            || !records().all(|table| countable(table.rows))
        {
            tracing::warn!(bytes, limit = self.options.max_index_bytes, "lookups go without indexes: too large");
            return Ok(None);
        }
        let mut of_models = Vec::with_capacity(tables.models.len());
        for model in &tables.models {
            of_models.push(match &model.records {
                Some(table) => Some(HashIndex::of_keys(table).await?),
                None => None,
            });
        }
        Ok(Some(Indexes { identities: IdentityIndex::build(&tables.identities).await?, records: of_models }))
    }

    async fn identities_at(&self, positions: &[u32]) -> Result<Vec<Identity>, ProfilesError> {
        self.identities(rows::at(&self.tables.identities, positions, &IDENTITY_COLUMNS).await?)
    }

    fn identities(&self, found: Vec<Found>) -> Result<Vec<Identity>, ProfilesError> {
        let table = &self.tables.identities;
        let corrupt = |message: String| ProfilesError::Corrupt { table: TableId::Identities, message };
        let mut all = Vec::new();
        for Found { file, batch } in found {
            let field = table.partition_value(&file).ok_or_else(|| corrupt("a file without its `field`".into()))?;
            let (hi, lo) = (hashes(&batch, KEY_HI, table)?, hashes(&batch, KEY_LO, table)?);
            let founder = batch.column_by_name("founder").and_then(|column| column.as_boolean_opt());
            let founder = founder.ok_or_else(|| corrupt("no `founder`".into()))?;
            for row in 0..batch.num_rows() {
                all.push(Identity {
                    field: field.to_string(),
                    profile_id: text(&batch, "profile_id", row).map_err(corrupt)?,
                    value: text(&batch, "value", row).map_err(corrupt)?,
                    founder: founder.value(row),
                    created_at: micros(&batch, "created_at", row).map_err(corrupt)?,
                    key: (hi[row], lo[row]),
                });
            }
        }
        Ok(all)
    }

    /// The profile with that id, whose identities are all among those found.
    async fn assemble(&self, profile_id: String, mut found: Vec<Identity>) -> Result<Option<Profile>, ProfilesError> {
        found.retain(|identity| identity.profile_id == profile_id);
        let Some(founder) = found.iter().find(|identity| identity.founder) else { return Ok(None) };
        let created_at = time(founder.created_at);
        // newest first, as the wide view chooses
        found.sort_by(|a, b| b.created_at.cmp(&a.created_at).then_with(|| a.value.cmp(&b.value)));
        let read: Vec<_> = (0..self.tables.models.len()).map(|model| self.membership(model, &found).boxed()).collect();
        let read = futures::future::try_join_all(read).await?;
        let mut profile = Profile {
            profile_id,
            created_at,
            identities: BTreeMap::new(),
            attributes: Map::new(),
            memberships: BTreeMap::new(),
        };
        for (model, membership) in self.tables.models.iter().zip(read) {
            let Some((since, attributes)) = membership else { continue };
            profile.memberships.insert(model.slug.clone(), time(since));
            profile.attributes.extend(attributes);
        }
        for identity in found.into_iter().filter(|identity| self.tables.identity_fields.contains(&identity.field)) {
            profile.identities.entry(identity.field).or_default().push(identity.value);
        }
        Ok(Some(profile))
    }

    /// The profile's membership in the model: since when (microseconds), and its attributes.
    async fn membership(
        &self,
        number: usize,
        identities: &[Identity],
    ) -> Result<Option<(i64, Vec<(String, Value)>)>, ProfilesError> {
        let model = &self.tables.models[number];
        let Some(table) = &model.records else { return Ok(None) };
        let owned: Vec<&Identity> = identities.iter().filter(|identity| identity.field == model.external_key).collect();
        if owned.is_empty() {
            return Ok(None);
        }
        let mut columns = vec![SINCE, KEY_HI, KEY_LO];
        columns.extend(model.attributes.iter().map(|field| field.name().as_str()));
        let indexes = self.indexes().await?.and_then(|indexes| indexes.records[number].as_ref());
        let found = match indexes {
            Some(index) => {
                let mut positions: Vec<u32> =
                    owned.iter().flat_map(|identity| index.find(key_entry(identity.key.0))).copied().collect();
                positions.sort_unstable();
                positions.dedup();
                rows::at(table, &positions, &columns).await?
            }
            None => {
                let keys: Vec<_> = owned.iter().map(|identity| identity.key).collect();
                rows::by_key(table, None, &keys, &columns).await?
            }
        };
        let mut best: Option<((i64, i64, i64), &RecordBatch, usize)> = None;
        for Found { batch, .. } in &found {
            let (hi, lo) = (hashes(batch, KEY_HI, table)?, hashes(batch, KEY_LO, table)?);
            for row in 0..batch.num_rows() {
                let Some(identity) = owned.iter().find(|identity| identity.key == (hi[row], lo[row])) else { continue };
                let entered = micros(batch, SINCE, row)
                    .map_err(|message| ProfilesError::Corrupt { table: table.id.clone(), message })?;
                let rank = (entered.max(identity.created_at), hi[row], lo[row]);
                if best.is_none_or(|(other, ..)| rank < other) {
                    best = Some((rank, batch, row));
                }
            }
        }
        Ok(best.map(|((since, ..), batch, row)| (since, attributes(model, batch, row))))
    }
}

fn attributes(model: &ModelTable, batch: &RecordBatch, row: usize) -> Vec<(String, Value)> {
    let attribute = |field: &arrow::datatypes::FieldRef| {
        // a file from before the column was activated lacks it
        let value = batch.column_by_name(field.name());
        let value = value.map_or(Value::Null, |column| cell_to_json(column.as_ref(), row, value_type(field)));
        (model.attribute_name(field.name()), value)
    };
    model.attributes.iter().map(attribute).collect()
}

fn hashes<'a>(
    batch: &'a RecordBatch,
    name: &str,
    table: &super::files::TableFiles,
) -> Result<&'a [i64], ProfilesError> {
    long(batch, name).map_err(|e| ProfilesError::Corrupt { table: table.id.clone(), message: e.to_string() })
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> Result<String, String> {
    let column = batch.column_by_name(name).ok_or_else(|| format!("no `{name}`"))?;
    match cell_to_json(column.as_ref(), row, crate::values::ValueType::String) {
        Value::String(text) => Ok(text),
        _ => Err(format!("`{name}` is no string")),
    }
}

fn micros(batch: &RecordBatch, name: &str, row: usize) -> Result<i64, String> {
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    match column {
        Some(values) if values.is_valid(row) => Ok(values.value(row)),
        _ => Err(format!("no timestamp in `{name}`")),
    }
}

pub(super) fn time(micros: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(micros).unwrap_or(DateTime::<Utc>::MAX_UTC)
}
