//! The comparison itself: batches in, states of old rows and spilled new rows out. See the module's diagram.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, UInt32Type};
use arrow::error::ArrowError;

use super::index::{HashIndex, OldRows};
use super::row_hash::RowHasher;
use super::spill::{Spill, SpillBuffer, SpillFolder};
use super::state;
use crate::store::schema::{HASHES, join_hash, split_hash};
use crate::values::convert::to_stored;
use crate::values::{ValueType, convert};

/// Parts that rows are spilled to when their key is not resident or not known: by the key hash's first bits.
pub const PARTITIONS: usize = 128;
const PARTITION_BITS: u32 = 7;
/// Parts of the changed rows' spill at most; several old files share one when there are more.
const MAX_CHANGED_PARTS: usize = 128;
/// Samples that a report keeps.
pub const MAX_SAMPLES: usize = 20;
/// The last column of a spilled batch: of a changed row its old row's number, of a pending one whether it is bad.
const MARK: &str = "_mark";
/// The hash columns and the mark, at the end of a spilled batch.
const MARKS: usize = HASHES.len() + 1;

/// Why rows were set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = QuarantineFault)]
pub enum Fault {
    NullKey,
    DuplicateKey,
    Unconvertible,
}

/// A quarantined row, for the report.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct QuarantineSample {
    pub fault: Fault,
    /// The row's key, when it has one.
    pub key: Option<String>,
    pub detail: String,
}

/// The rows that were set aside.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Quarantine {
    pub null_key: u64,
    pub duplicate_key: u64,
    pub unconvertible: u64,
    /// At most [`MAX_SAMPLES`].
    pub samples: Vec<QuarantineSample>,
}

impl Quarantine {
    pub fn total(&self) -> u64 {
        self.null_key + self.duplicate_key + self.unconvertible
    }

    fn note(&mut self, fault: Fault, rows: u64, key: Option<&str>, detail: &str) {
        match fault {
            Fault::NullKey => self.null_key += rows,
            Fault::DuplicateKey => self.duplicate_key += rows,
            Fault::Unconvertible => self.unconvertible += rows,
        }
        if self.samples.len() < MAX_SAMPLES {
            let key = key.map(convert::shorten);
            self.samples.push(QuarantineSample { fault, key, detail: detail.to_string() });
        }
    }
}

/// One batch of the result, ready to be compared.
#[derive(Debug)]
pub struct KeyedBatch {
    /// Key (normalized), activated fields, further identities.
    pub columns: Vec<ArrayRef>,
    /// None: the row has no key.
    pub keys: Vec<Option<u128>>,
    /// Rows that cannot be carried, and why.
    pub bad: Vec<(usize, String)>,
}

/// What all workers of one comparison share.
#[derive(Debug)]
pub struct Differ {
    pub old: Arc<OldRows>,
    /// The hashes of the old rows in the first `resident` partitions.
    index: HashIndex,
    resident: usize,
    /// Every old row that the result names counts as changed: row hashes are not comparable.
    rebaseline: bool,
    value_types: Vec<ValueType>,
    pending: Arc<Spill>,
    changed: Arc<Spill>,
    quarantine: Mutex<Quarantine>,
    rows: AtomicU64,
}

impl Differ {
    /// `result` has the stored columns of the result; `resident` partitions are those in `index`.
    pub fn new(
        old: Arc<OldRows>,
        index: HashIndex,
        resident: usize,
        rebaseline: bool,
        result: &Schema,
        folder: &SpillFolder,
    ) -> Self {
        let value_types = result.fields().iter().map(|f| ValueType::of(f).unwrap_or(ValueType::String)).collect();
        let mut fields: Vec<Arc<Field>> = result.fields().iter().cloned().collect();
        fields.extend(HASHES.map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
        fields.push(Arc::new(Field::new(MARK, DataType::UInt32, false)));
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let changed_parts = old.files.len().min(MAX_CHANGED_PARTS);
        Self {
            pending: Arc::new(Spill::new(folder, "pending", PARTITIONS, schema.clone())),
            changed: Arc::new(Spill::new(folder, "changed", changed_parts, schema)),
            old,
            index,
            resident,
            rebaseline,
            value_types,
            quarantine: Mutex::default(),
            rows: AtomicU64::new(0),
        }
    }

    /// The range of key hashes of a partition.
    pub fn partition_range(partition: usize) -> (u128, u128) {
        let low = (partition as u128) << (128 - PARTITION_BITS);
        (low, low | (u128::MAX >> PARTITION_BITS))
    }

    fn partition_of(key: u128) -> usize {
        (key >> (128 - PARTITION_BITS)) as usize
    }

    fn changed_part(&self, row: u32) -> usize {
        self.old.file_of(row) * self.changed.parts() / self.old.files.len()
    }

    /// Rows of the result so far.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    pub fn quarantine(&self) -> Quarantine {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, fault: Fault, rows: u64, key: Option<&str>, detail: &str) {
        self.quarantine.lock().unwrap_or_else(PoisonError::into_inner).note(fault, rows, key, detail);
    }

