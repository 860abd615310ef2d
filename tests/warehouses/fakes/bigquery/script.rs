//! The queries that the fake knows, and what each returns.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, Float64Array, Int64Array,
    ListArray, RecordBatch, StringArray, StructArray, Time64MicrosecondArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, i256};
use serde_json::{Value, json};

use super::{Answer, Script};

pub const SLOW: &str = "SELECT slow FROM shop.slow";
pub const EVERY_TYPE: &str = "SELECT * FROM shop.every_type";

/// Ids and names, 1 to `rows`, sorted.
pub fn numbers(rows: u64) -> String {
    format!("SELECT id, name FROM shop.numbers_{rows} ORDER BY id")
}

/// Rows of fixed columns.
pub fn rows_of(fields: Value, columns: Vec<(&str, ArrayRef)>) -> Answer {
    let schema = Schema::new(
        columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect::<Vec<_>>(),
    );
    let schema: SchemaRef = Arc::new(schema);
    let batch =
        RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, column)| column).collect()).expect("rows");
    Answer {
        fields,
        schema,
        rows: batch.num_rows() as u64,
        make: Arc::new(move |from, count| batch.slice(from as usize, count as usize)),
        takes: Duration::ZERO,
        bytes: 10_485_760,
        statement_type: "SELECT",
        fails: None,
    }
}

fn ids_and_names(rows: u64) -> Answer {
    let schema: SchemaRef =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("name", DataType::Utf8, true)]));
    let made = schema.clone();
    Answer {
        fields: json!([{ "name": "id", "type": "INTEGER", "mode": "NULLABLE" }, { "name": "name", "type": "STRING" }]),
        schema,
        rows,
        make: Arc::new(move |from, count| {
            let ids = from as i64 + 1..from as i64 + 1 + count as i64;
            let names: StringArray = ids.clone().map(|id| Some(format!("name {id}"))).collect();
            let ids: Int64Array = ids.collect::<Vec<_>>().into();
            RecordBatch::try_new(made.clone(), vec![Arc::new(ids), Arc::new(names)]).expect("rows")
        }),
        takes: Duration::ZERO,
        bytes: rows * 16,
        statement_type: "SELECT",
        fails: None,
    }
}

