//! CSV as RFC 4180 says, with a line of names first. A field without quotes that is empty is null.
//!
//! Read record by record rather than through Arrow's reader, which gives up at the first record that it cannot read.

use std::borrow::Cow;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use super::lines::{Line, MAX_LINE_BYTES, next_line, skip_bom};
use super::{BatchBuilder, Columns, Format, RowBatch, Rows};
use crate::uploads::UploadError;
use crate::uploads::report::Fault;

pub(super) struct Csv {
    reader: BufReader<File>,
    columns: Columns,
    own: Vec<String>,
    /// Where each field goes.
    positions: Vec<usize>,
    record: Record,
    line: u64,
    buffer: Vec<u8>,
}

impl Csv {
    pub fn open(path: &Path, known: &[String]) -> Result<Self, UploadError> {
        let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
        skip_bom(&mut reader)?;
        let (columns, record) = (Columns::new(known), Record::default());
        let (own, positions) = (Vec::new(), Vec::new());
        let mut csv = Self { reader, columns, own, positions, record, line: 0, buffer: Vec::new() };
        if csv.next_record()?.is_none() {
            return Err(UploadError::Empty);
        }
        let format = Format::Csv.as_str();
        if let Some(message) = csv.record.fault.take() {
            return Err(UploadError::Unreadable { format, line: 1, column: 1, message });
        }
        for field in 0..csv.record.len() {
            let name = match csv.record.text(field) {
                Ok(name) => name.unwrap_or_default().trim().to_string(),
                Err(message) => return Err(UploadError::Unreadable { format, line: 1, column: 1, message }),
            };
            if csv.own.contains(&name) {
                return Err(UploadError::Column { column: name, message: "it comes twice".into() });
            }
            csv.own.push(name);
        }
        csv.columns
            .admit(csv.own.iter().map(String::as_str))
            .map_err(|(column, message)| UploadError::Column { column, message })?;
        csv.positions = csv.own.iter().filter_map(|name| csv.columns.position(name)).collect();
        Ok(csv)
    }

    /// Reads the next record that is not blank; the line that it begins in.
    fn next_record(&mut self) -> Result<Option<u64>, UploadError> {
        loop {
            self.record.clear();
            let begins = self.line + 1;
            let mut bytes = 0;
            loop {
                let Some(found) = next_line(&mut self.reader, &mut self.buffer)? else {
                    if self.line < begins {
                        return Ok(None);
                    }
                    self.record.fault = Some("a quote is not closed until the end".into());
                    return Ok(Some(begins));
                };
                self.line += 1;
                bytes += self.buffer.len();
                if found == Line::TooLong || bytes > MAX_LINE_BYTES {
                    self.record.fault = Some(match self.line - begins {
                        0 => format!("a record has at most {MAX_LINE_BYTES} bytes"),
                        _ => format!("a quote is not closed within {MAX_LINE_BYTES} bytes, up to line {}", self.line),
                    });
                    break;
                }
                if self.record.feed(&self.buffer) {
                    break;
                }
            }
            if !self.record.is_blank() {
                return Ok(Some(begins));
            }
        }
    }
}

impl Rows for Csv {
    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn own_columns(&self) -> Vec<String> {
        self.own.clone()
    }

    fn next_batch(&mut self) -> Result<Option<RowBatch>, UploadError> {
        let mut batch = BatchBuilder::new(self.columns.names().len());
        while !batch.is_full() {
            let Some(line) = self.next_record()? else { break };
            if let Some(fault) = self.record.fault.take() {
                batch.fault(line, Fault::Unreadable, fault);
                continue;
            }
            let (fields, names) = (self.record.len(), self.positions.len());
            if fields != names {
                batch.fault(line, Fault::Unreadable, format!("it has {fields} fields, the first line {names}"));
                continue;
            }
            let texts: Result<Vec<_>, _> = (0..fields).map(|field| self.record.text(field)).collect();
            match texts {
                Ok(texts) => {
                    let texts = texts.into_iter().map(|text| text.map(Cow::Borrowed));
                    batch.push(line, self.positions.iter().copied().zip(texts));
                }
                Err(fault) => batch.fault(line, Fault::Unreadable, fault),
            }
        }
        Ok(batch.take())
    }
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    FieldBegins,
    Plain,
    Quoted,
    /// A quote within quotes: the end, or the first half of two.
    QuoteSeen,
}

/// A record as it is read, line by line.
#[derive(Debug, Default)]
struct Record {
    bytes: Vec<u8>,
    /// The end of each field, and whether it had quotes.
    ends: Vec<(usize, bool)>,
    quoted: bool,
    state: State,
    fault: Option<String>,
}

