//! Who exists: identity hashes to profile ids, by streaming the `identities` table past the hashes that are asked for.

use std::collections::HashMap;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt};
use parquet::arrow::arrow_reader::{RowSelection, RowSelector};
use uuid::Uuid;

use crate::diff::compare::BuildKeyHasher;
use crate::store::data_file::{ReadOptions, read_file};
use crate::store::schema::{KEY_HI, KEY_LO, join_hash, split_hash};
use crate::store::{DataFile, StagedFile, Store, StoreError, TableId, Version};

/// So many hashes are asked for at once, at most: what bounds the memory of an answer (about 40 bytes each).
pub const MAX_ASKED: usize = 1 << 20;

/// Hash of an identity value -> the profile that owns it.
pub type Owners = HashMap<u128, Uuid, BuildKeyHasher>;

/// The identities as of one version.
#[derive(Debug, Clone)]
pub struct Resolver {
    store: Store,
    files: Vec<DataFile>,
    threads: usize,
    pub version: Option<Version>,
}

impl Resolver {
    /// Opens the newest version.
    pub async fn open(store: &Store, threads: usize) -> Result<Self, StoreError> {
        let table = store.table(&TableId::Identities, None).await?;
        let (files, version) = match &table {
            Some(table) => (Store::files(&TableId::Identities, table)?, table.version()),
            None => (Vec::new(), None),
        };
        Ok(Self { store: store.clone(), files, threads, version })
    }

    /// The same, with identities that are about to be committed.
    pub fn with_staged(&self, staged: &[StagedFile]) -> Self {
        let mut more = self.clone();
        more.files.extend(staged.iter().map(DataFile::of_staged));
        more
    }

    /// The owners of these identity values of `field`; a value that nobody owns is not in the answer. Ask for at most
    /// [`MAX_ASKED`] at once.
    pub async fn owners(&self, field: &str, asked: impl IntoIterator<Item = u128>) -> Result<Owners, StoreError> {
        let asked: HashMap<u128, (), BuildKeyHasher> = asked.into_iter().map(|key| (key, ())).collect();
        let mut owners = Owners::default();
        let (Some(low), Some(high)) = (asked.keys().min(), asked.keys().max()) else { return Ok(owners) };
        let (low, high) = (split_hash(*low).0, split_hash(*high).0);
        let asked = std::sync::Arc::new(Asked::new(asked));
        let of_field = |file: &&DataFile| {
            file.partition.get("field").is_some_and(|f| f.as_deref() == Some(field)) && file.may_hold(low, high)
        };
        let wanted: Vec<DataFile> = self.files.iter().filter(of_field).cloned().collect();
        let mut found = futures::stream::iter(wanted)
            .map(|file| {
                let (store, asked) = (self.store.clone(), asked.clone());
                async move {
                    tokio::spawn(async move { owners_in_file(&store, &file, &asked).await })
                        .await
                        .map_err(|e| StoreError::Io(std::io::Error::other(e)))?
                }
            })
            .buffer_unordered(self.threads);
        while let Some(part) = found.try_next().await? {
            owners.extend(part);
        }
        Ok(owners)
    }
}

/// The hashes that are asked for. Most of the table's are not: a few bits for each of them, which stay in the caches,
/// spare nearly all searches.
struct Asked {
    bits: Vec<u64>,
    keys: HashMap<u128, (), BuildKeyHasher>,
}

impl Asked {
    fn new(keys: HashMap<u128, (), BuildKeyHasher>) -> Self {
        let mut bits = vec![0; (keys.len() / 4).next_power_of_two()];
        for key in keys.keys() {
            let (word, bit) = Self::place(*key, bits.len());
            bits[word] |= bit;
        }
        Self { bits, keys }
    }

    fn place(key: u128, words: usize) -> (usize, u64) {
        ((key as usize >> 6) & (words - 1), 1 << (key & 63))
    }

    fn contains(&self, key: u128) -> bool {
        let (word, bit) = Self::place(key, self.bits.len());
        self.bits[word] & bit != 0 && self.keys.contains_key(&key)
    }
}

/// Hashes first; the ids only of the rows that were asked for.
async fn owners_in_file(store: &Store, file: &DataFile, asked: &Asked) -> Result<Vec<(u128, Uuid)>, StoreError> {
    let columns = Some(vec![KEY_HI.to_string(), KEY_LO.to_string()]);
    let options = ReadOptions { columns, selection: None, batch_rows: Some(32_768) };
    let mut batches = read_file(store, &TableId::Identities, file, options).await?;
    let mut hits: Vec<(usize, u128)> = Vec::new();
    let mut row = 0;
    while let Some(batch) = batches.try_next().await? {
        let hi = batch.column(0).as_primitive::<Int64Type>().values();
        let lo = batch.column(1).as_primitive::<Int64Type>().values();
        for (hi, lo) in hi.iter().zip(lo.iter()) {
            let key = join_hash(*hi, *lo);
            if asked.contains(key) {
                hits.push((row, key));
            }
            row += 1;
        }
    }
    if hits.is_empty() {
        return Ok(Vec::new());
    }
    let mut selectors: Vec<RowSelector> = Vec::with_capacity(hits.len() * 2);
    let mut at = 0;
    for (hit, _) in &hits {
        if *hit > at {
            selectors.push(RowSelector::skip(hit - at));
        }
        selectors.push(RowSelector::select(1));
        at = hit + 1;
    }
    let selection = Some(RowSelection::from(selectors));
    let options = ReadOptions { columns: Some(vec!["profile_id".into()]), selection, batch_rows: Some(32_768) };
    let mut batches = read_file(store, &TableId::Identities, file, options).await?;
    let mut owners = Vec::with_capacity(hits.len());
    let mut keys = hits.iter().map(|(_, key)| *key);
    while let Some(batch) = batches.try_next().await? {
        let ids = batch.column(0).as_string::<i32>();
        for (id, key) in ids.iter().flatten().zip(keys.by_ref()) {
            let id = Uuid::parse_str(id)
                .map_err(|e| StoreError::Corrupt { table: TableId::Identities.folder(), message: e.to_string() })?;
            owners.push((key, id));
        }
    }
    Ok(owners)
}
