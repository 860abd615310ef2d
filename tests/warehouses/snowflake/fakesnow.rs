//! fakesnow: the suite, and a model through the whole program.

use serde_json::json;

use super::*;
use crate::process::{ServerProcess, free_port, standin};
use crate::project::{PEOPLE, Project, Ran, counts};

/// fakesnow, with tables in the database `SHOP`.
struct Fakesnow {
    server: ServerProcess,
}

impl Fakesnow {
    pub fn start() -> Self {
        let port = free_port();
        let mut command = standin("fakesnow", "fakesnow");
        command.args(["-s", "-p", &port.to_string()]);
        let fakesnow = Self { server: ServerProcess::start(command, port) };
        fakesnow.sql(&[
            "CREATE DATABASE IF NOT EXISTS SHOP",
            "CREATE SCHEMA IF NOT EXISTS SHOP.PUBLIC",
            "CREATE TABLE PEOPLE (ID NUMBER(10,0), NAME VARCHAR, BALANCE NUMBER(20,4))",
            "CREATE TABLE \"Odd Name\" (\"small\" INT)",
        ]);
        fakesnow
    }

    /// Runs statements through the official driver.
    fn sql(&self, statements: &[&str]) {
        let script = "import sys, json, snowflake.connector as c
con = c.connect(user='u', password='p', account='a', host='127.0.0.1', port=int(sys.argv[1]), protocol='http',
    database='SHOP', schema='PUBLIC', session_parameters={'CLIENT_OUT_OF_BAND_TELEMETRY_ENABLED': False})
for sql in json.loads(sys.argv[2]):
    con.cursor().execute(sql)
con.close()";
        let statements = serde_json::to_string(statements).unwrap();
        let port = self.server.port.to_string();
        let done = standin("fakesnow", "python").args(["-c", script, &port, &statements]).output().unwrap();
        assert!(done.status.success(), "{}\n{}", String::from_utf8_lossy(&done.stderr), self.server.log());
    }
}

