//! What is asked of a statement's text itself: does it sort its rows?

use datafusion::sql::sqlparser::dialect::BigQueryDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::warehouse::WarehouseError;
use crate::warehouse::statement::{self, ReadingStatement};

pub(super) fn reading_statement(sql: &str) -> Result<ReadingStatement, WarehouseError> {
    statement::reading_statement(sql, &BigQueryDialect {})
}

/// May the statement's rows have an order? An `ORDER BY` between parentheses (of a window, of a subquery) gives none,
/// unless the whole statement stands between them.
pub(super) fn is_ordered(sql: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&BigQueryDialect {}, sql).tokenize() else { return true };
    let tokens: Vec<_> = tokens.into_iter().filter(|token| !matches!(token, Token::Whitespace(_))).collect();
    let parenthesized = tokens.first() == Some(&Token::LParen);
    let mut depth = 0u32;
    tokens.windows(2).any(|pair| {
        match &pair[0] {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0 || parenthesized) && is_word(&pair[0], "order") && is_word(&pair[1], "by")
    })
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_of_the_result_is_told_from_others() {
        for sql in ["SELECT a FROM t ORDER BY a", "(SELECT a FROM t order\n by 1)", "FROM t |> ORDER BY a"] {
            assert!(is_ordered(sql), "{sql}");
        }
        for sql in [
            "SELECT a FROM t",
            "SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) FROM t",
            "WITH x AS (SELECT a FROM t ORDER BY a LIMIT 3) SELECT * FROM x",
            "SELECT 'ORDER BY a' AS `order` -- ORDER BY a",
        ] {
            assert!(!is_ordered(sql), "{sql}");
        }
    }
}
