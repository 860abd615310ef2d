//! What the scripted Snowflake knows: its queries, and their results in the service's own encodings.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeListArray, Float64Array, Int8Array,
    Int16Array, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow::datatypes::{DataType, Field, Float32Type, Int64Type, Schema};
use regex::Regex;
use serde_json::{Value, json};

/// Rows of the inline part, and of each file after it.
const INLINE_ROWS: u64 = 1000;
const FILE_ROWS: u64 = 50_000;

type Part = Arc<dyn Fn(usize) -> RecordBatch + Send + Sync>;

/// A result: part 0 comes with the answer, the others are files. Parts are made when they are asked for.
#[derive(Clone)]
pub struct Table {
    pub rowtype: Vec<Value>,
    pub rows: Vec<u64>,
    pub part: Part,
    /// As JSON instead.
    pub json: Option<Vec<Vec<Value>>>,
}

/// An error that the service reports.
#[derive(Clone)]
pub struct Fault {
    pub code: &'static str,
    pub state: &'static str,
    pub message: String,
    pub place: Option<(i64, i64)>,
}

/// What the service makes of a statement.
#[derive(Clone)]
pub enum Script {
    Table(Table),
    /// Runs until it is stopped.
    Slow,
    Fault(Fault),
    /// Does something else than read: its `statementTypeId`.
    Write(i64),
}

pub fn column(name: &str, type_name: &str, precision: Option<i64>, scale: Option<i64>) -> Value {
    json!({
        "name": name, "database": "SHOP", "schema": "PUBLIC", "table": "T", "nullable": true, "type": type_name,
        "byteLength": null, "length": (type_name == "text").then_some(16_777_216), "scale": scale, "precision": precision,
        "collation": null,
    })
}

/// A field with the metadata that the service puts on it.
fn field(column: &Value, data_type: DataType) -> Field {
    let mut metadata = HashMap::from([("logicalType".to_string(), column["type"].as_str().unwrap().to_uppercase())]);
    for name in ["precision", "scale", "byteLength", "charLength"] {
        let value = column[name].as_i64().unwrap_or_default();
        metadata.insert(name.to_string(), value.to_string());
    }
    metadata.insert("finalType".to_string(), "T".to_string());
    Field::new(column["name"].as_str().unwrap(), data_type, true).with_metadata(metadata)
}

