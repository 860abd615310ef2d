//! A model on local-bigquery through the program, into profiles.

use serde_json::json;

use super::local::{LocalBigQuery, PROJECT};
use crate::project::{Project, Ran, counts};

const CONFIG: &str = "
name: People
connection: warehouse
primary_key: email
external_key: email
activated_fields: [city, spent, seen, tags, extra, address]
";

fn project(server: &LocalBigQuery) -> Project {
    let project = Project::new();
    project.write(
        "cloud-connect.yml",
        &format!(
            "profile:\n  identities:\n    - field: email\n      normalize: [trim, lowercase]\nconnections:\n  warehouse: {{ type: bigquery, \
             project: {PROJECT}, dataset: shop, labels: 'team=crm', maximum_bytes_billed: 10 GB, endpoint: '{}', \
             storage_endpoint: 'http://127.0.0.1:{}' }}\n",
            server.endpoint(),
            server.storage_port
        ),
    );
    project
}

fn cc(project: &Project, args: &[&str]) -> Ran {
    project.cc(args)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_model_on_bigquery_becomes_profiles_and_follows_its_changes() {
    let server = LocalBigQuery::start().await;
    server
        .sql(
            "CREATE TABLE shop.members AS SELECT CONCAT('p', CAST(i AS STRING), '@example.com') AS email,
                CONCAT('city ', CAST(MOD(i, 10) AS STRING)) AS city, CAST(i AS NUMERIC) + NUMERIC '0.25' AS spent,
                TIMESTAMP_ADD(TIMESTAMP '2026-01-01 00:00:00+00', INTERVAL i HOUR) AS seen,
                ['a', CONCAT('b', CAST(i AS STRING))] AS tags, PARSE_JSON(CONCAT('{\"n\":', CAST(i AS STRING), '}')) AS extra,
                STRUCT('Zürich' AS town, i AS floor) AS address
             FROM UNNEST(GENERATE_ARRAY(1, 5000)) AS i",
        )
        .await;
    let project = project(&server);
    project.model("people", CONFIG, "SELECT * FROM members # all of them");
    let run = tokio::task::spawn_blocking(move || {
        let tested = cc(&project, &["connection", "test", "warehouse"]).ok();
        assert!(tested.stdout.contains("Storage Read API"), "{}", tested.stdout);
        cc(&project, &["check"]).ok();
        let first = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
        assert_eq!(counts(&first, ["rows", "added", "profiles_created"]), [5000, 5000, 5000]);
        let profile = cc(&project, &["profile", "email", "P7@example.com", "--output", "json"]).ok().json();
        let attributes = &profile["attributes"];
        assert_eq!(attributes["cc_people_city"], "city 7");
        assert_eq!(attributes["cc_people_seen"], "2026-01-01T07:00:00Z");
        assert_eq!(attributes["cc_people_tags"], json!(["a", "b7"]));
        assert_eq!(attributes["cc_people_extra"], json!({ "n": 7 }));
        assert_eq!(attributes["cc_people_address"], json!({ "town": "Zürich", "floor": 7 }));
        assert_eq!(attributes["cc_people_spent"], "7.250000000");
        project
    });
    let project = run.await.unwrap();

    server.sql("UPDATE shop.members SET city = 'moved' WHERE email IN ('p1@example.com', 'p2@example.com')").await;
    server.sql("DELETE FROM shop.members WHERE email = 'p3@example.com'").await;
    server.sql("INSERT INTO shop.members (email, spent) VALUES ('new@example.com', NUMERIC '1')").await;
    let run = tokio::task::spawn_blocking(move || {
        let second = cc(&project, &["run", "--output", "json"]).ok().json()[0].clone();
        let counted = counts(&second, ["rows", "added", "changed", "removed", "unchanged", "quarantined"]);
        assert_eq!(counted, [5000, 1, 2, 1, 4997, 0]);
        let profile = cc(&project, &["profile", "email", "p2@example.com", "--output", "json"]).ok().json();
        assert_eq!(profile["attributes"]["cc_people_city"], "moved");
        // a fault of the SQL is shown in BigQuery's words, at its place
        project.model("people", CONFIG, "SELECT email,\n  no_such_function(city) AS city\nFROM members");
        let ran = cc(&project, &["run"]);
        assert_eq!(ran.code, Some(1));
        assert!(ran.stdout.contains("no_such_function") && ran.stdout.contains('^'), "{}", ran.stdout);
    });
    run.await.unwrap();
}
