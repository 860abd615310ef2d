//! What only Redshift has.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use cloud_connect::warehouse::{ConnectionParams, QueryOptions, WarehouseError, WarehouseErrorKind};
use futures::StreamExt;

use super::{World, s3};
use crate::postgres_server::{DATABASE, PostgresServer, READER_PASSWORD};
use crate::suite::{self, Subject, cells, of_stream, read};

const RETRY: WarehouseErrorKind = WarehouseErrorKind::Retry { after: None };

fn open(world: &World, values: &[(&str, &str)]) -> std::sync::Arc<dyn cloud_connect::warehouse::Warehouse> {
    suite::open(world, &world.params_with(values))
}

fn said(error: &WarehouseError) -> String {
    format!("{error} {}", error.hint.as_deref().unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_session_of_redshift() {
    let world = World::start(false).await;
    let state = &world.fake.state;

    // a single-node cluster gives 1000 rows at a time: found out by itself
    state.single_node.store(true, Ordering::SeqCst);
    let (_, batches) =
        read(&*open(&world, &[]), "SELECT i AS id FROM generate_series(1, 2500) i ORDER BY 1").await.unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 2500);
    state.single_node.store(false, Ordering::SeqCst);

    // a result that ends exactly with a fetch
    for (rows, fetch) in [(2000, "1000"), (0, "1000"), (1, "1"), (2001, "1000")] {
        let sql = format!("SELECT i AS id FROM generate_series(1, {rows}) i");
        let (_, batches) = read(&*open(&world, &[("fetch_rows", fetch)]), &sql).await.unwrap();
        assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), rows, "{rows} by {fetch}");
    }

    // labels and schema
    let (_, batches) = read(
        &*open(&world, &[("query_group", "cloud\\connect's"), ("schema", "spectrum")]),
        "SELECT 'it\\'s' AS a, current_schema() AS schema",
    )
    .await
    .unwrap();
    assert_eq!(cells(&batches, "schema"), [Some("spectrum".to_string())]);
    assert_eq!(cells(&batches, "a"), [Some("it's".to_string())]);
    let statements = state.statements.lock().unwrap().clone();
    assert!(statements.contains(&"SET query_group TO 'cloud\\\\connect''s'".to_string()), "{statements:?}");
    assert!(statements.contains(&"BEGIN READ ONLY".to_string()));

    // an external table is noted in the catalog at its first look, which a read-only transaction refuses
    let (_, batches) = read(&*open(&world, &[]), "SELECT id FROM spectrum.sales ORDER BY 1").await.unwrap();
    assert_eq!(cells(&batches, "id").len(), 2);

    // types that cannot be read
    for (sql, says) in [
        ("SELECT circle '((0,0),1)' AS sketch", "HLL_CARDINALITY"),
        ("SELECT string_to_array('a,b', ',') AS list", "::varchar"),
        ("SELECT $1::int AS a", "parameters"),
    ] {
        let error = open(&world, &[]).describe(sql).await.unwrap_err();
        assert_eq!(error.kind, WarehouseErrorKind::Sql);
        assert!(said(&error).contains(says), "{error:?}");
    }

    let estimate = open(&world, &[]).estimate("SELECT * FROM people WHERE id > 3").await.unwrap().unwrap();
    assert!(estimate.rows.unwrap() > 0 && estimate.planner_cost.unwrap().contains(".."));
    assert_eq!(estimate.source, "EXPLAIN");
    let error = open(&world, &[]).estimate("SELECT nope FROM people").await.unwrap_err();
    assert!(error.message.contains("LINE 1") && error.message.contains('^'), "{error}");

    // whatever a cluster's binary form of a numeric is, it is not asked for
    let (_, batches) =
        read(&*open(&world, &[]), "SELECT '-12.30'::numeric(8,2) AS a, 1.5::numeric AS b").await.unwrap();
    assert_eq!((cells(&batches, "a"), cells(&batches, "b")), (vec![Some("-12.30".into())], vec![Some("1.5".into())]));
    let declared = state.statements.lock().unwrap().iter().rfind(|s| s.starts_with("DECLARE")).cloned().unwrap();
    assert!(declared.contains("c0::text AS c0, c1::text AS c1"), "{declared}");

    // duplicate and odd names
    let (schema, batches) =
        read(&*open(&world, &[]), "SELECT 1 AS a, 2 AS a, '{}'::jsonb AS \"Ä \"\"b\"").await.unwrap();
    assert_eq!(schema.fields().len(), 3);
    assert_eq!(batches[0].num_rows(), 1);

    world.sent_nothing_that_redshift_refuses();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_clusters_trouble_is_told_with_what_to_do() {
    use WarehouseErrorKind::Configuration;
    let world = World::start(false).await;
    let state = &world.fake.state;
    for (code, message, kind, hint) in [
        ("57014", "Query (9) cancelled by WLM abort action of Query Monitoring Rule \"r\"", Configuration, "rule"),
        ("XX000", "1023: Serializable isolation violation on table - 100", RETRY, "again"),
        ("XX000", "Disk Full", RETRY, "disk"),
        ("42501", "permission denied for relation people", Configuration, "GRANT"),
        ("57P01", "terminating connection due to administrator command", RETRY, "again"),
    ] {
        state.fail_next.lock().unwrap().push((code, message.into()));
        let error = read(&*open(&world, &[]), "SELECT 1 AS a").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error:?}");
    }
    for (code, message, kind, hint) in [
        ("28000", "password authentication failed for user \"IAM:ann\"", Configuration, "get-cluster-credentials"),
        ("57P03", "Cluster is paused", RETRY, "resume"),
        ("57P03", "Cluster is resuming", RETRY, "minutes"),
    ] {
        *state.fail_logins.lock().unwrap() = Some((code, message.into()));
        let error = open(&world, &[("user", "IAM:ann")]).describe("SELECT 1 AS a").await.unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.hint.clone().unwrap_or_default().contains(hint), "{error:?}");
        let steps = open(&world, &[]).test().await;
        assert!(!steps.last().unwrap().ok && steps.last().unwrap().step == "log in", "{steps:?}");
    }
    *state.fail_logins.lock().unwrap() = None;
    state.digest_logins.store(true, Ordering::SeqCst);
    let error = open(&world, &[]).describe("SELECT 1 AS a").await.unwrap_err();
    assert_eq!(error.kind, Configuration);
    assert!(error.hint.clone().unwrap_or_default().contains("SHA-256"), "{error:?}");
    state.digest_logins.store(false, Ordering::SeqCst);

    // rows that stop coming
    state.stall_after_rows.store(3000, Ordering::SeqCst);
    let began = Instant::now();
    let sql = "SELECT i AS id FROM generate_series(1, 50000) i";
    let error = read(&*open(&world, &[("idle_timeout", "1s")]), sql).await.unwrap_err();
    assert_eq!(error.kind, RETRY);
    assert!(error.message.contains("stopped coming for 1s"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10));
    state.stall_after_rows.store(0, Ordering::SeqCst);
    world.stop().await;
}