    /// A good or bad row met an old one (or an earlier new one) in the state `before`: count what that makes.
    fn note_meeting(&self, before: u8, bad: bool, key: impl FnOnce() -> String) {
        let duplicates = match (before, bad) {
            (state::UNSEEN, _) | (state::BAD | state::DUPLICATE, true) => 0,
            (state::UNCHANGED | state::CHANGED, false) => 2,
            _ => 1,
        };
        if duplicates > 0 {
            self.note(Fault::DuplicateKey, duplicates, Some(&key()), "the key comes more than once");
        }
    }

    /// Must this partition's old rows be loaded for [`Differ::finish_partition`]?
    pub fn needs_index(&self, partition: usize) -> bool {
        partition >= self.resident
    }

    /// Key hashes of the resident old rows that were changed or removed.
    pub fn touched_keys<'a>(&'a self, index: &'a HashIndex) -> impl Iterator<Item = u128> + 'a {
        let touched = |row: u32| matches!(self.old.state(row as usize), state::UNSEEN | state::CHANGED);
        index.entries().filter(move |(_, row)| touched(*row)).map(|(key, _)| key)
    }

    pub fn resident_index(&self) -> &HashIndex {
        &self.index
    }

    /// Frees the resident hashes: after the last partition was finished.
    pub fn drop_index(&mut self) {
        self.index = HashIndex::default();
    }

    /// After the last batch: decides about the rows that were set aside for this partition. `index` holds the old rows
    /// of the partition unless they are resident. Returns the added rows, in batches with the hash columns behind the
    /// result's.
    pub fn finish_partition(
        &self,
        partition: usize,
        index: Option<&HashIndex>,
        mut added: impl FnMut(RecordBatch) -> Result<(), ArrowError>,
    ) -> Result<(), ArrowError> {
        let columns = self.pending.schema().fields().len();
        // the key's own text is only for the report
        let key_and_hashes = std::iter::once(0).chain(columns - MARKS..columns).collect();
        let Some(reader) = self.pending.read(partition, Some(key_and_hashes))? else { return Ok(()) };
        // first sight of the whole partition, hashes only: which keys are new, and which come twice
        let mut fresh: HashMap<u128, u8, BuildKeyHasher> = HashMap::default();
        let mut any = false;
        for batch in reader {
            let batch = batch?;
            let spilled = Hashes::of(&batch);
            for row in 0..spilled.len() {
                let (key, bad) = (spilled.key(row), spilled.mark(row) != 0);
                let before = match index.and_then(|index| index.find(key)) {
                    Some((old_hash, number)) => {
                        let seen = self.seen(bad, old_hash, spilled.row(row));
                        any |= seen == state::CHANGED;
                        self.old.meet(number, seen)
                    }
                    None => {
                        let cell = fresh.entry(key).or_insert(state::UNSEEN);
                        let before = *cell;
                        *cell = match (before, bad) {
                            (_, true) => state::BAD,
                            (state::UNSEEN, false) => state::CHANGED,
                            _ => state::DUPLICATE,
                        };
                        any |= !bad;
                        before
                    }
                };
                self.note_meeting(before, bad, || cell_text(batch.column(0), row));
            }
        }
        if any {
            self.take_partition(partition, index, &fresh, &mut added)?;
        }
        self.pending.drop_part(partition);
        Ok(())
    }

    /// The second reading: now it is known which rows count.
    fn take_partition(
        &self,
        partition: usize,
        index: Option<&HashIndex>,
        fresh: &HashMap<u128, u8, BuildKeyHasher>,
        added: &mut impl FnMut(RecordBatch) -> Result<(), ArrowError>,
    ) -> Result<(), ArrowError> {
        let Some(reader) = self.pending.read(partition, None)? else { return Ok(()) };
        let mut buffer = SpillBuffer::new(self.changed.clone(), 4 << 20);
        for batch in reader {
            let batch = batch?;
            let spilled = Hashes::of(&batch);
            let mut new_rows: Vec<u32> = Vec::new();
            let mut changed_rows: Vec<(u32, u32)> = Vec::new();
            for row in (0..spilled.len()).filter(|row| spilled.mark(*row) == 0) {
                let key = spilled.key(row);
                match index.and_then(|index| index.find(key)) {
                    Some((old_hash, number))
                        if self.old.state(number as usize) == state::CHANGED
                            && self.seen(false, old_hash, spilled.row(row)) == state::CHANGED =>
                    {
                        changed_rows.push((number, row as u32));
                    }
                    None if fresh.get(&key) == Some(&state::CHANGED) => new_rows.push(row as u32),
                    _ => {}
                }
            }
            if !changed_rows.is_empty() {
                self.spill_changed(&batch, changed_rows, &mut buffer)?;
            }
            if !new_rows.is_empty() {
                let rows = UInt32Array::from(new_rows);
                let taken = arrow::compute::take_record_batch(&batch, &rows)?;
                let kept: Vec<usize> = (0..taken.num_columns() - 1).collect();
                added(taken.project(&kept)?)?;
            }
        }
        buffer.flush()
    }

