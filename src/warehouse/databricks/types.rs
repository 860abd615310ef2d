//! Databricks types as `DESCRIBE QUERY` writes them (`struct<a:int,b:array<decimal(10,2)>>`), and what they become in
//! Arrow.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

/// A type of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SqlType {
    /// A type that Arrow holds as it is.
    Plain(DataType),
    /// A point in time.
    Timestamp,
    /// A date and time of no zone: taken as UTC.
    TimestampNtz,
    /// `INTERVAL …`, `TIME`: carried as the warehouse writes them.
    AsText,
    Variant,
    /// `GEOMETRY`, `GEOGRAPHY`.
    Geo,
    Array(Box<SqlType>),
    Map(Box<SqlType>, Box<SqlType>),
    Struct(Vec<(String, SqlType)>),
    /// A struct, map or array whose description is cut short or cannot be read.
    Nested,
}

impl SqlType {
    /// Reads a description; none when it names no type that is known here.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let mut parser = Parser { rest: text };
        match parser.sql_type() {
            Some(found) if parser.rest.trim().is_empty() => Some(found),
            _ => {
                let lower = text.to_ascii_lowercase();
                ["struct<", "array<", "map<"].iter().any(|p| lower.starts_with(p)).then_some(Self::Nested)
            }
        }
    }

    /// Does the warehouse send it in Arrow as it is here? What is inside counts too.
    pub(super) fn is_native(&self) -> bool {
        match self {
            Self::Plain(_) | Self::Timestamp | Self::TimestampNtz => true,
            Self::AsText | Self::Variant | Self::Geo | Self::Nested => false,
            Self::Array(item) => item.is_native(),
            Self::Map(key, value) => key.is_native() && value.is_native(),
            Self::Struct(fields) => fields.iter().all(|(_, t)| t.is_native()),
        }
    }

    pub(super) fn arrow_type(&self) -> DataType {
        match self {
            Self::Plain(data_type) => data_type.clone(),
            Self::Timestamp | Self::TimestampNtz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::AsText | Self::Variant | Self::Geo | Self::Nested => DataType::Utf8,
            Self::Array(item) => DataType::List(field("element", item, true)),
            Self::Map(key, value) => {
                let entries = Fields::from(vec![field("key", key, false), field("value", value, true)]);
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
            }
            Self::Struct(fields) => DataType::Struct(fields.iter().map(|(name, t)| field(name, t, true)).collect()),
        }
    }
}

