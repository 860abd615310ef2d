//! Names as Snowflake reads them: letters outside quotes are capitals; everything else needs quotes.

use crate::warehouse::WarehouseError;

/// In quotes, whatever it holds.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// As a person would write it: in quotes only where it has to be.
pub(super) fn written(name: &str) -> String {
    let regular = name.starts_with(|c: char| c.is_ascii_uppercase() || c == '_')
        && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_' || c == '$');
    if regular && !RESERVED.contains(&name) { name.to_string() } else { quoted(name) }
}

/// `orders`, `sales.orders`, `"Odd Name"`, `db.sales.orders`: the names, as they are stored.
pub(super) fn parse(name: &str) -> Result<Vec<String>, WarehouseError> {
    let invalid = || {
        WarehouseError::sql(format!("`{name}` is not the name of a table")).with_hint(
            "write it as in a query: schema.table, with double quotes around what has small letters or blanks",
        )
    };
    let (mut parts, mut rest) = (Vec::new(), name.trim());
    loop {
        if let Some(inside) = rest.strip_prefix('"') {
            let (mut part, mut chars) = (String::new(), inside.char_indices().peekable());
            let end = loop {
                match chars.next() {
                    Some((_, '"')) if chars.peek().is_some_and(|(_, c)| *c == '"') => {
                        chars.next();
                        part.push('"');
                    }
                    Some((at, '"')) => break at + 1,
                    Some((_, c)) => part.push(c),
                    None => return Err(invalid()),
                }
            };
            if part.is_empty() {
                return Err(invalid());
            }
            parts.push(part);
            rest = &inside[end..];
        } else {
            let end = rest.find('.').unwrap_or(rest.len());
            let part = &rest[..end];
            let fits = part.starts_with(|c: char| c.is_alphabetic() || c == '_')
                && part.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '$');
            if !fits {
                return Err(invalid());
            }
            parts.push(part.to_uppercase());
            rest = &rest[end..];
        }
        match rest.strip_prefix('.') {
            Some(more) => rest = more,
            None if rest.is_empty() && parts.len() <= 3 => return Ok(parts),
            None => return Err(invalid()),
        }
    }
}

/// Words that cannot be a table's or column's name without quotes
/// (docs.snowflake.com/en/sql-reference/reserved-keywords).
const RESERVED: &[&str] = &[
    "ACCOUNT",
    "ALL",
    "ALTER",
    "AND",
    "ANY",
    "AS",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CHECK",
    "COLUMN",
    "CONNECT",
    "CONNECTION",
    "CONSTRAINT",
    "CREATE",
    "CROSS",
    "CURRENT",
    "CURRENT_DATE",
    "CURRENT_TIME",
    "CURRENT_TIMESTAMP",
    "CURRENT_USER",
    "DATABASE",
    "DELETE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "EXISTS",
    "FALSE",
    "FOLLOWING",
    "FOR",
    "FROM",
    "FULL",
    "GRANT",
    "GROUP",
    "GSCLUSTER",
    "HAVING",
    "ILIKE",
    "IN",
    "INCREMENT",
    "INNER",
    "INSERT",
    "INTERSECT",
    "INTO",
    "IS",
    "ISSUE",
    "JOIN",
    "LATERAL",
    "LEFT",
    "LIKE",
    "LOCALTIME",
    "LOCALTIMESTAMP",
    "MINUS",
    "NATURAL",
    "NOT",
    "NULL",
    "OF",
    "ON",
    "OR",
    "ORDER",
    "ORGANIZATION",
    "QUALIFY",
    "REGEXP",
    "REVOKE",
    "RIGHT",
    "RLIKE",
    "ROW",
    "ROWS",
    "SAMPLE",
    "SCHEMA",
    "SELECT",
    "SET",
    "SOME",
    "START",
    "TABLE",
    "TABLESAMPLE",
    "THEN",
    "TO",
    "TRIGGER",
    "TRUE",
    "TRY_CAST",
    "UNION",
    "UNIQUE",
    "UPDATE",
    "USING",
    "VALUES",
    "VIEW",
    "WHEN",
    "WHENEVER",
    "WHERE",
    "WITH",
];

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_where_they_have_to_be_and_read_as_they_are_written() {
        for (name, shown) in [
            ("ORDERS", "ORDERS"),
            ("_T$1", "_T$1"),
            ("Orders", "\"Orders\""),
            ("1ST", "\"1ST\""),
            ("ORDER", "\"ORDER\""),
            ("a\"b.c", "\"a\"\"b.c\""),
            ("Zoë", "\"Zoë\""),
        ] {
            assert_eq!(written(name), shown);
            assert_eq!(parse(&written(name)).unwrap(), [name]);
        }
        assert_eq!(parse("sales.orders").unwrap(), ["SALES", "ORDERS"]);
        assert_eq!(parse(" db.\"s\".t ").unwrap(), ["DB", "s", "T"]);
        for bad in ["", "a.", ".a", "a b", "a;drop", "\"a", "\"\"", "a.b.c.d", "\"a\"b", "a--"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
