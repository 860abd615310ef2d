//! `sslmode` by `sslmode`, against a server whose certificate is for `localhost` alone.

use std::sync::Arc;

use super::*;
use crate::warehouse::WarehouseErrorKind::Configuration;

fn secure() -> Arc<PostgresServer> {
    PostgresServer::shared(true, |server| {
        server.psql(DATABASE, "CREATE TABLE t AS SELECT 1 AS a; GRANT SELECT ON t TO reader, secure_reader");
    })
}

async fn attempt(
    server: &PostgresServer,
    mode: &str,
    host: &str,
    authority: Option<&str>,
) -> Result<String, WarehouseError> {
    let mut params = params_with(server, &[("sslmode", mode), ("host", host)]);
    if let Some(authority) = authority {
        params.set("ssl_root_cert", authority);
    }
    let warehouse = open(&params);
    warehouse.describe("SELECT 1").await?;
    let steps = warehouse.test().await;
    Ok(steps.into_iter().find(|s| s.step == "TLS").unwrap().detail)
}

#[tokio::test]
async fn each_mode_checks_what_it_promises() {
    let server = secure();
    let (own, other) = (Some("ca.pem"), Some("other-ca.pem"));
    for (mode, host, authority) in
        [("require", "127.0.0.1", None), ("require", "127.0.0.1", own), ("verify-full", "localhost", own)]
    {
        let detail = attempt(&server, mode, host, authority).await.unwrap();
        assert!(detail.starts_with("TLSv1.3, TLS_"), "{mode} {host} {authority:?}: {detail}");
    }
    assert_eq!(attempt(&server, "disable", "127.0.0.1", None).await.unwrap(), "not encrypted");

    for (mode, host, authority, hint) in [
        ("require", "127.0.0.1", other, "ssl_root_cert"),
        ("verify-full", "localhost", other, "ssl_root_cert"),
        // the system's authorities did not sign it
        ("verify-full", "localhost", None, "ssl_root_cert"),
        ("verify-full", "127.0.0.1", own, "another host name"),
    ] {
        let error = attempt(&server, mode, host, authority).await.unwrap_err();
        assert_eq!(error.kind, Configuration, "{mode} {host} {authority:?}: {error}");
        assert!(error.hint.as_ref().unwrap().contains(hint), "{mode} {host} {authority:?}: {error:?}");
    }
}

#[tokio::test]
async fn a_server_that_wants_encryption_says_so() {
    let server = secure();
    let plain = open(&params_with(&server, &[("user", "secure_reader")]));
    let error = plain.tables().await.unwrap_err();
    assert_eq!(error.kind, Configuration);
    assert!(error.hint.unwrap().contains("sslmode"));
    let encrypted = open(&params_with(&server, &[("user", "secure_reader"), ("sslmode", "require")]));
    assert_eq!(encrypted.tables().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_without_encryption_is_not_used_in_the_clear() {
    let (server, _) = shop();
    let error = attempt(&server, "require", "127.0.0.1", None).await.unwrap_err();
    assert_eq!(error.kind, Configuration);
    assert!(error.message.contains("does not offer encryption"), "{error}");
}

#[tokio::test]
async fn a_root_certificate_file_that_is_none_is_named() {
    let server = secure();
    for (file, word) in [("missing.pem", "cannot be read"), ("data/PG_VERSION", "holds no certificate")] {
        let error = attempt(&server, "require", "127.0.0.1", Some(file)).await.unwrap_err();
        assert_eq!(error.kind, Configuration);
        assert!(error.message.contains(word) && error.message.contains(file), "{error}");
    }
}

#[tokio::test]
async fn rows_and_cancels_travel_encrypted() {
    use futures::StreamExt;
    let server = secure();
    let values = [("sslmode", "verify-full"), ("host", "localhost"), ("ssl_root_cert", "ca.pem")];
    let warehouse = open(&params_with(&server, &values));
    let batch =
        read(warehouse.as_ref(), "SELECT i, repeat('x', 500) FROM generate_series(1, 50000) AS i").await.unwrap();
    assert_eq!(batch.num_rows(), 50_000);

    let mut query = warehouse.query("SELECT pg_sleep(60)", &QueryOptions::default()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    query.cancel.cancel().await;
    let error = cause(&query.stream.next().await.unwrap().unwrap_err());
    assert_eq!(error.kind, crate::warehouse::WarehouseErrorKind::Cancelled);
}
