//! The framing of `COPY … (FORMAT binary)`: a header, rows of length-prefixed fields, a trailer.
//!
//! Servers send one row a message, but nothing promises it: a row may span chunks and a chunk may hold many rows.

use arrow::array::RecordBatch;

use super::decode::RowDecoder;
use crate::warehouse::WarehouseError;

const SIGNATURE: &[u8] = b"PGCOPY\n\xff\r\n\0";
/// Batches of wide rows end here, whatever their number of rows.
const BATCH_BYTES: usize = 4 << 20;

/// Where the fields of a row lie in it; null has no place.
type Fields = Vec<Option<(usize, usize)>>;

enum Frame {
    /// More bytes are needed.
    Incomplete,
    Row {
        length: usize,
    },
    Trailer {
        length: usize,
    },
}

/// Reads the rows of one `COPY`.
pub(super) struct CopyReader {
    decoder: RowDecoder,
    batch_rows: usize,
    /// The start of a row whose end has not come yet.
    pending: Vec<u8>,
    fields: Fields,
    stage: Stage,
}

#[derive(PartialEq, Eq)]
enum Stage {
    Header,
    Rows,
    End,
}

impl CopyReader {
    pub(super) fn new(decoder: RowDecoder, batch_rows: usize) -> Self {
        let fields = Vec::with_capacity(decoder.width());
        Self { decoder, batch_rows: batch_rows.max(1), pending: Vec::new(), fields, stage: Stage::Header }
    }

    /// Takes what came; full batches are pushed to `ready`.
    pub(super) fn feed(&mut self, chunk: &[u8], ready: &mut Vec<RecordBatch>) -> Result<(), WarehouseError> {
        if self.pending.is_empty() {
            let used = self.consume(chunk, ready)?;
            self.pending.extend_from_slice(&chunk[used..]);
        } else {
            let mut whole = std::mem::take(&mut self.pending);
            whole.extend_from_slice(chunk);
            let used = self.consume(&whole, ready)?;
            whole.drain(..used);
            self.pending = whole;
        }
        Ok(())
    }

    /// The rows that no batch holds yet. An error when the stream ended before its trailer.
    pub(super) fn finish(&mut self) -> Result<Option<RecordBatch>, WarehouseError> {
        if self.stage != Stage::End || !self.pending.is_empty() {
            return Err(WarehouseError::retry("the rows ended before their end mark")
                .with_hint("the connection to the server broke; try again"));
        }
        (self.decoder.rows() > 0).then(|| self.decoder.take()).transpose()
    }

    /// Reads whole frames; tells how many bytes they took.
    fn consume(&mut self, bytes: &[u8], ready: &mut Vec<RecordBatch>) -> Result<usize, WarehouseError> {
        let mut at = 0;
        if self.stage == Stage::Header {
            match header_length(bytes)? {
                Some(length) => at = length,
                None => return Ok(0),
            }
            self.stage = Stage::Rows;
        }
        while self.stage == Stage::Rows {
            let rest = &bytes[at..];
            match frame(rest, self.decoder.width(), &mut self.fields)? {
                Frame::Incomplete => break,
                Frame::Row { length } => {
                    for (column, place) in self.fields.iter().enumerate() {
                        self.decoder.append(column, place.map(|(start, end)| &rest[start..end]))?;
                    }
                    self.decoder.end_row();
                    at += length;
                    if self.decoder.rows() >= self.batch_rows || self.decoder.bytes() >= BATCH_BYTES {
                        ready.push(self.decoder.take()?);
                    }
                }
                Frame::Trailer { length } => {
                    at += length;
                    self.stage = Stage::End;
                }
            }
        }
        if self.stage == Stage::End && at < bytes.len() {
            return Err(broken("more bytes after the end mark"));
        }
        Ok(at)
    }
}

fn broken(what: &str) -> WarehouseError {
    WarehouseError::bug(format!("the server sent a malformed COPY stream: {what}"))
}

/// The header's length, once all of it is there.
fn header_length(bytes: &[u8]) -> Result<Option<usize>, WarehouseError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(broken("no signature"));
    }
    let (Some(flags), Some(extension)) = (word(bytes, SIGNATURE.len()), word(bytes, SIGNATURE.len() + 4)) else {
        return Ok(None);
    };
    // bits 16 to 31 change the format in ways that a reader must know
    if flags.cast_unsigned() >> 16 != 0 {
        return Err(broken("an unknown format flag"));
    }
    let extension = usize::try_from(extension).map_err(|_| broken("a negative length"))?;
    let length = SIGNATURE.len() + 8 + extension;
    Ok((bytes.len() >= length).then_some(length))
}

