//! Rows as JSON objects: how the change log and samples show attributes.

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::datatypes::FieldRef;
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, NullableEncoder, make_encoder};

use super::ValueType;

/// Writes rows of a batch as JSON objects. JSON columns are embedded as they are, everything else as
/// `arrow::json` writes it: numbers and decimals as numbers, timestamps and dates as ISO 8601 text.
pub struct ObjectEncoder<'a> {
    columns: Vec<Column<'a>>,
    scratch: Vec<u8>,
}

struct Column<'a> {
    /// `"name":`
    prefix: String,
    array: &'a ArrayRef,
    embedded: Option<&'a StringArray>,
    encoder: NullableEncoder<'a>,
}

impl<'a> ObjectEncoder<'a> {
    /// `fields` and `columns` go in pairs.
    pub fn new(fields: &'a [FieldRef], columns: &'a [ArrayRef]) -> Result<Self, ArrowError> {
        let options: &'static EncoderOptions = {
            static OPTIONS: std::sync::OnceLock<EncoderOptions> = std::sync::OnceLock::new();
            OPTIONS.get_or_init(|| EncoderOptions::default().with_explicit_nulls(true))
        };
        let columns = fields.iter().zip(columns).map(|(field, array)| {
            let embedded = (ValueType::of(field) == Some(ValueType::Json)).then(|| array.as_string::<i32>());
            let prefix = format!("{}:", serde_json::Value::from(field.name().as_str()));
            Ok(Column { prefix, array, embedded, encoder: make_encoder(field, array.as_ref(), options)? })
        });
        Ok(Self { columns: columns.collect::<Result<_, ArrowError>>()?, scratch: Vec::new() })
    }

    /// The row's object, with the columns (by position) that `include` lets through.
    pub fn object(&mut self, row: usize, include: impl Fn(usize) -> bool) -> String {
        let out = &mut self.scratch;
        out.clear();
        out.push(b'{');
        for (_, column) in self.columns.iter_mut().enumerate().filter(|(position, _)| include(*position)) {
            if out.len() > 1 {
                out.push(b',');
            }
            out.extend_from_slice(column.prefix.as_bytes());
            match column.embedded {
                _ if column.array.is_null(row) => out.extend_from_slice(b"null"),
                Some(json) => out.extend_from_slice(json.value(row).as_bytes()),
                None => column.encoder.encode(row, out),
            }
        }
        out.push(b'}');
        String::from_utf8_lossy(out).into_owned()
    }
}