pub fn batch(rowtype: &[Value], arrays: Vec<ArrayRef>) -> RecordBatch {
    let fields: Vec<Field> = rowtype.iter().zip(&arrays).map(|(c, a)| field(c, a.data_type().clone())).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

impl Table {
    fn one(rowtype: Vec<Value>, arrays: Vec<ArrayRef>) -> Self {
        let batch = batch(&rowtype, arrays);
        Self { rows: vec![batch.num_rows() as u64], part: Arc::new(move |_| batch.clone()), rowtype, json: None }
    }

    fn parts(rowtype: Vec<Value>, parts: Vec<Vec<ArrayRef>>) -> Self {
        let parts: Vec<_> = parts.into_iter().map(|arrays| batch(&rowtype, arrays)).collect();
        let rows = parts.iter().map(|p| p.num_rows() as u64).collect();
        Self { rows, part: Arc::new(move |at| parts[at].clone()), rowtype, json: None }
    }

    fn json(rowtype: Vec<Value>, rows: Vec<Vec<Value>>) -> Self {
        let empty = RecordBatch::new_empty(Arc::new(Schema::empty()));
        Self { rows: vec![rows.len() as u64], part: Arc::new(move |_| empty.clone()), rowtype, json: Some(rows) }
    }
}

fn one_text(name: &str, text: &str) -> Script {
    Script::Table(Table::json(vec![column(name, "text", None, None)], vec![vec![json!(text)]]))
}

/// What a statement does. `limit`: the sample's.
pub fn script(sql: &str) -> (Script, usize) {
    let wrapped = Regex::new(r"(?s)^SELECT \* FROM \(\n(.*)\n\) AS q LIMIT (\d+)$").unwrap();
    let (sql, limit) = match wrapped.captures(sql) {
        Some(found) => (found[1].to_string(), found[2].parse().unwrap()),
        None => (sql.to_string(), u64::MAX),
    };
    let lines_before = usize::from(limit != u64::MAX);
    (of(sql.trim(), limit), lines_before)
}

fn of(sql: &str, limit: u64) -> Script {
    let rows = Regex::new(r#"^SELECT "id", "name" FROM ROWS\((\d+)\)$"#).unwrap();
    if let Some(found) = rows.captures(sql) {
        return Script::Table(numbered(found[1].parse::<u64>().unwrap().min(limit)));
    }
    if let Some(explained) = sql.strip_prefix("EXPLAIN USING JSON\n") {
        return explain(explained);
    }
    if sql.contains("INFORMATION_SCHEMA.TABLES") {
        let names: ArrayRef = Arc::new(StringArray::from(vec!["ORDERS", "Odd Name", "PEOPLE"]));
        let schemas: ArrayRef = Arc::new(StringArray::from(vec!["PUBLIC"; 3]));
        let kinds: ArrayRef = Arc::new(StringArray::from(vec!["BASE TABLE", "VIEW", "BASE TABLE"]));
        let text = |n| column(n, "text", None, None);
        let columns = vec![text("TABLE_SCHEMA"), text("TABLE_NAME"), text("TABLE_TYPE")];
        return Script::Table(Table::one(columns, vec![schemas, names, kinds]));
    }
    if sql.contains("INFORMATION_SCHEMA.COLUMNS") {
        let names: ArrayRef = Arc::new(StringArray::from(vec!["ORDERS", "PEOPLE"]));
        let schemas: ArrayRef = Arc::new(StringArray::from(vec!["PUBLIC"; 2]));
        let counts: ArrayRef = Arc::new(Int64Array::from(vec![2, 4]));
        let text = |n| column(n, "text", None, None);
        let columns =
            vec![text("TABLE_SCHEMA"), text("TABLE_NAME"), column("COLUMN_COUNT", "fixed", Some(18), Some(0))];
        return Script::Table(Table::one(columns, vec![schemas, names, counts]));
    }
    let upper = sql.to_uppercase();
    if upper.starts_with("DELETE") || upper.contains("RESULT_OF_A_WRITE") {
        return Script::Write(0x3300);
    }
    match sql {
        "SELECT CURRENT_VERSION()" => one_text("CURRENT_VERSION()", "9.99.1"),
        "SELECT * FROM TYPES" => Script::Table(types()),
        "SELECT * FROM TYPES_JSON" => Script::Table(types_json()),
        "SELECT * FROM JSON_IN_FILES" => {
            let rows: Vec<Vec<Value>> = (1..=6).map(|n| vec![json!(n.to_string()), json!("\u{1f6b2}, [x]")]).collect();
            let columns = vec![column("id", "fixed", Some(10), Some(0)), column("name", "text", None, None)];
            Script::Table(Table { rows: vec![1, 2, 3], ..Table::json(columns, rows) })
        }
        "SELECT \"nothing\" FROM NOTHING" => {
            let nothing: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; 3]));
            Script::Table(Table::one(vec![column("nothing", "text", None, None)], vec![nothing]))
        }
        "SELECT \"id\", \"name\" FROM PEOPLE WHERE FALSE" | "SELECT * FROM SECURE_VIEW" => Script::Table(numbered(0)),
        "SELECT * FROM \"PUBLIC\".\"PEOPLE\"" => {
            let columns = vec![
                column("id", "fixed", Some(10), Some(0)),
                column("name", "text", None, None),
                column("balance", "fixed", Some(20), Some(4)),
                column("wide", "decfloat", None, None),
            ];
            Script::Table(Table { rows: vec![0], ..Table::json(columns, vec![]) })
        }
        "SELECT \"name\" FROM NON_ASCII" => {
            let name: ArrayRef = Arc::new(StringArray::from(vec!["Zoë, Åse & 小林 🚲 – naïve"]));
            Script::Table(Table::one(vec![column("name", "text", None, None)], vec![name]))
        }
        "SELECT \"long\" FROM LONG_TEXT" => {
            let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1_000_000)]));
            Script::Table(Table::one(vec![column("long", "text", None, None)], vec![long]))
        }
        "SELECT * FROM SLOW" => Script::Slow,
        "SELECT FROM WHERE" => fault(
            "001003",
            "42000",
            "SQL compilation error:\nsyntax error line 1 at position 7 unexpected 'FROM'.",
            Some((1, 7)),
        ),
        "SELECT * FROM SECRETS" => fault(
            "003001",
            "42501",
            "SQL access control error:\nInsufficient privileges to operate on table 'SECRETS'",
            None,
        ),
        "SELECT * FROM ASLEEP" => fault(
            "000606",
            "57P03",
            "No active warehouse selected in the current session.  Select an active warehouse with the 'use warehouse' command.\n",
            None,
        ),
        "SELECT a,\n  spend\nFROM PEOPLE" => fault(
            "000904",
            "42000",
            "SQL compilation error: error line 2 at position 2\ninvalid identifier 'SPEND'",
            Some((2, 2)),
        ),
        "SELECT * FROM FAILS_INSIDE" => fault(
            "000603",
            "XX000",
            "SQL execution internal error:\nProcessing aborted by error 300010:391167117",
            None,
        ),
        "SELECT a AS x, b AS x FROM TWICE" => {
            let columns = vec![column("x", "fixed", Some(5), Some(0)), column("x", "text", None, None)];
            let arrays: Vec<ArrayRef> =
                vec![Arc::new(Int8Array::from(vec![1])), Arc::new(StringArray::from(vec!["a"]))];
            Script::Table(Table::one(columns, arrays))
        }
        "SELECT * FROM FAR" => Script::Table(far()),
        "SELECT * FROM STRUCTURED" => Script::Table(structured()),
        "SELECT * FROM TIMES_INSIDE" => Script::Table(times_inside()),
        "SELECT * FROM WIDE_FLOATS" => Script::Table(Table::json(vec![column("D", "decfloat", None, None)], vec![])),
        "SELECT * FROM CHANGED" => {
            // another type in the stream than in its description
            let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
            Script::Table(Table::one(vec![column("A", "boolean", None, None)], vec![text]))
        }
        _ => {
            let name = sql.split("FROM").nth(1).unwrap_or(sql).trim().replace('"', "").to_uppercase();
            let message = format!("SQL compilation error:\nObject '{name}' does not exist or not authorized.");
            fault("002003", "42S02", &message, None)
        }
    }
}

