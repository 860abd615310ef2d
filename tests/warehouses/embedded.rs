//! `local` and `postgres`: the real things.

use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::ConnectionParams;
use tempfile::TempDir;

use crate::postgres_server::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::suite::{self, Ask, NON_ASCII, Subject, TypeCase, WRONG_SECRET, case};

pub struct Local {
    dir: TempDir,
}

impl Local {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        std::fs::write(dir.path().join("people.csv"), "id,name\n1,Ada\n2,Zoë\n").unwrap();
        Self { dir }
    }
}

#[async_trait]
impl Subject for Local {
    fn provider(&self) -> &'static str {
        "local"
    }

    fn params(&self) -> ConnectionParams {
        let mut params = ConnectionParams::new("files", "/");
        params.set("path", self.dir.path().to_str().unwrap());
        params
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        None
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => "SELECT * FROM (VALUES
                (9223372036854775807, CAST('12345678901234567890.123456789' AS decimal(38,9)), 0.1, true, 'a', DATE '2026-02-28',
                 to_timestamp_micros(1772296215123456), [1, 2]),
                (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)) AS t (bigint, \"decimal\", \"float\", \"boolean\", \"text\", \"date\", \"timestamp\", \"list\")"
                .into(),
            Ask::AllNull => "SELECT NULL AS nothing FROM generate_series(1, 3)".into(),
            Ask::Empty => "SELECT id, name FROM people WHERE false".into(),
            Ask::NonAscii => format!("SELECT '{NON_ASCII}' AS name"),
            Ask::LongText => "SELECT repeat('x', 1000000) AS long".into(),
            Ask::Rows(n) => format!("SELECT value AS id, 'name ' || value AS name FROM generate_series(1, {n}) ORDER BY 1"),
            Ask::Slow => "SELECT count(*) FROM generate_series(1, 100000000000) a".into(),
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => return None,
            Ask::Write => "CREATE TABLE t AS SELECT 1".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        vec![
            case("bigint", DataType::Int64, "9223372036854775807"),
            case("decimal", DataType::Decimal128(38, 9), "12345678901234567890.123456789"),
            case("float", DataType::Float64, "0.1"),
            case("boolean", DataType::Boolean, "true"),
            case("text", DataType::Utf8, "a"),
            case("date", DataType::Date32, "2026-02-28"),
            case("timestamp", DataType::Timestamp(TimeUnit::Microsecond, None), "2026-02-28T16:30:15.123456"),
            case("list", DataType::new_list(DataType::Int64, true), "[1, 2]"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        ("people".into(), vec![("id", Some("int")), ("name", Some("string"))])
    }

    async fn slow_was_stopped(&self) -> Option<bool> {
        // it lives and dies with the stream, in this process
        None
    }

    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("reports_a_missing_permission", "tests run as root, whom no file refuses"),
            ("reports_a_refused_login", "there is no login"),
            ("cancels_in_the_warehouse", "it ends with its stream, in this process: there is no server to ask"),
            ("stops_a_dropped_query", "it ends with its stream, in this process: there is no server to ask"),
            ("survives_a_broken_stream", "there is no network between"),
            ("fails_cleanly_when_the_stream_stays_broken", "there is no network between"),
            ("survives_throttling", "nobody throttles"),
            ("passes_on_the_servers_patience", "nobody throttles"),
            ("renews_its_login", "there is no login"),
        ]
    }
}

pub struct Postgres {
    server: PostgresServer,
}

impl Postgres {
    pub fn start() -> Self {
        let server = PostgresServer::start(false);
        server.psql(
            DATABASE,
            "CREATE TABLE people (id bigint, name text, balance numeric(20,4)); GRANT SELECT ON people TO reader;
             CREATE TABLE hidden (id int);",
        );
        Self { server }
    }
}

#[async_trait]
impl Subject for Postgres {
    fn provider(&self) -> &'static str {
        "postgres"
    }

    fn params(&self) -> ConnectionParams {
        let mut params = ConnectionParams::new("app", "/");
        for (name, value) in [
            ("host", "127.0.0.1"),
            ("port", &self.server.port.to_string()),
            ("database", DATABASE),
            ("user", "reader"),
            ("password", READER_PASSWORD),
            ("sslmode", "disable"),
        ] {
            params.set(name, value);
        }
        params
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        let mut params = self.params();
        params.set("password", WRONG_SECRET);
        Some(params)
    }

    fn secrets(&self) -> Vec<String> {
        vec![READER_PASSWORD.into()]
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => "SELECT * FROM (VALUES
                (9223372036854775807, '12345678901234567890.123456789'::numeric(38,9), 0.1::float8, true, 'a'::text, DATE '2026-02-28',
                 '2026-02-28T16:30:15.123456Z'::timestamptz, ARRAY[1, 2], '{\"a\": 1}'::jsonb),
                (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL))
                AS t (\"bigint\", \"numeric\", \"float8\", \"boolean\", \"text\", \"date\", \"timestamptz\", \"array\", \"jsonb\")"
                .into(),
            Ask::AllNull => "SELECT NULL::text AS nothing FROM generate_series(1, 3)".into(),
            Ask::Empty => "SELECT id, name FROM people WHERE false".into(),
            Ask::NonAscii => format!("SELECT '{NON_ASCII}' AS name"),
            Ask::LongText => "SELECT repeat('x', 1000000) AS long".into(),
            Ask::Rows(n) => format!("SELECT i AS id, 'name ' || i AS name FROM generate_series(1, {n}) i ORDER BY 1"),
            Ask::Slow => "SELECT 1 AS slow FROM pg_sleep(60)".into(),
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => "SELECT * FROM hidden".into(),
            Ask::Write => "DELETE FROM people".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        vec![
            case("bigint", DataType::Int64, "9223372036854775807"),
            case("float8", DataType::Float64, "0.1"),
            case("boolean", DataType::Boolean, "true"),
            case("text", DataType::Utf8, "a"),
            case("date", DataType::Date32, "2026-02-28"),
            case(
                "timestamptz",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                "2026-02-28T16:30:15.123456Z",
            ),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        ("people".into(), vec![("id", Some("int")), ("name", Some("string")), ("balance", Some("decimal(20,4)"))])
    }

    async fn slow_was_stopped(&self) -> Option<bool> {
        let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()";
        Some(self.server.psql(DATABASE, running) == "0")
    }

    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("survives_a_broken_stream", "a COPY cannot be resumed: the run fails cleanly and tries again"),
            ("fails_cleanly_when_the_stream_stays_broken", "see the provider's own tests, which cut the socket"),
            ("survives_throttling", "the protocol knows no throttling"),
            ("passes_on_the_servers_patience", "the protocol knows no throttling"),
            ("renews_its_login", "a session lasts as long as its socket"),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_conforms() {
    suite::run(&Local::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_conforms() {
    let server = tokio::task::spawn_blocking(Postgres::start).await.unwrap();
    suite::run(&server).await;
    // its drop waits for processes
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
