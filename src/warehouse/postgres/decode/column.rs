//! One Arrow column under construction.

use std::sync::Arc;

use arrow::array::builder::{
    BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, NullBufferBuilder, TimestampMicrosecondBuilder,
};
use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

use super::array::TextListBuilder;
use super::numeric;
use super::{Carrier, Fault};

/// 2000-01-01, from which PostgreSQL counts, in days and microseconds since 1970-01-01.
const EPOCH_DAYS: i32 = 10_957;
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;

#[derive(Debug)]
pub(super) enum ColumnBuilder {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt32(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal { values: Decimal128Builder, precision: u8, scale: i8, as_text: bool },
    NumericText(BytesBuilder),
    Text { values: BytesBuilder, form: TextForm, validated: bool },
    Uuid(BytesBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    Bytes(BytesBuilder),
    TextList(TextListBuilder),
}

/// What stands around a text.
#[derive(Debug, Clone, Copy)]
pub(super) enum TextForm {
    Plain,
    Padded,
    Jsonb,
}

impl ColumnBuilder {
    pub(super) fn new(carrier: Carrier, capacity: usize) -> Self {
        let bytes = || BytesBuilder::new(capacity);
        let text = |form, validated| Self::Text { values: bytes(), form, validated };
        match carrier {
            Carrier::Bool => Self::Bool(BooleanBuilder::with_capacity(capacity)),
            Carrier::Int16 => Self::Int16(Int16Builder::with_capacity(capacity)),
            Carrier::Int32 => Self::Int32(Int32Builder::with_capacity(capacity)),
            Carrier::Int64 => Self::Int64(Int64Builder::with_capacity(capacity)),
            Carrier::UInt32 => Self::UInt32(Int64Builder::with_capacity(capacity)),
            Carrier::Float32 => Self::Float32(Float32Builder::with_capacity(capacity)),
            Carrier::Float64 => Self::Float64(Float64Builder::with_capacity(capacity)),
            Carrier::Decimal { precision, scale } | Carrier::DecimalText { precision, scale } => {
                let as_text = matches!(carrier, Carrier::DecimalText { .. });
                Self::Decimal { values: Decimal128Builder::with_capacity(capacity), precision, scale, as_text }
            }
            Carrier::NumericText => Self::NumericText(bytes()),
            Carrier::Text { validated } | Carrier::Json { validated } => text(TextForm::Plain, validated),
            Carrier::PaddedText { validated } => text(TextForm::Padded, validated),
            Carrier::Jsonb { validated } => text(TextForm::Jsonb, validated),
            Carrier::Uuid => Self::Uuid(bytes()),
            Carrier::Date => Self::Date(Date32Builder::with_capacity(capacity)),
            Carrier::Timestamp => Self::Timestamp(TimestampMicrosecondBuilder::with_capacity(capacity)),
            Carrier::Bytes => Self::Bytes(bytes()),
            Carrier::TextArray { validated } => Self::TextList(TextListBuilder::new(capacity, validated)),
        }
    }

    pub(super) fn append_null(&mut self) {
        match self {
            Self::Bool(b) => b.append_null(),
            Self::Int16(b) => b.append_null(),
            Self::Int32(b) => b.append_null(),
            Self::Int64(b) | Self::UInt32(b) => b.append_null(),
            Self::Float32(b) => b.append_null(),
            Self::Float64(b) => b.append_null(),
            Self::Decimal { values, .. } => values.append_null(),
            Self::Date(b) => b.append_null(),
            Self::Timestamp(b) => b.append_null(),
            Self::NumericText(b) | Self::Uuid(b) | Self::Bytes(b) => b.append_null(),
            Self::Text { values, .. } => values.append_null(),
            Self::TextList(b) => b.append_null(),
        }
    }

    /// Takes a field that is not null. After a fault, nothing was appended.
    #[inline]
    pub(super) fn append(&mut self, field: &[u8]) -> Result<(), Fault> {
        match self {
            Self::Bool(b) => b.append_value(u8::from_be_bytes(fixed(field)?) != 0),
            Self::Int16(b) => b.append_value(i16::from_be_bytes(fixed(field)?)),
            Self::Int32(b) => b.append_value(i32::from_be_bytes(fixed(field)?)),
            Self::Int64(b) => b.append_value(i64::from_be_bytes(fixed(field)?)),
            Self::UInt32(b) => b.append_value(i64::from(u32::from_be_bytes(fixed(field)?))),
            Self::Float32(b) => b.append_value(f32::from_be_bytes(fixed(field)?)),
            Self::Float64(b) => b.append_value(f64::from_be_bytes(fixed(field)?)),
            Self::Decimal { values, precision, scale, as_text } => {
                let read = if *as_text { numeric::of_text } else { numeric::to_i128 };
                values.append_value(read(field, *precision, *scale)?)
            }
            Self::NumericText(b) => b.append_with(|out| numeric::write_text(field, out))?,
            Self::Text { values, form, validated } => {
                let text = match form {
                    TextForm::Plain => field,
                    TextForm::Padded => without_padding(field),
                    TextForm::Jsonb => match field.split_first() {
                        Some((1, text)) => text,
                        _ => return Err(Fault::Broken("an unknown version of jsonb")),
                    },
                };
                // known to be UTF-8, it is still checked: a whole column at a time, when the batch is made
                if !*validated && std::str::from_utf8(text).is_err() {
                    return Err(Fault::Unconvertible("not UTF-8 (the database's encoding is SQL_ASCII)"));
                }
                values.append(text);
            }
            Self::Uuid(b) => {
                let uuid = uuid::Uuid::from_bytes(fixed(field)?);
                b.append(uuid.hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).as_bytes());
            }
            Self::Date(b) => match i32::from_be_bytes(fixed(field)?) {
                i32::MAX => return Err(Fault::Unconvertible("the date is infinity")),
                i32::MIN => return Err(Fault::Unconvertible("the date is -infinity")),
                days => b.append_value(days.checked_add(EPOCH_DAYS).ok_or(Fault::Broken("a date out of range"))?),
            },
            Self::Timestamp(b) => match i64::from_be_bytes(fixed(field)?) {
                i64::MAX => return Err(Fault::Unconvertible("the timestamp is infinity")),
                i64::MIN => return Err(Fault::Unconvertible("the timestamp is -infinity")),
                us => {
                    b.append_value(us.checked_add(EPOCH_MICROSECONDS).ok_or(Fault::Broken("a timestamp out of range"))?)
                }
            },
            Self::Bytes(b) => b.append(field),
            Self::TextList(b) => b.append(field)?,
        }
        Ok(())
    }

    /// The values so far as an array; begins anew.
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int16(b) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) | Self::UInt32(b) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Decimal { values, precision, scale, .. } => {
                Arc::new(values.finish().with_precision_and_scale(*precision, *scale)?)
            }
            Self::NumericText(b) | Self::Uuid(b) => Arc::new(b.finish_text()?),
            Self::Text { values, .. } => Arc::new(values.finish_text()?),
            Self::Date(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish().with_timezone("UTC")),
            Self::Bytes(b) => Arc::new(b.finish_binary()?),
            Self::TextList(b) => Arc::new(b.finish()?),
        })
    }
}

