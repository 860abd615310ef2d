//! How rows stand in serving files: attributes as JSON text, ready to be answered.
//!
//! | Row | Encoding |
//! |---|---|
//! | identity | number of its field u16, founder u8, `created_at` i64, `_cc_key_hi` i64, `_cc_key_lo` i64, length of the profile's id u16, the id, the value |
//! | record | `_cc_since` i64, `_cc_key_hi` i64, `_cc_key_lo` i64, then each attribute: length (LEB128), JSON text |

use std::io;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Int64Type};

use crate::values::ValueType;
use crate::values::json::cell_to_json;

/// The version of these encodings, and of the JSON text's form.
pub const ENCODING: u32 = 1;

/// A row of `identities`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdentityRow<'a> {
    /// The number of its field among [`super::segment::About::names`].
    pub field: u16,
    pub founder: bool,
    /// Microseconds.
    pub created_at: i64,
    pub key: (i64, i64),
    pub profile_id: &'a str,
    pub value: &'a str,
}

impl<'a> IdentityRow<'a> {
    /// Replaces the buffer's content.
    pub fn encode(&self, out: &mut Vec<u8>) -> io::Result<()> {
        let length = u16::try_from(self.profile_id.len()).map_err(|_| io::Error::other("a profile id of 64 KiB"))?;
        out.clear();
        out.extend_from_slice(&self.field.to_le_bytes());
        out.push(u8::from(self.founder));
        for long in [self.created_at, self.key.0, self.key.1] {
            out.extend_from_slice(&long.to_le_bytes());
        }
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(self.profile_id.as_bytes());
        out.extend_from_slice(self.value.as_bytes());
        Ok(())
    }

    pub fn decode(row: &'a [u8]) -> io::Result<Self> {
        let mut rest = row;
        let field = u16::from_le_bytes(take(&mut rest)?);
        let [founder] = take(&mut rest)?;
        let [created_at, hi, lo] = longs(&mut rest)?;
        let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let (id, value) = rest.split_at_checked(length).ok_or_else(cut)?;
        let text = |bytes| std::str::from_utf8(bytes).map_err(|_| malformed("a text is not UTF-8"));
        let (profile_id, value) = (text(id)?, text(value)?);
        Ok(Self { field, founder: founder != 0, created_at, key: (hi, lo), profile_id, value })
    }
}

/// A row of a record store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRow<'a> {
    /// Microseconds.
    pub since: i64,
    pub key: (i64, i64),
    values: &'a [u8],
}

impl<'a> RecordRow<'a> {
    /// Replaces the buffer's content with a row whose values [`push_value`] appends.
    pub fn begin(since: i64, key: (i64, i64), out: &mut Vec<u8>) {
        out.clear();
        for long in [since, key.0, key.1] {
            out.extend_from_slice(&long.to_le_bytes());
        }
    }

    pub fn decode(row: &'a [u8]) -> io::Result<Self> {
        let mut values = row;
        let [since, hi, lo] = longs(&mut values)?;
        Ok(Self { since, key: (hi, lo), values })
    }

    /// What of a row is its values, for [`values`].
    pub fn values(&self) -> &'a [u8] {
        self.values
    }
}

/// The JSON texts of a record's attributes.
pub fn values(mut rest: &[u8]) -> impl Iterator<Item = io::Result<&[u8]>> {
    std::iter::from_fn(move || (!rest.is_empty()).then(|| next_value(&mut rest)))
}

fn next_value<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let (mut length, mut shift) = (0usize, 0);
    loop {
        let [byte] = take(rest)?;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            break;
        }
        if shift > 28 {
            return Err(malformed("a length is too long"));
        }
    }
    let (value, after) = rest.split_at_checked(length).ok_or_else(cut)?;
    *rest = after;
    Ok(value)
}

/// Appends an attribute's JSON text.
pub fn push_value(value: &[u8], out: &mut Vec<u8>) {
    let mut length = value.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(value);
}

/// Writes the cells of a column as [`cell_to_json`] has them, which tells the form; the common types without a detour.
pub fn write_cell(column: &ArrayRef, row: usize, value_type: ValueType, out: &mut Vec<u8>) -> io::Result<()> {
    match (value_type, column.data_type()) {
        _ if column.is_null(row) => out.extend_from_slice(b"null"),
        (ValueType::String, DataType::Utf8) => serde_json::to_writer(out, column.as_string::<i32>().value(row))?,
        (_, DataType::Int64) => serde_json::to_writer(out, &column.as_primitive::<Int64Type>().value(row))?,
        (_, DataType::Boolean) => serde_json::to_writer(out, &column.as_boolean().value(row))?,
        _ => serde_json::to_writer(out, &cell_to_json(column.as_ref(), row, value_type))?,
    }
    Ok(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> io::Result<[u8; N]> {
    let (taken, after) = rest.split_first_chunk::<N>().ok_or_else(cut)?;
    *rest = after;
    Ok(*taken)
}

fn longs<const N: usize>(rest: &mut &[u8]) -> io::Result<[i64; N]> {
    let mut longs = [0; N];
    for long in &mut longs {
        *long = i64::from_le_bytes(take(rest)?);
    }
    Ok(longs)
}

fn cut() -> io::Error {
    malformed("it is cut")
}

/// A row that is not what its writer wrote.
pub fn malformed(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a row of a serving file cannot be read: {why}"))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn what_is_encoded_is_decoded(field: u16, founder: bool, created_at: i64, hi: i64, lo: i64, id in ".{0,40}", value in ".{0,40}") {
            let row = IdentityRow { field, founder, created_at, key: (hi, lo), profile_id: &id, value: &value };
            let mut bytes = vec![9];
            row.encode(&mut bytes).unwrap();
            assert_eq!(IdentityRow::decode(&bytes).unwrap(), row);
            for cut in 0..29.min(bytes.len()) {
                assert!(IdentityRow::decode(&bytes[..cut]).is_err());
            }
        }

        #[test]
        fn values_of_any_length_come_back(lengths in proptest::collection::vec(0usize..20_000, 0..6)) {
            let mut bytes = Vec::new();
            RecordRow::begin(1, (2, 3), &mut bytes);
            for length in &lengths {
                push_value(&vec![b'x'; *length], &mut bytes);
            }
            let row = RecordRow::decode(&bytes).unwrap();
            assert_eq!((row.since, row.key), (1, (2, 3)));
            let back: Vec<usize> = values(row.values()).map(|value| value.unwrap().len()).collect();
            assert_eq!(back, lengths);
        }
    }
}
