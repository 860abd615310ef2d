//! How each Snowflake type becomes an Arrow column. What a query describes and what it returns both go through here, so
//! that the two cannot differ.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::wire::ColumnType;
use crate::values::VALUE_TYPE_KEY;
use crate::warehouse::{UNCONVERTIBLE_COLUMN, WarehouseError};

/// What a column's values are, whatever encoding they arrive in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carrier {
    /// NUMBER without fraction, of at most 18 digits.
    Integer,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Float,
    Text,
    /// Nested values, as JSON text.
    Json,
    Binary,
    Boolean,
    Date,
    /// Digits of its fraction.
    Time {
        scale: u8,
    },
    Timestamp {
        scale: u8,
    },
}

/// One column of a result.
#[derive(Debug, Clone)]
pub(super) struct ColumnPlan {
    pub field: Field,
    pub carrier: Carrier,
}

/// How a query's result is read.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub columns: Vec<ColumnPlan>,
    /// With [`UNCONVERTIBLE_COLUMN`] at the end when some column can hold what Arrow cannot.
    pub schema: SchemaRef,
}

impl Plan {
    pub(super) fn new(columns: &[ColumnType]) -> Result<Self, WarehouseError> {
        let columns: Vec<ColumnPlan> = columns.iter().map(plan_column).collect::<Result<_, _>>()?;
        if columns.is_empty() {
            return Err(WarehouseError::sql("the SQL returns no columns").with_hint("select at least the primary key"));
        }
        let mut fields: Vec<_> = columns.iter().map(|c| c.field.clone()).collect();
        if columns.iter().any(|c| c.carrier.can_be_unconvertible()) {
            fields.push(Field::new(UNCONVERTIBLE_COLUMN, DataType::Utf8, true));
        }
        Ok(Self { columns, schema: Arc::new(Schema::new(fields)) })
    }

    /// Are these the names of its columns?
    pub(super) fn has_names<'a>(&self, names: impl Iterator<Item = &'a str>) -> bool {
        names.eq(self.columns.iter().map(|column| column.field.name().as_str()))
    }

    pub(super) fn marks(&self) -> bool {
        self.schema.fields().len() > self.columns.len()
    }
}

impl Carrier {
    /// Years beyond Arrow's, times beyond a day.
    pub(super) fn can_be_unconvertible(self) -> bool {
        matches!(self, Self::Timestamp { .. } | Self::Time { .. })
    }

    pub(super) fn arrow(self) -> DataType {
        match self {
            Self::Integer => DataType::Int64,
            Self::Decimal { precision, scale } => DataType::Decimal128(precision, scale),
            Self::Float => DataType::Float64,
            Self::Text | Self::Json | Self::Time { .. } => DataType::Utf8,
            Self::Binary => DataType::Binary,
            Self::Boolean => DataType::Boolean,
            Self::Date => DataType::Date32,
            Self::Timestamp { .. } => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        }
    }
}

/// The column, or why it cannot be carried.
pub(super) fn plan_column(column: &ColumnType) -> Result<ColumnPlan, WarehouseError> {
    let Some(carrier) = carrier_of(column) else {
        let shown = shown(column);
        return Err(WarehouseError::sql(format!("the column `{}` is {shown}, which cannot be carried", column.name))
            .with_hint(format!("cast it: {}::VARCHAR AS {0}", column.name)));
    };
    let mut field = Field::new(&column.name, carrier.arrow(), true);
    if carrier == Carrier::Json {
        field.set_metadata(HashMap::from([(VALUE_TYPE_KEY.to_string(), "json".to_string())]));
    }
    Ok(ColumnPlan { field, carrier })
}

