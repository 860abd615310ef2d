//! One reading statement, told from the rest without a server.
//!
//! A model's SQL is placed inside statements of ours, so it must be one statement, whole and with balanced parentheses;
//! its comments and trailing semicolons must not swallow what follows. This is no parser: it follows PostgreSQL's lexical
//! rules (strings, identifiers, dollar quotes, nested comments) and leaves the grammar to the server.

use crate::warehouse::WarehouseError;
use crate::warehouse::text::point_at;

/// A statement that may be placed between parentheses (on lines of its own).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ReadingStatement {
    /// The SQL with its trailing semicolons blanked: every character keeps its place.
    pub text: String,
    /// Does it open with `WITH`? (Then it might still hide a write, which only the server can tell.)
    pub has_with: bool,
    /// Outside parentheses, does it say `ORDER` (`BY`)?
    pub is_ordered: bool,
    /// Outside parentheses, does it say `LIMIT`, `TOP` …?
    pub is_limited: bool,
}

/// What a backslash means in a plain string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Strings {
    /// Nothing: `standard_conforming_strings`.
    Standard,
    /// It escapes what follows, as in `E'…'`.
    Escapes,
}

/// Checks that `sql` is one reading statement.
pub(crate) fn reading_statement(sql: &str, strings: Strings) -> Result<ReadingStatement, WarehouseError> {
    let bytes = sql.as_bytes();
    let fault = |at: usize, what: &str, hint: &str| {
        let characters = sql.get(..at).map_or(0, |s| s.chars().count());
        let pointer = point_at(sql, characters).map(|p| format!("\n{p}")).unwrap_or_default();
        WarehouseError::sql(format!("{what}{pointer}")).with_hint(hint)
    };
    let mut first_word: Option<&str> = None;
    let mut semicolons = Vec::new();
    let mut opened = Vec::new();
    let (mut is_ordered, mut is_limited, mut in_parentheses) = (false, false, false);
    // a string that goes on after a line break keeps the escapes of its first part
    let mut escapes_continue = false;
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let next = bytes.get(at + 1).copied();
        match bytes[at] {
            0 => return Err(fault(at, "the SQL holds a NUL character", "remove it")),
            c if c.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if next == Some(b'-') => {
                at = find(bytes, at, b"\n").unwrap_or(bytes.len());
                continue;
            }
            b'/' if next == Some(b'*') => {
                at = end_of_comment(bytes, at)
                    .ok_or_else(|| fault(start, "a comment is not closed", "close it with `*/`"))?;
                continue;
            }
            _ => {}
        }
        // from here on it is a token
        let continues = std::mem::take(&mut escapes_continue) || strings == Strings::Escapes;
        if bytes[at] == b';' {
            semicolons.push(at);
            at += 1;
            continue;
        }
        if !semicolons.is_empty() {
            let hint = "keep one statement a model; the last of several often can read the others through WITH";
            return Err(fault(start, "the SQL holds more than one statement", hint));
        }
        match bytes[at] {
            b'\'' => {
                at = end_of_quoted(bytes, at, b'\'', continues)
                    .ok_or_else(|| fault(start, "a string is not closed", "close it with `'`"))?;
                escapes_continue = continues;
            }
            b'"' => {
                at = end_of_quoted(bytes, at, b'"', false)
                    .ok_or_else(|| fault(start, "a quoted name is not closed", "close it with `\"`"))?;
            }
            b'$' => match dollar_tag(bytes, at) {
                Some(tag) => {
                    let body = at + tag.len();
                    at = find(bytes, body, tag).map(|end| end + tag.len()).ok_or_else(|| {
                        fault(start, "a dollar-quoted string is not closed", "close it with the tag that opened it")
                    })?;
                }
                None => at += 1,
            },
            b'(' => {
                in_parentheses |= first_word.is_none();
                opened.push(at);
                at += 1;
            }
            b')' => {
                if opened.pop().is_none() {
                    return Err(fault(start, "a parenthesis is closed that was not opened", "remove it"));
                }
                at += 1;
            }
            c if is_name_start(c) => {
                while at < bytes.len() && (is_name_start(bytes[at]) || bytes[at].is_ascii_digit() || bytes[at] == b'$')
                {
                    at += 1;
                }
                let word = sql.get(start..at).unwrap_or_default();
                first_word = first_word.or(Some(word));
                // a statement that stands in parentheses as a whole is ordered inside of them
                if opened.is_empty() || in_parentheses {
                    is_ordered |= word.eq_ignore_ascii_case("order");
                    is_limited |= ["limit", "top", "offset", "fetch"].iter().any(|w| word.eq_ignore_ascii_case(w));
                }
                if word.eq_ignore_ascii_case("e") && bytes.get(at) == Some(&b'\'') {
                    at = end_of_quoted(bytes, at, b'\'', true)
                        .ok_or_else(|| fault(start, "a string is not closed", "close it with `'`"))?;
                    escapes_continue = true;
                }
            }
            _ => at += 1,
        }
    }
    if let Some(at) = opened.first() {
        return Err(fault(*at, "a parenthesis is not closed", "close it with `)`"));
    }
    let hint = "a model is one statement that reads: SELECT, WITH … SELECT, VALUES or TABLE";
    let word = first_word.unwrap_or_default().to_ascii_lowercase();
    if !matches!(word.as_str(), "select" | "with" | "values" | "table") {
        let what =
            if word.is_empty() { "the SQL is empty".to_string() } else { format!("`{word}` does not read rows") };
        return Err(WarehouseError::sql(what).with_hint(hint));
    }
    let mut text = sql.to_string();
    for at in semicolons {
        text.replace_range(at..=at, " ");
    }
    Ok(ReadingStatement { text, has_with: word == "with", is_ordered, is_limited })
}

