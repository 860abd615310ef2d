//! A model's SQL: one statement. What it means is for its warehouse to say.

use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, PostgreSqlDialect, SnowflakeDialect};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};

use super::ConfigError;
use super::source::{Source, Span};

/// The only statement of a file, without the `;` after it.
///
/// `provider`: the connection's type, for how its dialect quotes.
pub(super) fn statement(source: &Source, text: &str, provider: Option<&str>) -> Result<String, Box<ConfigError>> {
    let end = match single(text, provider) {
        Ok(Some(end)) => end,
        Ok(None) => {
            return Err(source
                .error("empty-sql", Span::START, "the file holds no SQL")
                .with_hint("write one SELECT statement; a model without SQL is no model")
                .into());
        }
        Err(span) => {
            return Err(source
                .error("several-statements", span, "a model is one statement, and a second one starts here")
                .with_hint("keep one SELECT; use WITH for its parts")
                .into());
        }
    };
    Ok(text[..end].trim_end().to_string())
}

/// Where the statement ends; `None` when there is none; the place of a second one.
fn single(text: &str, provider: Option<&str>) -> Result<Option<usize>, Span> {
    let dialect: &dyn Dialect = match provider {
        Some("postgres" | "redshift") => &PostgreSqlDialect {},
        Some("snowflake") => &SnowflakeDialect {},
        _ => &GenericDialect {},
    };
    let tokens = match Tokenizer::new(dialect, text).tokenize_with_location() {
        // some dialects escape a quote with a backslash, which moves every later end of a text
        Ok(tokens) if !text.contains("\\'") && !text.contains("\\\"") => tokens,
        // the warehouse says better what is wrong
        _ => {
            let trimmed = text.trim_end().trim_end_matches(|c: char| c == ';' || c.is_whitespace());
            return Ok((!trimmed.trim().is_empty()).then_some(trimmed.len()));
        }
    };
    let mut seen = false;
    let mut end = None;
    for token in tokens {
        match token.token {
            Token::Whitespace(_) | Token::EOF => {}
            Token::SemiColon => {
                if seen && end.is_none() {
                    end = Some(offset(text, token.span.start));
                }
            }
            _ if end.is_some() => {
                let offset = offset(text, token.span.start);
                let length = self::offset(text, token.span.end).saturating_sub(offset);
                let (line, column) = (token.span.start.line as usize, token.span.start.column as usize);
                return Err(Span { line, column, offset, length });
            }
            _ => seen = true,
        }
    }
    Ok(seen.then(|| end.unwrap_or(text.len())))
}

/// The byte of a line and column (both from 1, in characters).
fn offset(text: &str, at: Location) -> usize {
    let (line, column) = (at.line.saturating_sub(1) as usize, at.column.saturating_sub(1) as usize);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = &text[start..];
    start + rest.char_indices().nth(column).map_or(rest.len(), |(i, _)| i)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn read(text: &str, provider: &str) -> Result<String, Box<ConfigError>> {
        statement(&Source::new("models/m.sql", text, Vec::new()), text, Some(provider))
    }

    #[test]
    fn the_end_of_a_statement_is_left_out_and_nothing_else() {
        assert_eq!(read("select 1", "local").unwrap(), "select 1");
        assert_eq!(read("-- who\nselect ';' as a ;\n-- done\n", "local").unwrap(), "-- who\nselect ';' as a");
        assert_eq!(read("select $$a;b$$ as x;;", "postgres").unwrap(), "select $$a;b$$ as x");
        assert_eq!(
            read("select $$a;b$$ as x // it's; fine", "snowflake").unwrap(),
            "select $$a;b$$ as x // it's; fine"
        );
        assert_eq!(read("select 'é;' as \"ü;\";", "local").unwrap(), "select 'é;' as \"ü;\"");
    }

    #[test]
    fn a_second_statement_is_pointed_at() {
        let error = read("select 1;\n  drop table x;", "local").unwrap_err();
        assert_eq!((error.code, error.line, error.column), ("several-statements", 2, 3));
    }

    #[test]
    fn comments_alone_are_no_statement() {
        for empty in ["", "  \n", "-- nothing\n", ";", "/* a; b */ ;"] {
            assert_eq!(read(empty, "local").unwrap_err().code, "empty-sql", "{empty:?}");
        }
    }

    #[test]
    fn what_cannot_be_split_is_left_to_the_warehouse() {
        assert_eq!(read("select 'it\\'s; so' ;", "bigquery").unwrap(), "select 'it\\'s; so'");
        assert_eq!(read("select 'open", "local").unwrap(), "select 'open");
    }
}
