//! The old rows: what became of each, and the hashes of those that are in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt};

use super::state;
use crate::store::data_file::{ReadOptions, read_file};
use crate::store::schema::{KEY_HI, KEY_LO, ROW_HI, ROW_LO, join_hash};
use crate::store::{DataFile, Store, StoreError, TableId};

/// Memory that one resident row takes: key and row hash, row number, and its share of the slots.
pub const BYTES_PER_ROW: u64 = 43;

/// Every row of the record store, numbered through all files, and what became of it.
#[derive(Debug, Default)]
pub struct OldRows {
    pub files: Vec<DataFile>,
    /// The number of each file's first row.
    starts: Vec<u32>,
    states: Vec<AtomicU8>,
}

impl OldRows {
    pub fn new(files: Vec<DataFile>) -> Self {
        let mut starts = Vec::with_capacity(files.len());
        let mut rows: u64 = 0;
        for file in &files {
            starts.push(rows as u32);
            rows += file.rows;
        }
        let states = std::iter::repeat_with(|| AtomicU8::new(state::UNSEEN)).take(rows as usize).collect();
        Self { files, starts, states }
    }

    /// Rows in all.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// The file that holds a row.
    pub fn file_of(&self, row: u32) -> usize {
        self.starts.partition_point(|start| *start <= row) - 1
    }

    /// The numbers of a file's rows.
    pub fn rows_of(&self, file: usize) -> std::ops::Range<usize> {
        let start = self.starts[file] as usize;
        start..start + self.files[file].rows as usize
    }

    pub fn state(&self, row: usize) -> u8 {
        self.states[row].load(Ordering::Relaxed)
    }

    pub fn set_state(&self, row: usize, state: u8) {
        self.states[row].store(state, Ordering::Relaxed);
    }

    /// Notes that a row of the result has this old row's key. Returns the state before.
    pub fn meet(&self, row: u32, seen: u8) -> u8 {
        let cell = &self.states[row as usize];
        let mut before = cell.load(Ordering::Relaxed);
        loop {
            let after = match (before, seen) {
                (state::UNSEEN, seen) => seen,
                (_, state::BAD) => state::BAD,
                _ => state::DUPLICATE,
            };
            match cell.compare_exchange_weak(before, after, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return before,
                Err(now) => before = now,
            }
        }
    }

    /// How many rows are in each state.
    pub fn count(&self) -> [u64; 5] {
        let mut counts = [0; 5];
        for cell in &self.states {
            counts[cell.load(Ordering::Relaxed) as usize] += 1;
        }
        counts
    }
}

/// Key hash -> row hash and row number, for the rows whose key hash lies in a range.
#[derive(Debug, Default)]
pub struct HashIndex {
    entries: Vec<Entry>,
    numbers: Vec<u32>,
    /// Open addressing on the key hash's low bits; [`EMPTY`] or an index into the other two.
    slots: Vec<u32>,
}

/// Key and row hash lie together: a key that is found is mostly compared at once.
#[derive(Debug, Clone, Copy)]
struct Entry {
    key: u128,
    row: u128,
}

const EMPTY: u32 = u32::MAX;

impl HashIndex {
    /// Reads the hashes of every old row whose key hash is in `low..=high`. `threads` files are read at once.
    pub async fn load(
        store: &Store,
        table: &TableId,
        old: &Arc<OldRows>,
        low: u128,
        high: u128,
        threads: usize,
    ) -> Result<Self, StoreError> {
        let (low_hi, high_hi) = (crate::store::schema::split_hash(low).0, crate::store::schema::split_hash(high).0);
        let wanted: Vec<usize> =
            (0..old.files.len()).filter(|file| old.files[*file].may_hold(low_hi, high_hi)).collect();
        let expected: u64 = if low == 0 && high == u128::MAX { old.len() as u64 } else { 0 };
        let mut index = Self::default();
        index.entries.reserve_exact(expected as usize);
        index.numbers.reserve_exact(expected as usize);
        let mut parts = futures::stream::iter(wanted)
            .map(|file| {
                let (store, table, old) = (store.clone(), table.clone(), Arc::clone(old));
                async move {
                    tokio::spawn(async move { load_file(&store, &table, &old, file, low, high).await })
                        .await
                        .map_err(|e| StoreError::Io(std::io::Error::other(e)))?
                }
            })
            .buffer_unordered(threads);
        while let Some((entries, numbers)) = parts.try_next().await? {
            index.entries.extend_from_slice(&entries);
            index.numbers.extend_from_slice(&numbers);
        }
        drop(parts);
        index.build_slots();
        Ok(index)
    }

