//! The schema of JSON files, told by every row; and their content as one object a line.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::Schema;
use bytes::{BufMut, Bytes, BytesMut};
use datafusion::common::DataFusionError;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectMeta, ObjectStore};
use serde_json::Value;

use super::content::{self, Chunks};
use super::errors;
use super::json_shape::Record;
use super::table::{Compression, Inferred, Traits};
use crate::warehouse::WarehouseError;

/// Reads all files and infers one schema for them.
///
/// # Errors
/// Configuration when a row is no JSON object.
pub(super) async fn infer(
    store: &Arc<dyn ObjectStore>,
    files: &[ObjectMeta],
    by_line: bool,
    compression: Compression,
) -> Result<Inferred, WarehouseError> {
    let mut record = Record::default();
    for file in files {
        let mut lines = lines(store, file, by_line, compression).await.map_err(|e| errors::from_datafusion(&e))?;
        let mut number = 0_u64;
        while let Some(chunk) = lines.try_next().await.map_err(|e| errors::from_datafusion(&e))? {
            for line in chunk.split(|byte| *byte == b'\n') {
                number += 1;
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let place = || format!("{}, row {number}", file.location);
                match serde_json::from_slice::<Value>(line) {
                    Ok(Value::Object(object)) => record.look_at(&object),
                    Ok(_) => {
                        return Err(WarehouseError::configuration(format!("{} is no JSON object", place())).with_hint(
                            "a row is an object such as {\"id\": 1}; for an array of objects end the name in .json",
                        ));
                    }
                    Err(e) => {
                        return Err(WarehouseError::configuration(format!("{} is no JSON: {e}", place())).with_hint(
                            "write one object a line, or end the file's name in .json when objects span lines",
                        ));
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }
    let mut fields = Vec::new();
    let mut traits = Traits::default();
    for (name, shape) in record.fields() {
        let (field, as_text) = shape.column(name);
        fields.push(field);
        traits.mixed_scalars |= shape.mixes_scalars() && !as_text;
        if as_text {
            traits.as_text.insert(name.to_owned());
        }
    }
    Ok(Inferred { schema: Arc::new(Schema::new(fields)), traits })
}

/// A file's content in chunks of whole lines, each one JSON value.
pub(super) async fn lines(
    store: &Arc<dyn ObjectStore>,
    file: &ObjectMeta,
    by_line: bool,
    compression: Compression,
) -> Result<Chunks, DataFusionError> {
    let content = content::read(store, file, compression).await?;
    let one_a_line = if by_line {
        content
    } else {
        let mut flatten = Flatten::default();
        content.map_ok(move |chunk| flatten.push(&chunk)).boxed()
    };
    Ok(whole_lines(one_a_line))
}

/// Cuts chunks at line ends.
fn whole_lines(content: Chunks) -> Chunks {
    let state = Some((content, BytesMut::new()));
    let chunks = futures::stream::try_unfold(state, |state| async move {
        let Some((mut content, mut rest)) = state else { return Ok(None) };
        while let Some(chunk) = content.try_next().await? {
            match chunk.iter().rposition(|byte| *byte == b'\n') {
                Some(end) => {
                    rest.put_slice(&chunk[..=end]);
                    let lines = rest.split().freeze();
                    rest.put_slice(&chunk[end + 1..]);
                    return Ok(Some((lines, Some((content, rest)))));
                }
                None => rest.put_slice(&chunk),
            }
        }
        Ok((!rest.is_empty()).then(|| (rest.freeze(), None)))
    });
    chunks.boxed()
}

/// Turns `[{…}, {…}]`, or objects one after another, into one object a line, whatever the white space.
#[derive(Debug, Default)]
struct Flatten {
    /// Objects and arrays that are open, without the outermost array.
    depth: usize,
    in_array: bool,
    quoted: bool,
    escaped: bool,
}

impl Flatten {
    fn push(&mut self, chunk: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(chunk.len() + 1);
        for &byte in chunk {
            if self.quoted {
                self.quoted = self.escaped || byte != b'"';
                self.escaped = !self.escaped && byte == b'\\';
                out.put_u8(byte);
                continue;
            }
            match byte {
                b'[' if self.depth == 0 && !self.in_array => self.in_array = true,
                b']' if self.depth == 0 && self.in_array => self.in_array = false,
                b',' if self.depth == 0 && self.in_array => out.put_u8(b'\n'),
                b'\n' | b'\r' => out.put_u8(b' '),
                b'{' | b'[' => {
                    self.depth += 1;
                    out.put_u8(byte);
                }
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    out.put_u8(byte);
                    if self.depth == 0 {
                        out.put_u8(b'\n');
                    }
                }
                _ => {
                    self.quoted = byte == b'"';
                    out.put_u8(byte);
                }
            }
        }
        out.freeze()
    }
}

/// Writes the values of these columns as JSON text, so that one text column holds whatever they are.
pub(super) fn as_text(lines: &[u8], columns: &BTreeSet<String>) -> Result<Bytes, DataFusionError> {
    let external = |e: serde_json::Error| DataFusionError::External(Box::new(e));
    let mut out = BytesMut::with_capacity(lines.len() * 2).writer();
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.trim_ascii().is_empty()) {
        let mut row: serde_json::Map<String, Value> = serde_json::from_slice(line).map_err(external)?;
        for (name, value) in &mut row {
            if columns.contains(name) && !value.is_null() {
                *value = Value::String(value.to_string());
            }
        }
        serde_json::to_writer(&mut out, &row).map_err(external)?;
        out.get_mut().put_u8(b'\n');
    }
    Ok(out.into_inner().freeze())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn flattened(text: &str, chunk: usize) -> Vec<Value> {
        let mut flatten = Flatten::default();
        let out: Vec<u8> = text.as_bytes().chunks(chunk).flat_map(|part| flatten.push(part)).collect();
        let lines = out.split(|b| *b == b'\n').filter(|line| !line.trim_ascii().is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    #[test]
    fn arrays_and_objects_over_several_lines_become_one_object_a_line() {
        let rows = r#"{"a": [1,
            {"b": "]},\"\\"}]}"#;
        let value: Value = serde_json::from_str(rows).unwrap();
        for text in [format!("[{rows},\n {rows}]"), format!("{rows}\n{rows}"), format!("[\n{rows},{rows}\n]\n")] {
            for chunk in [1, 7, 1000] {
                assert_eq!(flattened(&text, chunk), vec![value.clone(), value.clone()], "{text} in chunks of {chunk}");
            }
        }
        assert!(flattened("[]", 10).is_empty());
    }
}
