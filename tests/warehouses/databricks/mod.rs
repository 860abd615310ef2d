//! `databricks`: a scripted server with the documented wire format, and minilake.

mod answers;
mod minilake;
mod program;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, IntervalYearMonthArray, ListBuilder, MapBuilder,
    NullArray, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::{ConnectionParams, Warehouse};

use crate::fakes::databricks::{
    ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, Column, Fake, KEY, Make, SIGNATURE, Script, Table, WAREHOUSE_ID,
};
use crate::suite::{self, Ask, Fault, NON_ASCII, Subject, TypeCase, WRONG_SECRET, case, open};

const MICROS: i64 = 1_772_296_215_123_456;

pub struct Scripted {
    fake: Fake,
}

/// An array, sliced.
fn fixed(array: impl arrow::array::Array + 'static) -> Make {
    let array: ArrayRef = Arc::new(array);
    Arc::new(move |range: Range<u64>| array.slice(range.start as usize, (range.end - range.start) as usize))
}

fn column(name: &'static str, type_text: &'static str, native: Make) -> Column {
    Column { name, type_text, native, rendered: None }
}

fn texts(values: [Option<&str>; 2]) -> Make {
    fixed(StringArray::from(values.to_vec()))
}

fn table(columns: Vec<Column>, rows: u64) -> Table {
    Table { columns: Arc::new(columns), rows, chunk_rows: 20_000 }
}

/// `id` counts from 1.
fn counting(rows: u64) -> Table {
    let ids: Make = Arc::new(|r: Range<u64>| Arc::new(r.map(|i| i as i64 + 1).collect::<Int64Array>()) as ArrayRef);
    let names: Make = Arc::new(|r: Range<u64>| {
        Arc::new(r.map(|i| Some(format!("name {}", i + 1))).collect::<StringArray>()) as ArrayRef
    });
    table(vec![column("id", "bigint", ids), column("name", "string", names)], rows)
}

/// Every type, as Spark's Arrow has it: instants in the session's zone, intervals as Arrow's own.
fn types_table() -> Table {
    let zoned = |zone: Option<&str>| {
        fixed(TimestampMicrosecondArray::from(vec![Some(MICROS), None]).with_timezone_opt(zone.map(Arc::<str>::from)))
    };
    let mut list = ListBuilder::new(StringBuilder::new()).with_field(Field::new("element", DataType::Utf8, true));
    list.append_value([Some("a"), None]);
    list.append_null();
    let mut map = MapBuilder::new(None, StringBuilder::new(), arrow::array::Int32Builder::new());
    map.keys().append_value("k");
    map.values().append_value(7);
    map.append(true).unwrap();
    map.append(false).unwrap();
    let inner = Fields::from(vec![
        Field::new("a", DataType::Int32, false),
        Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, Some("Europe/Berlin".into())), true),
    ]);
    let structs = StructArray::new(
        inner,
        vec![
            Arc::new(Int32Array::from(vec![5, 0])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(0), None]).with_timezone("Europe/Berlin")),
        ],
        Some(vec![true, false].into()),
    );
    let rendered = |name, type_text, native: Make, text: &'static str| Column {
        name,
        type_text,
        native,
        rendered: Some(texts([Some(text), None])),
    };
    let decimal = Decimal128Array::from(vec![Some(12_345_678_901_234_567_890_123_456_789), None]);
    table(
        vec![
            column("boolean", "boolean", fixed(BooleanArray::from(vec![Some(true), None]))),
            column("tinyint", "tinyint", fixed(Int8Array::from(vec![Some(-128), None]))),
            column("smallint", "smallint", fixed(Int16Array::from(vec![Some(-32768), None]))),
            column("int", "int", fixed(Int32Array::from(vec![Some(-2_147_483_648), None]))),
            column("bigint", "bigint", fixed(Int64Array::from(vec![Some(i64::MAX), None]))),
            column("float", "float", fixed(Float32Array::from(vec![Some(0.1), None]))),
            column("double", "double", fixed(Float64Array::from(vec![Some(0.1), None]))),
            column("decimal", "decimal(38,9)", fixed(decimal.with_precision_and_scale(38, 9).unwrap())),
            column("string", "string", texts([Some("a"), None])),
            column("binary", "binary", fixed(BinaryArray::from_opt_vec(vec![Some(b"\x01\x02"), None]))),
            column("date", "date", fixed(Date32Array::from(vec![Some(20512), None]))),
            column("timestamp", "timestamp", zoned(Some("America/Los_Angeles"))),
            column("timestamp_ntz", "timestamp_ntz", zoned(None)),
            rendered(
                "months",
                "interval year to month",
                fixed(IntervalYearMonthArray::from(vec![Some(14), None])),
                "INTERVAL '1-2' YEAR TO MONTH",
            ),
            rendered(
                "seconds",
                "interval day to second",
                fixed(DurationMicrosecondArray::from(vec![Some(1), None])),
                "INTERVAL '0 00:00:00.000001' DAY TO SECOND",
            ),
            column("array", "array<string>", fixed(list.finish())),
            column("map", "map<string,int>", fixed(map.finish())),
            column("struct", "struct<a:int,t:timestamp>", fixed(structs)),
            rendered("variant", "variant", fixed(NullArray::new(2)), "{\"a\":1}"),
            rendered("variants", "array<variant>", fixed(NullArray::new(2)), "[1,null]"),
            rendered("wide", "struct<a:int,... 30 more fields>", fixed(NullArray::new(2)), "{\"a\":null}"),
            rendered("geo", "geography(4326)", fixed(NullArray::new(2)), "SRID=4326;POINT(1 2)"),
        ],
        2,
    )
}

