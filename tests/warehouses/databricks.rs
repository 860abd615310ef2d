//! `databricks`: a scripted server with the documented wire format, and minilake.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray, Float32Array,
    Float64Array, Int8Array, Int16Array, Int32Array, Int64Array, IntervalYearMonthArray, ListBuilder, MapBuilder,
    NullArray, StringArray, StringBuilder, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::{ConnectionParams, QueryOptions, Warehouse, WarehouseError, WarehouseErrorKind};
use futures::StreamExt;
use serde_json::json;

use crate::fakes::databricks::{
    ACCESS_TOKEN, CLIENT_ID, CLIENT_SECRET, Column, Fake, KEY, Make, SIGNATURE, Script, Table, WAREHOUSE_ID,
};
use crate::process::{ServerProcess, free_port, standin};
use crate::project::{PEOPLE, Project, Ran, counts};
use crate::suite::{self, Ask, Fault, NON_ASCII, Subject, TypeCase, WRONG_SECRET, case, cells, of_stream, open, read};

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

/// The catalog stands alone; SQL is DuckDB's. Runs each statement inside its request and accepts any token.
struct Minilake {
    server: ServerProcess,
    warehouse: String,
    _data: tempfile::TempDir,
}

impl Minilake {
    pub async fn start() -> Self {
        let (server, data) = tokio::task::spawn_blocking(|| {
            let data = tempfile::tempdir().unwrap();
            let port = free_port();
            let mut command = standin("minilake", "minilake");
            command.args(["--port", &port.to_string()]).current_dir(data.path()).env("MINILAKE_DATA_DIR", data.path());
            (ServerProcess::start(command, port), data)
        })
        .await
        .unwrap();
        let mut lake = Self { server, warehouse: String::new(), _data: data };
        let made = lake.post("warehouses", json!({ "name": "test", "cluster_size": "Small" })).await;
        lake.warehouse = made["id"].as_str().unwrap().to_string();
        lake
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> serde_json::Value {
        let url = format!("http://127.0.0.1:{}/api/2.0/sql/{path}", self.server.port);
        let request = reqwest::ClientBuilder::new().build().unwrap().post(url).json(&body);
        let text = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
    }

    async fn sql(&self, statement: &str) {
        let body = json!({ "warehouse_id": self.warehouse, "statement": statement, "wait_timeout": "30s" });
        let done = self.post("statements", body).await;
        assert_eq!(done["status"]["state"], "SUCCEEDED", "{statement}: {done}");
    }

    async fn stop(self) {
        tokio::task::spawn_blocking(move || drop(self)).await.unwrap();
    }
}

#[async_trait]
impl Subject for Minilake {
    fn provider(&self) -> &'static str {
        "databricks"
    }

    fn params(&self) -> ConnectionParams {
        let mut params = ConnectionParams::new("lake", "/");
        params.set("host", format!("http://127.0.0.1:{}", self.server.port));
        params.set("http_path", format!("/sql/1.0/warehouses/{}", self.warehouse));
        params.set("access_token", "dapi-of-minilake");
        params
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        None
    }