impl Record {
    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.quoted, self.state, self.fault) = (false, State::FieldBegins, None);
    }

    /// Takes a line (without its `\n`). True: the record is complete.
    fn feed(&mut self, line: &[u8]) -> bool {
        let (line, has_return) = match line.strip_suffix(b"\r") {
            Some(line) => (line, true),
            None => (line, false),
        };
        for byte in line {
            match (self.state, byte) {
                (State::FieldBegins, b'"') => (self.state, self.quoted) = (State::Quoted, true),
                (State::FieldBegins | State::Plain | State::QuoteSeen, b',') => self.end_field(),
                (State::FieldBegins | State::Plain, byte) => {
                    self.state = State::Plain;
                    self.bytes.push(*byte);
                }
                (State::Quoted, b'"') => self.state = State::QuoteSeen,
                (State::Quoted, byte) => self.bytes.push(*byte),
                (State::QuoteSeen, b'"') => {
                    self.state = State::Quoted;
                    self.bytes.push(b'"');
                }
                (State::QuoteSeen, _) => {
                    self.fault = Some("text follows a closing quote".into());
                    return true;
                }
            }
        }
        if self.state == State::Quoted {
            self.bytes.extend_from_slice(if has_return { b"\r\n" } else { b"\n" });
            return false;
        }
        self.end_field();
        true
    }

    fn end_field(&mut self) {
        self.ends.push((self.bytes.len(), self.quoted));
        (self.quoted, self.state) = (false, State::FieldBegins);
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn is_blank(&self) -> bool {
        self.fault.is_none() && self.ends == [(0, false)]
    }

    fn text(&self, field: usize) -> Result<Option<&str>, String> {
        let begin = if field == 0 { 0 } else { self.ends[field - 1].0 };
        let (end, quoted) = self.ends[field];
        let text = std::str::from_utf8(&self.bytes[begin..end]).map_err(|_| "this is not UTF-8".to_string())?;
        Ok((quoted || !text.is_empty()).then_some(text))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};

    /// Line and cells.
    type Read = Vec<(u64, Vec<Option<String>>)>;

    fn read(text: &[u8]) -> (Read, Vec<(u64, String)>) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let mut csv = Csv::open(file.path(), &[]).unwrap();
        let (mut rows, mut faults) = (Vec::new(), Vec::new());
        while let Some(batch) = csv.next_batch().unwrap() {
            for (row, line) in batch.lines.iter().enumerate() {
                let cells = batch.columns.iter().map(|column| {
                    let column = column.as_string::<i32>();
                    column.is_valid(row).then(|| column.value(row).to_string())
                });
                rows.push((*line, cells.collect()));
            }
            faults.extend(batch.faults.into_iter().map(|fault| (fault.line, fault.detail)));
        }
        (rows, faults)
    }

    fn row(line: u64, cells: [Option<&str>; 2]) -> (u64, Vec<Option<String>>) {
        (line, cells.map(|cell| cell.map(str::to_string)).to_vec())
    }

    #[test]
    fn quotes_commas_and_line_breaks_are_kept() {
        let text = b"\xef\xbb\xbfa,b\r\n1,\"x,\"\"y\"\"\r\nz\"\r\n\r\n,\"\"\n5\" pipe,last";
        let (rows, faults) = read(text);
        let expected = [
            row(2, [Some("1"), Some("x,\"y\"\r\nz")]),
            row(5, [None, Some("")]),
            row(6, [Some("5\" pipe"), Some("last")]),
        ];
        assert_eq!(rows, expected);
        assert_eq!(faults, []);
    }

    #[test]
    fn a_record_that_cannot_be_read_stops_no_other() {
        let (rows, faults) = read(b"a,b\n1\n\"x\"y,2\n\xff,2\n3,4\n\"open,5\n6,7\n");
        assert_eq!(rows, [row(5, [Some("3"), Some("4")])]);
        let lines: Vec<u64> = faults.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 3, 4, 6], "{faults:?}");
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read(cells in proptest::collection::vec(("[a\",\n\r é]{0,6}", "[a\",\n é]{0,6}"), 0..20)) {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let mut text = String::from("a,b\n");
            for (a, b) in &cells {
                text += &format!("{},{}\n", quoted(a), quoted(b));
            }
            let (rows, faults) = read(text.as_bytes());
            proptest::prop_assert_eq!(faults, vec![]);
            let read: Vec<_> = rows.into_iter().map(|(_, row)| (row[0].clone().unwrap(), row[1].clone().unwrap())).collect();
            proptest::prop_assert_eq!(read, cells);
        }
    }
}