    fn spill_changed(
        &self,
        batch: &RecordBatch,
        mut rows: Vec<(u32, u32)>,
        buffer: &mut SpillBuffer,
    ) -> Result<(), ArrowError> {
        rows.sort_unstable();
        let mut lengths = vec![0; self.changed.parts()];
        rows.iter().for_each(|(number, _)| lengths[self.changed_part(*number)] += 1);
        let indices = UInt32Array::from_iter_values(rows.iter().map(|(_, row)| *row));
        let numbers = UInt32Array::from_iter_values(rows.iter().map(|(number, _)| *number));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.num_columns());
        for column in &batch.columns()[..batch.num_columns() - 1] {
            columns.push(take(column, &indices, None)?);
        }
        columns.push(Arc::new(numbers));
        buffer.push(&RecordBatch::try_new(self.changed.schema().clone(), columns)?, &lengths)
    }

    fn seen(&self, bad: bool, old_hash: u64, new_hash: u64) -> u8 {
        match bad {
            true => state::BAD,
            false if !self.rebaseline && old_hash == new_hash => state::UNCHANGED,
            false => state::CHANGED,
        }
    }

    /// The changed rows of one old file, ordered as the file: their old rows' numbers, and the new rows (result columns
    /// and hash columns). A row whose key turned out to be a duplicate is not among them.
    pub fn changed_rows(&self, file: usize) -> Result<Option<(Vec<u32>, RecordBatch)>, ArrowError> {
        let part = file * self.changed.parts() / self.old.files.len();
        let Some(reader) = self.changed.read(part, None)? else { return Ok(None) };
        let range = self.old.rows_of(file);
        let mut kept = Vec::new();
        for batch in reader {
            let batch = batch?;
            let numbers = batch.column(batch.num_columns() - 1).as_primitive::<UInt32Type>();
            let wanted: arrow::array::BooleanArray = numbers
                .values()
                .iter()
                .map(|n| Some(range.contains(&(*n as usize)) && self.old.state(*n as usize) == state::CHANGED))
                .collect();
            if wanted.true_count() > 0 {
                kept.push(arrow::compute::filter_record_batch(&batch, &wanted)?);
            }
        }
        if kept.is_empty() {
            return Ok(None);
        }
        let all = arrow::compute::concat_batches(self.changed.schema(), &kept)?;
        drop(kept);
        let mark = all.num_columns() - 1;
        let order = arrow::compute::sort_to_indices(all.column(mark), None, None)?;
        let sorted = arrow::compute::take_record_batch(&all, &order)?;
        let numbers = sorted.column(mark).as_primitive::<UInt32Type>().values().to_vec();
        Ok(Some((numbers, sorted.project(&(0..mark).collect::<Vec<_>>())?)))
    }
}

/// One thread's part in the comparison.
#[derive(Debug)]
pub struct DiffWorker {
    shared: Arc<Differ>,
    hasher: RowHasher,
    pending: SpillBuffer,
    changed: SpillBuffer,
    found: Vec<Option<(u64, u32)>>,
}

impl DiffWorker {
    /// `buffer_bytes` bounds what this worker gathers before it spills.
    pub fn new(shared: Arc<Differ>, buffer_bytes: usize) -> Self {
        let pending = SpillBuffer::new(shared.pending.clone(), buffer_bytes / 2);
        let changed = SpillBuffer::new(shared.changed.clone(), buffer_bytes / 2);
        Self { shared, hasher: RowHasher::default(), pending, changed, found: Vec::new() }
    }