    fn secrets(&self) -> Vec<String> {
        vec!["dapi-of-minilake".into()]
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => "SELECT * FROM (VALUES
                (9223372036854775807, CAST('12345678901234567890.123456789' AS DECIMAL(38,9)), CAST(0.1 AS DOUBLE), true, 'a',
                 DATE '2026-02-28', TIMESTAMP '2026-02-28 16:30:15.123456', CAST(7 AS INT)),
                (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL))
                AS t (`bigint`, `decimal`, `double`, `boolean`, `string`, `date`, `timestamp`, `int`)"
                .into(),
            Ask::AllNull => "SELECT CAST(NULL AS STRING) AS nothing FROM range(3)".into(),
            Ask::Empty => "SELECT id, name FROM people WHERE false".into(),
            Ask::NonAscii => format!("SELECT '{NON_ASCII}' AS name"),
            Ask::LongText => "SELECT repeat('x', 1000000) AS long".into(),
            Ask::Rows(n) => format!("SELECT range AS id, 'name ' || range AS name FROM range(1, {n} + 1) ORDER BY 1"),
            Ask::Slow | Ask::Forbidden => return None,
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Write => "CREATE TABLE t AS SELECT 1".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        let instant = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        vec![
            case("bigint", DataType::Int64, "9223372036854775807"),
            case("decimal", DataType::Decimal128(38, 9), "12345678901234567890.123456789"),
            case("double", DataType::Float64, "0.1"),
            case("boolean", DataType::Boolean, "true"),
            case("string", DataType::Utf8, "a"),
            case("date", DataType::Date32, "2026-02-28"),
            case("timestamp", instant, "2026-02-28T16:30:15.123456Z"),
            case("int", DataType::Int32, "7"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        ("main.people".into(), vec![("id", Some("int")), ("name", Some("string")), ("balance", Some("decimal(20,4)"))])
    }

    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        let faults = "minilake has no faults to order: the scripted server has";
        vec![
            ("reports_a_missing_permission", "minilake lets everybody read everything"),
            ("reports_a_refused_login", "minilake accepts any token"),
            ("cancels_in_the_warehouse", "minilake runs a statement inside its request"),
            ("stops_a_dropped_query", "minilake runs a statement inside its request"),
            ("stops_at_its_timeout", "minilake runs a statement inside its request"),
            ("survives_a_broken_stream", faults),
            ("fails_cleanly_when_the_stream_stays_broken", faults),
            ("survives_throttling", faults),
            ("passes_on_the_servers_patience", faults),
            ("renews_its_login", faults),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databricks_conforms() {
    suite::run(&Scripted::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn databricks_conforms_on_minilake() {
    let lake = Minilake::start().await;
    lake.sql("CREATE TABLE people (id BIGINT, name STRING, balance DECIMAL(20,4))").await;
    suite::run(&lake).await;
    lake.stop().await;
}

fn error_of<T>(result: Result<T, WarehouseError>) -> WarehouseError {
    match result {
        Ok(_) => panic!("succeeded"),
        Err(e) => e,
    }
}

#[tokio::test]
async fn databricks_logs_in_with_an_access_token() {
    let lake = Scripted::start().await;
    let warehouse = open(&lake, &lake.token());
    let steps = warehouse.test().await;
    let names: Vec<_> = steps.iter().map(|s| (s.step.as_str(), s.ok)).collect();
    let all = ["resolve name", "connect", "log in", "SQL warehouse", "read", "tables"];
    assert_eq!(names, all.map(|n| (n, true)), "{steps:?}");
    assert_eq!(lake.fake.shared.counts.logins.load(Ordering::SeqCst), 0);

    let wrong = open(&lake, &lake.with(&[("access_token", WRONG_SECRET)]));
    let steps = wrong.test().await;
    let last = steps.last().unwrap();
    assert!(!last.ok && last.step == "log in" && last.detail.contains("not accepted"), "{steps:?}");
    assert!(!format!("{steps:?}").contains(WRONG_SECRET), "{steps:?}");
    let error = error_of(wrong.describe("SELECT * FROM people").await);
    assert_eq!(error.kind, WarehouseErrorKind::Configuration);
}

#[tokio::test]
async fn databricks_keeps_its_oauth_token_until_shortly_before_its_end() {
    let lake = Scripted::start().await;
    *lake.fake.shared.token_life.lock().unwrap() = Duration::from_secs(3);
    let warehouse = lake.open();
    let logins = || lake.fake.shared.counts.logins.load(Ordering::SeqCst);
    for _ in 0..3 {
        read(&*warehouse, "SELECT * FROM people").await.unwrap();
    }
    assert_eq!(logins(), 1);
    tokio::time::sleep(Duration::from_millis(2800)).await;
    read(&*warehouse, "SELECT * FROM people").await.unwrap();
    assert_eq!(logins(), 2);
}

#[tokio::test]
async fn databricks_says_what_a_warehouses_state_means() {
    let lake = Scripted::start().await;
    *lake.fake.shared.warehouse_state.lock().unwrap() = "STOPPED";
    let steps = lake.open().test().await;
    let step = steps.iter().find(|s| s.step == "SQL warehouse").unwrap();
    assert!(step.ok && step.detail.contains("starts with the first query"), "{steps:?}");
    *lake.fake.shared.warehouse_state.lock().unwrap() = "DELETED";
    let steps = lake.open().test().await;
    let last = steps.last().unwrap();
    assert!(!last.ok && last.step == "SQL warehouse" && last.detail.contains("http_path"), "{steps:?}");
    let mut missing = lake.params();
    missing.set("http_path", "/sql/1.0/warehouses/0000000000000000");
    let missing = open(&lake, &missing);
    let steps = missing.test().await;
    assert!(!steps.last().unwrap().ok && steps.last().unwrap().detail.contains("http_path"), "{steps:?}");
    let error = error_of(missing.describe("SELECT * FROM people").await);
    assert_eq!(error.kind, WarehouseErrorKind::Configuration, "{error}");
}

#[tokio::test]
async fn databricks_asks_for_a_new_link_when_one_has_expired() {
    let lake = Scripted::start().await;
    let sql = lake.sql(Ask::Rows(60_000)).unwrap();
    lake.fake.shared.faults.expired_links.store(2, Ordering::SeqCst);
    let (_, batches) = read(&*lake.open(), &sql).await.unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 60_000);
    assert_eq!(lake.queries(), 1);
    // links that never work: the error shows none of them
    lake.fake.shared.faults.expired_links.store(i64::MAX, Ordering::SeqCst);
    let error = error_of(read(&*lake.open(), &sql).await);
    assert!(error.is_retryable() && error.message.contains("403"), "{error}");
    assert!(!format!("{error:?}").contains(SIGNATURE));
}

// on one thread: what is ordered after `query` comes before its task submits
#[tokio::test]
async fn databricks_never_submits_a_query_twice() {
    let lake = Scripted::start().await;
    let warehouse = lake.open();
    let faults = &lake.fake.shared.faults;
    let options = QueryOptions::default();
    // not taken: tried again
    let mut running = warehouse.query("SELECT * FROM people", &options).await.unwrap();
    faults.unavailable.store(1, Ordering::SeqCst);
    while let Some(batch) = running.stream.next().await {
        batch.map_err(of_stream).unwrap();
    }
    assert_eq!((faults.unavailable.load(Ordering::SeqCst), lake.queries()), (0, 1));
    // taken, but the answer is lost
    let mut running = warehouse.query("SELECT * FROM people", &options).await.unwrap();
    faults.lost_answers.store(1, Ordering::SeqCst);
    let error = of_stream(running.stream.next().await.unwrap().unwrap_err());
    assert!(error.is_retryable() && error.message.contains("is not known"), "{error}");
    assert_eq!((faults.lost_answers.load(Ordering::SeqCst), lake.queries()), (0, 2));
}

#[tokio::test]
async fn databricks_refuses_results_that_are_not_whole() {
    let lake = Scripted::start().await;
    lake.fake.script("huge", Script::Truncated(counting(100)));
    let error = error_of(read(&*lake.open(), "SELECT * FROM huge").await);
    assert!(error.kind == WarehouseErrorKind::Sql && error.message.contains("100 GiB"), "{error}");
    // the result's hour is over
    let sql = lake.sql(Ask::Rows(60_000)).unwrap();
    lake.fake.shared.faults.gone.store(1, Ordering::SeqCst);
    let error = error_of(read(&*lake.open(), &sql).await);
    assert!(error.is_retryable() && error.hint.unwrap().contains("one hour"), "{}", error.message);
}

#[tokio::test]
async fn databricks_tags_its_statements_and_names_catalog_and_schema() {
    let lake = Scripted::start().await;
    read(&*lake.open(), "SELECT * FROM people").await.unwrap();
    let submitted = lake.fake.shared.submitted.lock().unwrap().clone();
    assert_eq!(submitted.len(), 2);
    for body in &submitted {
        assert_eq!((&body["catalog"], &body["schema"]), (&json!("main"), &json!("shop")));
        let tags =
            json!([{ "key": "application", "value": "cloud-connect" }, { "key": "connection", "value": "lake" }]);
        assert_eq!(body["query_tags"], tags);
    }
    assert_eq!(submitted[0]["statement"], "DESCRIBE\nSELECT * FROM people");
    assert_eq!(
        (&submitted[1]["statement"], &submitted[1]["wait_timeout"]),
        (&json!("SELECT * FROM people"), &json!("0s"))
    );
    assert!(lake.open().estimate("SELECT * FROM people").await.unwrap().is_none());
}

#[tokio::test]
async fn databricks_shows_faults_at_their_place_in_the_models_sql() {
    let lake = Scripted::start().await;
    let sql = "SELECT id\n  FROM no_such_table";
    let error = error_of(lake.open().describe(sql).await);
    assert!(
        error.message.ends_with("SQLSTATE: 42P01\nLINE 2:   FROM no_such_table\n               ^"),
        "{}",
        error.message
    );
    assert!(error.hint.unwrap().contains("connection tables"));
    let error = error_of(lake.open().describe("SELECT FROM people").await);
    assert!(error.message.ends_with("LINE 1: SELECT FROM people\n               ^"), "{}", error.message);
    assert!(!error.message.contains("== SQL =="));
    // inside a sample's SELECT, one line further down
    let message = "[DIVIDE_BY_ZERO] Division by zero. SQLSTATE: 22012; {at}";
    lake.fake.script("ratios", Script::FailsRunning(counting(1), "BAD_REQUEST", "22012", message));
    let options = QueryOptions { limit: Some(5), ..QueryOptions::default() };
    let error = error_of(suite::read_with(&*lake.open(), "SELECT 1/0 FROM ratios", &options).await);
    assert!(
        error.kind == WarehouseErrorKind::Sql && error.message.contains("LINE 1: SELECT 1/0 FROM ratios\n"),
        "{error}"
    );
    let busy = "The SQL warehouse is overloaded";
    lake.fake.script("busy", Script::FailsRunning(counting(1), "RESOURCE_EXHAUSTED", "", busy));
    assert!(error_of(read(&*lake.open(), "SELECT * FROM busy").await).is_retryable());
}

#[tokio::test]
async fn databricks_reads_columns_of_the_same_name() {
    let lake = Scripted::start().await;
    let columns = vec![
        column("a", "int", fixed(Int32Array::from(vec![1]))),
        column("A", "string", fixed(StringArray::from(vec!["x"]))),
    ];
    lake.fake.script("doubled", Script::Table(table(columns, 1)));
    let (schema, batches) = read(&*lake.open(), "SELECT * FROM doubled").await.unwrap();
    assert_eq!((schema.field(0).name().as_str(), schema.field(1).name().as_str()), ("a", "A"));
    assert_eq!(cells(&batches, "A"), [Some("x".to_string())]);
}

#[tokio::test]
async fn databricks_marks_what_is_not_what_was_described() {
    let lake = Scripted::start().await;
    let columns = vec![column("price", "decimal(10,2)", texts([Some("1.50"), Some("1.505")]))];
    lake.fake.script("prices", Script::Table(table(columns, 2)));
    let (_, batches) = read(&*lake.open(), "SELECT * FROM prices").await.unwrap();
    assert_eq!(cells(&batches, "price"), [Some("1.50".to_string()), None]);
    let marks = cells(&batches, cloud_connect::warehouse::UNCONVERTIBLE_COLUMN);
    assert_eq!(marks, [None, Some("price: `1.505` is not a decimal(10,2)".to_string())]);
    lake.fake.script("odd", Script::Table(table(vec![column("x", "object", texts([None, None]))], 2)));
    let error = error_of(lake.open().describe("SELECT * FROM odd").await);
    assert!(error.kind == WarehouseErrorKind::Sql && error.hint.unwrap().contains("CAST(`x` AS STRING)"));
}

#[tokio::test]
async fn databricks_lists_the_old_metastore_schema_by_schema() {
    let lake = Scripted::start().await;
    *lake.fake.shared.catalog.lock().unwrap() = None;
    let hive = |values: &[(&str, &str)]| {
        let mut params = ConnectionParams::new("lake", "/");
        params.set("host", format!("http://{}", lake.fake.address));
        params.set("http_path", WAREHOUSE_ID);
        params.set("access_token", ACCESS_TOKEN);
        for (name, value) in values {
            params.set(*name, *value);
        }
        open(&lake, &params)
    };
    for values in [&[("catalog", "hive_metastore")][..], &[]] {
        let tables = hive(values).tables().await.unwrap();
        let names: Vec<_> = tables.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["shop.people"], "without temporary views and what may not be seen");
    }
    let tables = hive(&[("catalog", "hive_metastore"), ("schema", "shop")]).tables().await.unwrap();
    assert_eq!(tables[0].name, "people");
}

#[tokio::test]
async fn databricks_downloads_no_further_ahead_than_it_has_to() {
    let lake = Scripted::start().await;
    let sql = lake.sql(Ask::Rows(400_000)).unwrap();
    let mut running = lake.open().query(&sql, &QueryOptions::default()).await.unwrap();
    running.stream.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let downloads = lake.fake.shared.counts.downloads.load(Ordering::SeqCst);
    assert!(downloads <= 4, "{downloads} of 20 chunks were downloaded for one batch");
    let rest: usize = running.stream.map(|b| b.unwrap().num_rows()).collect::<Vec<_>>().await.iter().sum();
    assert!(rest > 390_000);
    assert_eq!(lake.fake.shared.counts.cancels.load(Ordering::SeqCst), 0, "nothing is left to cancel");
}

#[tokio::test]
async fn databricks_cancels_a_query_whose_id_is_not_known_yet() {
    let lake = Scripted::start().await;
    for pause in [0, 1, 5] {
        let running = lake.open().query("SELECT * FROM slow", &QueryOptions::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(pause)).await;
        running.cancel.cancel().await;
        drop(running);
        let end = Instant::now() + Duration::from_secs(5);
        while lake.fake.runs() {
            assert!(Instant::now() < end, "it still runs");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn cc(project: &Project, args: &[&str]) -> Ran {
    project.command(args).env("LAKE_TOKEN", "dapi-of-minilake").output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_on_databricks_becomes_profiles_and_follows_its_changes() {
    let lake = Minilake::start().await;
    lake.sql(
        "CREATE TABLE people AS SELECT 'p' || i || '@example.com' AS email, 'city ' || (i % 10) AS city,
         CAST(i + 0.25 AS DECIMAL(12,2)) AS spent, TIMESTAMP '2026-01-01 00:00:00' + to_hours(i) AS seen
         FROM range(1, 501) t(i)",
    )
    .await;
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\n      normalize: [trim, lowercase]\nconnections:\n  lake: {{ type: databricks, \
             host: 'http://127.0.0.1:{}', http_path: /sql/1.0/warehouses/{}, access_token: '${{env:LAKE_TOKEN}}' }}\n",
            lake.server.port, lake.warehouse
        ),
    );
    let config = PEOPLE.replace("files", "lake").replace("[city, spent]", "[city, spent, seen]");
    project.model("people", &config, "SELECT * FROM people");
    let tested = cc(&project, &["connection", "test", "lake"]);
    assert_eq!(tested.code, Some(0), "{}{}", tested.stdout, tested.stderr);
    cc(&project, &["check"]).ok();
    let first = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&first, ["rows", "added", "profiles_created"]), [500, 500, 500]);
    let profile = cc(&project, &["profile", "email", "P7@example.com", "--output", "json"]).ok().json();
    let attributes: HashMap<String, serde_json::Value> = serde_json::from_value(profile["attributes"].clone()).unwrap();
    assert_eq!(attributes["cc_people_seen"], "2026-01-01T07:00:00Z");
    assert_eq!(attributes["cc_people_city"], "city 7");
    assert_eq!(attributes["cc_people_spent"].to_string().trim_matches('"'), "7.25");

    for change in [
        "UPDATE people SET city = 'moved' WHERE email IN ('p1@example.com', 'p2@example.com')",
        "DELETE FROM people WHERE email = 'p3@example.com'",
        "INSERT INTO people VALUES ('new@example.com', 'here', 1, NULL)",
    ] {
        lake.sql(change).await;
    }
    let second = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&second, ["rows", "added", "changed", "removed", "unchanged"]), [500, 1, 2, 1, 497]);
    let ran = cc(&project, &["profile", "email", "p1@example.com", "--output", "json"]).ok();
    assert!(ran.stdout.contains("moved") && !ran.stdout.contains("dapi-of-minilake"), "{}", ran.stdout);
    lake.stop().await;
}

fn scripted_project(lake: &Scripted, sql: &str) -> Project {
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\nconnections:\n  lake: {{ type: databricks, host: 'http://{}', \
             http_path: /sql/1.0/warehouses/{WAREHOUSE_ID}, client_id: {CLIENT_ID}, client_secret: '${{env:LAKE_SECRET}}' }}\n",
            lake.fake.address
        ),
    );
    project.model("people", &PEOPLE.replace("files", "lake"), sql);
    project
}

