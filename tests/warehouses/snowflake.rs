//! `snowflake`: over the scripted server, over fakesnow, and models on it through the whole program.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, TimeUnit};
use async_trait::async_trait;
use cloud_connect::warehouse::{
    ConnectionParams, QueryOptions, UNCONVERTIBLE_COLUMN, Warehouse, WarehouseError, WarehouseErrorKind,
};
use futures::StreamExt;
use serde_json::json;

use crate::fakes::snowflake::{ACCOUNT, FakeSnowflake, PASSWORD, USER};
use crate::process::{ServerProcess, free_port, standin};
use crate::project::{PEOPLE, Project, Ran, counts};
use crate::suite::{self, Ask, Fault, NON_ASCII, Subject, TypeCase, WRONG_SECRET, case, cells, read, read_with};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_results_give_the_same_values_as_arrow() {
    let subject = Scripted::start();
    let warehouse = subject.open();
    let (schema, arrow) = read(&*warehouse, "SELECT * FROM TYPES").await.unwrap();
    let (same, json) = read(&*warehouse, "SELECT * FROM TYPES_JSON").await.unwrap();
    assert_eq!(schema, same);
    for field in schema.fields() {
        assert_eq!(cells(&arrow, field.name()), cells(&json, field.name()), "{}", field.name());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn json_results_may_lie_in_files_too() {
    let subject = Scripted::start();
    let (_, batches) = read(&*subject.open(), "SELECT * FROM JSON_IN_FILES").await.unwrap();
    let ids: Vec<_> = cells(&batches, "id").into_iter().flatten().collect();
    assert_eq!(ids, ["1", "2", "3", "4", "5", "6"]);
    assert!(cells(&batches, "name").iter().all(|n| n.as_deref() == Some("🚲, [x]")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_another_form_is_not_quoted() {
    let subject = Scripted::start();
    subject.server.faults(|f| f.garbled = true);
    let error = subject.error("SELECT * FROM TYPES").await;
    assert_eq!(error.kind, WarehouseErrorKind::Bug);
    assert!(!format!("{error:?}").contains("in-no-place"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_is_cancelled_at_once_does_not_run_on() {
    let subject = Scripted::start();
    let warehouse = subject.open();
    for wait in [0, 1, 5, 20] {
        let mut running = warehouse.query("SELECT * FROM SLOW", &QueryOptions::default()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(wait)).await;
        running.cancel.cancel().await;
        let error = suite::of_stream(running.stream.next().await.unwrap().unwrap_err());
        assert_eq!(error.kind, WarehouseErrorKind::Cancelled);
    }
    for _ in 0..50 {
        if subject.server.slow_running() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("a query still runs in the server");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_query_is_asked_for_until_it_has_ended() {
    let subject = Scripted::start();
    subject.server.faults(|f| f.polls = 4);
    let (_, batches) = read(&*subject.open(), "SELECT \"id\", \"name\" FROM ROWS(2500)").await.unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 2500);
    assert_eq!(subject.server.seen(|s| (s.queries, s.polled)), (1, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_or_incomplete_answer_does_not_run_the_query_again() {
    let subject = Scripted::start();
    subject.server.faults(|f| (f.lost_answers, f.empty_answers) = (2, 1));
    let (_, batches) = read(&*subject.open(), "SELECT \"id\", \"name\" FROM ROWS(2500)").await.unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 2500);
    assert_eq!(subject.server.seen(|s| s.queries), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_sessions_and_links_are_replaced_in_the_middle_of_a_result() {
    let subject = Scripted::start();
    subject.server.faults(|f| f.expire = true);
    let (_, batches) = read(&*subject.open(), "SELECT \"id\", \"name\" FROM ROWS(300000)").await.unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 300_000);
    // the session by its master token, and, when that was over too, by a new login; all links by one question
    let seen = subject.server.seen(|s| (s.queries, s.renewals, s.logins.len(), s.refreshed));
    assert_eq!(seen, (1, 1, 2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_refuses_is_told_from_expired_links() {
    let subject = Scripted::start();
    subject.server.faults(|f| f.forbidden_files = true);
    let error = read(&*subject.open(), "SELECT \"id\", \"name\" FROM ROWS(100000)").await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Configuration);
    assert!(error.hint.as_ref().unwrap().contains("SYSTEM$ALLOWLIST"), "{error:?}");
    assert!(!format!("{error:?}").contains("sig="), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_names_its_place_and_tags_its_queries() {
    let subject = Scripted::start();
    let values = [
        ("password", PASSWORD),
        ("role", "reader"),
        ("schema", "public"),
        ("query_tag", "team=growth"),
        ("statement_timeout", "90s"),
    ];
    let warehouse = suite::open(&subject, &subject.with(&values));
    warehouse.describe("SELECT * FROM TYPES").await.unwrap();
    let login = subject.server.seen(|s| s.logins[0].clone());
    for (name, value) in
        [("databaseName", "shop"), ("schemaName", "public"), ("warehouse", "wh"), ("roleName", "reader")]
    {
        assert_eq!(login.params[name], value);
    }
    let session = &login.data["SESSION_PARAMETERS"];
    assert_eq!((&session["QUERY_TAG"], &session["TIMEZONE"]), (&json!("team=growth"), &json!("UTC")));
    assert_eq!(
        (&session["STATEMENT_TIMEOUT_IN_SECONDS"], &session["ABORT_DETACHED_QUERY"]),
        (&json!(90), &json!(true))
    );
    assert_eq!(login.data["ACCOUNT_NAME"], ACCOUNT);
    assert_eq!((subject.server.seen(|s| (s.queries, s.closed)), subject.server.open_sessions()), ((0, 1), 0));
    // a shorter timeout of the model's own
    let options = QueryOptions { timeout: Some(Duration::from_millis(1500)), ..QueryOptions::default() };
    read_with(&*warehouse, "SELECT * FROM TYPES", &options).await.unwrap();
    let login = subject.server.seen(|s| s.logins[1].clone());
    assert_eq!(login.data["SESSION_PARAMETERS"]["STATEMENT_TIMEOUT_IN_SECONDS"], 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_access_token_logs_in_in_the_place_of_a_password() {
    let subject = Scripted::start();
    subject.server.accept_access_token("pat-9f31");
    let warehouse = suite::open(&subject, &subject.with(&[("access_token", "pat-9f31\n")]));
    warehouse.describe("SELECT * FROM TYPES").await.unwrap();
}

/// A key pair by openssl: the private key's PEM, the public key's, and its fingerprint.
fn key_pair() -> (String, String, String) {
    let dir = tempfile::TempDir::new().unwrap();
    let openssl = |args: &str| {
        let done =
            Command::new("sh").arg("-c").arg(format!("openssl {args}")).current_dir(dir.path()).output().unwrap();
        assert!(done.status.success(), "{done:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    openssl("genrsa 2048 2>/dev/null | openssl pkcs8 -topk8 -nocrypt -out key.p8");
    openssl("rsa -in key.p8 -pubout -out key.pub");
    let fingerprint =
        openssl("rsa -pubin -in key.pub -outform DER | openssl dgst -sha256 -binary | openssl enc -base64");
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap();
    (read("key.p8"), read("key.pub"), fingerprint.trim().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_pair_logs_in_with_the_claims_that_snowflake_asks_for() {
    let subject = Scripted::start();
    let (private, _, fingerprint) = key_pair();
    let warehouse = suite::open(&subject, &subject.with(&[("private_key", &private)]));
    // the user has another key, or none
    let error = warehouse.describe("SELECT * FROM TYPES").await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Configuration);
    assert!(error.hint.unwrap().contains("RSA_PUBLIC_KEY"));
    subject.server.accept_key(&fingerprint);
    warehouse.describe("SELECT * FROM TYPES").await.unwrap();
    let claims = subject.server.seen(|s| s.logins[0].claims.clone()).unwrap();
    assert_eq!(claims["sub"], "MYORG-SHOP.CLOUD_CONNECT");

    // a key that is none
    let broken = "-----BEGIN PRIVATE KEY-----\nYWJj\n-----END PRIVATE KEY-----";
    let warehouse = suite::open(&subject, &subject.with(&[("private_key", broken)]));
    let error = warehouse.describe("SELECT * FROM TYPES").await.unwrap_err();
    assert!(error.hint.unwrap().contains("openssl"));
}

#[test]
fn the_token_of_a_key_pair_verifies_under_its_public_key() {
    let (private, public, _) = key_pair();
    let token = snowflake_jwt::generate_jwt_token(&private, "MYORG-SHOP.CLOUD_CONNECT").unwrap();
    // another implementation: that of the official driver
    let script = "import sys, jwt; print(jwt.decode(sys.argv[1], sys.argv[2], algorithms=['RS256'])['sub'])";
    let done = standin("fakesnow", "python").args(["-c", script, &token, &public]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "MYORG-SHOP.CLOUD_CONNECT", "{done:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_logins_say_what_to_do() {
    let subject = Scripted::start();
    for (code, message, hint) in [
        ("390189", "Role 'READER' specified in the connect string is not granted to this user.", "GRANT ROLE"),
        ("390422", "Incoming request with IP/Token 203.0.113.7 is not allowed to access Snowflake.", "network policy"),
        ("390102", "User temporarily locked.", "disabled"),
        ("390197", "Multi-factor authentication is required for this account.", "key pair"),
    ] {
        subject.server.refuse_logins(code, message);
        let error = subject.error("SELECT * FROM TYPES").await;
        assert_eq!(error.kind, WarehouseErrorKind::Configuration);
        assert!(error.message.contains(message) && error.hint.as_ref().unwrap().contains(hint), "{error:?}");
    }
    let subject = Scripted::start();
    let params = subject.with(&[("password", PASSWORD), ("warehouse", "NO_SUCH_WH")]);
    let steps = suite::open(&subject, &params).test().await;
    let last = steps.last().unwrap();
    assert!(!last.ok && last.step == "log in" && last.detail.contains("`warehouse`"), "{steps:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_are_sorted_by_who_can_mend_them_and_point_into_the_models_sql() {
    let subject = Scripted::start();
    let error = subject.error("SELECT * FROM ASLEEP").await;
    assert_eq!(error.kind, WarehouseErrorKind::Configuration);
    assert!(error.hint.unwrap().contains("ALTER WAREHOUSE … RESUME"));
    let error = subject.error("SELECT * FROM FAILS_INSIDE").await;
    assert!(error.is_retryable(), "{error:?}");
    let sql = "SELECT a,\n  spend\nFROM PEOPLE";
    let error = subject.error(sql).await;
    let pointer = "LINE 2:   spend\n          ^";
    assert!(error.message.contains("error line 2 at position 2") && error.message.ends_with(pointer), "{error}");
    let error = subject.error("SELECT * FROM nowhere").await;
    assert!(error.hint.unwrap().contains("GRANT SELECT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_reads_is_run() {
    let subject = Scripted::start();
    let warehouse = subject.open();
    // reads, to our tokens; the service knows better
    for sql in ["SELECT * FROM RESULT_OF_A_WRITE", "SELECT 1 ->> DELETE FROM PEOPLE", "SELECT * FROM TYPES WHERE 1 = ?"]
    {
        let Err(error) = warehouse.query(sql, &QueryOptions::default()).await else { panic!("{sql} was run") };
        assert_eq!(error.kind, WarehouseErrorKind::Sql, "{error}");
    }
    assert_eq!(subject.server.seen(|s| s.queries), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_is_what_is_left_after_pruning() {
    let subject = Scripted::start();
    let estimate = subject.open().estimate("SELECT * FROM TYPES").await.unwrap().unwrap();
    assert_eq!((estimate.bytes, estimate.partitions, estimate.source), (Some(4_567_890), Some((30, 1200)), "EXPLAIN"));
    assert_eq!(subject.server.seen(|s| s.queries), 0);
    // what the role may not see is no error
    assert_eq!(subject.open().estimate("SELECT * FROM SECURE_VIEW").await.unwrap(), None);
    assert!(subject.open().estimate("SELECT * FROM no_such_table").await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_results_are_carried_or_refused_but_never_changed() {
    let subject = Scripted::start();
    let warehouse = subject.open();
    // two columns of one name
    let (schema, batches) = read(&*warehouse, "SELECT a AS x, b AS x FROM TWICE").await.unwrap();
    assert_eq!((schema.fields().len(), batches[0].num_columns()), (2, 2));
    // far years are right; one beyond Arrow's is marked
    let (_, batches) = read(&*warehouse, "SELECT * FROM FAR").await.unwrap();
    let at = cells(&batches, "at");
    let wanted = [Some("0001-01-01T00:00:00Z"), Some("9999-12-31T23:59:59.999999Z"), None];
    assert_eq!(at.iter().map(Option::as_deref).collect::<Vec<_>>(), wanted);
    let marks = cells(&batches, UNCONVERTIBLE_COLUMN);
    assert_eq!(marks, [None, None, Some("at: is further away than a timestamp can be".to_string())]);
    // structured types
    let (_, batches) = read(&*warehouse, "SELECT * FROM STRUCTURED").await.unwrap();
    assert_eq!(cells(&batches, "l"), [Some("[1,null]".to_string()), None]);
    assert_eq!(cells(&batches, "o"), [Some("{\"n\":1}".to_string()), None]);
    let error = read(&*warehouse, "SELECT * FROM TIMES_INSIDE").await.unwrap_err();
    assert!(error.hint.unwrap().contains("VARIANT"));
    // a type that cannot be carried
    let error = warehouse.describe("SELECT * FROM WIDE_FLOATS").await.unwrap_err();
    assert!(error.message.contains("DECFLOAT") && error.hint.unwrap().contains("D::VARCHAR"));
    // another type than was described
    let error = read(&*warehouse, "SELECT * FROM CHANGED").await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Bug);
    // queries that ended by themselves are not aborted
    assert!(!subject.server.seen(|s| s.paths.contains("/queries/v1/abort-request")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_are_fetched_only_a_few_ahead_of_a_reader_that_waits() {
    let subject = Scripted::start();
    let total = 2_000_000;
    let sql = format!("SELECT \"id\", \"name\" FROM ROWS({total})");
    let mut running = subject.open().query(&sql, &QueryOptions::default()).await.unwrap();
    let first = running.stream.next().await.unwrap().unwrap();
    assert_eq!(first.num_rows().min(8192), first.num_rows());
    tokio::time::sleep(Duration::from_secs(1)).await;
    let fetched = subject.server.seen(|s| s.files);
    assert!(fetched <= 5, "{fetched} files were fetched for a reader that waits");
    let mut next = first.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().last().unwrap() + 1;
    while let Some(batch) = running.stream.next().await {
        for id in batch.unwrap().column(0).as_primitive::<arrow::datatypes::Int64Type>().values() {
            assert_eq!(*id, next);
            next += 1;
        }
    }
    assert_eq!(next, total + 1);
}

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