fn last_unload(world: &World) -> String {
    let statements = world.fake.state.statements.lock().unwrap();
    statements.iter().rev().find(|s| s.starts_with("UNLOAD")).cloned().unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn results_through_s3() {
    let world = World::start(true).await;
    let state = &world.fake.state;
    let unloads = || state.unloads.load(Ordering::SeqCst);
    let warehouse = open(&world, &[]);

    // every slice at once, when no order is asked for: all rows come, from several files
    let sql = "SELECT i AS id, 'it\\'s ' || i AS name FROM generate_series(1, 50000) i";
    let (_, batches) = read(&*warehouse, sql).await.unwrap();
    let mut ids: Vec<u64> = cells(&batches, "id").into_iter().map(|id| id.unwrap().parse().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=50_000).collect::<Vec<_>>());
    assert_eq!(unloads(), 1);
    assert!(!last_unload(&world).contains("PARALLEL OFF"));
    // one slice, when an order is asked for
    read(&*warehouse, "SELECT i AS id FROM generate_series(1, 10) i ORDER BY 1").await.unwrap();
    assert!(last_unload(&world).contains("PARALLEL OFF") && last_unload(&world).contains("REGION AS 'us-east-1'"));
    assert_eq!(unloads(), 2);
    // a LIMIT stands in a subquery; so do columns of one name
    for sql in ["SELECT id FROM spectrum.sales LIMIT 1", "SELECT 1 AS a, 2 AS a"] {
        let (_, batches) = read(&*warehouse, sql).await.unwrap();
        assert_eq!(batches[0].num_rows(), 1, "{sql}");
    }
    assert_eq!(unloads(), 4);
    // an order that files would lose, and samples, go through the cursor
    read(&*warehouse, "SELECT i AS id, '{}'::jsonb AS extra FROM generate_series(1, 3) i ORDER BY 1").await.unwrap();
    let sample = QueryOptions { limit: Some(3), ..QueryOptions::default() };
    suite::read_with(&*warehouse, "SELECT i AS id FROM generate_series(1, 9) i", &sample).await.unwrap();
    assert_eq!(unloads(), 4);
    // the cluster's default role
    read(&*open(&world, &[("unload_role", "default")]), "SELECT 1 AS a").await.unwrap();
    assert!(last_unload(&world).contains("IAM_ROLE default"));
    assert_eq!(s3::objects(world.s3()).await, Vec::<String>::new());

    // what goes wrong
    let error =
        read(&*open(&world, &[("unload_role", "arn:aws:iam::1:role/other")]), "SELECT 1 AS a").await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Configuration);
    assert!(said(&error).contains("attach the role"), "{error:?}");
    let error = read(&*open(&world, &[("unload_bucket", "s3://elsewhere/x")]), "SELECT 1 AS a").await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Configuration, "{error:?}");
    let steps = open(&world, &[("unload_role", "arn:aws:iam::1:role/other")]).test().await;
    let last = steps.last().unwrap();
    assert!(last.step == "unload" && !last.ok && last.detail.contains("attach the role"), "{steps:?}");
    let error =
        read(&*open(&world, &[("statement_timeout", "1s")]), "SELECT 1 AS a FROM pg_sleep(30)").await.unwrap_err();
    assert!(error.message.contains("statement timeout of 1s"), "{error}");
    world.sent_nothing_that_redshift_refuses();
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_download_goes_on_where_it_broke_off_and_leaves_nothing() {
    let world = World::start(true).await;
    let way = &world.unload.as_ref().unwrap().way;
    way.cut_once();
    let sql = "SELECT i AS id, md5(i::text) AS name FROM generate_series(1, 60000) i ORDER BY 1";
    let (_, batches) = read(&*open(&world, &[]), sql).await.unwrap();
    assert_eq!(batches.iter().map(|b| b.num_rows()).sum::<usize>(), 60_000);
    assert!(way.is_whole(), "nothing was cut");
    assert_eq!(world.queries_run(), Some(1));

    // files that somebody removes meanwhile are missed, not left out
    let mut running = open(&world, &[]).query(&sql.replace("60000", "250000"), &QueryOptions::default()).await.unwrap();
    let first = running.stream.next().await.unwrap().unwrap();
    assert!(first.num_rows() > 0);
    for file in s3::objects(world.s3()).await {
        world.s3().store().delete_stream(Box::pin(futures::stream::iter([Ok(file.as_str().into())]))).next().await;
    }
    let mut outcome = Ok(());
    while let Some(batch) = running.stream.next().await {
        outcome = batch.map(|_| ());
    }
    let error = of_stream(outcome.unwrap_err());
    assert!(!error.message.contains(super::SECRET_KEY), "{error}");

    // dropped in the middle of its files
    let mut running = open(&world, &[]).query(&sql.replace("60000", "250000"), &QueryOptions::default()).await.unwrap();
    running.stream.next().await.unwrap().unwrap();
    drop(running);
    let end = Instant::now() + Duration::from_secs(10);
    while !s3::objects(world.s3()).await.is_empty() {
        assert!(Instant::now() < end, "files are left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.stop().await;
}

/// Types that the client does not know are hidden from it over TLS too. (PostgreSQL itself, so without Redshift's own.)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_checked_as_for_postgres() {
    let server = tokio::task::spawn_blocking(|| PostgresServer::start(true)).await.unwrap();
    let params = |root: &std::path::Path| {
        let mut params = ConnectionParams::new("dwh", "/");
        for (name, value) in [
            ("host", "localhost"),
            ("port", &server.port.to_string()),
            ("database", DATABASE),
            ("user", "secure_reader"),
            ("password", READER_PASSWORD),
            ("sslmode", "verify-full"),
            ("ssl_root_cert", root.to_str().unwrap()),
        ] {
            params.set(name, value);
        }
        params
    };
    let build = |params| (cloud_connect::warehouse::provider("redshift").unwrap().build)(&params).unwrap();
    let (_, batches) = read(&*build(params(&server.authority())), "SELECT 1 AS a").await.unwrap();
    assert_eq!(cells(&batches, "a"), [Some("1".to_string())]);
    let error = read(&*build(params(&server.other_authority())), "SELECT 1 AS a").await.unwrap_err();
    assert_eq!(error.kind, WarehouseErrorKind::Configuration, "{error}");
    tokio::task::spawn_blocking(move || drop(server)).await.unwrap();
}