fn person_columns() -> Vec<Column> {
    let emails: Make = Arc::new(|r: Range<u64>| {
        Arc::new(r.map(|i| Some(format!("p{i}@example.com"))).collect::<StringArray>()) as ArrayRef
    });
    let cities: Make = Arc::new(|r: Range<u64>| Arc::new(r.map(|_| Some("here")).collect::<StringArray>()) as ArrayRef);
    // as texts, one of which is no decimal(10,2)
    let spent: Make = Arc::new(|r: Range<u64>| {
        Arc::new(r.map(|i| Some(if i == 7 { "1.005".into() } else { format!("{i}.25") })).collect::<StringArray>())
            as ArrayRef
    });
    vec![column("email", "string", emails), column("city", "string", cities), column("spent", "decimal(10,2)", spent)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn interrupting_a_run_cancels_the_query_in_databricks() {
    let lake = Scripted::start().await;
    lake.fake.script("endless", Script::Endless(table(person_columns(), 10)));
    let project = scripted_project(&lake, "SELECT * FROM endless");
    let mut command = project.command(&["run", "--output", "json"]);
    command.env("LAKE_SECRET", CLIENT_SECRET).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !lake.fake.runs() {
        assert!(Instant::now() < end, "the query does not run");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let interrupted = std::process::Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap();
    assert!(interrupted.success());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert_eq!(ended.code(), Some(1));
    assert!(!lake.fake.runs(), "it still runs");
    assert_eq!(lake.fake.shared.counts.cancels.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_on_databricks_survives_what_passes_and_sets_aside_what_does_not_fit() {
    let lake = Scripted::start().await;
    lake.fake.script("buyers", Script::Table(table(person_columns(), 50_000)));
    let project = scripted_project(&lake, "SELECT * FROM buyers");
    let faults = &lake.fake.shared.faults;
    // an expired link, a broken download, an ended token: none of which runs the query again
    faults.expired_links.store(1, Ordering::SeqCst);
    faults.broken_downloads.store(1, Ordering::SeqCst);
    faults.expire_tokens.store(1, Ordering::SeqCst);
    let run = |project: Project, args: &'static [&'static str]| {
        tokio::task::spawn_blocking(move || {
            let ran: Ran = project.command(args).env("LAKE_SECRET", CLIENT_SECRET).output().unwrap().into();
            (project, ran)
        })
    };
    let (project, ran) = run(project, &["run", "--output", "json"]).await.unwrap();
    let report = ran.json()[0].clone();
    assert_eq!(counts(&report, ["rows", "added", "quarantined", "retries"]), [50_000, 49_999, 1, 0], "{report}");
    assert!(report.to_string().contains("`1.005` is not a decimal(10,2)"), "{report}");
    assert_eq!(lake.queries(), 1);
    // a lost answer: the run's next try is a second query, and is counted
    faults.lost_answers.store(1, Ordering::SeqCst);
    let (project, ran) = run(project, &["run", "--output", "json"]).await.unwrap();
    let report = ran.json()[0].clone();
    assert_eq!(counts(&report, ["rows", "changed", "removed", "retries"]), [50_000, 0, 0, 1], "{report}");
    // the SQL's fault at its place, and no secret with it
    project.model("people", &PEOPLE.replace("files", "lake"), "SELECT email, city, spent\nFROM no_such_table");
    let (_, ran) = run(project, &["run"]).await.unwrap();
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.contains("no_such_table") && ran.stdout.contains("42P01"), "{}", ran.stdout);
    let whole = format!("{ran:?}");
    assert!(lake.secrets().iter().all(|secret| !whole.contains(secret)), "{whole}");
}