/// A row with a value of each type, and one with nulls (an array is never null: it is empty).
pub fn every_type() -> Answer {
    let one = |column: ArrayRef| {
        let nothing = arrow::array::new_null_array(column.data_type(), 1);
        arrow::compute::concat(&[&column, &nothing]).expect("two rows")
    };
    let text = |value: &str| one(Arc::new(StringArray::from(vec![value])));
    let decimal = |value: i128, p, s| {
        one(Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(p, s).expect("a decimal")))
    };
    let wide = |digits: &str, p, s| {
        let value = i256::from_string(digits).expect("a number");
        one(Arc::new(Decimal256Array::from(vec![value]).with_precision_and_scale(p, s).expect("a decimal")))
    };
    let micros = 1_772_296_215_123_456;
    let list = |values: ArrayRef| -> ArrayRef {
        let item = Arc::new(Field::new("item", values.data_type().clone(), true));
        let offsets = OffsetBuffer::from_lengths([values.len(), 0]);
        Arc::new(ListArray::new(item, offsets, values, None))
    };
    let structure = |columns: Vec<(&str, ArrayRef)>, nulls: Vec<bool>| -> ArrayRef {
        let fields: Vec<_> = columns.iter().map(|(n, c)| Field::new(*n, c.data_type().clone(), true)).collect();
        let columns = columns.into_iter().map(|(_, c)| c).collect();
        Arc::new(StructArray::new(fields.into(), columns, Some(NullBuffer::from(nulls))))
    };
    let range = structure(
        vec![
            ("start", Arc::new(Date32Array::from(vec![Some(20_512), None])) as ArrayRef),
            ("end", Arc::new(Date32Array::from(vec![None::<i32>, None]))),
        ],
        vec![true, false],
    );
    let lines = structure(
        vec![
            ("sku", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef),
            ("at", Arc::new(TimestampMicrosecondArray::from(vec![micros, micros]))),
        ],
        vec![true, true],
    );
    let address = structure(
        vec![
            ("city", Arc::new(StringArray::from(vec![Some("Zürich"), None])) as ArrayRef),
            ("opens", Arc::new(Time64MicrosecondArray::from(vec![Some(28_800_000_000), None]))),
        ],
        vec![true, false],
    );
    rows_of(
        json!([
            { "name": "int64", "type": "INTEGER" }, { "name": "float64", "type": "FLOAT" },
            { "name": "numeric", "type": "NUMERIC" }, { "name": "numeric_p", "type": "NUMERIC", "precision": "12", "scale": "2" },
            { "name": "bignumeric", "type": "BIGNUMERIC" },
            { "name": "bignumeric_p", "type": "BIGNUMERIC", "precision": "40", "scale": "4" },
            { "name": "string", "type": "STRING" }, { "name": "bytes", "type": "BYTES" }, { "name": "bool", "type": "BOOLEAN" },
            { "name": "date", "type": "DATE" }, { "name": "datetime", "type": "DATETIME" },
            { "name": "timestamp", "type": "TIMESTAMP" }, { "name": "time", "type": "TIME" },
            { "name": "interval", "type": "INTERVAL" }, { "name": "geography", "type": "GEOGRAPHY" },
            { "name": "json", "type": "JSON" }, { "name": "range", "type": "RANGE", "rangeElementType": { "type": "DATE" } },
            { "name": "struct", "type": "RECORD", "fields": [
                { "name": "city", "type": "STRING" }, { "name": "opens", "type": "TIME" },
            ] },
            { "name": "array", "type": "INTEGER", "mode": "REPEATED" },
            { "name": "structs", "type": "RECORD", "mode": "REPEATED", "fields": [
                { "name": "sku", "type": "STRING" }, { "name": "at", "type": "DATETIME" },
            ] },
        ]),
        vec![
            ("int64", one(Arc::new(Int64Array::from(vec![i64::MAX])))),
            ("float64", one(Arc::new(Float64Array::from(vec![0.1])))),
            ("numeric", decimal(12_345_678_901_234_567_890_123_456_789, 38, 9)),
            ("numeric_p", decimal(1_250, 12, 2)),
            ("bignumeric", wide(&format!("57896044618658097711785492504343953926{}", "1".repeat(38)), 76, 38)),
            ("bignumeric_p", wide("1234567890123456789012345678901234567890", 40, 4)),
            ("string", text("a")),
            ("bytes", one(Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]])))),
            ("bool", one(Arc::new(BooleanArray::from(vec![true])))),
            ("date", one(Arc::new(Date32Array::from(vec![20_512])))),
            ("datetime", one(Arc::new(TimestampMicrosecondArray::from(vec![micros])))),
            ("timestamp", one(Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC")))),
            ("time", one(Arc::new(Time64MicrosecondArray::from(vec![45_296_789_000])))),
            ("interval", text("1-2 3 4:5:6.789")),
            ("geography", text("POINT(8.5417 47.3769)")),
            ("json", text(r#"{"a":[1,2]}"#)),
            ("range", range),
            ("struct", address),
            ("array", list(Arc::new(Int64Array::from(vec![1, 2])))),
            ("structs", list(lines)),
        ],
    )
}

/// The type that a DATETIME comes as.
pub const DATETIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

pub fn script() -> Script {
    Arc::new(|query: &str| {
        let sample = regex::Regex::new(r"(?s)^SELECT \* FROM \(\n(.*)\n\) AS q LIMIT (\d+)$").expect("a pattern");
        if let Some(found) = sample.captures(query) {
            let mut answer = script()(&found[1])?;
            answer.rows = answer.rows.min(found[2].parse().expect("a number"));
            return Ok(answer);
        }
        let text = |name: &'static str, values: Vec<Option<String>>| {
            rows_of(json!([{ "name": name, "type": "STRING" }]), vec![(name, Arc::new(StringArray::from(values)))])
        };
        let query = query.trim().trim_end_matches(';').trim();
        if let Some((_, rows)) = query.split_once("shop.numbers_") {
            let rows = rows.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
            return Ok(ids_and_names(rows));
        }
        let one = || {
            rows_of(json!([{ "name": "one", "type": "INTEGER" }]), vec![("one", Arc::new(Int64Array::from(vec![1])))])
        };
        Ok(match query {
            "SELECT 1 AS one" => one(),
            EVERY_TYPE => every_type(),
            SLOW => Answer { takes: Duration::from_secs(60), ..one() },
            "SELECT * FROM shop.brief" => Answer { takes: Duration::from_millis(300), ..one() },
            "SELECT * FROM shop.nothing" => rows_of(
                json!([{ "name": "nothing", "type": "INTEGER" }]),
                vec![("nothing", Arc::new(Int64Array::from(vec![None::<i64>; 3])))],
            ),
            "SELECT name FROM shop.names" => text("name", vec![Some("Zoë, Åse & 小林 🚲 – naïve".into())]),
            "SELECT long FROM shop.long" => text("long", vec![Some("x".repeat(1_000_000))]),
            // what only the dry run can tell
            "SELECT * FROM shop.script" => Answer { statement_type: "SCRIPT", ..one() },
            "SELECT * FROM shop.fails" => {
                Answer { fails: Some(("invalidQuery", "division by zero: 1 / 0".into())), ..one() }
            }
            "SELECT * FROM shop.breaks_down" => Answer {
                fails: Some((
                    "backendError",
                    "Error encountered during execution. Retrying may solve the problem.".into(),
                )),
                ..one()
            },
            "SELECT * FROM shop.other_rows" => Answer { fields: json!([{ "name": "one", "type": "STRING" }]), ..one() },
            "SELECT * FROM shop.hologram" => Answer { fields: json!([{ "name": "one", "type": "HOLOGRAM" }]), ..one() },
            "SELECT * FROM shop.no_such_table" => {
                let message = "Not found: Table shop-project:shop.no_such_table was not found in location EU";
                return Err((404, "notFound", message.into()));
            }
            "SELECT * FROM shop.hidden" => {
                let message = "Access Denied: Table shop-project:shop.hidden: User does not have permission to query table \
                               shop-project:shop.hidden, or perhaps it does not exist.";
                return Err((403, "accessDenied", message.into()));
            }
            "SELECT FROM WHERE" => {
                return Err((400, "invalidQuery", "Syntax error: Unexpected keyword FROM at [1:8]".into()));
            }
            other => {
                return Err((400, "invalidQuery", format!("the script does not know: {other}")));
            }
        })
    })
}
