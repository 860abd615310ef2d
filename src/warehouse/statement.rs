//! One reading statement, told from the rest before a warehouse is asked.
//!
//! Only the tokens are looked at, by the dialect's own rules of strings, names and comments; the grammar is left to the
//! warehouse, whose own words are better. (`postgres` has rules of its own, next to its protocol.)

use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer, TokenizerError, Whitespace, Word};

use super::WarehouseError;
use super::text::point_at;

/// A statement that may be placed between parentheses (on lines of its own).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadingStatement {
    /// The SQL with its trailing semicolons blanked: every character keeps its place.
    pub text: String,
}

impl ReadingStatement {
    /// At most `limit` rows of it, for samples. The warehouse's line numbers are then one too high: see
    /// [`Self::LINES_BEFORE`].
    pub fn limited(&self, limit: usize) -> String {
        format!("SELECT * FROM (\n{}\n) AS q LIMIT {limit}", self.text)
    }

    /// Lines of ours before the model's SQL in [`Self::limited`].
    pub const LINES_BEFORE: usize = 1;
}

/// Checks that `sql` is one statement that reads rows.
pub fn reading_statement(sql: &str, dialect: &dyn Dialect) -> Result<ReadingStatement, WarehouseError> {
    let fault = |at: Location, what: &str, hint: &str| {
        let pointer = offset(sql, at).and_then(|at| point_at(sql, at)).map(|p| format!("\n{p}")).unwrap_or_default();
        WarehouseError::sql(format!("{what}{pointer}")).with_hint(hint)
    };
    let tokens =
        Tokenizer::new(dialect, sql).tokenize_with_location().map_err(|TokenizerError { message, location }| {
            fault(location, &message, "close the string, name or comment")
        })?;

    let (mut semicolons, mut opened) = (Vec::new(), Vec::new());
    // the first words outside parentheses: `WITH` and, after its queries, the verb
    let (mut first, mut verb): (Option<&Token>, Option<&Word>) = (None, None);
    // `FROM t INSERT INTO …` writes, in Spark's dialect
    let mut insert = None;
    for token in &tokens {
        let at = token.span.start;
        match &token.token {
            Token::Whitespace(Whitespace::Space | Whitespace::Newline | Whitespace::Tab)
            | Token::Whitespace(Whitespace::SingleLineComment { .. } | Whitespace::MultiLineComment(_))
            | Token::EOF => continue,
            Token::SemiColon => {
                semicolons.push(at);
                continue;
            }
            _ if !semicolons.is_empty() => {
                let hint = "keep one statement a model; the last of several often can read the others through WITH";
                return Err(fault(at, "the SQL holds more than one statement", hint));
            }
            Token::LParen => opened.push(at),
            Token::RParen if opened.pop().is_none() => {
                return Err(fault(at, "a parenthesis is closed that was not opened", "remove it"));
            }
            Token::Word(word) if opened.is_empty() && word.quote_style.is_none() => {
                let is_verb = READS.iter().chain(WRITES).any(|v| word.value.eq_ignore_ascii_case(v));
                verb = verb.or_else(|| is_verb.then_some(word));
                insert = insert.or_else(|| word.value.eq_ignore_ascii_case("insert").then_some(word));
            }
            _ => {}
        }
        first = first.or(Some(&token.token));
    }
    if let Some(at) = opened.first() {
        return Err(fault(*at, "a parenthesis is not closed", "close it with `)`"));
    }
    let hint = "a model is one statement that reads: SELECT or WITH … SELECT";
    let refused = |word: &str| WarehouseError::sql(format!("`{word}` does not read rows")).with_hint(hint);
    if let (Some(verb), Some(insert)) = (verb, insert)
        && verb.value.eq_ignore_ascii_case("from")
    {
        return Err(refused(&insert.value));
    }
    match first {
        None => return Err(WarehouseError::sql("the SQL is empty").with_hint(hint)),
        Some(Token::LParen) => {}
        Some(Token::Word(word)) if is_one_of(word, READS) => {}
        Some(Token::Word(word)) if word.value.eq_ignore_ascii_case("with") => match verb {
            Some(verb) if is_one_of(verb, WRITES) => return Err(refused(&verb.value)),
            _ => {}
        },
        Some(token) => return Err(refused(&token.to_string())),
    }
    let mut text: Vec<char> = sql.chars().collect();
    for at in semicolons.into_iter().filter_map(|at| offset(sql, at)) {
        text[at] = ' ';
    }
    Ok(ReadingStatement { text: text.into_iter().collect() })
}

