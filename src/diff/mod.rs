//! The comparison of a result with the record store, by key hash, in bounded memory.
//!
//! ```text
//!  result batch ─► key and row hash ─► partition of the key hash
//!                                        │
//!             resident (old hashes in memory)          not resident, or key not found
//!              ├ same row hash ─► unchanged                     │
//!              └ other row hash ─► spill, by old file           ▼
//!                                        │               spill, by partition
//!                                        ▼                      │ after the last batch, one partition
//!                                 rewrite of the old            ▼ after another, with its old hashes loaded
//!                                 files (sync::rewrite)   added, changed, duplicates
//! ```
//!
//! Old rows that no row of the result named are the removed ones. Invariants:
//! - every old row ends in exactly one [`state`], every result row in exactly one count;
//! - the result's order does not matter: a key that comes twice is quarantined, first occurrence included, because
//!   nothing of an added or changed row is written before the whole result was seen;
//! - memory: 1 byte an old row for its state, 36 bytes for each old row that is resident (32 when all are), and the spill's buffers.

pub mod compare;
pub mod index;
pub mod row_hash;
pub mod spill;

/// What became of an old row. Stored as one byte a row.
pub mod state {
    /// No row of the result has its key (yet): removed, in the end.
    pub const UNSEEN: u8 = 0;
    pub const UNCHANGED: u8 = 1;
    pub const CHANGED: u8 = 2;
    /// A row of that key cannot be carried: the old row stays.
    pub const BAD: u8 = 3;
    /// Several rows have that key: the old row stays.
    pub const DUPLICATE: u8 = 4;
}
