//! A file of the project as it may be shown, and places in it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ConfigError;

/// What stands in a snippet where a secret's value was.
const MASK: &str = "******";

/// A place in a file as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// From 1; 0 in a span that stands for no place.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// In bytes, from the start of the file.
    pub offset: usize,
    /// In bytes.
    pub length: usize,
}

impl Span {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1, offset: 0, length: 0 };

    pub(super) fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.length
    }
}

/// A file's text with the values of secrets replaced. The text as written is not kept.
#[derive(Clone)]
pub struct Source {
    /// Relative to the project's directory.
    pub file: PathBuf,
    shown: Arc<str>,
    /// What was replaced: its range as written, and the length of what stands there now.
    replaced: Vec<(Range<usize>, usize)>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Source {
    /// `hidden`: byte ranges of `text` that must not be shown, in any order; they may overlap.
    pub(super) fn new(file: impl Into<PathBuf>, text: &str, mut hidden: Vec<Range<usize>>) -> Self {
        hidden.retain(|r| r.start < r.end && text.get(r.clone()).is_some());
        hidden.sort_by_key(|r| (r.start, r.end));
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(hidden.len());
        for range in hidden {
            match merged.last_mut() {
                Some(last) if range.start < last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        let mut shown = String::with_capacity(text.len());
        let mut replaced = Vec::with_capacity(merged.len());
        let mut from = 0;
        for range in merged {
            shown.push_str(&text[from..range.start]);
            let before = shown.len();
            shown.push_str(MASK);
            // as many lines as before, so that what follows keeps its line number
            shown.extend(text[range.clone()].chars().filter(|c| *c == '\n'));
            replaced.push((range.clone(), shown.len() - before));
            from = range.end;
        }
        shown.push_str(&text[from..]);
        Self { file: file.into(), shown: shown.into(), replaced }
    }

    /// Where a byte as written is shown.
    fn shown_at(&self, offset: usize) -> usize {
        let mut shift = 0_isize;
        for (range, length) in &self.replaced {
            if offset < range.start {
                break;
            }
            if offset < range.end {
                return range.start.saturating_add_signed(shift);
            }
            shift += *length as isize - range.len() as isize;
        }
        offset.saturating_add_signed(shift).min(self.shown.len())
    }

    /// A fault at a place of this file.
    pub(crate) fn error(&self, code: &'static str, span: Span, message: impl Into<String>) -> ConfigError {
        let start = self.shown_at(span.offset);
        let end = self.shown_at(span.offset + span.length).max(start);
        // a caret under the first line says where; more would fill the screen
        let text = self.shown.get(start..end).unwrap_or("");
        let length = text.lines().next().map_or(0, |line| line.trim_end().len());
        ConfigError {
            code,
            message: message.into(),
            hint: None,
            file: self.file.clone(),
            line: span.line.max(1),
            column: span.column.max(1),
            length: if length == 0 && start < self.shown.len() { self.first_char_len(start) } else { length },
            source_text: Arc::clone(&self.shown),
            offset: start,
        }
    }

    /// The bytes of the character there; none at the end of a line.
    fn first_char_len(&self, at: usize) -> usize {
        self.shown.get(at..).and_then(|t| t.chars().next()).filter(|c| !c.is_control()).map_or(0, char::len_utf8)
    }
}

/// Where the parts of a model or a connection stand in their file, by a dotted path such as `activated_fields.brand`.
/// Empty for what was not read from a file.
#[derive(Clone, Default)]
pub struct Spans {
    source: Option<Arc<Source>>,
    at: BTreeMap<String, Span>,
}

impl std::fmt::Debug for Spans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.at.keys()).finish()
    }
}

impl Spans {
    pub(super) fn new(source: Arc<Source>) -> Self {
        Self { source: Some(source), at: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, path: impl Into<String>, span: Span) {
        self.at.insert(path.into(), span);
    }

    /// The place of that part, or of the nearest whole that has one.
    pub fn get(&self, path: &str) -> Option<Span> {
        let mut path = path;
        loop {
            if let Some(span) = self.at.get(path) {
                return Some(*span);
            }
            path = path.rsplit_once('.')?.0;
        }
    }

    /// A fault of that part; of `file` as a whole when nothing is known of its place.
    pub(crate) fn error(&self, path: &str, code: &'static str, file: &Path, message: String) -> ConfigError {
        match &self.source {
            Some(source) => source.error(code, self.get(path).unwrap_or(Span::START), message),
            None => ConfigError::of_file(code, file, message),
        }
    }
}