impl Scripted {
    pub async fn start() -> Self {
        let fake = Fake::start().await;
        *fake.shared.catalog.lock().unwrap() = Some(vec![["shop", "people", "MANAGED"], ["other", "odd name", "VIEW"]]);
        let balance = Decimal128Array::from(vec![12_500]).with_precision_and_scale(20, 4).unwrap();
        let people = vec![
            column("id", "bigint", fixed(Int64Array::from(vec![1]))),
            column("name", "string", fixed(StringArray::from(vec!["Ada"]))),
            column("balance", "decimal(20,4)", fixed(balance)),
        ];
        fake.script("people", Script::Table(table(people, 1)));
        fake.script("types", Script::Table(types_table()));
        fake.script("nothing", Script::Table(table(vec![column("nothing", "void", fixed(NullArray::new(3)))], 3)));
        fake.script("empty", Script::Table(counting(0)));
        let name = column("name", "string", fixed(StringArray::from(vec![NON_ASCII])));
        fake.script("scripts", Script::Table(table(vec![name], 1)));
        let long = column("long", "string", fixed(StringArray::from(vec!["x".repeat(1_000_000)])));
        fake.script("long", Script::Table(table(vec![long], 1)));
        fake.script("slow", Script::Endless(counting(10)));
        let denied = "[INSUFFICIENT_PERMISSIONS] Insufficient privileges:\nUser does not have permission SELECT on table `main`.`shop`.`hidden`. SQLSTATE: 42501";
        fake.script("hidden", Script::Fails("BAD_REQUEST", "42501", denied));
        Self { fake }
    }

    fn with(&self, values: &[(&str, &str)]) -> ConnectionParams {
        let mut params = ConnectionParams::new("lake", "/");
        params.set("host", format!("http://{}", self.fake.address));
        params.set("http_path", format!("/sql/1.0/warehouses/{WAREHOUSE_ID}"));
        params.set("schema", "shop");
        for (name, value) in values {
            params.set(*name, *value);
        }
        params
    }

    fn token(&self) -> ConnectionParams {
        self.with(&[("access_token", ACCESS_TOKEN), ("catalog", "main")])
    }

    fn open(&self) -> Arc<dyn Warehouse> {
        open(self, &self.params())
    }

