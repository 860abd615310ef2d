//! JSON objects taken apart without changing a value: a number stays the text that was sent, whatever its size.

use std::borrow::Cow;

use serde::de::IgnoredAny;

/// What is wrong with a text, and at which of its bytes (from 0).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonFault {
    pub at: usize,
    pub message: String,
}

/// A field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    Text(String),
    /// As it was written.
    Number(&'a str),
    Bool(bool),
    /// A list or an object, as it was written.
    Nested(&'a str),
}

impl Cell<'_> {
    /// The text that is stored.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Null => None,
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Number(text) | Self::Nested(text) => Some(Cow::Borrowed(text)),
            Self::Bool(value) => Some(Cow::Borrowed(if *value { "true" } else { "false" })),
        }
    }

    /// What is wrong with it as an identity: identities are texts and whole numbers.
    pub fn identity_fault(&self) -> Option<&'static str> {
        match self {
            Self::Null | Self::Text(_) => None,
            Self::Number(text) if !text.contains(['.', 'e', 'E']) => None,
            Self::Number(_) => Some("a fraction identifies nobody"),
            Self::Bool(_) => Some("true or false identifies nobody"),
            Self::Nested(_) => Some("a list or an object identifies nobody"),
        }
    }
}

/// The fields of the object that `text` is.
pub fn object(text: &[u8]) -> Result<Vec<(String, Cell<'_>)>, JsonFault> {
    let mut scanner = Scanner::new(text)?;
    let fields = scanner.object()?;
    scanner.end()?;
    Ok(fields)
}

