//! How a query's columns are asked for and read.
//!
//! What the service sends natively in Arrow is taken as it comes. Intervals, variants, spatial values and nested values
//! that hold them have no documented Arrow form: the warehouse itself makes texts of them, in a `SELECT` around the
//! query. That `SELECT` names columns by place, so it does not matter how the query names them, or whether twice.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::adapt::{Misfits, adapt};
use super::types::SqlType;
use crate::values::VALUE_TYPE_KEY;
use crate::warehouse::statement::ReadingStatement;
use crate::warehouse::{UNCONVERTIBLE_COLUMN, WarehouseError};

/// What the warehouse is asked to do with a column before it sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rendering {
    AsIs,
    Text,
    /// Nulls inside are kept.
    NestedJson,
    Json,
    /// Extended well-known text, with the reference system.
    Ewkt,
}

#[derive(Debug, Clone)]
struct ColumnPlan {
    field: Field,
    rendering: Rendering,
}

/// How a query's result is read.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    columns: Vec<ColumnPlan>,
    /// With [`UNCONVERTIBLE_COLUMN`] at the end when there are decimals, dates or instants: those are documented to come
    /// as such, but servers were seen that send them as texts, which can be anything.
    pub schema: SchemaRef,
    marks: bool,
}

/// A statement of ours around a model's SQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrapped {
    pub text: String,
    /// Lines of ours before the model's.
    pub lines_before: usize,
}

impl Plan {
    /// `described`: name and type of each column.
    pub(super) fn new(described: &[(String, String)]) -> Result<Self, WarehouseError> {
        if described.is_empty() {
            return Err(WarehouseError::sql("the SQL returns no columns").with_hint("select at least the primary key"));
        }
        let columns =
            described.iter().map(|(name, text)| plan_column(name, text)).collect::<Result<Vec<_>, WarehouseError>>()?;
        let mut fields: Vec<_> = columns.iter().map(|c| c.field.clone()).collect();
        let marks = fields.iter().any(|f| {
            matches!(f.data_type(), DataType::Decimal128(_, _) | DataType::Date32 | DataType::Timestamp(_, _))
        });
        if marks {
            fields.push(Field::new(UNCONVERTIBLE_COLUMN, DataType::Utf8, true));
        }
        Ok(Self { columns, schema: Arc::new(Schema::new(fields)), marks })
    }

    /// The statement that returns every column in the form that is read here, at most `limit` rows of it.
    pub(super) fn statement(&self, statement: &ReadingStatement, limit: Option<usize>) -> Wrapped {
        if self.is_as_is() {
            return match limit {
                Some(limit) => Wrapped { text: statement.limited(limit), lines_before: ReadingStatement::LINES_BEFORE },
                None => Wrapped { text: statement.text.clone(), lines_before: 0 },
            };
        }
        let expressions: Vec<_> = self.columns.iter().enumerate().map(|(i, c)| c.rendering.of(i)).collect();
        let names: Vec<_> = (0..self.columns.len()).map(|i| format!("c{i}")).collect();
        let limit = limit.map(|n| format!(" LIMIT {n}")).unwrap_or_default();
        let (expressions, names) = (expressions.join(", "), names.join(", "));
        Wrapped {
            text: format!("SELECT {expressions} FROM (\n{}\n) AS q({names}){limit}", statement.text),
            lines_before: 1,
        }
    }

    /// Can a result with columns of these names be that of [`Self::statement`]?
    pub(super) fn may_have<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        let sent: Vec<_> = names.collect();
        let same = |name: &str, sent: &&str| name.eq_ignore_ascii_case(sent);
        // around the query they are numbered, and expressions have names of their own
        !self.is_as_is()
            || (sent.len() == self.columns.len()
                && self.columns.iter().zip(&sent).all(|(column, sent)| same(column.field.name(), sent)))
    }

    /// Is the query sent without expressions of ours around its columns?
    fn is_as_is(&self) -> bool {
        let mut names = HashSet::new();
        // names are compared without regard to case, as the warehouse does
        self.columns.iter().all(|c| c.rendering == Rendering::AsIs && names.insert(c.field.name().to_lowercase()))
    }

    /// How many columns the warehouse sends.
    pub(super) fn width(&self) -> usize {
        self.columns.len()
    }

    /// A batch as it came, as [`Self::schema`] says.
    pub(super) fn adapt(&self, batch: &RecordBatch) -> Result<RecordBatch, WarehouseError> {
        if batch.num_columns() != self.columns.len() {
            return Err(WarehouseError::bug(format!(
                "the result has {} columns where the description has {}",
                batch.num_columns(),
                self.columns.len()
            )));
        }
        let mut misfits = Misfits::default();
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len() + 1);
        for (column, array) in self.columns.iter().zip(batch.columns()) {
            arrays.push(adapt(array, &column.field, &mut misfits)?);
        }
        if self.marks {
            let mut reasons = vec![None; batch.num_rows()];
            for (row, reason) in misfits.rows {
                reasons[row].get_or_insert(reason);
            }
            arrays.push(Arc::new(StringArray::from(reasons)));
        } else if let Some((_, reason)) = misfits.rows.into_iter().next() {
            return Err(WarehouseError::bug(format!("a value is not what was described: {reason}")));
        }
        RecordBatch::try_new(self.schema.clone(), arrays)
            .map_err(|e| WarehouseError::bug(format!("a batch does not have its columns: {e}")))
    }
}

