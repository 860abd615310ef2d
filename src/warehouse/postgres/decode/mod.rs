//! Rows of binary fields -> Arrow record batches.
//!
//! Knows nothing of how the fields arrive: `COPY` framing and the data rows of a cursor's `FETCH` both feed it, field by
//! field. Values go straight into Arrow's buffers; no row allocates anything.
//!
//! A value that Arrow cannot hold (`infinity` as a date, `NaN` as a decimal) becomes a null, and its row is marked in
//! [`UNCONVERTIBLE_COLUMN`](crate::warehouse::UNCONVERTIBLE_COLUMN). A field that breaks its type's binary form is an
//! error: the stream cannot be trusted any more.

mod array;
mod column;
mod numeric;

use arrow::array::{ArrayRef, RecordBatch, StringBuilder};
use arrow::datatypes::SchemaRef;

use self::column::ColumnBuilder;
use crate::warehouse::WarehouseError;

/// How a column's fields are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    Bool,
    Int16,
    Int32,
    Int64,
    /// An unsigned 32-bit number (`oid`), as `Int64`.
    UInt32,
    Float32,
    Float64,
    Decimal {
        precision: u8,
        scale: i8,
    },
    /// The same, sent as its decimal text.
    DecimalText {
        precision: u8,
        scale: i8,
    },
    /// A `numeric` without a declared precision: its exact decimal text.
    NumericText,
    /// `validated`: known to be UTF-8.
    Text {
        validated: bool,
    },
    /// `char(n)`: the blanks that pad it do not count.
    PaddedText {
        validated: bool,
    },
    Json {
        validated: bool,
    },
    /// JSON text after a version byte.
    Jsonb {
        validated: bool,
    },
    Uuid,
    /// Days since 2000-01-01.
    Date,
    /// Microseconds since 2000-01-01.
    Timestamp,
    Bytes,
    /// A one-dimensional `text[]`.
    TextArray {
        validated: bool,
    },
}

impl Carrier {
    /// Are there values of the type that Arrow cannot hold?
    pub(crate) fn can_be_unconvertible(self) -> bool {
        match self {
            Self::Decimal { .. } | Self::DecimalText { .. } | Self::Date | Self::Timestamp | Self::TextArray { .. } => {
                true
            }
            Self::Text { validated } | Self::PaddedText { validated } => !validated,
            Self::Json { validated } | Self::Jsonb { validated } => !validated,
            Self::Bool
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::UInt32
            | Self::Float32
            | Self::Float64
            | Self::NumericText
            | Self::Uuid
            | Self::Bytes => false,
        }
    }
}

/// Why a field was not taken.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The value is sound, but Arrow cannot hold it.
    Unconvertible(&'static str),
    /// These are not the bytes of such a value.
    Broken(&'static str),
}

/// Builds record batches from fields.
#[derive(Debug)]
pub(crate) struct RowDecoder {
    schema: SchemaRef,
    columns: Vec<ColumnBuilder>,
    /// One text a row, when the schema ends with the column for them.
    reasons: Option<StringBuilder>,
    /// Of the row under way.
    reason: String,
    rows: usize,
    bytes: usize,
}

impl RowDecoder {
    /// `schema` holds one field a carrier, and may end with the column of reasons.
    pub(crate) fn new(schema: SchemaRef, carriers: impl ExactSizeIterator<Item = Carrier>, batch_rows: usize) -> Self {
        // a wide row fills a batch long before this many rows
        let capacity = batch_rows.min(64 * 1024);
        let columns: Vec<_> = carriers.map(|c| ColumnBuilder::new(c, capacity)).collect();
        let reasons = (schema.fields().len() > columns.len()).then(StringBuilder::new);
        Self { schema, columns, reasons, reason: String::new(), rows: 0, bytes: 0 }
    }

    /// Fields in a row.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// Takes the field of a column (null: none). Every column is given once a row, then [`Self::end_row`].
    pub(crate) fn append(&mut self, column: usize, field: Option<&[u8]>) -> Result<(), WarehouseError> {
        let Some(builder) = self.columns.get_mut(column) else {
            return Err(WarehouseError::bug("the server sent more columns than it had described"));
        };
        let Some(field) = field else {
            builder.append_null();
            return Ok(());
        };
        self.bytes += field.len();
        match builder.append(field) {
            Ok(()) => Ok(()),
            Err(Fault::Unconvertible(why)) => {
                builder.append_null();
                if !self.reason.is_empty() {
                    self.reason.push_str("; ");
                }
                self.reason.push_str(self.schema.field(column).name());
                self.reason.push_str(": ");
                self.reason.push_str(why);
                Ok(())
            }
            Err(Fault::Broken(what)) => {
                let field = self.schema.field(column);
                Err(WarehouseError::bug(format!("the server sent {what} as a value of column `{}`", field.name())))
            }
        }
    }

    pub(crate) fn end_row(&mut self) {
        self.rows += 1;
        if let Some(reasons) = &mut self.reasons {
            if self.reason.is_empty() {
                reasons.append_null();
            } else {
                reasons.append_value(&self.reason);
                self.reason.clear();
            }
        }
    }

    /// Whole rows since the last batch.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of their fields.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows since the last batch, as a batch.
    pub(crate) fn take(&mut self) -> Result<RecordBatch, WarehouseError> {
        let mut arrays = Vec::with_capacity(self.schema.fields().len());
        for (builder, field) in self.columns.iter_mut().zip(self.schema.fields()) {
            let array: ArrayRef = builder.finish().map_err(|e| {
                WarehouseError::bug(format!("the server sent malformed values in column `{}`: {e}", field.name()))
            })?;
            arrays.push(array);
        }
        if let Some(reasons) = &mut self.reasons {
            arrays.push(std::sync::Arc::new(reasons.finish()));
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.rows = 0;
        self.bytes = 0;
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
            .map_err(|e| WarehouseError::bug(format!("the rows do not fit their schema: {e}")))
    }
}