/// A field of a fixed width.
#[inline]
fn fixed<const N: usize>(field: &[u8]) -> Result<[u8; N], Fault> {
    field.try_into().map_err(|_| Fault::Broken("a field of the wrong width"))
}

fn without_padding(field: &[u8]) -> &[u8] {
    let end = field.iter().rposition(|b| *b != b' ').map_or(0, |last| last + 1);
    &field[..end]
}

/// Values of any width, end to end. Texts are validated a whole column at a time, which is much cheaper than one by one.
#[derive(Debug)]
pub(super) struct BytesBuilder {
    offsets: Vec<i32>,
    values: Vec<u8>,
    nulls: NullBufferBuilder,
    capacity: usize,
}

impl BytesBuilder {
    pub(super) fn new(capacity: usize) -> Self {
        let mut offsets = Vec::with_capacity(capacity + 1);
        offsets.push(0);
        Self { offsets, values: Vec::new(), nulls: NullBufferBuilder::new(capacity), capacity }
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    #[inline]
    pub(super) fn append(&mut self, value: &[u8]) {
        self.values.extend_from_slice(value);
        self.end_value();
    }

    fn append_with(&mut self, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Fault>) -> Result<(), Fault> {
        let before = self.values.len();
        write(&mut self.values).inspect_err(|_| self.values.truncate(before))?;
        self.end_value();
        Ok(())
    }

    #[inline]
    fn end_value(&mut self) {
        // a field is below 1 GiB and a batch ends at a few MiB, so this cannot saturate
        self.offsets.push(i32::try_from(self.values.len()).unwrap_or(i32::MAX));
        self.nulls.append_non_null();
    }

    pub(super) fn append_null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or_default());
        self.nulls.append_null();
    }

    /// Takes the values after the first `len` back.
    pub(super) fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        self.values.truncate(self.offsets.last().map_or(0, |end| *end as usize));
        self.nulls.truncate(len);
    }

    fn parts(&mut self) -> (OffsetBuffer<i32>, Buffer, Option<arrow::buffer::NullBuffer>) {
        let next = Self::new(self.capacity);
        let mut done = std::mem::replace(self, next);
        // the next batch will be about as large
        self.values.reserve(done.values.len());
        let offsets = OffsetBuffer::new(ScalarBuffer::from(done.offsets));
        (offsets, Buffer::from_vec(done.values), done.nulls.finish())
    }

    pub(super) fn finish_text(&mut self) -> Result<StringArray, ArrowError> {
        let (offsets, values, nulls) = self.parts();
        StringArray::try_new(offsets, values, nulls)
    }

    fn finish_binary(&mut self) -> Result<BinaryArray, ArrowError> {
        let (offsets, values, nulls) = self.parts();
        BinaryArray::try_new(offsets, values, nulls)
    }
}
