//! A mapping read key by key, collecting faults instead of stopping at the first.
//!
//! Every reader returns `None` after reporting what is wrong, so the caller goes on with the rest.

use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::source::{Source, Span};
use super::suggest;
use super::yaml::{Kind, Node, Value};
use super::{ConfigError, keys};

/// A file under decoding, and the faults found in it.
pub(super) struct File {
    pub source: Arc<Source>,
    faults: RefCell<Vec<ConfigError>>,
}

impl File {
    pub fn new(source: Source) -> Self {
        Self { source: Arc::new(source), faults: RefCell::default() }
    }

    pub fn fault(&self, code: &'static str, span: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.faults.borrow_mut().push(self.source.error(code, span, message).with_hint(hint));
    }

    pub fn into_faults(self) -> Vec<ConfigError> {
        self.faults.into_inner()
    }
}

/// A text and its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Text<'a> {
    pub value: &'a str,
    pub span: Span,
}

/// One key and its value.
#[derive(Clone, Copy)]
pub(super) struct Entry<'a> {
    pub key: Text<'a>,
    pub node: &'a Node,
}

/// The entries of a mapping, each key once; repeated keys and keys that are no text are reported.
pub(super) fn entries<'a>(file: &File, what: &str, at: Span, node: &'a Node) -> Option<Vec<Entry<'a>>> {
    let pairs = match &node.value {
        Value::Mapping(pairs) => pairs,
        Value::Scalar(_, Kind::Null) => return Some(Vec::new()),
        _ => {
            let span = if node.span.length > 0 { node.span } else { at };
            let message = format!("{what} has to be a mapping (`key: value`), not {}", node.describe());
            file.fault("wrong-type", span, message, "write one `key: value` a line, indented under it");
            return None;
        }
    };
    let mut found: Vec<Entry<'a>> = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        let (key, node): (&'a Node, &'a Node) = (key, value);
        let Value::Scalar(name, _) = &key.value else {
            file.fault("wrong-type", key.span, format!("a key of {what} has to be text"), "write `key: value`");
            continue;
        };
        let entry = Entry { key: Text { value: name, span: key.span }, node };
        if let Some(first) = found.iter().find(|e| e.key.value == name) {
            let message = format!("`{name}` is given twice in {what}");
            let hint = format!("it is first given in line {}; keep one of them", first.key.span.line);
            file.fault("duplicate-key", key.span, message, hint);
            continue;
        }
        found.push(entry);
    }
    Some(found)
}

/// A mapping with known keys.
pub(super) struct Decoder<'a> {
    file: &'a File,
    what: String,
    at: Span,
    known: &'static [&'static str],
    entries: Vec<Entry<'a>>,
}

