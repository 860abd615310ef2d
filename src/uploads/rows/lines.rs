//! Lines of a file, however long: one that is too long is told as such and skipped, never held.

use std::io::{BufRead, Result};

/// The longest line or record that is taken.
pub const MAX_LINE_BYTES: usize = 1 << 20;

/// What came before the line's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// It is in the buffer, without its `\n`.
    Whole,
    TooLong,
}

/// Reads the next line into `buffer`; none at the end.
pub fn next_line(reader: &mut impl BufRead, buffer: &mut Vec<u8>) -> Result<Option<Line>> {
    buffer.clear();
    let mut too_long = false;
    let mut any = false;
    loop {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            break;
        }
        any = true;
        let end = available.iter().position(|byte| *byte == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        too_long |= buffer.len() + part.len() > MAX_LINE_BYTES;
        if !too_long {
            buffer.extend_from_slice(part);
        }
        let used = end.map_or(available.len(), |end| end + 1);
        reader.consume(used);
        if end.is_some() {
            break;
        }
    }
    if !any {
        return Ok(None);
    }
    Ok(Some(if too_long { Line::TooLong } else { Line::Whole }))
}

/// Skips a byte order mark.
pub fn skip_bom(reader: &mut impl BufRead) -> Result<()> {
    if reader.fill_buf()?.starts_with(b"\xef\xbb\xbf") {
        reader.consume(3);
    }
    Ok(())
}