/// The objects of a body that is one object, a list of them, or one after another (NDJSON); each as its own text.
pub fn objects(text: &[u8]) -> Result<Vec<&str>, JsonFault> {
    let mut scanner = Scanner::new(text)?;
    let mut found = Vec::new();
    scanner.space();
    if scanner.next() == Some(b'[') {
        scanner.at += 1;
        scanner.space();
        if scanner.next() == Some(b']') {
            scanner.at += 1;
        } else {
            loop {
                found.push(scanner.value()?);
                scanner.space();
                match scanner.next() {
                    Some(b',') => scanner.at += 1,
                    Some(b']') => {
                        scanner.at += 1;
                        break;
                    }
                    _ => return Err(scanner.fault("expected `,` or `]`")),
                }
            }
        }
        scanner.end()?;
        return Ok(found);
    }
    while scanner.next().is_some() {
        found.push(scanner.value()?);
        scanner.space();
    }
    Ok(found)
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a [u8]) -> Result<Self, JsonFault> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(Self { text, at: 0 }),
            Err(e) => Err(JsonFault { at: e.valid_up_to(), message: "this is not UTF-8".into() }),
        }
    }

    fn fault(&self, message: &str) -> JsonFault {
        JsonFault { at: self.at, message: message.into() }
    }

    fn next(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.next(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn end(&mut self) -> Result<(), JsonFault> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.fault("more follows after its end")) }
    }

    /// One value, as it is written.
    fn value(&mut self) -> Result<&'a str, JsonFault> {
        self.space();
        let rest = &self.text[self.at..];
        let mut values = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        match values.next() {
            Some(Ok(_)) => {
                let value = &rest[..values.byte_offset()];
                self.at += value.len();
                Ok(value)
            }
            Some(Err(error)) => {
                // where in the text the parser stopped
                let before: usize = rest.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
                let at = self.at + (before + error.column().saturating_sub(1)).min(rest.len());
                let message = error.to_string();
                let message = message.split(" at line ").next().unwrap_or_default().to_string();
                Err(JsonFault { at, message })
            }
            None => Err(self.fault("a value is missing")),
        }
    }

    fn text_of(&self, raw: &str) -> Result<String, JsonFault> {
        serde_json::from_str(raw).map_err(|_| self.fault("the text before this has an escape that is no character"))
    }

    fn object(&mut self) -> Result<Vec<(String, Cell<'a>)>, JsonFault> {
        self.space();
        if self.next() != Some(b'{') {
            return Err(self.fault("expected an object"));
        }
        self.at += 1;
        let mut fields: Vec<(String, Cell<'a>)> = Vec::new();
        self.space();
        if self.next() == Some(b'}') {
            self.at += 1;
            return Ok(fields);
        }
        loop {
            self.space();
            if self.next() != Some(b'"') {
                return Err(self.fault("expected a field's name in quotes"));
            }
            let name = self.value()?;
            let name = self.text_of(name)?;
            if fields.iter().any(|(known, _)| *known == name) {
                return Err(self.fault(&format!("`{name}` comes twice")));
            }
            self.space();
            if self.next() != Some(b':') {
                return Err(self.fault("expected `:`"));
            }
            self.at += 1;
            let raw = self.value()?;
            let cell = match raw.as_bytes().first() {
                Some(b'"') => Cell::Text(self.text_of(raw)?),
                Some(b'{' | b'[') => Cell::Nested(raw),
                Some(b'n') => Cell::Null,
                Some(b't') => Cell::Bool(true),
                Some(b'f') => Cell::Bool(false),
                _ => Cell::Number(raw),
            };
            fields.push((name, cell));
            self.space();
            match self.next() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    return Ok(fields);
                }
                _ => return Err(self.fault("expected `,` or `}`")),
            }
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_as_they_were_sent() {
        let line = r#" {"a": 12345678901234567890123, "b":1.10, "c":"x\u00e9\"", "d":null,"e":[1, {"f":2}],"g":true} "#;
        let fields = object(line.as_bytes()).unwrap();
        let texts: Vec<_> =
            fields.iter().map(|(name, cell)| (name.as_str(), cell.text().map(Cow::into_owned))).collect();
        let some = |text: &str| Some(text.to_string());
        assert_eq!(
            texts,
            [
                ("a", some("12345678901234567890123")),
                ("b", some("1.10")),
                ("c", some("xé\"")),
                ("d", None),
                ("e", some(r#"[1, {"f":2}]"#)),
                ("g", some("true")),
            ]
        );
        assert!(fields[0].1.identity_fault().is_none() && fields[1].1.identity_fault().is_some());
    }

    #[test]
    fn what_is_broken_is_told_with_its_place() {
        let at = |text: &str| object(text.as_bytes()).unwrap_err().at;
        assert_eq!(at(r#"{"a": 1"#), 7);
        assert_eq!(at(r#"{"a": 1, b: 2}"#), 9);
        assert_eq!(at(r#"[1]"#), 0);
        assert_eq!(at(r#"{"a": nul}"#), 9);
        assert_eq!(object(b"{\"a\":\"\xff\"}").unwrap_err().at, 6);
        assert!(object(br#"{"a":1,"a":2}"#).unwrap_err().message.contains("twice"));
        assert!(object(br#"{"a":1} {"b":2}"#).is_err());
    }

    #[test]
    fn a_body_may_be_an_object_a_list_or_lines() {
        assert_eq!(objects(br#" {"a":1} "#).unwrap(), [r#"{"a":1}"#]);
        assert_eq!(objects(b"[{\"a\":1},\n {\"a\":2}]").unwrap(), [r#"{"a":1}"#, r#"{"a":2}"#]);
        assert_eq!(objects(b"{\"a\":1}\n{\"a\":2}\n").unwrap(), [r#"{"a":1}"#, r#"{"a":2}"#]);
        assert_eq!(objects(b"[]").unwrap(), Vec::<&str>::new());
        assert_eq!(objects(b"  ").unwrap(), Vec::<&str>::new());
        assert_eq!(objects(b"[{\"a\":1},\n{\"a\":}]").unwrap_err().at, 15);
    }

    proptest::proptest! {
        #[test]
        fn any_object_is_taken_apart_as_serde_does(map in proptest::collection::btree_map(".{0,8}", ".{0,8}", 0..6)) {
            let text = serde_json::to_string(&map).unwrap();
            let fields = object(text.as_bytes()).unwrap();
            let back = fields.into_iter().map(|(name, cell)| (name, cell.text().unwrap().into_owned())).collect();
            proptest::prop_assert_eq!(map, back);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            let _ = (object(&bytes), objects(&bytes));
        }
    }
}
