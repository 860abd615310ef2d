//! What the warehouse answers, and what becomes of it.

use std::time::{Duration, Instant};

use cloud_connect::warehouse::{QueryOptions, WarehouseError, WarehouseErrorKind};
use futures::StreamExt;
use serde_json::json;

use super::*;
use crate::suite::{cells, of_stream, read};

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
