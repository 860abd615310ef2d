//! The old rows: what became of each, and the hashes of those that are in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt};

use super::state;
use crate::store::data_file::{ReadOptions, read_file};
use crate::store::schema::{HASHES, join_hash};
use crate::store::{DataFile, Store, StoreError, TableId};

/// Memory that one resident row takes: key and row hash, row number (when not all rows are resident), slots.
pub const BYTES_PER_ROW: u64 = 36;
/// The same when all rows are resident.
pub const BYTES_PER_ROW_OF_ALL: u64 = 32;

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
    /// The highest key hash of the range: a larger one is not searched for.
    high: u128,
    entries: Vec<Entry>,
    /// The row number of each entry; none when it is the entry's position, which it is when every row is held.
    numbers: Option<Vec<u32>>,
    /// Open addressing, from where the key hash's low half says; [`EMPTY`] or a position in the other two.
    slots: Vec<AtomicU32>,
}

/// Key and row hash lie together: a key that is found is mostly compared at once.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    key_hi: u64,
    key_lo: u64,
    row: u64,
}

impl Entry {
    fn new(key: u128, row: u64) -> Self {
        Self { key_hi: (key >> 64) as u64, key_lo: key as u64, row }
    }

    fn key(&self) -> u128 {
        u128::from(self.key_hi) << 64 | u128::from(self.key_lo)
    }
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
        let mut index = Self { high, ..Self::default() };
        let whole = low == 0 && high == u128::MAX;
        if whole {
            index.entries.resize(old.len(), Entry::default());
        } else {
            // hashes are spread evenly; doubling the room while it fills would take twice the memory that was planned
            let share = ((high - low) >> 64) as f64 / u64::MAX as f64;
            let expected = (old.len() as f64 * share * 1.01) as usize + 1024;
            index.entries.reserve_exact(expected.min(old.len()));
            index.numbers = Some(Vec::with_capacity(expected.min(old.len())));
        }
        let mut parts = futures::stream::iter(wanted)
            .map(|file| {
                let (store, table, old) = (store.clone(), table.clone(), Arc::clone(old));
                async move {
                    let load = async move { load_file(&store, &table, &old, file, low, high).await };
                    let loaded = tokio::spawn(load).await.map_err(|e| StoreError::Io(std::io::Error::other(e)))?;
                    loaded.map(|(entries, numbers)| (file, entries, numbers))
                }
            })
            .buffer_unordered(threads);
        while let Some((file, entries, numbers)) = parts.try_next().await? {
            match &mut index.numbers {
                None => index.entries[old.rows_of(file)].copy_from_slice(&entries),
                Some(all) => {
                    index.entries.extend_from_slice(&entries);
                    all.extend_from_slice(&numbers);
                }
            }
        }
        drop(parts);
        let built = tokio::task::spawn_blocking(move || {
            index.build_slots(threads);
            index
        });
        built.await.map_err(|e| StoreError::Io(std::io::Error::other(e)))
    }

    fn build_slots(&mut self, threads: usize) {
        // half of them stay free, so that most searches end at the first
        let capacity = 2 * self.entries.len() + 16;
        self.slots = std::iter::repeat_with(|| AtomicU32::new(EMPTY)).take(capacity).collect();
        let (index, share) = (&*self, self.entries.len().div_ceil(threads).max(1 << 16));
        std::thread::scope(|scope| {
            for (part, entries) in index.entries.chunks(share).enumerate() {
                scope.spawn(move || index.insert(entries, (part * share) as u32));
            }
        });
    }

    /// Fills the slots of these entries, of which the first is at `position`. Several threads may do so at once.
    fn insert(&self, entries: &[Entry], position: u32) {
        for (position, entry) in (position..).zip(entries) {
            let mut slot = self.home(entry.key_lo);
            let take = |slot: usize| {
                self.slots[slot].compare_exchange(EMPTY, position, Ordering::Relaxed, Ordering::Relaxed).is_err()
            };
            while take(slot) {
                slot = self.after(slot);
            }
        }
    }

    /// Where the search for a key begins.
    fn home(&self, key_lo: u64) -> usize {
        ((u128::from(key_lo) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, slot: usize) -> usize {
        if slot + 1 < self.slots.len() { slot + 1 } else { 0 }
    }

    fn number(&self, position: u32) -> u32 {
        self.numbers.as_ref().map_or(position, |numbers| numbers[position as usize])
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The old row of that key: its row hash and its number.
    pub fn find(&self, key: u128) -> Option<(u64, u32)> {
        if self.slots.is_empty() || key > self.high {
            return None;
        }
        self.find_from(key, self.home(key as u64))
    }

    fn find_from(&self, key: u128, mut slot: usize) -> Option<(u64, u32)> {
        loop {
            let position = self.slots[slot].load(Ordering::Relaxed);
            if position == EMPTY {
                return None;
            }
            let entry = &self.entries[position as usize];
            if entry.key() == key {
                return Some((entry.row, self.number(position)));
            }
            slot = self.after(slot);
        }
    }

    /// [`HashIndex::find`] of many keys. Each step runs over all keys before the next one begins, so that the memory
    /// accesses, nearly all of which miss the caches, overlap.
    pub fn find_all(&self, keys: &[Option<u128>], found: &mut Vec<Option<(u64, u32)>>) {
        found.clear();
        if self.slots.is_empty() {
            found.resize(keys.len(), None);
            return;
        }
        let first = |key: &Option<u128>| match key {
            Some(key) if *key <= self.high => self.slots[self.home(*key as u64)].load(Ordering::Relaxed),
            _ => EMPTY,
        };
        let positions: Vec<u32> = keys.iter().map(first).collect();
        let none = Entry::default();
        let entries: Vec<Entry> =
            positions.iter().map(|position| self.entries.get(*position as usize).copied().unwrap_or(none)).collect();
        found.extend(keys.iter().zip(positions).zip(entries).map(|((key, position), entry)| {
            let key = (*key)?;
            if position == EMPTY {
                None
            } else if entry.key() == key {
                Some((entry.row, self.number(position)))
            } else {
                self.find_from(key, self.after(self.home(key as u64)))
            }
        }));
    }

    /// Key hash and row number of every row held.
    pub fn entries(&self) -> impl Iterator<Item = (u128, u32)> + '_ {
        (0..).zip(&self.entries).map(|(position, entry)| (entry.key(), self.number(position)))
    }
}

/// The hashes of a file's rows, and the rows' numbers unless they are all of the table.
async fn load_file(
    store: &Store,
    table: &TableId,
    old: &OldRows,
    file: usize,
    low: u128,
    high: u128,
) -> Result<(Vec<Entry>, Vec<u32>), StoreError> {
    let columns = HASHES.map(String::from).to_vec();
    let options = ReadOptions { columns: Some(columns), selection: None, batch_rows: Some(32_768) };
    let mut batches = read_file(store, table, &old.files[file], options).await?;
    let whole = low == 0 && high == u128::MAX;
    let mut entries = Vec::with_capacity(if whole { old.files[file].rows as usize } else { 0 });
    let mut numbers = Vec::new();
    let mut number = old.rows_of(file).start as u32;
    while let Some(batch) = batches.try_next().await? {
        if batch.num_columns() != HASHES.len() {
            let message = format!("`{}` lacks a hash column: it was written by another version", old.files[file].path);
            return Err(StoreError::Corrupt { table: table.folder(), message });
        }
        let column = |i: usize| batch.column(i).as_primitive::<Int64Type>().values().as_ref();
        let (key_hi, key_lo, row_hash): (&[i64], &[i64], &[i64]) = (column(0), column(1), column(2));
        for row in 0..batch.num_rows() {
            let key = join_hash(key_hi[row], key_lo[row]);
            if whole {
                entries.push(Entry::new(key, row_hash[row] as u64));
            } else if (low..=high).contains(&key) {
                entries.push(Entry::new(key, row_hash[row] as u64));
                numbers.push(number + row as u32);
            }
        }
        number += batch.num_rows() as u32;
    }
    if whole && entries.len() as u64 != old.files[file].rows {
        let message =
            format!("`{}` has {} rows, its log says {}", old.files[file].path, entries.len(), old.files[file].rows);
        return Err(StoreError::Corrupt { table: table.folder(), message });
    }
    Ok((entries, numbers))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn the_index_finds_what_a_map_finds(entries: std::collections::HashMap<u128, u64>, probes: Vec<u128>, part: bool) {
            let mut index = HashIndex { high: u128::MAX, ..HashIndex::default() };
            for (number, (key, row)) in entries.iter().enumerate() {
                index.entries.push(Entry::new(*key, *row));
                if part {
                    index.numbers.get_or_insert_default().push(number as u32 + 7);
                }
            }
            index.build_slots(2);
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