    fn queries(&self) -> usize {
        self.fake.shared.counts.queries.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Subject for Scripted {
    fn provider(&self) -> &'static str {
        "databricks"
    }

    fn params(&self) -> ConnectionParams {
        self.with(&[("client_id", CLIENT_ID), ("client_secret", CLIENT_SECRET), ("catalog", "main")])
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        Some(self.with(&[("client_id", CLIENT_ID), ("client_secret", WRONG_SECRET)]))
    }

    fn secrets(&self) -> Vec<String> {
        [CLIENT_SECRET, ACCESS_TOKEN, SIGNATURE, KEY, "ey-fake-oauth"].map(String::from).to_vec()
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => "SELECT * FROM types".into(),
            Ask::AllNull => "SELECT * FROM nothing".into(),
            Ask::Empty => "SELECT * FROM empty".into(),
            Ask::NonAscii => "SELECT * FROM scripts".into(),
            Ask::LongText => "SELECT * FROM long".into(),
            Ask::Rows(n) => {
                let name = format!("rows_{n}");
                // large results come in large chunks, as from a real service (here 9 MiB each)
                let chunk_rows = if n < 1_000_000 { 20_000 } else { 400_000 };
                self.fake.script(&name, Script::Table(Table { chunk_rows, ..counting(n) }));
                format!("SELECT * FROM {name}")
            }
            Ask::Slow => "SELECT * FROM slow".into(),
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => "SELECT * FROM hidden".into(),
            Ask::Write => "DELETE FROM people".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let list = DataType::List(Arc::new(Field::new("element", DataType::Utf8, true)));
        let entries =
            Fields::from(vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Int32, true)]);
        let map = DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false);
        let structs = DataType::Struct(Fields::from(vec![
            Field::new("a", DataType::Int32, true),
            Field::new("t", instant.clone(), true),
        ]));
        vec![
            case("boolean", DataType::Boolean, "true"),
            case("tinyint", DataType::Int8, "-128"),
            case("smallint", DataType::Int16, "-32768"),
            case("int", DataType::Int32, "-2147483648"),
            case("bigint", DataType::Int64, "9223372036854775807"),
            case("float", DataType::Float32, "0.1"),
            case("double", DataType::Float64, "0.1"),
            case("decimal", DataType::Decimal128(38, 9), "12345678901234567890.123456789"),
            case("string", DataType::Utf8, "a"),
            case("binary", DataType::Binary, "0102"),
            case("date", DataType::Date32, "2026-02-28"),
            case("timestamp", instant.clone(), "2026-02-28T16:30:15.123456Z"),
            case("timestamp_ntz", instant, "2026-02-28T16:30:15.123456Z"),
            case("months", DataType::Utf8, "INTERVAL '1-2' YEAR TO MONTH"),
            case("seconds", DataType::Utf8, "INTERVAL '0 00:00:00.000001' DAY TO SECOND"),
            case("array", list, "[a, ]"),
            case("map", map, "{k: 7}"),
            case("struct", structs, "{a: 5, t: 1970-01-01T00:00:00Z}"),
            case("variant", DataType::Utf8, "{\"a\":1}"),
            case("variants", DataType::Utf8, "[1,null]"),
            case("wide", DataType::Utf8, "{\"a\":null}"),
            case("geo", DataType::Utf8, "SRID=4326;POINT(1 2)"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        ("people".into(), vec![("id", Some("int")), ("name", Some("string")), ("balance", Some("decimal(20,4)"))])
    }

    fn inject(&self, fault: Fault) -> bool {
        let faults = &self.fake.shared.faults;
        let set = |counter: &std::sync::atomic::AtomicI64, n| counter.store(n, Ordering::SeqCst);
        match fault {
            Fault::BreakOnce => set(&faults.broken_downloads, 1),
            Fault::BreakAlways => set(&faults.broken_downloads, i64::MAX),
            Fault::ThrottleOnce => {
                set(&faults.throttle_seconds, 1);
                set(&faults.throttle, 1);
            }
            Fault::ThrottleAlways => {
                set(&faults.throttle_seconds, 90);
                set(&faults.throttle, i64::MAX);
            }
            Fault::ExpireLogin => set(&faults.expire_tokens, 1),
        }
        true
    }

    fn heal(&self) {
        let faults = &self.fake.shared.faults;
        for counter in [&faults.broken_downloads, &faults.throttle, &faults.expire_tokens] {
            counter.store(0, Ordering::SeqCst);
        }
    }

    fn queries_run(&self) -> Option<usize> {
        Some(self.queries())
    }

    async fn slow_was_stopped(&self) -> Option<bool> {
        Some(!self.fake.runs())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databricks_conforms() {
    suite::run(&Scripted::start().await).await;
}