impl<'a> Decoder<'a> {
    /// `what`: as in "… has to be a mapping"; `at`: where the mapping is announced, for what it lacks.
    pub fn new(
        file: &'a File,
        what: impl Into<String>,
        at: Span,
        node: &'a Node,
        known: &'static [&'static str],
    ) -> Option<Self> {
        let what = what.into();
        let entries = entries(file, &what, at, node)?;
        for entry in entries.iter().filter(|e| !known.contains(&e.key.value)) {
            let key = entry.key.value;
            let message = format!("`{key}` is not a key of {what}");
            let hint = match suggest::nearest(key, known.iter().copied()) {
                Some(candidate) => format!("did you mean `{candidate}`?"),
                None => keys::elsewhere(key, known)
                    .unwrap_or_else(|| format!("the keys of {what} are {}", suggest::list(known))),
            };
            file.fault("unknown-key", entry.key.span, message, hint);
        }
        Some(Self { file, what, at, known, entries })
    }

    /// The entry, when it is given and holds something.
    pub fn given(&self, key: &str) -> Option<Entry<'a>> {
        debug_assert!(self.known.contains(&key), "`{key}` is read but not listed");
        self.entries.iter().find(|e| e.key.value == key && !e.node.is_null()).copied()
    }

    /// Where the key stands, even when it holds nothing; else where the mapping is announced.
    pub fn place(&self, key: &str) -> Span {
        self.entries.iter().find(|e| e.key.value == key).map_or(self.at, |e| e.key.span)
    }

    pub fn required(&self, key: &str, hint: &str) -> Option<Entry<'a>> {
        let entry = self.given(key);
        if entry.is_none() {
            let empty = self.entries.iter().any(|e| e.key.value == key);
            let message = if empty { format!("`{key}` is empty") } else { format!("{} has no `{key}`", self.what) };
            self.file.fault("missing-key", self.place(key), message, hint);
        }
        entry
    }

    pub fn required_text(&self, key: &str, hint: &str) -> Option<Text<'a>> {
        let entry = self.required(key, hint)?;
        text(self.file, &format!("`{key}`"), entry.node)
    }

    pub fn text(&self, key: &str) -> Option<Text<'a>> {
        text(self.file, &format!("`{key}`"), self.given(key)?.node)
    }

    pub fn bool(&self, key: &str) -> Option<bool> {
        let node = self.given(key)?.node;
        if let Value::Scalar(_, Kind::Bool(value)) = node.value {
            return Some(value);
        }
        let message = format!("`{key}` has to be true or false, not {}", node.describe());
        self.file.fault("wrong-type", node.span, message, format!("write `{key}: true` or `{key}: false`"));
        None
    }

    pub fn u64(&self, key: &str) -> Option<u64> {
        let node = self.given(key)?.node;
        let hint = format!("for example `{key}: 1000`");
        match node.value {
            Value::Scalar(_, Kind::Integer(value)) => match u64::try_from(value) {
                Ok(value) => return Some(value),
                Err(_) => self.file.fault("out-of-range", node.span, format!("`{key}` may not be negative"), hint),
            },
            _ => {
                let message = format!("`{key}` has to be a whole number, not {}", node.describe());
                self.file.fault("wrong-type", node.span, message, hint);
            }
        }
        None
    }

    pub fn f64(&self, key: &str, range: RangeInclusive<f64>) -> Option<f64> {
        let node = self.given(key)?.node;
        let hint = format!("write a number from {} to {}", range.start(), range.end());
        let value = match node.value {
            Value::Scalar(_, Kind::Integer(value)) => value as f64,
            Value::Scalar(_, Kind::Float(value)) => value,
            _ => {
                let message = format!("`{key}` has to be a number, not {}", node.describe());
                self.file.fault("wrong-type", node.span, message, hint);
                return None;
            }
        };
        if range.contains(&value) {
            return Some(value);
        }
        let message = format!("`{key}` has to be from {} to {}", range.start(), range.end());
        self.file.fault("out-of-range", node.span, message, hint);
        None
    }

    pub fn duration(&self, key: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
        let text = self.text(key)?;
        let bounds = format!(
            "from {} to {}",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end())
        );
        match humantime::parse_duration(text.value) {
            Ok(value) if range.contains(&value) => return Some(value),
            Ok(_) => {
                let message = format!("`{key}` has to be {bounds}");
                self.file.fault("out-of-range", text.span, message, format!("for example `{key}: 30m`"));
            }
            Err(e) => {
                let message = format!("`{key}` is not a duration: {e}");
                self.file.fault("invalid-duration", text.span, message, format!("for example `{key}: 30m`; {bounds}"));
            }
        }
        None
    }

    /// A list of texts; a single text stands for a list of one.
    pub fn texts(&self, key: &str) -> Option<Vec<Text<'a>>> {
        let node = self.given(key)?.node;
        match &node.value {
            Value::Sequence(items) => {
                let what = format!("an entry of `{key}`");
                Some(items.iter().filter_map(|item| text(self.file, &what, item)).collect())
            }
            Value::Scalar(..) => text(self.file, &format!("`{key}`"), node).map(|one| vec![one]),
            Value::Mapping(_) => {
                let message = format!("`{key}` has to be a list, not {}", node.describe());
                self.file.fault("wrong-type", self.place(key), message, format!("write `{key}: [first, second]`"));
                None
            }
        }
    }
}

/// A node that has to be text.
pub(super) fn text<'a>(file: &File, what: &str, node: &'a Node) -> Option<Text<'a>> {
    match &node.value {
        Value::Scalar(value, Kind::Text) if value.trim().is_empty() => {
            file.fault("empty", node.span, format!("{what} is empty"), "write a value, or remove the line");
            None
        }
        Value::Scalar(value, Kind::Text) => Some(Text { value, span: node.span }),
        Value::Scalar(_, kind) => {
            let hint = if *kind == Kind::Null { "write a value" } else { "put it in quotes to make it text" };
            file.fault("wrong-type", node.span, format!("{what} has to be text, not {}", node.describe()), hint);
            None
        }
        _ => {
            let message = format!("{what} has to be text, not {}", node.describe());
            file.fault("wrong-type", node.span, message, "write a single value");
            None
        }
    }
}
