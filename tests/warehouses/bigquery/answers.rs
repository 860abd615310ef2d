//! What is asked of BigQuery, and what becomes of its answers.

use std::collections::BTreeSet;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use cloud_connect::values::ValueType;
use cloud_connect::warehouse::{ConnectionParams, QueryOptions, WarehouseError, WarehouseErrorKind};
use futures::StreamExt;
use serde_json::json;

use super::fake::Fake;
use crate::fakes::bigquery::script::{self, EVERY_TYPE, numbers};
use crate::fakes::bigquery::{EMAIL, FakeBigQuery, Faults};
use crate::suite::{self, Subject, cells, read};

fn with(fake: &Fake, values: &[(&str, &str)]) -> ConnectionParams {
    let mut params = fake.params();
    for (name, value) in values {
        params.set(*name, *value);
    }
    params
}

async fn ids(fake: &Fake, sql: &str) -> Result<Vec<i64>, WarehouseError> {
    let (_, batches) = read(&*suite::open(fake, &fake.params()), sql).await?;
    Ok(batches.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect())
}

fn unordered(rows: u64) -> String {
    numbers(rows).replace(" ORDER BY id", "")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_carries_the_connections_settings() {
    let fake = Fake::start().await;
    let params = with(
        &fake,
        &[
            ("dataset", "other-project.shop"),
            ("location", "EU"),
            ("maximum_bytes_billed", "1 GB"),
            ("labels", "team=crm, cost-centre=42"),
            ("use_query_cache", "false"),
            ("statement_timeout", "5m"),
        ],
    );
    read(&*suite::open(&fake, &params), &numbers(10)).await.unwrap();
    let jobs = fake.server.inserted();
    let [job] = jobs.as_slice() else { panic!("{jobs:?}") };
    let configuration = &job["configuration"];
    assert_eq!(configuration["labels"], json!({ "application": "cloud-connect", "team": "crm", "cost-centre": "42" }));
    assert_eq!(configuration["jobTimeoutMs"], "300000");
    let query = &configuration["query"];
    assert_eq!(query["defaultDataset"], json!({ "projectId": "other-project", "datasetId": "shop" }));
    assert_eq!(
        (&query["maximumBytesBilled"], &query["useQueryCache"], &query["useLegacySql"]),
        (&json!("1000000000"), &json!(false), &json!(false))
    );
    assert_eq!(query.get("destinationTable"), None);
    assert_eq!(job["jobReference"]["location"], "EU");
    assert!(job["jobReference"]["jobId"].as_str().unwrap().starts_with("cloud_connect_"));
    assert_eq!(fake.server.dry_runs()[0]["configuration"]["labels"]["team"], "crm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_gets_lost_is_no_second_run() {
    let fake = Fake::start().await;
    fake.server.set_faults(Faults { lose_inserts: 1, ..Faults::default() });
    assert_eq!(ids(&fake, &numbers(10)).await.unwrap().len(), 10);
    assert_eq!((fake.server.queries_run(), fake.server.cancels().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_about_trouble_is_no_answer() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &with(&fake, &[("dataset", "shop")]));
    // the one is asked by the crate's client, the other by ours
    fake.server.set_faults(Faults { pages: 1, ..Faults::default() });
    assert_eq!(warehouse.tables().await.unwrap().len(), 2);
    fake.server.set_faults(Faults { pages: 1, ..Faults::default() });
    warehouse.describe(&numbers(10)).await.unwrap();
    fake.server.set_faults(Faults { pages: usize::MAX, ..Faults::default() });
    for error in [warehouse.tables().await.unwrap_err(), warehouse.describe(&numbers(10)).await.unwrap_err()] {
        assert!(error.is_retryable() && !error.message.contains("html"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_would_cost_too_much_is_not_run() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &with(&fake, &[("maximum_bytes_billed", "1 MB")]));
    let estimate = warehouse.estimate(&numbers(10)).await.unwrap().unwrap();
    assert_eq!((estimate.bytes, estimate.source), (Some(160), "dry run"));
    for error in [
        warehouse.estimate(&numbers(1_000_000)).await.map(|_| ()).unwrap_err(),
        read(&*warehouse, &numbers(1_000_000)).await.map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind, WarehouseErrorKind::Configuration);
        assert!(error.message.contains("16000000") && error.message.contains("1000000 bytes"), "{error}");
    }
    assert_eq!(fake.server.queries_run(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_dry_run_does_not_call_a_select_is_not_run() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &fake.params());
    for (sql, says) in [("SELECT * FROM shop.script", "SCRIPT"), ("SELECT * FROM shop.hologram", "HOLOGRAM")] {
        for error in [warehouse.describe(sql).await.unwrap_err(), read(&*warehouse, sql).await.unwrap_err()] {
            assert_eq!(error.kind, WarehouseErrorKind::Sql);
            assert!(error.message.contains(says), "{error}");
        }
    }
    assert_eq!(fake.server.queries_run(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_with_an_order_come_in_one_stream_and_others_in_several() {
    let fake = Fake::start().await;
    let sorted = ids(&fake, &numbers(100_000)).await.unwrap();
    assert!(sorted.iter().copied().eq(1..=100_000));
    fake.server.set_faults(Faults { breaks: 3, ..Faults::default() });
    let all: BTreeSet<i64> = ids(&fake, &unordered(100_000)).await.unwrap().into_iter().collect();
    assert!(all.into_iter().eq(1..=100_000));
    assert_eq!(fake.server.session_shapes(), [(1, true), (4, true)]);
    assert_eq!(fake.server.queries_run(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_is_taken_up_at_its_offset() {
    let fake = Fake::start().await;
    fake.server.set_faults(Faults { breaks: 1, ..Faults::default() });
    assert!(ids(&fake, &numbers(50_000)).await.unwrap().into_iter().eq(1..=50_000));
    let offsets: Vec<_> = fake.server.reads().into_iter().map(|(_, offset)| offset).collect();
    assert_eq!(offsets, [0, 3 * 4096]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_session_is_made_anew_on_the_same_result() {
    let fake = Fake::start().await;
    fake.server.set_faults(Faults { expire_sessions: 2, breaks: 1, ..Faults::default() });
    assert!(ids(&fake, &numbers(50_000)).await.unwrap().into_iter().eq(1..=50_000));
    assert_eq!((fake.server.queries_run(), fake.server.sessions()), (1, 3));

    // sessions that expire before a new row comes are not made anew for ever
    fake.server.set_faults(Faults { expire_sessions: usize::MAX, ..Faults::default() });
    let error = ids(&fake, &numbers(50_000)).await.unwrap_err();
    assert!(error.is_retryable() && error.message.contains("expired"), "{error}");

    // of several streams nobody knows which rows another session gives to which
    fake.server.set_faults(Faults { expire_sessions: 1, ..Faults::default() });
    let error = ids(&fake, &unordered(100_000)).await.unwrap_err();
    assert!(error.is_retryable() && error.message.contains("expired"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_read_waits_for_as_long_as_the_server_asks() {
    let fake = Fake::start().await;
    fake.server.set_faults(Faults { throttle_reads: Some((1, 2)), ..Faults::default() });
    let began = std::time::Instant::now();
    assert_eq!(ids(&fake, &numbers(10)).await.unwrap().len(), 10);
    assert!(began.elapsed() >= Duration::from_secs(2));
    fake.server.set_faults(Faults { throttle_reads: Some((usize::MAX, 90)), ..Faults::default() });
    let error = ids(&fake, &numbers(10)).await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Retry { after: Some(Duration::from_secs(90)) }, "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_reads_ahead_of_a_reader_that_waits() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &fake.params());
    let mut running = warehouse.query(&numbers(10_000_000), &QueryOptions::default()).await.unwrap();
    running.stream.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let made = fake.server.batches_made();
    assert!(made < 1000, "{made} of 2442 batches were made");
    drop(running);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_waits_holds_back_no_other() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &fake.params());
    let mut waits = warehouse.query(&unordered(10_000_000), &QueryOptions::default()).await.unwrap();
    waits.stream.next().await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let sql = unordered(300_000);
    let (_, batches) = tokio::time::timeout(Duration::from_secs(60), read(&*warehouse, &sql)).await.unwrap().unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 300_000);
    drop(waits);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_may_be_followed_by_an_end_marker_or_not() {
    for marks_end in [true, false] {
        let fake = Fake { server: FakeBigQuery::start_with(script::script(), marks_end).await };
        assert_eq!(ids(&fake, &numbers(10)).await.unwrap().len(), 10);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arrays_and_json_are_what_profiles_hold() {
    let fake = Fake::start().await;
    let (schema, batches) = read(&*suite::open(&fake, &fake.params()), EVERY_TYPE).await.unwrap();
    let shown = |column: &str| cells(&batches, column).into_iter().map(Option::unwrap).collect::<Vec<_>>();
    assert_eq!(shown("array"), ["[1, 2]", "[]"]);
    let at = "2026-02-28T16:30:15.123456Z";
    assert_eq!(shown("structs"), [format!("[{{sku: a, at: {at}}}, {{sku: b, at: {at}}}]"), "[]".into()]);
    let value_type = |column: &str| ValueType::of(schema.field_with_name(column).unwrap()).map(|t| t.to_string());
    for (column, wanted) in [
        ("int64", Some("int")),
        ("numeric", Some("decimal(38,9)")),
        ("numeric_p", Some("decimal(12,2)")),
        ("bytes", None),
        ("datetime", Some("timestamp")),
        ("time", Some("string")),
        ("json", Some("json")),
        ("range", Some("json")),
        ("struct", Some("json")),
        ("array", Some("list")),
        ("structs", Some("json")),
    ] {
        assert_eq!(value_type(column).as_deref(), wanted, "{column}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_fails_says_why() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &fake.params());
    let error = read(&*warehouse, "SELECT * FROM shop.fails").await.unwrap_err();
    assert_eq!((error.kind, error.message.as_str()), (WarehouseErrorKind::Sql, "division by zero: 1 / 0"));
    let error = read(&*warehouse, "SELECT * FROM shop.breaks_down").await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    let error = read(&*warehouse, "SELECT * FROM shop.other_rows").await.unwrap_err();
    assert!(error.message.contains("column `one` comes as Int64"), "{error}");
    let error = read(&*warehouse, "SELECT FROM WHERE").await.unwrap_err();
    assert_eq!(error.message, "Syntax error: Unexpected keyword FROM\nLINE 1: SELECT FROM WHERE\n               ^");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_says_who_can_mend_it() {
    use WarehouseErrorKind::{Configuration, Retry};
    let fake = Fake::start().await;
    let member = format!("--member=serviceAccount:{EMAIL}");
    let ten_minutes = Retry { after: Some(Duration::from_secs(600)) };
    for (code, reason, message, kind, hint) in [
        (
            403,
            "accessDenied",
            "Access Denied: Project shop-project: User does not have bigquery.jobs.create permission in project shop-project.",
            Configuration,
            "--role=roles/bigquery.jobUser",
        ),
        (403, "billingNotEnabled", "Billing has not been enabled for this project.", Configuration, "enable billing"),
        (
            403,
            "accessNotConfigured",
            "BigQuery API has not been used in project 1 before",
            Configuration,
            "gcloud services enable",
        ),
        (
            403,
            "quotaExceeded",
            "Quota exceeded: Your project exceeded quota for free query bytes scanned.",
            ten_minutes,
            "quota",
        ),
        (404, "notFound", "Not found: Project shop-project", Configuration, "`project`"),
    ] {
        fake.server.set_faults(Faults { refuse: Some((code, reason, message.into())), ..Faults::default() });
        let error = suite::open(&fake, &fake.params()).describe("SELECT 1 AS one").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        let told = error.hint.unwrap();
        assert!(error.message.contains(message) && told.contains(hint), "{told}");
        assert!(!hint.contains("jobUser") || told.contains(&member), "{told}");
    }
    let denied =
        "request failed: the user does not have 'bigquery.readsessions.create' permission for 'projects/shop-project'";
    fake.server.set_faults(Faults { deny_sessions: Some(denied.into()), ..Faults::default() });
    let steps = suite::open(&fake, &fake.params()).test().await;
    let last = steps.last().unwrap();
    assert!(!last.ok && last.step == "read" && last.detail.contains("roles/bigquery.readSessionUser"), "{last:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_are_named_as_queries_write_them() {
    let fake = Fake::start().await;
    let listed = async |values: &[(&str, &str)]| {
        let tables = suite::open(&fake, &with(&fake, values)).tables().await.unwrap();
        // the scripted view has no answer to what its columns are
        let told: Vec<_> = tables.iter().map(|t| (t.columns, t.error.is_some())).collect();
        assert_eq!(told, [(Some(7), false), (None, true)], "{tables:?}");
        tables.into_iter().map(|t| (t.name, t.kind)).collect::<Vec<_>>()
    };
    let named =
        |a: &str, b: &str| [(a.to_string(), "table".to_string()), (b.to_string(), "materialized view".to_string())];
    assert_eq!(listed(&[]).await, named("shop.people", "`shop.odd name`"));
    let other = listed(&[("dataset", "other-project.shop")]).await;
    assert_eq!(other, named("`other-project.shop.people`", "`other-project.shop.odd name`"));
    let warehouse = suite::open(&fake, &with(&fake, &[("dataset", "shop")]));
    let columns = warehouse.columns("people").await.unwrap();
    let types: Vec<_> = columns.iter().map(|c| (c.warehouse_type.as_str(), c.nullable)).collect();
    assert_eq!(types[..3], [("INT64", false), ("STRING", true), ("NUMERIC(20, 4)", true)]);
}
