//! Hashes that say whether a key or a row is the same as last time.
//!
//! They are stored, so the encoding is ours and carries a version ([`ROW_ENCODING`]): Arrow's and DataFusion's own row
//! formats may change between releases. A row is encoded column by column, in the order of the columns:
//!
//! | Value | Bytes |
//! |---|---|
//! | null | `0` |
//! | int | `1`, 8 bytes little-endian |
//! | float | `1`, 8 bytes of its bits; `-0.0` as `0.0`, every NaN as one |
//! | decimal | `1`, 16 bytes little-endian of the unscaled value |
//! | bool | `1`, `0` or `1` |
//! | timestamp | `1`, 8 bytes little-endian, microseconds since 1970 UTC |
//! | date | `1`, 4 bytes little-endian, days since 1970 |
//! | string, json | `1`, length as 4 bytes little-endian, UTF-8 |
//! | list | `1`, number of items as 4 bytes little-endian, each item as a string |

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float64Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Version of the encoding, kept with every record store.
pub const ROW_ENCODING: u32 = 1;

/// The hash of a key, and of an identity value: of its normalized text. 128 bits, since any two keys of a table may meet.
pub fn key_hash(text: &str) -> u128 {
    xxh3_128(text.as_bytes())
}

/// Encodes and hashes batches; keeps its buffers between them.
#[derive(Debug, Default)]
pub struct RowHasher {
    bytes: Vec<u8>,
    offsets: Vec<usize>,
}

impl RowHasher {
    /// The hash of each row over these columns. Strings may be in any string layout. 64 bits do: a row's hash is only
    /// ever compared with the one that its own key had before.
    pub fn hash(&mut self, columns: &[ArrayRef], rows: usize) -> Vec<u64> {
        // lengths first, so that each column can then be written in one sweep
        let fixed: usize = columns.iter().map(|c| fixed_width(c.data_type())).sum();
        self.offsets.clear();
        self.offsets.resize(rows + 1, fixed);
        for column in columns {
            add_lengths(column, &mut self.offsets[..rows]);
        }
        let mut at = 0;
        for offset in &mut self.offsets {
            let length = *offset;
            *offset = at;
            at += length;
        }
        self.bytes.clear();
        self.bytes.resize(at, 0);
        let mut cursor: Vec<usize> = self.offsets[..rows].to_vec();
        for column in columns {
            write_column(column, &mut self.bytes, &mut cursor);
        }
        // `cursor` now ends each row: a null takes less than its column's width
        (0..rows).map(|row| xxh3_64(&self.bytes[self.offsets[row]..cursor[row]])).collect()
    }
}

fn fixed_width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Int64 | DataType::Float64 | DataType::Timestamp(..) => 9,
        DataType::Decimal128(..) => 17,
        DataType::Date32 => 5,
        DataType::Boolean => 2,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::List(_) => 5,
        _ => 1,
    }
}

fn add_lengths(column: &ArrayRef, lengths: &mut [usize]) {
    match column.data_type() {
        DataType::Utf8 => {
            let offsets = column.as_string::<i32>().value_offsets();
            lengths.iter_mut().zip(offsets.windows(2)).for_each(|(l, w)| *l += (w[1] - w[0]) as usize);
        }
        DataType::LargeUtf8 => {
            let offsets = column.as_string::<i64>().value_offsets();
            lengths.iter_mut().zip(offsets.windows(2)).for_each(|(l, w)| *l += (w[1] - w[0]) as usize);
        }
        DataType::Utf8View => {
            // a view's first four bytes are its length
            let views = column.as_string_view().views();
            lengths.iter_mut().zip(views.iter()).for_each(|(l, v)| *l += (*v as u32) as usize);
        }
        DataType::List(_) => {
            let list = column.as_list::<i32>();
            let items = list.values().as_string::<i32>();
            for (row, length) in lengths.iter_mut().enumerate() {
                let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
                *length += (to - from) * 5;
                *length += (items.value_offsets()[to] - items.value_offsets()[from]) as usize;
            }
        }
        _ => {}
    }
}

