//! Every way to log in, and its failures.

use std::time::Duration;

use cloud_connect::warehouse::{ConnectionParams, QueryOptions, WarehouseErrorKind};
use serde_json::json;

use super::fake::Fake;
use crate::fakes::bigquery::script::{self, numbers};
use crate::fakes::bigquery::{CLIENT_ID, CLIENT_SECRET, EMAIL, FakeBigQuery, Faults, PROJECT, REFRESH_TOKEN};
use crate::project::{Project, Ran};
use crate::suite::{self, Subject, read};

fn with_consent(fake: &Fake) -> ConnectionParams {
    let mut params = fake.without_login();
    params.set("oauth_refresh_token", REFRESH_TOKEN);
    params.set("oauth_client_id", CLIENT_ID);
    params.set("oauth_client_secret", CLIENT_SECRET);
    params
}

fn is_good(steps: &[cloud_connect::warehouse::TestStep]) -> bool {
    steps.iter().all(|s| s.ok)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_and_a_consent_log_in() {
    let fake = Fake::start().await;
    for (params, title) in [(fake.params(), EMAIL), (with_consent(&fake), "refresh token")] {
        let steps = suite::open(&fake, &params).test().await;
        assert!(is_good(&steps), "{steps:?}");
        let names: Vec<_> = steps.iter().map(|s| s.step.as_str()).collect();
        assert_eq!(names, ["resolve name", "connect", "log in", "dry run", "read", "tables"]);
        assert!(steps[2].detail.contains(title), "{steps:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_login_says_what_to_do() {
    let fake = Fake::start().await;
    let other = FakeBigQuery::start(script::script()).await;
    let mut foreign: serde_json::Value = serde_json::from_str(&other.service_account_key()).unwrap();
    foreign["token_uri"] = json!(format!("{}/token", fake.server.endpoint()));
    let changed = |name: &str, value: &str| {
        let mut params = with_consent(&fake);
        params.set(name, value);
        params
    };
    let mut with_foreign_key = fake.without_login();
    with_foreign_key.set("service_account_key", foreign.to_string());
    for (params, says, hint) in [
        (with_foreign_key, "Invalid JWT Signature", "new key"),
        (changed("oauth_refresh_token", "0ther-s3cret"), "expired or revoked", "new refresh token"),
        (changed("oauth_client_secret", "0ther-s3cret"), "OAuth client was not found", "oauth_client_secret"),
    ] {
        let warehouse = suite::open(&fake, &params);
        let error = warehouse.describe("SELECT 1 AS one").await.unwrap_err();
        assert_eq!(error.kind, WarehouseErrorKind::Configuration, "{error}");
        let whole = format!("{error} {:?}", error.hint);
        assert!(whole.contains(says) && whole.contains(hint), "{whole}");
        assert!(!whole.contains("0ther-s3cret") && !whole.contains(&other.key_line()), "{whole}");
        let last = warehouse.test().await.pop().unwrap();
        assert!(!last.ok && last.step == "log in", "{last:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_kept_until_shortly_before_its_end() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &fake.params());
    for _ in 0..3 {
        read(&*warehouse, &numbers(10)).await.unwrap();
    }
    assert_eq!(fake.server.tokens_granted(), 1);

    fake.server.set_faults(Faults { token_seconds: Some(1), ..Faults::default() });
    let warehouse = suite::open(&fake, &fake.params());
    warehouse.describe(&numbers(10)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(700)).await;
    warehouse.describe(&numbers(10)).await.unwrap();
    assert_eq!(fake.server.tokens_granted(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_withdrawn_token_is_renewed_between_and_during_requests() {
    let fake = Fake::start().await;
    let warehouse = suite::open(&fake, &fake.params());
    warehouse.describe(&numbers(10)).await.unwrap();
    fake.server.withdraw_tokens();
    warehouse.describe(&numbers(10)).await.unwrap();
    // while the job runs: the look at its state goes through the crate's client
    let running = warehouse.query("SELECT * FROM shop.brief", &QueryOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    fake.server.withdraw_tokens();
    let batches: Vec<_> = futures::TryStreamExt::try_collect(running.stream).await.unwrap();
    assert_eq!(batches.len(), 1);
    assert_eq!(fake.server.tokens_granted(), 3);
}

/// `connection test` by the program, with such an environment.
fn test_with(fake: &Fake, environment: &[(&str, &str)]) -> Ran {
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\nconnections:\n  warehouse: {{ type: bigquery, project: {PROJECT}, \
             endpoint: '{}', storage_endpoint: '{}' }}\n",
            fake.server.endpoint(),
            fake.server.storage_endpoint()
        ),
    );
    for (name, text) in [
        ("key.json", fake.server.service_account_key()),
        (
            "user.json",
            json!({ "type": "authorized_user", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "refresh_token": REFRESH_TOKEN })
                .to_string(),
        ),
        ("other.json", json!({ "type": "external_account", "audience": "x" }).to_string()),
    ] {
        project.write(name, &text);
    }
    let mut command = project.command(&["connection", "test", "warehouse"]);
    command.current_dir(project.path()).env("HOME", project.path());
    for name in ["GOOGLE_APPLICATION_CREDENTIALS", "GCE_METADATA_HOST", "CLOUDSDK_CONFIG"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied()).output().unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn application_default_credentials_are_found_as_googles_own_tools_do() {
    let fake = Fake::start().await;
    let metadata = fake.server.state.address.to_string();
    let tested = tokio::task::spawn_blocking(move || {
        let file = "GOOGLE_APPLICATION_CREDENTIALS";
        [
            (test_with(&fake, &[(file, "key.json")]), true, EMAIL),
            (test_with(&fake, &[(file, "user.json")]), true, "refresh token"),
            (test_with(&fake, &[("GCE_METADATA_HOST", &metadata)]), true, "machine's service account"),
            (test_with(&fake, &[(file, "missing.json")]), false, "cannot be read"),
            (test_with(&fake, &[(file, "other.json")]), false, "external_account"),
            (test_with(&fake, &[("GCE_METADATA_HOST", "127.0.0.1:1")]), false, "no credentials were found"),
        ]
    });
    for (ran, ok, says) in tested.await.unwrap() {
        assert_eq!(ran.code == Some(0), ok, "{ran:?}");
        let text = format!("{}{}", ran.stdout, ran.stderr);
        // the output is wrapped
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(says), "{says}: {text}");
        for secret in [CLIENT_SECRET, REFRESH_TOKEN, "PRIVATE KEY"] {
            assert!(!text.contains(secret), "{text}");
        }
    }
}