fn fault(code: &'static str, state: &'static str, message: &str, place: Option<(i64, i64)>) -> Script {
    Script::Fault(Fault { code, state, message: message.to_string(), place })
}

fn explain(sql: &str) -> Script {
    if sql.contains("SECURE") {
        return fault("003001", "42501", "SQL access control error:\nInsufficient privileges to operate on view", None);
    }
    let plan = json!({
        "GlobalStats": { "partitionsTotal": 1200, "partitionsAssigned": 30, "bytesAssigned": 4_567_890 },
        "Operations": [[{ "id": 0, "operation": "Result" }]],
    });
    one_text("content", &plan.to_string())
}

/// Ids from 1 and their names. The width of the ids changes from part to part, as the service's does.
fn numbered(total: u64) -> Table {
    let rowtype = vec![column("id", "fixed", Some(10), Some(0)), column("name", "text", None, None)];
    let mut rows = vec![total.min(INLINE_ROWS)];
    while rows.iter().sum::<u64>() < total {
        rows.push(FILE_ROWS.min(total - rows.iter().sum::<u64>()));
    }
    let (columns, counts) = (rowtype.clone(), rows.clone());
    let part = move |at: usize| {
        let first: u64 = counts[..at].iter().sum::<u64>() + 1;
        let ids = first as i64..(first + counts[at]) as i64;
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(|i| format!("name {i}"))));
        let ids: ArrayRef = match at % 3 {
            0 => Arc::new(ids.map(|i| Some(i as i32)).collect::<Int32Array>()),
            1 => Arc::new(ids.collect::<Int64Array>()),
            _ => {
                let wide = ids.map(|i| Some(i128::from(i))).collect::<Decimal128Array>();
                Arc::new(wide.with_precision_and_scale(38, 0).unwrap())
            }
        };
        batch(&columns, vec![ids, names])
    };
    Table { rowtype, rows, part: Arc::new(part), json: None }
}

