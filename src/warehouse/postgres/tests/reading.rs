//! What a query promises whatever its types: statements, order, batches, back-pressure.

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use futures::StreamExt;

use super::*;

#[tokio::test]
async fn a_million_rows_arrive_whole_and_in_order() {
    let (_server, warehouse) = shop();
    let sql =
        "SELECT i::int8 AS id, 'user_' || i AS name, nullif(i % 7, 0) AS seventh FROM generate_series(1, 1000000) AS i";
    let mut running = warehouse.query(sql, &QueryOptions::default()).await.unwrap();
    let mut expected = 1_i64;
    while let Some(batch) = running.stream.next().await {
        let batch = batch.unwrap();
        assert!(batch.num_rows() <= 8192);
        let (ids, names) = (batch.column(0).as_primitive::<Int64Type>(), batch.column(1).as_string::<i32>());
        let sevenths = batch.column(2).as_primitive::<Int32Type>();
        for row in 0..batch.num_rows() {
            assert_eq!(ids.value(row), expected);
            assert_eq!(names.value(row), format!("user_{expected}"));
            assert_eq!(sevenths.is_null(row), expected % 7 == 0);
            assert_eq!(i64::from(sevenths.value(row)), expected % 7);
            expected += 1;
        }
    }
    assert_eq!(expected, 1_000_001);
}

#[tokio::test]
async fn the_server_waits_for_a_reader_that_does_not_read() {
    let (server, warehouse) = shop();
    // about 400 MB: what the channel and the socket's buffers hold is little beside it
    let sql = "SELECT /* slow reader */ i, repeat('x', 4000) FROM generate_series(1, 100000) AS i";
    let mut running = warehouse.query(sql, &QueryOptions::default()).await.unwrap();
    running.stream.next().await.unwrap().unwrap();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%slow reader%' AND state = 'active' \
                 AND wait_event = 'ClientWrite'";
    assert!(eventually(|| server.psql(DATABASE, waits) == "1").await, "the server does not wait");
    let mut rows = 0;
    while let Some(batch) = running.stream.next().await {
        let batch = batch.unwrap();
        assert!(batch.get_array_memory_size() < 12 << 20, "wide rows make small batches");
        rows += batch.num_rows();
    }
    assert!(rows > 90_000 && rows < 100_000, "{rows}");
}

#[tokio::test]
async fn every_reading_statement_works_with_its_comments_and_semicolons() {
    let (_server, warehouse) = shop();
    for sql in [
        "SELECT 1 AS a",
        "SELECT 1 AS a;",
        "SELECT 1 AS a -- the end",
        "SELECT 1 AS a; -- the end",
        "/* one; */ SELECT 1 AS a /* two */ ;;\n\n",
        "WITH x AS (SELECT 1 AS a) SELECT a FROM x",
        "VALUES (1)",
        "(SELECT 1 AS a) UNION (SELECT 1)",
        "SELECT a FROM (SELECT 1 AS a) AS t ORDER BY a LIMIT 5;",
    ] {
        for limit in [None, Some(3)] {
            let options = QueryOptions { limit, ..QueryOptions::default() };
            let batch = drain(warehouse.query(sql, &options).await.unwrap()).await.unwrap();
            assert_eq!(batch.column(0).as_primitive::<Int32Type>().values(), &[1], "{sql}");
        }
    }
    let table = read(warehouse.as_ref(), "TABLE customers").await.unwrap();
    assert_eq!(table.num_rows(), 10);
}

#[tokio::test]
async fn a_limit_stops_after_so_many_rows() {
    let (_server, warehouse) = shop();
    let options = QueryOptions { limit: Some(7), ..QueryOptions::default() };
    let sql = "SELECT generate_series(1, 1000000000) AS i";
    let batch = drain(warehouse.query(sql, &options).await.unwrap()).await.unwrap();
    assert_eq!(batch.num_rows(), 7);
}

#[tokio::test]
async fn no_rows_are_no_error_and_keep_their_schema() {
    let (_server, warehouse) = shop();
    let batch = read(warehouse.as_ref(), "SELECT id, email FROM customers WHERE false").await.unwrap();
    assert_eq!((batch.num_rows(), batch.num_columns()), (0, 2));
}

#[tokio::test]
async fn columns_of_one_name_are_told_apart_by_place() {
    let (_server, warehouse) = shop();
    let sql = "SELECT 1 AS a, '10:00'::time AS a, 2 AS a";
    let schema = warehouse.describe(sql).await.unwrap();
    assert_eq!(schema.fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["a", "a", "a"]);
    let batch = read(warehouse.as_ref(), sql).await.unwrap();
    assert_eq!(batch.column(1).as_string::<i32>().value(0), "10:00:00");
    assert_eq!(batch.column(2).as_primitive::<Int32Type>().value(0), 2);
}

#[tokio::test]
async fn values_larger_than_a_batch_come_whole() {
    let (_server, warehouse) = shop();
    let sql = "SELECT i, repeat('é', 3000000) AS big FROM generate_series(1, 3) AS i";
    let running = warehouse.query(sql, &QueryOptions::default()).await.unwrap();
    let batches: Vec<_> = running.stream.try_collect().await.unwrap();
    assert_eq!(batches.len(), 3, "each fills a batch of its own");
    assert!(batches.iter().all(|b| b.column(1).as_string::<i32>().value(0).len() == 6_000_000));
}

#[tokio::test]
async fn a_finished_query_leaves_no_session() {
    let (server, warehouse) = shop();
    read(warehouse.as_ref(), "SELECT 'leaves nothing' AS a").await.unwrap();
    let left = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%leaves nothing%'";
    assert!(eventually(|| server.psql(DATABASE, left) == "0").await);
}

/// Does it come true within ten seconds?
pub(super) async fn eventually(mut check: impl FnMut() -> bool) -> bool {
    for _ in 0..200 {
        if check() {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    false
}