/// Finds the fields of the row that `bytes` begins with. They are taken only once the whole row is there.
#[inline]
fn frame(bytes: &[u8], width: usize, fields: &mut Fields) -> Result<Frame, WarehouseError> {
    fields.clear();
    let Some(count) = bytes.first_chunk::<2>().map(|c| i16::from_be_bytes(*c)) else { return Ok(Frame::Incomplete) };
    if count == -1 {
        return Ok(Frame::Trailer { length: 2 });
    }
    if usize::try_from(count) != Ok(width) {
        return Err(broken("a row with another number of fields"));
    }
    let mut at = 2;
    for _ in 0..width {
        let Some(length) = word(bytes, at) else { return Ok(Frame::Incomplete) };
        at += 4;
        if length == -1 {
            fields.push(None);
            continue;
        }
        let end = at + usize::try_from(length).map_err(|_| broken("a negative length"))?;
        if end > bytes.len() {
            return Ok(Frame::Incomplete);
        }
        fields.push(Some((at, end)));
        at = end;
    }
    Ok(Frame::Row { length: at })
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<i32> {
    bytes.get(at..).and_then(|b| b.first_chunk::<4>()).map(|w| i32::from_be_bytes(*w))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::sync::Arc;

    use arrow::array::AsArray;
    use arrow::compute::concat_batches;
    use arrow::datatypes::{DataType, Field, Int32Type, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::warehouse::postgres::decode::Carrier;

    fn reader(batch_rows: usize) -> CopyReader {
        let schema =
            Schema::new(vec![Field::new("id", DataType::Int32, true), Field::new("name", DataType::Utf8, true)]);
        let carriers = [Carrier::Int32, Carrier::Text { validated: true }];
        CopyReader::new(RowDecoder::new(Arc::new(schema), carriers.into_iter(), batch_rows), batch_rows)
    }

    fn stream(rows: &[(Option<i32>, Option<String>)]) -> Vec<u8> {
        let mut bytes = [SIGNATURE, &[0; 8]].concat();
        for (id, name) in rows {
            bytes.extend(2i16.to_be_bytes());
            for field in [id.map(|i| i.to_be_bytes().to_vec()), name.clone().map(String::into_bytes)] {
                match field {
                    Some(field) => {
                        bytes.extend((field.len() as i32).to_be_bytes());
                        bytes.extend(field);
                    }
                    None => bytes.extend((-1i32).to_be_bytes()),
                }
            }
        }
        bytes.extend((-1i16).to_be_bytes());
        bytes
    }

    proptest! {
        #[test]
        fn rows_are_whole_however_they_are_cut(
            rows in prop::collection::vec((any::<Option<i32>>(), prop::option::of(".{0,20}")), 0..40),
            cuts in prop::collection::vec(1usize..60, 1..20),
            batch_rows in 1usize..10,
        ) {
            let bytes = stream(&rows);
            let mut reader = reader(batch_rows);
            let (mut batches, mut rest) = (Vec::new(), bytes.as_slice());
            for size in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (chunk, after) = rest.split_at((*size).min(rest.len()));
                reader.feed(chunk, &mut batches).unwrap();
                rest = after;
            }
            batches.extend(reader.finish().unwrap());
            prop_assert!(batches.iter().all(|b| b.num_rows() <= batch_rows));
            let all = concat_batches(&reader.decoder.take().unwrap().schema(), &batches).unwrap();
            let ids = all.column(0).as_primitive::<Int32Type>();
            let names = all.column(1).as_string::<i32>();
            let read: Vec<_> = ids.iter().zip(names.iter()).map(|(i, n)| (i, n.map(str::to_string))).collect();
            prop_assert_eq!(read, rows);
        }
    }

    #[test]
    fn a_stream_without_its_end_is_an_error_worth_another_try() {
        let bytes = stream(&[(Some(1), None)]);
        let mut reader = reader(10);
        reader.feed(&bytes[..bytes.len() - 2], &mut Vec::new()).unwrap();
        assert!(reader.finish().unwrap_err().is_retryable());
    }

    #[test]
    fn malformed_streams_are_refused() {
        let good = stream(&[(Some(1), None)]);
        let mut flags = good.clone();
        flags[SIGNATURE.len() + 1] = 1;
        let mut width = good.clone();
        width[SIGNATURE.len() + 9] = 3;
        let trailing = [good.as_slice(), &[0]].concat();
        for bytes in [b"not a copy".to_vec(), flags, width, trailing] {
            assert!(reader(10).feed(&bytes, &mut Vec::new()).is_err());
        }
    }
}