    fn build_slots(&mut self) {
        let capacity = (self.entries.len() + self.entries.len() / 2).next_power_of_two().max(16);
        self.slots = vec![EMPTY; capacity];
        let mask = capacity - 1;
        for (position, entry) in self.entries.iter().enumerate() {
            let mut slot = entry.key as usize & mask;
            while self.slots[slot] != EMPTY {
                slot = (slot + 1) & mask;
            }
            self.slots[slot] = position as u32;
        }
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The old row of that key: its row hash and its number.
    pub fn find(&self, key: u128) -> Option<(u128, u32)> {
        if self.slots.is_empty() {
            return None;
        }
        self.find_from(key, key as usize & (self.slots.len() - 1))
    }

    fn find_from(&self, key: u128, mut slot: usize) -> Option<(u128, u32)> {
        let mask = self.slots.len() - 1;
        loop {
            let position = self.slots[slot];
            if position == EMPTY {
                return None;
            }
            let entry = &self.entries[position as usize];
            if entry.key == key {
                return Some((entry.row, self.numbers[position as usize]));
            }
            slot = (slot + 1) & mask;
        }
    }

    /// [`HashIndex::find`] of many keys. Each step runs over all keys before the next one begins, so that the memory
    /// accesses, nearly all of which miss the caches, overlap.
    pub fn find_all(&self, keys: &[Option<u128>], found: &mut Vec<Option<(u128, u32)>>) {
        found.clear();
        if self.slots.is_empty() {
            found.resize(keys.len(), None);
            return;
        }
        let mask = self.slots.len() - 1;
        let positions: Vec<u32> =
            keys.iter().map(|key| key.map_or(EMPTY, |key| self.slots[key as usize & mask])).collect();
        let none = Entry { key: 0, row: 0 };
        let entries: Vec<Entry> =
            positions.iter().map(|position| self.entries.get(*position as usize).copied().unwrap_or(none)).collect();
        found.extend(keys.iter().zip(positions).zip(entries).map(|((key, position), entry)| {
            let key = (*key)?;
            if position == EMPTY {
                None
            } else if entry.key == key {
                Some((entry.row, self.numbers[position as usize]))
            } else {
                self.find_from(key, (key as usize + 1) & mask)
            }
        }));
    }

    /// Key hash and row number of every row held.
    pub fn entries(&self) -> impl Iterator<Item = (u128, u32)> + '_ {
        self.entries.iter().map(|entry| entry.key).zip(self.numbers.iter().copied())
    }
}

type Hashes = (Vec<Entry>, Vec<u32>);

async fn load_file(
    store: &Store,
    table: &TableId,
    old: &OldRows,
    file: usize,
    low: u128,
    high: u128,
) -> Result<Hashes, StoreError> {
    let columns = [KEY_HI, KEY_LO, ROW_HI, ROW_LO].map(String::from).to_vec();
    let options = ReadOptions { columns: Some(columns), selection: None, batch_rows: Some(32_768) };
    let mut batches = read_file(store, table, &old.files[file], options).await?;
    let rows = old.files[file].rows as usize;
    let mut entries = Vec::with_capacity(if low == 0 && high == u128::MAX { rows } else { 0 });
    let mut numbers = Vec::with_capacity(entries.capacity());
    let mut number = old.rows_of(file).start as u32;
    while let Some(batch) = batches.try_next().await? {
        let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().as_ref();
        let (key_hi, key_lo, row_hi, row_lo): (&[i64], &[i64], &[i64], &[i64]) =
            (column(0), column(1), column(2), column(3));
        for row in 0..batch.num_rows() {
            let key = join_hash(key_hi[row], key_lo[row]);
            if (low..=high).contains(&key) {
                entries.push(Entry { key, row: join_hash(row_hi[row], row_lo[row]) });
                numbers.push(number);
            }
            number += 1;
        }
    }
    Ok((entries, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_index_finds_what_a_map_finds(entries: std::collections::HashMap<u128, u128>, probes: Vec<u128>) {
            let mut index = HashIndex::default();
            for (number, (key, row)) in entries.iter().enumerate() {
                index.entries.push(Entry { key: *key, row: *row });
                index.numbers.push(number as u32);
            }
            index.build_slots();
            let asked: Vec<Option<u128>> = entries.keys().chain(&probes).copied().map(Some).chain([None]).collect();
            let mut all = Vec::new();
            index.find_all(&asked, &mut all);
            for (key, found) in asked.iter().zip(all) {
                let wanted = key.and_then(|key| entries.get(&key).copied());
                proptest::prop_assert_eq!(found.map(|found| found.0), wanted);
                proptest::prop_assert_eq!(key.and_then(|key| index.find(key)), found);
            }
        }
    }
}