/// Nulls are kept, and so are the microseconds that it would cut.
const JSON_OPTIONS: &str = "'ignoreNullFields', 'false', 'timestampFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSSXXX', \
                            'timestampNTZFormat', 'yyyy-MM-dd\\'T\\'HH:mm:ss.SSSSSS'";

impl Rendering {
    fn of(self, column: usize) -> String {
        match self {
            Self::AsIs => format!("c{column}"),
            Self::Text => format!("CAST(c{column} AS STRING)"),
            Self::NestedJson => format!("to_json(c{column}, map({JSON_OPTIONS}))"),
            Self::Json => format!("to_json(c{column})"),
            Self::Ewkt => format!("st_asewkt(c{column})"),
        }
    }
}

fn plan_column(name: &str, text: &str) -> Result<ColumnPlan, WarehouseError> {
    let Some(sql_type) = SqlType::parse(text) else {
        return Err(WarehouseError::sql(format!("column `{name}` has the type {text}, which cannot be carried"))
            .with_hint(format!("cast it in the SQL, for example CAST(`{name}` AS STRING) AS `{name}`")));
    };
    let (rendering, json) = match &sql_type {
        native if native.is_native() => (Rendering::AsIs, false),
        SqlType::Variant => (Rendering::Json, true),
        SqlType::Geo => (Rendering::Ewkt, false),
        SqlType::AsText => (Rendering::Text, false),
        _ => (Rendering::NestedJson, true),
    };
    let data_type = if rendering == Rendering::AsIs { sql_type.arrow_type() } else { DataType::Utf8 };
    let mut field = Field::new(name, data_type, true);
    if json {
        field.set_metadata(HashMap::from([(VALUE_TYPE_KEY.to_string(), "json".to_string())]));
    }
    Ok(ColumnPlan { field, rendering })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn statement(columns: &[(&str, &str)], limit: Option<usize>) -> Wrapped {
        let columns: Vec<_> = columns.iter().map(|(n, t)| (n.to_string(), t.to_string())).collect();
        Plan::new(&columns).unwrap().statement(&ReadingStatement { text: "SELECT x".into() }, limit)
    }

    #[test]
    fn a_query_is_wrapped_only_where_it_has_to_be() {
        assert_eq!(statement(&[("a", "int"), ("b", "array<string>")], None).text, "SELECT x");
        assert_eq!(statement(&[("a", "int")], Some(5)).text, "SELECT * FROM (\nSELECT x\n) AS q LIMIT 5");
        let doubled = statement(&[("a", "int"), ("A", "string")], None);
        assert_eq!(doubled.text, "SELECT c0, c1 FROM (\nSELECT x\n) AS q(c0, c1)");
        assert_eq!(doubled.lines_before, 1);
        assert_eq!(
            statement(
                &[("i", "interval day to second"), ("v", "variant"), ("n", "array<variant>"), ("g", "geometry(0)")],
                Some(1)
            )
            .text,
            "SELECT CAST(c0 AS STRING), to_json(c1), to_json(c2, map('ignoreNullFields', 'false', \
             'timestampFormat', 'yyyy-MM-dd\\\'T\\\'HH:mm:ss.SSSSSSXXX', \
             'timestampNTZFormat', 'yyyy-MM-dd\\\'T\\\'HH:mm:ss.SSSSSS')), st_asewkt(c3) FROM \
             (\nSELECT x\n) AS q(c0, c1, c2, c3) LIMIT 1"
        );
    }

    #[test]
    fn a_type_that_is_not_known_is_refused_with_the_cast_to_write() {
        let error = Plan::new(&[("x".into(), "object".into())]).unwrap_err();
        assert!(error.message.contains("object") && error.hint.unwrap().contains("CAST(`x` AS STRING)"));
    }
}
