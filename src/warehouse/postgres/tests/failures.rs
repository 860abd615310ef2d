//! What goes wrong, and who is told to mend it.

use std::time::{Duration, Instant};

use futures::StreamExt;

use super::reading::eventually;
use super::*;
use crate::warehouse::WarehouseErrorKind::{self, Cancelled, Configuration, Sql};

const RETRY: WarehouseErrorKind = WarehouseErrorKind::Retry { after: None };

async fn refused(warehouse: &dyn Warehouse, sql: &str) -> WarehouseError {
    read(warehouse, sql).await.expect_err(sql)
}

#[tokio::test]
async fn writes_are_refused_and_change_nothing() {
    let (server, warehouse) = shop();
    for sql in [
        "INSERT INTO writable VALUES (1) RETURNING a",
        "WITH w AS (INSERT INTO writable VALUES (1) RETURNING a) SELECT a FROM w",
        "SELECT a FROM writable; DELETE FROM writable",
        "SELECT 1) TO STDOUT; DELETE FROM writable; --",
        "SELECT * INTO copied FROM writable",
        "SELECT nextval('numbers')",
        "DROP TABLE writable",
    ] {
        let error = refused(warehouse.as_ref(), sql).await;
        assert_eq!(error.kind, Sql, "{sql}: {error}");
    }
    assert_eq!(server.psql(DATABASE, "SELECT count(*) FROM writable"), "0");
}

#[tokio::test]
async fn a_write_inside_a_function_is_stopped_by_the_session() {
    let (server, warehouse) = shop();
    server.psql(
        DATABASE,
        "CREATE OR REPLACE FUNCTION sneak() RETURNS int LANGUAGE sql AS 'INSERT INTO writable VALUES (1) RETURNING a'",
    );
    let error = refused(warehouse.as_ref(), "SELECT sneak() AS a").await;
    assert_eq!(error.kind, Sql);
    assert!(error.message.contains("read-only transaction"), "{error}");
    assert!(error.hint.unwrap().contains("only reads"));
    assert_eq!(server.psql(DATABASE, "SELECT count(*) FROM writable"), "0");
}

#[tokio::test]
async fn an_error_in_the_sql_shows_its_line_and_a_caret() {
    let (_server, warehouse) = shop();
    let sql = "SELECT email\nFROM custmers\nWHERE true;";
    let expected = "relation \"custmers\" does not exist\nLINE 2: FROM custmers\n             ^";
    for error in [warehouse.describe(sql).await.unwrap_err(), refused(warehouse.as_ref(), sql).await] {
        assert_eq!((error.kind, error.message.as_str()), (Sql, expected));
        assert!(error.hint.unwrap().contains("connection tables"));
    }
    let error = refused(warehouse.as_ref(), "SELECT id,\n  'ü', emial FROM customers").await;
    assert_eq!(error.message, "column \"emial\" does not exist\nLINE 2:   'ü', emial FROM customers\n               ^");
    // found only when it runs, in a statement of ours around it
    let error = refused(warehouse.as_ref(), "SELECT id,\n  1 / (id - id) AS x FROM customers").await;
    assert_eq!((error.kind, error.message.as_str()), (Sql, "division by zero"));
}

#[tokio::test]
async fn statements_that_are_no_query_are_refused_before_they_run() {
    let (_server, warehouse) = shop();
    for (sql, word) in
        [("SELECT $1::int", "parameters"), ("SELECT", "no columns"), ("SELECT FROM customers", "no columns")]
    {
        let error = warehouse.describe(sql).await.unwrap_err();
        assert!(error.kind == Sql && error.message.contains(word), "{sql}: {error}");
    }
    let hidden = "WITH w AS (DELETE FROM writable RETURNING a) SELECT a FROM w";
    assert_eq!(warehouse.describe(hidden).await.unwrap_err().kind, Sql);
}

#[tokio::test]
async fn a_missing_grant_is_a_matter_of_configuration() {
    let (_server, warehouse) = shop();
    let error = refused(warehouse.as_ref(), "SELECT a FROM secrets").await;
    assert_eq!(error.kind, Configuration);
    assert!(error.message.contains("permission denied for table secrets"), "{error}");
    assert!(error.hint.unwrap().contains("GRANT SELECT"));
}

