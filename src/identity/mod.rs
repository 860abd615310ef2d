//! From external keys to profiles: normalization, profile ids, and finding who exists.
//!
//! Invariants: an identity value (field and normalized text) belongs to at most one profile, for ever; a profile's id is
//! derived from the identity that founded it, so that finding it twice, on two machines or after a crash, makes one
//! profile and not two.

pub mod resolve;

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use crate::config::Normalization;
use crate::diff::row_hash::key_hash;

/// Applies the steps to one identity value.
pub fn normalize<'a>(value: &'a str, steps: &[Normalization]) -> Cow<'a, str> {
    let mut value = Cow::Borrowed(value);
    for step in steps {
        match step {
            Normalization::Trim => {
                if value.trim().len() != value.len() {
                    value = Cow::Owned(value.trim().to_string());
                }
            }
            Normalization::Lowercase => {
                if value.bytes().any(|b| b.is_ascii_uppercase() || !b.is_ascii()) {
                    value = Cow::Owned(value.to_lowercase());
                }
            }
        }
    }
    value
}

/// The id of the profile that this identity founds.
pub fn founded_profile(field: &str, normalized: &str) -> Uuid {
    let mut text = Vec::with_capacity(field.len() + 1 + normalized.len());
    text.extend_from_slice(field.as_bytes());
    text.push(0);
    text.extend_from_slice(normalized.as_bytes());
    uuid::Builder::from_custom_bytes(xxh3_128(&text).to_be_bytes()).into_uuid()
}

/// A column of identity values as stored, and the hash of each; a null or empty value has none.
///
/// Text is normalized. Numbers and dates keep their type; their text (as in an identity) is what is hashed.
pub fn normalized_keys(
    column: &ArrayRef,
    steps: &[Normalization],
) -> Result<(ArrayRef, Vec<Option<u128>>), ArrowError> {
    match column.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(column, &DataType::Utf8)?;
            let text = text.as_string::<i32>();
            let mut hashes = Vec::with_capacity(text.len());
            let mut altered = false;
            for value in text {
                hashes.push(value.and_then(|value| {
                    let normal = normalize(value, steps);
                    altered |= matches!(normal, Cow::Owned(_)) || normal.is_empty();
                    (!normal.is_empty()).then(|| key_hash(&normal))
                }));
            }
            if !altered {
                return Ok((Arc::new(text.clone()), hashes));
            }
            let normal = text.iter().map(|v| v.map(|v| normalize(v, steps)).filter(|v| !v.is_empty()));
            Ok((Arc::new(normal.collect::<StringArray>()), hashes))
        }
        _ => {
            let texts = identity_texts(column)?;
            let hashes = texts.iter().map(|text| text.map(key_hash)).collect();
            Ok((column.clone(), hashes))
        }
    }
}

/// The identity text of each stored key: decimals without trailing zeros, dates as `YYYY-MM-DD`.
pub fn identity_texts(column: &ArrayRef) -> Result<StringArray, ArrowError> {
    let text = cast(column, &DataType::Utf8)?;
    let text = text.as_string::<i32>();
    if matches!(column.data_type(), DataType::Decimal128(_, scale) if *scale > 0) {
        let trimmed = text.iter().map(|v| v.map(|v| v.trim_end_matches('0').trim_end_matches('.')));
        return Ok(trimmed.collect());
    }
    Ok(text.clone())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use Normalization::{Lowercase, Trim};

    #[test]
    fn keys_that_normalize_alike_hash_alike() {
        let raw: ArrayRef =
            Arc::new(StringArray::from(vec![Some(" Ada@Example.com"), Some("ada@example.com"), Some("  "), None]));
        let (stored, hashes) = normalized_keys(&raw, &[Trim, Lowercase]).unwrap();
        let stored: Vec<_> = stored.as_string::<i32>().iter().collect();
        assert_eq!(stored, [Some("ada@example.com"), Some("ada@example.com"), None, None]);
        assert_eq!(hashes, [Some(key_hash("ada@example.com")), Some(key_hash("ada@example.com")), None, None]);
    }

    #[test]
    fn a_number_and_its_text_are_the_same_identity() {
        let number: ArrayRef = Arc::new(arrow::array::Int64Array::from(vec![Some(42), None]));
        let decimal = arrow::array::Decimal128Array::from(vec![Some(4200_i128), None]).with_precision_and_scale(10, 2);
        let decimal: ArrayRef = Arc::new(decimal.unwrap());
        let text: ArrayRef = Arc::new(StringArray::from(vec![Some("42"), None]));
        let hashes = |column| normalized_keys(column, &[]).unwrap().1;
        assert_eq!(hashes(&number), hashes(&text));
        assert_eq!(hashes(&decimal), hashes(&text));
    }

    #[test]
    fn a_profile_id_depends_on_field_and_value_only() {
        assert_eq!(founded_profile("email", "a"), founded_profile("email", "a"));
        assert_ne!(founded_profile("email", "a"), founded_profile("user_id", "a"));
        assert_ne!(founded_profile("a", "bc"), founded_profile("ab", "c"));
    }
}