    /// Compares one batch.
    pub fn push(&mut self, batch: &KeyedBatch) -> Result<(), ArrowError> {
        let rows = batch.keys.len();
        let shared = Arc::clone(&self.shared);
        shared.rows.fetch_add(rows as u64, Ordering::Relaxed);
        let hashes = self.hasher.hash(&batch.columns[1..], rows);
        let mut pending: Vec<(u32, u32, u32)> = Vec::new();
        let mut changed: Vec<(u32, u32)> = Vec::new();
        let mut bad = batch.bad.iter().peekable();
        // a key of a partition that is not resident is never found, for its old row is not in the index
        shared.index.find_all(&batch.keys, &mut self.found);
        for (row, (key, hash)) in batch.keys.iter().zip(&hashes).enumerate() {
            let reason = bad.next_if(|(at, _)| *at == row).map(|(_, reason)| reason);
            let Some(key) = *key else {
                shared.note(Fault::NullKey, 1, None, "the primary key is null or empty");
                continue;
            };
            if let Some(reason) = reason {
                shared.note(Fault::Unconvertible, 1, Some(&key_text(batch, row)), reason);
            }
            match self.found[row] {
                Some((old_hash, number)) => {
                    let seen = shared.seen(reason.is_some(), old_hash, *hash);
                    let before = shared.old.meet(number, seen);
                    if before != state::UNSEEN {
                        shared.note_meeting(before, reason.is_some(), || key_text(batch, row));
                    } else if seen == state::CHANGED {
                        changed.push((number, row as u32));
                    }
                }
                None => pending.push((Differ::partition_of(key) as u32, row as u32, u32::from(reason.is_some()))),
            }
        }
        if !pending.is_empty() {
            pending.sort_unstable();
            let mut lengths = vec![0; PARTITIONS];
            pending.iter().for_each(|(partition, ..)| lengths[*partition as usize] += 1);
            let spilled = self.spilled(batch, &hashes, pending.iter().map(|(_, row, mark)| (*row, *mark)))?;
            self.pending.push(&spilled, &lengths)?;
        }
        if !changed.is_empty() {
            changed.sort_unstable();
            let mut lengths = vec![0; shared.changed.parts()];
            changed.iter().for_each(|(number, _)| lengths[shared.changed_part(*number)] += 1);
            let spilled = self.spilled(batch, &hashes, changed.iter().map(|(number, row)| (*row, *number)))?;
            self.changed.push(&spilled, &lengths)?;
        }
        Ok(())
    }

    /// The given rows with their marks, in stored layout, hashes behind.
    fn spilled(
        &self,
        batch: &KeyedBatch,
        hashes: &[u64],
        rows: impl ExactSizeIterator<Item = (u32, u32)> + Clone,
    ) -> Result<RecordBatch, ArrowError> {
        let indices = UInt32Array::from_iter_values(rows.clone().map(|(row, _)| row));
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(batch.columns.len() + MARKS);
        for (column, value_type) in batch.columns.iter().zip(&self.shared.value_types) {
            columns.push(to_stored(&take(column, &indices, None)?, *value_type)?);
        }
        let key = |row: u32| split_hash(batch.keys[row as usize].unwrap_or_default());
        let longs = |f: &dyn Fn(u32) -> i64| -> ArrayRef {
            Arc::new(Int64Array::from_iter_values(indices.values().iter().map(|row| f(*row))))
        };
        columns.push(longs(&|row| key(row).0));
        columns.push(longs(&|row| key(row).1));
        columns.push(longs(&|row| hashes[row as usize] as i64));
        columns.push(Arc::new(UInt32Array::from_iter_values(rows.map(|(_, mark)| mark))));
        RecordBatch::try_new(self.shared.pending.schema().clone(), columns)
    }

    /// Writes what is still buffered.
    pub fn finish(mut self) -> Result<(), ArrowError> {
        self.pending.flush()?;
        self.changed.flush()
    }
}

fn key_text(batch: &KeyedBatch, row: usize) -> String {
    cell_text(&batch.columns[0], row)
}

fn cell_text(column: &ArrayRef, row: usize) -> String {
    let options = arrow::util::display::FormatOptions::default();
    arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options)
        .map(|formatter| formatter.value(row).to_string())
        .unwrap_or_default()
}

/// The hash columns and the mark at the end of a spilled batch.
struct Hashes {
    columns: [Int64Array; HASHES.len()],
    marks: UInt32Array,
}

impl Hashes {
    fn of(batch: &RecordBatch) -> Self {
        let first = batch.num_columns() - MARKS;
        let column = |i: usize| batch.column(first + i).as_primitive::<Int64Type>().clone();
        let marks = batch.column(first + HASHES.len()).as_primitive::<UInt32Type>().clone();
        Self { columns: std::array::from_fn(column), marks }
    }

    fn len(&self) -> usize {
        self.marks.len()
    }

    fn key(&self, row: usize) -> u128 {
        join_hash(self.columns[0].value(row), self.columns[1].value(row))
    }

    fn row(&self, row: usize) -> u64 {
        self.columns[2].value(row) as u64
    }

    fn mark(&self, row: usize) -> u32 {
        self.marks.value(row)
    }
}

/// Keys are hashes already: their low half serves as it is.
#[derive(Debug, Default, Clone, Copy)]
pub struct KeyHasher(u64);

pub type BuildKeyHasher = std::hash::BuildHasherDefault<KeyHasher>;

impl std::hash::Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|b| self.0 = self.0.rotate_left(8) ^ u64::from(*b));
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = key as u64 ^ (key >> 64) as u64;
    }
}
