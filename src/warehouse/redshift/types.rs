//! How each Redshift type becomes an Arrow column.
//!
//! OIDs are those of Amazon's own drivers (`redshift_connector`, `utils/oids.py`). Redshift has no user-defined types,
//! so this list is whole; the rest are types of system tables, which the leader node alone has.

use tokio_postgres::types::Type;

use crate::warehouse::WarehouseError;
use crate::warehouse::postgres::decode::Carrier;
use crate::warehouse::postgres::types::{Rendering, numeric_carrier};

const INTERVAL_YEAR_TO_MONTH: u32 = 1188;
const INTERVAL_DAY_TO_SECOND: u32 = 1190;
const HLLSKETCH: u32 = 2935;
const GEOMETRY: u32 = 3000;
const GEOGRAPHY: u32 = 3001;
const SUPER: u32 = 4000;
const VARBYTE: u32 = 6551;

/// A type that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refused {
    what: String,
    instead: &'static str,
}

impl Refused {
    pub(super) fn of(&self, column: &str) -> WarehouseError {
        WarehouseError::sql(format!("column `{column}` is {}, which cannot be read", self.what)).with_hint(self.instead)
    }
}

/// How rows come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Via {
    Cursor,
    Parquet,
}

/// The decoder of a type, and what the server is asked to render.
pub(super) fn plan(oid: u32, type_modifier: i32, via: Via) -> Result<(Carrier, Rendering), Refused> {
    use Rendering::{AsIs, Between, Text};
    // every database of Redshift is UTF-8
    let text = Carrier::Text { validated: true };
    let refuse = |what: &str, instead| Err(Refused { what: what.to_string(), instead });
    match oid {
        SUPER => return Ok((Carrier::Json { validated: true }, Between("JSON_SERIALIZE(", ")"))),
        VARBYTE => return Ok((text, Between("FROM_VARBYTE(", ", 'hex')"))),
        GEOMETRY | GEOGRAPHY => return Ok((text, Between("ST_AsEWKT(", ")"))),
        INTERVAL_YEAR_TO_MONTH | INTERVAL_DAY_TO_SECOND => return Ok((text, Text)),
        HLLSKETCH => return refuse("an HLLSKETCH", "select what it counts: HLL_CARDINALITY(x)"),
        _ => {}
    }
    let system = "a type of system tables; cast it: x::varchar";
    let Some(known) = Type::from_oid(oid) else { return refuse(&format!("of an unknown type (OID {oid})"), system) };
    Ok(match known {
        Type::BOOL => (Carrier::Bool, AsIs),
        Type::INT2 => (Carrier::Int16, AsIs),
        Type::INT4 => (Carrier::Int32, AsIs),
        Type::INT8 => (Carrier::Int64, AsIs),
        Type::OID => (Carrier::UInt32, AsIs),
        Type::FLOAT4 => (Carrier::Float32, AsIs),
        Type::FLOAT8 => (Carrier::Float64, AsIs),
        // The binary form of a numeric has differed from cluster version to cluster version, and from PostgreSQL's
        // (npgsql/npgsql#3843 and #3919): it is never asked for. Texts are exact, and so is Parquet.
        Type::NUMERIC => match (numeric_carrier(type_modifier), via) {
            (Carrier::Decimal { precision, scale }, Via::Cursor) => (Carrier::DecimalText { precision, scale }, Text),
            (Carrier::Decimal { precision, scale }, Via::Parquet) => (Carrier::Decimal { precision, scale }, AsIs),
            (_, Via::Cursor) => (text, Text),
            (_, Via::Parquet) => (text, AsIs),
        },
        Type::TEXT | Type::VARCHAR | Type::NAME | Type::UNKNOWN => (text, AsIs),
        Type::BPCHAR => (Carrier::PaddedText { validated: true }, AsIs),
        Type::DATE => (Carrier::Date, AsIs),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => (Carrier::Timestamp, AsIs),
        Type::TIME | Type::TIMETZ | Type::INTERVAL => (text, Text),
        _ => return refuse(&format!("of type {}", known.name()), system),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn types_of_redshifts_own_are_rendered_or_refused_with_a_way_out() {
        assert_eq!(plan(SUPER, -1, Via::Cursor).unwrap().0, Carrier::Json { validated: true });
        assert_eq!(plan(VARBYTE, -1, Via::Parquet).unwrap().1, Rendering::Between("FROM_VARBYTE(", ", 'hex')"));
        assert!(plan(HLLSKETCH, -1, Via::Cursor).unwrap_err().of("x").hint.unwrap().contains("HLL_CARDINALITY"));
        assert!(plan(Type::TEXT_ARRAY.oid(), -1, Via::Cursor).unwrap_err().of("x").message.contains("`x`"));
        assert!(plan(99_999, -1, Via::Cursor).is_err());
    }

    #[test]
    fn a_numeric_never_comes_in_its_binary_form() {
        let declared = ((12 << 16) | 2) + 4;
        let decimal = (Carrier::DecimalText { precision: 12, scale: 2 }, Rendering::Text);
        assert_eq!(plan(Type::NUMERIC.oid(), declared, Via::Cursor), Ok(decimal));
        assert_eq!(plan(Type::NUMERIC.oid(), -1, Via::Cursor).unwrap().1, Rendering::Text);
        assert_eq!(plan(Type::NUMERIC.oid(), declared, Via::Parquet).unwrap().1, Rendering::AsIs);
    }

    #[test]
    fn no_type_of_redshifts_own_is_one_that_the_client_knows_by_another_name() {
        for oid in [INTERVAL_YEAR_TO_MONTH, INTERVAL_DAY_TO_SECOND, HLLSKETCH, GEOMETRY, GEOGRAPHY, SUPER, VARBYTE] {
            assert_eq!(Type::from_oid(oid), None, "{oid}");
        }
    }
}
