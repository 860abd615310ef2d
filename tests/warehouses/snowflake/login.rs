//! Logging in.

use std::process::Command;
use std::time::Duration;

use cloud_connect::warehouse::{QueryOptions, WarehouseErrorKind};
use serde_json::json;

use super::*;
use crate::process::standin;
use crate::suite::read_with;

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
