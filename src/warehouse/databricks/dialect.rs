//! How a statement of Databricks falls into tokens.

use std::any::TypeId;

use datafusion::sql::sqlparser::dialect::{DatabricksDialect, Dialect};

/// The library's dialect, with the backslashes that it leaves out: `'O\'Connell'` is one string.
#[derive(Debug)]
pub(super) struct Lexical;

impl Dialect for Lexical {
    fn dialect(&self) -> TypeId {
        DatabricksDialect.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        DatabricksDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        DatabricksDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        DatabricksDialect.is_identifier_part(ch)
    }

    fn supports_numeric_prefix(&self) -> bool {
        true
    }

    fn supports_string_literal_backslash_escape(&self) -> bool {
        true
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::warehouse::statement::reading_statement;

    #[test]
    fn a_backslash_escapes_a_quote() {
        let ok =
            [r"SELECT 'O\'Connell'", r"SELECT '\';--' AS a", r#"SELECT "say \"hi\"; bye" AS a"#, "SELECT `a;b` FROM t"];
        for sql in ok {
            assert_eq!(reading_statement(sql, &Lexical).unwrap().text, sql);
        }
        assert!(reading_statement(r"SELECT 'a\\'; DROP TABLE t", &Lexical).is_err());
    }
}