fn carrier_of(column: &ColumnType) -> Option<Carrier> {
    let scale = |default: u8| column.scale.map_or(Some(default), |s| u8::try_from(s).ok().filter(|s| *s <= 9));
    Some(match column.type_name.to_lowercase().as_str() {
        "fixed" | "number" => {
            let precision = u8::try_from(column.precision.unwrap_or(38)).ok().filter(|p| (1..=38).contains(p))?;
            let scale = i8::try_from(column.scale.unwrap_or(0)).ok().filter(|s| (0..=37).contains(s))?;
            match (precision, scale) {
                (..=18, 0) => Carrier::Integer,
                _ => Carrier::Decimal { precision, scale },
            }
        }
        "real" | "float" | "double" => Carrier::Float,
        "text" | "char" | "varchar" | "string" => Carrier::Text,
        "binary" => Carrier::Binary,
        "boolean" => Carrier::Boolean,
        "date" => Carrier::Date,
        "time" => Carrier::Time { scale: scale(9)? },
        "timestamp_ntz" | "timestamp_ltz" | "timestamp_tz" | "timestamp" => Carrier::Timestamp { scale: scale(9)? },
        // GeoJSON, or what the account has chosen as their output
        "geography" | "geometry" | "vector" => Carrier::Text,
        "object" if matches!(column.ext_type_name.as_deref(), Some("GEOGRAPHY" | "GEOMETRY")) => Carrier::Text,
        "variant" | "object" | "array" | "map" => Carrier::Json,
        // DECFLOAT, intervals, files, and what is to come
        _ => return None,
    })
}

/// The type as DESCRIBE TABLE writes it.
pub(super) fn shown(column: &ColumnType) -> String {
    let of = |n: Option<i64>| n.map(|n| format!("({n})")).unwrap_or_default();
    match column.type_name.to_lowercase().as_str() {
        "fixed" => format!("NUMBER({},{})", column.precision.unwrap_or(38), column.scale.unwrap_or(0)),
        "real" => "FLOAT".to_string(),
        "text" => format!("VARCHAR{}", of(column.length)),
        "binary" => format!("BINARY{}", of(column.length)),
        name @ ("time" | "timestamp_ntz" | "timestamp_ltz" | "timestamp_tz") => {
            format!("{}{}", name.to_uppercase(), of(column.scale))
        }
        name => column.ext_type_name.clone().unwrap_or_else(|| name.to_uppercase()),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn column(type_name: &str, precision: Option<i64>, scale: Option<i64>) -> ColumnType {
        ColumnType { name: "C".into(), type_name: type_name.into(), precision, scale, ..ColumnType::default() }
    }

    #[test]
    fn numbers_are_integers_when_every_one_of_them_fits() {
        for (precision, scale, want) in [
            (18, 0, Carrier::Integer),
            (19, 0, Carrier::Decimal { precision: 19, scale: 0 }),
            (38, 0, Carrier::Decimal { precision: 38, scale: 0 }),
            (12, 2, Carrier::Decimal { precision: 12, scale: 2 }),
            (38, 37, Carrier::Decimal { precision: 38, scale: 37 }),
        ] {
            assert_eq!(plan_column(&column("fixed", Some(precision), Some(scale))).unwrap().carrier, want);
        }
    }

    #[test]
    fn what_cannot_be_carried_is_refused_by_name_with_a_cast() {
        for name in ["decfloat", "interval_day_time", "file"] {
            let error = plan_column(&column(name, None, None)).unwrap_err();
            assert!(error.message.contains(&name.to_uppercase()) && error.hint.unwrap().contains("C::VARCHAR"));
        }
        assert!(Plan::new(&[]).is_err());
    }

    #[test]
    fn nested_values_are_json_and_places_are_text() {
        let json = plan_column(&column("variant", None, None)).unwrap();
        assert_eq!(json.field.metadata().get(VALUE_TYPE_KEY).unwrap(), "json");
        let mut place = column("object", None, None);
        place.ext_type_name = Some("GEOGRAPHY".into());
        assert_eq!((plan_column(&place).unwrap().carrier, shown(&place).as_str()), (Carrier::Text, "GEOGRAPHY"));
        assert_eq!(shown(&column("fixed", Some(12), Some(2))), "NUMBER(12,2)");
    }
}
