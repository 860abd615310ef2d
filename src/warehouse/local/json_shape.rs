//! The shape that JSON values have in common, and the Arrow type that holds all of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::Value;

use crate::values::VALUE_TYPE_KEY;

/// An object with more keys than this is a map whose keys are data, not a record.
const MOST_FIELDS: usize = 256;
/// Beyond this a 64-bit float no longer tells whole numbers apart.
const EXACT_IN_FLOAT: u64 = 1 << 53;

const BOOL: u8 = 1;
const INT: u8 = 2;
/// A whole number that a float would change.
const LONG: u8 = 4;
const FLOAT: u8 = 8;
/// A whole number that `Int64` cannot hold.
const HUGE: u8 = 16;
const STRING: u8 = 32;

/// What the values seen so far have in common.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Shape {
    /// Nothing but nulls.
    #[default]
    Unknown,
    /// Kinds of scalars, as bits.
    Scalar(u8),
    List(Box<Shape>),
    Object(Record),
    /// No one type holds them.
    Mixed,
}

/// The fields of objects, in order of their first appearance.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Record {
    fields: Vec<(String, Shape)>,
    index: HashMap<String, usize>,
}

impl Record {
    pub(super) fn look_at(&mut self, object: &serde_json::Map<String, Value>) {
        for (position, (name, value)) in object.iter().enumerate() {
            // objects of one kind mostly write their fields in the same order
            let index = match self.fields.get(position) {
                Some((known, _)) if known == name => position,
                _ => match self.index.get(name) {
                    Some(index) => *index,
                    None => {
                        self.index.insert(name.clone(), self.fields.len());
                        self.fields.push((name.clone(), Shape::Unknown));
                        self.fields.len() - 1
                    }
                },
            };
            self.fields[index].1.look_at(value);
        }
    }

    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &Shape)> {
        self.fields.iter().map(|(name, shape)| (name.as_str(), shape))
    }
}

impl Shape {
    fn look_at(&mut self, value: &Value) {
        let scalar = match value {
            Value::Null => return,
            Value::Bool(_) => BOOL,
            Value::String(_) => STRING,
            Value::Number(number) => match (number.as_i64(), number.as_f64()) {
                (Some(int), _) if int.unsigned_abs() > EXACT_IN_FLOAT => LONG,
                (Some(_), _) => INT,
                (None, Some(float)) if !number.is_u64() && (float.fract() != 0.0 || float.abs() < 1e15) => FLOAT,
                _ => HUGE,
            },
            Value::Array(items) => {
                if *self == Self::Unknown {
                    *self = Self::List(Box::default());
                }
                match self {
                    Self::List(shape) => items.iter().for_each(|item| shape.look_at(item)),
                    other => *other = Self::Mixed,
                }
                return;
            }
            Value::Object(object) => {
                if *self == Self::Unknown {
                    *self = Self::Object(Record::default());
                }
                match self {
                    Self::Object(record) if record.fields.len() <= MOST_FIELDS => record.look_at(object),
                    other => *other = Self::Mixed,
                }
                return;
            }
        };
        match self {
            Self::Unknown => *self = Self::Scalar(scalar),
            Self::Scalar(kinds) => *kinds |= scalar,
            Self::List(_) | Self::Object(_) | Self::Mixed => *self = Self::Mixed,
        }
    }

    /// The type that holds every value; none when it takes JSON text.
    fn data_type(&self) -> Option<DataType> {
        Some(match self {
            Self::Unknown => DataType::Utf8,
            Self::Scalar(BOOL) => DataType::Boolean,
            Self::Scalar(kinds) if kinds & !(INT | LONG) == 0 => DataType::Int64,
            Self::Scalar(kinds) if kinds & !(INT | FLOAT) == 0 => DataType::Float64,
            Self::Scalar(_) => DataType::Utf8,
            Self::List(item) => DataType::List(Arc::new(Field::new("item", item.data_type()?, true))),
            Self::Object(record) if record.fields.is_empty() || record.fields.len() > MOST_FIELDS => return None,
            Self::Object(record) => DataType::Struct(
                record
                    .fields
                    .iter()
                    .map(|(name, shape)| Some(Field::new(name, shape.data_type()?, true)))
                    .collect::<Option<Fields>>()?,
            ),
            Self::Mixed => return None,
        })
    }

    /// Whether text is needed to hold what is not text.
    pub(super) fn mixes_scalars(&self) -> bool {
        match self {
            Self::Unknown | Self::Mixed | Self::Scalar(STRING) => false,
            Self::Scalar(_) => self.data_type() == Some(DataType::Utf8),
            Self::List(item) => item.mixes_scalars(),
            Self::Object(record) => record.fields.iter().any(|(_, shape)| shape.mixes_scalars()),
        }
    }

    /// The column, and whether its values have to be turned into JSON text.
    pub(super) fn column(&self, name: &str) -> (Field, bool) {
        match self.data_type() {
            Some(data_type) => (Field::new(name, data_type, true), false),
            None => {
                let json = HashMap::from([(VALUE_TYPE_KEY.to_owned(), "json".to_owned())]);
                (Field::new(name, DataType::Utf8, true).with_metadata(json), true)
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn inferred(rows: &[&str]) -> (DataType, bool, bool) {
        let mut shape = Shape::default();
        for row in rows {
            shape.look_at(&serde_json::from_str(row).unwrap());
        }
        let (field, as_text) = shape.column("c");
        (field.data_type().clone(), shape.mixes_scalars(), as_text)
    }

    #[test]
    fn a_column_holds_every_value_without_changing_it() {
        let list = |of| DataType::List(Arc::new(Field::new("item", of, true)));
        let cases: &[(&[&str], DataType, bool, bool)] = &[
            (&["null"], DataType::Utf8, false, false),
            (&["1", "null", "9007199254740993"], DataType::Int64, false, false),
            (&["1", "2.5"], DataType::Float64, false, false),
            (&["9007199254740993", "2.5"], DataType::Utf8, true, false),
            (&["18446744073709551615"], DataType::Utf8, true, false),
            (&["1", "\"n/a\""], DataType::Utf8, true, false),
            (&["true", "1"], DataType::Utf8, true, false),
            (&["[]", "[\"a\"]", "[null]"], list(DataType::Utf8), false, false),
            (&["[1]", "[\"a\"]"], list(DataType::Utf8), true, false),
            (&["[1]", "1"], DataType::Utf8, false, true),
            (&["{\"a\": 1}", "\"x\""], DataType::Utf8, false, true),
            (&["{}"], DataType::Utf8, false, true),
        ];
        for (rows, data_type, mixed, as_text) in cases {
            assert_eq!(inferred(rows), (data_type.clone(), *mixed, *as_text), "{rows:?}");
        }
    }

    #[test]
    fn the_fields_of_a_record_keep_the_order_in_which_they_appear() {
        let (data_type, ..) = inferred(&["{\"b\": 1}", "{\"a\": \"x\", \"b\": 2}"]);
        let expected =
            Fields::from(vec![Field::new("b", DataType::Int64, true), Field::new("a", DataType::Utf8, true)]);
        assert_eq!(data_type, DataType::Struct(expected));
    }
}
