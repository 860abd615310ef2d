//! The columns of the store's tables.
//!
//! Record store `records/<slug>`:
//!
//! | Column | Type | |
//! |---|---|---|
//! | the model's primary key | string, int, decimal or date | normalized as its identity field says |
//! | each activated field, in order | its value type | |
//! | each further identity field | string | as the query returned it |
//! | `_cc_since` | timestamp | when the row entered the model: the membership's beginning |
//! | `_cc_key_hi`, `_cc_key_lo` | long | xxh3-128 of the key's normalized text, see [`split_hash`] |
//! | `_cc_row_hash` | long | xxh3-64 of the row's canonical encoding (`diff::row_hash`) |
//!
//! `identities`: `profile_id` string, `value` string (normalized), `founder` bool (the identity that created the
//! profile: exactly one each), `run_id` string, `created_at` timestamp, `_cc_key_hi`, `_cc_key_lo` (of `value`);
//! partitioned by `field` string.
//!
//! `changes`: `run_id` string, `at` timestamp, `change` string (`entered`, `exited`, `changed`), `profile_id` string,
//! `identity` string (the external key's value), `before` and `after` string (a JSON object of attributes: all for
//! `entered` and `exited`, the changed ones for `changed`); partitioned by `model` string.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::values::{VALUE_TYPE_KEY, ValueType};

/// When the row entered its model.
pub const SINCE: &str = "_cc_since";
/// High half of the key hash, ordered as the hash is.
pub const KEY_HI: &str = "_cc_key_hi";
/// Low half of the key hash.
pub const KEY_LO: &str = "_cc_key_lo";
/// The row hash.
pub const ROW_HASH: &str = "_cc_row_hash";
/// The columns that hold hashes, behind all others.
pub const HASHES: [&str; 3] = [KEY_HI, KEY_LO, ROW_HASH];

/// A hash as two Delta longs. The high half keeps the order of the unsigned hash, so file statistics bound buckets.
pub fn split_hash(hash: u128) -> (i64, i64) {
    ((((hash >> 64) as u64) ^ (1 << 63)) as i64, hash as u64 as i64)
}

/// The inverse of [`split_hash`].
pub fn join_hash(hi: i64, lo: i64) -> u128 {
    (u128::from((hi as u64) ^ (1 << 63)) << 64) | u128::from(lo as u64)
}

/// A column that holds values of this type.
pub fn value_field(name: &str, value_type: ValueType) -> Field {
    let field = Field::new(name, value_type.arrow_type(), true);
    match value_type {
        // Delta has no JSON type: the text's meaning travels in the field's metadata
        ValueType::Json => field.with_metadata([(VALUE_TYPE_KEY.to_string(), "json".to_string())].into()),
        _ => field,
    }
}

/// The columns that a result is reduced to: key, activated fields, further identities.
pub fn result_schema(key: (&str, ValueType), activated: &[(String, ValueType)], identities: &[String]) -> Schema {
    let mut fields = vec![value_field(key.0, key.1)];
    fields.extend(activated.iter().map(|(name, value_type)| value_field(name, *value_type)));
    let further = identities.iter().filter(|name| !activated.iter().any(|(activated, _)| activated == *name));
    fields.extend(further.map(|name| value_field(name, ValueType::String)));
    Schema::new(fields)
}

/// The record store's columns for such a result.
pub fn records_schema(result: &Schema) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = result.fields().iter().cloned().collect();
    fields.push(Arc::new(value_field(SINCE, ValueType::Timestamp)));
    fields.extend(HASHES.map(|name| Arc::new(Field::new(name, DataType::Int64, false))));
    Arc::new(Schema::new(fields))
}

/// The columns of `identities` that its data files hold (the partition column `field` is in the log).
pub fn identities_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("profile_id", DataType::Utf8, false),
        Field::new("value", DataType::Utf8, false),
        Field::new("founder", DataType::Boolean, false),
        Field::new("run_id", DataType::Utf8, false),
        value_field("created_at", ValueType::Timestamp).with_nullable(false),
        Field::new(KEY_HI, DataType::Int64, false),
        Field::new(KEY_LO, DataType::Int64, false),
    ]))
}

/// The columns of `changes` that its data files hold (the partition column `model` is in the log).
pub fn changes_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("run_id", DataType::Utf8, false),
        value_field("at", ValueType::Timestamp).with_nullable(false),
        Field::new("change", DataType::Utf8, false),
        Field::new("profile_id", DataType::Utf8, false),
        Field::new("identity", DataType::Utf8, false),
        Field::new("before", DataType::Utf8, true),
        Field::new("after", DataType::Utf8, true),
    ]))
}

/// A data-file schema with its partition column in front, as the Delta metadata states it.
pub fn with_partition(schema: &Schema, partition: &str) -> Schema {
    let mut fields: Vec<Arc<Field>> = vec![Arc::new(Field::new(partition, DataType::Utf8, false))];
    fields.extend(schema.fields().iter().cloned());
    Schema::new(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn a_split_hash_joins_again_and_keeps_its_order(a: u128, b: u128) {
            let (split_a, split_b) = (split_hash(a), split_hash(b));
            proptest::prop_assert_eq!(join_hash(split_a.0, split_a.1), a);
            if a >> 64 != b >> 64 {
                proptest::prop_assert_eq!(a < b, split_a.0 < split_b.0);
            }
        }
    }
}
