//! YAML text to a tree whose every node knows its place.
//!
//! Built from the parser's events rather than from its own tree: that one drops or refuses repeated keys (each is a
//! fault to report beside the others), and forgets how a number was written (a password may look like one).

use std::borrow::Cow;
use std::collections::HashMap;
use std::rc::Rc;

use saphyr::Scalar as Resolved;
use saphyr_parser::{Event, Parser, ScalarStyle};

use super::source::Span;

/// A node and its place.
#[derive(Debug)]
pub(super) struct Node {
    pub span: Span,
    pub value: Value,
}

#[derive(Debug)]
pub(super) enum Value {
    /// The text as written (without quotes), and what the core schema makes of it.
    Scalar(String, Kind),
    Sequence(Vec<Rc<Node>>),
    /// In order, repeated keys included.
    Mapping(Vec<(Rc<Node>, Rc<Node>)>),
}

/// What a scalar stands for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    Null,
    Bool(bool),
    Integer(i64),
    Float(f64),
    Text,
}

impl Node {
    /// What people call it.
    pub fn describe(&self) -> &'static str {
        match &self.value {
            Value::Scalar(_, Kind::Null) => "nothing",
            Value::Scalar(_, Kind::Bool(_)) => "true or false",
            Value::Scalar(_, Kind::Integer(_) | Kind::Float(_)) => "a number",
            Value::Scalar(_, Kind::Text) => "text",
            Value::Sequence(_) => "a list",
            Value::Mapping(_) => "a mapping",
        }
    }

    pub fn is_null(&self) -> bool {
        matches!(self.value, Value::Scalar(_, Kind::Null))
    }
}

/// A fault of the text itself.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub span: Span,
    pub message: String,
}

/// A collection that is not closed yet.
struct Open {
    span: Span,
    anchor: usize,
    mapping: bool,
    items: Vec<Rc<Node>>,
}

/// The text's only document; `None` when it holds nothing.
pub(super) fn parse(text: &str) -> Result<Option<Rc<Node>>, SyntaxError> {
    let offsets = Offsets::new(text);
    let protected = protect(text);
    let mut open: Vec<Open> = Vec::new();
    let mut anchors: HashMap<usize, Rc<Node>> = HashMap::new();
    let mut root: Option<Rc<Node>> = None;
    for event in Parser::new_from_str(&protected) {
        let (event, at) = event.map_err(|e| {
            let mark = e.marker();
            let span = offsets.span(mark.index(), mark.index(), mark.line(), mark.col());
            SyntaxError { span, message: format!("this is not YAML: {}", e.info()) }
        })?;
        let span = offsets.span(at.start.index(), at.end.index(), at.start.line(), at.start.col());
        let (node, anchor) = match event {
            Event::Scalar(value, style, anchor, tag) => {
                let value = unprotect(value);
                let kind = if value.is_empty() && style == ScalarStyle::Plain {
                    Kind::Null
                } else {
                    match Resolved::parse_from_cow_and_metadata(value.clone(), style, tag.as_ref()) {
                        Some(Resolved::Null) => Kind::Null,
                        Some(Resolved::Boolean(b)) => Kind::Bool(b),
                        Some(Resolved::Integer(i)) => Kind::Integer(i),
                        Some(Resolved::FloatingPoint(f)) => Kind::Float(f.into_inner()),
                        Some(Resolved::String(_)) => Kind::Text,
                        None => return Err(SyntaxError { span, message: "the value does not fit its tag".into() }),
                    }
                };
                (Rc::new(Node { span, value: Value::Scalar(value.into_owned(), kind) }), anchor)
            }
            Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _) => {
                let mapping = matches!(event, Event::MappingStart(..));
                open.push(Open { span, anchor, mapping, items: Vec::new() });
                continue;
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(mut done) = open.pop() else { continue };
                done.span.length = (span.offset + span.length).saturating_sub(done.span.offset);
                let value = if done.mapping { Value::Mapping(pairs(done.items)) } else { Value::Sequence(done.items) };
                (Rc::new(Node { span: done.span, value }), done.anchor)
            }
            Event::Alias(id) => match anchors.get(&id) {
                Some(node) => (Rc::clone(node), 0),
                None => {
                    return Err(SyntaxError { span, message: "an alias may not stand inside its own anchor".into() });
                }
            },
            Event::DocumentStart(_) if root.is_some() => {
                return Err(SyntaxError {
                    span,
                    message: "a file holds one document, and a second one starts here".into(),
                });
            }
            _ => continue,
        };
        if anchor > 0 {
            anchors.insert(anchor, Rc::clone(&node));
        }
        match open.last_mut() {
            Some(parent) => parent.items.push(node),
            None => root = Some(node),
        }
    }
    Ok(root.filter(|node| !node.is_null()))
}

/// What stands for the braces of a reference while YAML is parsed; never used by texts (private use area).
const BRACES: [char; 2] = ['\u{f8d0}', '\u{f8d1}'];

/// Makes `{ password: ${env:NAME} }` what its author means: to YAML, an unquoted brace ends a text inside braces. The
/// number of characters stays, and with it every place.
fn protect(text: &str) -> Cow<'_, str> {
    if !text.contains("${") || text.contains(BRACES) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, reference) = rest.split_at(at);
        out.push_str(before);
        let inner = &reference[2..];
        let length = inner.find(|c: char| c.is_whitespace() || matches!(c, '{' | '}' | ',' | '"' | '\''));
        match length {
            Some(length) if inner[length..].starts_with('}') => {
                out.push('$');
                out.push(BRACES[0]);
                out.push_str(&inner[..length]);
                out.push(BRACES[1]);
                rest = &inner[length + 1..];
            }
            _ => {
                out.push_str("${");
                rest = inner;
            }
        }
    }
    out.push_str(rest);
    Cow::Owned(out)
}

fn unprotect(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.contains(BRACES) { Cow::Owned(text.replace(BRACES[0], "{").replace(BRACES[1], "}")) } else { text }
}

/// The parser gives keys and values in turn.
fn pairs(items: Vec<Rc<Node>>) -> Vec<(Rc<Node>, Rc<Node>)> {
    let mut items = items.into_iter();
    let mut pairs = Vec::with_capacity(items.len() / 2);
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs
}

/// The parser counts characters; texts are cut by bytes.
struct Offsets {
    bytes: Vec<usize>,
}

impl Offsets {
    fn new(text: &str) -> Self {
        Self { bytes: text.char_indices().map(|(i, _)| i).chain(std::iter::once(text.len())).collect() }
    }

    fn byte(&self, char_index: usize) -> usize {
        self.bytes.get(char_index).or(self.bytes.last()).copied().unwrap_or(0)
    }

    fn span(&self, start: usize, end: usize, line: usize, col: usize) -> Span {
        let (start, end) = (self.byte(start), self.byte(end));
        Span { line, column: col + 1, offset: start, length: end.saturating_sub(start) }
    }
}
