//! The value types that a profile can hold, and how Arrow values become them.
//!
//! | Value type | Stored as (Arrow / Delta) |
//! |---|---|
//! | `string` | Utf8 / string |
//! | `int` | Int64 / long |
//! | `float` | Float64 / double |
//! | `decimal(p,s)` | Decimal128 / decimal, p at most 38 |
//! | `bool` | Boolean / boolean |
//! | `timestamp` | Timestamp(µs, UTC) / timestamp |
//! | `date` | Date32 / date |
//! | `list` | List<Utf8> / array<string> |
//! | `json` | Utf8 holding JSON text / string |

pub mod convert;
pub mod csv;
pub mod json;
pub mod objects;

use arrow::datatypes::{DataType, Field, TimeUnit};
use std::sync::Arc;

/// Field metadata key that tells a JSON text from a plain string.
pub const VALUE_TYPE_KEY: &str = "cc.value_type";

/// The type of a profile value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ValueType {
    String,
    Int,
    Float,
    Decimal {
        precision: u8,
        scale: i8,
    },
    Bool,
    Timestamp,
    Date,
    /// A list of strings.
    List,
    /// A map or any other nested value, as JSON text.
    Json,
}

impl ValueType {
    /// How values of this type are stored.
    pub fn arrow_type(&self) -> DataType {
        match self {
            Self::String | Self::Json => DataType::Utf8,
            Self::Int => DataType::Int64,
            Self::Float => DataType::Float64,
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::Bool => DataType::Boolean,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Date => DataType::Date32,
            Self::List => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
        }
    }

    /// The value type of a result column; `None` when a profile cannot hold it.
    pub fn of(field: &Field) -> Option<Self> {
        if field.metadata().get(VALUE_TYPE_KEY).is_some_and(|t| t == "json") {
            return Some(Self::Json);
        }
        Self::of_type(field.data_type())
    }

    fn of_type(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => Self::String,
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => Self::Int,
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => Self::Int,
            DataType::Float16 | DataType::Float32 | DataType::Float64 => Self::Float,
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                Self::Decimal { precision: *p, scale: *s }
            }
            DataType::Decimal256(p, s) => Self::Decimal { precision: (*p).min(38), scale: *s },
            DataType::Boolean => Self::Bool,
            DataType::Timestamp(_, _) => Self::Timestamp,
            DataType::Date32 | DataType::Date64 => Self::Date,
            DataType::List(item)
            | DataType::LargeList(item)
            | DataType::ListView(item)
            | DataType::LargeListView(item)
            | DataType::FixedSizeList(item, _) => match item.data_type() {
                DataType::Struct(_) | DataType::Map(_, _) | DataType::Union(_, _) => Self::Json,
                nested if nested.is_nested() => Self::Json,
                _ => Self::List,
            },
            DataType::Struct(_) | DataType::Map(_, _) => Self::Json,
            DataType::Dictionary(_, values) => return Self::of_type(values),
            DataType::RunEndEncoded(_, values) => return Self::of_type(values.data_type()),
            DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_) | DataType::Interval(_) => Self::String,
            DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::FixedSizeBinary(_)
            | DataType::Union(_, _) => return None,
        })
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::String => f.write_str("string"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Bool => f.write_str("bool"),
            Self::Timestamp => f.write_str("timestamp"),
            Self::Date => f.write_str("date"),
            Self::List => f.write_str("list"),
            Self::Json => f.write_str("json"),
        }
    }
}

/// Reads what [`ValueType`]'s `Display` writes; `decimal` alone is `decimal(38,9)`.
impl std::str::FromStr for ValueType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        Ok(match text {
            "string" => Self::String,
            "int" => Self::Int,
            "float" => Self::Float,
            "decimal" => Self::Decimal { precision: 38, scale: 9 },
            "bool" => Self::Bool,
            "timestamp" => Self::Timestamp,
            "date" => Self::Date,
            "list" => Self::List,
            "json" | "map" => Self::Json,
            _ => {
                let inner = text.strip_prefix("decimal(").and_then(|t| t.strip_suffix(')'));
                let parts = inner.and_then(|t| t.split_once(','));
                let parsed =
                    parts.and_then(|(p, s)| Some((p.trim().parse::<u8>().ok()?, s.trim().parse::<i8>().ok()?)));
                match parsed {
                    Some((precision, scale))
                        if (1..=38).contains(&precision) && (0..=precision as i8).contains(&scale) =>
                    {
                        Self::Decimal { precision, scale }
                    }
                    _ => return Err(format!("`{text}` is not a value type")),
                }
            }
        })
    }
}
