//! How each PostgreSQL type becomes an Arrow column: what is asked of the server, and which decoder reads it.
//!
//! Types without a decoder here are asked for as text or JSON (the server renders them), so every type can be read.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use tokio_postgres::Column;
use tokio_postgres::types::{Kind, Type};

use super::decode::Carrier;
use crate::values::{VALUE_TYPE_KEY, ValueType};
use crate::warehouse::UNCONVERTIBLE_COLUMN;

/// What the server is asked to do with a column before it sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::warehouse) enum Rendering {
    /// Nothing: it is sent in its own binary form.
    AsIs,
    Text,
    /// The type's output function; the cast would show more (`::text` adds the mask to an address).
    OutputOf(&'static str),
    Json,
    TextArray,
    OutputTextArray,
    /// Stands between these.
    Between(&'static str, &'static str),
}

/// One column of a result.
#[derive(Debug, Clone)]
struct ColumnPlan {
    field: Field,
    carrier: Carrier,
    rendering: Rendering,
}

/// How a query's result is read.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    columns: Vec<ColumnPlan>,
    /// With [`UNCONVERTIBLE_COLUMN`] at the end when some column can hold what Arrow cannot.
    pub schema: SchemaRef,
}

impl Plan {
    /// `validated`: the server promises that texts are UTF-8 (it does not when the database's encoding is `SQL_ASCII`).
    pub(crate) fn new(columns: &[Column], validated: bool) -> Self {
        Self::of(columns.iter().map(|c| {
            let (carrier, rendering) = plan_type(c.type_(), c.type_modifier(), validated);
            (c.name(), carrier, rendering)
        }))
    }

    /// The plan for columns of these names.
    pub(in crate::warehouse) fn of<'a>(columns: impl Iterator<Item = (&'a str, Carrier, Rendering)>) -> Self {
        let columns: Vec<_> = columns.map(|(name, carrier, rendering)| plan_column(name, carrier, rendering)).collect();
        let mut fields: Vec<_> = columns.iter().map(|c| c.field.clone()).collect();
        if columns.iter().any(|c| c.carrier.can_be_unconvertible()) {
            fields.push(Field::new(UNCONVERTIBLE_COLUMN, DataType::Utf8, true));
        }
        Self { columns, schema: Arc::new(Schema::new(fields)) }
    }

    /// The decoders of the columns, in order.
    pub(crate) fn carriers(&self) -> impl ExactSizeIterator<Item = Carrier> + '_ {
        self.columns.iter().map(|c| c.carrier)
    }

    /// The statement that returns every column in the form that its decoder reads, and where in it `sql` begins (in
    /// characters). Columns are named by place, so it does not matter how the query names them, or whether twice.
    pub(crate) fn statement(&self, sql: &str, limit: Option<usize>) -> (String, usize) {
        if self.is_as_is() && limit.is_none() { (sql.to_string(), 0) } else { self.wrapped(sql, limit) }
    }

    /// Is every column sent in its own form?
    pub(in crate::warehouse) fn is_as_is(&self) -> bool {
        self.columns.iter().all(|c| c.rendering == Rendering::AsIs)
    }

    /// The same with `sql` as a subquery, needed or not. Result columns are named `c0`, `c1` …
    pub(in crate::warehouse) fn wrapped(&self, sql: &str, limit: Option<usize>) -> (String, usize) {
        // a line of its own: the SQL may end in a comment
        let (before, after) = {
            let expressions: Vec<_> =
                self.columns.iter().enumerate().map(|(i, c)| format!("{} AS c{i}", c.expression(i))).collect();
            let names: Vec<_> = (0..self.columns.len()).map(|i| format!("c{i}")).collect();
            let limit = limit.map(|n| format!(" LIMIT {n}")).unwrap_or_default();
            let alias = if names.is_empty() { "q".to_string() } else { format!("q({})", names.join(", ")) };
            (format!("SELECT {} FROM (\n", expressions.join(", ")), format!("\n) AS {alias}{limit}"))
        };
        let prefix = before.chars().count();
        (format!("{before}{sql}{after}"), prefix)
    }
}

impl ColumnPlan {
    fn expression(&self, index: usize) -> String {
        match self.rendering {
            Rendering::AsIs => format!("c{index}"),
            Rendering::Text => format!("c{index}::text"),
            Rendering::OutputOf(function) => format!("textin({function}(c{index}))"),
            Rendering::Json => format!("to_jsonb(c{index})"),
            Rendering::TextArray => format!("c{index}::text[]"),
            Rendering::OutputTextArray => format!("textin(array_out(c{index}))::text[]"),
            Rendering::Between(before, after) => format!("{before}c{index}{after}"),
        }
    }
}

