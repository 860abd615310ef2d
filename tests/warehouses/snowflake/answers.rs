//! What the service answers, and what becomes of it.

use std::time::Duration;

use arrow::array::AsArray;
use cloud_connect::warehouse::{QueryOptions, UNCONVERTIBLE_COLUMN, WarehouseErrorKind};
use futures::StreamExt;

use super::*;
use crate::suite::{cells, read};

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
