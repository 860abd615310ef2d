//! `snowflake`: over the scripted server, over fakesnow, and models on it through the whole program.

mod answers;
mod fakesnow;
mod login;

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::{ConnectionParams, Warehouse, WarehouseError};

use crate::fakes::snowflake::{ACCOUNT, FakeSnowflake, PASSWORD, USER};
use crate::suite::{self, Ask, Fault, NON_ASCII, Subject, TypeCase, WRONG_SECRET, case};

pub struct Scripted {
    server: FakeSnowflake,
}

impl Scripted {
    pub fn start() -> Self {
        Self { server: FakeSnowflake::start() }
    }

    fn with(&self, values: &[(&str, &str)]) -> ConnectionParams {
        let mut params = ConnectionParams::new("shop", "/");
        let url = self.server.url();
        for (name, value) in
            [("account", ACCOUNT), ("host", &url), ("user", USER), ("database", "shop"), ("warehouse", "wh")]
        {
            params.set(name, value);
        }
        for (name, value) in values {
            params.set(*name, *value);
        }
        params
    }

    fn open(&self) -> Arc<dyn Warehouse> {
        suite::open(self, &self.params())
    }

    async fn error(&self, sql: &str) -> WarehouseError {
        self.open().describe(sql).await.unwrap_err()
    }
}

#[async_trait]
impl Subject for Scripted {
    fn provider(&self) -> &'static str {
        "snowflake"
    }

    fn params(&self) -> ConnectionParams {
        self.with(&[("password", PASSWORD)])
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        Some(self.with(&[("password", WRONG_SECRET)]))
    }

    fn secrets(&self) -> Vec<String> {
        self.server.secrets()
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => "SELECT * FROM TYPES".into(),
            Ask::AllNull => "SELECT \"nothing\" FROM NOTHING".into(),
            Ask::Empty => "SELECT \"id\", \"name\" FROM PEOPLE WHERE FALSE".into(),
            Ask::NonAscii => "SELECT \"name\" FROM NON_ASCII".into(),
            Ask::LongText => "SELECT \"long\" FROM LONG_TEXT".into(),
            Ask::Rows(n) => format!("SELECT \"id\", \"name\" FROM ROWS({n})"),
            Ask::Slow => "SELECT * FROM SLOW".into(),
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => "SELECT * FROM SECRETS".into(),
            Ask::Write => "DELETE FROM PEOPLE".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        let at = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        vec![
            case("integer", DataType::Int64, "999999999999999999"),
            case("number", DataType::Decimal128(38, 0), "12345678901234567890123456789012345678"),
            case("decimal", DataType::Decimal128(12, 2), "-12345.67"),
            case("wide_decimal", DataType::Decimal128(38, 9), "12345678901234567890.123456789"),
            case("float", DataType::Float64, "0.1"),
            case("text", DataType::Utf8, "a"),
            case("binary", DataType::Binary, "00ff"),
            case("boolean", DataType::Boolean, "true"),
            case("date", DataType::Date32, "2026-02-28"),
            case("time", DataType::Utf8, "16:30:15.123456789"),
            case("short_time", DataType::Utf8, "16:30:15"),
            case("timestamp_ntz", at.clone(), "2026-02-28T16:30:15.123456Z"),
            case("timestamp_ms", at.clone(), "2026-02-28T16:30:15.123Z"),
            case("timestamp_ltz", at.clone(), "2026-02-28T16:30:15.123456Z"),
            case("timestamp_tz", at.clone(), "2026-02-28T16:30:15.123456Z"),
            case("timestamp_tz_s", at.clone(), "2026-02-28T16:30:15Z"),
            case("before_1970", at, "1969-12-31T23:59:59.999999Z"),
            case("variant", DataType::Utf8, "{\n  \"a\": 1\n}"),
            case("array", DataType::Utf8, "[1,2]"),
            case("object", DataType::Utf8, "{\"b\":null}"),
            case("geography", DataType::Utf8, "{\"coordinates\":[1,2],\"type\":\"Point\"}"),
            case("vector", DataType::Utf8, "[1.0,2.5]"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        let columns =
            vec![("id", Some("int")), ("name", Some("string")), ("balance", Some("decimal(20,4)")), ("wide", None)];
        ("PUBLIC.PEOPLE".into(), columns)
    }

    fn inject(&self, fault: Fault) -> bool {
        self.server.faults(|f| match fault {
            Fault::BreakOnce => f.breaks = 1,
            Fault::BreakAlways => f.breaks = usize::MAX,
            Fault::ThrottleOnce => (f.throttles, f.patience) = (1, 1),
            Fault::ThrottleAlways => (f.throttles, f.patience) = (usize::MAX, 90),
            Fault::ExpireLogin => f.expire = true,
        });
        true
    }

    fn heal(&self) {
        self.server.heal();
    }

    fn queries_run(&self) -> Option<usize> {
        Some(self.server.seen(|s| s.queries))
    }

    async fn slow_was_stopped(&self) -> Option<bool> {
        Some(self.server.slow_running() == 0)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scripted_snowflake_conforms() {
    let subject = Scripted::start();
    suite::run(&subject).await;
    // whatever went wrong, every session was closed
    assert_eq!(subject.server.open_sessions(), 0);
}