#[async_trait]
impl Subject for Fakesnow {
    fn provider(&self) -> &'static str {
        "snowflake"
    }

    fn params(&self) -> ConnectionParams {
        let mut params = ConnectionParams::new("shop", "/");
        let url = format!("http://127.0.0.1:{}", self.server.port);
        for (name, value) in [
            ("account", "myorg-shop"),
            ("host", url.as_str()),
            ("user", "reader"),
            ("password", "any-passw0rd-will-do"),
            ("database", "SHOP"),
            ("schema", "PUBLIC"),
        ] {
            params.set(name, value);
        }
        params
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        None
    }

    fn secrets(&self) -> Vec<String> {
        vec!["any-passw0rd-will-do".into()]
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        Some(match ask {
            Ask::Types => "SELECT * FROM (SELECT 42::NUMBER(10,0) AS \"integer\", 12345.67::NUMBER(12,2) AS \"decimal\", 0.1::FLOAT AS \"float\",
                TRUE AS \"boolean\", 'a' AS \"text\", '2026-02-28'::DATE AS \"date\", '2026-02-28 16:30:15.123456'::TIMESTAMP_NTZ AS \"timestamp_ntz\",
                '16:30:15'::TIME AS \"time\", PARSE_JSON('{\"a\": 1}') AS \"variant\", 1 AS \"row\"
                UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2) AS t ORDER BY \"row\""
                .into(),
            Ask::AllNull => "SELECT NULL::VARCHAR AS \"nothing\" FROM TABLE(GENERATOR(ROWCOUNT => 3))".into(),
            Ask::Empty => "SELECT ID + 0 AS \"id\", NAME || '' AS \"name\" FROM PEOPLE WHERE FALSE".into(),
            Ask::NonAscii => format!("SELECT '{NON_ASCII}' AS \"name\""),
            Ask::LongText => "SELECT REPEAT('x', 1000000) AS \"long\"".into(),
            // it puts all rows into one answer, as the service does not
            Ask::Rows(1_000_000..) => return None,
            Ask::Rows(n) => format!(
                "SELECT SEQ8() + 1 AS \"id\", 'name ' || (SEQ8() + 1) AS \"name\" FROM TABLE(GENERATOR(ROWCOUNT => {n})) ORDER BY 1"
            ),
            Ask::Slow => return None,
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => return None,
            Ask::Write => "DELETE FROM PEOPLE".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        vec![
            case("integer", DataType::Int64, "42"),
            case("decimal", DataType::Decimal128(12, 2), "12345.67"),
            case("float", DataType::Float64, "0.1"),
            case("boolean", DataType::Boolean, "true"),
            case("text", DataType::Utf8, "a"),
            case("date", DataType::Date32, "2026-02-28"),
            case(
                "timestamp_ntz",
                DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
                "2026-02-28T16:30:15.123456Z",
            ),
            case("time", DataType::Utf8, "16:30:15"),
            case("variant", DataType::Utf8, "{\"a\":1}"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        (
            "PUBLIC.PEOPLE".into(),
            vec![("ID", Some("int")), ("NAME", Some("string")), ("BALANCE", Some("decimal(20,4)"))],
        )
    }

    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("stays_within_its_memory", "it puts all rows into one answer; the scripted server has files"),
            ("reports_a_missing_permission", "fakesnow knows no roles"),
            ("reports_a_refused_login", "it accepts any credential"),
            ("cancels_in_the_warehouse", "it answers an abort and does not stop"),
            ("stops_a_dropped_query", "it does not stop"),
            ("stops_at_its_timeout", "its slow queries block the whole server"),
            ("survives_a_broken_stream", "its results come with the answer"),
            ("fails_cleanly_when_the_stream_stays_broken", "its results come with the answer"),
            ("survives_throttling", "it throttles nobody"),
            ("passes_on_the_servers_patience", "it throttles nobody"),
            ("renews_its_login", "its sessions do not expire"),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fakesnow_conforms() {
    let subject = tokio::task::spawn_blocking(Fakesnow::start).await.unwrap();
    suite::run(&subject).await;
    let tables = suite::open(&subject, &subject.params()).tables().await.unwrap();
    assert!(tables.iter().any(|t| t.name == "PUBLIC.\"Odd Name\""), "{tables:?}");
    tokio::task::spawn_blocking(move || drop(subject)).await.unwrap();
}

#[test]
fn a_model_on_snowflake_becomes_profiles_and_follows_its_changes() {
    let fakesnow = Fakesnow::start();
    fakesnow.sql(&[
        "CREATE TABLE CUSTOMERS (\"email\" VARCHAR, \"city\" VARCHAR, \"spent\" NUMBER(12,2), \"seen\" TIMESTAMP_NTZ, \"extra\" VARIANT)",
        "INSERT INTO CUSTOMERS SELECT 'p' || (SEQ8() + 1) || '@example.com', 'city ' || MOD(SEQ8(), 10), SEQ8() + 1.25,
            '2026-01-01 07:00:00'::TIMESTAMP_NTZ, PARSE_JSON('{\"n\": 7}') FROM TABLE(GENERATOR(ROWCOUNT => 2000))",
    ]);
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\n      normalize: [trim, lowercase]\nconnections:\n  shop: {{ type: snowflake, account: myorg-shop, \
             host: 'http://127.0.0.1:{}', user: reader, password: '${{env:SNOWFLAKE_PASSWORD}}', database: SHOP, schema: PUBLIC }}\n",
            fakesnow.server.port
        ),
    );
    let config = PEOPLE.replace("files", "shop").replace("[city, spent]", "[city, spent, seen, extra]");
    project.model("people", &config, "SELECT * FROM CUSTOMERS -- all of them");
    let cc = |args: &[&str]| -> Ran {
        project.command(args).env("SNOWFLAKE_PASSWORD", "any-passw0rd-will-do").output().unwrap().into()
    };
    let tested = cc(&["connection", "test", "shop"]);
    assert_eq!(tested.code, Some(0), "{}{}", tested.stdout, tested.stderr);
    cc(&["check"]).ok();
    let first = cc(&["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&first, ["rows", "added", "profiles_created"]), [2000, 2000, 2000]);
    let profile = cc(&["profile", "email", "P7@example.com", "--output", "json"]).ok().json();
    let attributes = &profile["attributes"];
    assert_eq!(attributes["cc_people_seen"], "2026-01-01T07:00:00Z");
    assert_eq!(attributes["cc_people_extra"], json!({ "n": 7 }));
    assert_eq!(attributes["cc_people_spent"].to_string().trim_matches('"'), "7.25");

    fakesnow.sql(&[
        "UPDATE CUSTOMERS SET \"city\" = 'moved' WHERE \"email\" IN ('p1@example.com', 'p2@example.com')",
        "DELETE FROM CUSTOMERS WHERE \"email\" = 'p3@example.com'",
        "INSERT INTO CUSTOMERS (\"email\", \"spent\") VALUES ('new@example.com', 1)",
    ]);
    let second = cc(&["run", "--output", "json"]).ok().json()[0].clone();
    assert_eq!(counts(&second, ["rows", "added", "changed", "removed", "unchanged"]), [2000, 1, 2, 1, 1997]);
    let moved = cc(&["profile", "email", "p1@example.com", "--output", "json"]).ok().json();
    assert_eq!(moved["attributes"]["cc_people_city"], "moved");

    // a fault is shown at its place, in the model's own words
    project.model("people", &config, "SELECT \"email\", \"city\",\n  spend AS \"spent\"\nFROM CUSTOMERS");
    let ran = cc(&["run"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stdout.to_lowercase().contains("spend"), "{}", ran.stdout);
    assert!(!format!("{ran:?}{tested:?}").contains("any-passw0rd-will-do"));
}
