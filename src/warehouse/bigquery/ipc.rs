//! Arrow's IPC messages, as the Storage Read API hands them out: the schema once, then a message a batch. Servers differ
//! in whether an end-of-stream marker follows; here every message is cut out by its own length, so both will do.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::{MessageHeader, root_as_message};

use crate::warehouse::WarehouseError;

/// Before a message's length (since Arrow 0.15).
const CONTINUATION: [u8; 4] = [0xff; 4];

/// Turns messages into batches.
pub(super) struct Decoder {
    inner: StreamDecoder,
    pub schema: SchemaRef,
}

impl Decoder {
    pub(super) fn new(serialized_schema: Vec<u8>) -> Result<Self, WarehouseError> {
        let first = Messages { rest: Buffer::from_vec(serialized_schema) }.next();
        let (header, mut bytes) = first.ok_or_else(|| broken("there is no schema"))??;
        if header != MessageHeader::Schema {
            return Err(broken("the schema is something else"));
        }
        let schema = Arc::new(try_schema_from_ipc_buffer(&bytes).map_err(broken)?);
        let mut inner = StreamDecoder::new();
        inner.decode(&mut bytes).map_err(broken)?;
        Ok(Self { inner, schema })
    }

    /// The batches of one answer.
    pub(super) fn decode(&mut self, serialized: Vec<u8>) -> Result<Vec<RecordBatch>, WarehouseError> {
        let mut batches = Vec::with_capacity(1);
        for message in (Messages { rest: Buffer::from_vec(serialized) }) {
            let (header, mut bytes) = message?;
            // a server that repeats the schema says nothing new
            if matches!(header, MessageHeader::Schema | MessageHeader::NONE) {
                continue;
            }
            while !bytes.is_empty() {
                if let Some(batch) = self.inner.decode(&mut bytes).map_err(broken)? {
                    batches.push(batch);
                }
            }
        }
        Ok(batches)
    }
}

fn broken(why: impl std::fmt::Display) -> WarehouseError {
    WarehouseError::bug(format!("BigQuery sent Arrow data that cannot be read: {why}"))
}

/// Cuts bytes into messages; ends at an end-of-stream marker.
struct Messages {
    rest: Buffer,
}

impl Messages {
    fn cut(&mut self) -> Result<Option<(MessageHeader, Buffer)>, WarehouseError> {
        let bytes = self.rest.as_slice();
        let start = if bytes.starts_with(&CONTINUATION) { 4 } else { 0 };
        let Some(length) = bytes.get(start..start + 4) else { return Ok(None) };
        let length = i32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        if length == 0 {
            return Ok(None);
        }
        let metadata = start + 4;
        let body = usize::try_from(length).ok().and_then(|length| metadata.checked_add(length));
        let message = body.and_then(|body| bytes.get(metadata..body)).ok_or_else(|| broken("a message is cut off"))?;
        let message = root_as_message(message).map_err(broken)?;
        let end =
            usize::try_from(message.bodyLength()).ok().zip(body).and_then(|(length, body)| body.checked_add(length));
        let header = message.header_type();
        let end = end.filter(|end| *end <= bytes.len()).ok_or_else(|| broken("a message is cut off"))?;
        let whole = self.rest.slice_with_length(0, end);
        self.rest = self.rest.slice(end);
        Ok(Some((header, whole)))
    }
}

impl Iterator for Messages {
    type Item = Result<(MessageHeader, Buffer), WarehouseError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.cut().transpose()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::ipc::writer::StreamWriter;

    /// The schema's bytes, and those of a batch.
    fn messages() -> (Vec<u8>, Vec<u8>, RecordBatch) {
        let batch =
            RecordBatch::try_from_iter([("id", Arc::new(Int64Array::from(vec![1, 2, 3])) as ArrayRef)]).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        let schema = writer.get_ref().clone();
        writer.write(&batch).unwrap();
        let both = writer.get_ref().clone();
        (schema.clone(), both[schema.len()..].to_vec(), batch)
    }

    #[test]
    fn an_end_of_stream_marker_may_follow_or_not() {
        let (schema, message, batch) = messages();
        let marked = |bytes: &[u8]| [bytes, &CONTINUATION, &[0; 4]].concat();
        for (schema, message) in [(schema.clone(), message.clone()), (marked(&schema), marked(&message))] {
            let mut decoder = Decoder::new(schema.clone()).unwrap();
            for _ in 0..2 {
                assert_eq!(decoder.decode(message.clone()).unwrap(), std::slice::from_ref(&batch));
            }
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_no_crash() {
        let (schema, message, _) = messages();
        assert!(Decoder::new(Vec::new()).is_err());
        assert!(Decoder::new(schema[..20].to_vec()).is_err());
        assert!(Decoder::new(message.clone()).is_err());
        let mut decoder = Decoder::new(schema).unwrap();
        assert!(decoder.decode(message[..message.len() - 8].to_vec()).is_err());
    }
}
