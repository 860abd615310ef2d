//! One reading statement, by Snowflake's rules.

use datafusion::sql::sqlparser::dialect::SnowflakeDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::warehouse::WarehouseError;
use crate::warehouse::statement::{ReadingStatement, point_at_line, reading_statement};

/// What the service calls a SELECT; all its statements that do not read are above.
const SELECTS: std::ops::Range<i64> = 0..0x2000;

/// Checks that `sql` is one statement that reads rows. `SELECT … ->> DELETE …` is one to the tokenizer, but a chain to
/// Snowflake, whose later links do as they like.
pub(super) fn one_reading(sql: &str) -> Result<ReadingStatement, WarehouseError> {
    let statement = reading_statement(sql, &SnowflakeDialect {})?;
    let tokens = Tokenizer::new(&SnowflakeDialect {}, sql).tokenize_with_location().unwrap_or_default();
    if let Some(chain) = tokens.iter().find(|t| t.token == Token::LongArrow) {
        let at = chain.span.start;
        let (line, column) = (usize::try_from(at.line).unwrap_or(1), usize::try_from(at.column).unwrap_or(1));
        let pointer = point_at_line(sql, line, column).map(|p| format!("\n{p}")).unwrap_or_default();
        return Err(WarehouseError::sql(format!("`->>` chains statements{pointer}"))
            .with_hint("keep one statement a model; the last of several often can read the others through WITH"));
    }
    Ok(statement)
}

/// The same by the service's own word, which it gives before it runs anything.
pub(super) fn check_described(type_id: Option<i64>, binds: Option<i64>) -> Result<(), WarehouseError> {
    if type_id.is_some_and(|id| !SELECTS.contains(&id)) {
        return Err(WarehouseError::sql("the statement does not read rows")
            .with_hint("a model is one statement that reads: SELECT or WITH … SELECT"));
    }
    if binds.is_some_and(|n| n > 0) {
        return Err(WarehouseError::sql("the SQL has parameters (? or :1)")
            .with_hint("a model takes no parameters; write the value into the SQL"));
    }
    Ok(())
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn chains_are_refused_and_lambdas_are_not() {
        let error = one_reading("SELECT 1\n->> DROP TABLE t").unwrap_err();
        assert!(error.message.contains("LINE 2: ->> DROP"), "{error}");
        for sql in
            ["SELECT '->>' AS a -- ->>", "SELECT FILTER(a, x -> x > 1) FROM t", "SELECT a:b.c::int, $$->>$$ FROM t"]
        {
            one_reading(sql).unwrap();
        }
        assert!(one_reading("CALL p()").is_err());
    }

    #[test]
    fn what_the_service_calls_a_write_is_refused() {
        assert!(check_described(Some(0x1000), None).is_ok());
        assert!(check_described(None, Some(0)).is_ok());
        assert!(check_described(Some(0x3100), None).is_err());
        assert!(check_described(Some(0x1000), Some(1)).is_err());
    }
}