#[tokio::test]
async fn a_refused_login_tells_what_to_check_and_no_secret() {
    let (server, _) = shop();
    for (values, word) in [
        ([("password", "wr0ng-passw0rd")].as_slice(), "password"),
        (&[("user", "nobody"), ("password", "wr0ng-passw0rd")], "user"),
        (&[("database", "nowhere")], "database"),
    ] {
        let error = open(&params_with(&server, values)).describe("SELECT 1").await.unwrap_err();
        assert_eq!(error.kind, Configuration, "{error}");
        assert!(error.hint.as_ref().unwrap().contains(word), "{error:?}");
        assert!(!format!("{error:?}").contains("wr0ng") && !format!("{error:?}").contains("r3ader"));
    }
    let mut without = ConnectionParams::new("shop", "/");
    for name in ["host", "port", "database", "user", "sslmode"] {
        without.set(name, params(&server).text(name).unwrap());
    }
    let error = open(&without).describe("SELECT 1").await.unwrap_err();
    assert_eq!(error.kind, Configuration);
    assert!(error.hint.unwrap().contains("set `password`"));
    assert!(!format!("{:?}", open(&params(&server))).contains("r3ader"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_worth_another_try() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut params = ConnectionParams::new("shop", "/");
    for (name, value) in [("host", "127.0.0.1"), ("port", &port), ("database", "shop"), ("user", "reader")] {
        params.set(name, value);
    }
    let error = open(&params).tables().await.unwrap_err();
    assert_eq!(error.kind, RETRY);
    assert!(error.message.contains(&format!("127.0.0.1:{port} cannot be reached")), "{error}");
    params.set("host", "no-such-host.invalid");
    let error = open(&params).tables().await.unwrap_err();
    assert!(error.message.contains("`no-such-host.invalid` cannot be resolved"), "{error}");
    assert!(error.hint.unwrap().contains("`host`"));
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_given_up_in_time() {
    // takes connections and says nothing
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut params = ConnectionParams::new("shop", "/");
    let port = silent.local_addr().unwrap().port().to_string();
    for (name, value) in
        [("host", "127.0.0.1"), ("port", &port), ("database", "shop"), ("user", "reader"), ("connect_timeout", "300ms")]
    {
        params.set(name, value);
    }
    let began = Instant::now();
    let error = open(&params).tables().await.unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(error.kind, RETRY);
    assert!(error.message.contains("did not answer within 0.3s"), "{error}");
}

#[tokio::test]
async fn a_statement_timeout_says_which_and_what_to_do() {
    let (server, warehouse) = shop();
    let by_connection = open(&params_with(&server, &[("statement_timeout", "200ms")]));
    let error = refused(by_connection.as_ref(), "SELECT pg_sleep(30)").await;
    assert_eq!(error.kind, Sql);
    assert!(error.message.contains("statement timeout of 0.2s"), "{error}");
    assert!(error.hint.unwrap().contains("statement_timeout"));

    let options = QueryOptions { timeout: Some(Duration::from_millis(300)), ..QueryOptions::default() };
    let error = drain(warehouse.query("SELECT pg_sleep(30)", &options).await.unwrap()).await.unwrap_err();
    assert!(error.message.contains("statement timeout of 0.3s"), "{error}");
}

fn running(server: &PostgresServer, mark: &str) -> bool {
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'COPY%{mark}%' AND state = 'active'");
    server.psql(DATABASE, &sql) != "0"
}

#[tokio::test]
async fn cancel_stops_the_query_in_the_server() {
    let (server, warehouse) = shop();
    let mut query = warehouse.query("SELECT pg_sleep(60) /* to cancel */", &QueryOptions::default()).await.unwrap();
    assert!(eventually(|| running(&server, "to cancel")).await);
    query.cancel.cancel().await;
    let error = cause(&query.stream.next().await.unwrap().unwrap_err());
    assert_eq!(error.kind, Cancelled);
    assert!(eventually(|| !running(&server, "to cancel")).await);
    query.cancel.cancel().await;
}

#[tokio::test]
async fn dropping_the_stream_stops_the_query_in_the_server() {
    let (server, warehouse) = shop();
    // before its first row
    let query = warehouse.query("SELECT pg_sleep(60) /* to drop */", &QueryOptions::default()).await.unwrap();
    assert!(eventually(|| running(&server, "to drop")).await);
    drop(query);
    assert!(eventually(|| !running(&server, "to drop")).await);
    // in the middle, with batches waiting
    let sql = "SELECT generate_series(1, 100000000) AS i, repeat('x', 4000) AS x /* half read */";
    let mut query = warehouse.query(sql, &QueryOptions::default()).await.unwrap();
    query.stream.next().await.unwrap().unwrap();
    drop(query);
    assert!(eventually(|| !running(&server, "half read")).await);
}

#[tokio::test]
async fn an_administrator_who_stops_the_query_is_named() {
    let (server, warehouse) = shop();
    let mut query = warehouse.query("SELECT pg_sleep(60) /* admin */", &QueryOptions::default()).await.unwrap();
    assert!(eventually(|| running(&server, "admin")).await);
    server.psql(DATABASE, "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%admin%'");
    let error = cause(&query.stream.next().await.unwrap().unwrap_err());
    assert_eq!(error.kind, Cancelled);
    assert!(error.hint.unwrap().contains("administrator"));
}

#[tokio::test]
async fn a_session_that_is_ended_by_the_server_is_worth_another_try() {
    let (server, warehouse) = shop();
    let mut query = warehouse.query("SELECT pg_sleep(60) /* ended */", &QueryOptions::default()).await.unwrap();
    assert!(eventually(|| running(&server, "ended")).await);
    server.psql(DATABASE, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%ended%'");
    let error = cause(&query.stream.next().await.unwrap().unwrap_err());
    assert_eq!(error.kind, RETRY, "{error}");
}

#[tokio::test]
async fn a_shutdown_in_the_middle_of_the_rows_is_worth_another_try() {
    let server = PostgresServer::start(false);
    let warehouse = open(&params(&server));
    let sql = "SELECT i, repeat('x', 4000) FROM generate_series(1, 1000000) AS i";
    let mut query = warehouse.query(sql, &QueryOptions::default()).await.unwrap();
    query.stream.next().await.unwrap().unwrap();
    server.shut_down();
    let mut last = None;
    while let Some(batch) = query.stream.next().await {
        last = Some(batch);
    }
    let error = cause(&last.unwrap().expect_err("the rows are not all there"));
    assert_eq!(error.kind, RETRY, "{error}");
    assert!(error.hint.is_some());
}

#[tokio::test]
async fn a_user_without_a_free_connection_may_try_again() {
    let (server, _) = shop();
    server.psql(DATABASE, "CREATE ROLE limited LOGIN PASSWORD 'l' CONNECTION LIMIT 0");
    let error = open(&params_with(&server, &[("user", "limited"), ("password", "l")])).tables().await.unwrap_err();
    assert_eq!(error.kind, RETRY, "{error}");
}
