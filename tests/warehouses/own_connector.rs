//! The connector of `examples/own_connector.rs`, which comes from outside the library, keeps what the built-in ones keep.

use std::sync::Arc;

use arrow::datatypes::DataType;
use async_trait::async_trait;
use cloud_connect::clock::SystemClock;
use cloud_connect::sync::{Engine, Silent};
use cloud_connect::warehouse::{ConnectionParams, Provider};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, SqlSafeStr};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::suite::{self, Ask, NON_ASCII, Subject, TypeCase, case};

#[path = "../../examples/own_connector.rs"]
mod example;

async fn execute(file: &std::path::Path, sql: &str) {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    connection.execute(sqlx::raw_sql(AssertSqlSafe(sql).into_sql_str())).await.unwrap();
    connection.close().await.unwrap();
}

struct Sqlite {
    dir: TempDir,
}

impl Sqlite {
    async fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let tables = "CREATE TABLE people (id INTEGER, name TEXT, score REAL, photo BLOB);
            CREATE TABLE typed (\"integer\" INTEGER, \"real\" REAL, \"text\" TEXT, \"blob\" BLOB);
            INSERT INTO typed VALUES (9223372036854775807, 0.5, 'a', x'00ff'), (NULL, NULL, NULL, NULL);";
        execute(&dir.path().join("test.db"), tables).await;
        Self { dir }
    }
}

#[async_trait]
impl Subject for Sqlite {
    fn provider(&self) -> &'static str {
        "sqlite"
    }

    fn declaration(&self) -> Provider {
        example::PROVIDER
    }

    fn params(&self) -> ConnectionParams {
        let mut params = ConnectionParams::new("shop", self.dir.path());
        params.set("file", "test.db");
        params
    }

    fn wrong_login(&self) -> Option<ConnectionParams> {
        None
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    fn sql(&self, ask: Ask) -> Option<String> {
        let counted = |n| format!("WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < {n})");
        Some(match ask {
            Ask::Types => "SELECT * FROM typed ORDER BY 1 DESC NULLS LAST".into(),
            Ask::AllNull => "SELECT NULL AS \"nothing\" FROM (VALUES (1), (2), (3))".into(),
            Ask::Empty => "SELECT id, name FROM people".into(),
            Ask::NonAscii => format!("SELECT '{NON_ASCII}' AS name"),
            Ask::LongText => "SELECT replace(hex(zeroblob(500000)), '0', 'x') AS long".into(),
            Ask::Rows(n) => format!("{} SELECT id, 'name ' || id AS name FROM n ORDER BY id", counted(n)),
            Ask::Slow => format!("{} SELECT max(id) FROM n", counted(10_000_000_000_u64)),
            Ask::UnknownTable => "SELECT * FROM no_such_table".into(),
            Ask::SyntaxError => "SELECT FROM WHERE".into(),
            Ask::Forbidden => return None,
            Ask::Write => "DELETE FROM people".into(),
        })
    }

    fn types(&self) -> Vec<TypeCase> {
        vec![
            case("integer", DataType::Int64, "9223372036854775807"),
            case("real", DataType::Float64, "0.5"),
            case("text", DataType::Utf8, "a"),
            case("blob", DataType::Binary, "00ff"),
        ]
    }

    fn known_table(&self) -> (String, Vec<(&'static str, Option<&'static str>)>) {
        ("people".into(), vec![("id", Some("int")), ("name", Some("string")), ("photo", None)])
    }

    fn cannot(&self) -> Vec<(&'static str, &'static str)> {
        vec![
            ("stays_within_its_memory", "the program as built does not know it"),
            ("reports_a_missing_permission", "a file has no permissions of its tables"),
            ("reports_a_refused_login", "there is no login"),
            ("cancels_in_the_warehouse", "the query runs in this process: nobody else can tell that it ended"),
            ("stops_a_dropped_query", "the query runs in this process: nobody else can tell that it ended"),
            ("survives_a_broken_stream", "there is no network between"),
            ("fails_cleanly_when_the_stream_stays_broken", "there is no network between"),
            ("survives_throttling", "nobody throttles"),
            ("passes_on_the_servers_patience", "nobody throttles"),
            ("renews_its_login", "there is no login"),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_of_ones_own_conforms() {
    suite::run(&Sqlite::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_models_become_profiles() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/own_connector");
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("models")).unwrap();
    for file in ["cloud-connect.yml", "models/buyers.yml", "models/buyers.sql"] {
        std::fs::copy(example.join(file), dir.path().join(file)).unwrap();
    }
    execute(&dir.path().join("shop.db"), &std::fs::read_to_string(example.join("shop.sql")).unwrap()).await;

    let run = async || {
        let project = cloud_connect::config::load(dir.path(), &[example::PROVIDER]).unwrap();
        let engine = Engine::open(project, 512 << 20, Arc::new(SystemClock)).await.unwrap();
        engine.run("buyers", &Silent, &CancellationToken::new()).await
    };
    let first = run().await;
    assert_eq!((first.added, first.profiles_created, first.quarantined), (3, 3, 0));
    execute(
        &dir.path().join("shop.db"),
        "INSERT INTO orders VALUES (5, 2, 5.0, '2026-07-01'); DELETE FROM orders WHERE id = 4",
    )
    .await;
    let second = run().await;
    assert_eq!((second.added, second.changed, second.removed), (0, 1, 1));
}