fn is_name_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || c == b'_' || c >= 0x80
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|w| w == what).map(|p| from + p)
}

/// The place after a quoted token that opens at `at`. A doubled quote stands for itself.
fn end_of_quoted(bytes: &[u8], mut at: usize, quote: u8, escapes: bool) -> Option<usize> {
    at += 1;
    loop {
        match *bytes.get(at)? {
            b'\\' if escapes => at += 2,
            c if c == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            c if c == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// The place after a comment that opens at `at`. Comments nest.
fn end_of_comment(bytes: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match (*bytes.get(at)?, bytes.get(at + 1)) {
            (b'/', Some(b'*')) => {
                depth += 1;
                at += 2;
            }
            (b'*', Some(b'/')) => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
}

/// `$$` or `$tag$` at `at`, if that is what stands there.
fn dollar_tag(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let mut end = at + 1;
    while let Some(&c) = bytes.get(end) {
        if c == b'$' {
            return bytes.get(at..=end);
        }
        let fits = is_name_start(c) || (end > at + 1 && c.is_ascii_digit());
        if !fits {
            return None;
        }
        end += 1;
    }
    None
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn reading_statement(sql: &str) -> Result<ReadingStatement, WarehouseError> {
        super::reading_statement(sql, Strings::Standard)
    }

    #[test]
    fn where_backslashes_escape_a_string_ends_elsewhere() {
        let sql = r"SELECT 'it\'s; (' AS a";
        assert_eq!(super::reading_statement(sql, Strings::Escapes).unwrap().text, sql);
        assert!(reading_statement(sql).is_err());
        assert!(super::reading_statement(r"SELECT 'a\\' ) -- '", Strings::Escapes).is_err());
    }

    #[test]
    fn one_reading_statement_is_taken_as_it_is() {
        for sql in [
            "SELECT 1",
            "  -- who\n/* a /* nested */ one */ select ';' as a, $$;$$, $x$ $$ ; ' $x$, E'it\\'s;', \"a;b\"",
            "(SELECT 1) UNION (SELECT 2)",
            "WITH a AS (SELECT 1) SELECT * FROM a",
            "VALUES (1), (2)",
            "TABLE customers",
            "SELECT a$1, '''' FROM t -- the end",
            "SELECT E'a'\n 'b\\';' AS x",
        ] {
            assert_eq!(reading_statement(sql).unwrap().text, sql);
        }
    }

    #[test]
    fn only_clauses_of_the_whole_order_and_limit_it() {
        for (sql, ordered, limited) in [
            ("SELECT 1", false, false),
            ("SELECT a, rank() OVER (ORDER BY b) FROM (SELECT * FROM t ORDER BY 1 LIMIT 3) q", false, false),
            ("SELECT a FROM t /* limit */ ORDER BY a -- limit", true, false),
            ("WITH q AS (SELECT 1) SELECT 'order by', \"limit\" FROM q limit 5", false, true),
            ("select top 5 * from t order by 1", true, true),
            ("(SELECT a FROM t ORDER BY a)", true, false),
        ] {
            let statement = reading_statement(sql).unwrap();
            assert_eq!((statement.is_ordered, statement.is_limited), (ordered, limited), "{sql}");
        }
    }

    #[test]
    fn trailing_semicolons_are_blanked_in_place() {
        let statement = reading_statement("SELECT 1 ; ; -- done;\n").unwrap();
        assert_eq!(statement.text, "SELECT 1     -- done;\n");
    }

    #[test]
    fn what_is_not_one_whole_reading_statement_is_refused() {
        for (sql, word) in [
            ("", "empty"),
            (" -- nothing", "empty"),
            ("DELETE FROM t", "`delete`"),
            ("INSERT INTO t VALUES (1) RETURNING a", "`insert`"),
            ("EXPLAIN SELECT 1", "`explain`"),
            ("SELECT 1; SELECT 2", "more than one"),
            ("SELECT 1) TO PROGRAM 'x' --", "not opened"),
            ("SELECT (1", "not closed"),
            ("SELECT 'a", "not closed"),
            ("SELECT 1 /* a", "not closed"),
            ("SELECT $a$ b", "not closed"),
            ("SELECT \"a", "not closed"),
            ("SELECT E'\\'", "not closed"),
            ("SELECT '\\' ) -- '", "not opened"),
        ] {
            let error = reading_statement(sql).unwrap_err();
            assert!(error.message.contains(word), "{sql}: {error}");
            assert!(error.hint.is_some());
        }
    }

    #[test]
    fn a_fault_is_shown_with_its_line() {
        let error = reading_statement("SELECT 1;\nSELECT 2").unwrap_err();
        assert_eq!(error.message, "the SQL holds more than one statement\nLINE 2: SELECT 2\n        ^");
    }
}