const READS: &[&str] = &["select", "values", "table", "from"];
/// What may follow the queries of a `WITH` and does not read.
const WRITES: &[&str] = &["insert", "update", "delete", "merge", "create", "replace", "truncate", "copy", "unload"];

fn is_one_of(word: &Word, words: &[&str]) -> bool {
    word.quote_style.is_none() && words.iter().any(|w| word.value.eq_ignore_ascii_case(w))
}

/// The character number (from 0) of a line and column (from 1).
pub(super) fn offset(sql: &str, at: Location) -> Option<usize> {
    let (line, column) =
        (usize::try_from(at.line).ok()?.checked_sub(1)?, usize::try_from(at.column).ok()?.checked_sub(1)?);
    let mut lines = sql.split('\n');
    let before: usize = lines.by_ref().take(line).map(|l| l.chars().count() + 1).sum();
    lines.next().and_then(|_| before.checked_add(column))
}

/// Points at a line and column (from 1) of the model's SQL, as warehouses report them.
pub(super) fn point_at_line(sql: &str, line: usize, column: usize) -> Option<String> {
    point_at(sql, offset(sql, Location { line: line as u64, column: column.max(1) as u64 })?)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use datafusion::sql::sqlparser::dialect::{BigQueryDialect, DatabricksDialect, SnowflakeDialect};

    use super::*;

    #[test]
    fn one_reading_statement_passes_whatever_its_strings_and_comments_hold() {
        let ok: [(&dyn Dialect, &str); 8] = [
            (&SnowflakeDialect {}, "SELECT 1;"),
            (&SnowflakeDialect {}, "SELECT $$;DROP$$ AS a -- ; DELETE\n;\n"),
            (&SnowflakeDialect {}, "with a as (select 1) select * from a // ;\n"),
            (&BigQueryDialect {}, "SELECT '''it's; fine''' FROM `my-project.shop.update`"),
            (&BigQueryDialect {}, "(SELECT 1) UNION ALL (SELECT 2)"),
            (&BigQueryDialect {}, "WITH insert_log AS (SELECT 1 AS `delete`) SELECT `delete` FROM insert_log # ;"),
            (&DatabricksDialect {}, "FROM range(3) SELECT *"),
            (&DatabricksDialect {}, "SELECT `a;b`, replace(x, 'a', 'b') FROM t"),
        ];
        for (dialect, sql) in ok {
            let statement = reading_statement(sql, dialect).unwrap();
            assert_eq!(statement.text.chars().count(), sql.chars().count(), "{sql}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        let bad: [(&dyn Dialect, &str, &str); 10] = [
            (&SnowflakeDialect {}, "", "empty"),
            (&SnowflakeDialect {}, "SELECT 1; DROP TABLE t", "more than one statement"),
            (&SnowflakeDialect {}, "DELETE FROM t", "does not read"),
            (&DatabricksDialect {}, "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a", "`INSERT` does not read"),
            (&DatabricksDialect {}, "FROM a INSERT INTO t SELECT *", "`INSERT` does not read"),
            (&DatabricksDialect {}, "WITH a AS (SELECT 1) FROM a INSERT INTO t SELECT *", "`INSERT` does not read"),
            (&BigQueryDialect {}, "SELECT 1)", "closed that was not opened"),
            (&BigQueryDialect {}, "SELECT (1", "not closed"),
            (&BigQueryDialect {}, "DECLARE x INT64", "does not read"),
            (&SnowflakeDialect {}, "SELECT 'a", "LINE 1"),
        ];
        for (dialect, sql, what) in bad {
            let error = reading_statement(sql, dialect).unwrap_err().to_string();
            assert!(error.contains(what), "{sql}: {error}");
        }
    }
}
