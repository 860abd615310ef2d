//! In-memory indexes: from a hash to the positions of rows.
//!
//! Twelve bytes a row: the high half of the hash and the row's position, each in an array of its own, sorted by hash.
//! What an index finds is a candidate; the reader compares the row itself, so that two values whose 64-bit hashes
//! agree cost a second row and never a wrong answer.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::DataType;
use futures::TryStreamExt;
use parquet::arrow::ParquetRecordBatchStreamBuilder;
use xxhash_rust::xxh3::xxh3_64;

use super::rows::{long, mask};
use crate::profiles::ProfilesError;
use crate::profiles::files::TableFiles;
use crate::store::schema::KEY_HI;

/// What an index of records takes, a row.
pub const RECORD_ROW_BYTES: u64 = 12;
/// What the two indexes of identities take, a row.
pub const IDENTITY_ROW_BYTES: u64 = 28;

/// Hash -> row positions.
#[derive(Debug)]
pub struct HashIndex {
    hashes: Vec<u64>,
    rows: Vec<u32>,
}

impl HashIndex {
    fn build(mut entries: Vec<(u64, u32)>) -> Self {
        entries.sort_unstable();
        Self { hashes: entries.iter().map(|e| e.0).collect(), rows: entries.iter().map(|e| e.1).collect() }
    }

    /// The rows with that hash, ascending.
    pub fn find(&self, hash: u64) -> &[u32] {
        let from = self.hashes.partition_point(|other| *other < hash);
        self.run(from)
    }

    /// The rows of the run of equal hashes that begins here.
    fn run(&self, from: usize) -> &[u32] {
        let Some(hash) = self.hashes.get(from) else { return &[] };
        let length = self.hashes[from..].iter().take_while(|other| *other == hash).count();
        &self.rows[from..from + length]
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> u64 {
        (self.hashes.capacity() * 8 + self.rows.capacity() * 4) as u64
    }

    /// Of a table with key hashes.
    pub async fn of_keys(table: &TableFiles) -> Result<Self, ProfilesError> {
        let mut entries = Vec::with_capacity(table.rows as usize);
        each_batch(table, &[KEY_HI], |batch| {
            let hashes = long(batch, KEY_HI).map_err(|e| e.to_string())?;
            entries.extend(hashes.iter().zip(entries.len() as u32..).map(|(hash, row)| (key_entry(*hash), row)));
            Ok(())
        })
        .await?;
        Ok(Self::build(entries))
    }
}

/// The index's form of a split key hash.
pub fn key_entry(key_hi: i64) -> u64 {
    key_hi as u64
}

/// Finds identity rows by value and by profile.
#[derive(Debug)]
pub struct IdentityIndex {
    pub by_value: HashIndex,
    by_profile: HashIndex,
    /// Row -> where its profile's run begins in `by_profile`.
    runs: Vec<u32>,
}

impl IdentityIndex {
    pub async fn build(table: &TableFiles) -> Result<Self, ProfilesError> {
        let mut values = Vec::with_capacity(table.rows as usize);
        let mut profiles = Vec::with_capacity(table.rows as usize);
        each_batch(table, &["profile_id", KEY_HI], |batch| {
            let hashes = long(batch, KEY_HI).map_err(|e| e.to_string())?;
            values.extend(hashes.iter().zip(values.len() as u32..).map(|(hash, row)| (key_entry(*hash), row)));
            let ids = batch.column_by_name("profile_id").ok_or("no `profile_id`")?;
            let ids = arrow::compute::cast(ids, &DataType::Utf8).map_err(|e| e.to_string())?;
            let ids = ids.as_string::<i32>();
            for (row, next) in (0..ids.len()).zip(profiles.len() as u32..) {
                profiles.push((xxh3_64(ids.value(row).as_bytes()), next));
            }
            Ok(())
        })
        .await?;
        let by_value = HashIndex::build(values);
        let by_profile = HashIndex::build(profiles);
        let mut runs = vec![0; by_profile.rows.len()];
        let mut begin = 0;
        for at in 0..by_profile.rows.len() {
            if by_profile.hashes[at] != by_profile.hashes[begin] {
                begin = at;
            }
            runs[by_profile.rows[at] as usize] = begin as u32;
        }
        Ok(Self { by_value, by_profile, runs })
    }

    /// The rows of the profile with that id, ascending; others may be among them.
    pub fn of_profile(&self, profile_id: &str) -> &[u32] {
        self.by_profile.find(xxh3_64(profile_id.as_bytes()))
    }

    /// The rows of the profile that owns that row, ascending; others may be among them.
    pub fn siblings(&self, row: u32) -> &[u32] {
        self.runs.get(row as usize).map_or(&[], |begin| self.by_profile.run(*begin as usize))
    }

    /// Memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.by_value.bytes() + self.by_profile.bytes() + (self.runs.capacity() * 4) as u64
    }
}

/// Calls `visit` with every batch of the table, in the order of its rows.
async fn each_batch(
    table: &TableFiles,
    columns: &[&str],
    mut visit: impl FnMut(&RecordBatch) -> Result<(), String>,
) -> Result<(), ProfilesError> {
    for file in &table.files {
        let footer = table.footer(file).await?;
        let mut batches = ParquetRecordBatchStreamBuilder::new_with_metadata(table.reader(file), footer.clone())
            .with_projection(mask(footer, columns))
            .build()
            .map_err(|e| file.error(e))?;
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await.map_err(|e| file.error(e))? {
            rows += batch.num_rows() as u64;
            visit(&batch).map_err(|message| ProfilesError::Corrupt { table: table.id.clone(), message })?;
        }
        if rows != file.rows {
            let message = format!("{} has {rows} rows, its log entry says {}", file.known.path, file.rows);
            return Err(ProfilesError::Corrupt { table: table.id.clone(), message });
        }
    }
    Ok(())
}
