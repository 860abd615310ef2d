//! local-bigquery: real SQL, over REST and the Storage Read API.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::ConnectionParams;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{ServerProcess, free_port, standin};
use crate::suite::{self, Ask, NON_ASCII, Subject, TypeCase, case};

pub const PROJECT: &str = "proj";

/// The server, with a dataset `shop` and the table `people`.
pub struct LocalBigQuery {
    server: ServerProcess,
    pub storage_port: u16,
    http: reqwest::Client,
    _data: TempDir,
}

impl LocalBigQuery {
    pub async fn start() -> Self {
        let started = tokio::task::spawn_blocking(|| {
            let (port, storage_port) = (free_port(), free_port());
            let data = TempDir::new().unwrap();
            let mut command = standin("local-bigquery", "local-bigquery");
            command.args(["serve", "--host", "127.0.0.1", "--port", &port.to_string()]);
            command.args(["--grpc-port", &storage_port.to_string(), "--project", PROJECT, "--data-dir"]);
            command.arg(data.path());
            (ServerProcess::start(command, port), storage_port, data)
        });
        let (server, storage_port, data) = started.await.unwrap();
        #[expect(clippy::disallowed_methods, reason = "a test's own client")]
        let http = reqwest::Client::new();
        let this = Self { server, storage_port, http, _data: data };
        this.sql("CREATE SCHEMA shop").await;
        this.sql("CREATE TABLE shop.people (id INT64 NOT NULL, name STRING, balance NUMERIC(20, 4), photo BYTES, tags ARRAY<STRING>)")
            .await;
        this
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.server.port)
    }

    /// Runs a statement of any kind.
    pub async fn sql(&self, statement: &str) -> Value {
        let url = format!("{}/bigquery/v2/projects/{PROJECT}/queries", self.endpoint());
        let body = json!({ "query": statement, "useLegacySql": false, "timeoutMs": 60000 });
        let answer: Value = self.http.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        assert!(answer.get("error").is_none(), "{statement}: {answer}\n{}", self.server.log());
        answer
    }

    async fn running(&self) -> usize {
        let url = format!("{}/bigquery/v2/projects/{PROJECT}/jobs?stateFilter=running", self.endpoint());
        let answer: Value = self.http.get(url).send().await.unwrap().json().await.unwrap();
        answer["jobs"].as_array().map_or(0, Vec::len)
    }
}

#[async_trait]
impl Subject for LocalBigQuery {
    fn provider(&self) -> &'static str {
        "bigquery"
    }

    fn params(&self) -> ConnectionParams {
        let mut params = ConnectionParams::new("shop", "/");
        params.set("project", PROJECT);
        params.set("endpoint", self.endpoint());
        params.set("storage_endpoint", format!("http://127.0.0.1:{}", self.storage_port));
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
            Ask::Types => "SELECT * EXCEPT (n) FROM (
                SELECT 1 AS n, 9223372036854775807 AS `int64`, 0.1 AS `float64`, NUMERIC '12345678901234567890.123456789' AS `numeric`,
                    'a' AS `string`, b'\\x00\\xff' AS `bytes`, TRUE AS `bool`, DATE '2026-02-28' AS `date`,
                    DATETIME '2026-02-28T16:30:15.123456' AS `datetime`, TIMESTAMP '2026-02-28 17:30:15.123456+01:00' AS `timestamp`,
                    TIME '12:34:56.789' AS `time`, JSON '{\"a\":[1,2]}' AS `json`, STRUCT('Zürich' AS city, 2 AS floor) AS `struct`
                UNION ALL SELECT 2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL
                ) ORDER BY n"
                .into(),
            Ask::AllNull => "SELECT CAST(NULL AS STRING) AS nothing FROM UNNEST(GENERATE_ARRAY(1, 3))".into(),
            Ask::Empty => "SELECT id, name FROM shop.people WHERE FALSE".into(),
            Ask::NonAscii => format!("SELECT '{NON_ASCII}' AS name"),
            Ask::LongText => "SELECT REPEAT('x', 1000000) AS long".into(),
            Ask::Rows(n) => {
                format!("SELECT id, CONCAT('name ', CAST(id AS STRING)) AS name FROM UNNEST(GENERATE_ARRAY(1, {n})) AS id ORDER BY id")
            }
            Ask::Slow => "SELECT COUNT(*) AS slow FROM UNNEST(GENERATE_ARRAY(1, 1000000)) AS a, UNNEST(GENERATE_ARRAY(1, 1000000)) AS b
                WHERE MOD(a * b, 7) = 8"
                .into(),
            Ask::UnknownTable => "SELECT * FROM shop.no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => return None,
            Ask::Write => "DELETE FROM shop.people WHERE TRUE".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        let utc = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        let address =
            Fields::from(vec![Field::new("city", DataType::Utf8, true), Field::new("floor", DataType::Int64, true)]);
        vec![
            case("int64", DataType::Int64, "9223372036854775807"),
            case("float64", DataType::Float64, "0.1"),
            case("numeric", DataType::Decimal128(38, 9), "12345678901234567890.123456789"),
            case("string", DataType::Utf8, "a"),
            case("bytes", DataType::Binary, "00ff"),
            case("bool", DataType::Boolean, "true"),
            case("date", DataType::Date32, "2026-02-28"),
            case("datetime", utc(), "2026-02-28T16:30:15.123456Z"),
            case("timestamp", utc(), "2026-02-28T16:30:15.123456Z"),
            case("time", DataType::Utf8, "12:34:56.789"),
            case("json", DataType::Utf8, r#"{"a":[1,2]}"#),
            case("struct", DataType::Struct(address), "{city: Zürich, floor: 2}"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        let columns = vec![("id", Some("int")), ("name", Some("string")), ("photo", None), ("tags", Some("list"))];
        ("shop.people".into(), columns)
    }

    async fn slow_was_stopped(&self) -> Option<bool> {
        Some(self.running().await == 0)
    }

    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("reports_a_missing_permission", "it knows no permissions; the fake does"),
            ("reports_a_refused_login", "it takes any token; the fake does not"),
            ("survives_a_broken_stream", "it does not break; the fake does"),
            ("fails_cleanly_when_the_stream_stays_broken", "it does not break; the fake does"),
            ("survives_throttling", "it does not throttle; the fake does"),
            ("passes_on_the_servers_patience", "it does not throttle; the fake does"),
            ("renews_its_login", "it takes any token; the fake does not"),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn local_bigquery_conforms() {
    let server = LocalBigQuery::start().await;
    suite::run(&server).await;
    // its drop waits for a process
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
