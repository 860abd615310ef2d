//! PostgreSQL's binary `text[]` -> a list of texts.

use std::sync::Arc;

use arrow::array::ListArray;
use arrow::array::builder::NullBufferBuilder;
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;

use super::Fault;
use super::column::BytesBuilder;

const MALFORMED: Fault = Fault::Broken("a malformed array");

#[derive(Debug)]
pub(super) struct TextListBuilder {
    offsets: Vec<i32>,
    elements: BytesBuilder,
    nulls: NullBufferBuilder,
    validated: bool,
    capacity: usize,
}

impl TextListBuilder {
    pub(super) fn new(capacity: usize, validated: bool) -> Self {
        let mut offsets = Vec::with_capacity(capacity + 1);
        offsets.push(0);
        let nulls = NullBufferBuilder::new(capacity);
        Self { offsets, elements: BytesBuilder::new(capacity), nulls, validated, capacity }
    }

    pub(super) fn append_null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or_default());
        self.nulls.append_null();
    }

    pub(super) fn append(&mut self, field: &[u8]) -> Result<(), Fault> {
        let before = self.elements.len();
        self.append_elements(field).inspect_err(|_| self.elements.truncate(before))?;
        // an element takes four bytes on the wire at least, so there are far fewer than i32 can count
        self.offsets.push(i32::try_from(self.elements.len()).unwrap_or(i32::MAX));
        self.nulls.append_non_null();
        Ok(())
    }

    fn append_elements(&mut self, field: &[u8]) -> Result<(), Fault> {
        let mut rest = field;
        let dimensions = word(&mut rest)?;
        let (_has_nulls, _element_type) = (word(&mut rest)?, word(&mut rest)?);
        let count = match dimensions {
            0 => 0,
            1 => {
                let (count, _lower_bound) = (word(&mut rest)?, word(&mut rest)?);
                usize::try_from(count).map_err(|_| MALFORMED)?
            }
            _ => {
                return Err(Fault::Unconvertible(
                    "the array has more than one dimension (select it through to_jsonb to keep its shape)",
                ));
            }
        };
        for _ in 0..count {
            match word(&mut rest)? {
                -1 => self.elements.append_null(),
                length => {
                    let length = usize::try_from(length).map_err(|_| MALFORMED)?;
                    let (element, after) = rest.split_at_checked(length).ok_or(MALFORMED)?;
                    rest = after;
                    if !self.validated && std::str::from_utf8(element).is_err() {
                        return Err(Fault::Unconvertible("not UTF-8 (the database's encoding is SQL_ASCII)"));
                    }
                    self.elements.append(element);
                }
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(MALFORMED) }
    }

    pub(super) fn finish(&mut self) -> Result<ListArray, ArrowError> {
        let next = Self::new(self.capacity, self.validated);
        let mut done = std::mem::replace(self, next);
        let elements = Arc::new(done.elements.finish_text()?);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(done.offsets));
        let element = Arc::new(Field::new("element", DataType::Utf8, true));
        ListArray::try_new(element, offsets, elements, done.nulls.finish())
    }
}

fn word(rest: &mut &[u8]) -> Result<i32, Fault> {
    let (word, after) = rest.split_first_chunk::<4>().ok_or(MALFORMED)?;
    *rest = after;
    Ok(i32::from_be_bytes(*word))
}