fn write_column(column: &ArrayRef, bytes: &mut [u8], cursor: &mut [usize]) {
    fn put(bytes: &mut [u8], at: &mut usize, value: &[u8]) {
        bytes[*at..*at + value.len()].copy_from_slice(value);
        *at += value.len();
    }
    fn put_text(bytes: &mut [u8], at: &mut usize, text: &str) {
        bytes[*at] = 1;
        bytes[*at + 1..*at + 5].copy_from_slice(&(text.len() as u32).to_le_bytes());
        *at += 5;
        put(bytes, at, text.as_bytes());
    }
    macro_rules! each {
        ($array:expr, |$value:ident, $at:ident| $write:expr) => {{
            let array = $array;
            let no_nulls = array.null_count() == 0;
            for (row, $at) in cursor.iter_mut().enumerate() {
                if no_nulls || array.is_valid(row) {
                    let $value = array.value(row);
                    $write
                } else {
                    bytes[*$at] = 0;
                    *$at += 1;
                }
            }
        }};
    }
    macro_rules! each_fixed {
        ($array:expr, $width:literal, |$value:ident| $encoded:expr) => {
            each!($array, |$value, at| {
                let mut cell = [1u8; $width + 1];
                cell[1..].copy_from_slice(&$encoded);
                put(bytes, at, &cell);
            })
        };
    }
    match column.data_type() {
        DataType::Int64 => each_fixed!(column.as_primitive::<Int64Type>(), 8, |v| v.to_le_bytes()),
        DataType::Float64 => each_fixed!(column.as_primitive::<Float64Type>(), 8, |v| canonical_float(v).to_le_bytes()),
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            each_fixed!(column.as_primitive::<TimestampMicrosecondType>(), 8, |v| v.to_le_bytes());
        }
        DataType::Decimal128(..) => each_fixed!(column.as_primitive::<Decimal128Type>(), 16, |v| v.to_le_bytes()),
        DataType::Date32 => each_fixed!(column.as_primitive::<Date32Type>(), 4, |v| v.to_le_bytes()),
        DataType::Boolean => each_fixed!(column.as_boolean(), 1, |v| [u8::from(v)]),
        DataType::Utf8 => each!(column.as_string::<i32>(), |v, at| put_text(bytes, at, v)),
        DataType::LargeUtf8 => each!(column.as_string::<i64>(), |v, at| put_text(bytes, at, v)),
        DataType::Utf8View => each!(column.as_string_view(), |v, at| put_text(bytes, at, v)),
        DataType::List(_) => each!(column.as_list::<i32>(), |v, at| {
            bytes[*at] = 1;
            bytes[*at + 1..*at + 5].copy_from_slice(&(v.len() as u32).to_le_bytes());
            *at += 5;
            for item in v.as_string::<i32>() {
                match item {
                    Some(text) => put_text(bytes, at, text),
                    None => {
                        bytes[*at] = 0;
                        *at += 1;
                    }
                }
            }
        }),
        other => debug_assert!(false, "no canonical encoding of {other}"),
    }
}

fn canonical_float(value: f64) -> u64 {
    if value == 0.0 {
        0
    } else if value.is_nan() {
        f64::NAN.to_bits()
    } else {
        value.to_bits()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Float64Array, Int64Array, StringArray};
    use std::sync::Arc;

    fn hash(columns: &[ArrayRef]) -> Vec<u64> {
        RowHasher::default().hash(columns, columns[0].len())
    }

    #[test]
    fn the_stored_encoding_does_not_drift() {
        // these hashes are in people's stores: a change here needs a new ROW_ENCODING and a migration
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from(vec![Some(42), None])),
            Arc::new(StringArray::from(vec![Some("e-bike"), Some("")])),
            Arc::new(BooleanArray::from(vec![Some(true), None])),
        ];
        let encoded_first = [&[1][..], &42i64.to_le_bytes(), &[1, 6, 0, 0, 0], b"e-bike", &[1, 1]].concat();
        let encoded_second = [&[0][..], &[1, 0, 0, 0, 0], &[0]].concat();
        assert_eq!(hash(&columns), [xxh3_64(&encoded_first), xxh3_64(&encoded_second)]);
        assert_eq!(key_hash("ada@example.com"), xxh3_128(b"ada@example.com"));
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        let a: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["ab"])), Arc::new(StringArray::from(vec!["c"]))];
        let b: Vec<ArrayRef> = vec![Arc::new(StringArray::from(vec!["a"])), Arc::new(StringArray::from(vec!["bc"]))];
        let c: Vec<ArrayRef> =
            vec![Arc::new(StringArray::from(vec![None::<&str>])), Arc::new(StringArray::from(vec!["abc"]))];
        assert!(hash(&a) != hash(&b) && hash(&b) != hash(&c));
    }

    #[test]
    fn equal_floats_hash_alike() {
        let a: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(vec![0.0, f64::NAN]))];
        let b: Vec<ArrayRef> = vec![Arc::new(Float64Array::from(vec![-0.0, -f64::NAN]))];
        assert_eq!(hash(&a), hash(&b));
    }

    #[test]
    fn the_layout_of_strings_does_not_matter() {
        let utf8: ArrayRef = Arc::new(StringArray::from(vec![Some("short"), None, Some("longer than twelve bytes")]));
        let view = arrow::compute::cast(&utf8, &DataType::Utf8View).unwrap();
        let large = arrow::compute::cast(&utf8, &DataType::LargeUtf8).unwrap();
        let sliced = arrow::compute::concat(&[&utf8, &utf8]).unwrap().slice(3, 3);
        assert_eq!(hash(std::slice::from_ref(&utf8)), hash(&[view]));
        assert_eq!(hash(std::slice::from_ref(&utf8)), hash(&[large]));
        assert_eq!(hash(&[utf8]), hash(&[sliced]));
    }
}