fn field(name: &str, sql_type: &SqlType, nullable: bool) -> FieldRef {
    Arc::new(Field::new(name, sql_type.arrow_type(), nullable))
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn sql_type(&mut self) -> Option<SqlType> {
        let word = self.word()?.to_ascii_lowercase();
        let plain = |data_type| Some(SqlType::Plain(data_type));
        match word.as_str() {
            "boolean" => plain(DataType::Boolean),
            "tinyint" | "byte" => plain(DataType::Int8),
            "smallint" | "short" => plain(DataType::Int16),
            "int" | "integer" => plain(DataType::Int32),
            "bigint" | "long" => plain(DataType::Int64),
            "float" | "real" => plain(DataType::Float32),
            "double" => plain(DataType::Float64),
            "decimal" | "dec" | "numeric" => {
                let (precision, scale) = match self.numbers()?[..] {
                    [] => (10, 0),
                    [precision] => (precision, 0),
                    [precision, scale] => (precision, scale),
                    _ => return None,
                };
                let fits = (1..=38).contains(&precision) && (0..=precision).contains(&scale);
                fits.then_some(DataType::Decimal128(precision as u8, scale as i8)).and_then(plain)
            }
            "string" | "varchar" | "char" => {
                self.numbers()?;
                if self.takes_word("collate") {
                    self.word()?;
                }
                plain(DataType::Utf8)
            }
            "binary" => plain(DataType::Binary),
            "date" => plain(DataType::Date32),
            "void" | "null" => plain(DataType::Null),
            "timestamp" | "timestamp_ltz" => Some(SqlType::Timestamp),
            "timestamp_ntz" => Some(SqlType::TimestampNtz),
            "time" => self.numbers().map(|_| SqlType::AsText),
            "interval" => {
                let units = ["year", "month", "day", "hour", "minute", "second", "to"];
                while units.iter().any(|unit| self.takes_word(unit)) {}
                Some(SqlType::AsText)
            }
            "variant" => Some(SqlType::Variant),
            "geometry" | "geography" => {
                if self.takes("(") {
                    let end = self.rest.find(')')?;
                    self.rest = &self.rest[end + 1..];
                }
                Some(SqlType::Geo)
            }
            "array" => {
                self.expect("<")?;
                let item = self.sql_type()?;
                self.expect(">")?;
                Some(SqlType::Array(Box::new(item)))
            }
            "map" => {
                self.expect("<")?;
                let key = self.sql_type()?;
                self.expect(",")?;
                let value = self.sql_type()?;
                self.expect(">")?;
                Some(SqlType::Map(Box::new(key), Box::new(value)))
            }
            "struct" => {
                self.expect("<")?;
                let mut fields = Vec::new();
                while !self.takes(">") {
                    if !fields.is_empty() {
                        self.expect(",")?;
                    }
                    let name = self.field_name()?;
                    self.expect(":")?;
                    fields.push((name, self.sql_type()?));
                }
                Some(SqlType::Struct(fields))
            }
            _ => None,
        }
    }

    /// A field's name: between backticks, or up to its colon.
    fn field_name(&mut self) -> Option<String> {
        self.rest = self.rest.trim_start();
        let Some(mut quoted) = self.rest.strip_prefix('`') else {
            let end = self.rest.find(':')?;
            let (name, rest) = self.rest.split_at(end);
            self.rest = rest;
            // "... 3 more fields" is how a long description ends
            return (!name.is_empty() && !name.contains([',', '<', '>'])).then(|| name.to_string());
        };
        let mut name = String::new();
        loop {
            let end = quoted.find('`')?;
            name.push_str(&quoted[..end]);
            quoted = &quoted[end + 1..];
            match quoted.strip_prefix('`') {
                Some(rest) => {
                    name.push('`');
                    quoted = rest;
                }
                None => break,
            }
        }
        self.rest = quoted;
        Some(name)
    }

    /// `(10,2)`, or nothing.
    fn numbers(&mut self) -> Option<Vec<u32>> {
        if !self.takes("(") {
            return Some(Vec::new());
        }
        let (inside, rest) = self.rest.split_once(')')?;
        self.rest = rest;
        inside.split(',').map(|n| n.trim().parse().ok()).collect()
    }

    fn word(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!word.is_empty()).then_some(word)
    }

    fn takes_word(&mut self, wanted: &str) -> bool {
        let before = self.rest;
        let found = self.word().is_some_and(|word| word.eq_ignore_ascii_case(wanted));
        if !found {
            self.rest = before;
        }
        found
    }

    fn takes(&mut self, sign: &str) -> bool {
        match self.rest.trim_start().strip_prefix(sign) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, sign: &str) -> Option<()> {
        self.takes(sign).then_some(())
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, clippy::panic, reason = "tests")]
mod tests {
    use super::*;

    fn parse(text: &str) -> SqlType {
        SqlType::parse(text).unwrap()
    }

    #[test]
    fn every_documented_type_is_read() {
        for (text, want) in [
            ("boolean", DataType::Boolean),
            ("tinyint", DataType::Int8),
            ("smallint", DataType::Int16),
            ("int", DataType::Int32),
            ("BIGINT", DataType::Int64),
            ("float", DataType::Float32),
            ("double", DataType::Float64),
            ("decimal(38,18)", DataType::Decimal128(38, 18)),
            ("decimal", DataType::Decimal128(10, 0)),
            ("string", DataType::Utf8),
            ("string collate UTF8_LCASE", DataType::Utf8),
            ("varchar(20)", DataType::Utf8),
            ("binary", DataType::Binary),
            ("date", DataType::Date32),
            ("void", DataType::Null),
        ] {
            assert_eq!(parse(text), SqlType::Plain(want), "{text}");
        }
        assert_eq!(parse("timestamp"), SqlType::Timestamp);
        assert_eq!(parse("timestamp_ntz"), SqlType::TimestampNtz);
        for text in ["interval year to month", "interval day to second", "interval", "time(6)"] {
            assert_eq!(parse(text), SqlType::AsText, "{text}");
        }
        assert_eq!(parse("geography(4326)"), SqlType::Geo);
        assert_eq!(parse("variant"), SqlType::Variant);
        for text in ["", "hugeint", "decimal(39,2)", "decimal(5,6)", "int int", "object"] {
            assert_eq!(SqlType::parse(text), None, "{text}");
        }
    }

    #[test]
    fn nested_types_are_read_with_their_names() {
        let found = parse("struct<id:int,`odd ``name:`:array<map<string,decimal(10,2)>>,a b:timestamp>");
        let SqlType::Struct(fields) = &found else { panic!("{found:?}") };
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["id", "odd `name:", "a b"]);
        assert!(found.is_native());
        assert!(!parse("array<struct<v:variant>>").is_native());
        assert_eq!(parse("struct<>"), SqlType::Struct(Vec::new()));
    }

    #[test]
    fn a_nested_type_that_is_cut_short_is_known_as_nested() {
        for text in ["struct<a:int,... 24 more fields>", "array<hugeint>", "map<string,struct<a:b:int>>"] {
            assert_eq!(parse(text), SqlType::Nested, "{text}");
        }
    }
}