fn moment(parts: &[(&str, ArrayRef)], valid: &[bool]) -> ArrayRef {
    let fields: Vec<Field> = parts.iter().map(|(n, a)| Field::new(*n, a.data_type().clone(), true)).collect();
    let arrays = parts.iter().map(|(_, a)| a.clone()).collect();
    Arc::new(StructArray::new(fields.into(), arrays, Some(valid.to_vec().into())))
}

/// 2026-02-28T16:30:15.123456789Z
pub const EPOCH: i64 = 1_772_296_215;

fn type_columns() -> Vec<Value> {
    vec![
        column("integer", "fixed", Some(18), Some(0)),
        column("number", "fixed", Some(38), Some(0)),
        column("decimal", "fixed", Some(12), Some(2)),
        column("wide_decimal", "fixed", Some(38), Some(9)),
        column("float", "real", None, None),
        column("text", "text", None, None),
        column("binary", "binary", None, None),
        column("boolean", "boolean", None, None),
        column("date", "date", None, None),
        column("time", "time", Some(0), Some(9)),
        column("short_time", "time", Some(0), Some(0)),
        column("timestamp_ntz", "timestamp_ntz", Some(0), Some(9)),
        column("timestamp_ms", "timestamp_ntz", Some(0), Some(3)),
        column("timestamp_ltz", "timestamp_ltz", Some(0), Some(9)),
        column("timestamp_tz", "timestamp_tz", Some(0), Some(9)),
        column("timestamp_tz_s", "timestamp_tz", Some(0), Some(0)),
        column("before_1970", "timestamp_ntz", Some(0), Some(9)),
        column("variant", "variant", None, None),
        column("array", "array", None, None),
        column("object", "object", None, None),
        column("geography", "geography", None, None),
        column("vector", "vector", None, None),
    ]
}

