//! One JSON object a line. Read twice: first for the names of all fields, then for the rows.

use std::fs::File;
use std::io::{BufReader, Seek};
use std::path::Path;

use super::json::{self, JsonFault};
use super::lines::{Line, MAX_LINE_BYTES, next_line, skip_bom};
use super::{BatchBuilder, Columns, Format, RowBatch, Rows};
use crate::uploads::UploadError;
use crate::uploads::report::Fault;

pub(super) struct Ndjson {
    reader: BufReader<File>,
    columns: Columns,
    own: Vec<String>,
    identities: Vec<String>,
    line: u64,
    buffer: Vec<u8>,
}

impl Ndjson {
    pub fn open(path: &Path, known: &[String], identities: &[String]) -> Result<Self, UploadError> {
        let mut reader = BufReader::with_capacity(256 << 10, File::open(path)?);
        skip_bom(&mut reader)?;
        let mut columns = Columns::new(known);
        let (mut own, mut seen): (Vec<String>, Vec<bool>) = (Vec::new(), Vec::new());
        let (mut buffer, mut line, mut readable) = (Vec::new(), 0, false);
        let mut first_fault: Option<(u64, JsonFault)> = None;
        while let Some(found) = next_line(&mut reader, &mut buffer)? {
            line += 1;
            if is_blank(&buffer) && found == Line::Whole {
                continue;
            }
            let parsed = match found {
                Line::Whole => json::object(&buffer),
                Line::TooLong => Err(JsonFault { at: MAX_LINE_BYTES, message: too_long() }),
            };
            match parsed {
                Ok(fields) => {
                    readable = true;
                    // a row with a name that cannot be taken is set aside when its turn comes
                    if columns.admit(fields.iter().map(|(name, _)| name.as_str())).is_ok() {
                        seen.resize(columns.names().len(), false);
                        for (name, _) in &fields {
                            let is_new =
                                columns.position(name).is_some_and(|at| !std::mem::replace(&mut seen[at], true));
                            own.extend(is_new.then(|| name.clone()));
                        }
                    }
                }
                Err(fault) => drop(first_fault.get_or_insert((line, fault))),
            }
        }
        match (readable, first_fault) {
            (true, _) => {}
            (false, None) => return Err(UploadError::Empty),
            (false, Some((line, JsonFault { at, message }))) => {
                let (format, column) = (Format::Ndjson.as_str(), at as u64 + 1);
                return Err(UploadError::Unreadable { format, line, column, message });
            }
        }
        reader.rewind()?;
        skip_bom(&mut reader)?;
        Ok(Self { reader, columns, own, identities: identities.to_vec(), line: 0, buffer })
    }

    fn row(&self, batch: &mut BatchBuilder) {
        let line = self.line;
        let fields = match json::object(&self.buffer) {
            Ok(fields) => fields,
            Err(JsonFault { at, message }) => {
                return batch.fault(line, Fault::Unreadable, format!("column {}: {message}", at + 1));
            }
        };
        if let Some((name, _)) = fields.iter().find(|(name, _)| self.columns.position(name).is_none()) {
            // alone it might do, but not beside the others of its row
            let why = self.columns.fault(name, 0).unwrap_or_else(|| "it came in a row that was set aside".into());
            return batch.fault(line, Fault::BadColumn, format!("`{name}`: {why}"));
        }
        for (name, cell) in fields.iter().filter(|(name, _)| self.identities.contains(name)) {
            if let Some(why) = cell.identity_fault() {
                return batch.fault(line, Fault::BadIdentity, format!("{name}: {why}"));
            }
        }
        let cells = fields.iter().filter_map(|(name, cell)| Some((self.columns.position(name)?, cell.text())));
        batch.push(line, cells);
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

fn too_long() -> String {
    format!("a line has at most {MAX_LINE_BYTES} bytes")
}

impl Rows for Ndjson {
    fn columns(&self) -> &Columns {
        &self.columns
    }

    fn own_columns(&self) -> Vec<String> {
        self.own.clone()
    }

    fn next_batch(&mut self) -> Result<Option<RowBatch>, UploadError> {
        let mut batch = BatchBuilder::new(self.columns.names().len());
        while !batch.is_full() {
            let Some(found) = next_line(&mut self.reader, &mut self.buffer)? else { break };
            self.line += 1;
            match found {
                Line::TooLong => batch.fault(self.line, Fault::Unreadable, too_long()),
                Line::Whole if is_blank(&self.buffer) => {}
                Line::Whole => self.row(&mut batch),
            }
        }
        Ok(batch.take())
    }
}
