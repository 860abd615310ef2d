//! minilake: the suite, and a model through the whole program.

use std::collections::HashMap;

use serde_json::json;

use super::*;
use crate::process::{ServerProcess, free_port, standin};
use crate::project::{PEOPLE, Project, Ran, counts};

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
async fn databricks_conforms_on_minilake() {
    let lake = Minilake::start().await;
    lake.sql("CREATE TABLE people (id BIGINT, name STRING, balance DECIMAL(20,4))").await;
    suite::run(&lake).await;
    lake.stop().await;
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