/// Row 1 with values (inline), row 2 with nulls (a file); the encodings differ between the two where the service's do.
fn types() -> Table {
    let ints = |v: Vec<Option<i64>>| Arc::new(Int64Array::from(v)) as ArrayRef;
    let small = |v: Vec<Option<i32>>| Arc::new(Int32Array::from(v)) as ArrayRef;
    let texts = |v: Option<&str>| Arc::new(StringArray::from(vec![v])) as ArrayRef;
    let wide = |v: Option<i128>, s| {
        Arc::new(Decimal128Array::from(vec![v]).with_precision_and_scale(38, s).unwrap()) as ArrayRef
    };
    let vector = |v: Option<Vec<Option<f32>>>| {
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(vec![v], 2)) as ArrayRef
    };
    let zone = || small(vec![Some(1440 + 120)]);
    let first = vec![
        ints(vec![Some(999_999_999_999_999_999)]),
        wide(Some(12_345_678_901_234_567_890_123_456_789_012_345_678), 0),
        small(vec![Some(-1_234_567)]),
        wide(Some(12_345_678_901_234_567_890_123_456_789), 9),
        Arc::new(Float64Array::from(vec![0.1])),
        texts(Some("a")),
        Arc::new(BinaryArray::from_vec(vec![&[0, 255]])),
        Arc::new(BooleanArray::from(vec![true])),
        Arc::new(Date32Array::from(vec![20_512])),
        ints(vec![Some(59_415_123_456_789)]),
        small(vec![Some(59_415)]),
        moment(&[("epoch", ints(vec![Some(EPOCH)])), ("fraction", small(vec![Some(123_456_789)]))], &[true]),
        ints(vec![Some(EPOCH * 1000 + 123)]),
        moment(&[("epoch", ints(vec![Some(EPOCH)])), ("fraction", small(vec![Some(123_456_789)]))], &[true]),
        moment(
            &[("epoch", ints(vec![Some(EPOCH)])), ("fraction", small(vec![Some(123_456_789)])), ("timezone", zone())],
            &[true],
        ),
        moment(&[("epoch", ints(vec![Some(EPOCH)])), ("timezone", zone())], &[true]),
        // half a microsecond before 1970: cut downwards
        ints(vec![Some(-500)]),
        texts(Some("{\n  \"a\": 1\n}")),
        texts(Some("[1,2]")),
        texts(Some("{\"b\":null}")),
        texts(Some("{\"coordinates\":[1,2],\"type\":\"Point\"}")),
        vector(Some(vec![Some(1.0), Some(2.5)])),
    ];
    let second = vec![
        Arc::new(Int8Array::from(vec![None::<i8>])) as ArrayRef,
        Arc::new(Int16Array::from(vec![None::<i16>])),
        ints(vec![None]),
        ints(vec![None]),
        Arc::new(Float64Array::from(vec![None::<f64>])),
        texts(None),
        Arc::new(BinaryArray::from_opt_vec(vec![None])),
        Arc::new(BooleanArray::from(vec![None::<bool>])),
        Arc::new(Date32Array::from(vec![None::<i32>])),
        ints(vec![None]),
        small(vec![None]),
        ints(vec![None]),
        ints(vec![None]),
        ints(vec![None]),
        moment(
            &[("epoch", ints(vec![None])), ("fraction", small(vec![None])), ("timezone", small(vec![None]))],
            &[false],
        ),
        moment(&[("epoch", ints(vec![None])), ("timezone", small(vec![None]))], &[false]),
        moment(&[("epoch", ints(vec![None])), ("fraction", small(vec![None]))], &[false]),
        texts(None),
        texts(None),
        texts(None),
        texts(None),
        vector(None),
    ];
    Table::parts(type_columns(), vec![first, second])
}

fn types_json() -> Table {
    let at = format!("{EPOCH}.123456789");
    let first = [
        "999999999999999999",
        "12345678901234567890123456789012345678",
        "-12345.67",
        "12345678901234567890.123456789",
        "0.1",
        "a",
        "00FF",
        "true",
        "20512",
        "59415.123456789",
        "59415",
        &at,
        &format!("{EPOCH}.123"),
        &at,
        &format!("{at} 1560"),
        &format!("{EPOCH} 1560"),
        "-0.000000500",
        "{\n  \"a\": 1\n}",
        "[1,2]",
        "{\"b\":null}",
        "{\"coordinates\":[1,2],\"type\":\"Point\"}",
        "[1.0,2.5]",
    ];
    let first = first.iter().map(|v| json!(v)).collect();
    Table::json(type_columns(), vec![first, vec![Value::Null; type_columns().len()]])
}

/// The years 1 and 9999, and one that no timestamp of Arrow reaches.
fn far() -> Table {
    let column = column("at", "timestamp_ntz", Some(0), Some(9));
    let epochs: ArrayRef = Arc::new(Int64Array::from(vec![-62_135_596_800, 253_402_300_799, 99_999_999_999_999]));
    let fractions: ArrayRef = Arc::new(Int32Array::from(vec![0, 999_999_000, 0]));
    Table::one(vec![column], vec![moment(&[("epoch", epochs), ("fraction", fractions)], &[true; 3])])
}

fn structured() -> Table {
    let list = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let object = moment(&[("n", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)], &[true, false]);
    let columns = vec![column("l", "array", None, None), column("o", "object", None, None)];
    Table::one(columns, vec![Arc::new(list), object])
}

fn times_inside() -> Table {
    let at = Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let field = Field::new("at", DataType::Int64, true)
        .with_metadata(HashMap::from([("logicalType".to_string(), "TIMESTAMP_NTZ".to_string())]));
    let object: ArrayRef = Arc::new(StructArray::new(vec![field].into(), vec![at], None));
    Table::one(vec![column("o", "object", None, None)], vec![object])
}