fn plan_column(name: &str, carrier: Carrier, rendering: Rendering) -> ColumnPlan {
    let (data_type, json) = match carrier {
        Carrier::Bool => (DataType::Boolean, false),
        Carrier::Int16 => (DataType::Int16, false),
        Carrier::Int32 => (DataType::Int32, false),
        Carrier::Int64 | Carrier::UInt32 => (DataType::Int64, false),
        Carrier::Float32 => (DataType::Float32, false),
        Carrier::Float64 => (DataType::Float64, false),
        Carrier::Decimal { precision, scale } | Carrier::DecimalText { precision, scale } => {
            (DataType::Decimal128(precision, scale), false)
        }
        Carrier::Date => (DataType::Date32, false),
        Carrier::Timestamp => (DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Carrier::Bytes => (DataType::Binary, false),
        Carrier::Json { .. } | Carrier::Jsonb { .. } => (DataType::Utf8, true),
        Carrier::Text { .. } | Carrier::PaddedText { .. } | Carrier::NumericText | Carrier::Uuid => {
            (DataType::Utf8, false)
        }
        Carrier::TextArray { .. } => (ValueType::List.arrow_type(), false),
    };
    let mut field = Field::new(name, data_type, true);
    if json {
        field.set_metadata(HashMap::from([(VALUE_TYPE_KEY.to_string(), "json".to_string())]));
    }
    ColumnPlan { field, carrier, rendering }
}

fn plan_type(pg_type: &Type, type_modifier: i32, validated: bool) -> (Carrier, Rendering) {
    use Rendering::{AsIs, Json, OutputOf, OutputTextArray, Text, TextArray};
    let text = Carrier::Text { validated };
    let list = Carrier::TextArray { validated };
    let jsonb = Carrier::Jsonb { validated };
    match *pg_type {
        Type::BOOL => return (Carrier::Bool, AsIs),
        Type::INT2 => return (Carrier::Int16, AsIs),
        Type::INT4 => return (Carrier::Int32, AsIs),
        Type::INT8 => return (Carrier::Int64, AsIs),
        Type::OID => return (Carrier::UInt32, AsIs),
        Type::FLOAT4 => return (Carrier::Float32, AsIs),
        Type::FLOAT8 => return (Carrier::Float64, AsIs),
        Type::NUMERIC => return (numeric_carrier(type_modifier), AsIs),
        // `void` is what a function returns that returns nothing: an empty text
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::UNKNOWN | Type::VOID => return (text, AsIs),
        Type::BPCHAR => return (Carrier::PaddedText { validated }, AsIs),
        Type::DATE => return (Carrier::Date, AsIs),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => return (Carrier::Timestamp, AsIs),
        Type::UUID => return (Carrier::Uuid, AsIs),
        Type::JSON => return (Carrier::Json { validated }, AsIs),
        Type::JSONB => return (jsonb, AsIs),
        Type::BYTEA => return (Carrier::Bytes, AsIs),
        Type::TEXT_ARRAY | Type::VARCHAR_ARRAY => return (list, AsIs),
        Type::INET => return (text, OutputOf("inet_out")),
        Type::CIDR => return (text, OutputOf("cidr_out")),
        Type::INET_ARRAY | Type::CIDR_ARRAY => return (list, OutputTextArray),
        Type::INT2_VECTOR | Type::OID_VECTOR => return (text, Text),
        // a row of no named type
        Type::RECORD | Type::RECORD_ARRAY => return (jsonb, Json),
        _ => {}
    }
    match pg_type.kind() {
        Kind::Enum(_) => (text, AsIs),
        Kind::Domain(base) => plan_type(base, type_modifier, validated),
        Kind::Array(element) if is_text_able(element) => (list, TextArray),
        Kind::Array(_) | Kind::Composite(_) => (jsonb, Json),
        // has a cast to JSON, which `to_jsonb` uses
        Kind::Simple if pg_type.name() == "hstore" => (jsonb, Json),
        Kind::Simple if pg_type.name() == "citext" => (text, AsIs),
        // time, interval, ranges, network and geometric types, types of extensions …: every type has a text form
        _ => (text, Text),
    }
}

/// Can an element of an array be carried as a text, without losing what it is?
fn is_text_able(element: &Type) -> bool {
    match element.kind() {
        Kind::Domain(base) => is_text_able(base),
        Kind::Simple | Kind::Enum(_) | Kind::Range(_) => {
            !matches!(*element, Type::JSON | Type::JSONB | Type::RECORD) && element.name() != "hstore"
        }
        _ => false,
    }
}

/// A declared `numeric(p,s)` that fits is a decimal; any other is its exact text.
pub(in crate::warehouse) fn numeric_carrier(type_modifier: i32) -> Carrier {
    if type_modifier < 4 {
        return Carrier::NumericText;
    }
    let packed = type_modifier - 4;
    let precision = (packed >> 16) & 0xffff;
    // 11 bits, signed since version 15
    let scale = ((packed & 0x7ff) ^ 1024) - 1024;
    // numeric(3,5) holds 0.00123, numeric(3,-2) holds 12300
    let (precision, scale) = if scale < 0 { (precision - scale, 0) } else { (precision.max(scale), scale) };
    match (u8::try_from(precision), i8::try_from(scale)) {
        (Ok(precision @ 1..=38), Ok(scale)) => Carrier::Decimal { precision, scale },
        _ => Carrier::NumericText,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modifier(precision: i32, scale: i32) -> i32 {
        ((precision << 16) | (scale & 0x7ff)) + 4
    }

    #[test]
    fn numeric_is_a_decimal_when_its_declaration_fits() {
        for (declared, want) in [
            ((10, 2), Carrier::Decimal { precision: 10, scale: 2 }),
            ((38, 38), Carrier::Decimal { precision: 38, scale: 38 }),
            ((3, 5), Carrier::Decimal { precision: 5, scale: 5 }),
            ((3, -2), Carrier::Decimal { precision: 5, scale: 0 }),
            ((39, 2), Carrier::NumericText),
        ] {
            assert_eq!(numeric_carrier(modifier(declared.0, declared.1)), want, "{declared:?}");
        }
        assert_eq!(numeric_carrier(-1), Carrier::NumericText);
    }
}
