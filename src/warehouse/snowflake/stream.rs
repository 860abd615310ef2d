//! An Arrow IPC stream, read as the service's own drivers read it: fields that are declared as never null may hold nulls
//! all the same. (Arrow's reader refuses a stream whose timestamps, structs of fields that are never null, are null.)

use std::collections::HashMap;
use std::io::{ErrorKind, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::buffer::{Buffer, MutableBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::read_record_batch;
use arrow::ipc::{MessageHeader, convert::fb_to_schema, root_as_message};

/// Begins every message but those of old writers.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// A message's head describes buffers; a longer one is none.
const LONGEST_HEAD: usize = 64 << 20;
/// A message's buffers hold some rows of one file.
const LONGEST_BODY: usize = 1 << 30;

/// The batches of a stream.
pub(super) struct BatchStream<R> {
    reader: R,
    schema: Option<SchemaRef>,
    over: bool,
}

impl<R: Read> BatchStream<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, schema: None, over: false }
    }

    fn next_batch(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
        loop {
            let Some(head) = self.head()? else { return Ok(None) };
            let message = root_as_message(&head).map_err(|e| invalid(&format!("no message: {e}")))?;
            let length = usize::try_from(message.bodyLength()).ok().filter(|length| *length <= LONGEST_BODY);
            let length = length.ok_or_else(|| invalid("a message of no possible length"))?;
            // aligned, as Arrow's buffers have to be
            let mut body = MutableBuffer::from_len_zeroed(length);
            self.reader.read_exact(&mut body)?;
            match message.header_type() {
                MessageHeader::Schema => {
                    let schema = message.header_as_schema().ok_or_else(|| invalid("a schema without content"))?;
                    self.schema = Some(Arc::new(nullable(&fb_to_schema(schema))));
                }
                MessageHeader::RecordBatch => {
                    let batch = message.header_as_record_batch().ok_or_else(|| invalid("a batch without content"))?;
                    let schema = self.schema.clone().ok_or_else(|| invalid("a batch before its schema"))?;
                    let body: Buffer = body.into();
                    return read_record_batch(&body, batch, schema, &HashMap::new(), None, &message.version())
                        .map(Some);
                }
                MessageHeader::NONE => {}
                other => return Err(invalid(&format!("a message of the kind {other:?}"))),
            }
        }
    }

    /// The next message's head; none at the stream's end, which may be marked or not.
    fn head(&mut self) -> Result<Option<Vec<u8>>, ArrowError> {
        let mut start = [0; 4];
        match self.reader.read_exact(&mut start) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        if start == CONTINUATION {
            self.reader.read_exact(&mut start)?;
        }
        let length = u32::from_le_bytes(start) as usize;
        match length {
            0 => return Ok(None),
            1..=LONGEST_HEAD => {}
            _ => return Err(invalid("a message of no possible length")),
        }
        let mut head = vec![0; length];
        self.reader.read_exact(&mut head)?;
        Ok(Some(head))
    }
}

impl<R: Read> Iterator for BatchStream<R> {
    type Item = Result<RecordBatch, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let next = self.next_batch().transpose();
        self.over = !matches!(next, Some(Ok(_)));
        next
    }
}

fn invalid(what: &str) -> ArrowError {
    ArrowError::IpcError(what.to_string())
}

fn nullable(schema: &Schema) -> Schema {
    Schema::new_with_metadata(schema.fields().iter().map(|f| relaxed(f)).collect::<Vec<_>>(), schema.metadata().clone())
}

fn relaxed(field: &Field) -> Field {
    let field = field.clone().with_nullable(true);
    match field.data_type() {
        DataType::Struct(parts) => {
            let parts = parts.iter().map(|f| Arc::new(relaxed(f))).collect();
            field.with_data_type(DataType::Struct(parts))
        }
        _ => field,
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{Array, ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use arrow::ipc::writer::StreamWriter;

    fn written() -> Vec<u8> {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("a", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("b", Arc::new(StringArray::from(vec![Some("x"), None, Some("z")]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
        writer.write(&batch).unwrap();
        writer.write(&batch.slice(1, 2)).unwrap();
        writer.finish().unwrap();
        writer.into_inner().unwrap()
    }

    #[test]
    fn a_stream_is_read_with_and_without_its_end() {
        let whole = written();
        for bytes in [&whole[..], &whole[..whole.len() - 8]] {
            let batches: Vec<_> = BatchStream::new(bytes).collect::<Result<_, _>>().unwrap();
            assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [3, 2]);
            assert_eq!(batches[1].column(0).as_primitive::<Int64Type>().values(), &[2, 3]);
            assert!(batches[1].column(1).is_null(0));
        }
        assert_eq!(BatchStream::new(&[][..]).count(), 0);
    }

    #[test]
    fn what_breaks_off_or_is_no_stream_is_an_error() {
        let whole = written();
        for cut in [6, 40, whole.len() - 30] {
            assert!(BatchStream::new(&whole[..cut]).any(|batch| batch.is_err()), "{cut}");
        }
        assert!(BatchStream::new(&b"<?xml version=\"1.0\"?>"[..]).next().unwrap().is_err());
    }
}
